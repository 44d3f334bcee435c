"""Replies for leak tests: token sequences, well-formed and broken, in which every word says where it came from.

A case's words are single tokens, each used once, so that one leaked token is seen. What may be seen is decided by `classes`, a
reading of the ids that shares no code with the parser: a word is for people only if the control tokens before it say so exactly.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

VISIBLE = frozenset(("final", "commentary", "plain"))
_MARK = {
    "start": "S",
    "end": "E",
    "return": "E",
    "call": "E",
    "message": "M",
    "channel": "C",
    "constrain": "T",
}


@dataclass(frozen=True)
class Case:
    """A reply. `kind`: how it was broken, "whole" for not at all. `twin`: the same with other words where nobody may look.

    broken: after how many tokens the engine fails, None for never.
    """

    kind: str
    ids: tuple[int, ...]
    twin: tuple[int, ...]
    public: frozenset[str]
    private: frozenset[str]
    calls: frozenset[str]
    inner: frozenset[
        str
    ]  # of the private ones, those in calls of built-in tools: for who may see the thinking, they are calls
    broken: int | None = None
    final: str | None = None  # what must be shown, of a whole case


@cache
def _pool(encoding: Encoding) -> tuple[int, ...]:
    """Ids of words of seven letters with a space before them: none is part of another, and none stands in this program's own text."""
    sources = Path(__file__).parents[1].rglob("*.py")
    own = {w for p in sources for w in re.findall("(?=([a-z]{7}))", p.read_text("utf-8"))}
    found = list[int]()
    for i in range(encoding.n_vocab):
        try:
            text = encoding.token_bytes(i)
        except Exception:  # a gap or a control token
            continue
        if (
            re.fullmatch(rb" [a-z]{7}", text)
            and text[1:].decode() not in own
            and encoding.encode(text.decode()) == [i]
        ):
            found.append(i)
    return tuple(found)


class Cases:
    """Draws cases from a seed."""

    def __init__(self, encoding: Encoding, seed: int = 0) -> None:
        self._rng, self._e, self._words = random.Random(f"leaks {seed}"), encoding, _pool(encoding)
        self._special = {n: encoding.special(f"<|{n}|>") for n in _MARK}

    def draw(self, breaks: Sequence[str] = ()) -> Case:
        """One case; `breaks` limits how it may be broken."""
        rng = self._rng
        left = rng.sample(self._words, 160)
        ids, final = self._whole(left)
        kind = rng.choice(list(breaks or BREAKS))
        ids = BREAKS[kind](ids, rng, self._special)
        ids = ids[: self._ended(ids)]
        seen = classes(ids, self._e)
        word = {"call": "calls", "inner": "inner"} | dict.fromkeys(VISIBLE, "public")
        by: dict[str, set[str]] = {g: set() for g in ("public", "calls", "inner", "private")}
        twin = list(ids)
        for n, (i, c) in enumerate(zip(ids, seen, strict=True)):
            if i not in self._set:
                continue
            group = word.get(c, "private")
            by[group].add(self._e.decode([i]).strip())
            if group in ("private", "inner"):
                twin[n] = left.pop()
                by[group].add(self._e.decode([twin[n]]).strip())
        by["private"] = (by["private"] | by["inner"]) - by["public"] - by["calls"]
        broken = rng.randrange(1, len(ids) + 1) if rng.random() < 0.05 else None
        return Case(
            kind, tuple(ids), tuple(twin), frozenset(by["public"]), frozenset(by["private"]), frozenset(by["calls"]),
            frozenset(by["inner"]), broken, final if kind == "whole" and broken is None else None,
        )  # fmt: skip

    @property
    def _set(self) -> frozenset[int]:
        return _pool_set(self._e)

    def _ended(self, ids: Sequence[int]) -> int:
        """Where an engine stops: behind the first token that ends a turn."""
        stops = (self._special["return"], self._special["call"])
        return next((n for n, i in enumerate(ids, 1) if i in stops), len(ids))

    def _whole(self, left: list[int]) -> tuple[list[int], str]:
        rng, out, final = self._rng, list[int](), ""
        parts = [
            rng.choice(("analysis", "analysis", "commentary", "final?")) for _ in range(rng.randrange(1, 4))
        ]
        parts += [rng.choice(("final", "final", "final", "call", "python"))]
        for n, part in enumerate(parts):
            body = [left.pop() for _ in range(rng.randrange(2, 9))]
            if part == "final?":
                part = "analysis"
            header, stop = _HEADERS[part]
            head = self._e.encode_with_special(
                ("<|start|>assistant" if n else "") + rng.choice(header) + "<|message|>"
            )
            out += [*head, *body, self._special[stop if n == len(parts) - 1 else "end"]]
            if part == "final":
                final = self._e.decode(body)
        return out, final


@cache
def _pool_set(encoding: Encoding) -> frozenset[int]:
    return frozenset(_pool(encoding))


_HEADERS = {
    "analysis": (("<|channel|>analysis",), "end"),
    "commentary": (("<|channel|>commentary",), "end"),
    "final": (("<|channel|>final", "<|channel|>final <|constrain|>json"), "return"),
    "call": (
        (
            "<|channel|>commentary to=functions.f <|constrain|>json",
            " to=functions.f<|channel|>commentary json",
        ),
        "call",
    ),
    "python": (
        ("<|channel|>analysis to=python code", "<|channel|>commentary to=browser.search code"),
        "call",
    ),
}

Break = Callable[[list[int], random.Random, dict[str, int]], list[int]]


