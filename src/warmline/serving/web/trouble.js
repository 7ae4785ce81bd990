// What a person is told when something fails.

const BY_CODE = {
  context_length_exceeded: "This conversation has grown longer than I can hold. Begin a new one; this one stays in the menu.",
  too_many_messages: "This conversation has grown longer than I can hold. Begin a new one; this one stays in the menu.",
  message_too_long: "That is more than I can take in one message. Edit it, and tell me the rest afterwards.",
};

/** @returns {{what: string, detail: string}} for an error of api.js. */
export function explain(error) {
  const detail = error.message ?? "";
  if (Object.hasOwn(BY_CODE, error.code)) return { what: BY_CODE[error.code], detail };
  switch (error.status) {
    case 0:
      return { what: "I lost the connection. What you wrote is still here.", detail };
    case 401:
      return { what: "This server asks for a key.", detail };
    case 429:
      return { what: "Many people are talking right now. Give it a moment.", detail: wait(error.seconds) || detail };
    case 503:
      return { what: "The server is resting or restarting. What you wrote is still here.", detail: wait(error.seconds) || detail };
    default:
      if (error.status >= 400 && error.status < 500) return { what: "The server could not take this.", detail };
      return { what: "Something broke while I was answering. It was not you.", detail };
  }
}

function wait(seconds) {
  if (seconds === null || seconds === undefined) return "";
  return `Try again in ${seconds} second${seconds === 1 ? "" : "s"}.`;
}
