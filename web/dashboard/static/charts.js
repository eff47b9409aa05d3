// Charts, drawn by uPlot in the colours of the page. Without uPlot the page has its numbers still.

import { el } from "./dom.js";
import { NONE, clock as second, day, hour, minute } from "./format.js";

const LEAST_HEIGHT = 150;
const MINUTE_SECONDS = 60;
const DAY_SECONDS = 86_400;
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

const fit = new ResizeObserver((entries) => {
  for (const { target } of entries) drawn.get(target)?.setSize(size(target));
});

const size = (canvas) => ({
  width: Math.max(200, canvas.clientWidth),
  height: Math.max(LEAST_HEIGHT, canvas.clientHeight),
});

// `xRange` is that of the axis; `series`: {label, colour, values, dash, fill, bars, told}; `format` says a value exactly.
export function chart(where, { times, xRange, series, format, label, range = null, clock = true, band = null, note = null }) {
  for (const canvas of where.querySelectorAll(".canvas")) {
    fit.unobserve(canvas);
    drawn.get(canvas)?.destroy();
    drawn.delete(canvas);
  }
  if (!uPlot) {
    where.replaceChildren(el("p", { class: "empty" }, "Charts need uPlot: `make assets` fetches it."));
    return;
  }
  const tip = el("div", { class: "tip", hidden: true });
  const canvas = el("div", { class: "canvas", role: "img", "aria-label": label });
  const keys = series.map((one, index) => one.quiet ? null : key(one, (shown) => plot.setSeries(index + 1, { show: shown })));
  where.replaceChildren(el("div", { class: "legend" }, keys, note), canvas);
  const axis = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: `11px ${getComputedStyle(document.body).fontFamily}` };
  const options = {
    ...size(canvas),
    // On the right, half of the last mark of the axis.
    padding: [8, 26, 0, 0],
    legend: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1_000), "Etc/UTC"),
    scales: {
      x: { time: clock, range: () => xRange },
      y: { range: range ?? ((_, low, high) => [Math.min(0, low ?? 0), high || 1]) },
    },
    axes: [
      { ...axis, size: 30, space: 60, values: clock ? marks : undefined },
      { ...axis, size: 54, space: 30, values: (_, ticks) => ticks.map((tick) => format(tick)) },
    ],
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    bands: band ? [{ series: band, fill: `${colour("accent")}2e` }] : [],
    series: [{}, ...series.map((one) => ({
      label: one.label,
      stroke: colour(one.colour),
      width: 1.75,
      dash: one.dash ?? [],
      fill: one.fill ? `${colour(one.colour)}44` : null,
      paths: one.bars ? uPlot.paths.stepped({ align: 1 }) : null,
      // A value between two gaps has no line.
      points: { show: true, size: 5, fill: colour(one.colour), filter: (_, index, show) => (show === false ? null : alone(one.values)) },
      spanGaps: false,
    }))],
    hooks: { setCursor: [(at) => tell(at.cursor)], ready: [({ over }) => over.append(tip)] },
  };
  const plot = new uPlot(options, [times, ...series.map((one) => one.values)], canvas);
  drawn.set(canvas, plot);
  fit.observe(canvas);

  function tell({ idx, left }) {
    tip.hidden = idx === null || idx === undefined || left < 0;
    if (tip.hidden) return;
    const head = clock ? minute(times[idx] * 1_000) : format.x?.(times[idx]);
    const rows = series.filter((one, index) => plot?.series[index + 1].show !== false && one.label).map((one) => [
      el("span", { class: `key ${one.colour}${one.dash ? " dashed" : ""}` }), el("span", {}, one.label),
      el("b", {}, one.values[idx] === null || one.values[idx] === undefined ? NONE : format(one.values[idx]))]);
    const more = series.map((one) => one.told?.(idx)).filter(Boolean);
    tip.replaceChildren(el("p", {}, head), el("div", {}, rows.flat()), ...more.map((line) => el("p", {}, line)));
    const width = plot.over.clientWidth;
    tip.style.left = left > width / 2 ? "auto" : `${left + 12}px`;
    tip.style.right = left > width / 2 ? `${width - left + 12}px` : "auto";
  }
}

// An entry of the legend, which hides and shows its line.
function key(one, show) {
  const button = el("button", { type: "button", "aria-pressed": "true", onclick: () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    show(shown);
  } }, el("span", { class: `key ${one.colour}${one.dash ? " dashed" : ""}`, "aria-hidden": "true" }), one.label);
  return button;
}

const alone = (values) => values.flatMap((value, index) =>
  ((value ?? null) !== null && (values[index - 1] ?? null) === null && (values[index + 1] ?? null) === null ? [index] : []));

function marks(_, ticks, __, ___, step) {
  const written = step < MINUTE_SECONDS ? second : hour;
  return ticks.map((seconds) => (step >= DAY_SECONDS || seconds % DAY_SECONDS === 0 ? day : written)(seconds * 1_000));
}
