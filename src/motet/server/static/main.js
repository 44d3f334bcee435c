// The page: what is asked, of whom, and what is shown of it. Holds the conversations that are open; the server holds them all.

import { Answer } from "./answer.js";
import { Api } from "./api.js";
import { respond as overChat } from "./chat.js";
import { announce, h, icon, iconButton, plural } from "./dom.js";
import { plain } from "./plain.js";
import { Tree } from "./tree.js";
import { TurnView } from "./view.js";

const at = (id) => document.getElementById(id);
const api = new Api();
const narrow = matchMedia("(max-width: 760px)");
const touch = matchMedia("(pointer: coarse)");
const THEMES = ["system", "light", "dark"];
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
  };
}

const respond = (body, signal) => (server.responses ? api.stream("v1/responses", body, signal) : overChat(api, body, signal));

const isHeld = (answer) => server.store && answer.id && ["completed", "incomplete"].includes(answer.response.status);

const chosen = (name) => [...document.querySelectorAll(`input[name="${name}"]:checked`)].map((input) => input.value);

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
  try {
    for await (const event of respond(request(parent, question, here.tree), stop.signal)) {
      turn.answer.feed(event);
      if (event.type === "response.created") begun(here, turn);
      redraw();
    }
    turn.answer.end("failed", "The answer broke off before its end; ask again.");
    reach(true);
  } catch (error) {
    if (error.name === "AbortError") turn.answer.end("cancelled");
    else fail(turn, error);
  }
  here.live.delete(turn);
  redraw();
  buttons();
  announce(said(turn.answer));
  if (server.store) list();
}

/** A conversation has an id when its first answer has one. */
function begun(here, turn) {
  if (here.id || !server.store) return;
  here.id = turn.answer.id;
  known.set(here.id, here);
  if (open === here) history.replaceState(null, "", `#${here.id}`);
}

function fail(turn, error) {
  turn.answer.end("failed", error.message);
  if (error.status === 401) lock(api.key ? error.message : null, () => retry(turn));
  else if (error.status === 0) reach(false);
  else if (error.status === undefined) throw error;
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
};

// --- showing ---

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
  mark();
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

// --- the list of conversations ---

let cursor = null; // where older ones go on

async function list(after = null) {
  try {
    const page = await api.conversations(after);
    cursor = page.next;
    if (!after) at("conversations").replaceChildren();
    for (const entry of page.entries) at("conversations").append(lineOf(entry));
    at("older").hidden = !cursor;
    mark();
    reach(true);
  } catch (error) {
    trouble(error);
  }
}

function lineOf({ id, title }) {
  const name = title || "Without words";
  const link = h("a", { href: `#${id}`, dir: "auto", title: name }, plain(name));
  return h("li", { "data-id": id }, link, iconButton("bin", `Delete ${name.slice(0, 40)}`, () => remove(id, name)));
}

