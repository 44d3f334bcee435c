// What a text may hold that nobody sees, made visible: characters that turn the direction of what follows, that take no
// room, or that carry letters unseen. Prose keeps joiners and marks that scripts need; code keeps none.

import { h } from "./dom.js";

const NAMES = {
  0x00ad: "soft hyphen", 0x061c: "arabic letter mark", 0x200b: "zero width space", 0x200c: "zero width non-joiner",
  0x200d: "zero width joiner", 0x200e: "left-to-right mark", 0x200f: "right-to-left mark",
  0x202a: "left-to-right embedding", 0x202b: "right-to-left embedding", 0x202c: "end of embedding",
  0x202d: "left-to-right override", 0x202e: "right-to-left override", 0x2060: "word joiner",
  0x2066: "left-to-right isolate", 0x2067: "right-to-left isolate", 0x2068: "first strong isolate",
  0x2069: "end of isolate", 0xfeff: "zero width no-break space",
};
// Flags of regions are spelled with a black flag and tag characters; those are seen, as a flag.
const FLAG = "\\u{1f3f4}[\\u{e0020}-\\u{e007e}]{1,8}\\u{e007f}";
const ALWAYS = "\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}";
const IN_CODE = "\\u00ad\\u061c\\u200b-\\u200f\\u2060-\\u2064\\u3164\\ufeff";
const PROSE = new RegExp(`${FLAG}|([${ALWAYS}]+)`, "gu");
const CODE = new RegExp(`${FLAG}|([${ALWAYS}${IN_CODE}]+)`, "gu");
const MOST = 2000; // marks in one text; what comes after is replaced, without saying by what

/** The text as nodes: strings, and a mark in place of each run of characters that are not to be seen. */
export function plain(text, inCode = false) {
  const out = [];
  let from = 0;
  for (const found of text.matchAll(inCode ? CODE : PROSE)) {
    if (found[1] === undefined) continue;
    out.push(text.slice(from, found.index), out.length < MOST ? mark(found[1]) : "\ufffd");
    from = found.index + found[1].length;
  }
  if (from === 0) return [text];
  return [...out, text.slice(from)];
}

function mark(run) {
  const codes = [...run].map((c) => c.codePointAt(0));
  const first = `U+${codes[0].toString(16).toUpperCase().padStart(4, "0")}`;
  const said = NAMES[codes[0]] ?? (codes[0] >= 0xe0000 ? "unseen letter" : "control character");
  const more = codes.length > 1 ? ` +${codes.length - 1}` : "";
  return h("span", { class: "unprintable", title: `${first}, ${said}${more && ", and more of the kind"}` }, first + more);
}
