// Charts, drawn by uPlot in the colours of the page. Without uPlot the page has its numbers still.

import { el } from "./dom.js";

const HEIGHT = 170;
const drawn = new Map();
let uPlot = null;

export async function load() {
  try {
    uPlot = (await import("./vendor/uPlot.esm.js")).default;
  } catch {
    uPlot = null;
  }
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// `series`: {label, colour, values, dash, fill, bars}; `format` says a value exactly.
export function chart(where, { times, series, format, label, range = null, clock = true, band = null }) {
  destroy(where);
  if (!uPlot) {
    where.replaceChildren(el("p", { class: "empty" }, "Charts need uPlot: `make assets` fetches it."));
    return;
  }
  const readout = el("p", { class: "readout" });
  const canvas = el("div", { role: "img", "aria-label": label });
  where.replaceChildren(canvas, readout);
  const axis = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  const options = {
    width: Math.max(200, where.clientWidth),
    height: HEIGHT,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1_000), "Etc/UTC"),
    scales: { x: { time: clock }, y: { range: range ?? ((_, low, high) => [Math.min(0, low), high || 1]) } },
    axes: [axis, { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => format(tick)) }],
    cursor: { y: false, points: { size: 6 } },
    bands: band ? [{ series: band, fill: `${colour("accent")}33` }] : [],
    series: [{}, ...series.map((one) => ({
      label: one.label,
      stroke: colour(one.colour),
      width: 2,
      dash: one.dash ?? [],
      fill: one.fill ? `${colour(one.colour)}55` : null,
      paths: one.bars ? uPlot.paths.stepped({ align: 1 }) : null,
      points: { show: times.length < 3, size: 6 },
      spanGaps: !one.gaps,
    }))],
    hooks: {
      setCursor: [(plot) => {
        const at = plot.cursor.idx;
        readout.textContent = at === null || at === undefined ? "" : [
          clock ? new Date(times[at] * 1_000).toISOString().slice(0, 16).replace("T", " ") : format.x?.(times[at]),
          ...series.map((one) => `${one.label} ${one.told ? one.told(at) : say(one.values[at], format)}`),
        ].filter(Boolean).join("  ·  ");
      }],
    },
  };
  drawn.set(where, new uPlot(options, [times, ...series.map((one) => one.values)], canvas));
}

const say = (value, format) => (value === null || value === undefined ? "–" : format(value));

function destroy(where) {
  drawn.get(where)?.destroy();
  drawn.delete(where);
}

export function resize() {
  for (const [where, plot] of drawn) plot.setSize({ width: Math.max(200, where.clientWidth), height: HEIGHT });
}
