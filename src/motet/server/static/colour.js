// Code in colours: comments, strings, numbers, keywords and names that are called, for the languages models write most.
// One pass over the text, each place looked at once; what is not known stays plain. An aid for the eye, no parser.
// Gives [kind, piece] pairs, kind "" for plain; makes no elements.

const LONGEST = 12_000; // characters; what is longer is listed without colours, since it is drawn anew while it grows
const words = (text) => new Set(text.split(" "));

const BLOCK = "/\\*[\\s\\S]*?(?:\\*/|$(?![\\s\\S]))";
const DOUBLE = '"(?:[^"\\\\\\n]|\\\\[\\s\\S])*"?';
const SINGLE = "'(?:[^'\\\\\\n]|\\\\[\\s\\S])*'?";
const TICKED = "`(?:[^`\\\\]|\\\\[\\s\\S])*`?";
const TRIPLE = '[A-Za-z]{0,2}(?:"""[\\s\\S]*?(?:"""|$(?![\\s\\S]))|\'\'\'[\\s\\S]*?(?:\'\'\'|$(?![\\s\\S])))';
const NUMBER = "(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.[\\d_]+)?(?:[eE][+-]?\\d+)?)[a-zA-Z]{0,3}";
const NAME = "[\\p{L}_$][\\p{L}\\p{N}_$]*";

/** @param comment, string: patterns @param keywords a set; `fold`: their case does not matter */
function language(comment, string, keywords, fold = false) {
  return { pattern: new RegExp(`(${comment})|(${string})|(${NUMBER})|(${NAME})`, "gu"), keywords, fold };
}

const C = "if else for while do switch case default break continue return goto sizeof struct union enum typedef static const extern volatile void int long short char float double unsigned signed bool auto inline true false NULL";
const CURLY = `//[^\\n]*|${BLOCK}`;
const HASH = "(?<![^\\s;])#[^\\n]*";

const python = language("#[^\\n]*", `${TRIPLE}|(?:[fFrRbBuU]{1,2})?(?:${DOUBLE}|${SINGLE})`, words(
  "and as assert async await break case class continue def del elif else except False finally for from global if import in is lambda match None nonlocal not or pass raise return True try while with yield self"));
const script = language(CURLY, `${DOUBLE}|${SINGLE}|${TICKED}`, words(
  "abstract any as async await boolean break case catch class const continue declare default delete do else enum export extends false finally for from function get if implements import in instanceof interface let new null number of private protected public readonly return set static string super switch this throw true try type typeof undefined unknown var void while yield"));
const c = language(`${CURLY}|(?<=^|\\n)[ \\t]*#[ \\t]*[a-z]+`, `${DOUBLE}|${SINGLE}`, words(
  `${C} alignas catch class concept constexpr consteval decltype delete dynamic_cast explicit final friend mutable namespace new noexcept nullptr operator override private protected public reinterpret_cast requires static_assert static_cast template this throw try typename using virtual`));
const java = language(CURLY, `${TRIPLE}|${DOUBLE}|${SINGLE}`, words(
  "abstract as async await bool boolean break byte case catch char class companion const continue data decimal default delegate do double else enum extends false final finally float for foreach fun get if implements import in instanceof int interface internal is lateinit let long namespace new null object open out override package private protected public readonly record ref return sealed set short static string struct super switch this throw throws true try typeof using val var virtual void volatile when while func guard nil protocol extension self init defer"));
const rust = language(CURLY, `r#*${DOUBLE}#*|b?${DOUBLE}|b?'(?:[^'\\\\\\n]|\\\\[^\\n]{1,8})'`, words(
  "as async await bool break char const continue crate dyn else enum extern f32 f64 false fn for i8 i16 i32 i64 i128 if impl in isize let loop match mod move mut pub ref return self Self static str struct super trait true type u8 u16 u32 u64 u128 unsafe use usize where while"));
const go = language(CURLY, `${DOUBLE}|${SINGLE}|${TICKED}`, words(
  "any bool break byte case chan const continue default defer else error fallthrough false float32 float64 for func go goto if import int int32 int64 interface map nil package range return rune select string struct switch true type uint uint64 var"));
