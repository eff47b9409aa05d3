// Numbers and times as a person reads them: dates as 2026-11-27 15:42, in UTC, and percent as 84.6%, as the API writes them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

// As many digits as tell two marks of an axis apart where next to nothing is asked.
const few = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });

const known = (n) => n !== null && n !== undefined && !Number.isNaN(n);

export const NONE = "–";
export const count = (n) => (known(n) ? whole.format(n) : NONE);
export const short = (n) => (known(n) ? (n < 1_000_000 ? whole : compact).format(n) : NONE);
export const plural = (n, word, words = `${word}s`) => `${count(n)} ${n === 1 ? word : words}`;
export const percent = (share, digits = 1) => (known(share) ? `${share.toFixed(digits)}%` : NONE);
export function signed(n, digits = 1) {
  const size = Math.abs(n).toFixed(digits);
  return Number(size) === 0 ? "0" : `${n > 0 ? "+" : "−"}${size}`;
}
export const points = (share) => (known(share) ? `${signed(100 * share)} points` : NONE);
export const probability = (p) => percent(known(p) ? 100 * p : p);
export const rate = (n) => (known(n) ? (n < 10 ? few : whole).format(n) : NONE);
export const number = (n, digits = 2) => (known(n) ? n.toFixed(digits) : NONE);

export function milliseconds(ms) {
  if (!known(ms)) return NONE;
  if (ms >= 1_000) return `${(ms / 1_000).toFixed(2)} s`;
  return `${ms > 0 && ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

export function bytes(n) {
  if (!known(n)) return NONE;
  return n >= 2 ** 20 ? `${(n / 2 ** 20).toFixed(1)} MiB` : `${whole.format(n / 1_024)} KiB`;
}

export function duration(seconds) {
  for (const [size, word] of [[86_400, "day"], [3_600, "hour"], [60, "minute"]]) {
    if (seconds >= size) return plural(Math.round(seconds / size), word);
  }
  return plural(Math.max(0, Math.round(seconds)), "second");
}

// How much a value has changed against the period before, in percent or, of a share, in points.
export function change(now, before, { inPoints = false } = {}) {
  if (!known(now) || !known(before) || (before === 0 && !inPoints)) return "none before to compare with";
  const by = inPoints ? now - before : (100 * (now - before)) / before;
  const size = signed(by, Math.abs(by) < 10 ? 1 : 0);
  if (size === "0") return "as in the period before";
  return `${size}${inPoints ? " points" : "%"} against the period before`;
}

const iso = (at) => new Date(at).toISOString();
export const time = (at) => iso(at).slice(0, 19).replace("T", " ");
export const minute = (at) => iso(at).slice(0, 16).replace("T", " ");
export const day = (at) => iso(at).slice(5, 10);
export const clock = (at) => iso(at).slice(11, 19);
export const hour = (at) => iso(at).slice(11, 16);
