// Questions that wait for an answer.

import { at } from "./dom.js";

/** Resolves to true when the person says yes; Escape says no. */
function confirm(question) {
  at("confirm-text").textContent = question;
  return answered(at("confirm")).then((answer) => answer === "yes");
}

/** Resolves to the key that was typed, or null. */
async function key() {
  const field = at("key");
  field.value = "";
  const answer = await answered(at("ask-key"));
  const typed = field.value.trim();
  field.value = "";
  return answer === "yes" && typed ? typed : null;
}

function answered(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

export const ask = { confirm, key };
