// When to ask again: at an interval, later after faults, and not while nobody looks.

// Eleven of a refresh's requests count against RATE_LIMIT_ANALYTICS, 60 a minute unless set.
const REFRESH_SECONDS = 30;
const SOONEST_SECONDS = 10;
const LONGEST_SECONDS = 300;
// What was asked is in the analytics a moment later.
const STORED_SECONDS = 2;

export class Polling {
  #refresh;
  #timer = null;
  #asking = false;
  #wanted = false;
  #failures = 0;
  #due = 0;
  #earliest = 0;
  #live = true;

  // `tell` hears each second how many are left, or null while nothing is waited for.
  constructor(refresh, tell) {
    this.#refresh = refresh;
    document.addEventListener("visibilitychange", () => this.#arm());
    setInterval(() => tell(this.#secondsLeft()), 1_000);
  }

  get live() {
    return this.#live;
  }

  set live(wanted) {
    this.#live = wanted;
    this.#arm();
  }

  begin() {
    clearTimeout(this.#timer);
    this.#asking = true;
    this.#wanted = false;
  }

  // After a refresh, with its faults: each may have `retryAfterSeconds`.
  done(faults) {
    this.#asking = false;
    this.#failures = faults.length ? this.#failures + 1 : 0;
    const doubled = REFRESH_SECONDS * 2 ** Math.max(0, this.#failures - 1);
    const told = Math.max(0, ...faults.map((fault) => fault.retryAfterSeconds ?? 0));
    const wait = Math.max(told, Math.min(LONGEST_SECONDS, doubled));
    this.#earliest = Date.now() + 1_000 * (faults.length ? wait : SOONEST_SECONDS);
    this.#due = this.#wanted ? this.#earliest : Date.now() + 1_000 * wait;
    this.#arm();
  }

  // There is something new to see.
  soon() {
    this.#wanted = true;
    this.#due = Math.min(this.#due, Math.max(this.#earliest, Date.now() + 1_000 * STORED_SECONDS));
    this.#arm();
  }

  #waits() {
    return this.#live && !this.#asking && !document.hidden;
  }

  #arm() {
    clearTimeout(this.#timer);
    if (this.#waits()) this.#timer = setTimeout(this.#refresh, Math.max(0, this.#due - Date.now()));
  }

  #secondsLeft() {
    return this.#waits() ? Math.max(0, Math.ceil((this.#due - Date.now()) / 1_000)) : null;
  }
}
