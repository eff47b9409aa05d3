// Asks both versions about a text or a CSV file, and tells the service who was right.

import { post } from "./api.js";
import { csvOf, parse } from "./csv_rows.js";
import { el, swatch, table } from "./dom.js";
import { milliseconds, probability } from "./format.js";

const VERSIONS = ["v1", "v2"];
const BATCH = 50;
const MOST_ROWS = 1_000;
const SENTIMENTS = ["positive", "neutral", "negative"];

export function start({ form, answer, file, area, failed, asked }) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.elements.text?.value ?? form.querySelector("textarea").value;
    await busy(form, async () => {
      const told = await post("predict/ab-compare", { text });
      answer.replaceChildren(compared(told, text, failed));
      asked();
    }, answer, failed);
  });
  const take = (chosen) => busy(form, async () => {
    await scored(await chosen.text(), chosen.name, answer);
    asked();
  }, answer, failed);
  file.addEventListener("change", () => { if (file.files[0]) take(file.files[0]); });
  area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("dropping"); });
  area.addEventListener("dragleave", () => area.classList.remove("dropping"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("dropping");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}

async function busy(form, work, answer, failed) {
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await work();
  } catch (problem) {
    failed(problem);
    answer.replaceChildren(el("p", { class: "fault", role: "alert" }, problem.message));
  } finally {
    button.disabled = false;
  }
}

function compared(told, text, failed) {
  const { predictions } = told;
  const verdict = told.agreement ? "Both say the same." : "They disagree.";
  return el("div", {},
    el("div", { class: "versions" }, VERSIONS.map((version) => card(version, predictions[version]))),
    feedback(predictions, verdict, failed));
}

function card(version, one) {
  return el("article", { class: version, "data-version": version },
    el("h3", {}, version, " ", el("span", { class: "dim" }, `revision ${one.model_revision}`)),
    el("p", { class: "says" }, swatch(one.sentiment), one.sentiment),
    SENTIMENTS.filter((name) => name in one.scores).map((name) => bar(name, one.scores[name])),
    el("p", { class: "dim" }, one.cache_hit ? "from the cache" : "computed", ` in ${milliseconds(one.latency_ms)}`,
      one.truncated ? "; cut at 512 tokens" : ""));
}

function bar(name, share) {
  const fill = el("div", { class: `fill ${name}` });
  fill.style.width = `${100 * share}%`;
  return el("div", { class: "bar" }, el("span", {}, name), el("div", { class: "track", "aria-hidden": "true" }, fill),
    el("span", { class: "number" }, probability(share)));
}

function feedback(predictions, verdict, failed) {
  const labels = SENTIMENTS.filter((name) => VERSIONS.some((version) => name in predictions[version].scores));
  const told = el("span", { role: "status" });
  const buttons = labels.map((label) => el("button", { type: "button", "data-label": label, onclick: () => tell(label) }, label));
  async function tell(label) {
    for (const button of buttons) button.disabled = true;
    try {
      await Promise.all(VERSIONS.map((version) => post("feedback", { prediction_id: predictions[version].id, label })));
      const right = VERSIONS.filter((version) => predictions[version].sentiment === label);
      told.textContent = `Thank you. ${right.length === 2 ? "Both were right." : right.length ? `${right[0]} was right.` : "Neither was right."}`;
    } catch (problem) {
      failed(problem);
      told.textContent = problem.message;
      for (const button of buttons) button.disabled = false;
    }
  }
  return el("div", { class: "row" }, el("span", {}, `${verdict} What is it really?`), buttons, told);
}

// A file may hold more than the limit lets through in a minute.
async function patient(path, body, wait) {
  for (;;) {
    try {
      return await post(path, body);
    } catch (problem) {
      if (problem.status !== 429 || !problem.retryAfterSeconds) throw problem;
      await wait(problem.retryAfterSeconds);
    }
  }
}

async function scored(content, name, answer) {
  const { texts, column } = parse(content);
  if (!texts.length) throw new Error(`${name} has no texts: a header and one text a line are expected.`);
  const taken = texts.slice(0, MOST_ROWS);
  const rows = [];
  const progress = el("progress", { max: taken.length, value: 0, "aria-label": "Texts asked" });
  const note = el("p", { class: "dim", role: "status" });
  answer.replaceChildren(progress, note);
  const wait = (seconds) => {
    note.textContent = `RATE_LIMIT_BATCH is reached: goes on in ${seconds} s, after ${rows.length} of ${taken.length} texts.`;
    return new Promise((resume) => setTimeout(resume, 1_000 * seconds));
  };
  for (let from = 0; from < taken.length; from += BATCH) {
    const batch = taken.slice(from, from + BATCH);
    const [v1, v2] = await Promise.all(VERSIONS.map((version) => patient("predict/batch", { texts: batch, version }, wait)));
    note.textContent = "";
    batch.forEach((text, index) => rows.push({ text, v1: v1.predictions[index], v2: v2.predictions[index] }));
    progress.value = rows.length;
  }
  const differ = rows.filter((row) => row.v1.sentiment !== row.v2.sentiment).length;
  const more = texts.length > taken.length ? ` The first ${MOST_ROWS} of ${texts.length}: for all, scripts/score.py.` : "";
  const link = el("a", { download: "sentiments.csv", href: URL.createObjectURL(new Blob([csvOf(rows)], { type: "text/csv" })) }, "Save as CSV");
  answer.replaceChildren(
    el("p", {}, `${rows.length} texts of column ${column}; the versions differ on ${differ}.${more} `, link),
    table([
      { name: "Text", of: (row) => row.text, class: "text" },
      ...VERSIONS.map((version) => ({ name: version, of: (row) => [swatch(row[version].sentiment), `${row[version].sentiment} ${probability(row[version].confidence)}`] })),
    ], rows.slice(0, 100), "Texts and what both versions say"));
}
