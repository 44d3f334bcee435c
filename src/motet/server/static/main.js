// The page: what is asked, of whom, and what is shown of it. Holds the conversations that are open; the server holds them all.

import { Answer } from "./answer.js";
import { Api } from "./api.js";
import { announce, h, icon, pause, plural, save } from "./dom.js";
import { build, chosen, narrow, settings, side, tools } from "./frame.js";
import { List } from "./list.js";
import { markdownOf, nameOf } from "./export.js";
import { draft, forgetUnsent, keepDraft, sending, taken } from "./memory.js";
import { monitor } from "./monitor.js";
import { Tree } from "./tree.js";
import { Trouble, notice } from "./trouble.js";
import { TurnView } from "./view.js";

const at = (id) => document.getElementById(id);
const api = new Api();
const trouble = new Trouble(api, begin);
const list = new List(api, { trouble: (error) => trouble.tell(error), loaded: titled, gone });
const touch = matchMedia("(pointer: coarse)");
const AGAIN = 1000; // milliseconds between looks at an answer that cannot be followed
const GO_ON = "Go on where you stopped.";
const NEAR = 80; // pixels from the end of the page that count as being at it

let server = null; // what GET motet/page says
let ready = false; // the server is known, and the conversation that the address names is shown
let waiting = false; // a question was sent before that, and goes out then
let open = blank(); // the conversation that is shown
let views = []; // of its path, first to last
const known = new Map(); // conversations by their ids, as long as the page is open

function blank() {
  return { tree: new Tree(), live: new Map() }; // live: turns that are being answered, with what stops them
}

/** A conversation is known by its first response; other wordings of its first question are others to the server. */
const idOf = ({ tree }) => (server?.store && tree.path.find((turn) => turn.answer.id)?.answer.id) || null;

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
    background: server.store, // then it goes on without this page, and is taken up again after a reload
    ...settings(),
  };
}

const isHeld = (answer) => server.store && answer.id && !answer.lost && ["completed", "incomplete", "cancelled"].includes(answer.response.status);

/** Asks a question after `parent` (null: at the beginning), and shows the answer as it comes. */
async function ask(parent, question, here = open) {
  const turn = here.tree.add(parent, question, new Answer());
  show();
  toEnd(true);
  announce("The answer is on its way.");
  sending(question);
  await read(here, turn, (signal) => api.stream("v1/responses", { body: request(parent, question, here.tree), signal }));
}

/** Reads the answer to a turn from a stream to its end. One that breaks off is taken up again, if the server keeps it. */
async function read(here, turn, begin) {
  const { answer } = turn;
  const stop = new AbortController();
  here.live.set(turn, stop);
  buttons();
  try {
    await take(here, turn, begin(stop.signal), stop.signal);
    while (!answer.over && server.store && answer.id) {
      answer.timed = false;
      await take(here, turn, api.stream(`v1/responses/${answer.id}?stream=true&starting_after=${answer.sequence}`, { signal: stop.signal }), stop.signal);
      if (!answer.over) answer.feed({ type: "response.found", response: await api.json(`v1/responses/${answer.id}`) });
      if (!answer.over) await pause(AGAIN, stop.signal); // another process is at it
    }
    answer.end("failed", "The answer broke off before its end.");
  } catch (error) {
    if (error.name === "AbortError") answer.end("cancelled");
    else fail(here, turn, error);
  } finally {
    here.live.delete(turn);
    redraw();
    buttons();
  }
  announce(said(answer));
  if (server.store) list.load();
}

/** Takes in the events of a stream. While the server is away one waits for it, if it has the question and keeps the answer. */
async function take(here, turn, events, signal) {
  try {
    for await (const event of events) {
      turn.answer.feed(event);
      if (event.type === "response.created") begun(here, turn);
      redraw();
    }
    trouble.reach(true);
  } catch (error) {
    if (error.status !== 0 || !turn.answer.id || !server.store) throw error;
    await trouble.back(signal);
  }
}

/** The server has the question. */
function begun(here, turn) {
  taken(turn.question);
  if (!server.store) return;
  known.set(here.tree.first(turn).answer.id, here);
  if (open === here) address();
  if (here.tree.first(turn) === turn) list.load(); // a conversation more
}

function fail(here, turn, error) {
  turn.answer.end("failed", error.message, error.code);
  if (error.code === "previous_response_not_found") return again(here, turn);
  if (!trouble.handles(error, () => retry(turn, here)) && error.status === undefined) throw error;
}

function said({ response, usage }) {
  if (response.status === "completed") return `The answer is complete${usage ? `, ${plural(usage.output_tokens, "token")}` : ""}.`;
  return response.status === "cancelled" ? "Stopped." : (response.error?.message ?? "The answer is not complete.");
}

