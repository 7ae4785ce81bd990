// One exchange on the page: what was said, what was heard in it, what came back. All text enters as textContent.

import { crisisCard } from "./crisis.js";
import { family, hedge, likeliest, mood, percent, strength } from "./feelings.js";
import { copy } from "./template.js";

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
  const element = document.createElement("div");
  element.className = "exchange";
  const user = copy("user-turn");
  user.querySelector(".said").textContent = exchange.said;
  user.querySelector(".beside").append(action("Edit", "Edit what you said", actions.edit));
  const reply = copy("reply-turn");
  reply.hidden = true;
  element.append(user, reply);
  const voices = {};

  /** The reading is here, before the reply's first word. */
  function heard(reading, restored = false) {
    for (const shown of element.querySelectorAll(".reading")) shown.remove();
    const { strategy, risk } = reading;
    const emotion = mood(reading);
    if (emotion) {
      user.dataset.feeling = family(emotion.label);
      user.style.setProperty("--sure", strength(emotion.probability));
      user.querySelector(".beside").prepend(scores(emotion, "heard", "What it heard in your words. It is often wrong."));
    }
    if (strategy) {
      reply.querySelector(".beside").prepend(scores(strategy, "chosen", "How it meant to answer, settled before its first word."));
    }
    warn(risk, restored);
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
    if (!note) return;
    const line = document.createElement("p");
    line.className = "quiet note";
    line.textContent = note;
    voice.append(line);
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
function scores(reading, kind, explanation) {
  const shown = copy("reading");
  shown.dataset.kind = kind;
  const button = shown.querySelector("button");
  const list = shown.querySelector(".scores");
  const words = hedge(reading.probability) + reading.label;
  button.querySelector(".word").textContent = words;
  button.setAttribute("aria-label", `${kind === "heard" ? "Heard" : "Way of answering"}: ${words}. Show probabilities`);
  list.querySelector("p").textContent = explanation;
  list.querySelector("ol").append(...likeliest(reading.scores).map(([label, probability]) => bar(label, probability, kind)));
  button.addEventListener("click", () => {
    list.hidden = !list.hidden;
    button.setAttribute("aria-expanded", String(!list.hidden));
  });
  return shown;
}

function bar(label, probability, kind) {
  const line = copy("score");
  line.querySelector(".name").textContent = label;
  line.querySelector(".bar span").style.width = `${100 * probability}%`;
  line.querySelector("data").value = String(probability);
  line.querySelector("data").textContent = percent(probability);
  if (kind === "heard") line.dataset.feeling = family(label);
  return line;
}

function action(text, label, run) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "action";
  button.textContent = text;
  button.setAttribute("aria-label", label);
  button.addEventListener("click", run);
  return button;
}
