// What to label next: how many predictions wait, how many labels a verdict still needs, and the way to the page.

import { el } from "../dom.js";
import { count, plural } from "../format.js";
import { missingOf } from "./ab.js";

export const ONLY_COUNTS = "0";
const KINDS = { randomised: "the split traffic", paired: "the texts that both answered" };

export function render(where, { queue, test }, search) {
  where.replaceChildren(
    el("p", { class: "lead" }, waiting(queue)),
    ...Object.entries(KINDS).flatMap(([kind, words]) => {
      const more = test[kind] && missingOf(test[kind]);
      return more ? [el("p", {}, `About ${plural(more, "more label")} would settle the test of ${words}. Labels of the random part of the queue count in it.`)] : [];
    }),
    el("div", { class: "row" }, el("a", { href: `dashboard/label.html${search}` }, "Label by keys")));
}

function waiting({ waiting: left, labelled }) {
  if (!left && !labelled) return "Nothing is chosen yet: opening the page chooses predictions of this range.";
  const done = labelled ? `; ${plural(labelled, "label")} of the queue ${labelled === 1 ? "is" : "are"} there` : "";
  if (!left) return `No prediction waits for a label${done}.`;
  return `${count(left)} ${left === 1 ? "prediction waits" : "predictions wait"} for a label${done}.`;
}