function retry(turn, here = open) {
  const parent = here.tree.before(turn);
  if (!turn.answer.items.length) here.tree.remove(turn); // nothing came of it
  ask(parent, turn.question, here);
}

/** What went before is gone from the server, but not from here: asked again with all of it. */
function again(here, turn) {
  for (let before = turn.parent; before?.answer; before = before.parent) before.answer.lost = true;
  retry(turn, here);
}

/** The question again, where nothing was said before it. */
function elsewhere(turn) {
  const question = turn.question;
  if (!turn.answer.items.length) open.tree.remove(turn);
  start();
  write(question);
}

/** Stops what is being answered. Where the server goes on by itself it is told to stop, and says the last word. */
function stop() {
  for (const [turn, controller] of open.live) {
    const cancel = server.store && turn.answer.id;
    if (cancel) api.send(`v1/responses/${cancel}/cancel`, { method: "POST" }).catch(() => controller.abort());
    else controller.abort();
  }
}

const acts = {
  retry,
  edit: (turn, question) => ask(open.tree.before(turn), question),
  show: (turn) => {
    open.tree.show(turn);
    show();
    address();
    views[open.tree.path.indexOf(turn)]?.element.querySelector(".switcher button:not(:disabled)")?.focus();
  },
  picture: (url) => api.picture(url),
  file: (file) => api.file(file).then((blob) => save(file.name, blob)).catch((error) => trouble.tell(error)),
  /** What can be done about an answer that is not whole: [label, what it does]. */
  ways: (turn) => {
    const { status, error } = turn.answer.response;
    const { code } = error ?? {};
    const more = turn.answer.text ? [["Go on", () => ask(turn, GO_ON)]] : [];
    if (status !== "failed") return more;
    const shorten = ["Shorten the question", () => viewOf(turn)?.edit()];
    if (code === "request_too_large") return [shorten];
    if (code !== "context_length_exceeded") return [["Ask again", () => retry(turn)], ...more];
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
  at("export").hidden = !path.length;
  list.mark(idOf(open));
  titled();
  buttons();
}

function titled() {
  const title = (list.title(idOf(open)) ?? open.tree.path[0]?.question)?.slice(0, 200);
  at("title").textContent = title || "New conversation";
  document.title = title ? `${title.slice(0, 60)} · motet` : "motet";
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
  button.disabled = !busy && (!ready || !at("say").value.trim());
}

// --- conversations ---

/** The address and the list name what is shown. */
function address() {
  const id = idOf(open);
  list.mark(id);
  history.replaceState(null, "", id ? `#${id}` : location.pathname + location.search);
}

/** A new conversation. */
function start() {
  open = blank();
  address();
  show();
  at("say").focus();
}

/** A conversation that was deleted. */
function gone(id) {
  const shown = idOf(open) === id;
  const here = known.get(id);
  const first = here?.tree.find(id);
  if (first) here.tree.remove(first);
  known.delete(id);
  if (shown) start();
}

/** The conversation the address names. */
async function follow() {
  const id = location.hash.slice(1);
  if (!id || id === idOf(open)) return;
  side(!narrow.matches && !at("side").inert);
  try {
    const here = known.get(id) ?? (await load(id));
    const first = here.tree.find(id);
    if (!here.tree.path.includes(first)) here.tree.show(first);
    open = here;
    show();
    toEnd();
  } catch (error) {
    if (error.status === 404) {
      start();
      notice("This conversation is not here any more.");
    } else trouble.tell(error);
  }
}

/** A conversation as the server keeps it. What is still being answered is read on. */
async function load(id) {
  const here = blank();
  const byId = new Map();
  for (const { parent, question, response } of (await api.conversation(id)).turns) {
    byId.set(response.id, here.tree.add(byId.get(parent) ?? null, question, new Answer(response)));
  }
  known.set(id, here);
  for (const turn of byId.values()) {
    turn.answer.timed = false;
    if (!turn.answer.over) read(here, turn, (signal) => api.stream(`v1/responses/${turn.answer.id}?stream=true`, { signal }));
  }
  return here;
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
  waiting = Boolean(question) && !ready;
  if (!question || !ready || open.live.size) return;
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
  at("say").addEventListener("input", () => {
    waiting = false;
    keepDraft(at("say").value);
    grow();
  });
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
  at("export").addEventListener("click", () => {
    const title = at("title").textContent;
    save(nameOf(title), new Blob([markdownOf(title, open.tree.path, server?.model)], { type: "text/markdown" }));
  });
  window.addEventListener("hashchange", () => (location.hash.length > 1 ? follow() : start()));
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
  if (server.store) await list.load();
  await follow();
  ready = true;
  buttons();
  if (waiting) say();
}

build();
listen();
monitor(api);
write(draft());
forgetUnsent();
show();
at("say").focus();
begin();
