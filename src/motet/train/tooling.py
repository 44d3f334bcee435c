"""Tools as training runs them: exact, instant and harmless. A python that computes what a calculator can, no more.

At run time the real tools (motet.tools) answer; a rollout of thousands of calls wants the same text without a process.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from motet.harmony import Message
from motet.tasks import TASKS, Example

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Div: operator.truediv, ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip


def respond(example: Example, call: Message) -> Message | None:
    """What the tool that `call` names answers in this example, or None where there is no such tool.

    The task answers its own functions, by a method `respond(example, call) -> str | None`, where it has one.
    """
    own = getattr(TASKS.get(example.task), "respond", None)
    text: str | None = own(example, call) if own is not None else None
    if text is None and call.recipient == "python" and any(n.name == "python" for n in example.scene.builtin):
        text = calculate(call.text)
    if text is None or call.recipient is None:
        return None
    return Message("tool", text, call.channel, "assistant", name=call.recipient)


def calculate(code: str) -> str:
    """The value of the last expression of `code`, or of what it prints, as python shows it; else the error's name."""
    try:
        last = ast.parse(code.strip()).body[-1]
        if not isinstance(last, ast.Expr):
            return ""
        value = last.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
            (value,) = value.args
        return str(_value(value))
    except ZeroDivisionError:
        return "ZeroDivisionError: division by zero"
    except (SyntaxError, ValueError, IndexError, RecursionError, OverflowError, MemoryError):
        return "SyntaxError: invalid syntax"


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand))
    raise ValueError(ast.dump(node))
