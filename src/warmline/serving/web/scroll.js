// The page follows a reply as it is written, unless somebody reads further up or a red card would leave the screen.

import { at } from "./dom.js";

const root = document.documentElement;
const [newest, conversation] = [at("newest"), at("conversation")];
let following = true;
let height = window.scrollY;

/** To the end, if the page follows; `always` takes the following up again. */
export function toEnd(always = false) {
  if (always) following = true;
  if (following) window.scrollTo({ top: Math.min(root.scrollHeight, topOfHelp()), behavior: "instant" });
  newest.hidden = nearEnd();
}

/** Where the newest red card would slide under the header: nothing scrolls its numbers away by itself. */
function topOfHelp() {
  const card = conversation.querySelector(':scope > :last-child > .crisis[data-level="red"]:not(.again)');
  if (!card) return Infinity;
  return card.getBoundingClientRect().top + window.scrollY - document.querySelector("header").offsetHeight - 16;
}

function nearEnd() {
  return root.scrollHeight - window.innerHeight - window.scrollY < 80;
}

window.addEventListener("scroll", () => {
  if (nearEnd()) following = true;
  else if (window.scrollY < height) following = false;
  height = window.scrollY;
  newest.hidden = nearEnd();
}, { passive: true });
new ResizeObserver(() => document.body.classList.contains("busy") && toEnd()).observe(conversation);
newest.addEventListener("click", () => {
  window.scrollTo({ top: root.scrollHeight });
  at("message").focus({ preventScroll: true });
});
