"""Studies from the command line: each prints a table, or one JSON report, and exits 1 when a threshold is missed.

Knows options and tables; motet.study measures.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from motet.cli import asked, show
from motet.cli.asked import DefectOption, OutOption, QuestionsOption, SeedsOption, UrlOption, WidthOption
from motet.cli.options import (
    EffortOption,
    Grammar,
    JsonOption,
    MaxTokens,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
)
from motet.errors import UsageError

study = typer.Typer(help="Measure how a model behaves.", rich_markup_mode=None, no_args_is_help=True)

TasksOption = Annotated[
    list[str] | None,
    typer.Option("--task", "-t", metavar="T", help="A task; again for more. Default: the measured ones."),
]


@study.command("sweep")
def sweep(
    model: ModelOption = "mini",
    url: UrlOption = None,
    task: TasksOption = None,
    questions: QuestionsOption = 50,
    seeds: SeedsOption = 1,
    budgets: Annotated[
        str, typer.Option("--budgets", metavar="B,B", help="Tokens of thinking at most, such as 16,64; none: no limit.")
    ] = "none",
    padding: Annotated[
        int, typer.Option("--padding", metavar="N", min=0, help="Words of unrelated text before each question.")
    ] = 0,
    max_tokens: MaxTokens = 2048,
    temperature: Annotated[float, typer.Option("--temperature", metavar="T", min=0)] = 1.0,
    seed: Annotated[int, typer.Option("--seed", metavar="S")] = 0,
    width: WidthOption = 16,
    grammar: Grammar = "on",
    defect: DefectOption = None,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Efforts, budgets and seeds over tasks: does thinking follow the effort, and does it pay?"""
    from motet.study import sweep_planted
    from motet.study.sweep import Plan
    from motet.study.sweep import sweep as run

    plan = Plan(
        _tasks(task, defect), budgets=_budgets(budgets), questions=questions, seeds=seeds, seed=seed,
        max_tokens=max_tokens or 2048, temperature=temperature, padding="The weather is fine today. " * (padding // 5),
    )  # fmt: skip
    played = None
    if defect is not None:
        name = asked.known(defect, sweep_planted.PLANTED)
        played = sweep_planted.planted(name, plan.tasks, questions, seed)
    with (
        show.bar("asking", "answers") as progress,
        asked.subject(
            model, url, played, precision=precision, threads=threads, width=width, grammar=grammar == "on"
        ) as who,
    ):
        report = run(who, plan, progress)
    asked.finish(report, out, json)


def _budgets(text: str, option: str = "--budgets") -> tuple[int | None, ...]:
    try:
        found = tuple(None if part.strip() == "none" else int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} is '{text}'; give numbers with commas between, or none.") from None
    if any(b is not None and b < 0 for b in found):
        raise UsageError(f"{option} is '{text}'; none of them may be below 0.")
    return found


def _limits(text: str, option: str = "--budgets") -> tuple[int, ...]:
    return tuple(b for b in _budgets(text, option) if b is not None)


def _tasks(task: list[str] | None, defect: str | None) -> tuple[str, ...]:
    """Those asked for; none leaves the choice to the study, but a planted player has to be told its questions."""
    from motet.study.questions import chosen

    return chosen(tuple(task or ()), ()) if defect is None else chosen(tuple(task or ()))


@study.command("elicit")
def elicit(
    model: ModelOption = "mini",
    url: UrlOption = None,
    task: TasksOption = None,
    questions: QuestionsOption = 20,
    samples: Annotated[int, typer.Option("--samples", metavar="N", min=1, help="Tries at each question and effort.")] = 8,
    tries: Annotated[
        str, typer.Option("--tries", metavar="K,K", help="The best and the vote of so many; default: powers of two.")
    ] = "",
    retries: Annotated[int, typer.Option("--retries", metavar="N", min=0, help="Told that it is wrong, at most.")] = 3,
    budgets: Annotated[str, typer.Option("--budgets", metavar="B,B", help="Tokens of thinking at most, such as 16,64.")] = "none",
    max_tokens: MaxTokens = 2048,
    temperature: Annotated[float, typer.Option("--temperature", metavar="T", min=0)] = 1.0,
    seed: Annotated[int, typer.Option("--seed", metavar="S")] = 0,
    width: WidthOption = 16,
    grammar: Grammar = "on",
    defect: DefectOption = None,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """How much can be got out of a model: many tries, votes, trying again once told, budgets, a tool."""
    from motet.study import elicit_planted
    from motet.study.elicit import WAYS, Plan
    from motet.study.elicit import elicit as run

    plan = Plan(
        _tasks(task, defect), questions=questions, samples=samples,
        tries=_limits(tries or "none", "--tries"), retries=retries,
        budgets=_limits(budgets), seed=seed, max_tokens=max_tokens or 2048, temperature=temperature,
    )  # fmt: skip
    played, ways = None, WAYS
    if defect is not None:
        name = asked.known(defect, elicit_planted.PLANTED)
        played, ways = elicit_planted.planted(name, plan, plan.tasks)
    with (
        show.bar("asking", "answers") as progress,
        asked.subject(
            model, url, played, precision=precision, threads=threads, width=width, grammar=grammar == "on"
        ) as who,
    ):
        report = run(who, plan, progress, ways=ways)
    asked.finish(report, out, json)


@study.command("router")
def router(
    model: ModelOption = "mini",
    task: TasksOption = None,
    questions: QuestionsOption = 20,
    against: Annotated[
        str, typer.Option("--against", metavar="P", help="The arithmetic to compare choices with: float32, bf16, int8 or none.")
    ] = "float32",
    max_tokens: MaxTokens = 1024,
    seed: Annotated[int, typer.Option("--seed", metavar="S")] = 0,
    width: WidthOption = 16,
    defect: DefectOption = None,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """How tokens go to experts: load, certainty, steadiness, by layer, channel, effort and domain."""
    from motet.library import find
    from motet.model import load
    from motet.study import router_planted
    from motet.study.router import Plan
    from motet.study.router import study as run

    if against not in ("float32", "bf16", "int8", "none"):
        raise UsageError(f"--against is {against!r}; use float32, bf16, int8 or none.")
    plan = Plan(tuple(task or ()), questions=questions, seed=seed, max_tokens=max_tokens or 1024)
    with asked.subject(model, None, precision=precision, threads=threads, width=width) as who:
        own: Any = who.engine.model  # type: ignore[attr-defined]
        other = None if against == "none" else load(find(model), precision=against, threads=threads)
        if defect is not None:
            own = router_planted.doctored(own, asked.known(defect, router_planted.PLANTED))
            other = None if other is None else router_planted.doctored(other, defect)
        with show.bar("looking", "texts") as progress:
            report = run(who, own, plan, other, progress)
    if defect is not None:
        report.identity["doctored"] = defect
    asked.finish(report, out, json)


@study.command("hierarchy")
def hierarchy(
    model: ModelOption = "mini",
    url: UrlOption = None,
    row: Annotated[
        list[str] | None, typer.Option("--row", metavar="R", help="A row, such as 'user/tool'; again for more.")
    ] = None,
    family: Annotated[
        list[str] | None, typer.Option("--family", metavar="F", help="A family of attacks; again for more.")
    ] = None,
    items: Annotated[int, typer.Option("--items", "-n", metavar="N", min=1, help="Of each row.")] = 4,
    budget: Annotated[
        int, typer.Option("--budget", metavar="N", min=0, help="Tries of the adaptive attacker an item; 0: none.")
    ] = 8,
    effort: Annotated[
        list[str] | None, typer.Option("--effort", "-e", help="An effort; again for more. Default: medium.")
    ] = None,
    max_tokens: MaxTokens = 1024,
    seed: Annotated[int, typer.Option("--seed", metavar="S")] = 0,
    width: WidthOption = 16,
    defect: DefectOption = None,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Rules from above against attacks from below: defence, over-refusal, where and how it leaks."""
    from motet.study import hierarchy_planted
    from motet.study.hierarchy import Plan
    from motet.study.hierarchy import study as run
    from motet.tasks import EFFORTS

    efforts = tuple(e for e in EFFORTS if e in (effort or ("medium",)))
    if unknown := set(effort or ()) - set(EFFORTS):
        raise UsageError(f"--effort is '{unknown.pop()}'; choose {', '.join(EFFORTS)}.")
    plan = Plan(tuple(row or ()), tuple(family or ()), items, budget, efforts, seed, max_tokens or 1024)
    played = None
    if defect is not None:
        played = hierarchy_planted.planted(asked.known(defect, hierarchy_planted.PLANTED))
    with (
        show.bar("attacking", "answers") as progress,
        asked.subject(model, url, played, precision=precision, threads=threads, width=width) as who,
    ):
        report = run(who, plan, progress)
    asked.finish(report, out, json)


@study.command("channels")
def channels(
    model: ModelOption = "mini",
    url: UrlOption = None,
    cases: Annotated[
        int, typer.Option("--cases", metavar="N", min=0, help="Broken and whole replies through parser and policies.")
    ] = 5000,
    outlets: Annotated[
        int, typer.Option("--outlets", metavar="N", min=0, help="Replies through every outlet of this program.")
    ] = 60,
    questions: QuestionsOption = 10,
    canaries: Annotated[int, typer.Option("--canaries", metavar="N", min=0, help="Secrets put into the model's thinking.")] = 20,
    task: TasksOption = None,
    max_tokens: MaxTokens = 1024,
    seed: Annotated[int, typer.Option("--seed", metavar="S")] = 0,
    width: WidthOption = 16,
    defect: DefectOption = None,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """What a model keeps to itself: does any of it leave through an outlet, or come back in its answers?"""
    from contextlib import nullcontext

    from motet.cli.outlets import outlets as command_line
    from motet.study import channels_planted
    from motet.study.channels import Plan
    from motet.study.channels import study as run

    plan = Plan(
        cases,
        outlets,
        tuple(task or ()),
        questions=questions,
        canaries=canaries,
        seed=seed,
        max_tokens=max_tokens or 1024,
    )
    played = None
    if defect is not None:
        played = channels_planted.planted(asked.known(defect, channels_planted.PLANTED))
    with (
        show.bar("looking", "replies") as progress,
        asked.subject(model, url, played, precision=precision, threads=threads, width=width) as who,
        nullcontext() if defect is None else channels_planted.broken(defect),
    ):
        report = run(who, plan, command_line, progress)
    asked.finish(report, out, json)


@study.command("cot")
def cot(
    model: ModelOption = "mini",
    url: UrlOption = None,
    task: TasksOption = None,
    questions: QuestionsOption = 20,
    each: Annotated[int, typer.Option("--each", metavar="N", min=1, help="Planted streams of a kind.")] = 10,
    thoughts: Annotated[
        int, typer.Option("--thoughts", metavar="N", min=3, help="Planted questions to fit monitors on, and as many to test them.")
    ] = 60,
    temperatures: Annotated[
        str, typer.Option("--temperatures", metavar="T,T", help="At which the model is asked.")
    ] = "0,1",
    max_tokens: MaxTokens = 1024,
    seed: Annotated[int, typer.Option("--seed", metavar="S")] = 0,
    width: WidthOption = 16,
    grammar: Grammar = "on",
    defect: DefectOption = None,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Watchers of thinking: which see loops and misbehaviour, how soon, and how often this model loops or errs visibly."""
    from motet.monitor.loops import DETECTORS
    from motet.study import cot_planted
    from motet.study.cot import Plan, fitted
    from motet.study.cot import study as run

    try:
        degrees = tuple(float(t) for t in temperatures.split(","))
    except ValueError:
        raise UsageError(f"--temperatures is '{temperatures}'; give numbers with commas between.") from None
    plan = Plan(
        each,
        thoughts,
        tuple(task or ()),
        questions=questions,
        temperatures=degrees,
        seed=seed,
        max_tokens=max_tokens or 1024,
    )
    broken = (
        cot_planted.BROKEN[asked.known(defect, cot_planted.BROKEN)]
        if defect is not None
        else cot_planted.BROKEN["clean"]
    )
    detectors = broken.detectors(dict(DETECTORS))
    with show.bar("asking", "answers") as progress:
        if defect is not None:
            report = run(None, plan, detectors, lambda known: broken.monitors(fitted(known)), progress)
        else:
            with asked.subject(
                model, url, precision=precision, threads=threads, width=width, grammar=grammar == "on"
            ) as who:
                report = run(who, plan, detectors, fitted, progress)
    asked.finish(report, out, json)


@study.command("tools")
def tools(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="M", help="A model; without one the scripted policy plays."),
    ] = None,
    url: UrlOption = None,
    attempts: Annotated[
        int, typer.Option("--attempts", "-k", metavar="K", min=1, max=1000, help="Of each scenario.")
    ] = 1,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="S", help="A scenario; again for more.")
    ] = None,
    defect: Annotated[
        str | None,
        typer.Option(
            "--defect", metavar="D", help="Plant a defect in the scripted policy, to see it caught."
        ),
    ] = None,
    effort: EffortOption = "medium",
    max_tokens: MaxTokens = None,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Conversations that need tools, every token span validated; behind a URL what a client gets."""
    from motet.study.toolcheck import toolcheck
    from motet.study.toolreport import common

    options: dict[str, Any] = {"attempts": attempts, "only": only or (), "effort": effort, "defect": defect}
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    if url is not None:
        from motet.study.toolremote import toolremote

        if defect is not None:
            raise UsageError("--defect is planted in the scripted policy; leave --url away.")
        del options["defect"]
        with asked.subject(model or "mini", url) as who:
            held = toolremote(who, **options)  # type: ignore[arg-type]
            identity = who.identity() | {"sampler": "the server's own, seeded", "seen": "messages, no tokens"}
    elif model is None:
        from motet import __version__
        from motet.tokenizer import o200k_harmony

        held, identity = (
            toolcheck(None, o200k_harmony(), **options),
            {"subject": "scripted policy", "motet": __version__},
        )
    else:
        with asked.subject(model, None, precision=precision, threads=threads, width=1, grammar=False) as who:
            held = toolcheck(who.engine, who.encoding, **options)  # type: ignore[attr-defined]
            identity = who.identity() | {"sampler": "temperature 1, top-p 1, seeded"}
    asked.finish(
        common(held, identity, options | {"model": model or ("mini" if url else "scripted policy")}),
        out,
        json,
    )


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    app.add_typer(study, name="study", rich_help_panel="Measure")
