// The page: sends what is said, shows what comes back, keeps it in this browser.

import { announce, hear, hush } from "./announce.js";
import { about, keepKey, stream } from "./api.js";
import { ask } from "./dialogs.js";
import { at } from "./dom.js";
import { exchangeView } from "./exchange.js";
import { feeling, learn } from "./heads.js";
import { menu } from "./menu.js";
import { toEnd } from "./scroll.js";
import * as store from "./store.js";
import { explain } from "./trouble.js";

const message = at("message");
const root = document.documentElement;

let server = null;
let conversation = store.all().find(({ id }) => id === store.preferences().open) ?? store.begin();
let views = [];
let underway = null;

const comparing = () => !at("compare").hidden && at("compare").getAttribute("aria-pressed") === "true";

// ---- the conversation

/** Show a conversation from its beginning. */
function open(other) {
  underway?.abort();
  conversation = other;
  store.prefer({ open: other.id });
  views = [];
  at("conversation").replaceChildren();
  for (const exchange of conversation.exchanges) show(exchange);
  const last = conversation.exchanges.at(-1);
  if (last) views.at(-1).settle();
  glow(last?.reading);
  at("welcome").hidden = Boolean(last);
  widen();
  if (last) toEnd(true);
}

/** Two columns need room: while both models are asked, and wherever both have answered. */
function widen() {
  document.body.classList.toggle("wide", comparing() || conversation.exchanges.some(({ base }) => base));
}

function show(exchange) {
  const previous = conversation.exchanges[conversation.exchanges.indexOf(exchange) - 1] ?? null;
  const view = exchangeView(exchange, previous, { edit, again });
  views.push(view);
  at("conversation").append(view.element);
  return view;
}

/** Say something, and let it be answered. */
function say(said) {
  if (underway || !said.trim()) return;
  conversation.exchanges.push({ said, reading: null, reply: null, base: null });
  at("welcome").hidden = true;
  answer(show(conversation.exchanges.at(-1)));
}

/** Ask again for the newest reply. */
function again() {
  if (underway) return;
  const exchange = conversation.exchanges.at(-1);
  Object.assign(exchange, { reading: null, reply: null, base: null });
  views.pop().element.remove();
  answer(show(exchange));
}

/** Take back the newest exchange and put its words into the message field. */
function edit() {
  underway?.abort();
  message.value = conversation.exchanges.pop().said;
  save();
  open(conversation);
  fit();
  message.focus();
}

/** The conversation on the page is erased, and stays so when a reply was still on its way. */
function forget() {
  store.erase(conversation.id);
  conversation.exchanges.length = 0;
  open(store.begin());
}

async function answer(view) {
  const [exchange, asked] = [conversation.exchanges.at(-1), conversation];
  const control = new AbortController();
  busy(control);
  save();
  toEnd(true);
  const names = comparing() ? ["reply", "base"] : ["reply"];
  const results = await Promise.allSettled(names.map((name) => listen(name, exchange, view, control.signal)));
  hush();
  if (underway === control) busy(null);
  if (!asked.exchanges.includes(exchange)) return;
  keep(asked);
  if (asked !== conversation) return;
  const wrong = results[0].reason;
  if (wrong) await stumble(view, wrong);
  else view.settle();
  toEnd();
}

/** One voice's reply: "reply" is the tuned model, "base" the untuned one, asked the same. */
async function listen(name, exchange, view, signal) {
  view.begin(name);
  let text = "";
  let alone = false;
  const written = (unfinished) => {
    if (alone) return view.withdraw(name);
    exchange[name] = text.trim() || !unfinished ? { text: text.trim(), unfinished } : null;
    view.end(name, exchange[name], unfinished && !text.trim() ? "Stopped before the first word." : "");
  };
  try {
    for await (const event of stream(request(name, exchange), signal)) {
      alone ||= Boolean(event.reading?.risk?.alone);
      if (event.reading && name === "reply") take(event.reading, exchange, view);
      if (event.text) {
        text += event.text;
        exchange[name] = { text, unfinished: true };
        view.add(name, event.text);
        if (name === "reply") hear(event.text);
      }
      toEnd();
    }
    written(false);
  } catch (error) {
    if (error.name === "AbortError") return written(true);
    if (error.risk && name === "reply") take({ risk: error.risk }, exchange, view);
    exchange[name] = text.trim() ? { text: text.trim(), unfinished: true } : null;
    view.end(name, exchange[name], name === "base" ? explain(error).what : "");
    throw error;
  }
}

