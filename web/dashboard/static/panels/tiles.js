// Totals of the range, and how they have changed against the period before.

import { tile } from "../dom.js";
import { change, milliseconds, percent, short } from "../format.js";

// Computed answers of all versions; a cached one takes no model.
function slowest(latency) {
  const computed = latency.percentiles.filter((one) => !one.cache_hit);
  return computed.length ? Math.max(...computed.map((one) => one.p95_ms)) : null;
}

const times100 = (share) => (share === null ? null : 100 * share);

export function render(where, { summary, latency, before, latencyBefore }) {
  const asked = summary.total_predictions + summary.failures;
  const confidence = [times100(summary.average_confidence), times100(before.average_confidence)];
  const p95 = [slowest(latency), slowest(latencyBefore)];
  where.replaceChildren(
    tile("Predictions", short(summary.total_predictions), { note: change(summary.total_predictions, before.total_predictions) }),
    tile("Not answered", short(summary.failures), { note: asked ? `${percent((100 * summary.failures) / asked, 2)} of all texts` : null }),
    tile("p95, computed", milliseconds(p95[0]), { note: change(...p95) }),
    tile("From the cache", percent(summary.cache_hit_rate), { note: change(summary.cache_hit_rate, before.cache_hit_rate, { inPoints: true }) }),
    tile("Average confidence", percent(confidence[0]), { note: change(...confidence, { inPoints: true }) }),
  );
}
