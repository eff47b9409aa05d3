// What is looked at: kept in the address, so that it can be shared. The key never is.

const RANGES = ["1h", "6h", "24h", "7d", "30d"];
const KEY = "sentiment.key";
const THEME = "sentiment.theme";

export function read() {
  const query = new URLSearchParams(location.search);
  const range = query.get("range");
  const version = query.get("version");
  const custom = range === "custom" && query.get("since") && query.get("until");
  return {
    range: custom ? "custom" : RANGES.includes(range) ? range : "24h",
    since: custom ? query.get("since") : null,
    until: custom ? query.get("until") : null,
    version: ["v1", "v2"].includes(version) ? version : "",
    before: query.get("before"),
  };
}

export function write(state) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value) query.set(name, value);
  history.replaceState(null, "", `?${query}`);
}

// As the analytics endpoints take it.
export function span(state) {
  return state.range === "custom" ? { since: state.since, until: state.until } : { since: state.range };
}

export const key = () => sessionStorage.getItem(KEY);
export const keepKey = (value) => sessionStorage.setItem(KEY, value);

export function theme() {
  return localStorage.getItem(THEME)
    ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}
export const keepTheme = (value) => localStorage.setItem(THEME, value);
