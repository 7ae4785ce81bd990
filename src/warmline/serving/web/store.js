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

/** Every conversation kept here, the newest first; an entry that cannot be read is left alone and out. */
export function all() {
  return attempt([], () =>
    Object.keys(localStorage)
      .filter((name) => name.startsWith(PREFIX))
      .map((name) => parse(localStorage.getItem(name)))
      .filter(isConversation)
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
  return kept && typeof kept === "object" ? kept : {};
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

function isConversation(value) {
  return (
    typeof value?.id === "string" &&
    typeof value.changed === "string" &&
    Array.isArray(value.exchanges) &&
    value.exchanges.every((exchange) => typeof exchange?.said === "string")
  );
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
