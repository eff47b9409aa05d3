// Whether what is asked and answered has changed since the window before.

import { badge, el, table } from "../dom.js";
import { number, plural, probability } from "../format.js";

const FEATURES = [["sentiment", "Sentiment"], ["confidence", "Confidence"], ["text_characters", "Characters"], ["token_count", "Tokens"]];
const MEANS = { tokens_per_word: "tokens a word", words: "log of words a text", word_length: "letters a word", accented_letters: "share of accented letters", other_scripts: "share of letters of other scripts", digits: "share of digits", capitals: "share of capitals", punctuation: "share of punctuation" };
// An interval that says nothing is not shown.
const TOO_WIDE = 0.3;
const SHOWN_CHARACTERS = 160;
const MOVED = "The texts that moved most";
const SAYS = { too_few: ["dim", "too few to tell"], stable: ["good", "stable"], moderate: ["warn", "moderate"], significant: ["bad", "significant"] };

export function render(where, drift) {
  const { content } = drift;
  const rows = [...FEATURES.map(([field, name]) => ({ name, ...drift[field] })),
    { name: "Content", psi: content.distance, psi_noise: content.noise, verdict: content.verdict }];
  const told = [
    table([
      { name: "Feature", of: (row) => row.name },
      { name: "PSI", of: (row) => number(row.psi), number: true },
      { name: "By chance", of: (row) => number(row.psi_noise), number: true },
      { name: "Drift", of: (row) => badge(...SAYS[row.verdict]) },
    ], rows, "Drift by feature"),
    el("p", { class: "dim" }, `${plural(drift.sentiment.current_count, "prediction")} against ${plural(drift.sentiment.reference_count, "prediction")} of the period before. `
      + "A PSI from 0.1 is moderate, from 0.2 significant; of the content, a distance from 0.03 and from 0.1."),
    ...(["moderate", "significant"].includes(content.verdict) ? [el("p", { class: "dim" },
      `What moved most of the content: ${content.features.slice(0, 3).map((one) => `${MEANS[one.name]} from ${number(one.reference)} to ${number(one.current)}`).join(", ")}`)] : []),
    ...Object.entries(drift.estimated_accuracy).filter(([, one]) => one.high - one.low < TOO_WIDE).map(([version, one]) => el("p", { class: "dim" },
      `${version}: about ${probability(one.accuracy)} right (${probability(one.low)} to ${probability(one.high)}), estimated without labels of this period.${one.caveat ? ` Do not trust it: ${one.caveat}` : ""}`)),
  ];
  const moved = drift.moved_texts;
  if (moved?.texts === "shown") where.replaceChildren(el("div", { class: "halves moved" }, el("div", {}, ...told), el("div", {}, ...movedTexts(moved))));
  else where.replaceChildren(...told, ...(moved ? [el("p", {}, MOVED), el("p", { class: "dim" }, moved.note)] : []));
}

function movedTexts(moved) {
  return [el("p", {}, MOVED), table([
    { name: "Text", of: ({ text }) => shortened([...text]), class: "text" },
    { name: "By", of: ({ features }) => features.map((name) => MEANS[name]).join(", "), class: "wrap" },
    { name: "Adds", of: ({ contribution }) => number(contribution), number: true },
  ], moved.items, MOVED),
  el("p", { class: "dim" }, `Of ${plural(moved.sample, "kept text")} of this period. What a text adds is, on average, the distance.`)];
}

function shortened(characters) {
  return characters.length <= SHOWN_CHARACTERS ? characters.join("") : `${characters.slice(0, SHOWN_CHARACTERS).join("")}…`;
}
