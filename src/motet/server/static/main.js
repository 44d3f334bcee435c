// The page: what is asked, of whom, and what is shown of it. Holds the conversations that are open; the server holds them all.

import { Answer } from "./answer.js";
import { Api } from "./api.js";
import { respond as overChat } from "./chat.js";
import { announce, h, icon, plural } from "./dom.js";
import { build, chosen, narrow, settings, side, tools } from "./frame.js";
import { List } from "./list.js";
import { draft, forgetUnsent, keepDraft, sending, taken } from "./memory.js";
import { Tree } from "./tree.js";
import { Trouble, notice } from "./trouble.js";
import { TurnView } from "./view.js";

const at = (id) => document.getElementById(id);
const api = new Api();
const trouble = new Trouble(api, begin);
const list = new List(api, { trouble: (error) => trouble.tell(error), gone });
const touch = matchMedia("(pointer: coarse)");
const NEAR = 80; // pixels from the end of the page that count as being at it

let server = null; // what GET motet/page says
let open = blank(); // the conversation that is shown
let views = []; // of its path, first to last
const known = new Map(); // conversations by their id, as long as the page is open

function blank() {
  return { id: null, title: null, tree: new Tree(), live: new Map() };
}

// --- asking ---

/** What a turn sends: the question, and before it whatever the server does not hold already. */
function request(parent, question, tree) {
  const before = [];
  let held = parent;
  for (; held && !isHeld(held.answer); held = tree.before(held)) {
    const said = held.answer.text;
    if (said) before.unshift({ role: "user", content: held.question }, { role: "assistant", content: said });
  }
  return {
    model: server.model,
    input: before.length ? [...before, { role: "user", content: question }] : question,
    previous_response_id: held?.answer.id ?? null,
    reasoning: { effort: chosen("effort")[0] },
    tools: chosen("tool").map((type) => server.tools.find((t) => t.type === type).send),
    include: ["code_interpreter_call.outputs", "web_search_call.action.sources"],
    store: server.store,
    ...settings(),
  };
}

const respond = (body, signal) => (server.responses ? api.stream("v1/responses", body, signal) : overChat(api, body, signal));

const isHeld = (answer) => server.store && answer.id && ["completed", "incomplete"].includes(answer.response.status);

/** Asks a question after `parent` (null: at the beginning), and shows the answer as it comes. */
async function ask(parent, question) {
  const here = open;
  const turn = here.tree.add(parent, question, new Answer());
  const stop = new AbortController();
  here.live.set(turn, stop);
  here.title ??= question;
  show();
  toEnd(true);
  announce("The answer is on its way.");
  sending(question);
  try {
    for await (const event of respond(request(parent, question, here.tree), stop.signal)) {
      turn.answer.feed(event);
      if (event.type === "response.created") begun(here, turn);
      redraw();
    }
    turn.answer.end("failed", "The answer broke off before its end.");
    trouble.reach(true);
  } catch (error) {
    if (error.name === "AbortError") turn.answer.end("cancelled");
    else fail(turn, error);
  }
  here.live.delete(turn);
  redraw();
  buttons();
  announce(said(turn.answer));
  if (server.store) list.load();
}

/** The server has the question. A conversation has an id when its first answer has one. */
function begun(here, turn) {
  taken(turn.question);
  if (here.id || !server.store) return;
  here.id = turn.answer.id;
  known.set(here.id, here);
  if (open === here) history.replaceState(null, "", `#${here.id}`);
}

function fail(turn, error) {
  turn.answer.end("failed", error.message, error.code);
  if (!trouble.handles(error, () => retry(turn)) && error.status === undefined) throw error;
}

function said({ response, usage }) {
  if (response.status === "completed") return `The answer is complete${usage ? `, ${plural(usage.output_tokens, "token")}` : ""}.`;
  return response.status === "cancelled" ? "Stopped." : (response.error?.message ?? "The answer is not complete.");
}

function retry(turn) {
  const parent = open.tree.before(turn);
  if (!turn.answer.items.length) open.tree.remove(turn); // nothing came of it
  ask(parent, turn.question);
}

/** The question again, where nothing was said before it. */
function elsewhere(turn) {
  const question = turn.question;
  if (!turn.answer.items.length) open.tree.remove(turn);
  start();
  write(question);
}

function stop() {
  for (const controller of open.live.values()) controller.abort();
}

const acts = {
  retry,
  edit: (turn, question) => ask(open.tree.before(turn), question),
  show: (turn) => {
    open.tree.show(turn);
    show();
    views[open.tree.path.indexOf(turn)]?.element.querySelector(".switcher button:not(:disabled)")?.focus();
  },
  picture: (url) => api.picture(url),
  /** What can be done about an answer that failed: [label, what it does]. */
  ways: (turn) => {
    const { code } = turn.answer.response.error ?? {};
    const shorten = ["Shorten the question", () => viewOf(turn)?.edit()];
    if (code === "request_too_large") return [shorten];
    if (code !== "context_length_exceeded") return [["Ask again", () => retry(turn)]];
    return open.tree.before(turn) ? [["Ask in a new conversation", () => elsewhere(turn)]] : [shorten];
  },
};

