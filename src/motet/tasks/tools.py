"""Teachers for tools: raw code to python, the browser over the made-up world. Results are real: what the tool itself says.

Low effort calls without a word, medium says why, high also looks at what came back. Without the tool, or when told so, the work is
done by hand.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from motet.harmony import BROWSER, PYTHON, Message
from motet.tasks.base import Effort, Example, Scene, Split, last_integer
from motet.tasks.evaluator import Evaluator
from motet.tasks.family import Family
from motet.tasks.snippets import CODE, large
from motet.tasks.talk import Talk, apart, either, scene_example, thought
from motet.tasks.world import BY_NAME, Knowledge, document, noun, passes, said, world
from motet.tools.browser import BrowserTool
from motet.tools.browser.page import Page
from motet.tools.browser.tool import Hit
from motet.tools.python import SILENT

_KNOWN: dict[str, Family[Any]] = {family.name: family for family, _ in CODE}


def call_python(code: str) -> Message:
    """A cell, as models send it: raw code, no JSON."""
    return Message("assistant", code, "analysis", "python", "code")


def call_browser(function: str, **arguments: object) -> Message:
    """search, open or find."""
    return Message("assistant", json.dumps(arguments), "analysis", f"browser.{function}", "code")


def answered(call: Message, text: str) -> Message:
    """What a tool says to a call."""
    return Message("tool", text, call.channel, "assistant", name=call.recipient)


def thinking(text: str) -> tuple[Message, ...]:
    """A message on analysis, or none where there is nothing to say."""
    return (Message("assistant", text, "analysis"),) if text else ()


def calls(turn: Sequence[Message]) -> list[tuple[str, Any]]:
    """The calls of a turn: recipient, and the arguments as a value (code, or text that is no JSON, as it is)."""
    out: list[tuple[str, Any]] = []
    for m in turn:
        if m.role == "assistant" and m.recipient is not None:
            try:
                out.append((m.recipient, m.text if m.recipient == "python" else json.loads(m.text)))
            except (ValueError, RecursionError):
                out.append((m.recipient, m.text))
    return out


def called_right(example: Example, turn: Sequence[Message]) -> bool:
    """Whether a turn makes the teacher's calls and no other; code is judged by what it prints, not by how it is written."""
    wanted, made = example.facts.get("calls", calls(example.turn)), calls(turn)
    if [r for r, _ in wanted] != [r for r, _ in made]:
        return False
    if any(r == "python" for r, _ in wanted):
        return _prints(example, wanted) == _prints(example, made)
    return bool(wanted == made)


def _prints(example: Example, made: list[tuple[str, Any]]) -> list[str]:
    session = Evaluator()
    for code in example.facts.get("before", ()):
        session.run(code)
    return [session.run(c) for r, c in made if r == "python"]


