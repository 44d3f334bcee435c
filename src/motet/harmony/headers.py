"""Every legal header of the assistant, as tokens: tries that a constraint walks. Knows spellings; knows no state.

A header is legal in the tokens its words encode to, each word apart (as rendering writes it) or up to the next control
token (as a text of it reads). Any other cut of the same letters is not: a trained model never writes one, and a model that
were led into one would go on from a place it has never been. Each spelling is read by the parser before it is admitted, so
that what the grammar allows and what the parser understands without repair cannot come apart.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from motet.engine import Only
from motet.errors import UserError
from motet.harmony.builtin import BUILTIN
from motet.harmony.events import MessageStart
from motet.harmony.parse import CHANNELS, CONSTRAIN, StreamParser

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

_CHANNEL, _MESSAGE, _START = "<|channel|>", "<|message|>", "<|start|>"
_CONTROL = (_CHANNEL, _MESSAGE, _START, CONSTRAIN)
# What may stand between the recipient and the content: the forms gpt-oss writes, marked, glued and as a plain word.
_TYPES = (
    (), (" ", CONSTRAIN, "json"), (CONSTRAIN, "json"), (" json",), (" ", CONSTRAIN, "code"), (CONSTRAIN, "code"), (" code",),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What a message is, whatever its spelling. `plain`: only the shortest spelling."""

    channel: str
    recipient: str | None = None
    plain: bool = False


@dataclass(eq=False)
class Node:
    """A place in a header: the tokens that lead on. At the end of a header, `kind` says what it was."""

    next: dict[int, Node] = field(default_factory=dict)
    kind: Kind | None = None
    depth: int = 0  # tokens of the longest way from here to an end

    @functools.cached_property
    def mask(self) -> Only:
        """What may come next."""
        return Only(list(self.next))


def home(recipient: str) -> str:
    """The channel that calls to a recipient belong on: analysis for the built-in tools, commentary for functions."""
    return "analysis" if recipient.partition(".")[0] in BUILTIN else "commentary"


@functools.lru_cache(maxsize=256)
def trie(encoding: Encoding, kinds: frozenset[Kind], begun: bool) -> Node:
    """The headers of these kinds; `begun`: the prompt has written `<|start|>assistant` already.

    Raises UserError for a vocabulary in which one of them has no spelling that can be read.
    """
    root = Node()
    for kind in kinds:
        found = False
        for pieces in _spellings(kind):
            whole = pieces if begun else (_START, "assistant", *pieces)
            for ids in {_encode(encoding, whole), _encode(encoding, _joined(whole))}:
                if _reads_as(encoding, ids, kind, begun):
                    _add(root, ids, kind)
                    found = True
        if not found:
            raise UserError(
                f"The vocabulary '{encoding.name}' cannot spell a header for the channel {kind.channel}"
                + (f" and the tool {kind.recipient!r}" if kind.recipient else "")
                + ", so its output cannot be held to Harmony; turn the grammar off."
            )
    return root


def _spellings(kind: Kind) -> Iterator[tuple[str, ...]]:
    """The pieces of every spelling: control tokens by name, and texts."""
    channel = (_CHANNEL, kind.channel)
    if kind.recipient is None:
        # An answer may say that it is JSON; nothing else without a recipient has a type.
        typed = _TYPES[:3] if kind.channel == "final" and not kind.plain else _TYPES[:1]
        yield from ((*channel, *t, _MESSAGE) for t in typed)
        return
    to = f" to={kind.recipient}"
    for t in _TYPES:
        yield (*channel, to, *t, _MESSAGE)
        yield (to, *channel, *t, _MESSAGE)


def _joined(pieces: tuple[str, ...]) -> tuple[str, ...]:
    """Texts that stand side by side as one."""
    out: list[str] = []
    for piece in pieces:
        if out and piece not in _CONTROL and out[-1] not in _CONTROL:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def _encode(encoding: Encoding, pieces: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(i for p in pieces for i in ((encoding.special(p),) if p in _CONTROL else encoding.encode(p)))


def _reads_as(encoding: Encoding, ids: tuple[int, ...], kind: Kind, begun: bool) -> bool:
    """Whether the parser reads exactly this from it, with nothing to repair."""
    parser = StreamParser(encoding, "assistant" if begun else None)
    events = [e for i in ids for e in parser.feed(i)]
    return (
        len(events) == 1
        and isinstance(e := events[0], MessageStart)
        and (e.role, e.channel, e.recipient, e.repairs) == ("assistant", kind.channel, kind.recipient, ())
    )


def _add(node: Node, ids: tuple[int, ...], kind: Kind) -> None:
    for n, i in enumerate(ids):
        node.depth = max(node.depth, len(ids) - n)
        node = node.next.setdefault(i, Node())
    node.kind = kind


def kinds_of(channels: tuple[str, ...], recipients: frozenset[str]) -> frozenset[Kind]:
    """Messages on these channels, and calls to these recipients where they belong."""
    plain = (Kind(c) for c in CHANNELS if c in channels or c == "final")
    return frozenset((*plain, *(Kind(home(r), r) for r in recipients)))
