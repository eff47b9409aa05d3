// Light or dark, and the button that turns it.

import * as state from "./state.js";

export function paint(button) {
  const theme = state.theme();
  document.documentElement.dataset.theme = theme;
  const other = theme === "dark" ? "light" : "dark";
  button.textContent = other === "dark" ? "Dark" : "Light";
  button.setAttribute("aria-label", `Switch to ${other}`);
}

export function turn(button) {
  state.keepTheme(state.theme() === "dark" ? "light" : "dark");
  paint(button);
}
