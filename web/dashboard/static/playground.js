// Asks both versions about a text or a CSV file, and tells the service who was right.

import { TRIAL, post } from "./api.js";
import { el, swatch } from "./dom.js";
import { milliseconds, probability } from "./format.js";
import { scoreFile } from "./scored_file.js";

const VERSIONS = ["v1", "v2"];
const SENTIMENTS = ["positive", "neutral", "negative"];

export function start({ form, answer, file, record, area, failed, asked }) {
  const mark = () => (record.checked ? {} : TRIAL);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.elements.text?.value ?? form.querySelector("textarea").value;
    await busy(form, async () => {
      const isRecorded = record.checked;
      const told = await post("predict/ab-compare", { text }, mark());
      answer.replaceChildren(compared(told, isRecorded, failed));
      asked();
    }, answer, failed);
  });
  const take = (chosen) => busy(form, async () => {
    const bytes = new Uint8Array(await chosen.arrayBuffer());
    const score = async (choices) => {
      await scoreFile(bytes, chosen.name, choices, answer, (others) => busy(form, () => score(others), answer, failed), mark());
      asked();
    };
    await score({});
  }, answer, failed);
  file.addEventListener("change", () => {
    if (file.files[0]) take(file.files[0]);
    // The same file, mended, can be chosen again.
    file.value = "";
  });
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

function compared(told, isRecorded, failed) {
  const { predictions } = told;
  const verdict = told.agreement ? "Both say the same." : "They disagree.";
  return el("div", {},
    el("div", { class: "versions" }, VERSIONS.map((version) => card(version, predictions[version]))),
    isRecorded ? feedback(predictions, verdict, failed) : el("p", { class: "row" }, `${verdict} This was not recorded.`));
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
