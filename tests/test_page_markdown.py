"""What a model writes, on the page: CommonMark as markdown-it reads it, the same streamed and whole, and never anything that runs.

The texts are rendered by the page's own modules in Chromium, beside the page and under its content policy.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import pytest
from markdown_it import MarkdownIt

from browsing import Reader, chromium
from serving import Script, serving

DOCS = [
    "a\nb", "a  \nb", "a\\\nb", "*a* **b** ***c*** _d_ __e__ a_b_c", "**a*b**", "*a **b** c*", "***a** b*", "***a* b**",
    "**bold**text*", "a * b * c", "\\*a\\*", "`a` ``b`c`` `d", "[a](https://x.y/) [b](<https://x.y/a b>)",
    '[c](https://x.y/ "t")', "[a *b* c](https://x.y/(z))", "[not]", "<https://a.b/c>", "# a\n## b ##\n###### c\n####### d",
    "- a\n- b\n  - c\n    - d\n- e", "1. a\n2. b", "3) a\n4) b", "- a\n\n- b", "- a\n\n  b\n- c", "> a\n> b\n\n> c\n> > d",
    "```py\na = 1\n\nb\n```\nx", "~~~\na\n~~~", "```\nnever closed", "    code\n    more\n\ntext", "---\n***\n_ _ _",
    "| a | b |\n| - | :-: |\n| 1 | 2 |\n| 3 |", "a | b\n--|--\n`x` | **y**\n\nz", "~~a~~ ~b~", "- a\n```\nx\n```\n- b",
    "* a\n+ b", "1. a\n\n   ```\n   x\n   ```\n2. b", "text\n- a\n- b", "text\n2. a", "text\n# h\ntext", "a*b*c **d**e",
    "**a**\n*b*\n\n**c", "*a\nb*", '"*a*" (*b*) *c*.', "*(**a**)*", 'a**"b"**c', "****a****", "_a_b_",
    "foo***bar***baz", "*foo**bar**baz*", "- \n- a", "-\n  a", "10. a\n11. b", "> - a\n>   b\n> - c\n\nd", "&amp; &lt; &#42;a&#x2a;",
    "<b>bold</b> <script>x</script>",
]  # fmt: skip
# A text rendered and written down as HTML without attributes, and without what the page adds around it (bars, scroll boxes).
RENDER = """async (docs) => {
  const { markdown } = await import('/page/markdown.js');
  const escape = (t) => t.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
  const inside = (n) => [...n.childNodes].map(write).join('');
  const write = (n) => {
    if (n.nodeType === 3) return escape(n.data);
    if (n.localName === 'figure') return `<pre><code>${escape(n.querySelector('code').textContent)}</code></pre>`;
    if (n.className === 'table' || (n.localName === 'div' && n.className === 'formula')) return inside(n);
    if (n.localName === 'br' || n.localName === 'hr') return `<${n.localName}>`;
    return `<${n.localName}${n.localName === 'a' ? ` ${n.getAttribute('href')}` : ''}>${inside(n)}</${n.localName}>`;
  };
  return docs.map((doc) => inside(markdown(document.createElement('div'), doc, { level: 1 })));
}"""
BLOCKS = re.compile(r"\n?(</?(?:p|ul|ol|li|blockquote|h\d|hr|pre|table|thead|tbody|tr|th|td|br)>)\n?")


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    for browser in chromium():
        with serving(Script("")) as served, Reader(browser, served.url) as reader:
            yield reader


def same(text: str) -> str:
    """HTML without attributes, and without line ends that do not show."""
    text = re.sub(r'<a href="([^"]*)"[^>]*>', lambda m: f"<a {html.unescape(m[1])}>", text)
    text = re.sub(r"<(code|th|td|ol)( [^>]*)>", r"<\1>", text)
    text = re.sub(r"<(br|hr) />", r"<\1>", text).replace("<s>", "<del>").replace("</s>", "</del>")
    return BLOCKS.sub(r"\1", text.replace("\n</code>", "</code>")).strip()


def test_it_reads_markdown_as_markdown_it_does(reader: Reader) -> None:
    oracle = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    got = reader.evaluate(RENDER, DOCS)
    wrong = [(doc, want, have) for doc, have in zip(DOCS, got, strict=True) if (want := same(oracle.render(doc))) != same(have)]  # fmt: skip
    assert not wrong


def test_models_ways_of_writing(reader: Reader) -> None:
    """Where CommonMark and what models mean differ, the page takes what is meant."""
    cases = {
        "1. a\n  - b": "<ol><li>a<ul><li>b</li></ul></li></ol>",  # indented by two under a wider marker
        "- [x] a\n- [ ] b": "<ul><li><input></input> a</li><li><input></input> b</li></ul>",
        "see https://a.b/c_d_e.": "<p>see <a https://a.b/c_d_e>https://a.b/c_d_e</a>.</p>",
        "(https://a.b/c)": "<p>(<a https://a.b/c>https://a.b/c</a>)</p>",
        "it is $a_1 * b$ or \\(x^2\\), $5 or $6": "<p>it is <math><msub><mi>a</mi><mn>1</mn></msub><mo>∗</mo><mi>b</mi></math>"
        " or <span><math><msup><mi>x</mi><mn>2</mn></msup></math>,</span> $5 or $6</p>",
        "so $$a < *b*$$ is": "<p>so <math><mi>a</mi><mo>&lt;</mo><mo>∗</mo><mi>b</mi><mo>∗</mo></math> is</p>",
        "a\n\\[\nb\n\\]\nc": "<p>a</p><math><mi>b</mi></math><p>c</p>",
        "$$\nx\n$$ it is": "<div><math><mi>x</mi></math><p>it is</p></div>",
        "at night ([docs](local://docs/a%20b.md)) they": "<p>at night (<span>docs/a b.md</span>) they</p>",
        "in [the *table*](sandbox:/mnt/data/t.csv)": "<p>in <span>the <em>table</em></span></p>",  # a button saves it
        "in [t](sandbox:/etc/t)": "<p>in [t](sandbox:/etc/t)</p>",
        "$$\na_1 + *b*\n": "<pre>$$\na_1 + *b*</pre>",
        "$\\nosuch{x}$ and $$\\nosuch$$": "<p><code>$\\nosuch{x}$</code> and <code>$$\\nosuch$$</code></p>",
        "between $HOME, $PATH": "<p>between $HOME, $PATH</p>",
        "85*7=595; 85*40=3400; 2*x*3, (1+2)*(3+4)": "<p>85*7=595; 85*40=3400; 2*x*3, (1+2)*(3+4)</p>",
        "*3*4* or **5*6**": "<p><em>3*4</em> or <strong>5*6</strong></p>",
        "a<br>b": "<p>a<br>b</p>",
        "text\n---\nmore": "<p>text</p><hr><p>more</p>",
        "![chart](https://a.b/c.png)": "<p><a https://a.b/c.png>Picture: chart</a></p>",
    }
    assert dict(zip(cases, reader.evaluate(RENDER, list(cases)), strict=True)) == cases


FORMULAS = {
    r"$\frac{a}{b} + \frac12 + \tfrac 1x$": "<mfrac><mi>a</mi><mi>b</mi></mfrac><mo>+</mo><mfrac><mn>1</mn><mn>2</mn></mfrac><mo>+</mo><mfrac><mn>1</mn><mi>x</mi></mfrac>",
    r"$x_1^2 - f''$": "<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup><mo>−</mo><msup><mi>f</mi><mo>″</mo></msup>",
    r"$\sqrt{2}$": "<mrow><mo>√</mo><mrow><mn>2</mn></mrow></mrow>",
    r"\(\sum\limits_{n=1}^\infty n\)": "<munderover><mo>∑</mo><mrow><mi>n</mi><mo>=</mo><mn>1</mn></mrow><mi>∞</mi></munderover><mi>n</mi>",
    r"$\int_0^1 \sin x \,dx$": "<msubsup><mo>∫</mo><mn>0</mn><mn>1</mn></msubsup><mo>sin</mo><mi>x</mi><mspace></mspace><mi>d</mi><mi>x</mi>",
    r"$\left( \tfrac12 \right]$": "<mrow><mo>(</mo><mfrac><mn>1</mn><mn>2</mn></mfrac><mo>]</mo></mrow>",
    r"$\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}$": "<mrow><mo>(</mo><mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr><mtr><mtd><mn>3</mn></mtd><mtd><mn>4</mn></mtd></mtr></mtable><mo>)</mo></mrow>",
    "$$a &= b \\\\ c &= d$$": "<mtable><mtr><mtd><mi>a</mi></mtd><mtd><mo>=</mo><mi>b</mi></mtd></mtr><mtr><mtd><mi>c</mi></mtd><mtd><mo>=</mo><mi>d</mi></mtd></mtr></mtable>",
    r"\[\boxed{\mathbf{x} \in \mathbb{R}^n}\]": "<mrow><mrow><mi>𝐱</mi><mo>∈</mo><msup><mi>ℝ</mi><mi>n</mi></msup></mrow></mrow>",
    r"$1{,}5\ \text{km if } y$": "<mn>1</mn><mo>,</mo><mn>5</mn><mspace></mspace><mtext>km if </mtext><mi>y</mi>",
    "$x % remark$": None, r"$\href{javascript:window.ran=1}{x}$": None, r"$\begin{html}x\end{html}$": None, r"$\text{\x}$": None,
    r"$\left(x$": None, "${x$": None, "$x}$": None, "$x^2^3$": None, "$^$": None, r"$\frac{1}$": None, r"$\unicode{60}$": None,
    r"$\begin{cases} x \end{matrix}$": None, "$a\u202eb$": None, "$constructor$": None, r"$\constructor$": None, r"$\toString{x}$": None,
    "$" + "{" * 30 + "x" + "}" * 30 + "$": None, "$$" + "x^" * 3000 + "x$$": None, "$" + r"\frac" * 100 + "$": None,
}  # fmt: skip


def test_formulas_are_set_or_shown_as_they_were_written(reader: Reader) -> None:
    got = reader.evaluate(
        """async (formulas) => {
          const { formula } = await import('/page/math.js');
          const write = (n) => n.nodeType === 3 ? n.data.replaceAll('<', '&lt;') : `<${n.localName}>${[...n.childNodes].map(write).join('')}</${n.localName}>`;
          return formulas.map((f) => { const set = formula(f); return set && [...set.childNodes].map(write).join(''); });
        }""",
        list(FORMULAS),
    )
    assert dict(zip(FORMULAS, got, strict=True)) == FORMULAS


def test_streamed_and_whole_are_the_same(reader: Reader) -> None:
    """However a text is cut, what stands in the end is what the whole text gives."""
    wrong = reader.evaluate(
        """async (docs) => {
          const { Markdown, markdown } = await import('/page/markdown.js');
          let x = 7;
          const random = (n) => Math.floor(n * ((x = (x * 1103515245 + 12345) % 2147483648) / 2147483648));
          for (let k = 0; k < 600; k++) {
            let text = '';
            for (let n = random(4); n >= 0; n--) text += docs[random(docs.length)] + ['\\n', '\\n\\n', ''][random(3)];
            const whole = markdown(document.createElement('div'), text);
            const streamed = document.createElement('div');
            const stream = new Markdown(streamed);
            for (let at = 0; at < text.length;) {
              const size = 1 + random(random(2) ? 4 : 30);
              stream.append(text.slice(at, at + size));
              at += size;
            }
            if (whole.innerHTML !== streamed.innerHTML) return [text, whole.innerHTML, streamed.innerHTML];
          }
          return null;
        }""",
        DOCS + list(FORMULAS)[:-3] + ["\\[\nx\n\\]", "$$\nx", "a $$b$$ c", "\\[x\\], and", "so $x$, $y$."],
    )
    assert wrong is None


# --- hostile texts ---

RUN = "window.ran = 1"
HOSTILE = [
    f"<script>{RUN}</script>", f'<img src=x onerror="{RUN}">', f'<svg onload="{RUN}"><script>{RUN}</script></svg>',
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>', f"<math><mtext><table><mglyph><style><img src=x onerror={RUN}>",
    f'<svg></p><style><a id="</style><img src=1 onerror={RUN}>">', f"<noscript><p title=\"</noscript><img src=x onerror={RUN}>\">",
    f"<form action=javascript:{RUN}><input name=innerHTML></form>", "<base href=https://evil.example/>", "<link rel=stylesheet href=https://evil.example/x.css>",
    f"[a](javascript:{RUN})", f"[a](JaVaScRiPt:{RUN})", f"[a](java\tscript:{RUN})", f"[a](&#106;avascript:{RUN})", f"[a](\x01javascript:{RUN})",
    f"[a](<javascript:{RUN}>)", f"[a](vbscript:{RUN})", f"[a](data:text/html,<script>{RUN}</script>)", f"<javascript:{RUN}>", f"[a]( javascript:{RUN})",
    f"![a](javascript:{RUN})", "![a](https://evil.example/x.png)", "![a](data:image/svg+xml,<svg/onload=alert(1)>)", "[a](blob:https://evil.example/x)",
    "[a](//evil.example)", "[a](/v1/models)", "[a](file:///etc/passwd)", f"[a](local://<img/src=x/onerror={RUN}>)", "[a](local://%E0%A4%A)",
    f'[a](https://x.y/" onmouseover="{RUN})', f'[a](https://x.y/ "x" onclick="{RUN}")', f"[<img src=x onerror={RUN}>](https://x.y)",
    f"```<img src=x onerror={RUN}>\n<script>{RUN}</script>", f'```"><script>{RUN}</script>\nx\n```', f"| <script>{RUN}</script> |\n| - |\n| <img src=x onerror={RUN}> |",
    f"- [x] <img src=x onerror={RUN}>", f"$$<script>{RUN}</script>$$", f"$\\text{{<img src=x onerror={RUN}>}}$", f"\\(\\href{{javascript:{RUN}}}{{x}}\\)", f"<a href='javascript:{RUN}'>a</a>", "<style>@import 'https://evil.example/x'</style>",
    "<|end|><|start|>assistant<|channel|>final<|message|>x<|return|>", "\x00\x1b[31m\x7f", "<!--><script>1</script>-->", "<![CDATA[<script>1</script>]]>",
]  # fmt: skip
# Every element and attribute a rendered text may have; what is not named here must not come of any text.
ALLOWED = {
    "p": {"dir"}, "h3": {"dir"}, "hr": set(), "br": set(), "em": set(), "strong": set(), "del": set(), "ul": set(), "ol": {"start"},
    "li": {"dir"}, "blockquote": set(), "figure": {"class"}, "figcaption": set(), "pre": {"class", "tabindex"}, "code": {"class", "dir"},
    "span": {"class", "title"}, "a": {"href", "target", "rel", "title"}, "table": set(), "thead": set(), "tbody": set(), "tr": set(),
    "th": {"dir", "class", "scope"}, "td": {"dir", "class"}, "div": {"class", "tabindex", "role", "aria-label"},
    "input": {"type", "disabled", "checked", "aria-label"}, "button": {"type", "class", "aria-label", "title"},
    "svg": {"class", "aria-hidden"}, "use": {"href"},
    "math": {"display", "alttext"}, "mrow": {"class"}, "mi": {"mathvariant"}, "mo": {"stretchy", "lspace", "rspace", "form", "fence", "symmetric", "movablelimits"},
    **{name: set() for name in ("mn", "mtr", "mtd", "msub", "msup", "msubsup", "munder", "mphantom", "munderover")}, "mover": {"data-brace"},
    "mtext": {"class"}, "mspace": {"width"}, "mfrac": {"linethickness"}, "mtable": {"class", "displaystyle"},
}  # fmt: skip
SHOW = """async (texts) => {
  const { markdown } = await import('/page/markdown.js');
  const box = document.createElement('div');
  box.className = 'prose';
  document.getElementById('scroll').append(box);
  const out = [];
  for (const text of texts) {
    markdown(box, text);
    for (const link of box.querySelectorAll('a')) link.dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
    await new Promise((done) => setTimeout(done, 0));
    const elements = [...box.querySelectorAll('*')].map((e) => [e.localName, Object.fromEntries([...e.attributes].map((a) => [a.name, a.value]))]);
    out.push({ elements, text: box.textContent, ran: window.ran ?? null });
  }
  box.remove();
  return out;
}"""


def test_nothing_a_model_writes_is_run(reader: Reader) -> None:
    """No element or attribute beyond the list, no link but to web pages and letters, nothing run, nobody else asked."""
    for text, shown in zip(HOSTILE, reader.evaluate(SHOW, HOSTILE), strict=True):
        assert shown["ran"] is None, text
        for name, attributes in shown["elements"]:
            assert name in ALLOWED and set(attributes) <= ALLOWED[name], (text, name, attributes)
            if name == "a":
                assert re.match(r"https?://|mailto:", attributes["href"]), text
                assert attributes["rel"] == "noopener noreferrer nofollow", text
            if name == "use":
                assert attributes["href"] == "#icon-copy"


def test_markup_stays_text(reader: Reader) -> None:
    """HTML and control tokens are shown as they were written."""
    texts = [t for t in HOSTILE if t.startswith("<") and "\\" not in t and "://" not in t]
    for text, shown in zip(texts, reader.evaluate(SHOW, texts), strict=True):
        assert shown["text"] == text


def test_the_policy_stands_behind_the_renderer(reader: Reader) -> None:
    """Were there a hole in it: markup from a text is an error, scripts and pictures from elsewhere are not loaded."""
    before = list(reader.wrong)
    outcome = reader.evaluate(
        """async () => {
          const out = {};
          try { document.createElement('div').innerHTML = '<b>x</b>'; out.markup = 'made'; } catch (e) { out.markup = e.name; }
          const script = document.createElement('script');
          try { script.textContent = 'window.ran = 1'; document.body.append(script); } catch (e) { /* refused earlier still */ }
          const image = new Image();
          out.image = await new Promise((done) => { image.onload = () => done('loaded'); image.onerror = () => done('refused'); image.src = 'https://evil.example/x.png'; });
          out.elsewhere = await fetch('https://evil.example/').then(() => 'asked', (e) => e.name);
          try { document.body.setAttribute('onclick', 'window.ran = 1'); out.handler = 'set'; } catch (e) { out.handler = e.name; }
          out.ran = window.ran ?? null;
          return out;
        }"""
    )
    reader.wrong[:] = before  # the browser complained of each, as it should
    assert outcome == {
        "markup": "TypeError", "handler": "TypeError", "image": "refused", "elsewhere": "TypeError", "ran": None,
    }  # fmt: skip


def test_what_is_not_to_be_seen_is_shown(reader: Reader) -> None:
    cases = {
        "a\u202ecod.exe": "aU+202Ecod.exe",
        "x\U000e0041\U000e0042y": "xU+E0041 +1y",  # letters that carry a hidden text
        "\x1b[31m": "U+001B[31m",
        "```\nif a\u200b == b:\n```": "if aU+200B == b:",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f": None,  # a flag
        "\u0645\u200c\u064a \u05d0\u200f": None,  # joiners and marks that prose needs
        "\U0001f469\u200d\U0001f52c": None,
    }
    for (text, want), shown in zip(cases.items(), reader.evaluate(SHOW, list(cases)), strict=True):
        assert shown["text"] == (text if want is None else want)


def test_a_link_that_names_another_host_says_where_it_goes(reader: Reader) -> None:
    texts = [
        "[my-bank.com](https://evil.example/x)",
        "[here](https://a.example/)",
        "[a.example](https://a.example/)",
    ]
    shown = [s["text"] for s in reader.evaluate(SHOW, texts)]
    assert shown == ["my-bank.com (evil.example)", "here", "a.example"]


def test_a_megabyte_is_shown_in_part(reader: Reader) -> None:
    """Lines and structures of a million characters give few elements, nest little, and can be asked for whole."""
    shapes = [
        ["", "a"], ["", "word "], ["", "*"], ["", "*a "], ["", "["], ["", "[a]("], ["", "`"], ["", ">"], ["", "- "], ["| a\n|-|\n|", "|"],
        ["", "\u202e"], ["", "a\u202e"], ["", "#"], ["", "<"], ["```\n", "a\u202e"], ["```\n", "x"], ["https://", "a"], ["", "\n"], ["**", "a_b*"],
    ]  # fmt: skip
    shown = reader.evaluate(
        """async (shapes) => {
          const { markdown } = await import('/page/markdown.js');
          const box = document.createElement('div');
          const deepest = (e) => 1 + Math.max(0, ...[...e.children].map(deepest));
          const out = [];
          for (const [begin, unit] of shapes) {
            const text = begin + unit.repeat(1e6 / unit.length);
            markdown(box, text);
            out.push([unit, box.querySelectorAll('*').length, box.textContent.length, deepest(box)]);
          }
          markdown(box, 'a'.repeat(1e6));
          box.querySelector('.more').click();
          return [out, box.textContent === 'a'.repeat(1e6)];
        }""",
        shapes,
    )
    assert shown[1]
    for unit, n_elements, n_characters, depth in shown[0]:
        assert n_elements < 2500 and n_characters < 40_000 and depth < 40, unit


def test_hostile_pieces_in_any_order(reader: Reader) -> None:
    """Pieces of the above joined at random, streamed: still nothing beyond the list."""
    found: list[Any] = reader.evaluate(
        """async ([pieces, allowed]) => {
          const { Markdown } = await import('/page/markdown.js');
          let x = 3;
          const random = (n) => Math.floor(n * ((x = (x * 1103515245 + 12345) % 2147483648) / 2147483648));
          const bad = [];
          for (let k = 0; k < 500; k++) {
            const box = document.createElement('div');
            document.getElementById('scroll').append(box);
            const stream = new Markdown(box);
            let text = '';
            for (let n = 0; n < 6; n++) {
              const piece = pieces[random(pieces.length)];
              const cut = random(2) ? piece : piece.slice(random(piece.length));
              const part = ['', '> ', '- ', '`', '**', '[', '\\n'][random(7)] + cut + ['', '\\n', '](', '```'][random(4)];
              stream.append(part);
              text += part;
            }
            for (const e of box.querySelectorAll('*')) {
              const names = [...e.attributes].map((a) => a.name);
              const level = /^h[3-6]$/.test(e.localName) ? 'h3' : e.localName;
              if (!allowed[level] || names.some((n) => !allowed[level].includes(n)) || (e.localName === 'a' && !/^(https?:|mailto:)/.test(e.href))) bad.push([text, e.localName, names]);
            }
            box.remove();
          }
          return [bad.slice(0, 3), window.ran ?? null];
        }""",
        [HOSTILE + DOCS + list(FORMULAS)[:-3], {k: sorted(v) for k, v in ALLOWED.items()}],
    )
    assert found == [[], None]


def test_code_has_colours_and_loses_nothing(reader: Reader) -> None:
    """The pieces are what was written, also of what begins and never ends."""
    cases = {
        ("python", 'def f(x):  # hi\n    return f"a{x}" + """d\nm""" + 0x1F'): ["def", "f", "# hi", "return", 'f"a{x}"', '"""d\nm"""', "0x1F"],
        ("js", "let a = `x\n${b}`; // c\n/* y */ f(1.5e3)"): ["let", "`x\n${b}`", "// c", "/* y */", "f", "1.5e3"],
        ("sql", "SELECT 'it''s' -- x"): ["SELECT", "'it''s'", "-- x"],
        ("html", '<a href="x">"b"</a><!-- c -->'): ["<a", "href", '"x"', ">", "</a", ">", "<!-- c -->"],
        ("bash", "echo $# # c"): ["echo", "# c"],
        ("rust", "fn f<'a>(x: &'a str) { 'c' }"): ["fn", "str", "'c'"],
        ("diff", "+a\n-b\n c"): ["+a\n", "-b\n"],
        ("constructor", "if x"): [],
    }  # fmt: skip
    languages = [
        "python",
        "js",
        "c",
        "rust",
        "sql",
        "html",
        "bash",
        "json",
        "yaml",
        "java",
        "css",
        "lua",
        "go",
        "diff",
    ]
    units = [
        "/*",
        '"""',
        '"',
        "\\",
        "'",
        "#",
        "`",
        "<!--",
        'a"',
        "0",
        "a(",
        "$",
        'r#"',
        "-",
        "<a ",
        "a=",
        "@",
        "\n+",
        "\u202e",
    ]
    got, lost = reader.evaluate(
        """async ([cases, languages, units]) => {
          const { colour } = await import('/page/colour.js');
          const whole = (pieces) => pieces.map((p) => p[1]).join('');
          const got = cases.map(([name, text]) => colour(text, name).filter(([kind]) => kind).map((p) => p[1]));
          const texts = units.map((unit) => unit.repeat(12000 / unit.length));
          const all = [...cases, ...languages.flatMap((name) => texts.map((text) => [name, text]))];
          return [got, all.filter(([name, text]) => whole(colour(text, name)) !== text)];
        }""",
        [list(cases), languages, units],
    )
    assert dict(zip(cases, got, strict=True)) == cases
    assert lost == []
