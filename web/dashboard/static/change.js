// Asks an admin for the reason of a change, shows what it would do, and does it.

import { post } from "./api.js";
import { el } from "./dom.js";
import { preview } from "./panels/rollout.js";

export function start({ dialog, done }) {
  const [title, shown, reason, fault, form] = ["h2", ".preview", "input", ".fault", "form"].map((found) => dialog.querySelector(found));
  const button = form.querySelector("[type=submit]");
  let asked = null;

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await attempt(async () => {
      await post("admin/rollout", { ...asked, reason: reason.value });
      dialog.close();
      done();
    });
  });
  dialog.querySelector("[data-cancel]").addEventListener("click", () => dialog.close());

  return async (action, label, version) => {
    asked = { action, base_version: version };
    title.textContent = label;
    reason.value = "";
    shown.replaceChildren(el("p", { class: "dim" }, "Looking at what it would change…"));
    dialog.showModal();
    await attempt(async () => shown.replaceChildren(...preview(await post("admin/rollout", { ...asked, reason: "preview", dry_run: true }))));
  };

  async function attempt(work) {
    fault.textContent = "";
    button.disabled = true;
    try {
      await work();
      button.disabled = false;
    } catch (problem) {
      // Somebody was faster, or the key may not: another try would fail too.
      fault.textContent = problem.message;
      button.disabled = [401, 403, 409].includes(problem.status);
    }
  }
}
