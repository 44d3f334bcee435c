// Formulas as models write them (LaTeX's mathematics) to MathML, which browsers set themselves. A formula that holds anything
// not known here is not guessed at: `formula` gives null, and it is shown as it was written. Elements are made one by one, by
// the names in this file only; nesting and length are bounded. Roots and bars are drawn with borders, for without a font made
// for mathematics browsers leave out a root's sign, and the formula would say something else. Knows no Markdown.

import { DELIMITERS, FUNCTIONS, LIMITS, SYMBOLS, VARIANTS } from "./symbols.js";

const NS = "http://www.w3.org/1998/Math/MathML";
const DEPTH = 24;
const LONGEST = 4000; // characters
const TOKEN = /\\([A-Za-z]+)\*?|\\([^A-Za-z])|(\d+(?:[.]\d+)?)|(\s+)|(%[^\n]*)|([\s\S])/gu;
const ACCENTS = { hat: "^", widehat: "^", vec: "\u2192", overrightarrow: "\u2192", dot: "\u02d9", ddot: "\u00a8", tilde: "~", widetilde: "~", check: "\u02c7", breve: "\u02d8", overbrace: "\u23de", mathring: "\u02da" };
const LINES = { bar: "over", overline: "over", underline: "under" };
const SPACES = { ",": 0.167, ":": 0.222, ">": 0.222, ";": 0.278, "!": -0.167, " ": 0.25, quad: 1, qquad: 2, enspace: 0.5, thinspace: 0.167 };
const TABLES = { matrix: "", smallmatrix: "", pmatrix: "()", bmatrix: "[]", Bmatrix: "{}", vmatrix: "||", Vmatrix: "\u2016\u2016", cases: "{", array: "", aligned: "", align: "", alignedat: "", gathered: "", gather: "", split: "", equation: "" };
const ALIGNED = new Set(["aligned", "align", "split", "alignedat"]);
const IGNORED = new Set(["displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "hline", "nonumber", "notag", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr", "Biggl", "Biggr", "big", "Big", "bigg", "Bigg", "mathopen", "mathclose", "mathord", "mathrel", "mathbin", "allowbreak", "strut"]);
const TEXTS = new Set(["text", "textrm", "textnormal", "mbox", "textbf", "textit", "textsf", "texttt", "mathrm", "operatorname", "hbox"]);
const OPERATORS = new Set([..."+-*/=<>,;:!()[]|?@&"]);
const PRIME = ["", "\u2032", "\u2033", "\u2034", "\u2057"];

class Unknown extends Error {}

/** A formula with its delimiters as a <math> element; null for what is not understood. */
export function formula(written) {
  const [, begin, source] = /^(\$\$?|\\\[|\\\()([\s\S]*?)(?:\$\$?|\\\]|\\\))$/.exec(written) ?? [];
  if (!source?.trim() || source.length > LONGEST || /[^\P{C}\n\t]/u.test(source)) return null;
  if (begin === "$" && (/[,.;:]$/.test(source) || (/[A-Za-z]{2}/.test(source) && !/[\\^_=+<>{}()/]/.test(source)))) return null; // money, or variables of a shell
  const block = begin === "$$" || begin === "\\[";
  try {
    const parser = new Parser(source);
    const rows = parser.table("", block);
    return m("math", { display: block ? "block" : "inline", alttext: source.trim() }, rows);
  } catch (error) {
    if (error instanceof Unknown) return null;
    throw error;
  }
}

function m(tag, attributes, ...children) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}

/** A sign as it is: fences grow only where they are told to, and bars stand close. */
const sign = (text) => mo(text, { ...("()[]{}|\u2016\u27e8\u27e9\u2308\u2309\u230a\u230b".includes(text) && { stretchy: "false" }), ...("|\u2016".includes(text) && { lspace: "0", rspace: "0" }) });
const row = (nodes) => (nodes.length === 1 ? nodes[0] : m("mrow", {}, nodes));
const mo = (text, attributes = {}) => m("mo", attributes, text);

class Parser {
  constructor(source) {
    const found = [...source.matchAll(TOKEN)].filter((t) => !t[4] && !t[5]); // without spaces and remarks
    this.tokens = found.map(([all, name, sign, number]) => ({ all, name: name ?? sign, number }));
    this.found = found.map((t) => t.index);
    this.source = source;
    this.at = 0;
    this.depth = 0;
  }

  get next() {
    return this.tokens[this.at];
  }

  take(all) {
    if (this.next?.all !== all) throw new Unknown();
    this.at++;
  }

  /** What stands up to a token that `ends`, or to the end. */
  row(ends = () => false) {
    if (++this.depth > DEPTH) throw new Unknown();
    const nodes = [];
    while (this.next && !ends(this.next)) {
      const atom = this.atom();
      if (atom) nodes.push(this.scripts(atom));
    }
    this.depth--;
    return nodes;
  }

