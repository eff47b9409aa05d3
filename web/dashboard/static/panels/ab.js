// v2 against v1: the verdict, how it came about, how many labels are missing, and what to do next.

import { chart } from "../charts.js";
import { el, empty, table } from "../dom.js";
import { count, duration, milliseconds, number, percent, plural, points, probability, signed } from "../format.js";

const VERSIONS = ["v1", "v2"];
const HOW = "Send texts to /predict/ab with subjects, or to /predict/ab-compare, and their true labels to /feedback.";

export function render(where, { test, over, champion }) {
  if (!test.paired && !test.randomised) return where.replaceChildren(empty(`Nothing to compare yet. ${HOW}`));
  // The test of the traffic split first: it is about what the clients get.
  const isThere = ([kind]) => test[kind];
  const tests = KINDS.filter(isThere).map(([kind, title, rows]) => {
    const comparison = test[kind];
    return el("div", { class: "test" }, el("h3", {}, title),
      el("p", { class: `verdict ${comparison.verdict.finding}` }, comparison.verdict.sentence),
      missing(comparison),
      el("p", { class: "next" }, el("b", {}, "Next: "), nextStep(comparison, champion)),
      el("div", { class: "chart short", "data-interval": kind }), rows(comparison));
  });
  const absent = KINDS.filter((kind) => !isThere(kind)).map(([, title, , way]) => el("p", { class: "dim" }, `${title}: no such test yet. ${way}`));
  where.replaceChildren(el("div", { class: tests.length > 1 ? "halves" : "" }, tests), ...absent);
  for (const [kind, series] of Object.entries(over)) {
    const box = where.querySelector(`[data-interval="${kind}"]`);
    if (box && series.length) interval(box, series, test[kind]);
    else box?.replaceChildren(empty("No labels yet."));
  }
}

const KINDS = [
  ["randomised", "Subjects split between the versions", arms, "Send texts to /predict/ab with subjects."],
  ["paired", "The same texts to both", pairs, "Send texts to /predict/ab-compare."],
];

const labelledOf = (comparison) => comparison.labelled ?? VERSIONS.reduce((sum, version) => sum + comparison.arms[version].labelled, 0);
export const missingOf = ({ verdict, arms: of }) => (verdict.more_labels && (of ? verdict.more_labels.v1 + verdict.more_labels.v2 : verdict.more_labels.v2));

function missing(comparison) {
  const [labelled, more] = [labelledOf(comparison), missingOf(comparison)];
  if (more === null) return el("p", { class: "labels" }, `${plural(labelled, "label")}; how many are missing cannot be told yet`);
  const bar = el("progress", { max: labelled + more, value: labelled, "aria-label": "Labels that are there" });
  const words = more ? `${plural(labelled, "label")}; about ${count(more)} missing` : `${plural(labelled, "label")}; none missing`;
  return el("p", { class: "labels" }, bar, el("span", {}, words + repeats(comparison)));
}

// Labels of further texts of the same subjects.
const repeats = ({ labelled_repeats: of }) => (of ? `; ${count(of)} more of the same subjects do not count` : "");

function nextStep(comparison, champion) {
  const { finding } = comparison.verdict;
  if (finding === "sample_ratio_mismatch") return "find out what else decides who gets which version; until then, believe neither.";
  if (finding !== "no_difference_yet") {
    const better = finding.slice(0, 2);
    return champion === better ? `nothing: ${better} is the champion already.` : `make ${better} the champion${champion ? "" : ", if it is not yet"}, or roll it out step by step.`;
  }
  const [labelled, more] = [labelledOf(comparison), missingOf(comparison)];
  if (!labelled) return "send true labels to /feedback.";
  if (more === null) return "go on labelling: the versions are equal so far.";
  const seconds = (Date.parse(comparison.until) - Date.parse(comparison.since)) / 1_000;
  return `wait for about ${plural(more, "more label")}; at the pace so far that takes ${duration((seconds * more) / labelled)}.`;
}

function interval(box, series, comparison) {
  const format = (value) => signed(100 * value);
  const values = (field) => series.map((one) => one[field]);
  // The first intervals say nothing, and would hide what the last say.
  const late = series.slice(Math.floor(series.length / 3));
  const limit = Math.min(1, 1.15 * Math.max(0.01, ...late.flatMap((one) => [Math.abs(one.low), Math.abs(one.high)])));
  const times = series.map((one) => Date.parse(one.time) / 1_000);
  chart(box, {
    times,
    xRange: [Math.min(times[0], Date.parse(comparison.since) / 1_000), Date.parse(comparison.until) / 1_000],
    label: "Difference in accuracy with its interval over time",
    format,
    band: [2, 1],
    range: () => [-limit, limit],
    note: el("span", { class: "dim" }, "v2 minus v1, in points"),
    series: [
      { label: "at least", colour: "accent", dash: [3, 3], values: values("low") },
      { label: "at most", colour: "accent", dash: [3, 3], values: values("high") },
      { label: "difference in accuracy", colour: "accent", values: values("difference"), told: (at) => `${plural(series[at].labelled, "label")}` },
    ],
  });
}

function pairs(shown) {
  const right = [["v2 right", shown.both_right, shown.only_v2_right], ["v2 wrong", shown.only_v1_right, shown.none_right]];
  return el("div", {},
    table([
      { name: plural(shown.labelled, "labelled text"), of: ([name]) => name },
      { name: "v1 right", of: ([, both]) => count(both), number: true },
      { name: "v1 wrong", of: ([, , other]) => count(other), number: true },
    ], right, "Who was right"),
    el("p", { class: "dim" }, `${plural(shown.pairs, "text")} compared, ${probability(shown.agreement)} agreement, kappa ${number(shown.kappa)}; `
      + `difference ${points(shown.accuracy_difference)}`),
  );
}

function arms(shown) {
  const rows = VERSIONS.map((version) => ({ version, ...shown.arms[version] }));
  return table([
    { name: "Version", of: (row) => row.version },
    { name: "Subjects", of: (row) => count(row.subjects), number: true },
    { name: "Labels", of: (row) => count(row.labelled), number: true },
    { name: "Right", of: (row) => (row.accuracy === null ? percent(null) : probability(row.accuracy)), number: true },
    { name: "p95", of: (row) => milliseconds(row.p95_ms), number: true },
  ], rows, "Subjects assigned to the versions");
}
