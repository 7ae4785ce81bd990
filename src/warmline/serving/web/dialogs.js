// Questions that wait for an answer.

const confirming = document.getElementById("confirm");
const asking = document.getElementById("ask-key");

/** Resolves to true when the person says yes; Escape says no. */
function confirm(question) {
  document.getElementById("confirm-text").textContent = question;
  return answered(confirming).then((answer) => answer === "yes");
}

/** Resolves to the key that was typed, or null. */
async function key() {
  const field = document.getElementById("key");
  field.value = "";
  const answer = await answered(asking);
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
