// The card with people to call. Its words and numbers come from the server's fixed table, never from the model.

import { copy, make } from "./dom.js";

const NUMBER = /\d[\d -]*\d|\d/g;
const SITE = "findahelpline.com";

/**
 * The card for a risk that was heard.
 *
 * @param risk {level, message, crisis_line, emergency_number} as the API gives it.
 * @param again the same card stands one turn earlier: only the numbers, and no alarm for a screen reader.
 * @param restored from storage, so that nothing is announced.
 */
export function crisisCard(risk, again, restored) {
  const card = copy("crisis");
  card.dataset.level = risk.level;
  card.classList.toggle("again", again);
  if (again || restored) card.setAttribute("role", "group");
  const heading = again ? "Still there for you" : risk.level === "red" ? "Please don’t stay alone with this" : "If it gets heavier";
  card.querySelector("h3").textContent = heading;
  card.setAttribute("aria-label", heading);
  const message = card.querySelector(".message");
  if (again) message.remove();
  else message.append(...linked(risk.message ?? ""));
  card.querySelector(".calls").append(...calls(risk));
  const elsewhere = card.querySelector(".elsewhere");
  if (again) elsewhere.remove();
  else elsewhere.append("Somewhere else? Choose your country below the message field, or see ", site(), ".");
  return card;
}

/** One link for each number that the country's table offers, one to text where that is offered, or the directory of lines. */
function calls(risk) {
  const found = [];
  for (const number of risk.emergency_number?.match(NUMBER) ?? []) {
    found.push(item(link(`tel:${digits(number)}`), `Call ${number}`, "emergency services"));
  }
  const name = (risk.crisis_line ?? "").replace(/\s*\(.*$/, "");
  const offered = risk.crisis_line?.match(/\(([^)]*)\)/)?.[1] ?? risk.crisis_line ?? "";
  for (const number of offered.match(NUMBER) ?? []) {
    found.push(item(link(`tel:${digits(number)}`), `Call ${number}`, name));
    if (/\btext\b/.test(offered)) found.push(item(link(`sms:${digits(number)}`), `Text ${number}`, name));
  }
  if (offered.includes(SITE)) found.push(item(site(), `Open ${SITE}`, name));
  return found;
}

function item(anchor, action, who) {
  anchor.replaceChildren(make("strong", {}, action), " ", make("span", {}, who));
  return make("li", {}, anchor);
}

/** The message with its numbers and the directory as links: text nodes and anchors. */
function linked(text) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(/\d[\d -]*\d|findahelpline\.com/g)) {
    parts.push(text.slice(at, found.index));
    parts.push(found[0] === SITE ? site() : link(`tel:${digits(found[0])}`, found[0]));
    at = found.index + found[0].length;
  }
  parts.push(text.slice(at));
  return parts;
}

function link(href, text = "") {
  return make("a", { href }, text);
}

function site() {
  return make("a", { href: `https://${SITE}`, target: "_blank", rel: "noopener noreferrer" }, SITE);
}

function digits(number) {
  return number.replace(/\D/g, "");
}
