// How sure the versions are: a histogram each, and how far that can be believed.

import { chart } from "../charts.js";
import { el, empty } from "../dom.js";
import { percent, plural, probability } from "../format.js";

const BINS = 50;

export function render(where, { versions }) {
  const known = versions.filter((one) => one.predictions);
  if (!known.length) return where.replaceChildren(empty("No predictions in this range."));
  const edges = Array.from({ length: BINS + 1 }, (_, bin) => bin / BINS);
  const format = (value) => percent(value, Number.isInteger(value) ? 0 : 1);
  format.x = (edge) => `confidence ${percent(100 * edge, 0)} and more`;
  const from = edges.findIndex((edge) => known.some((one) => one.histogram.some((bin) => bin.lower <= edge && bin.upper > edge)));
  const shown = edges.slice(Math.max(0, from));
  chart(where, {
    times: shown,
    xRange: [shown[0], 1],
    clock: false,
    label: "Share of predictions by confidence, by version",
    format,
    series: known.map((one) => {
      const bins = new Map(one.histogram.map((bin) => [Math.round(bin.lower * BINS), bin.predictions]));
      const values = shown.map((edge) => (100 * (bins.get(Math.round(edge * BINS)) ?? 0)) / one.predictions);
      return { label: one.version, colour: one.version, fill: true, bars: true, values };
    }),
  });
  where.append(...known.map(believed).filter(Boolean));
}

function believed({ version, calibration }) {
  if (!calibration) return null;
  const { accuracy, accuracy_low: low, accuracy_high: high, count, sampled, error, error_noise: noise } = calibration;
  const labels = sampled ? `by ${plural(count, "weighted label")} of the review queue` : `by ${plural(count, "label")}`;
  return el("p", { class: "dim" }, `${version}: right on ${probability(accuracy)} (${probability(low)} to ${probability(high)}) ${labels}, `
    + `calibration error ${probability(error)} (${probability(noise)} by chance)`);
}