function mark() {
  for (const line of at("conversations").children) {
    const link = line.querySelector("a");
    if (line.dataset.id === open.id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function remove(id, title) {
  const dialog = at("sure");
  at("sure-what").replaceChildren(...plain(title.slice(0, 200)));
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "yes") return;
  try {
    await api.forget(id);
    known.delete(id);
    if (open.id === id) start();
    announce("Deleted.");
  } catch (error) {
    trouble(error);
  }
  list();
}

/** A new conversation. */
function start() {
  history.replaceState(null, "", location.pathname + location.search);
  open = blank();
  show();
  at("say").focus();
}

/** The conversation the address names. */
async function follow() {
  const id = location.hash.slice(1);
  if (!id || id === open.id) return;
  side(false);
  try {
    if (!known.has(id)) known.set(id, await load(id));
    open = known.get(id);
    show();
    toEnd();
  } catch (error) {
    if (error.status === 404) {
      start();
      notice("This conversation is not here any more.");
    } else trouble(error);
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

// --- trouble ---

function notice(text, ...more) {
  at("notice").replaceChildren(h("span", {}, text), ...more);
  at("notice").hidden = !text;
}

function trouble(error) {
  if (error.status === 401) lock(api.key ? error.message : null, begin);
  else if (error.status === 0) reach(false);
  else notice(error.message, iconButton("cross", "Close", () => notice("")));
}

let away = null;
/** Whether the server answers; while it does not, it is asked now and then. */
function reach(there) {
  if (there) {
    if (away) notice("");
    clearTimeout(away);
    away = null;
  } else if (!away) {
    notice("The server cannot be reached. Trying again\u2026");
    const again = async () => {
      const alive = await fetch("health", { cache: "no-store" }).then((r) => r.ok, () => false);
      if (!away) return;
      if (!alive) away = setTimeout(again, 2000);
      else {
        reach(true);
        begin();
      }
    };
    away = setTimeout(again, 2000);
  }
}

let unlocked = null;
/** Asks for the key; `then` when there is one. */
function lock(wrong, then) {
  unlocked = then;
  at("wrong").hidden = !wrong;
  at("wrong").textContent = wrong ?? "";
  at("forget").hidden = !api.key;
  if (!at("lock").open) at("lock").showModal();
}

// --- the frame ---

function side(shown) {
  document.body.classList.toggle("beside", shown && narrow.matches);
  document.body.classList.toggle("alone", !shown && !narrow.matches);
  frame();
}

function frame() {
  const shown = narrow.matches ? document.body.classList.contains("beside") : !document.body.classList.contains("alone");
  at("side").inert = !shown;
  document.querySelector("main").inert = shown && narrow.matches;
  at("menu").setAttribute("aria-expanded", String(shown));
}

function theme(next) {
  const now = document.documentElement.dataset.theme ?? "system";
  const chosen = next ? THEMES[(THEMES.indexOf(now) + 1) % THEMES.length] : now;
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  keep("theme", chosen);
  at("theme").replaceChildren(icon(chosen));
  const label = `Colours: ${chosen}`;
  at("theme").setAttribute("aria-label", label);
  at("theme").title = label;
}

function keep(name, value) {
  try {
    localStorage.setItem(`motet.${name}`, value);
  } catch {
    // no storage: the choice lasts as long as the page
  }
}

function kept(name) {
  try {
    return localStorage.getItem(`motet.${name}`);
  } catch {
    return null;
  }
}

function switches() {
  const effort = kept("effort");
  for (const input of document.querySelectorAll('[name="effort"]')) {
    input.checked = effort ? input.value === effort : input.checked;
    input.addEventListener("change", () => keep("effort", input.value));
  }
}

function tools() {
  const wanted = (kept("tools") ?? "").split(",");
  const box = at("tools");
  box.querySelectorAll("label").forEach((l) => l.remove());
  for (const { type, label } of server.tools) {
    const input = h("input", { type: "checkbox", name: "tool", value: type, checked: wanted.includes(type) });
    input.addEventListener("change", () => keep("tools", chosen("tool").join(",")));
    box.append(h("label", {}, input, h("span", {}, label)));
  }
  box.hidden = server.tools.length === 0;
}

function grow() {
  const area = at("say");
  area.rows = Math.min(8, Math.max(1, area.value.split("\n").length));
  buttons();
}

function say() {
  const question = at("say").value.trim();
  if (!question || !server || open.live.size) return;
  at("say").value = "";
  grow();
  ask(open.tree.leaf, question);
}

function listen() {
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    say();
  });
  at("send").addEventListener("click", () => open.live.size && stop());
  at("say").addEventListener("input", grow);
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
  at("older").addEventListener("click", () => list(cursor));
  at("menu").addEventListener("click", () => side(at("side").inert));
  at("hide").addEventListener("click", () => (side(false), at("menu").focus()));
  at("shade").addEventListener("click", () => side(false));
  at("theme").addEventListener("click", () => theme(true));
  at("key").addEventListener("click", () => lock(null, begin));
  at("lock").querySelector("form").addEventListener("submit", () => {
    api.use(at("secret").value.trim(), at("keep").checked);
    at("secret").value = "";
    unlocked?.();
  });
  at("forget").addEventListener("click", () => {
    api.use(null);
    location.reload();
  });
  narrow.addEventListener("change", frame);
  window.addEventListener("hashchange", follow);
  window.addEventListener("online", () => away && begin());
}

/** Learns what the server is, and shows what is there; again after a key or when it is back. */
async function begin() {
  try {
    server = await api.json("motet/page");
  } catch (error) {
    return trouble(error);
  }
  reach(true);
  at("model").textContent = server.model;
  at("welcome").textContent = server.welcome;
  at("key").hidden = !server.keys;
  at("unkept").hidden = server.store;
  at("unkept").textContent = "This server keeps no conversations.";
  at("ideas").replaceChildren(...server.ideas.map((text) => h("li", {}, h("button", { type: "button", on: { click: () => ask(null, text) } }, text))));
  tools();
  buttons();
  if (server.store) await list();
  await follow();
}

theme(false);
switches();
listen();
frame();
show();
at("say").focus();
begin();
