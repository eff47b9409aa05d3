// Makes elements. What comes from elsewhere becomes text, never markup.

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

export function table(columns, rows, caption) {
  const head = columns.map((column) =>
    el("th", { scope: "col", class: column.number ? "number" : null }, column.name));
  const body = rows.map((row) =>
    el("tr", {}, columns.map((column) =>
      el("td", { class: column.number ? "number" : column.class ?? null }, column.of(row)))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${caption}, table` },
    el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

export function swatch(name) {
  return el("span", { class: `swatch ${name}`, "aria-hidden": "true" });
}

export function legend(...entries) {
  return el("div", { class: "legend" }, entries.map(([name, label]) => el("span", {}, swatch(name), label)));
}

export function empty(message) {
  return el("p", { class: "empty" }, message);
}
