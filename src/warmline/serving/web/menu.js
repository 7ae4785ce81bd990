// The menu: conversations, export and erasure, light and dark, what one is talking to.

import { ask } from "./dialogs.js";
import { at, make } from "./dom.js";
import { heard, words } from "./heads.js";
import * as store from "./store.js";

const dialog = at("menu");

/**
 * Make the menu work.
 *
 * @param page {current(), about(), open(conversation), forget()}: the page around it.
 */
export function menu(page) {
  at("open-menu").addEventListener("click", () => {
    list(page);
    describe(page.about());
    const said = page.current().exchanges.length > 0;
    for (const id of ["export-text", "export-json", "erase"]) at(id).disabled = !said;
    at("erase-all").disabled = store.all().length === 0;
    dialog.showModal();
  });
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  at("export-text").addEventListener("click", () => download(name(page, "txt"), "text/plain", asText(page.current())));
  at("export-json").addEventListener("click", () => download(name(page, "json"), "application/json", asJson(page.current(), page.about())));
  at("erase").addEventListener("click", () => eraseOne(page, page.current()));
  at("erase-all").addEventListener("click", async () => {
    if (!(await ask.confirm("Erase every conversation? They are kept nowhere else, so they cannot be brought back."))) return;
    store.eraseAll();
    page.forget();
    dialog.close();
  });
  theme();
}

function list(page) {
  const kept = store.all();
  at("kept").replaceChildren(...kept.map((conversation) => entry(page, conversation)));
  if (kept.length) return;
  at("kept").append(make("li", { className: "quiet" }, "None yet."));
}

function entry(page, conversation) {
  const title = store.title(conversation);
  const open = make("button", { type: "button", className: "open" }, make("span", {}, title), " ", make("small", {}, when(conversation.changed)));
  if (conversation.id === page.current().id) open.setAttribute("aria-current", "true");
  open.addEventListener("click", () => {
    page.open(conversation.id === page.current().id ? page.current() : conversation);
    dialog.close();
  });
  const erase = make("button", { type: "button", className: "plain danger small", ariaLabel: `Erase “${title}”` }, "Erase");
  erase.addEventListener("click", () => eraseOne(page, conversation));
  return make("li", {}, open, erase);
}

async function eraseOne(page, conversation) {
  if (!(await ask.confirm("Erase this conversation? It is kept nowhere else, so it cannot be brought back."))) return;
  if (conversation.id === page.current().id) page.forget();
  else store.erase(conversation.id);
  dialog.close();
}

function describe(about) {
  const facts = about ? [["Model", about.models.tuned ?? about.models.base], ["Made from", about.base_model], ["Run", about.run]] : [["Server", "not reached"]];
  const known = facts.filter(([, fact]) => fact);
  at("about").replaceChildren(...known.flatMap(([term, fact]) => [make("dt", {}, term), make("dd", {}, fact)]));
  at("about-notice").textContent = about?.notice ?? "";
}

function theme() {
  const chosen = store.preferences().theme ?? "";
  for (const choice of dialog.querySelectorAll("[name=theme]")) {
    choice.checked = choice.value === chosen;
    choice.addEventListener("change", () => {
      store.prefer({ theme: choice.value });
      if (choice.value) document.documentElement.dataset.theme = choice.value;
      else delete document.documentElement.dataset.theme;
    });
  }
}

function name(page, ending) {
  return `warmline-${page.current().begun.slice(0, 10)}.${ending}`;
}

// ---- a conversation as a file on the reader's own disk

/** Everything the page knows of a conversation, to be read by a program. */
function asJson(conversation, about) {
  const { run, base_model, models } = about ?? {};
  return JSON.stringify({ saved: new Date().toISOString(), answered_by: { run, base_model, models }, ...conversation }, null, 2);
}

/** A conversation to be read by a person. */
function asText(conversation) {
  const parts = ["A conversation with warmline, a computer program.", `Begun ${when(conversation.begun)}.`];
  for (const { said, reading, reply, base } of conversation.exchanges) {
    parts.push(`You${aside(reading, "message")}:\n${said}`);
    const { level, message } = reading?.risk ?? {};
    if (level === "red" && message) parts.push(`[Help: ${message}]`);
    if (reply) parts.push(`warmline${aside(reading, "reply")}:\n${reply.text}`);
    if (base) parts.push(`The base, untuned:\n${base.text}`);
    if (level === "yellow" && message) parts.push(`[Help: ${message}]`);
  }
  return `${parts.join("\n\n")}\n`;
}

/** Hand a text to the browser as a download. */
function download(name, type, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A moment in the reader's own way of writing dates. */
function when(iso) {
  return new Date(iso).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function aside(reading, reads) {
  const said = heard(reading, reads).map(({ head, label }) => words(head, label));
  return said.length ? ` (${said.join(", ")})` : "";
}
