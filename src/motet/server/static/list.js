// The list of conversations: what the server keeps, latest first, by day; opened by their address, renamed, deleted when one is sure.

import { announce, h, iconButton } from "./dom.js";
import { plain } from "./plain.js";

const at = (id) => document.getElementById(id);
const DAY = 86_400_000;
const PAUSE = 250; // milliseconds without a key before a search begins

export class List {
  /** @param act {trouble, loaded, gone}: what to do with an error, when the list is there, with the id of one that was deleted */
  constructor(api, act) {
    Object.assign(this, { api, act, entries: [], next: null, here: null, words: "", waits: null });
    at("older").addEventListener("click", () => this.load(this.next));
    at("find").addEventListener("input", () => {
      clearTimeout(this.waits);
      this.waits = setTimeout(() => this.find(at("find").value.trim()), PAUSE);
    });
  }

  /** Lists only conversations that hold the words; all of them for none. */
  find(words) {
    this.words = words;
    this.entries = [];
    return this.load();
  }

  /** Asks for the latest; after an id, for those that follow it. Older ones that were asked for stay. */
  async load(after = null) {
    try {
      const { words } = this;
      const { entries, next } = await this.api.conversations(after, words);
      if (words !== this.words) return; // something else is looked for by now
      const ids = new Set(entries.map((e) => e.id));
      const others = this.entries.filter((e) => !ids.has(e.id));
      const older = after ? [] : others.filter((e) => next && e.updated_at < entries.at(-1).updated_at);
      this.entries = after ? [...others, ...entries] : [...entries, ...older];
      if (after || !older.length) this.next = next;
      if (!at("conversations").contains(document.activeElement) || document.activeElement.localName !== "input") this.show();
      this.act.loaded();
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
    at("find").hidden = !this.words && this.entries.length < 2;
    at("nothing").textContent = this.words && !this.entries.length ? "No conversation holds these words." : "";
    this.mark(this.here);
  }

  line({ id, title }) {
    const name = title || "Without words";
    const link = h("a", { href: `#${id}`, dir: "auto", title: name }, plain(name));
    const line = h("li", { "data-id": id }, link,
      iconButton("edit", `Rename ${name.slice(0, 40)}`, () => this.rename(line, id, name)),
      iconButton("bin", `Delete ${name.slice(0, 40)}`, () => this.remove(id, name)));
    return line;
  }

  /** What a conversation is called; null while that is not known. */
  title(id) {
    return this.entries.find((e) => e.id === id)?.title ?? null;
  }

  /** Lets a title be written anew: Enter or leaving takes it, Escape does not. */
  rename(line, id, title) {
    const field = h("input", { type: "text", "aria-label": "Title", maxlength: "120", dir: "auto" });
    field.value = title;
    let over = false;
    const end = async (save) => {
      if (over) return;
      over = true;
      const name = field.value.trim();
      if (save && name && name !== title) await this.api.rename(id, name).catch((error) => this.act.trouble(error));
      field.remove();
      await this.load();
      if (document.activeElement === document.body) at("conversations").querySelector(`[data-id="${CSS.escape(id)}"] a`)?.focus();
    };
    field.addEventListener("blur", () => end(true));
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.preventDefault();
      end(event.key === "Enter");
    });
    line.replaceChildren(field);
    field.select();
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
      this.entries = this.entries.filter((e) => e.id !== id);
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
