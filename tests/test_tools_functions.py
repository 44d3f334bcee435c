"""Functions as tools: schemas read off signatures, arguments checked, every kind of function run, in time and side by side."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Required, TypedDict

import pytest
from pydantic import BaseModel, Field

from motet.errors import UsageError
from motet.harmony import typescript
from motet.tools import Answer, FunctionTool, ToolError, base, cancelled, progress
from motet.tools.runner import Call, run_calls


class Unit(Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclass
class Point:
    x: float
    y: float = 0.0


class Options(TypedDict, total=False):
    deep: bool


class Box(BaseModel):
    size: int = Field(gt=0)


def everything(
    place: str,
    unit: Unit = Unit.C,
    mode: Literal["fast", "slow"] = "fast",
    at: Point | None = None,
    tags: list[str] | None = None,
    options: Options = {},  # noqa: B006
    n: Annotated[int, Field(ge=1)] = 1,
    odd: threading.Lock | None = None,
    schema: int = 0,
    **others: Any,
) -> Any:
    """Looks.

    Closely, too.

    Args:
        place: Where to look,
            a town.
        n (int): How often.

    Returns:
        What is there.
    """
    return {"place": place, "unit": unit, "at": at, "tags": tags, "options": options, "schema": schema}


def call(function: Any, content: str) -> str:
    answer = FunctionTool(function).call("functions.f", content)
    return answer.text if isinstance(answer, Answer) else answer


def test_a_signature_becomes_what_the_model_reads() -> None:
    function = FunctionTool(everything).namespace.functions[0]
    assert function.description == "Looks.\n\nClosely, too."
    text = typescript(function.parameters)
    for line in (
        "// Where to look, a town.\nplace: string,",
        'unit?: "celsius" | "fahrenheit", // default: celsius',
        'mode?: "fast" | "slow", // default: fast',
        "tags?: string[] | null,",
        "// How often.\nn?: number, // default: 1",
        "odd?: any",
        "schema?: number, // default: 0",
    ):
        assert line in text, text
    assert "title" not in text and "others" not in text
    assert FunctionTool(lambda: 1, name="f").namespace.functions[0].parameters is None


def test_arguments_arrive_as_what_the_signature_says() -> None:
    said = call(
        everything, '{"place": "a", "unit": "fahrenheit", "at": {"x": 1}, "tags": ["b"], "schema": 3}'
    )
    assert (
        said
        == '{"place":"a","unit":"fahrenheit","at":{"x":1.0,"y":0.0},"tags":["b"],"options":{},"schema":3}'
    )

    def kinds(at: Point, unit: Unit) -> str:
        return f"{type(at).__name__} {type(unit).__name__}"

    assert call(kinds, '{"at": {"x": 1}, "unit": "celsius"}') == "Point Unit"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "The arguments are not JSON: Expecting property name"),
        ("[1]", "must be a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"place": ' + "9" * 5000 + "}", "a number too long"),
        ("{}", "Wrong arguments for everything: place: Field required."),
        ('{"place": "a", "plaice": 1}', "plaice: Extra inputs are not permitted."),
        (
            '{"place": "a", "unit": "kelvin"}',
            "unit: Input should be 'celsius' or 'fahrenheit' (got 'kelvin')",
        ),
        ('{"place": "a", "n": 0}', "n: Input should be greater than or equal to 1 (got 0)"),
        ('{"place": "a", "at": {"y": 1}}', "at.x: Field required"),
        ('{"place": "a", "tags": [1]}', "tags.0: Input should be a valid string (got 1)"),
    ],
)
def test_wrong_arguments_are_named(content: str, said: str) -> None:
    with pytest.raises(ToolError) as e:
        call(everything, content)
    assert said in str(e.value)
    assert len(str(e.value)) < 500


def test_every_kind_of_function() -> None:
    async def later(a: int) -> int:
        await asyncio.sleep(0)
        return a + 1

    def steps(a: int) -> Iterator[str]:
        yield "one "
        yield "two"

    def returns(a: int) -> Any:
        yield "one"
        return {"a": a}

    async def stream(a: int) -> AsyncIterator[str]:
        yield "x"
        yield "y"

    def box(box: Box) -> Box:
        return box

    expected = {later: "2", steps: "one two", returns: '{"a":1}', stream: "xy"}
    assert {f: call(f, '{"a": 1}') for f in expected} == expected
    assert call(box, '{"box": {"size": 2}}') == '{"size":2}'
    assert FunctionTool(lambda: object, name="kind").call("functions.kind", "").startswith('"<class')


def results(*tools: Any, content: str = "{}", **options: Any) -> dict[int, Answer]:
    calls = [Call(t, "functions.f", content) for t in tools]
    return {n: a for n, a in run_calls(calls, **options) if isinstance(a, Answer)}


def test_independent_calls_run_side_by_side_and_others_in_order() -> None:
    meeting = threading.Barrier(3)

    def meet() -> str:
        meeting.wait(5)
        return "met"

    assert [a.text for a in results(*[FunctionTool(meet)] * 3).values()] == ["met"] * 3

    class Alone:
        namespace = FunctionTool(meet).namespace
        inside = 0
        order: list[str] = []  # noqa: RUF012

        def call(self, recipient: str, content: str) -> str:
            self.inside += 1
            assert self.inside == 1
            time.sleep(0.02)
            self.inside -= 1
            self.order.append(content)
            return content

    tool = Alone()
    calls = [Call(tool, "alone", str(n)) for n in range(4)]
    assert {n: a.text for n, a in run_calls(calls) if isinstance(a, Answer)} == {n: str(n) for n in range(4)}
    assert tool.order == ["0", "1", "2", "3"]


def test_time_runs_out_for_those_that_hear_and_those_that_do_not() -> None:
    hang = threading.Event()

    def deaf() -> str:
        hang.wait(30)
        return "never"

    async def asleep() -> str:
        await asyncio.sleep(30)
        return "never"

    def polite() -> str:
        while not cancelled():
            time.sleep(0.01)
        return "stopped early"

    began = time.monotonic()
    tools = [FunctionTool(f, timeout_s=0.2) for f in (deaf, asleep, polite)]
    out = results(*tools)
    hang.set()
    assert time.monotonic() - began < 5
    assert out[0] == Answer("Error: the call timed out after 0.2 seconds.", (), True)
    assert out[1] == Answer("Error: The call timed out.", (), True)
    assert out[2].text == "stopped early"


def test_closing_cancels() -> None:
    heard = threading.Event()

    def works() -> str:
        progress("started")
        while not cancelled():
            time.sleep(0.01)
        heard.set()
        return ""

    work = run_calls([Call(FunctionTool(works), "f", "")])
    assert next(work) == (0, "started")
    work.close()  # type: ignore[attr-defined]
    assert heard.is_set()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no"), "Error: ValueError: no"),
        (SystemExit(3), "Error: SystemExit: 3"),
        (ToolError("bad"), "Error: bad"),
    ],
)
def test_whatever_is_raised_is_an_answer(error: BaseException, said: str) -> None:
    def fails() -> str:
        raise error

    assert results(FunctionTool(fails))[0] == Answer(said, (), True)


def test_a_tool_called_by_hand_has_no_deadline() -> None:
    assert base.seconds_left() == float("inf")
    assert not cancelled()
    progress("into the void")


class Place(TypedDict, total=False):
    name: Required[str]
    height: int


def test_unusual_signatures() -> None:
    """Parameters by position only, partial functions, TypedDicts, defaults that are no JSON, names no model can call."""
    nothing = object()

    def pair(a: int, /, b: int = 2, c: Any = nothing) -> list[int]:
        return [a, b, int(c is nothing)]

    def places(given: list[Place] | None = None) -> int:
        return len(given or [])

    run = lambda f, content, **options: results(FunctionTool(f, **options), content=content)[0].text  # noqa: E731
    assert run(pair, '{"b": 3, "a": 1}') == "[1,3,1]"
    assert "a: Field required" in run(pair, "{}")
    assert run(functools.partial(pair, 1), "{}", name="part") == "[1,2,1]"
    assert run(places, '{"given": [{"name": "x"}, {"name": "y", "height": 3}]}') == "2"
    assert "given.0.name: Field required" in run(places, '{"given": [{}]}')
    for nameless in (lambda: 1, functools.partial(pair, 1)):
        with pytest.raises(UsageError, match=r"no name a model can call; give FunctionTool.*name="):
            FunctionTool(nameless)
    with pytest.raises(UsageError, match=r"parameters of max cannot be read; give .*parameters="):
        FunctionTool(max)


def test_a_schema_of_ones_own_judges_the_arguments() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = FunctionTool(lambda **given: given, name="f", parameters=schema)
    assert results(tool, content='{"city": "Oslo"}')[0].text == '{"city":"Oslo"}'
    assert (
        results(tool, content='{"city": 5}')[0].text
        == "Error: Wrong arguments for f: city: 5 is not of type 'string'."
    )
    far = {"type": "object", "properties": {"city": {"$ref": "http://127.0.0.1:1/schema"}}}
    assert (
        results(FunctionTool(lambda city: city, name="f", parameters=far), content='{"city": 5}')[0].text
        == "5"
    )


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError


def test_whatever_a_tool_does_there_is_an_answer_that_is_text() -> None:
    def fails() -> None:
        raise Speechless

    def halves() -> Iterator[str]:
        yield "a\ud800"

    class Odd:
        namespace = FunctionTool(fails).namespace
        timeout_s = 0.2

        def call(self, recipient: str, content: str) -> Any:
            time.sleep(0.5)
            return Answer(5)  # type: ignore[arg-type]

        def cancel(self) -> None:
            raise RuntimeError

    assert results(FunctionTool(fails))[0] == Answer("Error: Speechless", (), True)
    assert results(FunctionTool(halves))[0] == Answer("a?")
    assert results(Odd())[0].text == "Error: the tool answered with int, not with text."
