// Conversations and preferences, in this browser's localStorage and nowhere else.
//
// A conversation is {id, begun, changed, exchanges}; an exchange is one thing said and what came back:
// {said, reading, reply, base}, where reply and base are {text, unfinished} or null.

const PREFIX = "warmline.conversation.";
const PREFERENCES = "warmline.preferences";

/** A conversation that is not kept until something is said in it. */
export function begin() {
  const now = new Date().toISOString();
  return { id: `${Date.now()}-${Math.random().toString(36).slice(2, 8)}`, begun: now, changed: now, exchanges: [] };
}

/** Every conversation kept here, the newest first; what cannot be read of it is left out, and an entry of which nothing can is left alone. */
export function all() {
  return attempt([], () =>
    Object.keys(localStorage)
      .filter((name) => name.startsWith(PREFIX))
      .map((name) => conversation(name.slice(PREFIX.length), parse(localStorage.getItem(name))))
      .filter(({ exchanges }) => exchanges.length)
      .sort((one, other) => other.changed.localeCompare(one.changed)),
  );
}

/** Keep a conversation; false when the browser refuses (storage full or switched off). */
export function keep(conversation) {
  conversation.changed = new Date().toISOString();
  return attempt(false, () => {
    localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
    return true;
  });
}

/** Erase one conversation. */
export function erase(id) {
  attempt(null, () => localStorage.removeItem(PREFIX + id));
}

/** Erase every conversation. */
export function eraseAll() {
  attempt(null, () => {
    for (const name of Object.keys(localStorage)) if (name.startsWith(PREFIX)) localStorage.removeItem(name);
  });
}

/** Call `then(id)` when another tab erases a conversation. */
export function whenErasedElsewhere(then) {
  window.addEventListener("storage", ({ key, newValue }) => {
    if (key?.startsWith(PREFIX) && newValue === null) then(key.slice(PREFIX.length));
  });
}

/** `theme`, `country` and `compare`, as far as they were chosen, and which conversation is `open`. */
export function preferences() {
  const kept = attempt(null, () => parse(localStorage.getItem(PREFERENCES)));
  return Object.fromEntries(Object.entries(kept ?? {}).filter(([, chosen]) => ["string", "boolean"].includes(typeof chosen)));
}

/** Change some preferences. */
export function prefer(changes) {
  attempt(null, () => localStorage.setItem(PREFERENCES, JSON.stringify({ ...preferences(), ...changes })));
}

/** The first words said, to know a conversation by. */
export function title(conversation) {
  const words = (conversation.exchanges[0]?.said ?? "").replace(/\s+/g, " ").trim();
  return words.length > 60 ? `${words.slice(0, 57)}…` : words;
}

// What is kept may be from another version of this page, or from anybody with this browser in hand: each part is read as it must be, or not.

function conversation(id, kept) {
  const exchanges = Array.isArray(kept?.exchanges) ? kept.exchanges.filter((one) => typeof one?.said === "string") : [];
  const changed = moment(kept?.changed);
  return { id, begun: moment(kept?.begun, changed), changed, exchanges: exchanges.map(exchange) };
}

function exchange({ said, reading, reply, base }) {
  return { said, reading: heard(reading), reply: words(reply), base: words(base) };
}

function heard(kept) {
  if (!kept || typeof kept !== "object") return null;
  const heads = Object.entries(kept).map(([name, one]) => [name, guess(one)]);
  return { ...Object.fromEntries(heads.filter(([, one]) => one)), risk: risk(kept.risk) };
}

function guess(kept) {
  const { label, probability, scores } = kept ?? {};
  const whole = typeof label === "string" && scores && [probability, ...Object.values(scores)].every(Number.isFinite);
  return whole ? { label, probability, scores } : null;
}

function risk(kept) {
  if (!["none", "yellow", "red"].includes(kept?.level)) return null;
  const texts = ["message", "crisis_line", "emergency_number"].map((name) => [name, typeof kept[name] === "string" ? kept[name] : null]);
  return { ...kept, ...Object.fromEntries(texts) };
}

function words(kept) {
  return typeof kept?.text === "string" ? { text: kept.text, unfinished: Boolean(kept.unfinished) } : null;
}

function moment(kept, otherwise = new Date(0).toISOString()) {
  return typeof kept === "string" && !Number.isNaN(Date.parse(kept)) ? kept : otherwise;
}

function parse(text) {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}

function attempt(otherwise, action) {
  try {
    return action();
  } catch {
    return otherwise;
  }
}
