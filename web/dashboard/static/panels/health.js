// Whether the service is healthy: what is up, how it does against its objectives (docs/slo.md), and what the versions hold.

import { badge, el, table, tile } from "../dom.js";
import { bytes, count, duration, milliseconds, percent } from "../format.js";

const ANSWERED_OBJECTIVE = 99.9;
const P99_OBJECTIVE_MS = 500;

const state = (good, yes, no) => badge(good ? "good" : "bad", good ? yes : no);

export function render(where, details, { health, log }) {
  const faults = faultsOf(health);
  const kind = health.status === "unavailable" ? "bad" : faults.length ? "warn" : "good";
  const sentence = faults.length ? faults.join(" ") : "Both versions answer, and every prediction is recorded.";
  const open = details.querySelector("details")?.open ?? false;
  const versions = Object.entries(health.versions).map(([version, one]) => ({ version, ...one }));
  where.replaceChildren(
    el("p", { class: "lead" }, badge(kind, { good: "healthy now", warn: "degraded", bad: "unavailable" }[kind]), " ", sentence),
    ...versions.filter((one) => one.load_error).map((one) => el("p", { class: "fault" }, `${one.version} refused ${one.load_error}`)),
  );
  details.replaceChildren(el("details", { open }, el("summary", {}, "Parts and models"),
      el("div", { class: "halves" }, parts(health, log), models(versions))));
}

export function objectives(where, { summary, latency }) {
  const asked = summary.total_predictions + summary.failures;
  const answered = asked ? (100 * summary.total_predictions) / asked : null;
  const p99 = latency.percentiles.length ? Math.max(...latency.percentiles.map((one) => one.p99_ms)) : null;
  const told = (objective, isMet) => `objective ${objective}${isMet === false ? ", missed in this range" : ""}`;
  const isAnswered = answered === null ? null : answered >= ANSWERED_OBJECTIVE;
  const isFast = p99 === null ? null : p99 <= P99_OBJECTIVE_MS;
  const kind = { true: "good", false: "bad" };
  where.replaceChildren(
    tile("Texts answered", percent(answered, 2), {
      note: told(`${ANSWERED_OBJECTIVE}%`, isAnswered), kind: kind[isAnswered] ?? null,
    }),
    tile("99% answered within", milliseconds(p99), {
      note: told(milliseconds(P99_OBJECTIVE_MS), isFast), kind: kind[isFast] ?? null,
    }),
  );
}

function faultsOf(health) {
  const away = Object.entries(health.versions).filter(([, one]) => !one.ready).map(([version]) => version);
  return [
    health.status === "unavailable" && "No prediction is answered: see the log of the service.",
    away.length && `${away.join(" and ")} ${away.length === 1 ? "does" : "do"} not answer.`,
    !health.database_connected && "PostgreSQL is away: predictions wait on disk.",
    !health.redis_connected && "Redis is away: every answer is computed.",
    !health.log_writable && "The log is full or broken: make room under DATA_FOLDER.",
    health.log_rejects && "Lines of the log were set aside: `sentiment log retry`.",
    health.rollout.frozen && "The newest rollout policy is not known; the last one is in force.",
    Object.values(health.versions).some((one) => one.load_error) && "A model was refused.",
  ].filter(Boolean);
}

function parts(health, log) {
  return table([{ name: "Part", of: ([name]) => name }, { name: "State", of: ([, shown]) => shown, class: "text" }], [
    ["PostgreSQL", state(health.database_connected, "connected", "away")],
    ["Redis", state(health.redis_connected, "connected", "away")],
    ["Log on disk", state(health.log_writable, "writable", "full or broken")],
    ["Waiting to be stored", log.waiting_bytes ? `${bytes(log.waiting_bytes)}, oldest ${duration(log.oldest_seconds)}` : "nothing"],
    ["Recorded, stored", `${count(log.recorded)}, ${count(log.stored)} since the start`],
    ["Room for the log", bytes(log.max_bytes)],
  ], "Parts of the service");
}

function models(versions) {
  return table([
    { name: "Version", of: (one) => one.version },
    { name: "State", of: (one) => state(one.ready, one.loading ? "loading another" : "ready", "away") },
    { name: "Revision", of: (one) => one.revision ?? "–" },
    { name: "Engine", of: (one) => one.engine ?? "–", minor: true },
  ], versions, "Models that the versions hold");
}