def _at(ids: Sequence[int], rng: random.Random, wanted: Sequence[int]) -> int:
    found = [n for n, i in enumerate(ids) if i in wanted]
    return rng.choice(found) if found else 0


def _without(*names: str) -> Break:
    def cut(ids: list[int], rng: random.Random, special: dict[str, int]) -> list[int]:
        at = _at(ids, rng, [special[n] for n in names])
        return ids[:at] + ids[at + 1 :]

    return cut


def _twice(ids: list[int], rng: random.Random, special: dict[str, int]) -> list[int]:
    at = _at(ids, rng, list(special.values()))
    return ids[: at + 1] + ids[at:]


def _inserted(ids: list[int], rng: random.Random, special: dict[str, int]) -> list[int]:
    at = rng.randrange(len(ids) + 1)
    return [*ids[:at], rng.choice(list(special.values())), *ids[at:]]


def _swapped(ids: list[int], rng: random.Random, special: dict[str, int]) -> list[int]:
    out = list(ids)
    for _ in range(rng.randrange(1, 4)):
        a, b = rng.randrange(len(out)), rng.randrange(len(out))
        out[a], out[b] = out[b], out[a]
    return out


def _renamed(ids: list[int], rng: random.Random, special: dict[str, int]) -> list[int]:
    """A channel that does not exist, or none: the word behind <|channel|> is doubled, dropped or another."""
    at = _at(ids, rng, [special["channel"]]) + 1
    return rng.choice(
        (ids[:at] + ids[at + 1 :], ids[: at + 1] + ids[at:], [*ids[:at], ids[at - 2], *ids[at + 1 :]])
    )


def _cut(ids: list[int], rng: random.Random, special: dict[str, int]) -> list[int]:
    return ids[: rng.randrange(1, len(ids) + 1)]


def _unmarked(ids: list[int], rng: random.Random, special: dict[str, int]) -> list[int]:
    return [i for i in ids if i not in special.values()]


def _noise(ids: list[int], rng: random.Random, special: dict[str, int]) -> list[int]:
    out = list(ids)
    for _ in range(rng.randrange(1, 5)):
        out.insert(rng.randrange(len(out) + 1), rng.randrange(201_088 + 64))
    return out


def _several(ids: list[int], rng: random.Random, special: dict[str, int]) -> list[int]:
    for _ in range(3):
        ids = rng.choice((_without(*_MARK), _twice, _inserted, _swapped, _renamed))(ids, rng, special) or ids
    return ids


BREAKS: dict[str, Break] = {
    "whole": lambda ids, rng, special: ids,
    "end skipped": _without("end"),
    "start skipped": _without("start"),
    "message skipped": _without("message"),
    "channel skipped": _without("channel"),
    "token doubled": _twice,
    "token inserted": _inserted,
    "tokens swapped": _swapped,
    "channel renamed": _renamed,
    "cut": _cut,
    "no markup": _unmarked,
    "noise": _noise,
    "several": _several,
}


def classes(ids: Sequence[int], encoding: Encoding) -> list[str]:
    """What each id is: "final", "commentary" or "plain" (a reply without any markup) may be seen by people; "call" (arguments
    of a caller's function), "inner" (of a built-in tool), "analysis" and "none" (markup, headers, what no reader understands)."""
    special = {encoding.special(f"<|{n}|>"): m for n, m in _MARK.items()}
    marks = [special.get(i, "") for i in ids]
    if (
        not any(m and m != "E" for m in marks)
        and marks.count("E") <= 1
        and (not marks or "E" not in marks[:-1])
    ):
        return ["plain" if not m else "none" for m in marks]
    out, now, header, dead = [], "none", list[str](), False
    is_open = False  # inside the content of a message
    for i, m, before in zip(ids, marks, ["", *marks], strict=False):
        if m == "S" or m == "E":
            now, header, dead, is_open = "none", [], False, False
        elif m == "M" and not (is_open and before == "M"):
            dead = dead or is_open
            now, header, is_open = "none" if dead else _channel("".join(header)), [], True
        elif m == "C" and is_open and not dead:  # a header whose <|start|> was forgotten
            now, header, is_open = "none", ["\x01"], False
        elif m == "T" and is_open:
            now, dead = "none", True
        elif m in ("C", "T"):
            header.append("\x01" if m == "C" else "\x02")
        elif not m and not is_open:
            header.append(_text(i, encoding))
        out.append(now if not m and is_open else "none")
    return out


def _text(i: int, encoding: Encoding) -> str:
    try:
        return encoding.token_bytes(i).decode("utf-8", "replace")
    except Exception:  # no text
        return "\ufffd"


def _channel(header: str) -> str:
    """The class of a header; \x01 stands for <|channel|>, \x02 for <|constrain|>."""
    to = re.search(r"to=(\S+?)(?=[\s\x01\x02<]|$)", header)
    author = re.match(r"[^\x01\x02]*", header)[0].split("to=")[0]  # type: ignore[index]
    role = re.sub(r"assistant(:[A-Za-z0-9_.-]+(?!\S))?", "", author).strip()  # an assistant may have a name
    names = set(re.findall(r"\x01\s*([^\s\x01\x02<]*)", header))
    if role or (not names and to is None):
        return "none"
    if to is not None:
        return "inner" if re.fullmatch(r"(python|browser)(\..*)?", to[1]) else "call"
    name = names.pop() if len(names) == 1 else ""
    return name if name in ("final", "commentary", "analysis") else "none"
