"""Letters: edits of a row of letters; and, for tools, how words are spelled.

Letters are spelled one by one with spaces, since the vocabulary hides them inside words.
"""

from __future__ import annotations

import random
from typing import ClassVar

from motet.tasks.answers import integers, letters
from motet.tasks.base import Effort, Example, direct
from motet.tasks.family import Family, Work
from motet.tasks.words import PLAIN

Spelling = tuple[str, str, tuple[str, ...]]  # kind, a letter or a place, words


class Letters(Family[Spelling]):
    """Count a letter in words, name the n-th letter, spell backwards. Beyond: four words."""

    name = "letters"
    levels, beyond = (1, 2, 3), 4
    weights = (1, 3, 3)
    _ASK: ClassVar = {
        "count": ("How many times does the letter {p} occur in {w}?", "Count the letter {p} in {w}.", "How many {p}s are in {w}?",
                  "How often is there a {p} in {w}?"),
        "place": ("What is letter {p} of {w}?", "Which letter stands at place {p} in {w}?", "Give letter number {p} of {w}."),
        "back": ("Spell {w} backwards.", "Write {w} backwards, letter by letter.", "Reverse the letters of {w}.", "{w} backwards"),
    }  # fmt: skip
    _UNSEEN: ClassVar = {
        "count": (
            "If I write down {w}, how many times do I need the letter {p}?",
            "Number of {p} letters in {w}?",
        ),
        "place": ("Counting from the left, which letter is at {p} in {w}?", "Letter at position {p} of {w}?"),
        "back": ("Read {w} from the right to the left.", "How does {w} look in a mirror, letter by letter?"),
    }

    def draw(self, rng: random.Random, level: int) -> Spelling:
        """`level` words; of several words letters are counted only, or they are spelled backwards as one."""
        kind = rng.choice(("count", "place", "back") if level == 1 else ("count", "count", "place", "back"))
        words = tuple(rng.sample(PLAIN, level))
        text = "".join(words)
        if kind == "back":
            return kind, "", words
        if kind == "place":
            return kind, str(rng.randrange(2, len(text) + 1)), words
        return kind, rng.choice(text if rng.random() < 0.85 else "abcdefghilmnoprstu"), words

    def key(self, x: Spelling) -> str:
        """Kind, letter, words."""
        return f"{x[0]} {x[1]} {' '.join(x[2])}"

    def ask(self, rng: random.Random, x: Spelling, unseen: bool) -> str:
        """Words between quotes or not."""
        text = " ".join(x[2])
        quoted = f'"{text}"' if rng.random() < 0.6 or len(x[2]) > 1 else f"the word {text}"
        return rng.choice((self._UNSEEN if unseen else self._ASK)[x[0]]).format(p=x[1], w=quoted)

    def work(self, rng: random.Random, x: Spelling, effort: Effort) -> Work:
        """Nothing; the words spelled; spelled with a count."""
        kind, p, words = x
        text = "".join(words)
        spelled = ", ".join(" ".join(w) for w in words)
        if kind == "back":
            final = " ".join(reversed(text))
            numbered = " ".join(f"{i}{c}" for i, c in enumerate(text, 1))
            steps = " ".join(f"{i}{text[i - 1]}" for i in range(len(text), 0, -1))
            trace = {
                "low": f"{final[0]} first.",
                "medium": f"{spelled}.",
                "high": f"{spelled}: {numbered}; {steps}.",
            }
            return Work(trace[effort], final)
        if kind == "place":
            final = text[int(p) - 1]
            numbered = " ".join(f"{i}{c}" for i, c in enumerate(text, 1))
            trace = {
                "low": direct(final),
                "medium": f"{spelled}.",
                "high": f"{spelled}: {numbered}; {p}{final}.",
            }
            return Work(trace[effort], final)
        final = str(text.count(p))
        n, marks = 0, []
        for c in text:
            n += c == p
            marks.append(f"{c}{n}" if c == p else c)
        trace = {"low": direct(final), "medium": f"{spelled}.", "high": f"{spelled}: {' '.join(marks)}; {n}."}
        return Work(trace[effort], final)

    def grade(self, example: Example, final: str) -> bool:
        """The last integer, or the letters at the end."""
        if example.answer.isdigit():
            return integers(final)[-1:] == [int(example.answer)]
        return letters(final) == example.answer.replace(" ", "")


