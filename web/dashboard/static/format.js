// Numbers and times as a person reads them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

// As many digits as tell two marks of an axis apart where next to nothing is asked.
const few = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });

export const count = (n) => (n === null || n === undefined ? "–" : whole.format(n));
export const short = (n) => (n === null || n === undefined ? "–" : n < 1_000_000 ? whole.format(n) : compact.format(n));
export const percent = (share, digits = 1) =>
  share === null || share === undefined ? "–" : `${share.toFixed(digits)} %`;
export const points = (share) =>
  share === null || share === undefined ? "–" : `${share > 0 ? "+" : ""}${(100 * share).toFixed(1)} points`;
export const probability = (p) => `${(100 * p).toFixed(1)} %`;
export const rate = (n) => (n === null || n === undefined ? "–" : (n < 10 ? few : whole).format(n));
export const number = (n, digits = 2) => (n === null || n === undefined ? "–" : n.toFixed(digits));

export function milliseconds(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms >= 1_000) return `${(ms / 1_000).toFixed(2)} s`;
  return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  return n >= 2 ** 20 ? `${(n / 2 ** 20).toFixed(1)} MiB` : `${whole.format(n / 1_024)} KiB`;
}

// UTC, as everything in the service.
export const time = (iso) => new Date(iso).toISOString().slice(0, 19).replace("T", " ");
export const clock = (iso) => new Date(iso).toISOString().slice(11, 19);
