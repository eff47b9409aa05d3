// What is up, what the versions hold, and how far the log is.

import { el, table } from "../dom.js";
import { bytes, count } from "../format.js";

const state = (good, yes, no) => el("span", { class: good ? "good" : "bad" }, good ? yes : no);

export function render(where, { health, log }) {
  const parts = [
    ["Predictions", state(health.status !== "unavailable", health.status, "not answered: see the log of the service")],
    ["PostgreSQL", state(health.database_connected, "connected", "away: predictions wait on disk")],
    ["Redis", state(health.redis_connected, "connected", "away: every answer is computed")],
    ["Log on disk", state(health.log_writable, "writable", "full or broken: make room under DATA_FOLDER")],
    ["Waiting for PostgreSQL", `${bytes(log.waiting_bytes)} of ${bytes(log.max_bytes)}, oldest ${log.oldest_seconds.toFixed(0)} s`],
    ["Recorded, stored", `${count(log.recorded)}, ${count(log.stored)} since the start`],
    ["Rollout", health.rollout.frozen
      ? el("span", { class: "bad" }, `policy ${health.rollout.policy_version}, frozen`) : `policy ${health.rollout.policy_version}`],
  ];
  const versions = Object.entries(health.versions).map(([version, one]) => ({ version, ...one }));
  where.replaceChildren(
    table([{ name: "Part", of: ([name]) => name }, { name: "State", of: ([, told]) => told, class: "text" }], parts, "Container of the service"),
    el("h3", {}, "Models"),
    table([
      { name: "Version", of: (one) => one.version },
      { name: "State", of: (one) => state(one.ready, one.loading ? "loading another" : "ready", "away") },
      { name: "Revision", of: (one) => one.revision ?? "–" },
      { name: "Engine", of: (one) => one.engine ?? "–" },
    ], versions, "Models that the versions hold"),
    ...versions.filter((one) => one.load_error).map((one) => el("p", { class: "fault" }, `${one.version} refused ${one.load_error}`)),
  );
}
