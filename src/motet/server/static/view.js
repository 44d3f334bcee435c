// A turn as the reader sees it: the question, the thinking folded, calls with what came of them, the answer, and what can
// be done about it. Draws what it is given; knows no server. `update` may be called after every event.

import { copyButton, count, h, icon, iconButton, plural, size } from "./dom.js";
import { local } from "./inline.js";
import { Markdown, codeBlock, output } from "./markdown.js";
import { plain } from "./plain.js";

/** One turn, as an element of the list. `act`: {retry, edit, show, ways} are given the turn first; picture(url), file(file). */
export class TurnView {
  constructor(turn, tree, act) {
    Object.assign(this, { turn, tree, act });
    this.question = h("article", { class: "question" });
    this.answer = new AnswerView(turn.answer, { picture: act.picture, file: act.file, ways: () => act.ways(turn) });
    this.element = h("li", { class: "turn" }, this.question, this.answer.element);
    this.ask();
    this.update();
  }

  /** Shows the question, with buttons. */
  ask() {
    const { turn, tree, act } = this;
    const wordings = tree.questions(turn);
    this.question.hidden = !turn.question; // an answer to what a tool of some client said
    this.question.replaceChildren(
      h("h2", { class: "unseen" }, "You"),
      h("div", { class: "said", dir: "auto" }, plain(turn.question)),
      h("div", { class: "actions" },
        switcher("wording", wordings, turn, (t) => act.show(t)),
        copyButton("Copy the question", () => turn.question),
        iconButton("edit", "Edit the question", () => this.edit())),
    );
  }

  /** Lets the question be written anew. */
  edit() {
    const area = h("textarea", { "aria-label": "The question", rows: "1", dir: "auto" });
    area.value = this.turn.question;
    const close = () => {
      this.ask();
      this.question.querySelector('[aria-label="Edit the question"]').focus();
    };
    const send = () => (area.value.trim() ? this.act.edit(this.turn, area.value.trim()) : area.focus());
    area.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") close();
      else if (event.key === "Enter" && !event.shiftKey) send();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    const buttons = h("div", { class: "row" },
      h("button", { type: "button", class: "plain", on: { click: close } }, "Cancel"),
      h("button", { type: "button", on: { click: send } }, "Ask this"));
    this.question.replaceChildren(h("h2", { class: "unseen" }, "You"), h("div", { class: "editing" }, area, buttons));
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  /** Shows what is known of the answer by now. */
  update() {
    this.answer.update();
    const { turn, tree, act } = this;
    if (turn.answer.over && !this.done) {
      this.done = true;
      this.answer.finish(
        switcher("answer", tree.answers(turn), turn, (t) => act.show(t)),
        turn.answer.text && copyButton("Copy the answer", () => turn.answer.text),
        turn.answer.response.status !== "failed" && iconButton("retry", "Ask again", () => act.retry(turn)));
    }
  }

  /** Forgets pictures. */
  drop() {
    this.answer.drop();
  }
}

function switcher(what, turns, turn, show) {
  if (turns.length < 2) return null;
  const at = turns.indexOf(turn);
  const step = (by, icon, label) => iconButton(icon, label, () => show(turns[at + by]), { disabled: turns[at + by] === undefined });
  return h("span", { class: "switcher", role: "group", "aria-label": `${what} ${at + 1} of ${turns.length}` },
    step(-1, "before", `Previous ${what}`), h("span", { "aria-hidden": "true" }, `${at + 1} / ${turns.length}`), step(1, "after", `Next ${what}`));
}

class AnswerView {
  constructor(answer, act) {
    Object.assign(this, { answer, act });
    this.items = []; // views of the items, by index; thinking has one of its own
    this.thinking = new Thinking();
    this.flow = h("div", { class: "flow" });
    this.files = new Files(act.file);
    this.state = h("div", { class: "state" });
    this.foot = h("div", { class: "actions" });
    this.element = h("article", { class: "answer", "aria-busy": "true" },
      h("h2", { class: "unseen" }, "Answer"), this.thinking.element, this.flow, this.files.element, this.state, this.foot);
  }

  update() {
    const { answer } = this;
    this.thinking.update(answer);
    answer.items.forEach((item, n) => {
      if (!item || item.type === "reasoning") return;
      if (this.items[n]?.type !== item.type) {
        this.items[n]?.element.remove();
        const view = item.type === "message" ? new Message() : new Call(this.act.picture);
        this.items[n] = Object.assign(view, { type: item.type });
        this.flow.append(view.element);
      }
      this.items[n].update(item, answer.over);
    });
    this.files.update(answer);
    this.tell();
    this.element.setAttribute("aria-busy", String(!answer.over));
  }

  /** What there is to say of the answer as a whole: that it is awaited, was stopped, went wrong and what helps. */
  tell() {
    const { answer, state } = this;
    const wrong = answer.response.status === "failed";
    const [said, waits] = stateOf(answer);
    if (said === state.dataset.said) return;
    state.dataset.said = said;
    state.classList.toggle("wrong", wrong);
    state.replaceChildren(h("p", { class: waits ? "waiting" : null }, plain(said)));
    const ways = answer.over && said ? this.act.ways() : [];
    if (ways.length) state.append(h("div", { class: "row" }, ways.map(([label, click]) => h("button", { type: "button", class: "plain", on: { click } }, label))));
    state.hidden = !said;
  }

