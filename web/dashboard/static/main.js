// The page: asks for what its panels show, again and again while somebody looks.

import { get, Problem } from "./api.js";
import * as changes from "./change.js";
import { load as loadCharts } from "./charts.js";
import { el } from "./dom.js";
import { clock } from "./format.js";
import * as keys from "./key_dialog.js";
import { Polling } from "./polling.js";
import * as state from "./state.js";
import * as ab from "./panels/ab.js";
import * as confidence from "./panels/confidence.js";
import * as drift from "./panels/drift.js";
import * as health from "./panels/health.js";
import * as recent from "./panels/recent.js";
import * as review from "./panels/review.js";
import * as rollout from "./panels/rollout.js";
import * as series from "./panels/series.js";
import * as tiles from "./panels/tiles.js";
import * as playground from "./playground.js";
import * as theme from "./theme.js";

// Until the first panels are shown without those that are late.
const LONGEST_WAIT_MS = 3_000;
const $ = (id) => document.getElementById(id);
const body = (id) => $(id).querySelector(".body") ?? $(id);
let current = state.read();
let turn = 0;
const polling = new Polling(refresh, (seconds) => {
  $("next").textContent = seconds === null ? "" : `next in ${seconds} s`;
});

const charts = loadCharts();
const openKeyDialog = keys.start({ done: refresh });
const changeRollout = changes.start({ dialog: $("change-dialog"), done: refresh });

const PANELS = [
  { ids: ["health"], ask: async () => together({ health: get("health"), log: get("log/stats") }), show: (told) => health.render(body("health"), $("parts"), told) },
  { ids: ["objectives", "tiles"], ask: async (q) => together({
      summary: get("analytics/summary", q), latency: get("analytics/latency", q),
      before: get("analytics/summary", earlier(q)), latencyBefore: get("analytics/latency", earlier(q)),
    }),
    show: (told) => { health.objectives($("objectives"), told); tiles.render($("tiles"), told); } },
  { ids: ["ab"], ask: async (_, { status, test }) => together({
      test, over: get("analytics/ab/over-time"), champion: status.then((known) => known.champion, () => null),
    }),
    show: (told) => ab.render(body("ab"), told) },
  { ids: ["rollout"], ask: async (_, { status }) => together({ status, history: get("admin/rollout/history", { limit: rollout.SHOWN }) }),
    show: (told) => rollout.render(body("rollout"), told, changeRollout),
    // The other panels need no key of an admin.
    refused: (problem) => rollout.refused(body("rollout"), problem, () => openKeyDialog("")) },
  { ids: ["traffic", "latency", "sentiment", "cache"], ask: (q) => get("analytics/timeseries", q),
    show: (told) => { for (const id of ["traffic", "latency", "sentiment", "cache"]) series[id](body(id), told); } },
  { ids: ["confidence"], ask: (q) => get("analytics/confidence", q), show: (told) => confidence.render(body("confidence"), told) },
  { ids: ["drift"], ask: (q) => get("analytics/drift", q), show: (told) => drift.render(body("drift"), told) },
  { ids: ["review"], ask: async (q, { test }) => together({ queue: get("analytics/review-queue", { ...q, limit: review.ONLY_COUNTS }), test }),
    show: (told) => review.render(body("review"), told, location.search) },
  { ids: ["recent"], ask: (q) => get("analytics/recent", { ...q, limit: recent.PAGE, before: current.before }),
    show: (told) => recent.render(body("recent"), told, { before: current.before, turn: turnPage }) },
];

async function together(promises) {
  const values = await Promise.all(Object.values(promises));
  return Object.fromEntries(Object.keys(promises).map((name, index) => [name, values[index]]));
}

// The period of the same length before the chosen one.
function earlier({ since, until, ...rest }) {
  const relative = /^(\d+)([mhd])$/.exec(since);
  if (relative) return { ...rest, since: `${2 * relative[1]}${relative[2]}`, until: since };
  const [start, end] = [since, until].map((at) => Date.parse(at));
  return { ...rest, since: new Date(2 * start - end).toISOString(), until: since };
}

