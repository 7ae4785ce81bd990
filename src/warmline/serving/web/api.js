// The server, as the page knows it: what it is (`about`) and a reply as it is written (`stream`).

const KEY = "warmline.key";
let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {
  // Storage is switched off: a key is then asked for again after a reload.
}

/**
 * What went wrong. `status` is 0 when no answer came at all, `code` the API's word for it, `seconds` when to try again, `risk` what the
 * guard heard all the same.
 */
export class Trouble extends Error {
  constructor(message, status = 0, code = null, seconds = null, risk = null) {
    super(message);
    Object.assign(this, { status, code, seconds, risk });
  }
}

/** Keep the server's key until the tab is closed. */
export function keepKey(given) {
  key = given;
  try {
    sessionStorage.setItem(KEY, given);
  } catch {
    // As above.
  }
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
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(path, { ...options, headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Trouble("No answer came from the server.");
  });
  if (response.ok) return response;
  const content = await response.json().catch(() => null);
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const { message = response.statusText, code = null } = content?.error ?? {};
  throw new Trouble(message, response.status, code, Number.isNaN(seconds) ? null : seconds, content?.warmline?.risk ?? null);
}

function brokenOff(error) {
  if (error.name === "AbortError") throw error;
  throw new Trouble("The connection broke off in the middle of the reply.");
}

/** The data of each server-sent event. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read().catch(brokenOff);
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