class Python(Talk):
    """Questions of the families and larger ones, with python declared: code, its output, the answer."""

    name = "python"
    _PLEA: ClassVar = (
        "Use python: {q}",
        "With python: {q}",
        "{q} Use python.",
        "{q} You may use python.",
        "Compute with the python tool. {q}",
    )
    _HELD: ClassVar = ("Run some code to answer this. {q}", "{q} (Let the interpreter do it.)")
    _HAND: ClassVar = (
        "Without python: {q}",
        "{q} Do not use python.",
        "Without any tool, please. {q}",
        "By hand: {q}",
    )
    _KEEP: ClassVar = (
        "In python, keep {v} as a list named {n}.",
        "Store {v} in a python list called {n}.",
        "Put {v} into the list {n}, in python.",
    )
    _LATER: ClassVar = {
        "sum({n})": "the sum of {n}", "max({n})": "the largest of {n}", "len({n})": "the length of {n}", "sorted({n})": "{n} in order",
        "math.prod({n})": "the product of {n}", "sum({n}) - min({n})": "the sum of {n} without the smallest",
    }  # fmt: skip

    def make(self, rng: random.Random, effort: Effort, split: Split, unseen: bool) -> Example:
        """Family questions 5 : large ones 3 : a session with names 1 : by hand 1.5."""
        kind = rng.choices(("family", "large", "session", "hand"), (5, 3, 1, 1.5))[0]
        if kind == "session":
            return self._session(rng, effort)
        if kind == "large":
            question, code = large(rng)
            answer = Evaluator().run(code)
            return self._computed(rng, effort, unseen, question, code, answer, answer, f"large {question}")
        family, coded = rng.choice(CODE)
        inner_rng = apart(rng)
        state = inner_rng.getstate()
        x, key, level = family.instance(inner_rng, split)
        inner_rng.setstate(state)
        inner = family.example(inner_rng, effort, split)
        if kind == "hand":
            prompt = rng.choice(self._HAND).format(q=inner.prompt)
            facts = {"calls": [], "inner": inner}
            return scene_example(
                f"hand {key}",
                prompt,
                inner.analysis_text,
                inner.final,
                Scene(builtin=(PYTHON,)),
                effort,
                facts,
            )
        assert inner.key == key and inner.level == level
        return self._computed(
            rng, effort, unseen, inner.prompt, coded(x), inner.final, inner.answer, key, inner
        )

    def _computed(
        self, rng: random.Random, effort: Effort, unseen: bool, question: str, code: str, final: str, answer: str, key: str,
        inner: Example | None = None,
    ) -> Example:  # fmt: skip
        plea = rng.random()
        prompt = either(rng, unseen, self._PLEA, self._HELD).format(q=question) if plea < 0.4 else question
        call = call_python(code)
        shown = Evaluator().run(code) or SILENT
        after = thought(effort, "", "", f"Python says {shown}. That answers the question.")
        turn = (
            *thinking(self._why(effort)),
            call,
            answered(call, shown),
            *thinking(after),
            Message("assistant", final, "final"),
        )
        return scene_example(
            key, prompt, "", final, Scene(builtin=(PYTHON,)), effort, {"inner": inner, "answer": answer}, turn
        )

    @staticmethod
    def _why(effort: Effort) -> str:
        return thought(
            effort,
            "",
            "I compute this with python.",
            "Python is there and can compute this. I write the code and read what it prints.",
        )

    def _session(self, rng: random.Random, effort: Effort) -> Example:
        """Two turns over one list: kept in the first, used in the second; or the first turn alone."""
        values = [rng.randrange(2, 30) for _ in range(rng.randrange(3, 7))]
        name = rng.choice(("ys", "values", "a", "nums", "data", "zs", "list1"))
        ask = rng.choice(self._KEEP).format(v=", ".join(map(str, values)), n=name)
        store = f"{name} = {values}"
        done = f"The list {name} is kept."
        if rng.random() < 0.3:
            call = call_python(store)
            after = thought(effort, "", "", f"The list {name} is in the session.")
            turn = (
                *thinking(self._why(effort)),
                call,
                answered(call, SILENT),
                *thinking(after),
                Message("assistant", done, "final"),
            )
            facts: dict[str, Any] = {"answer": done, "inner": None}
            return scene_example(
                f"keep {name} {values}", ask, "", done, Scene(builtin=(PYTHON,)), effort, facts, turn
            )
        expression, what = rng.choice(tuple(self._LATER.items()))
        code = f"{'import math' + chr(10) if 'math' in expression else ''}print({expression.format(n=name)})"
        session = Evaluator()
        session.run(store)
        shown = session.run(code)
        prompt = rng.choice(
            ("Now {w}?", "What is {w}?", "In the same session, compute {w}.", "And {w}?")
        ).format(w=what.format(n=name))
        why = thought(
            effort,
            "",
            f"{name} is in the session.",
            f"{name} is still in the session. I compute with it and do not write it again.",
        )
        after = thought(effort, "", "", f"Python says {shown}. That answers the question.")
        call = call_python(code)
        turn = (
            *thinking(why),
            call,
            answered(call, shown),
            *thinking(after),
            Message("assistant", shown, "final"),
        )
        scene = Scene(builtin=(PYTHON,), history=(Message("user", ask), Message("assistant", done, "final")))
        facts = {"answer": shown, "inner": None, "before": (store,)}
        return scene_example(
            f"session {name} {values} {expression}", prompt, "", shown, scene, effort, facts, turn
        )

    def grade(self, example: Example, final: str) -> bool:
        """As the family grades; else the answer's numbers stand at the end."""
        inner = example.facts["inner"]
        if inner is not None:
            return _KNOWN[inner.task].grade(inner, final)
        answer = example.facts["answer"]
        wanted = re.findall(r"-?\d+", answer)
        return re.findall(r"-?\d+", final)[-len(wanted) :] == wanted if wanted else final.strip() == answer


