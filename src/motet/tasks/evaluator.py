"""A small Python: expressions, assignments, loops, functions, a few builtins, read off the syntax tree within a number of steps.

What the teacher's code prints is what this prints, so a traced result is a real one; what a model writes can be run here too,
since nothing is executed that is not named below. As in a notebook, names stay and the last expression is shown.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

STEPS = 200_000
_LARGEST = 10**60
_LONGEST = 10_000
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_UNARY: dict[type[ast.AST], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}


def _range(*ends: int) -> range:
    made = range(*ends)
    if len(made) > STEPS:
        raise Refused("the range is too long")
    return made


class Refused(Exception):
    """Code that this evaluator does not run."""


class _Back(Exception):
    """A return statement on its way out."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Loop(Exception):
    """break or continue."""


_MATH = SimpleNamespace(gcd=math.gcd, lcm=math.lcm, prod=math.prod, isqrt=math.isqrt)
_BUILTINS: dict[str, Any] = {
    f.__name__: f for f in (sum, len, sorted, min, max, abs, divmod, bin, hex, oct, int, str, list, set, tuple, round, any, all, bool, enumerate, reversed, zip, dict)
} | {"range": _range, "math": _MATH, "True": True, "False": False, "None": None}  # fmt: skip
_METHODS: dict[type, tuple[str, ...]] = {
    list: ("append", "count", "index", "reverse", "sort", "pop", "insert"), dict: ("get", "items", "keys", "values"),
    str: ("upper", "lower", "count", "replace", "split", "join", "strip", "index"), set: ("add", "union", "intersection", "difference"),
    SimpleNamespace: ("gcd", "lcm", "prod", "isqrt"),
}  # fmt: skip