// --- showing ---

const viewOf = (turn) => views.find((view) => view.turn === turn);

/** Shows the open conversation, keeping what is shown of it already. */
function show() {
  const path = open.tree.path;
  let same = 0;
  while (same < path.length && views[same]?.turn === path[same]) same++;
  for (const view of views.splice(same)) {
    view.drop();
    view.element.remove();
  }
  for (const turn of path.slice(same)) {
    const view = new TurnView(turn, open.tree, acts);
    views.push(view);
    at("turns").append(view.element);
  }
  at("empty").hidden = path.length > 0;
  at("title").textContent = open.title?.slice(0, 200) ?? "New conversation";
  document.title = open.title ? `${open.title.slice(0, 60)} · motet` : "motet";
  list.mark(open.id);
  buttons();
}

// Drawing takes its time when an answer is long; then it happens less often, and never takes a third of the processor.
let drawing = null;
let cost = 0;
let following = true; // the end stays in sight until the reader scrolls away from it
function redraw() {
  drawing ??= setTimeout(() => requestAnimationFrame(draw), Math.min(1000, 2 * cost));
}

function draw() {
  drawing = null;
  const begin = performance.now();
  for (const view of views) if (!view.done) view.update();
  cost = performance.now() - begin;
}

function isAtEnd() {
  const box = at("scroll");
  return box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
}

function toEnd(smooth = false) {
  const box = at("scroll");
  box.scrollTo({ top: box.scrollHeight, behavior: smooth && !matchMedia("(prefers-reduced-motion: reduce)").matches ? "smooth" : "instant" });
}

function buttons() {
  const busy = open.live.size > 0;
  const label = busy ? "Stop" : "Send";
  const button = at("send");
  button.type = busy ? "button" : "submit";
  button.setAttribute("aria-label", label);
  button.title = label;
  button.replaceChildren(icon(busy ? "stop" : "send"));
  button.disabled = !busy && (!server || !at("say").value.trim());
}

// --- conversations ---

/** A new conversation. */
function start() {
  history.replaceState(null, "", location.pathname + location.search);
  open = blank();
  show();
  at("say").focus();
}

/** A conversation that was deleted. */
function gone(id) {
  known.delete(id);
  if (open.id === id) start();
}

/** The conversation the address names. */
async function follow() {
  const id = location.hash.slice(1);
  if (!id || id === open.id) return;
  side(!narrow.matches && !at("side").inert);
  try {
    if (!known.has(id)) known.set(id, await load(id));
    open = known.get(id);
    show();
    toEnd();
  } catch (error) {
    if (error.status === 404) {
      start();
      notice("This conversation is not here any more.");
    } else trouble.tell(error);
  }
}

async function load(id) {
  const { title, turns } = await api.conversation(id);
  const conversation = { ...blank(), id, title };
  const byId = new Map();
  for (const { parent, question, response } of turns) {
    byId.set(response.id, conversation.tree.add(byId.get(parent) ?? null, question, new Answer(response)));
  }
  return conversation;
}

// --- writing a question ---

function grow() {
  const area = at("say");
  area.rows = Math.min(8, Math.max(1, area.value.split("\n").length));
  buttons();
}

function write(text) {
  at("say").value = text;
  keepDraft(text);
  grow();
}

function say() {
  const question = at("say").value.trim();
  if (!question || !server || open.live.size) return;
  if (!trouble.away) notice("");
  write("");
  ask(open.tree.leaf, question);
}

function listen() {
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    say();
  });
  at("send").addEventListener("click", () => open.live.size && stop());
  at("say").addEventListener("input", () => (keepDraft(at("say").value), grow()));
  at("say").addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey && !touch.matches) {
      event.preventDefault();
      say();
    } else if (event.key === "ArrowUp" && !at("say").value && views.length) {
      event.preventDefault();
      views.at(-1).edit();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (open.live.size) stop();
    else if (document.body.classList.contains("beside")) side(false), at("menu").focus();
  });
  at("scroll").addEventListener("scroll", () => {
    following = isAtEnd();
    at("latest").hidden = following;
  }, { passive: true });
  new ResizeObserver(() => following && toEnd()).observe(at("turns"));
  at("latest").addEventListener("click", () => toEnd(true));
  at("new").addEventListener("click", () => (side(!narrow.matches), start()));
  window.addEventListener("hashchange", follow);
}

/** Learns what the server is, and shows what is there; again after a key or when it is back. */
async function begin() {
  try {
    server = await api.json("motet/page");
  } catch (error) {
    return trouble.tell(error);
  }
  trouble.reach(true);
  at("model").textContent = server.model;
  at("welcome").textContent = server.welcome;
  at("key").hidden = !server.keys;
  at("unkept").hidden = server.store;
  at("unkept").textContent = "This server keeps no conversations.";
  at("ideas").replaceChildren(...server.ideas.map((text) => h("li", {}, h("button", { type: "button", on: { click: () => ask(null, text) } }, text))));
  tools(server.tools);
  buttons();
  if (server.store) await list.load();
  await follow();
}

build();
listen();
write(draft());
forgetUnsent();
show();
at("say").focus();
begin();
