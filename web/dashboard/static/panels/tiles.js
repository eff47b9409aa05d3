// Totals of the range, and how it is answered.

import { el } from "../dom.js";
import { milliseconds, percent, short } from "../format.js";

function tile(name, value, note = "") {
  return el("div", { class: "tile" }, el("div", { class: "value" }, value), el("div", { class: "name" }, name, note ? ` · ${note}` : ""));
}

// Computed answers of all versions; a cached one takes no model.
function slowest(latency) {
  const computed = latency.percentiles.filter((one) => !one.cache_hit);
  return computed.length ? Math.max(...computed.map((one) => one.p95_ms)) : null;
}

export function render(where, { summary, latency, cache }) {
  const asked = summary.total_predictions + summary.failures;
  where.replaceChildren(
    tile("predictions", short(summary.total_predictions)),
    tile("not answered", short(summary.failures), asked ? percent((100 * summary.failures) / asked, 2) : ""),
    tile("average confidence", summary.average_confidence === null ? "–" : percent(100 * summary.average_confidence)),
    tile("p95, computed", milliseconds(slowest(latency))),
    tile("from the cache", percent(summary.cache_hit_rate)),
    tile("cached answers", short(cache.cache_size)),
  );
}
