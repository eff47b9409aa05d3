// Asks the service, which lies beside the folder of this file, whatever path it is behind.

import { key } from "./state.js";

export class Problem extends Error {
  // `errors` are the fields that are wrong, with their messages.
  constructor(status, detail, retryAfterSeconds, errors = []) {
    super(detail);
    this.errors = errors;
    this.status = status;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

const TIMEOUT_MS = 15_000;
const SERVICE = new URL("../", import.meta.url);

async function ask(path, options) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  let reply;
  try {
    reply = await fetch(new URL(path, SERVICE), { ...options, headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch {
    throw new Problem(0, "The service does not answer. Is it up, and this machine online?", 10);
  }
  const told = await reply.json().catch(() => ({}));
  // /health tells what is down with a 503.
  if (reply.ok || (reply.status === 503 && told.versions)) return told;
  const seconds = Number(reply.headers.get("Retry-After")) || null;
  throw new Problem(reply.status, told.detail ?? `The service answers ${reply.status}.`, seconds, told.errors);
}

export function get(path, query = {}) {
  const asked = Object.entries(query).filter(([, value]) => value);
  return ask(asked.length ? `${path}?${new URLSearchParams(asked)}` : path, {});
}

// Marks what a person tries out: it is not recorded, and has rate limits of its own.
export const TRIAL = { "X-Sentiment-Source": "playground" };

export function post(path, body, headers = {}) {
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}
