// Markdown to elements, as it streams in: `Markdown` takes text piece by piece and touches only the last block, so a long
// answer costs what its last paragraph costs. Splitting into blocks is here, what is inside a block in inline.js.
// The blocks of CommonMark and GitHub's tables and tasks; formulas between $$ or \[ \]; no HTML, no reference links, no
// underlined headings ("---" after a line is a rule, which is what models mean by it).

import { colour } from "./colour.js";
import { copyButton, count, h } from "./dom.js";
import { address, inline } from "./inline.js";
import { formula } from "./math.js";
import { plain } from "./plain.js";

const DEPTH = 12; // quotes and lists inside each other; deeper ones are paragraphs
const FENCE = /^ {0,3}(`{3,}(?=[^`]*$)|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( {1,4})(?! )|[ \t]|$)/;
const TASK = /^\[([ xX])\] /;
const MATH = /^ {0,3}(\$\$|\\\[)/;
const DIVIDER = /^ {0,3}\|? *:?-+:? *(?:\| *:?-+:? *){0,200}\|? *$/;
const FOLDED = 20_000; // characters of one text that are shown at once; what is longer is no prose, and is shown as it is

/** A growing text, shown in `element`. */
export class Markdown {
  constructor(element, { level = 3 } = {}) {
    this.element = element;
    this.level = level; // of the largest heading
    this.tail = ""; // what is not settled: from the beginning of the last block on
    this.settled = 0; // children of `element` that will not change
  }

  /** Adds text and shows it. */
  append(text) {
    this.tail += text;
    const lines = this.tail.split("\n");
    const blocks = blocksOf(lines, 0);
    // A block is settled when the line that ends it is whole.
    let keep = blocks.length - 1;
    while (keep > 0 && blocks[keep].first >= lines.length - 1) keep--;
    const shown = blocks.map((block) => this.show(block));
    while (this.element.childNodes.length > this.settled) this.element.lastChild.remove();
    for (const element of shown) this.element.append(element);
    if (keep > 0) {
      this.settled += keep;
      this.tail = lines.slice(blocks[keep].first).join("\n");
    }
  }

  show(block) {
    return elementOf(block, this.level);
  }
}

/** A whole text, as elements in `element`. */
export function markdown(element, text, options) {
  element.replaceChildren();
  new Markdown(element, options).append(text);
  return element;
}

// --- lines to blocks: {kind, first, ...}, first being the number of its first line ---

function blocksOf(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const read = readerOf(lines, at, depth) ?? paragraph;
    const [block, next] = read(lines, at, depth);
    blocks.push({ ...block, first: at });
    at = next;
  }
  return blocks;
}

function readerOf(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return fence;
  if (HEADING.test(line)) return heading;
  if (RULE.test(line)) return rule;
  if (isMath(line)) return math;
  if (depth < DEPTH && QUOTE.test(line)) return quote;
  if (depth < DEPTH && itemAt(line, 3)) return list;
  if (isTable(lines, at)) return table;
  if (/^(?: {4}|\t)/.test(line)) return indented;
  return null;
}

/** Whether a line ends the paragraph before it. */
function interrupts(lines, at, depth) {
  const read = readerOf(lines, at, depth);
  if (read === null || read === indented) return false;
  if (read !== list) return true;
  const [, , marker] = itemAt(lines[at], 3);
  return (/^[-*+]$/.test(marker) || /^1[.)]$/.test(marker)) && lines[at].trim() !== marker;
}

const itemAt = (line, indent) => {
  const found = ITEM.exec(line);
  return found && found[1].length <= indent ? found : null;
};

function paragraph(lines, first, depth) {
  let at = first + 1;
  while (at < lines.length && lines[at].trim() && !interrupts(lines, at, depth)) at++;
  const text = lines.slice(first, at).map((line) => line.trimStart()).join("\n").trimEnd();
  return [{ kind: "paragraph", text }, at];
}

