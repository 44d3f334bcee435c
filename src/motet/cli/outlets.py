"""The command line as a way out, for the channel study: `motet run` with an engine that plays. Knows what run prints and where."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from motet.cli import show, talk
from motet.cli.session import Session, Timing
from motet.errors import UserError

if TYPE_CHECKING:
    from motet.study.outlets import Outlet, Playback, Shown


class _Session(Session):
    """A session on an engine that is there already, without the grammar: what is played is taken as it is."""

    def __init__(self, engine: Playback) -> None:
        self.model, self.encoding, self.engine = engine.model, engine.encoding, engine  # type: ignore[assignment]
        self.load_s, self.name, self.tools, self.rules = 0.0, "played", (), None
        self.timing, self.results, self.counts, self.on_token = Timing(), [], {}, None


def outlets(engine: Playback) -> list[Outlet]:
    """`motet run`, plain, with --analysis and with --json."""
    from motet.study.outlets import Plain

    return [
        Plain("run", "hide", _runs(engine, analysis=False, as_json=False)),
        Plain("run --analysis", "show", _runs(engine, analysis=True, as_json=False)),
        Plain("run --json", "hide", _runs(engine, analysis=False, as_json=True)),
        Plain("run --json --analysis", "show", _runs(engine, analysis=True, as_json=True)),
    ]


def _runs(engine: Playback, analysis: bool, as_json: bool) -> Callable[[int], Shown]:
    from motet.study.outlets import Shown, question, sorted_out

    def shown(number: int) -> Shown:
        out, err, failed = io.StringIO(), io.StringIO(), False
        session = _Session(engine)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                folded = talk.take_turn(session, question(number), talk.sampling(), analysis, quiet=as_json)
                talk.remark(folded)
                if as_json:
                    show.emit(talk.reported(session, folded, "medium", analysis))
            except UserError as e:
                failed = True
                show.note(str(e))
        if as_json and not failed:
            said = sorted_out([json.loads(out.getvalue())])
            said.rest += err.getvalue()
            return said
        text, aside = out.getvalue(), err.getvalue()
        if analysis:  # labelled, on stderr: thinking, calls and what was kept aside
            return Shown(text, thinking=aside, bare=text, failed=failed)
        return Shown(text, rest=aside, bare=f"{text}\n{aside}", failed=failed)

    return shown