  finish(...actions) {
    this.foot.replaceChildren(...actions.filter(Boolean), stats(this.answer));
  }

  drop() {
    for (const view of this.items) view?.drop?.();
  }
}

/** [what to say, whether it is a wait]. */
function stateOf({ response, items, over }) {
  const last = items.at(-1);
  if (!over && !last) return ["Reading", true];
  if (!over && items.length > 1 && last.type === "reasoning") return ["Thinking", true];
  if (!over && /_call$/.test(last.type) && last.status === "completed") return ["Reading", true]; // what the tool said
  if (response.status === "failed") return [response.error?.message ?? "The server could not finish this answer.", false];
  if (response.status === "cancelled") return ["Stopped.", false];
  if (response.status !== "incomplete") return ["", false];
  const cut = response.incomplete_details?.reason === "max_output_tokens";
  return [cut ? "Cut off: the limit of tokens was reached." : "Not finished.", false];
}

function stats(answer) {
  const parts = [];
  const { usage, speed, cached } = answer;
  if (usage) parts.push([plural(usage.output_tokens, "token"), `${count(usage.input_tokens)} read, ${count(usage.output_tokens)} written, thinking included`]);
  if (speed) parts.push([`${speed < 10 ? speed.toFixed(1) : count(Math.round(speed))} tokens/s`, "From the first token to the last, as this page saw it"]);
  if (cached !== null) parts.push([`${Math.round(100 * cached)} % cached`, "Of what was read, this much was known already"]);
  return h("span", { class: "stats" }, parts.map(([text, title]) => h("span", { title }, text)));
}

/** All thinking of an answer, folded, under its number of tokens. */
class Thinking {
  constructor() {
    this.label = h("span", {});
    this.body = h("div", { class: "prose" });
    this.details = h("details", { class: "thinking", hidden: true }, h("summary", {}, this.label), this.body);
    this.unseen = h("p", { class: "thinking", hidden: true });
    this.element = h("div", {}, this.details, this.unseen);
    this.parts = [];
  }

  update(answer) {
    const items = answer.items.filter((i) => i?.type === "reasoning");
    const texts = items.map((i) => [...(i.content ?? []), ...(i.content?.length ? [] : (i.summary ?? []))].map((p) => p?.text ?? "").join("\n\n"));
    const active = !answer.over && answer.items.at(-1)?.type === "reasoning";
    const n = answer.thought;
    const seconds = Math.round(answer.thinkingMs / 1000);
    const time = seconds < 1 ? "" : ` for ${seconds < 100 ? `${seconds} s` : `${Math.round(seconds / 60)} min`}`;
    const said = active ? `Thinking${time}` : `Thought${time}${n === null ? "" : `, ${plural(n, "token")}`}`;
    const any = texts.some((t) => t);
    this.details.hidden = !any;
    this.unseen.hidden = any || (!active && !n);
    this.label.textContent = said;
    this.unseen.textContent = active ? said : `${said}, not shown`;
    for (const element of [this.label, this.unseen]) element.classList.toggle("waiting", active);
    texts.forEach((text, n) => {
      if (!text) return;
      if (!this.parts[n]) {
        const element = h("div", { class: "thought" });
        this.body.append(element);
        this.parts[n] = new Growing(element);
      }
      this.parts[n].show(text);
    });
  }
}

/** Files that code has made, each a button that saves it. */
class Files {
  constructor(save) {
    this.save = save;
    this.element = h("div", { class: "files", hidden: true });
    this.drawn = "";
  }

  update({ files, filesLost }) {
    const now = JSON.stringify([files, filesLost]);
    if (now === this.drawn) return;
    this.drawn = now;
    this.element.hidden = !files.length && !filesLost.length;
    this.element.replaceChildren(
      h("h3", {}, "Files"),
      h("ul", {}, files.map((file) => h("li", {},
        h("button", { type: "button", class: "plain", title: `Save ${file.name}`, on: { click: () => this.save(file) } },
          icon("save"), h("span", { dir: "auto" }, plain(file.name, true)), file.bytes === undefined ? null : h("span", { class: "hint" }, size(file.bytes)))))),
      filesLost.length ? h("p", { class: "hint" }, plain(`Too large to be kept: ${filesLost.join(", ")}`)) : "");
  }
}

/** A text that mostly grows. */
class Growing {
  constructor(element) {
    this.element = element;
    this.restart();
  }

  restart() {
    this.element.replaceChildren();
    this.markdown = new Markdown(this.element);
    this.shown = "";
  }

  show(text) {
    if (text === this.shown) return;
    if (!text.startsWith(this.shown)) this.restart();
    this.markdown.append(text.slice(this.shown.length));
    this.shown = text;
  }
}

class Message {
  constructor() {
    this.element = h("div", { class: "prose" });
    this.parts = [];
  }