function fence(lines, first) {
  const mark = FENCE.exec(lines[first])[1];
  const indent = lines[first].indexOf(mark[0]);
  const language = lines[first].slice(indent + mark.length).trim().split(/[\s{]/)[0];
  let at = first + 1;
  while (at < lines.length && !closes(lines[at], mark)) at++;
  const inside = lines.slice(first + 1, at).map((line) => undent(line, indent));
  return [{ kind: "code", text: inside.join("\n"), language, open: at === lines.length }, at + 1];
}

function closes(line, mark) {
  const text = line.trim();
  return text.length >= mark.length && line.search(/\S/) <= 3 && text === mark[0].repeat(text.length);
}

function undent(line, n) {
  let at = 0;
  while (at < n && line[at] === " ") at++;
  return line.slice(at);
}

function heading(lines, at) {
  const [, marks] = HEADING.exec(lines[at]);
  let text = lines[at].trimStart().slice(marks.length).trim();
  let end = text.length;
  while (text[end - 1] === "#") end--;
  if (end === 0 || text[end - 1] === " ") text = text.slice(0, end).trimEnd();
  return [{ kind: "heading", text, level: marks.length }, at + 1];
}

const rule = (lines, at) => [{ kind: "rule" }, at + 1];

const closeOf = (line) => (MATH.exec(line)[1] === "$$" ? "$$" : "\\]");

/** A formula that begins and ends in one line, with more behind it, is part of a paragraph. */
function isMath(line) {
  const text = MATH.test(line) && line.trim();
  const end = text && text.indexOf(closeOf(line), 2);
  return text && (end < 0 || end + 2 === text.length);
}

function math(lines, first) {
  const close = closeOf(lines[first]);
  let at = first;
  let end = lines[first].indexOf(close, lines[first].search(/\S/) + 2);
  while (end < 0 && at + 1 < lines.length && lines[at + 1].trim()) end = lines[++at].indexOf(close);
  const after = end < 0 ? "" : lines[at].slice(end + 2).trim();
  const text = lines.slice(first, at + 1).join("\n").trim();
  return [{ kind: "math", text: after ? text.slice(0, text.length - after.length).trim() : text, after }, at + 1];
}

function quote(lines, first, depth) {
  let at = first;
  while (at < lines.length && QUOTE.test(lines[at])) at++;
  const inside = lines.slice(first, at).map((line) => line.replace(QUOTE, ""));
  return [{ kind: "quote", blocks: blocksOf(inside, depth + 1) }, at];
}

function indented(lines, first) {
  let at = first;
  let end = first;
  for (; at < lines.length && (/^(?: {4}|\t)/.test(lines[at]) || !lines[at].trim()); at++) if (lines[at].trim()) end = at + 1;
  const text = lines.slice(first, end).map((line) => line.replace(/^(?: {4}|\t)/, "")).join("\n");
  return [{ kind: "code", text, language: "" }, end];
}

function list(lines, first, depth) {
  const sign = itemAt(lines[first], 3)[2];
  const items = [];
  let at = first;
  let loose = false;
  const goesOn = (n) => n < lines.length && !RULE.test(lines[n]) && itemAt(lines[n], 3)?.[2].at(-1) === sign.at(-1);
  while (goesOn(at)) {
    const [blocks, next, apart] = listItem(lines, at, depth);
    items.push(blocks);
    at = afterBlank(lines, next);
    loose ||= apart || (at > next && goesOn(at));
    if (!goesOn(at)) at = next;
  }
  return [{ kind: "list", items, loose, start: /\d/.test(sign) ? parseInt(sign, 10) : null }, at];
}

function afterBlank(lines, at) {
  while (at < lines.length && !lines[at].trim()) at++;
  return at;
}

/** One item: its own line, and what follows indented, or carries its paragraph on. Gives its blocks, the line after it, and
 * whether blank lines set the blocks apart. */
function listItem(lines, first, depth) {
  const [all, indent, sign, gap] = itemAt(lines[first], 3);
  const content = gap === undefined ? indent.length + sign.length + 1 : all.length;
  const least = Math.min(content, indent.length + 2); // models indent by two, whatever the width of the marker
  const margin = (n) => lines[n].search(/\S/);
  const inside = [lines[first].slice(content)];
  let at = first + 1;
  while (at < lines.length) {
    const next = afterBlank(lines, at);
    if (next > at) {
      if (next === lines.length || margin(next) < least) break;
      for (; at < next; at++) inside.push("");
    }
    if (margin(at) >= least) inside.push(undent(lines[at], content));
    else if (itemAt(lines[at], 3) || interrupts(lines, at, depth)) break;
    else inside.push(lines[at].trimStart());
    at++;
  }
  const blocks = blocksOf(inside, depth + 1);
  return [blocks, at, blocks.some((block, n) => n > 0 && !inside[block.first - 1].trim())];
}

function isTable(lines, at) {
  if (at + 1 >= lines.length || !lines[at].includes("|") || !lines[at + 1].includes("-")) return false;
  return DIVIDER.test(lines[at + 1]) && cells(lines[at]).length === cells(lines[at + 1]).length;
}

function table(lines, first, depth) {
  let at = first + 2;
  while (at < lines.length && lines[at].trim() && (lines[at].includes("|") || !interrupts(lines, at, depth))) at++;
  const align = cells(lines[first + 1]).map((c) => (c.endsWith(":") ? (c.startsWith(":") ? "center" : "right") : "left"));
  const rows = lines.slice(first + 2, at).map(cells).map((row) => align.map((_, n) => row[n] ?? ""));
  return [{ kind: "table", head: cells(lines[first]), rows, align }, at];
}

function cells(line) {
  const text = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return text.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// --- blocks to elements ---

function elementOf(block, level) {
  switch (block.kind) {
    case "paragraph": return h("p", { dir: "auto" }, long(block.text, spans));
    case "heading": return h(`h${Math.min(6, level + block.level - 1)}`, { dir: "auto" }, long(block.text, spans));
    case "rule": return h("hr");
    case "math": return block.after ? h("div", {}, mathOf(block.text), h("p", { dir: "auto" }, long(block.after, spans))) : mathOf(block.text);
    case "code": return codeBlock(block.text, block.language);
    case "quote": return h("blockquote", {}, block.blocks.map((b) => elementOf(b, level)));
    case "list": return listOf(block, level);
    default: return tableOf(block);
  }
}

/** A formula of its own; as it was written while its end has not come, or what it says is not understood. */
function mathOf(text) {
  const set = formula(text);
  if (set) return h("div", { class: "formula", tabindex: "0", role: "group", "aria-label": "Formula" }, set);
  return h("pre", { class: "formula", tabindex: "0" }, long(text, (shown) => plain(shown, true)));
}

function listOf({ items, loose, start }, level) {
  const ordered = start !== null;
  const list = h(ordered ? "ol" : "ul", ordered && start !== 1 ? { start } : {});
  for (const blocks of items) list.append(h("li", { dir: "auto" }, itemOf(blocks, loose, level)));
  return list;
}

function itemOf(blocks, loose, level) {
  const out = [];
  blocks.forEach((block, n) => {
    const task = n === 0 && block.kind === "paragraph" && TASK.exec(block.text);
    const text = task ? block.text.slice(4) : block.text;
    if (task) out.push(h("input", { type: "checkbox", disabled: true, checked: task[1] !== " ", "aria-label": "task" }), " ");
    if (block.kind !== "paragraph") out.push(elementOf(block, level));
    else if (loose) out.push(h("p", {}, long(text, spans)));
    else out.push(...long(text, spans));
  });
  return out;
}

function tableOf({ head, rows, align }) {
  const row = (tag, texts) => h("tr", {}, texts.map((text, n) => h(tag, { dir: "auto", class: `to-${align[n]}`, ...(tag === "th" && { scope: "col" }) }, long(text, spans))));
  const body = h("tbody", {}, rows.map((texts) => row("td", texts)));
  return h("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, h("table", {}, h("thead", {}, row("th", head)), body));
}

/** Code with its language and a button that copies it. */
export function codeBlock(text, language = "", label = language) {
  const bar = h("figcaption", {}, h("span", {}, plain(label.slice(0, 40), true)), copyButton("Copy code", () => text));
  const code = h("code", { dir: "ltr" }, long(text, (shown) => coloured(shown, language)));
  return h("figure", { class: "code" }, bar, h("pre", { tabindex: "0" }, code));
}

const coloured = (text, language) => colour(text, language).flatMap(([kind, piece]) => (kind ? [h("span", { class: `is-${kind}` }, plain(piece, true))] : plain(piece, true)));

/** Output as it came. */
export function output(text, label) {
  return h("pre", { class: "output", tabindex: "0", "aria-label": label, dir: "auto" }, long(text, (shown) => plain(shown, true)));
}

function long(text, show) {
  if (text.length <= FOLDED) return show(text);
  const rest = h("span", {});
  const more = () => {
    rest.replaceChildren(...plain(text.slice(FOLDED), true));
  };
  const button = h("button", { type: "button", class: "more", on: { click: more } }, `Show ${count(text.length - FOLDED)} more characters`);
  rest.append("\u2026 ", button);
  return [...plain(text.slice(0, FOLDED), true), rest];
}

function spans(text) {
  const nodes = inline(text).flatMap(element);
  // a formula and the comma behind it stay on one line
  nodes.forEach((node, n) => {
    const after = node.localName === "math" && typeof nodes[n + 1] === "string" && /^[,.;:!?)]+/.exec(nodes[n + 1]);
    if (!after) return;
    nodes[n] = h("span", { class: "together" }, node, after[0]);
    nodes[n + 1] = nodes[n + 1].slice(after[0].length);
  });
  return nodes;
}

function element(node) {
  if (typeof node === "string") return plain(node);
  if (node.tag === "math") return [formula(node.children[0]) ?? h("code", { class: "formula" }, plain(node.children[0], true))];
  if (node.tag === "source") return [h("span", { class: "source", title: node.href }, node.children.flatMap(element))];
  const children = node.children.flatMap(node.tag === "code" ? (text) => plain(text, true) : element);
  return node.tag === "a" ? anchor(node.href, children) : [h(node.tag, {}, children)];
}

/** A link that opens beside the page and tells the other side nothing; where its text names another host, its own is said. */
function anchor(href, children) {
  const url = address(href);
  const link = h("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", title: url.href }, children);
  const named = link.textContent.match(/[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)*\.[\p{L}]{2,}/u);
  const other = url.host && named && !url.href.toLowerCase().includes(named[0].toLowerCase());
  return other ? [link, ` (${url.host})`] : [link];
}