Edit = tuple[str, str, str]
Edited = tuple[str, tuple[Edit, ...]]


class Editing(Family[Edited]):
    """Edits of a row of letters, one after another. Levels are edits; beyond: seven."""

    name = "editing"
    levels, beyond = (2, 3, 4, 5), 7
    asks = ("Take the letters {s}. {Ops}. What is left?", "Letters: {s}. {Ops}. What do you get?", "Start with {s}. {Ops}.",
            "Given {s}: {ops}. What is the result?", "Edit {s}: {ops}.", "The letters are {s}. {Ops}. Which letters remain?",
        "{s}: {ops}. Result?", "Here are the letters {s}. Please {ops}.", "Do this to {s}: {ops}.", "With {s}, {ops}. What comes out?", "Change {s}. {Ops}.")  # fmt: skip
    unseen = (
        "On a board stands {s}. Somebody does this: {ops}. What stands there now?",
        "What becomes of {s} if you {ops}?",
    )
    _WORDS: ClassVar = {
        "reverse": "reverse the order", "first": "remove the first letter", "last": "remove the last letter", "replace": "replace {a} by {b}",
        "swap": "swap the first two letters", "append": "add {a} at the end", "prepend": "add {a} at the front",
        "rotate": "move the first letter to the end", "double": "double the last letter",
    }  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> Edited:
        """Four to seven letters; never fewer than two remain."""
        while True:
            row = "".join(rng.choice("abcdefghjkmnopqrstuvwxyz") for _ in range(rng.randrange(4, 8)))
            here, edits = row, []
            for _ in range(level):
                kind = rng.choice(tuple(self._WORDS))
                a = rng.choice(here) if kind == "replace" else rng.choice("abcdefghjkmnopqrstuvwxyz")
                b = rng.choice("abcdefghjkmnopqrstuvwxyz") if kind == "replace" else ""
                edit = (kind, a if kind in ("replace", "append", "prepend") else "", b)
                edits.append(edit)
                here = edited(here, edit)
                if len(here) < 2 or a == b:
                    break
            else:
                return row, tuple(edits)

    def key(self, x: Edited) -> str:
        """The row and its edits."""
        return f"{x[0]} {' '.join(''.join(e) for e in x[1])}"

    def fields(self, rng: random.Random, x: Edited) -> dict[str, object]:
        """The letters with spaces, the edits as phrases."""
        ops = ", then ".join(self._WORDS[k].format(a=a, b=b) for k, a, b in x[1])
        return {"s": " ".join(x[0]), "ops": ops, "Ops": ops[0].upper() + ops[1:]}

    def work(self, rng: random.Random, x: Edited, effort: Effort) -> Work:
        """Nothing; the row after each edit; the same, each edit named."""
        states = [x[0]]
        for edit in x[1]:
            states.append(edited(states[-1], edit))
        final = " ".join(states[-1])
        if effort == "low":
            return Work(f"{final[0]} first.", final)
        if effort == "medium":
            return Work("; ".join(" ".join(s) for s in states[1:]) + ".", final)
        steps = []
        for (kind, a, b), before, after in zip(x[1], states[:-1], states[1:], strict=True):
            found = f"{' '.join(f'{c}>{b}' if c == a else c for c in before)}: " if kind == "replace" else ""
            steps.append(f"{' '.join(filter(None, (kind, a, b)))}: {found}{' '.join(after)}")
        return Work(f"{' '.join(x[0])}; {'; '.join(steps)}.", final)

    def grade(self, example: Example, final: str) -> bool:
        """The letters at the end."""
        return letters(final) == example.answer.replace(" ", "")


def edited(row: str, edit: Edit) -> str:
    """The row after one edit; `replace` replaces every such letter."""
    kind, a, b = edit
    return {
        "reverse": row[::-1], "first": row[1:], "last": row[:-1], "replace": row.replace(a, b) if kind == "replace" else row,
        "swap": row[1:2] + row[:1] + row[2:], "append": row + a, "prepend": a + row, "rotate": row[1:] + row[:1],
        "double": row + row[-1:],
    }[kind]  # fmt: skip
