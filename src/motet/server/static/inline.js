// Markdown inside a block: text to a tree of spans. CommonMark's rules for code, emphasis and links, but that a star between
// figures multiplies; bare addresses too.
// HTML is text. Pictures are links: loading one would tell its server that, and what, somebody reads. Formulas are handed
// on as they were written. Work grows with the length of the text and nothing nests beyond DEPTH, whatever was written.
// A node is a string or {tag, children, href?}; makes no elements.

const DEPTH = 16;
const LOOK_BACK = 32; // openers a closer may pass over
const ENTITY = /&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(amp|lt|gt|quot|apos|nbsp));/iy;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}_]/u;
const SPACE = /\s/;
const TIMES = /[\d)][\d(]|\d\p{L}|\p{L}\d/u; // around a star that multiplies: 85*7, 2*x, (a+b)*3
const AUTOLINK = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/iy;
const BREAK = /<br {0,2}\/?>/iy;
const BARE = /https?:\/\/[^\s<>"'`{}|\\^\u0000-\u001f]{1,2000}/iy;
const TARGET = /\(\s{0,3}(?:<([^<>\n]{0,2000})>|((?:[^\s()\\]|\\.|\([^\s()]{0,500}\)){0,2000}))(?:\s{1,3}(?:"[^"]{0,500}"|'[^']{0,500}'))?\s{0,3}\)/y;
const MADE = /^sandbox:\/mnt\/data\/\S{1,1000}$/; // a file that code has made; it is saved by a button below the answer
const MATH = /\$\$(?:[^$\\]|\\[\s\S]){1,2000}\$\$|\\\[(?:[^\\]|\\(?!\])[\s\S]){1,2000}\\\]|\$(?!\s)((?:[^$\\\n]|\\.){1,500}?)(?<!\s)\$(?!\d)|\\\(((?:[^\\\n]|\\(?!\))){1,1000})\\\)/y;

/** The spans of a text. */
export function inline(text) {
  return new Inline(text).run();
}

/** The address behind a link, or null for anything but a web page or a letter. */
export function address(href) {
  try {
    const url = new URL(href);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url : null;
  } catch {
    return null; // relative, or none
  }
}

/** The file behind an address of the server's own folders, for reading; null for any other. Such a page cannot be opened from here. */
export function local(href) {
  const found = /^local:\/\/([^\s]{1,500})$/.exec(href);
  try {
    return found && decodeURIComponent(found[1]);
  } catch {
    return null;
  }
}

class Inline {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.nodes = []; // strings, spans, and runs of delimiters that may become spans
    this.brackets = []; // places in `nodes` where a link may begin
    this.ticks = null; // length of a run of backticks -> where such runs are
  }

  run() {
    while (this.at < this.text.length) this.step();
    return emphasis(this.nodes);
  }

  step() {
    const c = this.text[this.at];
    if (c === "\\") this.escape();
    else if (c === "`") this.code();
    else if (c === "*" || c === "_" || c === "~") this.delimiters(c);
    else if (c === "[" || (c === "!" && this.text[this.at + 1] === "[")) this.open(c);
    else if (c === "]") this.close();
    else if (c === "<") this.match(AUTOLINK, ([, href]) => link([href], href)) || this.match(BREAK, () => ({ tag: "br", children: [] })) || this.say(1);
    else if (c === "$") this.match(MATH, ([all]) => span("math", [all])) || this.say(1);
    else if (c === "&") this.match(ENTITY, character) || this.say(1);
    else if (c === "\n") this.newline();
    else if ((c === "h" || c === "H") && !WORD.test(this.text[this.at - 1] ?? " ")) this.bare() || this.say(1);
    else this.words();
  }

  say(n) {
    this.nodes.push(this.text.slice(this.at, (this.at += n)));
  }

  words() {
    const special = /[\\`*_~[\]!<&$\nhH]/g;
    special.lastIndex = this.at + 1;
    const next = special.exec(this.text);
    this.say((next ? next.index : this.text.length) - this.at);
  }

  match(pattern, make) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (!found) return false;
    this.at = pattern.lastIndex;
    this.nodes.push(make(found));
    return true;
  }

  escape() {
    if (this.match(MATH, ([all]) => span("math", [all]))) return;
    const next = this.text[this.at + 1];
    if (next === "\n") {
      this.at += 2;
      this.nodes.push({ tag: "br", children: [] });
    } else if (next && PUNCTUATION.test(next)) {
      this.at += 1;
      this.say(1);
    } else this.say(1);
  }

  newline() {
    const before = this.nodes.at(-1);
    const hard = typeof before === "string" && before.endsWith("  ");
    this.at += 1;
    if (hard) this.nodes[this.nodes.length - 1] = before.trimEnd();
    this.nodes.push(hard ? { tag: "br", children: [] } : "\n");
  }

  code() {
    const length = run(this.text, this.at, "`");
    const end = this.closing(length);
    if (end === undefined) return this.say(length);
    let inside = this.text.slice(this.at + length, end).replaceAll("\n", " ");
    if (inside.startsWith(" ") && inside.endsWith(" ") && inside.trim()) inside = inside.slice(1, -1);
    this.nodes.push(span("code", [inside]));
    this.at = end + length;
  }

  closing(length) {
    if (!this.ticks) {
      this.ticks = new Map();
      for (const { 0: found, index } of this.text.matchAll(/`+/g)) {
        if (!this.ticks.has(found.length)) this.ticks.set(found.length, []);
        this.ticks.get(found.length).push(index);
      }
    }
    const places = this.ticks.get(length) ?? [];
    while (places.length && places[0] <= this.at) places.shift();
    return places[0];
  }

  delimiters(c) {
    const length = run(this.text, this.at, c);
    const before = this.text[this.at - 1] ?? " ";
    const after = this.text[this.at + length] ?? " ";
    const left = !SPACE.test(after) && (WORD.test(after) || !PUNCTUATION.test(after) || !WORD.test(before));
    const right = !SPACE.test(before) && (WORD.test(before) || !PUNCTUATION.test(before) || !WORD.test(after));
    this.at += length;
    if (c === "*" && length === 1 && TIMES.test(before + after)) return void this.nodes.push(c);
    if (c === "~" && length !== 2) return void this.nodes.push(c.repeat(length));
    const opens = left && (c !== "_" || !right || !WORD.test(before));
    const closes = right && (c !== "_" || !left || !WORD.test(after));
    this.nodes.push({ run: c, length, opens, closes, both: left && right });
  }

  open(c) {
    this.brackets.push({ at: this.nodes.length, picture: c === "!" });
    this.say(c === "!" ? 2 : 1);
  }

  close() {
    const begun = this.brackets.pop();
    this.say(1);
    if (!begun) return;
    TARGET.lastIndex = this.at;
    const target = TARGET.exec(this.text);
    if (!target) return;
    const href = (target[1] ?? target[2]).replace(/\\([!-/:-@[-`{-~])/g, "$1");
    const file = local(href);
    const made = MADE.test(href);
    if (!file && !made && !address(href)) return; // then it stays what was written, for everyone to see
    this.at = TARGET.lastIndex;
    if (file) return void this.nodes.splice(begun.at, Infinity, { tag: "source", children: [file], href, depth: 1 });
    const children = unlinked(emphasis(this.nodes.splice(begun.at).slice(1, -1)));
    if (made) return void this.nodes.push({ tag: "source", children: children.length ? children : [href], href, depth: 1 + deepest(children) });
    this.nodes.push(begun.picture ? link(["Picture: ", ...(children.length ? children : [href])], href) : link(children, href));
  }

  bare() {
    return this.match(BARE, (found) => {
      let href = found[0].replace(/[.,:;!?*_~]+$/, "");
      while (href.endsWith(")") && href.split(")").length > href.split("(").length) href = href.slice(0, -1);
      if (href.endsWith("]")) href = href.replace(/\]+$/, "");
      this.at -= found[0].length - href.length;
      return address(href) ? link([href], href) : href;
    });
  }
}

const span = (tag, children) => ({ tag, children, depth: 1 });
const link = (children, href) => ({ tag: "a", children, href, depth: 1 + deepest(children) });
const unlinked = (nodes) => nodes.flatMap((n) => (n.tag === "a" ? n.children : n.children ? { ...n, children: unlinked(n.children) } : n));
const deepest = (nodes) => nodes.reduce((most, n) => Math.max(most, n.depth ?? 0), 0);

function character([, decimal, hexadecimal, name]) {
  if (name) return ENTITIES[name.toLowerCase()];
  const code = decimal ? parseInt(decimal, 10) : parseInt(hexadecimal, 16);
  return code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? String.fromCodePoint(code) : "\ufffd";
}

function run(text, at, c) {
  let end = at;
  while (text[end] === c) end++;
  return end - at;
}

/** Pairs runs of delimiters, as CommonMark does: each closer looks back for the nearest opener of its kind. */
function emphasis(nodes) {
  const out = []; // what is done; runs that may still open are in it
  const openers = new Map(); // kind -> places of such runs in `out`, nearest last
  for (const node of nodes) {
    if (node.closes) close(out, openers, node);
    if (node.run && node.length > 0) {
      if (node.opens) openersOf(openers, node.run).push(out.length);
      out.push(node);
    } else if (!node.run) out.push(node);
  }
  return join(out.map((n) => (n.run ? n.run.repeat(n.length) : n)));
}

const openersOf = (openers, c) => openers.get(c) ?? openers.set(c, []).get(c);

function close(out, openers, closer) {
  const places = openersOf(openers, closer.run);
  while (closer.length > 0) {
    const at = places.slice(-LOOK_BACK).findLast((place) => fit(out[place], closer));
    if (at === undefined) break;
    const opener = out[at];
    const inside = out.slice(at + 1);
    const depth = 1 + deepest(inside);
    if (depth > DEPTH) break;
    const n = Math.min(2, opener.length, closer.length);
    const tag = closer.run === "~" ? "del" : n === 2 ? "strong" : "em";
    out.length = at + 1;
    for (const list of openers.values()) while (list.length && list.at(-1) > at) list.pop();
    out.push({ tag, depth, children: join(inside.map((i) => (i.run ? i.run.repeat(i.length) : i))) });
    opener.length -= n;
    closer.length -= n;
    if (opener.length === 0) {
      out.splice(at, 1);
      places.pop();
    }
  }
}

/** CommonMark's rule of three: what can both open and close does not pair where the lengths sum to a multiple of three. */
function fit(opener, closer) {
  if (closer.run === "~" || (!opener.both && !closer.both)) return true;
  return (opener.length + closer.length) % 3 !== 0 || (opener.length % 3 === 0 && closer.length % 3 === 0);
}

function join(nodes) {
  const out = [];
  for (const node of nodes) {
    if (typeof node === "string" && typeof out.at(-1) === "string") out[out.length - 1] += node;
    else out.push(node);
  }
  return out;
}
