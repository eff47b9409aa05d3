// Asks for the API key of a service that needs one; every page has this one dialog.

import { el } from "./dom.js";
import * as state from "./state.js";

export const needsKey = (problem) => [401, 403].includes(problem.status);

// Makes the dialog; returns the function that opens it, with what was wrong with the last key.
export function start({ done }) {
  const input = el("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const told = el("p", { id: "key-fault", class: "fault", role: "alert" });
  const form = el("form", { method: "dialog", id: "key-form" },
    el("h2", { id: "key-title" }, "This service asks for an API key"),
    el("p", {}, "One with the scope ", el("code", {}, "analytics"), "; with ", el("code", {}, "predict"), " for trying texts, ",
      el("code", {}, "feedback"), " for labelling them, and ", el("code", {}, "admin"), " for the rollout. It stays in this tab, and is never in an address."),
    el("label", { for: "key" }, "API key"), input, told,
    el("div", { class: "row" }, el("button", { class: "primary", type: "submit" }, "Use it")));
  const dialog = el("dialog", { id: "key-dialog", "aria-labelledby": "key-title" }, form);
  document.body.append(dialog);
  form.addEventListener("submit", () => {
    state.keepKey(input.value.trim());
    input.value = "";
    done();
  });
  return (fault) => {
    if (dialog.open) return;
    told.textContent = fault;
    dialog.showModal();
  };
}
