"""Malformed completions, what we make of each and why; what the published library makes of them is asked, not written.

`python -m tests.harmony_corpus` prints docs/malformed.md; tests/test_harmony_corpus.py holds the page and the parser to it.
Completions follow `<|start|>assistant`. M01 to M28 are forms seen in the field, the rest are near them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import harmony_oracle as ho
from motet.harmony import MessageEnd, MessageStart, fold, parse
from motet.tokenizer import o200k_harmony

E = o200k_harmony()
PAGE = Path(__file__).resolve().parent.parent / "docs" / "malformed.md"


@dataclass(frozen=True)
class Case:
    """A completion and what it must become; `why` is the reason for recovering, or for not doing so."""

    text: str
    final: str = ""
    analysis: str = ""
    calls: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    why: str = ""


T = "<|channel|>analysis<|message|>t<|end|>"
F = "<|channel|>final<|message|>"
A = "<|start|>assistant"
C = "<|channel|>commentary to=functions.f"


def case(text: str, final: str = "", analysis: str = "", calls: str = "", reasons: str = "", repairs: str = "", why: str = "") -> Case:  # fmt: skip
    return Case(
        text, final, analysis, tuple(calls.split()), tuple(reasons.split()), tuple(repairs.split()), why
    )


CORPUS = {
    "M01": case(f"I must refuse<|end|>{A}{F}Sorry.<|return|>", "Sorry.", reasons="no_message_token", why="words on no channel before an answer, perhaps thinking without its header: never shown"),
    "M02": case("I'm sorry, but I can't help with that.<|return|>", reasons="no_markup", why="a policy may show it as the answer; never silence"),
    "M03": case("<|channel|>analysis We need to<|end|>", analysis="We need to", repairs="no_message_token", why="thinking is hidden either way, so nothing can leak"),
    "M03b": case("<|channel|>final We need to<|end|>", reasons="no_message_token", why="what follows a broken header is not shown"),
    "M03c": case("<|channel|>analysis We need to<|message|>x<|end|>", reasons="header_junk", why="words where only a recipient or a type may stand"),
    "M03d": case(f'{C} <|constrain|>json{{"a":1}}<|call|>', reasons="no_message_token", why="where arguments begin is a guess, and a guess is not run"),
    "M04": case("<|channel|>commentary?commentary?<|message|>x<|end|>", reasons="unknown_channel", why="only exact names are channels"),
    "M05": case("<|channel|>??<|message|>x<|end|>", reasons="unknown_channel", why="only exact names are channels"),
    "M06": case("<|channel|><|message|>x<|end|>", reasons="no_channel_name", why="nothing says where it belongs"),
    "M07": case(f"{T}<|start|>{A}{F}x<|return|>", "x", "t", repairs="doubled_start", why="the second adds nothing"),
    "M08": case(f"{T}assistant{F}x<|return|>", "x", "t", repairs="missing_start", why="author, channel and content are all there"),
    "M08b": case(f"{T}{F}x<|return|>", "x", "t", repairs="missing_start", why="only the assistant has channels to name"),
    "M08c": case(f"{T}<|start|>{F}x<|return|>", "x", "t", repairs="missing_role", why="only the assistant has channels to name"),
    "M09": case(f"{T}<|start|>assistantassistant{F}x<|return|>", "", "t", reasons="unknown_role", why="no author of that name"),
    "M10": case(f"{T}commentary to=functions.f x", "", "t", reasons="text_between_messages", why="words outside any message"),
    "M10b": case(f"{T}commentary to=functions.f<|message|>x<|call|>", "", "t", reasons="text_between_messages", why="the channel is a word, not a marker"),
    "M11": case(f"{C}<|channel|>commentary <|constrain|>json<|message|>{{}}<|call|>", calls="functions.f", repairs="doubled_channel", why="both say the same"),
    "M12": case(f"{C}<|constrain|>json<|message|>{{}}<|call|>", calls="functions.f", why="legal: the space is optional"),
    "M13": case("<|channel|>final <|constrain|>json<|message|>{}<|return|>", "{}", why="a content type is no recipient: the answer, in JSON"),
    "M14": case(f"{C} json<|message|>{{}}<|call|>", calls="functions.f", why="legal: the type as a word"),
    "M15": case("<|channel|>analysis to=functions.f code<|message|>{}<|call|>", calls="functions.f", repairs="call_on_analysis", why="whom it calls is clear"),
    "M16": case("<|channel|>final to=functions.f<|message|>{}<|call|>", calls="functions.f", repairs="call_on_final", why="whom it calls is clear; not shown as an answer"),
    "M17": case(" to=functions.f<|channel|>commentary<|message|>{}<|call|>", calls="functions.f", why="legal: the recipient first"),
    "M18": case("<|channel|>commentary to=f<|message|>{}<|call|>", calls="f", why="`resolve` finds the declared functions.f"),
    "M19": case("<|channel|>commentary to=functions.browser.search<|message|>{}<|call|>", calls="functions.browser.search", why="`resolve` finds browser.search"),
    "M20": case("<|channel|>commentary to=functions.python<|message|>1<|call|>", calls="functions.python", why="`resolve` finds python, unless the user declared one"),
    "M21": case(f'{C}<|message|>{{"a": 1', calls="functions.f", why="kept with complete=False, never run"),
    "M22": case(f"{C}<|message|>{{}}<|end|>", calls="functions.f", why="the call is whole; the turn runs it at once"),
    "M23": case(f"{F}text{A}<|channel|>analysis<|message|>secret<|end|>", "text", "secret", why="a control token ends the message: thinking stays hidden"),
    "M23b": case(f"{F}text<|channel|>analysis<|message|>secret<|end|>", "text", "secret", repairs="missing_start", why="as M23, <|start|> skipped too"),
    "M23c": case(f"{F}text<|message|>secret<|end|>", "text", reasons="message_token_in_content", why="whose words follow is unknown"),
    "M23d": case(f"{F}text<|constrain|>secret<|end|>", "text", reasons="constrain_token_in_content", why="whose words follow is unknown"),
    "M25": case(f"{F}x<|end|>trailing words", "x", reasons="text_between_messages", why="words outside any message"),
    "M26": case("<|channel|>commentary<|message|>answer<|return|>", why="a remark, visible; with no tools it is all there is"),
    "M27": case("<|channel|>commentary to=query_dataset<|channel|>commentary<|message|>{}<|call|>", calls="query_dataset", repairs="doubled_channel", why="the name ends before the control token"),
    "M28": case("<|channel|>commentary to=browser.open<|message|>{}<|call|>", calls="browser.open", why="the turn tells the model that it has no such tool"),
    "X01": case(f"{C} <|constrain|><|message|>{{}}<|call|>", calls="functions.f", repairs="empty_constrain", why="a marker without a word says nothing"),
    "X02": case(f"{C} to=functions.g<|message|>{{}}<|call|>", reasons="bad_recipient", why="two recipients: which one is a guess"),
    "X03": case(f"{C} to=functions.f<|message|>{{}}<|call|>", calls="functions.f", repairs="doubled_recipient", why="both say the same"),
    "X04": case("<|channel|>commentary to=functions.my tool<|message|>{}<|call|>", calls="functions.my", why="a word after a recipient is a type; the turn finds no functions.my"),
    "X05": case("<|channel|>commentary to=functions.f(x)<|message|>{}<|call|>", reasons="bad_recipient", why="no name of a tool"),
    "X06": case("<|channel|>commentary to=<|message|>{}<|call|>", reasons="bad_recipient", why="nobody is called"),
    "X07": case(f"{T}<|start|>user<|message|>Do it.<|end|>{A}{F}x<|return|>", "x", "t", why="read as what it claims to be; never visible, never a turn of the user"),
    "X08": case("<|start|>system<|channel|>final<|message|>x<|return|>", why="not the assistant's words, so not an answer"),
    "X09": case(f"{T}<|start|>functions.f to=assistant<|channel|>commentary<|message|>42<|end|>{A}{F}x<|return|>", "x", "t", why="an invented result: never visible, no tool ran"),
    "X10": case(f"<|channel|>final{A}{F}x<|return|>", "x", reasons="no_message_token", why="the first header never opened"),
    "X11": case(f"{A}{A}{F}x<|return|>", "x", reasons="no_message_token", why="the first header never opened"),
    "X12": case(f"{F}x<|return|>{A}{F}y<|return|>", "x\ny", why="<|return|> ends a message; what follows is read like any other"),
    "X13": case(f"{F}x<|endoftext|>y", "x", reasons="text_between_messages", why="<|endoftext|> ends a message"),
    "X14": case("<|channel|>final<|endoftext|>", reasons="no_message_token", why="the header never opened"),
    "X15": case("<|channel|>Final<|message|>x<|return|>", reasons="unknown_channel", why="only exact names are channels"),
    "X16": case("<|channel|>ﬁnal<|message|>x<|return|>", reasons="unknown_channel", why="a look-alike; only exact names are channels"),
    "X17": case("<|channel|>fin\u200bal<|message|>x<|return|>", reasons="unknown_channel", why="a look-alike; only exact names are channels"),
    "X18": case("<|channel|>final\n<|message|>x<|return|>", "x", why="white space around a name means nothing"),
    "X19": case("<|channel|>final<|reserved_200009|><|message|>x<|return|>", reasons="header_not_text", why="an id that stands for no text"),
    "X20": case(f"{F}a<|reserved_200009|>b<|return|>", "ab", reasons="not_text", why="the message goes on without the id"),
    "X21": case("<|channel|>analysis<|channel|>final<|message|>x<|return|>", reasons="two_channels", why="hidden or shown is a guess"),
    "X22": case("<|channel|>final to=functions.f<|channel|>analysis<|message|>x<|call|>", reasons="two_channels", why="which channel is a guess"),
    "X23": case("<|channel|>commentary to=functions.<|constrain|>f g<|message|>x<|call|>", reasons="header_junk", why="a control token inside a name"),
    "X24": case("<|message|>secret<|end|>", why="a message without a channel; never visible"),
    "X25": case("<|channel|>final", reasons="cut_in_header", why="the stream ended"),
    "X26": case(f"{F}<|message|>x<|return|>", "x", reasons="doubled_message", why="the second adds nothing; the channel is known"),
    "X27": case("<|channel|>analysis<|message|><|message|>secret<|end|>", analysis="secret", reasons="doubled_message", why="the second adds nothing; still thinking"),
    "X28": case(f"{F}<|return|>", why="an empty answer is an answer"),
    "X29": case(f"<|channel|>commentary<|message|>Wait.<|end|>{A}{F}x<|return|>", "x", why="legal: a remark, then the answer"),
    "X30": case(f"{C}<|message|>1<|call|>{A}<|channel|>commentary to=functions.g<|message|>2<|call|>", calls="functions.f functions.g", why="both are calls; the turn stops at the first"),
    "X31": case(f"{F}x<|call|>", "x", why="the wrong end token of a whole answer"),
    "X32": case("<|end|>", reasons="stray_stop", why="nothing was open"),
    "X33": case(f"{F}x<|end|><|end|><|return|>", "x", reasons="stray_stop stray_stop", why="nothing was open"),
    "X34": case(f"{T}<|start|>wizard{F}x<|return|>", "", "t", reasons="unknown_role", why="no author of that name"),
    "X35": case("<|channel|>commentary to=assistant<|message|>x<|end|>", calls="assistant", why="the turn finds no such tool; not visible"),
    "X36": case("<|channel|>final json to=functions.f<|message|>x<|call|>", reasons="header_junk", why="a type before a recipient"),
    "X37": case("", why="nothing was said"),
}  # fmt: skip


def ids(text: str) -> list[int]:
    """Ids of a completion; control tokens by name."""
    return E.encode_with_special(text)


def ours(text: str) -> str:
    """What we make of it, in words."""
    events = parse(ids(text), E)
    starts = [e for e in events if isinstance(e, MessageStart)]
    out = [_said(m.start, m.text) for m in fold(events).messages]
    out += [f"repair `{r}`" for s in starts for r in s.repairs]
    out += [f"quarantine `{q.reason}`" for q in fold(events).quarantined]
    out += [
        f"stop `{e.stop}`"
        for e in events
        if isinstance(e, MessageEnd) and e.stop in ("boundary", "cut", "endoftext")
    ]
    return "; ".join(out) or "nothing"


def _said(start: MessageStart, text: str) -> str:
    where = start.channel or "no channel"
    who = "" if start.role == "assistant" else f"{start.name or start.role} on "
    return f"call of {_code(start.recipient or '')}" if start.is_call else f"{who}{where}: {_code(text)}"


def library(text: str) -> str:
    """What the published library makes of it (strict), in the same words."""
    import openai_harmony as oh

    try:
        messages = ho.oracle().parse_messages_from_completion_tokens(ids(text), oh.Role.ASSISTANT)
    except Exception as e:
        return "error: " + " ".join(str(e).split(" current token")[0].split())[:70].replace("|", "\\|")
    out = []
    for m in messages:
        name = m.author.name if m.author.role == oh.Role.TOOL else None
        start = MessageStart(m.author.role.value, m.channel, m.recipient, m.content_type, name)
        out.append(_said(start, "".join(c.text for c in m.content)))
    return "; ".join(out) or "nothing"


def _code(text: str) -> str:
    shown = "".join(
        c if c.isprintable() and c != "\u200b" else c.encode("unicode_escape").decode() for c in text
    )
    return f"`{shown}`".replace("|", "\\|") if shown else "empty"


def page() -> str:
    """docs/malformed.md."""
    head = """# Malformed Harmony: what becomes of it

Each form is a completion after `<|start|>assistant`. The library is oss-harmony, strict; its column and ours are what
both really do. Recovery where the intent is clear and nothing hidden can become visible; quarantine where it would be a
guess. Nothing is dropped: quarantined ids stand in a `Quarantined` event with its reason. This page is written by
`python -m tests.harmony_corpus`, from the cases the tests hold the parser to.

| | completion | library | here | why |
| --- | --- | --- | --- | --- |
"""
    rows = [
        f"| {name} | {_code(c.text)} | {library(c.text)} | {ours(c.text)} | {c.why.replace('|', chr(92) + '|')} |"
        for name, c in CORPUS.items()
    ]
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page(), end="")
