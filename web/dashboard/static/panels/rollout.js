// What is rolling out: champion, shares, steps and guardrails, the last changes and why, and the ways back and on.

import { badge, el, empty, swatch, table, when } from "../dom.js";
import { count, duration, minute, percent } from "../format.js";

export const SHOWN = 6;
const STATES = { pass: ["good", "pass"], pending: ["dim", "pending"], fail: ["bad", "fail"] };
const ACTIONS = {
  set: "changed", promote: "promoted", roll_back: "rolled back", next_step: "next step", reload: "model loaded", guardrail: "rolled back by a guardrail",
};

// `change` asks for an action and its reason, and does it.
export function render(where, { status, history }, change) {
  const { policy, champion, challenger } = status;
  const act = (action, label) => el("button", { type: "button", "data-action": action, onclick: () => change(action, label, status.policy_version) }, label);
  const exposed = shareOf(policy.ab_weights, challenger) > 0 || shareOf(policy.predict_weights, challenger) > 0 || policy.shadow_percent > 0;
  where.replaceChildren(
    el("p", { class: "lead" }, sentenceOf(status, exposed)),
    el("div", { class: "halves" },
      el("div", {},
        share("/predict", policy.predict_weights ?? { [champion]: 100, [challenger]: 0 }),
        share("/predict/ab", policy.ab_weights),
        policy.shadow_percent ? el("p", { class: "dim" }, `${challenger} also classifies ${percent(policy.shadow_percent, 0)} of the texts of /predict in the shadow.`) : null,
        steps(status),
        el("div", { class: "row" },
          policy.schedule ? act("next_step", "Next step now") : null,
          exposed ? act("roll_back", `Roll back to ${champion}`) : null,
          act("promote", `Promote ${challenger}`))),
      el("div", {}, el("h3", {}, "Guardrails"), guardrails(status))),
    el("h3", {}, "Last changes"), changes(history.policies));
}

export const refused = (where, problem, enterKey) => where.replaceChildren(
  el("p", {}, problem.status === 403 ? "Your API key has no scope admin, which the rollout needs. " : "The rollout needs an API key with the scope admin. "),
  el("button", { type: "button", onclick: enterKey }, "Use another key"));

const shareOf = (weights, version) => weights?.[version] ?? 0;

function sentenceOf({ policy, champion, challenger, step_ends: ends, frozen, waits_for: waiting }, exposed) {
  if (frozen) return "The newest policy is not known, because PostgreSQL is away; the last known one is in force.";
  if (waiting.length) return `${waiting.join(" and ")} has yet to load the model of this policy, and gets no more traffic than before.`;
  if (policy.schedule) {
    const { steps: all } = policy.schedule, { step } = policy.progress;
    const left = (Date.parse(ends) - Date.now()) / 1_000;
    const on = step + 1 < all.length ? `goes on to ${all[step + 1]}%` : policy.schedule.promote ? `makes ${challenger} the champion` : "ends";
    return `${challenger} is being rolled out: step ${step + 1} of ${all.length}, ${all[step]}% of ${policy.schedule.routes.join(" and ")}. `
      + `If every guardrail passes, it ${on} ${left > 0 ? `in ${duration(left)}` : "now"}.`;
  }
  return exposed ? `${champion} is the champion; ${challenger} gets a part of the traffic, and no schedule raises it.` : `${champion} is the champion and answers everything; nothing is rolling out.`;
}

function share(route, weights) {
  const parts = Object.entries(weights);
  const words = parts.map(([version, percents]) => `${version} ${percents}%`).join(", ");
  const bar = el("div", { class: "split", "aria-hidden": "true" }, parts.map(([version, percents]) => {
    const part = el("span", { class: version });
    part.style.width = `${percents}%`;
    return part;
  }));
  return el("div", { class: "share" }, el("span", {}, el("code", {}, route)), bar,
    el("span", {}, parts.flatMap(([version, percents], index) => [index ? "\u2002" : null, swatch(version), `${version} ${percents}%`]), el("span", { class: "hidden-text" }, words)));
}

function steps({ policy, step_ends: ends }) {
  if (!policy.schedule) return null;
  const { step } = policy.progress;
  return el("ol", { class: "steps", "aria-label": "Steps" }, policy.schedule.steps.map((size, index) => el("li",
    { class: index < step ? "done" : index === step ? "current" : null, "aria-current": index === step ? "step" : null },
    `${size}%`, index === step ? el("span", { class: "dim" }, ` until ${minute(ends)}`) : null)));
}

function guardrails({ guardrails: all, policy }) {
  if (!policy.guardrails) return empty("None: nothing is rolled back by itself.");
  if (!all) return empty("Nothing to evaluate: the challenger gets no traffic, or its metrics are not known now.");
  return table([
    { name: "Guardrail", of: (one) => one.name },
    { name: "State", of: (one) => badge(...(STATES[one.state] ?? ["dim", one.state])) },
    { name: "Why", of: (one) => one.sentence, class: "text" },
  ], all, "Guardrails and their state");
}

function changes(policies) {
  if (!policies.length) return empty("None yet: the settings are the policy.");
  return table([
    { name: "When (UTC)", of: (one) => when(one.created_at), class: "when" },
    { name: "Policy", of: (one) => count(one.policy_version), number: true, minor: true },
    { name: "Change", of: (one) => ACTIONS[one.action] ?? one.action, class: "wrap" },
    { name: "By", of: (one) => one.author, minor: true },
    { name: "Why", of: (one) => one.reason, class: "text" },
  ], policies.slice(0, SHOWN), "Last changes of the rollout");
}

// The fields that a change would set, as a list.
export function preview({ changes: all, subjects_moved_percent: moved }) {
  // The progress of a schedule follows from the schedule.
  const named = all.filter(({ field }) => !field.startsWith("progress"));
  return [
    named.length ? el("ul", {}, named.map(({ field, before, after }) => el("li", {}, el("code", {}, field), `: ${value(before)} → ${value(after)}`)))
      : el("p", {}, "Nothing would change."),
    moved ? el("p", { class: "dim" }, `${percent(moved, 0)} of the subjects of /predict/ab get another version.`) : null,
  ].filter(Boolean);
}

function value(shown) {
  if (Array.isArray(shown)) return shown.join(", ");
  if (typeof shown === "object" && shown !== null) return Object.entries(shown).map(([name, part]) => `${name} ${value(part)}`).join("; ");
  return String(shown ?? "none");
}
