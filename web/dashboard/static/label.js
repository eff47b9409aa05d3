// The page to label with keys: shows one text of the review queue after the other, and posts what a person says.

import { get, post } from "./api.js";
import { badge, el, empty, table } from "./dom.js";
import { count, minute, number, plural, probability } from "./format.js";
import * as keys from "./key_dialog.js";
import * as state from "./state.js";
import * as theme from "./theme.js";

const LABELS = { 1: "negative", 2: "neutral", 3: "positive" };
const SKIP = "s", UNDO = "u";
// The service gives at most so many. What was skipped here is asked for too, and not shown.
const AT_A_TIME = 50, AT_MOST = 200;
const SHOWN_IDS = 20;
const SKIPPED = "sentiment.skipped";
const MOST_SKIPPED = 500;
const WHY = {
  disagreement: "the versions disagree", low_confidence: "low confidence", unusual: "unusual length", random: "at random",
};
const WITHOUT_TEXT = "The texts of these predictions are not kept (any more). Label them by their ids, with `sentiment labels import` or /feedback.";
const $ = (id) => document.getElementById(id);

let current = state.read();
let items = [];
let waiting = 0;
let busy = false;
// What was answered or skipped in this tab, the last one last.
const past = [];
const openKeyDialog = keys.start({ done: load });
const skipped = () => JSON.parse(sessionStorage.getItem(SKIPPED) ?? "[]");

async function load() {
  await attempt(async () => {
    const seen = new Set(skipped());
    const ask = (limit) => get("analytics/review-queue", { ...state.span(current), version: current.version, limit });
    // Nobody can label a text that is not kept: it is from before TEXT_STORAGE=full, or has expired.
    const canShow = (one) => one.text !== null && !seen.has(one.prediction_id);
    const first = Math.min(AT_A_TIME + seen.size, AT_MOST);
    let queue = await ask(first);
    if (!queue.note && queue.items.length === first && first < AT_MOST && !queue.items.some(canShow)) queue = await ask(AT_MOST);
    const unseen = queue.items.filter((one) => !seen.has(one.prediction_id));
    items = unseen.filter(canShow);
    waiting = queue.waiting - (queue.items.length - unseen.length);
    if (queue.note && queue.items.length) return showIds(queue);
    if (unseen.length && !items.length) return showIds({ items: unseen, note: WITHOUT_TEXT });
    waiting -= unseen.length - items.length;
    show();
  });
}

async function attempt(work) {
  if (busy) return;
  busy = true;
  $("fault").textContent = "";
  try {
    await work();
  } catch (problem) {
    if (keys.needsKey(problem)) openKeyDialog(state.key() ? problem.message : "");
    $("fault").textContent = keys.needsKey(problem) ? "This needs an API key." : `${problem.message} Try again.`;
    $("status").textContent = "not sent";
  } finally {
    busy = false;
  }
}

function show() {
  const [item] = items;
  // The buttons are replaced; who tabs through them stays on the one that was pressed.
  const word = $("answers").contains(document.activeElement) ? document.activeElement.textContent : null;
  if (word) setTimeout(() => [...$("answers").children].find((one) => one.textContent === word)?.focus());
  const done = past.filter((one) => one.label).length;
  $("status").textContent = `${count(waiting)} waiting, ${plural(done, "label")} given here`;
  if (!item) {
    $("item").replaceChildren(empty("Nothing waits for a label in this range. More are chosen when there are new predictions, at most every five minutes where there are many."));
    $("answers").replaceChildren(...again(), ...undoButton());
    return;
  }
  $("item").replaceChildren(
    el("p", { class: "says-text", lang: "en" }, item.text),
    el("p", { class: "dim" }, "Why this one: ", item.reasons.map((reason) => [badge("dim", WHY[reason]), " · "]).flat().slice(0, -1),
      ` · stands for ${number(item.weight, item.weight < 10 && !Number.isInteger(item.weight) ? 1 : 0)} · ${minute(item.created_at)} UTC`));
  const answers = Object.entries(LABELS).filter(([, label]) => item.classes.includes(label))
    .map(([key, label]) => button(key, label, () => answer(label), label));
  $("answers").replaceChildren(...answers, button("S", "skip", skip), ...undoButton());
}

const button = (key, word, onclick, label = null) => el("button", { type: "button", onclick, "data-label": label }, el("kbd", {}, key), ` ${word}`);
const again = () => [el("button", { type: "button", onclick: load }, "Ask again")];
const undoButton = () => (past.length ? [button("U", "undo", undo)] : []);

function answer(label) {
  const [item] = items;
  if (!item?.classes.includes(label)) return;
  attempt(async () => {
    await post("feedback", { prediction_id: item.prediction_id, label });
    const isNew = !item.label;
    past.push({ item: { ...item, label }, label });
    $("told").textContent = `You said ${label}; ${item.model_version} had said ${item.sentiment}, with ${probability(item.confidence)}.`;
    next(isNew);
  });
}

function skip() {
  const [item] = items;
  if (!item || busy) return;
  if (!item.label) sessionStorage.setItem(SKIPPED, JSON.stringify([...skipped(), item.prediction_id].slice(-MOST_SKIPPED)));
  past.push({ item, label: null });
  $("told").textContent = item.label ? `It stays ${item.label}.` : "Skipped.";
  next(!item.label);
}

function next(isDone) {
  items = items.slice(1);
  if (isDone) waiting = Math.max(0, waiting - 1);
  show();
  // After this attempt has ended.
  if (!items.length) setTimeout(load);
}

// The text before is shown again: another label replaces the one that it has.
function undo() {
  if (busy) return;
  const last = past.pop();
  if (!last) return;
  sessionStorage.setItem(SKIPPED, JSON.stringify(skipped().filter((id) => id !== last.item.prediction_id)));
  items = [last.item, ...items];
  if (!last.item.label) waiting += 1;
  $("told").textContent = last.item.label ? `Once more: you said ${last.item.label}. Another answer replaces it.` : "Once more.";
  show();
}

function showIds({ items: all, note }) {
  $("status").textContent = `${count(waiting)} waiting`;
  $("item").replaceChildren(
    el("p", {}, note),
    table([
      { name: "Prediction", of: (one) => el("code", {}, one.prediction_id), class: "text" },
      { name: "When (UTC)", of: (one) => minute(one.created_at), minor: true },
      { name: "Why", of: (one) => one.reasons.map((reason) => WHY[reason]).join(", "), class: "wrap" },
    ], all.slice(0, SHOWN_IDS), "Predictions to label"));
  $("answers").replaceChildren(...again());
}

function change(changes) {
  current = { ...current, ...changes, before: null };
  state.write(current);
  $("back").href = `../dashboard${location.search}`;
  load();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest("select, input, dialog")) return;
  const key = event.key.toLowerCase();
  if (LABELS[key]) answer(LABELS[key]);
  else if (key === SKIP) skip();
  else if (key === UNDO) undo();
});
$("range").value = current.range;
$("version").value = current.version;
$("back").href = `../dashboard${location.search}`;
$("range").addEventListener("change", (event) => change({ range: event.target.value, since: null, until: null }));
$("version").addEventListener("change", (event) => change({ version: event.target.value }));
$("theme").addEventListener("click", () => theme.turn($("theme")));
theme.paint($("theme"));
await load();
