// What a screen reader is told while a reply is written: whole sentences, not tokens.

import { at, make } from "./dom.js";

const announcer = at("announcer");
let held = "";

/** Say this now. */
export function announce(text) {
  announcer.append(make("p", {}, text));
  while (announcer.childElementCount > 12) announcer.firstElementChild.remove();
}

/** A piece of a reply; it is said when its sentence is whole. */
export function hear(piece) {
  held += piece;
  const end = Math.max(...[". ", "? ", "! ", "\n"].map((mark) => held.lastIndexOf(mark)));
  if (end < 0) return;
  announce(held.slice(0, end + 1).trim());
  held = held.slice(end + 1);
}

/** The reply is over: say what is left of it. */
export function hush() {
  if (held.trim()) announce(held.trim());
  held = "";
}
