// Whether what is asked and answered has changed since the window before.

import { el, table } from "../dom.js";
import { count, number } from "../format.js";

const FEATURES = [["sentiment", "Sentiment"], ["confidence", "Confidence"], ["text_characters", "Characters"], ["token_count", "Tokens"]];
// An interval that says nothing is not shown.
const TOO_WIDE = 0.3;
const SAYS = { too_few: ["dim", "too few to tell"], stable: ["good", "stable"], moderate: ["warn", "moderate"], significant: ["bad", "significant"] };

export function render(where, drift) {
  const rows = FEATURES.map(([field, name]) => ({ name, ...drift[field] }));
  where.replaceChildren(
    table([
      { name: "Feature", of: (row) => row.name },
      { name: "PSI", of: (row) => number(row.psi, 3), number: true },
      { name: "Chance alone", of: (row) => number(row.psi_noise, 3), number: true },
      { name: "Verdict", of: (row) => el("span", { class: SAYS[row.verdict][0] }, SAYS[row.verdict][1]) },
    ], rows, "Drift by feature"),
    el("p", { class: "dim" }, `${count(drift.sentiment.current_count)} predictions against ${count(drift.sentiment.reference_count)} of the window before. `
      + "PSI from 0.2 is significant."),
    ...Object.entries(drift.estimated_accuracy).filter(([, one]) => one.high - one.low < TOO_WIDE).map(([version, one]) => el("p", { class: "dim" },
      `${version}: about ${(100 * one.accuracy).toFixed(1)} % right (${(100 * one.low).toFixed(1)} to ${(100 * one.high).toFixed(1)}), without labels of this window`)),
  );
}
