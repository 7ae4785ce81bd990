// The server, as the page knows it: what it is (`about`) and a reply as it is written (`stream`).

const KEY = "warmline.key";

/** Something went wrong in a way that a person can be told. `status` is 0 when no answer came at all. */
export class Trouble extends Error {
  constructor(message, status = 0, seconds = null) {
    super(message);
    this.status = status;
    this.seconds = seconds;
  }
}

/** Keep the server's key until the tab is closed. */
export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** What this server runs: model ids, countries, limits, notice. */
export async function about() {
  const response = await ask("/about", {});
  return response.json();
}

/**
 * One reply, piece by piece.
 *
 * @param body the request, OpenAI's chat completions; `stream` is added.
 * @param signal aborts it.
 * @yields {{reading: object}|{text: string}} the reading first, then the text.
 */
export async function* stream(body, signal) {
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Trouble(chunk.error.message ?? "", 500);
    if (chunk.warmline) yield { reading: chunk.warmline };
    const text = chunk.choices?.[0]?.delta?.content;
    if (text) yield { text };
  }
  throw new Trouble("The connection ended before the reply did.");
}

async function ask(path, options) {
  const headers = { ...options.headers };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("No answer came from the server.");
  }
  if (response.ok) return response;
  const content = await response.json().catch(() => null);
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  throw new Trouble(content?.error?.message ?? response.statusText, response.status, Number.isNaN(seconds) ? null : seconds);
}

/** The data of each server-sent event. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held = (held + value).replaceAll("\r\n", "\n");
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const event of whole) {
      const data = event
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart());
      if (data.length) yield data.join("\n");
    }
  }
}
