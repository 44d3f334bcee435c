"""Tools as training and measurement run them: exact, instant and harmless. At run time the real tools (motet.tools) answer.

Python runs in the tasks' own interpreter; the teacher's other calls get the answer the teacher got, any other call an error.
"""

from __future__ import annotations

from motet.harmony import Message
from motet.tasks.base import Example, lesson
from motet.tasks.evaluator import Evaluator
from motet.tasks.tools import answered, calls
from motet.tools.python import SILENT


class Desk:
    """The tools of one conversation, for one reply to it. Python keeps its names between calls and from earlier turns."""

    def __init__(self, example: Example) -> None:
        self._declared = lesson(example).prompt.recipients()
        self._known: dict[str, str] = {}
        for call, result in zip(example.turn, example.turn[1:], strict=False):
            if (call.role, result.role) == ("assistant", "tool"):
                self._known.setdefault(_name(call), result.text)
        self._python = Evaluator()
        for code in example.facts.get("before", ()):
            self._python.run(code)

    def answer(self, call: Message) -> Message | None:
        """What the tool that `call` names says, or None where the conversation declares no such tool."""
        if call.recipient is None or call.recipient not in self._declared:
            return None
        if call.recipient == "python":
            return answered(call, self._python.run(call.text) or SILENT)
        return answered(call, self._known.get(_name(call), "Error: nothing was found."))


def _name(call: Message) -> str:
    """A call, whatever the order and spelling of its arguments."""
    ((recipient, arguments),) = calls([call])
    return f"{recipient} {sorted(arguments.items()) if isinstance(arguments, dict) else arguments!r}"
