// Traffic, latency, sentiments and cache hits over time.

import { chart } from "../charts.js";
import { empty } from "../dom.js";
import { milliseconds, percent, rate } from "../format.js";

const SENTIMENTS = ["positive", "neutral", "negative"];
const NOTHING = "No predictions in this range. Try a text below, or choose a longer range.";
// The first in which the busiest bucket has at least one prediction names the axis.
const RATES = [["second", 1], ["minute", 60], ["hour", 3_600]];
const BUCKET_SECONDS = { minute: 60, hour: 3_600, day: 86_400 };

// Every bucket of the range, so that one without predictions is a gap.
function byTime({ points, since, until, bucket }) {
  const size = BUCKET_SECONDS[bucket];
  const [start, end] = [since, until].map((time) => Date.parse(time) / 1_000);
  const times = [];
  for (let time = Math.floor(start / size) * size; time < end; time += size) times.push(time);
  const found = new Map(points.map((point) => [`${Date.parse(point.time) / 1_000} ${point.version}`, point]));
  return { times, xRange: [start, end], at: (time, version) => found.get(`${time} ${version}`) };
}

const versionsOf = (points) => [...new Set(points.map((point) => point.version))].sort();

export function traffic(where, series) {
  if (!series.points.length) return where.replaceChildren(empty(NOTHING));
  const { times, xRange, at } = byTime(series);
  const title = where.closest("section").querySelector("h2");
  const busiest = Math.max(...series.points.map((point) => point.per_second));
  const [unit, seconds] = RATES.find(([, size]) => busiest * size >= 1) ?? RATES.at(-1);
  title.textContent = `Predictions a ${unit}`;
  chart(where, {
    times, xRange,
    label: `Predictions a ${unit} over time, by version`,
    format: rate,
    series: versionsOf(series.points).map((version) => ({
      label: version, colour: version, values: times.map((time) => seconds * (at(time, version)?.per_second ?? 0)),
    })),
  });
}

export function latency(where, series) {
  if (!series.points.length) return where.replaceChildren(empty(NOTHING));
  const { times, xRange, at } = byTime(series);
  chart(where, {
    times, xRange,
    label: "Latency percentiles over time, by version",
    format: milliseconds,
    series: versionsOf(series.points).flatMap((version) => [["p95_ms", "p95"], ["p50_ms", "p50", [4, 3]]].map(([field, name, dash]) => ({
      label: `${version} ${name}`, colour: version, dash, values: times.map((time) => at(time, version)?.[field] ?? null),
    }))),
  });
}

export function sentiment(where, series) {
  if (!series.points.length) return where.replaceChildren(empty(NOTHING));
  const { times, xRange, at } = byTime(series);
  const versions = versionsOf(series.points);
  const counts = SENTIMENTS.map((name) => times.map((time) =>
    versions.reduce((sum, version) => sum + (at(time, version)?.sentiments[name] ?? 0), 0)));
  const totals = times.map((_, index) => counts.reduce((sum, one) => sum + one[index], 0));
  const shown = SENTIMENTS.filter((_, index) => counts[index].some((value) => value));
  chart(where, {
    times, xRange,
    label: "Share of each sentiment over time",
    range: () => [0, 100],
    format: (value) => percent(value, 0),
    series: shown.map((name) => {
      const own = counts[SENTIMENTS.indexOf(name)];
      return { label: name, colour: name, values: own.map((value, index) => (totals[index] ? (100 * value) / totals[index] : null)) };
    }),
  });
}

export function cache(where, series) {
  if (!series.points.length) return where.replaceChildren(empty(NOTHING));
  const { times, xRange, at } = byTime(series);
  chart(where, {
    times, xRange,
    label: "Share of predictions answered from the cache, by version",
    range: () => [0, 100],
    format: (value) => percent(value, 0),
    series: versionsOf(series.points).map((version) => ({
      label: version, colour: version, values: times.map((time) => at(time, version)?.cache_hit_rate ?? null),
    })),
  });
}