class Evaluator:
    """A notebook: `run` gives what a cell shows, or the error's last line. Total: whatever the code, a text comes back."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self._out: list[str] = []
        self._left = STEPS

    def run(self, code: str) -> str:
        """What the cell prints, and the value of its last expression; or `NameError: ...`."""
        self._out, self._left = [], STEPS
        try:
            body = ast.parse(code).body
            last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
            self._block(body, self.names)
            if isinstance(last, ast.Expr) and (value := self._value(last.value, self.names)) is not None:
                self._out.append(repr(value))
        except (_Back, _Loop):
            self._out.append("SyntaxError: outside of its place")
        except (Exception, RecursionError) as e:  # code of whoever writes it
            self._out.append(f"{type(e).__name__}: {e}")
        return "\n".join(self._out)[:_LONGEST]

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Refused("too many steps")

    def _block(self, body: list[ast.stmt], names: dict[str, Any]) -> None:
        for statement in body:
            self._step()
            run = self._STATEMENTS.get(type(statement))
            if run is None:
                raise Refused(f"{type(statement).__name__} is not known here")
            run(self, statement, names)

    def _assign(self, s: Any, names: dict[str, Any]) -> None:
        value = self._value(s.value, names)
        for target in s.targets:
            self._bind(target, value, names)

    def _augment(self, s: Any, names: dict[str, Any]) -> None:
        load = ast.BinOp(_loaded(s.target), s.op, s.value)
        self._bind(s.target, self._value(load, names), names)

    def _for(self, s: Any, names: dict[str, Any]) -> None:
        for value in self._value(s.iter, names):
            self._bind(s.target, value, names)
            if self._once(s.body, names):
                return
        self._block(s.orelse, names)

    def _while(self, s: Any, names: dict[str, Any]) -> None:
        while self._value(s.test, names):
            if self._once(s.body, names):
                return
        self._block(s.orelse, names)

    def _once(self, body: list[ast.stmt], names: dict[str, Any]) -> bool:
        """One round of a loop; whether it was broken off."""
        self._step()
        try:
            self._block(body, names)
        except _Loop as e:
            return e.args[0] is ast.Break
        return False

    def _if(self, s: Any, names: dict[str, Any]) -> None:
        self._block(s.body if self._value(s.test, names) else s.orelse, names)

    def _def(self, s: Any, names: dict[str, Any]) -> None:
        parameters = [a.arg for a in s.args.args]

        def call(*given: Any) -> Any:
            if len(given) != len(parameters):
                raise TypeError(f"{s.name}() takes {len(parameters)} arguments")
            try:
                self._block(s.body, {**self.names, **dict(zip(parameters, given, strict=True))})
            except _Back as e:
                return e.value
            return None

        names[s.name] = call

    def _return(self, s: Any, names: dict[str, Any]) -> None:
        raise _Back(None if s.value is None else self._value(s.value, names))

    def _loop(self, s: Any, names: dict[str, Any]) -> None:
        raise _Loop(type(s))

    def _import(self, s: Any, names: dict[str, Any]) -> None:
        if any(a.name != "math" or a.asname for a in s.names):
            raise Refused("only math can be imported here")
        names["math"] = _MATH

    _STATEMENTS: ClassVar[dict[type[ast.AST], Callable[[Evaluator, Any, dict[str, Any]], None]]] = {
        ast.Assign: _assign, ast.AugAssign: _augment, ast.For: _for, ast.While: _while, ast.If: _if, ast.FunctionDef: _def,
        ast.Return: _return, ast.Break: _loop, ast.Continue: _loop, ast.Import: _import,
        ast.Expr: lambda self, s, names: self._value(s.value, names), ast.Pass: lambda self, s, names: None,
    }  # fmt: skip

    def _bind(self, target: ast.expr, value: Any, names: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            for t, v in zip(target.elts, value, strict=True):
                self._bind(t, v, names)
        elif isinstance(target, ast.Subscript):
            self._value(target.value, names)[self._value(target.slice, names)] = value
        else:
            raise Refused("this cannot be assigned to here")

    def _value(self, e: ast.expr, names: dict[str, Any]) -> Any:
        self._step()
        run = self._EXPRESSIONS.get(type(e))
        if run is None:
            raise Refused(f"{type(e).__name__} is not known here")
        value = run(self, e, names)
        if (isinstance(value, int) and abs(value) > _LARGEST) or (
            isinstance(value, str | list | tuple) and len(value) > _LONGEST
        ):
            raise Refused("the value is too large")
        return value

    def _name(self, e: Any, names: dict[str, Any]) -> Any:
        for known in (names, self.names, _BUILTINS):
            if e.id in known:
                return known[e.id]
        if e.id == "print":
            return self._print
        raise NameError(f"name {e.id!r} is not defined")

    def _print(self, *values: Any) -> None:
        self._out.append(" ".join(map(str, values)))

    def _binary(self, e: Any, names: dict[str, Any]) -> Any:
        a, b = self._value(e.left, names), self._value(e.right, names)
        if isinstance(e.op, ast.Pow):
            if not (isinstance(a, int) and isinstance(b, int) and 0 <= b <= 200):
                raise Refused("only whole powers up to 200 are known here")
            return a**b
        if isinstance(e.op, ast.Mult) and not all(isinstance(v, int | float) for v in (a, b)):
            raise Refused("texts and lists are not multiplied here")
        return self._operator(e.op)(a, b)

    @staticmethod
    def _operator(op: ast.AST) -> Callable[[Any, Any], Any]:
        if type(op) not in _OPERATORS:
            raise Refused(f"{type(op).__name__} is not known here")
        return _OPERATORS[type(op)]

    def _compare(self, e: Any, names: dict[str, Any]) -> bool:
        left = self._value(e.left, names)
        for op, right in zip(e.ops, e.comparators, strict=True):
            value = self._value(right, names)
            if not self._operator(op)(left, value):
                return False
            left = value
        return True

    def _both(self, e: Any, names: dict[str, Any]) -> Any:
        value: Any = None
        for part in e.values:
            value = self._value(part, names)
            if bool(value) is isinstance(e.op, ast.Or):
                return value
        return value

    def _call(self, e: Any, names: dict[str, Any]) -> Any:
        function = self._value(e.func, names)
        if any(isinstance(a, ast.Starred) for a in e.args):
            raise Refused("stars are not known here")
        return function(
            *(self._value(a, names) for a in e.args),
            **{k.arg: self._value(k.value, names) for k in e.keywords},
        )

    def _attribute(self, e: Any, names: dict[str, Any]) -> Any:
        owner = self._value(e.value, names)
        if e.attr not in _METHODS.get(type(owner), ()):
            raise Refused(f".{e.attr} is not known here")
        return getattr(owner, e.attr)

    def _subscript(self, e: Any, names: dict[str, Any]) -> Any:
        return self._value(e.value, names)[self._value(e.slice, names)]

    def _slice(self, e: Any, names: dict[str, Any]) -> slice:
        return slice(*(None if p is None else self._value(p, names) for p in (e.lower, e.upper, e.step)))

    def _comprehension(self, e: Any, names: dict[str, Any]) -> list[Any]:
        out: list[Any] = []
        inner = dict(names)

        def rounds(generators: list[ast.comprehension]) -> None:
            if not generators:
                out.append(self._value(e.elt, inner))
                return
            for value in self._value(generators[0].iter, inner):
                self._bind(generators[0].target, value, inner)
                if all(self._value(test, inner) for test in generators[0].ifs):
                    rounds(generators[1:])

        rounds(e.generators)
        return out

    def _generator(self, e: Any, names: dict[str, Any]) -> Iterator[Any]:
        """Lazy, as `any` and `all` stop early."""
        if len(e.generators) > 1:
            yield from self._comprehension(e, names)
            return
        inner, part = dict(names), e.generators[0]
        for value in self._value(part.iter, names):
            self._bind(part.target, value, inner)
            if all(self._value(test, inner) for test in part.ifs):
                yield self._value(e.elt, inner)

    def _text(self, e: Any, names: dict[str, Any]) -> str:
        parts = (
            v.value if isinstance(v, ast.Constant) else str(self._value(v.value, names)) for v in e.values
        )
        return "".join(map(str, parts))

    _EXPRESSIONS: ClassVar[dict[type[ast.AST], Callable[[Evaluator, Any, dict[str, Any]], Any]]] = {
        ast.Constant: lambda self, e, names: e.value, ast.Name: _name, ast.BinOp: _binary, ast.Compare: _compare,
        ast.BoolOp: _both, ast.Call: _call, ast.Attribute: _attribute, ast.Subscript: _subscript, ast.Slice: _slice,
        ast.ListComp: _comprehension, ast.GeneratorExp: _generator, ast.JoinedStr: _text,
        ast.SetComp: lambda self, e, names: set(self._comprehension(e, names)),
        ast.UnaryOp: lambda self, e, names: _unary(e.op)(self._value(e.operand, names)),
        ast.List: lambda self, e, names: [self._value(v, names) for v in e.elts],
        ast.Tuple: lambda self, e, names: tuple(self._value(v, names) for v in e.elts),
        ast.Set: lambda self, e, names: {self._value(v, names) for v in e.elts},
        ast.Dict: lambda self, e, names: {self._value(k, names): self._value(v, names) for k, v in zip(e.keys, e.values, strict=True)},
        ast.IfExp: lambda self, e, names: self._value(e.body if self._value(e.test, names) else e.orelse, names),
    }  # fmt: skip


def _unary(op: ast.AST) -> Callable[[Any], Any]:
    if type(op) not in _UNARY:
        raise Refused(f"{type(op).__name__} is not known here")
    return _UNARY[type(op)]


def _loaded(target: Any) -> Any:
    """The target of `+=` as an expression."""
    return ast.Name(target.id, ast.Load()) if isinstance(target, ast.Name) else target
