// The list of conversations: what the server keeps, latest first, by day; opened by their address, deleted when one is sure.

import { announce, h, iconButton } from "./dom.js";
import { plain } from "./plain.js";

const at = (id) => document.getElementById(id);
const DAY = 86_400_000;

export class List {
  /** @param act {trouble, gone}: what to do with an error, and with the id of a conversation that was deleted */
  constructor(api, act) {
    Object.assign(this, { api, act, entries: [], next: null, here: null });
    at("older").addEventListener("click", () => this.load(this.next));
  }

  /** Asks for the latest; after an id, for those that follow it. */
  async load(after = null) {
    try {
      const page = await this.api.conversations(after);
      this.entries = after ? [...this.entries, ...page.entries] : page.entries;
      this.next = page.next;
      this.show();
    } catch (error) {
      this.act.trouble(error);
    }
  }

  show() {
    const groups = new Map();
    for (const entry of this.entries) groups.set(whenOf(entry), [...(groups.get(whenOf(entry)) ?? []), entry]);
    at("conversations").replaceChildren(...[...groups].map(([when, entries]) =>
      h("section", {}, h("h2", {}, when), h("ul", {}, entries.map((e) => this.line(e))))));
    at("older").hidden = !this.next;
    this.mark(this.here);
  }

  line({ id, title }) {
    const name = title || "Without words";
    const link = h("a", { href: `#${id}`, dir: "auto", title: name }, plain(name));
    return h("li", { "data-id": id }, link, iconButton("bin", `Delete ${name.slice(0, 40)}`, () => this.remove(id, name)));
  }

  /** Marks the one that is shown. */
  mark(id) {
    this.here = id;
    for (const line of at("conversations").querySelectorAll("li")) {
      const link = line.querySelector("a");
      if (line.dataset.id === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  async remove(id, title) {
    const dialog = at("sure");
    at("sure-what").replaceChildren(...plain(title.slice(0, 200)));
    dialog.returnValue = "no";
    dialog.showModal();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
    if (dialog.returnValue !== "yes") return;
    try {
      await this.api.forget(id);
      this.act.gone(id);
      announce("Deleted.");
    } catch (error) {
      this.act.trouble(error);
    }
    this.load();
  }
}

function whenOf({ updated_at }) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const then = updated_at * 1000;
  if (then >= midnight) return "Today";
  if (then >= midnight - DAY) return "Yesterday";
  return then >= midnight - 7 * DAY ? "This week" : "Before";
}
