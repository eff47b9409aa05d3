// The newest predictions, page by page.

import { el, empty, swatch, table, when } from "../dom.js";
import { milliseconds, probability } from "../format.js";

export const PAGE = 15;

export function render(where, { predictions, next_before: next }, { before, turn }) {
  if (!predictions.length) {
    where.replaceChildren(empty("No predictions in this range."), ...(before ? [first(turn)] : []));
    return;
  }
  where.replaceChildren(
    table([
      { name: "When (UTC)", of: (one) => when(one.created_at), class: "when" },
      { name: "Endpoint", of: (one) => one.endpoint, minor: true },
      { name: "Version", of: (one) => [swatch(one.model_version), one.model_version] },
      { name: "Sentiment", of: (one) => [swatch(one.sentiment), one.sentiment] },
      { name: "Sure", of: (one) => probability(one.confidence), number: true },
      { name: "Took", of: (one) => milliseconds(one.latency_ms), number: true },
      { name: "Cached", of: (one) => (one.cache_hit ? "yes" : "no"), minor: true },
      { name: "Tokens", of: (one) => `${one.token_count}${one.truncated ? ", cut" : ""}`, number: true, minor: true },
    ], predictions, "Newest predictions"),
    el("div", { class: "row" },
      before ? first(turn) : null,
      el("button", { type: "button", disabled: !next, onclick: () => turn(next) }, "Older")),
  );
}

const first = (turn) => el("button", { type: "button", onclick: () => turn(null) }, "Newest");
