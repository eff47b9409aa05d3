// How sure the versions are: a histogram each, and how far that can be believed.

import { chart } from "../charts.js";
import { el, empty, legend } from "../dom.js";
import { count, percent, probability } from "../format.js";

const BINS = 50;

export function render(where, { versions }) {
  const known = versions.filter((one) => one.predictions);
  if (!known.length) return where.replaceChildren(empty("No predictions in this range."));
  const edges = Array.from({ length: BINS + 1 }, (_, bin) => bin / BINS);
  const box = el("div");
  const format = (value) => percent(value, 1);
  format.x = (edge) => `${probability(edge)} and more`;
  where.replaceChildren(legend(...known.map((one) => [one.version, one.version])), box, ...known.map(believed));
  const from = edges.findIndex((edge) => known.some((one) => one.histogram.some((bin) => bin.lower <= edge && bin.upper > edge)));
  const kept = edges.slice(Math.max(0, from));
  chart(box, {
    times: kept,
    clock: false,
    label: "Share of predictions by confidence, by version",
    format,
    series: known.map((one) => {
      const bins = new Map(one.histogram.map((bin) => [Math.round(bin.lower * BINS), bin.predictions]));
      const values = kept.map((edge) => (100 * (bins.get(Math.round(edge * BINS)) ?? 0)) / one.predictions);
      return { label: one.version, colour: one.version, fill: true, bars: true, values };
    }),
  });
}

function believed({ version, calibration }) {
  if (!calibration) return null;
  return el("p", { class: "dim" }, `${version}: right on ${percent(100 * calibration.accuracy)} of ${count(calibration.count)} labelled, `
    + `calibration error ${percent(100 * calibration.error)} (${percent(100 * calibration.error_noise)} would be chance)`);
}
