// A conversation as a file on the reader's own disk.

import { make } from "./dom.js";
import { heard, words } from "./heads.js";

/** Everything the page knows of a conversation, to be read by a program. */
export function asJson(conversation, about) {
  const { run, base_model, models } = about ?? {};
  return JSON.stringify({ saved: new Date().toISOString(), answered_by: { run, base_model, models }, ...conversation }, null, 2);
}

/** A conversation to be read by a person. */
export function asText(conversation) {
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
export function download(name, type, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A moment in the reader's own way of writing dates. */
export function when(iso) {
  return new Date(iso).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function aside(reading, reads) {
  const said = heard(reading, reads).map(({ head, label }) => words(head, label));
  return said.length ? ` (${said.join(", ")})` : "";
}