/** What was heard in the newest words, by the heads and by the guard. */
function take(reading, exchange, view) {
  exchange.reading = reading;
  view.heard(reading);
  glow(reading);
}

/** The newest crisis card takes on the numbers of the country that was chosen just now. */
async function relocate() {
  const exchange = conversation.exchanges.at(-1);
  if (underway || !exchange?.reading?.risk || exchange.reading.risk.level === "none") return;
  try {
    for await (const { reading } of stream({ ...request("reply", exchange), max_tokens: 1 })) {
      if (!reading || underway || conversation.exchanges.at(-1) !== exchange) continue;
      exchange.reading.risk = reading.risk;
      views.at(-1).heard(exchange.reading);
      save();
    }
  } catch {
    announce("The help lines of that country could not be fetched. They come with your next message.");
  }
}

/** The country chosen in the menu, or before the menu is filled the one chosen last time. */
function country() {
  return server ? at("country").value : store.preferences().country;
}

function request(name, exchange) {
  const messages = [];
  for (const earlier of conversation.exchanges) {
    messages.push({ role: "user", content: earlier.said });
    if (earlier === exchange) break;
    const answer = earlier.reply?.text || (earlier.reading?.risk?.alone && earlier.reading.risk.message);
    if (answer) messages.push({ role: "assistant", content: answer });
  }
  const model = name === "base" ? server?.models.base : (server?.models.tuned ?? server?.models.base);
  return { model, messages, warmline: { country: country() || null, crisis_message: "card" } };
}

async function stumble(view, error) {
  const { what, detail } = explain(error);
  view.trouble(what, detail);
  if (error.status !== 401) return;
  const key = await ask.key();
  if (!key) return;
  keepKey(key);
  await meet();
  again();
}

function save() {
  if (conversation.exchanges.length) keep(conversation);
  else store.erase(conversation.id);
}

/** Keep a conversation, and tell the person when the browser does not. */
function keep(which) {
  if (store.keep(which) || at("keys").classList.contains("loud")) return;
  at("keys").className = "loud";
  at("keys").textContent = "This browser does not keep the conversation: its storage is full or switched off.";
  announce(at("keys").textContent);
}

function busy(control) {
  underway = control;
  document.body.classList.toggle("busy", Boolean(control));
  at("send").hidden = Boolean(control);
  at("stop").hidden = !control;
  if (control) announce("warmline is writing.");
}

/** The page takes on a little of the last feeling's colour. */
function glow(reading) {
  const felt = feeling(reading);
  if (!felt) return delete root.dataset.feeling;
  root.dataset.feeling = felt.family;
  root.style.setProperty("--sure", felt.strength);
}

// ---- the controls

function fit() {
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight}px`;
}

function submit() {
  if (underway || !message.value.trim()) return;
  const said = message.value.trim();
  message.value = "";
  fit();
  say(said);
}

message.addEventListener("input", fit);
message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
at("stop").addEventListener("click", () => {
  underway?.abort();
  message.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && underway && !document.querySelector("dialog[open]")) underway.abort();
});
for (const opener of document.querySelectorAll(".opener")) {
  opener.addEventListener("click", () => {
    say(opener.textContent);
    message.focus();
  });
}
at("new").addEventListener("click", () => {
  open(store.begin());
  message.focus();
});
at("compare").addEventListener("click", () => {
  const on = !comparing();
  at("compare").setAttribute("aria-pressed", String(on));
  store.prefer({ compare: on });
  widen();
});
at("country").addEventListener("change", () => {
  store.prefer({ country: at("country").value });
  relocate();
});
window.addEventListener("pagehide", () => underway && save());
store.whenErasedElsewhere((id) => id === conversation.id && forget());
menu({ current: () => conversation, about: () => server, open, forget });

// ---- the beginning

/** Ask the server what it is. */
async function meet() {
  server = await about().catch(() => null);
  if (!server) return;
  learn(server);
  for (const [number, { reading }] of conversation.exchanges.entries()) if (reading) views[number].heard(reading, true);
  glow(conversation.exchanges.at(-1)?.reading);
  at("compare").hidden = !server.models.tuned;
  at("compare").setAttribute("aria-pressed", String(Boolean(store.preferences().compare)));
  for (const { code, name } of server.countries) {
    if (![...at("country").options].some(({ value }) => value === code)) at("country").add(new Option(name, code));
  }
  at("country").value = store.preferences().country ?? server.country ?? "";
}

open(conversation);
await meet();
widen();
if (matchMedia("(pointer: fine)").matches) message.focus();
