// When something does not work: a line above the question, the key that is asked for, and waiting for a server that is away.

import { h, iconButton } from "./dom.js";

const at = (id) => document.getElementById(id);
const AGAIN = 2000; // milliseconds between looks for the server

/** Shows a line; an empty one hides it. */
export function notice(text, ...more) {
  at("notice").replaceChildren(h("span", {}, text), ...more);
  at("notice").hidden = !text;
}

export class Trouble {
  /** @param api the server @param begin starts over, with a key or when the server is back */
  constructor(api, begin) {
    Object.assign(this, { api, begin, away: null, unlocked: null, waiting: [] });
    at("key").addEventListener("click", () => this.lock(null, begin));
    at("lock").querySelector("form").addEventListener("submit", () => {
      api.use(at("secret").value.trim(), at("keep").checked);
      at("secret").value = "";
      this.unlocked?.();
    });
    at("forget").addEventListener("click", () => {
      api.use(null);
      location.reload();
    });
    window.addEventListener("online", () => this.away && begin());
  }

  /** An error that belongs to no answer. */
  tell(error) {
    if (this.handles(error, this.begin)) return;
    notice(error.message, iconButton("cross", "Close", () => notice("")));
  }

  /** Takes care of what is not the matter of one answer: a key that is wanted (`then` when it is there), a server that is away. */
  handles(error, then) {
    if (error.status === 401) this.lock(this.api.key ? error.message : null, then);
    else if (error.status === 0) this.reach(false);
    else return false;
    return true;
  }

  /** Whether the server answers; while it does not, it is looked for. */
  reach(there) {
    if (there) {
      if (this.away) notice("");
      clearTimeout(this.away);
      this.away = null;
      for (const go of this.waiting.splice(0)) go();
    } else if (!this.away) {
      notice("Waiting for the server\u2026 what you write is kept.");
      this.away = setTimeout(() => this.look(), AGAIN);
    }
  }

  /** Waits until the server answers again. */
  async back(signal) {
    this.reach(false);
    const stopped = new Promise((_, no) => signal.addEventListener("abort", () => no(signal.reason), { once: true }));
    await Promise.race([new Promise((go) => this.waiting.push(go)), stopped]);
  }

  async look() {
    const alive = await fetch("health", { cache: "no-store" }).then((r) => r.ok, () => false);
    if (!this.away) return;
    if (!alive) this.away = setTimeout(() => this.look(), AGAIN);
    else {
      this.reach(true);
      this.begin();
    }
  }

  /** Asks for the key; `then` when there is one. */
  lock(wrong, then) {
    this.unlocked = then;
    at("wrong").hidden = !wrong;
    at("wrong").textContent = wrong ?? "";
    at("forget").hidden = !this.api.key;
    if (!at("lock").open) at("lock").showModal();
  }
}
