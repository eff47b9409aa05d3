// Makes elements. What comes from elsewhere becomes text, never markup.

import { time } from "./format.js";

export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") element.addEventListener("click", value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// A column that is `minor` is left out where the page is narrow.
export function table(columns, rows, caption) {
  const classes = (column) => [column.number && "number", column.class, column.minor && "minor"].filter(Boolean).join(" ") || null;
  const head = columns.map((column) => el("th", { scope: "col", class: classes(column) }, column.name));
  const body = rows.map((row) => el("tr", {}, columns.map((column) => el("td", { class: classes(column) }, column.of(row)))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${caption}, table` },
    el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

// A date and a time, between which a narrow page may break the line.
export function when(at) {
  return time(at).split(" ").flatMap((part, index) => [index ? " " : null, el("span", {}, part)]);
}

export function swatch(name) {
  return el("span", { class: `swatch ${name}`, "aria-hidden": "true" });
}

// A state in a word, with a colour that is not the only sign of it.
export function badge(kind, word) {
  return el("span", { class: `badge ${kind}` }, { good: "✓ ", bad: "✕ ", warn: "! " }[kind] ?? "", word);
}

export function empty(message) {
  return el("p", { class: "empty" }, message);
}

export function tile(name, value, { note = null, kind = null } = {}) {
  return el("div", { class: `tile${kind ? ` ${kind}` : ""}` }, el("div", { class: "name" }, name),
    el("div", { class: "value" }, value), el("div", { class: "note" }, note ?? "\u00a0"));
}
