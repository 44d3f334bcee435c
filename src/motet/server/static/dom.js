// Elements made one by one. Nothing in this page turns a text into markup, so a text can never become code; the
// content policy forbids it besides (Trusted Types). Knows no chat.

/** An element. `props`: attributes by name; `on`: listeners; true gives an empty attribute, null and false none. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (value != null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child != null && child !== false) element.append(child);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** One of the drawings in index.html, for the eye only. */
export function icon(name) {
  return drawing("svg", { class: "icon", "aria-hidden": "true" }, drawing("use", { href: `#icon-${name}` }));
}

/** An element of a drawing. */
export function drawing(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A button with a drawing, named for those who do not see it. */
export function iconButton(name, label, click, props = {}) {
  return h("button", { type: "button", class: "quiet", "aria-label": label, title: label, ...props, on: { click } }, icon(name));
}

/** A button that copies what `text()` gives at the time, and says so. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    const done = await copy(text());
    button.replaceChildren(icon(done ? "check" : "cross"));
    announce(done ? "Copied." : "Copying failed; select the text and copy it by hand.");
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // without HTTPS, away from this machine, browsers have only the old way
    const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Hands a file to the reader, who is asked where to save it or finds it where downloads go. */
export function save(name, blob) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Tells those who listen instead of looking. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

/** Waits; an abort ends it with an error. */
export const pause = (ms, signal) => new Promise((done, no) => {
  setTimeout(done, ms);
  signal.addEventListener("abort", () => no(signal.reason), { once: true });
});

/** 1,234 as people here write it. */
export const count = (n) => n.toLocaleString("en");

/** 8 bytes, 1.2 kB, 16 MB. */
export function size(bytes) {
  if (bytes < 1000) return plural(bytes, "byte");
  const [n, unit] = bytes < 1e6 ? [bytes / 1e3, "kB"] : [bytes / 1e6, "MB"];
  return `${n < 10 ? n.toFixed(1) : count(Math.round(n))} ${unit}`;
}

/** "1 token", "2 tokens". */
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
