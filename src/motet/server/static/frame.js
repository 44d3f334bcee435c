// Around the conversation: the panel beside it, colours, switches and settings. Knows what can be chosen, not what it does.

import { h, icon } from "./dom.js";
import { keep, kept, keptAll } from "./memory.js";

const at = (id) => document.getElementById(id);
const THEMES = ["system", "light", "dark"];
export const narrow = matchMedia("(max-width: 760px)");

/** What is chosen, of the switches of one name. */
export const chosen = (name) => [...document.querySelectorAll(`input[name="${name}"]:checked`)].map((input) => input.value);

/** Shows the panel, or hides it. */
export function side(shown) {
  document.body.classList.toggle("beside", shown && narrow.matches);
  document.body.classList.toggle("alone", !shown && !narrow.matches);
  frame();
  if (shown && narrow.matches) at("hide").focus();
}

function frame() {
  const shown = narrow.matches ? document.body.classList.contains("beside") : !document.body.classList.contains("alone");
  at("side").inert = !shown;
  document.querySelector("main").inert = shown && narrow.matches;
  at("menu").setAttribute("aria-expanded", String(shown));
}

function theme(next) {
  const now = document.documentElement.dataset.theme ?? "system";
  const choice = next ? THEMES[(THEMES.indexOf(now) + 1) % THEMES.length] : now;
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  keep("theme", choice);
  at("theme").replaceChildren(icon(choice));
  const label = `Colours: ${choice}`;
  at("theme").setAttribute("aria-label", label);
  at("theme").title = label;
}

function effort() {
  const wanted = kept("effort");
  for (const input of document.querySelectorAll('[name="effort"]')) {
    input.checked = wanted ? input.value === wanted : input.checked;
    input.addEventListener("change", () => keep("effort", input.value));
  }
}

/** A switch for each tool the server has. */
export function tools(offered) {
  const wanted = (kept("tools") ?? "").split(",");
  const box = at("tools");
  box.querySelectorAll("label").forEach((l) => l.remove());
  for (const { type, label } of offered) {
    const input = h("input", { type: "checkbox", name: "tool", value: type, checked: wanted.includes(type) });
    input.addEventListener("change", () => keep("tools", chosen("tool").join(",")));
    box.append(h("label", {}, input, h("span", {}, label)));
  }
  box.hidden = offered.length === 0;
}

// --- settings: fields of a request, by the names they have there ---

const fields = () => [...at("options").querySelectorAll("[name]")];

/** What the settings add to a request: only what was filled in. */
export function settings() {
  const filled = fields().filter((f) => f.value.trim() && f.validity.valid);
  return Object.fromEntries(filled.map((f) => [f.name, f.type === "number" ? Number(f.value) : f.value]));
}

function options() {
  const before = keptAll("settings");
  for (const field of fields()) {
    field.value = before[field.name] ?? "";
    field.addEventListener("input", changed);
  }
  changed();
  at("settings").addEventListener("click", () => at("options").showModal());
  at("usual").addEventListener("click", () => {
    for (const field of fields()) field.value = "";
    changed();
  });
}

function changed() {
  const set = settings();
  keep("settings", JSON.stringify(set));
  const n = Object.keys(set).length;
  at("settings").classList.toggle("set", n > 0);
  at("settings").setAttribute("aria-label", n ? `Settings, ${n} changed` : "Settings");
}

/** Makes it work. */
export function build() {
  theme(false);
  effort();
  options();
  frame();
  at("menu").addEventListener("click", () => side(at("side").inert));
  at("hide").addEventListener("click", () => (side(false), at("menu").focus()));
  at("shade").addEventListener("click", () => side(false));
  at("theme").addEventListener("click", () => theme(true));
  narrow.addEventListener("change", frame);
}