const shell = language(HASH, `${DOUBLE}|'[^']*'?`, words(
  "case cd do done echo elif else esac exit export fi for function if in local read return set shift source sudo then trap until while"));
const sql = language(`--[^\\n]*|${BLOCK}`, "'(?:[^'\\n]|'')*'?|\"[^\"\\n]*\"?", words(
  "add all alter and as asc between by case check column constraint create cross default delete desc distinct drop else end exists explain false foreign from full group having if in index inner insert into is join key left like limit not null offset on or order outer over partition primary recursive references returning right select set table then true union unique update using values view when where window with"), true);
const json = language("//[^\\n]*", DOUBLE, words("true false null"));
const keyed = language(HASH, `${TRIPLE}|${DOUBLE}|${SINGLE}`, words("true false null yes no on off"));
const css = language(BLOCK, `${DOUBLE}|${SINGLE}`, words("import media supports keyframes layer container important from to not and or only"));
const other = language(`${HASH}`, `${DOUBLE}|${SINGLE}`, words(
  "and begin break case class const def do else elsif end false for fn func function if import in let local module next nil not null or proc rescue return self sub then true unless until use var when while"));

const LANGUAGES = {
  python, py: python, python3: python, ipython: python, pycon: python, javascript: script, js: script, jsx: script, mjs: script,
  typescript: script, ts: script, tsx: script, c, h: c, cpp: c, "c++": c, cc: c, hpp: c, cuda: c, java, kotlin: java, kt: java,
  csharp: java, "c#": java, cs: java, swift: java, scala: java, dart: java, php: script, rust, rs: rust, go, golang: go,
  bash: shell, sh: shell, shell, zsh: shell, console: shell, dockerfile: shell, makefile: shell, sql, postgresql: sql, sqlite: sql,
  mysql: sql, json, jsonc: json, json5: json, yaml: keyed, yml: keyed, toml: keyed, ini: keyed, css, scss: css, ruby: other, rb: other, perl: other,
  lua: other, r: other, julia: other, elixir: other,
};
const MARKUP = new Set(["html", "xml", "svg", "vue", "svelte"]);
const TAG = /(<!--[\s\S]*?(?:-->|$(?![\s\S])))|(<\/?[A-Za-z][\w:.-]*|\/?>)|((?<![\w:@.-])[\w:@.-]{1,64}(?==["']))|(?<==)("[^"<]*"|'[^'<]*')/gu;
const KINDS = ["", "comment", "string", "number", "keyword", "call"];

/** A text in pieces. */
export function colour(text, name) {
  const known = name.toLowerCase();
  if (text.length > LONGEST) return [["", text]];
  if (known === "diff" || known === "patch") return lines(text);
  if (MARKUP.has(known)) return pieces(text, TAG, ([, comment, tag, attribute]) => (comment ? 1 : tag ? 4 : attribute ? 5 : 2));
  const found = Object.hasOwn(LANGUAGES, known) ? LANGUAGES[known] : null;
  if (!found) return [["", text]];
  return pieces(text, found.pattern, ({ 0: all, 1: comment, 2: string, 3: number, index }) => {
    if (comment !== undefined) return 1;
    if (string !== undefined) return 2;
    if (number !== undefined) return 3;
    if (found.keywords.has(found.fold ? all.toLowerCase() : all)) return 4;
    return text[index + all.length] === "(" ? 5 : 0;
  });
}

function pieces(text, pattern, kindOf) {
  const out = [];
  let from = 0;
  for (const found of text.matchAll(pattern)) {
    const kind = kindOf(found);
    if (!kind || !found[0]) continue;
    if (found.index > from) out.push(["", text.slice(from, found.index)]);
    out.push([KINDS[kind], found[0]]);
    from = found.index + found[0].length;
  }
  if (from < text.length) out.push(["", text.slice(from)]);
  return out;
}

function lines(text) {
  return text.split(/(?<=\n)/).map((line) => [line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : line.startsWith("@@") ? "comment" : "", line]);
}
