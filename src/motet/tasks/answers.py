"""How answers are read out of final messages: exact values, tolerant of a sentence around them. Knows no tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from motet.tasks.base import last_integer

_PLAIN = re.compile(r"(?:(?<!\d)-)?\d+")


def integers(text: str) -> list[int]:
    """The integers of the last line that has any; a minus after a digit is an operator."""
    for line in reversed(text.replace("\u2212", "-").splitlines()):
        if found := _PLAIN.findall(line):
            return [int(n) for n in found]
    return []


def last_of(text: str, options: Iterable[str]) -> str | None:
    """The option that the text names last, as a whole word, whatever its case; None if it names none."""
    best, where = None, -1
    for option in options:
        for m in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", text, re.IGNORECASE):
            if m.end() > where or (m.end() == where and best is not None and len(option) > len(best)):
                best, where = option, m.end()
    return best


def letters(text: str) -> str:
    """The letters that the last line with any spells one by one (`b o z`, `b, o, z`), or its last word."""
    for line in reversed(text.strip().splitlines()):
        words = re.findall(r"[^\W\d_]+", line)
        if not words:
            continue
        tail: list[str] = []
        while words and len(words[-1]) == 1:
            tail.append(words.pop())
        return "".join(reversed(tail)).lower() if tail else words[-1].lower()
    return ""


def clock(text: str) -> tuple[int, int] | None:
    """The last time of day as (hour, minute)."""
    found = re.findall(r"(?<![\d:])(\d{1,2}):(\d{2})(?![\d:])", text)
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def value(text: str) -> Any:
    """The last JSON object in a text, or None."""
    decoder, text = (
        json.JSONDecoder(),
        text[-4000:],
    )  # an answer; a longer text of braces would take long to refuse
    found = None
    at = text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)
    return found


__all__ = ["clock", "integers", "last_integer", "last_of", "letters", "value"]
