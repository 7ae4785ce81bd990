// What the model's heads said, in words. Which heads there are, and what they and their labels are called, the server says in `/about`.

let heads = [];

/** Take on the server's heads: [{name, title, explanation, reads, labels: [{name, words, family}]}]. */
export function learn(about) {
  heads = about.heads;
}

/** What a reading holds of the heads that read the "message" or the "reply": [{head, label, probability, scores}], in the server's order. */
export function heard(reading, reads) {
  return heads.filter((head) => head.reads === reads && reading?.[head.name]).map((head) => ({ head, ...reading[head.name] }));
}

/** What of it is shown: nothing of the message where danger was heard, as a guess at a mood has no place beside the crisis card. */
export function shown(reading, reads) {
  return reads === "message" && reading?.risk?.level === "red" ? [] : heard(reading, reads);
}

/** A label as a person reads it. */
export function words(head, label) {
  return head.labels.find(({ name }) => name === label)?.words ?? label;
}

/** The hue of a label (style.css has the colours), "still" for one that is not known; none where a head has no colours. The word always stands beside it. */
export function family(head, label) {
  if (!head.labels.some((one) => one.family)) return null;
  return head.labels.find(({ name }) => name === label)?.family ?? "still";
}

/** The hue of what was felt in a message, and how strongly it colours the page: pale when the model is unsure, full from 60 % on. */
export function feeling(reading) {
  const felt = shown(reading, "message").find(({ head }) => family(head));
  return felt ? { family: family(felt.head, felt.label), strength: `${Math.round(Math.min(1, felt.probability / 0.6) * 100)}%` } : null;
}

/** What stands before a label: "maybe" below 50 %, more doubt below 20 %. */
export function hedge(probability) {
  return probability < 0.2 ? "hard to say, maybe " : probability < 0.5 ? "maybe " : "";
}

/** A probability as a person reads it: 0.4134 is "41 %". */
export function percent(probability) {
  if (probability > 0 && probability < 0.01) return "under 1 %";
  return `${Math.round(probability * 100)} %`;
}

/** The most likely labels of `{label: probability}`, as [label, probability], the likeliest first. */
export function likeliest(scores, most = 5) {
  return Object.entries(scores)
    .sort((one, other) => other[1] - one[1])
    .slice(0, most);
}
