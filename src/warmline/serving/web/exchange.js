// One exchange on the page: what was said, what was heard in it, what came back. All text enters as textContent.

import { crisisCard } from "./crisis.js";
import { copy, make } from "./dom.js";
import { family, feeling, hedge, likeliest, percent, shown, words } from "./heads.js";

const NAMES = { reply: "warmline", base: "The base, untuned" };

/**
 * Put an exchange on the page.
 *
 * @param exchange see store.js; what it already holds is shown.
 * @param previous the exchange before it, or null.
 * @param actions {edit(), again()} for the newest exchange's two buttons.
 * @returns {{element, heard, begin, add, end, withdraw, settle, trouble}} ways to show more of it as it comes.
 */
export function exchangeView(exchange, previous, actions) {
  const user = copy("user-turn");
  user.querySelector(".said").textContent = exchange.said;
  user.querySelector(".beside").append(action("Edit", "Edit what you said", actions.edit));
  const reply = copy("reply-turn");
  reply.hidden = true;
  const element = make("div", { className: "exchange" }, user, reply);
  const voices = {};

  /** The reading is here, before the reply's first word. */
  function heard(reading, restored = false) {
    for (const earlier of element.querySelectorAll(".reading")) earlier.remove();
    const felt = feeling(reading);
    if (felt) {
      user.dataset.feeling = felt.family;
      user.style.setProperty("--sure", felt.strength);
    }
    user.querySelector(".beside").prepend(...shown(reading, "message").map(scores));
    reply.querySelector(".beside").prepend(...shown(reading, "reply").map(scores));
    warn(reading.risk, restored);
  }

  /** The card of the guard, which is there before anything else, and is not put there a second time. */
  function warn(risk, restored) {
    const shown = element.querySelector(".crisis");
    if (shown && shown.dataset.message === risk?.message) return;
    shown?.remove();
    if (!risk || risk.level === "none") return;
    const again = !risk.alone && previous?.reading?.risk?.message === risk.message;
    const card = crisisCard(risk, again, restored);
    card.dataset.message = risk.message ?? "";
    (risk.level === "red" ? user : reply).after(card);
  }

  /** A voice ("reply" or "base") begins to speak. */
  function begin(name) {
    reply.hidden = false;
    const voice = copy("voice");
    voice.dataset.voice = name;
    voice.setAttribute("aria-busy", "true");
    voice.querySelector(".who").textContent = NAMES[name];
    voice.setAttribute("aria-label", NAMES[name]);
    reply.querySelector(".voices").append(voice);
    voices[name] = voice;
    reply.classList.toggle("two", "base" in voices);
  }

  /** A piece of its text. */
  function add(name, text) {
    voices[name].querySelector(".said").append(text);
  }

  /** It has said what it says. */
  function end(name, said, why = "") {
    const voice = voices[name];
    voice.removeAttribute("aria-busy");
    voice.querySelector(".said").textContent = said?.text ?? "";
    const note = why || (said?.unfinished ? "Stopped here." : said ? "" : "No words came.");
    if (note) voice.append(make("p", { className: "quiet note" }, note));
  }

  /** It says nothing, since the guard answers alone. */
  function withdraw(name) {
    voices[name].remove();
    delete voices[name];
    reply.classList.remove("two");
    reply.hidden = true;
  }

  /** Nothing more will come: offer another try. */
  function settle() {
    if (reply.querySelector(".again") || exchange.reading?.risk?.alone) return;
    reply.hidden = false;
    const button = action("Try again", "Ask for another reply", actions.again);
    button.classList.add("again");
    reply.querySelector(".beside").append(button);
  }

  /** It went wrong: say so, and how to go on. */
  function trouble(what, detail) {
    const card = copy("trouble");
    card.querySelector(".what").textContent = what;
    card.querySelector(".detail").textContent = detail;
    card.querySelector("button").addEventListener("click", actions.again);
    element.append(card);
    reply.hidden = !exchange.reply && !exchange.base;
  }

  if (exchange.reading) heard(exchange.reading, true);
  for (const name of Object.keys(NAMES)) {
    if (!exchange[name]) continue;
    begin(name);
    end(name, exchange[name]);
  }
  return { element, heard, begin, add, end, withdraw, settle, trouble };
}

/** A word that opens into the likeliest labels with their probabilities. */
function scores({ head, label, probability, scores }) {
  const reading = copy("reading");
  reading.dataset.head = head.name;
  const hue = family(head, label);
  if (hue) reading.dataset.feeling = hue;
  const button = reading.querySelector("button");
  const list = reading.querySelector(".scores");
  const said = hedge(probability) + words(head, label);
  button.querySelector(".word").textContent = said;
  button.ariaLabel = `${head.title}: ${said}. Show probabilities`;
  list.querySelector("p").textContent = head.explanation;
  list.querySelector("ol").append(...likeliest(scores).map(([one, share]) => bar(head, one, share)));
  button.addEventListener("click", () => {
    list.hidden = !list.hidden;
    button.ariaExpanded = String(!list.hidden);
  });
  return reading;
}

function bar(head, label, probability) {
  const line = copy("score");
  line.querySelector(".name").textContent = words(head, label);
  line.querySelector(".bar span").style.width = `${100 * probability}%`;
  line.querySelector("data").value = String(probability);
  line.querySelector("data").textContent = percent(probability);
  const hue = family(head, label);
  if (hue) line.dataset.feeling = hue;
  return line;
}

function action(text, ariaLabel, run) {
  const button = make("button", { type: "button", className: "action", ariaLabel }, text);
  button.addEventListener("click", run);
  return button;
}
