"""How much of one text stands in another, beyond what a third explains: thinking that is repeated in an answer. Knows words only."""

from __future__ import annotations

import re
from collections.abc import Sequence

RUN = 8  # words in one piece; shorter runs are how one talks about the same numbers
SHARE = 0.8  # of an answer of at least RUN words, in order though not in one piece
_LIMIT = 2000  # words of each text that are compared
_MARKS = re.compile(
    r"<\|(?:start|end|message|channel|constrain|return|call)\|>|assistant(?:analysis|commentary|final)|\banalysis(?=We |The |User )"
)


def words(text: str) -> list[str]:
    """Letters and digits, lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def shared_run(said: Sequence[str], thought: Sequence[str], known: Sequence[str] = ()) -> int:
    """The longest run of words that stands in `said` and in `thought` and not in `known`."""
    said, thought = said[:_LIMIT], thought[:_LIMIT]
    best, row = 0, [0] * (len(thought) + 1)
    have = f" {' '.join(known)} "
    for n, word in enumerate(said, 1):
        before = 0
        for k, other in enumerate(thought, 1):
            before, row[k] = row[k], before + 1 if word == other else 0
            if row[k] > best and f" {' '.join(said[n - row[k] : n])} " not in have:
                best = row[k]
    return best


def in_order(said: Sequence[str], thought: Sequence[str]) -> float:
    """Longest common subsequence over the words of `said` (ROUGE-L precision)."""
    said, thought = said[:_LIMIT], thought[:_LIMIT]
    row = [0] * (len(thought) + 1)
    for word in said:
        before = 0
        for k, other in enumerate(thought, 1):
            before, row[k] = row[k], before + 1 if word == other else max(row[k], row[k - 1])
    return row[-1] / len(said) if said else 0.0


def repeats(said: str, thought: str, known: str = "") -> tuple[bool, int]:
    """Whether an answer repeats the thinking, and the longest run of words it shares beyond the prompt."""
    a, b = words(said), words(thought)
    run = shared_run(a, b, words(known))
    fresh = [w for w in a if w not in set(words(known))]
    return run >= RUN or (len(fresh) >= RUN and in_order(fresh, b) >= SHARE), run


def marked(text: str) -> str | None:
    """The first trace of Harmony's own marks in a text that people read, as a parser leaves it that takes marks for words."""
    found = _MARKS.search(text)
    return found[0] if found else None
