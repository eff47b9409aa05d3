// Both A/B tests: the verdict, how the interval narrows, and the tables behind it.

import { chart } from "../charts.js";
import { el, empty, table } from "../dom.js";
import { count, milliseconds, percent, points } from "../format.js";

const VERSIONS = ["v1", "v2"];
const HOW = "Ask /predict/ab with subjects or /predict/ab-compare, and tell true labels with /feedback.";

export function render(where, { test, over }) {
  if (!test.paired && !test.randomised) return where.replaceChildren(empty(`Nothing to compare yet. ${HOW}`));
  where.replaceChildren(el("div", { class: "halves" }, half(
    "Same texts to both", test.paired, pairs), half("Subjects assigned", test.randomised, arms)));
  for (const [kind, series] of Object.entries(over)) {
    const box = where.querySelector(`[data-interval="${kind}"]`);
    if (box && series.length) interval(box, series);
  }
}

function half(title, comparison, tables) {
  if (!comparison) return el("div", {}, el("h3", {}, title), empty("No such test yet."));
  const verdict = el("div", { class: "verdict" }, el("p", {}, comparison.verdict.sentence));
  const kind = tables === pairs ? "paired" : "randomised";
  return el("div", {}, el("h3", {}, title), verdict, el("div", { "data-interval": kind }), tables(comparison));
}

function interval(box, series) {
  const format = (value) => `${(100 * value).toFixed(1)}`;
  const values = (field) => series.map((one) => one[field]);
  const head = el("p", { class: "dim" }, "Accuracy of v2 minus v1 in points, and the interval that holds at every look");
  const canvas = el("div");
  box.replaceChildren(head, canvas);
  const limit = Math.max(...series.flatMap((one) => [Math.abs(one.low), Math.abs(one.high)]));
  chart(canvas, {
    times: series.map((one) => Date.parse(one.time) / 1_000),
    label: "Difference in accuracy with its interval over time",
    format,
    band: [2, 1],
    range: () => [-limit, limit],
    series: [
      { label: "low", colour: "dim", dash: [3, 3], values: values("low") },
      { label: "high", colour: "dim", dash: [3, 3], values: values("high") },
      { label: "difference", colour: "accent", values: values("difference") },
    ],
  });
}

function pairs(told) {
  const right = [["v2 right", told.both_right, told.only_v2_right], ["v2 wrong", told.only_v1_right, told.none_right]];
  return el("div", {},
    table([
      { name: `${count(told.labelled)} labelled texts`, of: ([name]) => name },
      { name: "v1 right", of: ([, both]) => count(both), number: true },
      { name: "v1 wrong", of: ([, , other]) => count(other), number: true },
    ], right, "Who was right"),
    el("p", { class: "dim" }, `${count(told.pairs)} texts compared, ${told.agreement === null ? "–" : percent(100 * told.agreement)} agreement; difference ${points(told.accuracy_difference)}`),
  );
}

function arms(told) {
  const rows = VERSIONS.map((version) => ({ version, ...told.arms[version] }));
  return table([
    { name: "Version", of: (row) => row.version },
    { name: "Subjects", of: (row) => count(row.subjects), number: true },
    { name: "Right", of: (row) => count(row.right), number: true },
    { name: "Wrong", of: (row) => count(row.labelled - row.right), number: true },
    { name: "Accuracy", of: (row) => (row.accuracy === null ? "–" : percent(100 * row.accuracy)), number: true },
    { name: "p95", of: (row) => milliseconds(row.p95_ms), number: true },
  ], rows, "Subjects assigned to the versions");
}