  update(item) {
    (item.content ?? []).forEach((part, n) => {
      if (!part) return;
      if (!this.parts[n]) {
        const element = h("div", { class: part.type === "refusal" ? "refusal" : null });
        this.element.append(element);
        this.parts[n] = new Growing(element);
      }
      this.parts[n].show(part.text ?? part.refusal ?? "");
    });
    const cited = (item.content ?? []).flatMap((p) => p?.annotations ?? []).filter((a) => a.type === "url_citation");
    if (cited.length > (this.cited ?? 0)) {
      this.cited = cited.length;
      this.sources?.remove();
      this.sources = sourcesOf(cited);
      this.element.append(this.sources);
    }
  }
}

function sourcesOf(cited) {
  const seen = new Map(cited.map((a) => [a.url, a.title || a.url]));
  const list = h("ul", {});
  for (const [url, title] of seen) {
    const line = h("li", {});
    const web = /^https?:\/\//i.test(url);
    line.append(web ? h("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow", title: url }, plain(title)) : h("span", { class: "source", title: url }, plain(local(url) ?? title)));
    list.append(line);
  }
  return h("div", { class: "sources" }, h("h3", {}, "Sources"), list);
}

/** A call of a tool: folded, with its pictures beside it for everyone to see. */
class Call {
  constructor(picture) {
    this.picture = picture;
    this.label = h("span", {});
    this.body = h("div", {});
    this.pictures = h("div", { class: "pictures" });
    this.element = h("div", { class: "call" }, h("details", {}, h("summary", {}, this.label), this.body), this.pictures);
    this.drawn = "";
    this.urls = [];
  }

  update(item, over) {
    const now = JSON.stringify([item, over]);
    if (now === this.drawn) return;
    this.drawn = now;
    const active = !over && !["completed", "incomplete", "failed"].includes(item.status);
    const { label, parts } = callOf(item, active);
    this.label.replaceChildren(...label);
    this.label.classList.toggle("waiting", active);
    this.body.replaceChildren(...parts);
    this.draw((item.outputs ?? []).filter((o) => o.type === "image").map((o) => o.url));
  }

  async draw(urls) {
    for (const [n, url] of urls.entries()) {
      if (this.urls[n]) continue;
      this.urls[n] = url;
      const frame = h("figure", {}, h("p", { class: "hint" }, "Picture on its way"));
      this.pictures.append(frame);
      const shown = await this.picture(url).catch(() => null);
      const alt = `Picture ${n + 1} made by the code`;
      frame.replaceChildren(shown ? h("img", { src: shown, alt }) : h("p", { class: "hint" }, "A picture that cannot be shown."));
      if (shown) (this.shown ??= []).push(shown);
    }
  }

  drop() {
    for (const url of this.shown ?? []) URL.revokeObjectURL(url);
  }
}

function callOf(item, active) {
  const failed = item.status === "failed" ? ", failed" : "";
  switch (item.type) {
    case "code_interpreter_call": {
      const logs = (item.outputs ?? []).filter((o) => o.type === "logs").map((o) => o.logs).join("\n");
      const lines = (item.code ?? "").split("\n").length;
      return {
        label: [`${active ? "Running" : "Ran"} Python, ${plural(lines, "line")}${failed}`],
        parts: [codeBlock(item.code ?? "", "python"), logs && output(logs, "Output")].filter(Boolean),
      };
    }
    case "web_search_call": return { label: searchOf(item.action ?? {}, active, failed), parts: [json(item.action ?? {})] };
    case "mcp_call":
      return {
        label: plain(`${active ? "Calling" : "Called"} ${item.server_label}, ${item.name}${item.error ? ", failed" : failed}`),
        parts: [json(item.arguments), item.output && output(item.output, "Output"), item.error && !item.output && output(errorOf(item.error), "Error")].filter(Boolean),
      };
    case "function_call":
      return { label: plain(`${active ? "Calling" : "Called"} ${item.name}${failed}`), parts: [json(item.arguments)] };
    default: // better seen raw than not at all
      return { label: plain(String(item.type).replaceAll("_", " ")), parts: [json(item)] };
  }
}

const errorOf = (error) => (typeof error === "string" ? error : (error.content ?? []).map((c) => c.text).join("\n") || error.message || JSON.stringify(error));

function searchOf({ type, query, queries, url, pattern }, active, failed) {
  const said = {
    search: [active ? "Searching" : "Searched", query ?? queries?.join(", ") ?? ""],
    open_page: [active ? "Opening" : "Opened", url ?? "a page"],
    find_in_page: [active ? "Looking in a page for" : "Looked in a page for", pattern ?? ""],
  }[type] ?? ["Browsing", ""];
  return plain(`${said[0]} ${said[1].slice(0, 200)}${failed}`);
}

function json(value) {
  let text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  try {
    if (typeof value === "string") text = JSON.stringify(JSON.parse(value), null, 2);
  } catch {
    // arguments under way, or none that can be read: as they are
  }
  return codeBlock(text ?? "", "json");
}
