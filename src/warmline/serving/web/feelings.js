// 27 emotions and neutral in seven families, one hue each (style.css has the colours). The word always stands beside the colour.

const FAMILIES = {
  tender: ["love", "caring", "admiration", "gratitude", "approval"],
  bright: ["joy", "amusement", "excitement", "pride", "optimism", "relief"],
  low: ["sadness", "grief", "disappointment", "remorse"],
  uneasy: ["fear", "nervousness", "embarrassment"],
  heated: ["anger", "annoyance", "disapproval", "disgust"],
  stirred: ["surprise", "curiosity", "confusion", "realization", "desire"],
};

const FAMILY_OF = new Map(Object.entries(FAMILIES).flatMap(([family, labels]) => labels.map((label) => [label, family])));

/** The family of an emotion label; "still" for neutral and for a label that is not known here. */
export function family(label) {
  return FAMILY_OF.get(label) ?? "still";
}

/** The emotion to show of a reading; none where danger was heard: a guess at a mood has no place beside the crisis card. */
export function mood({ emotion, risk }) {
  return risk?.level === "red" ? null : emotion;
}

/** How strongly a feeling colours the page: pale when the model is unsure, full from 60 % on. */
export function strength(probability) {
  return `${Math.round(Math.min(1, probability / 0.6) * 100)}%`;
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
