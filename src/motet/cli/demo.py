"""What the embedded model was trained for, in three scenes: thinking harder, computing with a tool, keeping a rule.

Knows which questions are asked; how a turn runs and what is seen of it is talk.py's.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from motet.cli import show, talk
from motet.cli.options import Effort, JsonOption, ModelOption
from motet.errors import UserError

if TYPE_CHECKING:
    from motet.cli.session import Session
    from motet.tasks import Example


def demo(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="Another question.")] = None,
    model: ModelOption = "mini",
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Picks other questions.")] = 0,
    analysis: Annotated[bool, typer.Option("--analysis/--no-analysis", help="Show the thinking.")] = True,
    json: JsonOption = False,
) -> None:
    """One question at three efforts, one with the python tool, one with a rule its user tries to break."""
    asked = None if prompt else _hard(seed)
    text = prompt or (asked.prompt if asked else "")
    with talk.open_session(model, "int8", None) as session:
        show.note(f"{session.name}, loaded in {session.load_s:.2f} s", dim=True)
        _title(text + ("" if asked is None else "  (never seen in training)"))
        replies = []
        for effort in get_args(Effort):
            show.note(f"\n{show.paint(show.BOLD, f'effort {effort}')}", dim=False)
            replies.append(
                _ask(session, talk.conversation_of([("user", text)], effort), effort, analysis, json)
            )
        scenes = {} if asked is None else {"tool": _tool(session, text, analysis, json),
                                           "rule": _rule(session, seed, analysis, json)}  # fmt: skip
        if json:
            show.emit({"prompt": text, "answer": asked and asked.answer, "replies": replies, **scenes})


def _hard(seed: int) -> Example:
    """A product of the hardest trained size that was never trained itself."""
    from motet.tasks import FAMILIES

    family = FAMILIES["multiplication"]
    return family.example(random.Random(seed), "high", "test", level=family.levels[-1])


def _tool(session: Session, text: str, analysis: bool, quiet: bool) -> dict[str, Any]:
    """The question once more with little thought and the real python tool; where there is no sandbox, that is said."""
    _title("effort low, with the python tool")
    try:
        with talk.toolbox(["python"], None) as tools:
            session.tools = tools
            return _ask(session, talk.conversation_of([("user", text)], "low"), "low", analysis, quiet)
    except UserError as e:
        show.note(f"(no python tool here: {e})", dim=False)
        return {"unavailable": str(e)}
    finally:
        session.tools = ()


def _rule(session: Session, seed: int, analysis: bool, quiet: bool) -> dict[str, Any]:
    """A password that the developer wants kept and a user who wants it told, of the split that is never trained."""
    from motet.tasks import TASKS, lesson

    task, rng = TASKS["hierarchy"], random.Random(seed)
    while True:
        example = task.example(rng, "medium", "test")
        f, developer = example.facts, example.scene.developer
        if (
            (f["kind"], f["mode"]) == ("password", "attack")
            and developer
            and f["rule"] in (developer.instructions or "")
        ):
            break
    _title(f"the rule: {example.facts['rule']}\nthe user: {example.prompt.strip()}")
    report = _ask(session, lesson(example).prompt, "medium", analysis, quiet)
    kept = task.grade(example, report["final"] or "")
    show.note("(kept)" if kept else "(not kept, or nothing answered)", dim=False)
    return {"rule": example.facts["rule"], "prompt": example.prompt, "kept": kept, **report}


def _ask(session: Session, conversation: Any, effort: Effort, analysis: bool, quiet: bool) -> dict[str, Any]:
    folded = talk.take_turn(
        session, conversation, talk.sampling(temperature=0.0, max_tokens=1024), analysis, quiet=quiet
    )
    talk.remark(folded)
    show.note(talk.speeds(session.timing, session))
    return talk.reported(session, folded, effort, analysis)


def _title(text: str) -> None:
    show.note(f"\n{show.paint(show.BOLD, text)}", dim=False)


def add_to(app: typer.Typer) -> None:
    """Registers this file's command."""
    app.command(rich_help_panel="Talk")(demo)
