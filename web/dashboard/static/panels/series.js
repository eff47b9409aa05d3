// Traffic, latency, sentiments and cache hits over time.

import { chart } from "../charts.js";
import { el, empty, legend } from "../dom.js";
import { milliseconds, percent, rate } from "../format.js";

const SENTIMENTS = ["positive", "neutral", "negative"];
const NOTHING = "No predictions in this range. Ask above, or choose a longer range.";

function byTime(points) {
  const times = [...new Set(points.map((point) => Date.parse(point.time) / 1_000))].sort((a, b) => a - b);
  const at = new Map(points.map((point) => [`${Date.parse(point.time) / 1_000} ${point.version}`, point]));
  return { times, at: (time, version) => at.get(`${time} ${version}`) };
}

const versionsOf = (points) => [...new Set(points.map((point) => point.version))].sort();

function body(where, ...heads) {
  const box = el("div");
  where.replaceChildren(...heads, box);
  return box;
}

export function traffic(where, { points }) {
  if (!points.length) return where.replaceChildren(empty(NOTHING));
  const { times, at } = byTime(points);
  const versions = versionsOf(points);
  chart(body(where, legend(...versions.map((version) => [version, version]))), {
    times,
    label: "Predictions a second over time, by version",
    format: rate,
    series: versions.map((version) => ({
      label: version, colour: version, values: times.map((time) => at(time, version)?.per_second ?? 0),
    })),
  });
}

export function latency(where, { points }) {
  if (!points.length) return where.replaceChildren(empty(NOTHING));
  const { times, at } = byTime(points);
  const versions = versionsOf(points);
  const lines = versions.flatMap((version) => [["p50_ms", "p50", [2, 3]], ["p95_ms", "p95", []], ["p99_ms", "p99", [8, 4]]].map(
    ([field, name, dash]) => ({
      label: `${version} ${name}`, colour: version, dash, values: times.map((time) => at(time, version)?.[field] ?? null),
    })));
  const note = el("span", {}, "dotted p50, solid p95, dashed p99");
  const head = legend(...versions.map((version) => [version, version]));
  head.append(note);
  chart(body(where, head), { times, label: "Latency percentiles over time, by version", format: milliseconds, series: lines });
}

export function sentiment(where, { points }) {
  if (!points.length) return where.replaceChildren(empty(NOTHING));
  const { times, at } = byTime(points);
  const versions = versionsOf(points);
  const counts = SENTIMENTS.map((name) => times.map((time) =>
    versions.reduce((sum, version) => sum + (at(time, version)?.sentiments[name] ?? 0), 0)));
  const totals = times.map((_, index) => counts.reduce((sum, one) => sum + one[index], 0));
  const shown = SENTIMENTS.filter((_, index) => counts[index].some((value) => value));
  chart(body(where, legend(...shown.map((name) => [name, name]))), {
    times,
    label: "Share of each sentiment over time",
    range: () => [0, 100],
    format: (value) => `${value.toFixed(0)} %`,
    series: shown.map((name) => {
      const own = counts[SENTIMENTS.indexOf(name)];
      return { label: name, colour: name, values: own.map((value, index) => (totals[index] ? (100 * value) / totals[index] : null)) };
    }),
  });
}

export function cache(where, { points }) {
  if (!points.length) return where.replaceChildren(empty(NOTHING));
  const { times, at } = byTime(points);
  const versions = versionsOf(points);
  chart(body(where, legend(...versions.map((version) => [version, version]))), {
    times,
    label: "Share of predictions answered from the cache, by version",
    range: () => [0, 100],
    format: (value) => percent(value, 0),
    series: versions.map((version) => ({
      label: version, colour: version, values: times.map((time) => at(time, version)?.cache_hit_rate ?? null),
    })),
  });
}