  /** What a command is given: a group, or the one token that follows. */
  argument() {
    if (!this.next) throw new Unknown();
    if (this.next.all === "{") return this.group();
    if (this.next.number?.length > 1) { // \frac12: one digit
      const digit = this.next.number[0];
      this.tokens[this.at] = { all: this.next.all.slice(1), number: this.next.number.slice(1) };
      return m("mn", {}, digit);
    }
    if (++this.depth > DEPTH) throw new Unknown();
    const atom = this.atom();
    this.depth--;
    if (!atom) throw new Unknown();
    return atom;
  }

  group() {
    this.take("{");
    const nodes = this.row((t) => t.all === "}");
    this.take("}");
    return row(nodes);
  }

  /** The letters between braces, as they were written. */
  words() {
    if (this.next?.all !== "{") throw new Unknown();
    const from = this.found[this.at] + 1;
    let open = 0;
    for (let n = this.at; n < this.tokens.length; n++) {
      open += this.tokens[n].all === "{" ? 1 : this.tokens[n].all === "}" ? -1 : 0;
      if (open) continue;
      this.at = n + 1;
      const text = this.source.slice(from, this.found[n]);
      if (/\\(?![ %$#&_{},])/.test(text)) throw new Unknown();
      return text.replace(/\\([ %$#&_{},])/g, "$1").replace(/[{}$]/g, "");
    }
    throw new Unknown();
  }

  scripts(base) {
    let below = null;
    let above = null;
    let primes = 0;
    while (["limits", "nolimits"].includes(this.next?.name)) this.at++; // where they go by themselves
    for (;;) {
      const sign = this.next?.all;
      if (sign === "'") {
        primes++;
        this.at++;
      } else if (sign === "_" && !below) {
        this.at++;
        below = this.argument();
      } else if (sign === "^" && !above) {
        this.at++;
        above = this.argument();
      } else break;
    }
    if (["^", "_"].includes(this.next?.all)) throw new Unknown(); // twice the same
    if (primes) above = row([mo(PRIME[primes] ?? PRIME[1].repeat(primes)), ...(above ? [above] : [])]);
    if (!below && !above) return base;
    const under = LIMITS.has(base.textContent) && base.localName === "mo" ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
    if (base.hasAttribute("data-brace")) return m(base.localName === "mover" ? "mover" : "munder", {}, base, above ?? below);
    return below && above ? m(under[2], {}, base, below, above) : m(under[below ? 0 : 1], {}, base, below ?? above);
  }

  /** One thing; null for what shows nothing. */
  atom() {
    const token = this.next;
    const { all, name, number } = token;
    if (all === "{") return this.group();
    this.at++;
    if (name !== undefined) return this.command(name);
    if (number) return m("mn", {}, number);
    if (all === "~") return m("mspace", { width: "0.25em" });
    if (all === "-") return mo("\u2212");
    if (all === "*") return mo("\u2217");
    if (OPERATORS.has(all)) return sign(all);
    if (/\p{L}/u.test(all)) return m("mi", {}, all);
    if (all === ".") return mo(".");
    if ("^_'".includes(all)) {
      this.at--;
      return m("mrow", {}); // a script of nothing
    }
    if ("}&$".includes(all)) throw new Unknown();
    return mo(all);
  }

  command(name) {
    if (Object.hasOwn(SYMBOLS, name)) {
      const [tag, text] = SYMBOLS[name];
      return tag === "mo" ? sign(text) : m(tag, {}, text);
    }
    if (FUNCTIONS.has(name)) return mo(name, { form: "prefix", lspace: "0", rspace: "0.167em", ...(LIMITS.has(name) && { movablelimits: "true" }) });
    if (Object.hasOwn(SPACES, name)) return m("mspace", { width: `${SPACES[name]}em` });
    if (IGNORED.has(name)) return null;
    if (TEXTS.has(name)) return this.text(name);
    if (Object.hasOwn(VARIANTS, name)) return this.variant(VARIANTS[name]);
    if (Object.hasOwn(ACCENTS, name)) return this.accent("mover", ACCENTS[name], name === "overbrace");
    if (Object.hasOwn(LINES, name)) return m("mrow", { class: LINES[name] }, this.argument());
    if (name === "underbrace") return this.accent("munder", "\u23df", true);
    return this.structure(name);
  }

  structure(name) {
    switch (name) {
      case "frac": case "dfrac": case "tfrac": case "cfrac": return m("mfrac", {}, this.argument(), this.argument());
      case "binom": case "dbinom": case "tbinom":
        return m("mrow", {}, mo("("), m("mfrac", { linethickness: "0" }, this.argument(), this.argument()), mo(")"));
      case "sqrt": return this.root();
      case "left": return this.fence();
      case "begin": return this.environment();
      case "boxed": case "fbox": return m("mrow", { class: "boxed" }, this.argument());
      case "phantom": return m("mphantom", {}, this.argument());
      case "overset": case "stackrel": return this.stack("mover");
      case "underset": return this.stack("munder");
      case "xrightarrow": case "xleftarrow": return m("mover", {}, mo(name === "xrightarrow" ? "\u27f6" : "\u27f5"), this.argument());
      case "pmod": return m("mrow", {}, m("mspace", { width: "0.6em" }), mo("("), m("mi", {}, "mod"), m("mspace", { width: "0.3em" }), this.argument(), mo(")"));
      case "bmod": case "mod": return mo("mod", { lspace: "0.28em", rspace: "0.28em" });
      case "not": return this.not();
      case "tag": return m("mtext", {}, `\u2003(${this.words()})`);
      case "label": return this.words(), null;
      case "operatornamewithlimits": return mo(this.words(), { rspace: "0.167em" });
      case "substack": return this.substack();
      default: throw new Unknown();
    }
  }

  text(name) {
    const words = this.words();
    if (name === "operatorname") return mo(words, { form: "prefix", lspace: "0", rspace: "0.167em" });
    if (name === "mathrm") return m("mi", { mathvariant: "normal" }, words.trim());
    const kind = { textbf: "bold", textit: "italic" }[name];
    return m("mtext", kind ? { class: kind } : {}, words.replace(/^ | $/g, "\u00a0"));
  }

  variant(letters) {
    const inside = this.next?.all === "{" ? this.group() : this.argument();
    const leaves = [inside, ...inside.querySelectorAll("*")].filter((e) => e.localName === "mi" || e.localName === "mn");
    for (const leaf of leaves) leaf.textContent = [...leaf.textContent].map(letters).join("");
    return inside;
  }

  accent(tag, sign, brace) {
    const made = m(tag, {}, this.argument(), mo(sign, { stretchy: String(brace) }));
    if (brace) made.setAttribute("data-brace", "");
    return made;
  }

  stack(tag) {
    const small = this.argument();
    return m(tag, {}, this.argument(), small);
  }

  root() {
    let index = null;
    if (this.next?.all === "[") {
      this.at++;
      index = m("msup", {}, m("mrow", {}), row(this.row((t) => t.all === "]")));
      this.take("]");
    }
    return m("mrow", {}, index ?? [], mo("\u221a", { form: "prefix", stretchy: "true", lspace: "0", rspace: "0" }), m("mrow", { class: "over" }, this.argument()));
  }

  delimiter() {
    const token = this.tokens[this.at++];
    if (!token) throw new Unknown();
    if (token.all === ".") return null;
    const text = token.name === undefined ? token.all : DELIMITERS[token.name];
    if (text === undefined || !/^[()[\]|/<>{}\u2016\u27e8\u27e9\u2308\u2309\u230a\u230b\u2191\u2193]$/.test(text)) throw new Unknown();
    return { "<": "\u27e8", ">": "\u27e9" }[text] ?? text;
  }

  fence() {
    const nodes = [];
    const add = (text) => text && nodes.push(mo(text, { fence: "true", stretchy: "true", symmetric: "true" }));
    add(this.delimiter());
    for (;;) {
      nodes.push(...this.row((t) => t.name === "right" || t.name === "middle"));
      if (!this.next) throw new Unknown();
      const last = this.tokens[this.at++].name === "right";
      add(this.delimiter());
      if (last) return m("mrow", {}, nodes);
    }
  }

  not() {
    const of = this.argument().textContent;
    const struck = { "=": "\u2260", "\u2208": "\u2209", "\u2282": "\u2284", "\u2286": "\u2288", "\u2261": "\u2262", "\u223c": "\u2241", "\u2203": "\u2204", "<": "\u226e", ">": "\u226f", "|": "\u2224" }[of];
    if (!struck) throw new Unknown();
    return mo(struck);
  }

  substack() {
    this.take("{");
    const rows = this.table("}", false);
    this.take("}");
    return rows;
  }

  environment() {
    const name = this.words().replace("*", "");
    if (!Object.hasOwn(TABLES, name)) throw new Unknown();
    if (name === "array" || name === "alignedat") this.words();
    const table = this.table("\\end", true, ALIGNED.has(name), name === "cases");
    this.at++;
    if (this.words().replace("*", "") !== name) throw new Unknown();
    const [open, close] = TABLES[name];
    const edge = (text) => (text ? [mo(text, { fence: "true", stretchy: "true", symmetric: "true" })] : []);
    return m("mrow", {}, edge(open), table, edge(close));
  }

  /** Rows between \\ and cells between &, up to a token or the end; one that stands alone is no table. */
  table(end, tall, aligned = false, cases = false) {
    const ends = (t) => t.name === "\\" || t.name === "newline" || t.all === "&" || t.all === end || (end === "\\end" && t.name === "end");
    const rows = [[]];
    for (;;) {
      rows.at(-1).push(this.row(ends));
      const token = this.next;
      if (!token || token.all === end || token.name === "end") break;
      this.at++;
      if (token.all !== "&") rows.push([]);
    }
    if (Boolean(this.next) !== Boolean(end)) throw new Unknown();
    if (rows.at(-1).length === 1 && !rows.at(-1)[0].length && rows.length > 1) rows.pop();
    if (!end && rows.length === 1 && rows[0].length === 1) return rows[0][0];
    const cells = rows.map((cells) => m("mtr", {}, cells.map((nodes) => m("mtd", {}, nodes))));
    return m("mtable", { class: aligned ? "aligned" : cases ? "cases" : "table", ...(tall && (aligned || !end) && { displaystyle: "true" }) }, cells);
  }
}