async function refresh() {
  polling.begin();
  const mine = (turn += 1);
  const query = { ...state.span(current), version: current.version };
  // What several panels show is asked for once.
  const shared = { status: get("admin/rollout"), test: get("analytics/ab") };
  const outcomes = await Promise.all(PANELS.map(async (panel) => {
    try {
      const [told] = await Promise.all([panel.ask(query, shared), charts]);
      if (mine === turn) {
        panel.show(told);
        panel.again = () => panel.show(told);
      }
      return null;
    } catch (problem) {
      const isRefused = panel.refused !== undefined && keys.needsKey(problem);
      if (mine === turn) {
        panel.again = null;
        if (isRefused) panel.refused(problem);
        else for (const id of panel.ids) showFault(id, problem);
      }
      return isRefused ? null : problem;
    }
  }));
  if (mine !== turn) return;
  const faults = outcomes.filter(Boolean);
  faults.forEach(askForKey);
  tellStatus(faults);
  polling.done(faults);
}

function showFault(id, problem) {
  if (keys.needsKey(problem)) {
    body(id).replaceChildren(el("p", { class: "dim" }, "This needs an API key."));
    return;
  }
  const hint = problem.status === 429 ? ". It goes on by itself." : "";
  body(id).replaceChildren(el("p", { class: "fault", role: "alert" }, `${problem.message}${hint}`));
  if (!(problem instanceof Problem)) reportError(problem);
}

function tellStatus(faults) {
  const when = clock(new Date());
  $("status").className = `status${faults.length ? " bad" : ""}`;
  $("status").textContent = faults.length
    ? `${faults.length} of ${PANELS.length} panels could not be shown at ${when} UTC`
    : `as of ${when} UTC${polling.live ? "" : ", paused"}`;
}

function askForKey(problem) {
  if (keys.needsKey(problem)) openKeyDialog(state.key() ? problem.message : "");
}

function turnPage(before) {
  change({ before });
}

function change(changes) {
  current = { ...current, ...changes };
  state.write(current);
  refresh();
}

function wire() {
  $("range").value = current.range;
  $("version").value = current.version;
  $("custom").hidden = current.range !== "custom";
  for (const end of ["since", "until"]) if (current[end]) $(end).value = current[end].slice(0, 16);
  $("version").addEventListener("change", (event) => change({ version: event.target.value, before: null }));
  $("range").addEventListener("change", (event) => {
    $("custom").hidden = event.target.value !== "custom";
    if (event.target.value !== "custom") change({ range: event.target.value, since: null, until: null, before: null });
  });
  const custom = () => {
    const [since, until] = ["since", "until"].map((end) => $(end).value);
    if (since && until && since < until) change({ range: "custom", since: `${since}Z`, until: `${until}Z`, before: null });
  };
  for (const end of ["since", "until"]) $(end).addEventListener("change", custom);
  $("live").addEventListener("click", () => {
    polling.live = !polling.live;
    $("live").setAttribute("aria-pressed", String(polling.live));
    $("status").textContent = polling.live ? "live again" : "paused";
  });
  $("theme").addEventListener("click", () => {
    theme.turn($("theme"));
    for (const panel of PANELS) panel.again?.();
  });
  playground.start({
    form: $("ask"), answer: $("answer"), file: $("csv"), record: $("record"), area: $("playground"), failed: askForKey,
    asked: () => polling.soon(),
  });
}

theme.paint($("theme"));
wire();
// The panels appear at once, so that none moves another.
setTimeout(reveal, LONGEST_WAIT_MS);
await refresh();
reveal();

function reveal() {
  document.body.classList.remove("waiting");
  if (!performance.getEntriesByName("ready").length) performance.mark("ready");
}
