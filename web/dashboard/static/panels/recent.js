// The newest predictions, page by page.

import { el, empty, swatch, table } from "../dom.js";
import { milliseconds, probability, time } from "../format.js";

export const PAGE = 15;

export function render(where, { predictions, next_before: next }, { before, turn }) {
  if (!predictions.length) {
    where.replaceChildren(empty("No predictions in this range."), ...(before ? [first(turn)] : []));
    return;
  }
  where.replaceChildren(
    table([
      { name: "When (UTC)", of: (one) => time(one.created_at) },
      { name: "Endpoint", of: (one) => one.endpoint },
      { name: "Version", of: (one) => [swatch(one.model_version), one.model_version] },
      { name: "Sentiment", of: (one) => [swatch(one.sentiment), one.sentiment] },
      { name: "Confidence", of: (one) => probability(one.confidence), number: true },
      { name: "Took", of: (one) => milliseconds(one.latency_ms), number: true },
      { name: "Cached", of: (one) => (one.cache_hit ? "yes" : "") },
      { name: "Tokens", of: (one) => `${one.token_count}${one.truncated ? ", cut" : ""}`, number: true },
    ], predictions, "Newest predictions"),
    el("div", { class: "row" },
      before ? first(turn) : null,
      el("button", { type: "button", disabled: !next, onclick: () => turn(next) }, "Older")),
  );
}

const first = (turn) => el("button", { type: "button", onclick: () => turn(null) }, "Newest");