class _Shelf:
    """Pages held in memory, for the browser tool: every page whose title a query names, then some others."""

    def __init__(self, pages: dict[str, str]) -> None:
        self._pages = pages

    def search(self, query: str, topn: int) -> list[Hit]:
        """Titles in the query first."""
        words = set(re.findall(r"\w+", query.casefold()))
        order = sorted(self._pages, key=lambda t: t.casefold() not in words)
        return [Hit(t, f"world://{t}", self._pages[t].split(". ")[0] + ".") for t in order[:topn]]

    def fetch(self, url: str, source: bool) -> Page:
        """The page with that title."""
        title = url.removeprefix("world://")
        if title not in self._pages:
            raise ValueError("no such page")
        return Page(url, title, "\n".join(self._pages[title].split(". ")))


class Browsing(Talk):
    """A fact that is not in the world the model read, found by search and open, and cited by its line."""

    name = "browsing"
    _PLEA: ClassVar = (
        "{q} Look it up.",
        "Search for it: {q}",
        "{q} Cite the page.",
        "From the documents: {q}",
        "Use the browser. {q}",
    )
    _HELD: ClassVar = ("{q} Somewhere in the pages stands the answer.", "Consult the archive: {q}")

    def make(self, rng: random.Random, effort: Effort, split: Split, unseen: bool) -> Example:
        """One being and one of its relations; what its page says is drawn anew, so that only the page knows."""
        w = world()
        relation = rng.choice([r for r in BY_NAME.values() if r.of in ("person", "town", "work")])
        subject = rng.choice(w.beings[relation.of])
        options = w.answers(relation.name)
        value = rng.choice([o for o in options if o != subject]) if options else str(rng.randrange(100, 1000))
        lines = [said(rng, f) for f in w.about(subject) if f.relation != relation.name]
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(relation.says[:3]).format(x=subject, y=value))
        others = rng.sample([b for b in w.beings[relation.of] if b != subject], 2)
        pages = {subject: " ".join(lines), **{o: document(apart(rng), (relation.of,)) for o in others}}
        question = rng.choice(relation.asks).format(x=subject)
        prompt = either(rng, unseen, self._PLEA, self._HELD).format(q=question)
        browser = BrowserTool(_Shelf(pages))
        search = call_browser("search", query=noun((subject, (relation.name,))))
        found = browser.call("browser.search", search.text).text
        opened = call_browser("open", id=0)
        page = browser.call("browser.open", opened.text).text
        line = next(
            m[1]
            for m in re.finditer(r"^L(\d+): (.*)$", page, re.MULTILINE)
            if value in m[2] and subject in m[2]
        )
        final = f"{value[0].upper()}{value[1:]}【1†L{line}】."
        first = thought(
            effort,
            "",
            "I search for it.",
            f"The pages may say {noun((subject, (relation.name,)))}. I search.",
        )
        second = thought(effort, "", "", f"The first result is {subject}. I open it.")
        last = thought(
            effort,
            f"L{line}.",
            f"Line {line} says {value}.",
            f"Line {line} is about {relation.name}: {value}. I answer and cite it.",
        )
        turn = (*thinking(first), search, answered(search, found), *thinking(second), opened, answered(opened, page), *thinking(last),
                Message("assistant", final, "final"))  # fmt: skip
        facts = {"answer": value, "line": line}
        return scene_example(
            f"{subject} {relation.name} {value}",
            prompt,
            "",
            final,
            Scene(builtin=(BROWSER,)),
            effort,
            facts,
            turn,
        )

    def grade(self, example: Example, final: str) -> bool:
        """The answer, and a citation of the line that says it."""
        value = str(example.facts["answer"])
        body = re.sub(r"【[^】]*】", "", final)
        right = last_integer(body) == int(value) if value.isdigit() else value.casefold() in body.casefold()
        return right and f"【1†L{example.facts['line']}】" in final


__all__ = [
    "Browsing",
    "Knowledge",
    "Python",
    "answered",
    "call_browser",
    "call_python",
    "called_right",
    "calls",
    "passes",
    "thinking",
]
