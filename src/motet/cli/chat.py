"""The loop of `motet chat`: lines from a person, turns of the model, history between them. Knows no options."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from motet.cli import show, talk
from motet.cli.options import Effort
from motet.cli.tools import keep
from motet.errors import UserError

if TYPE_CHECKING:
    from motet.cli.session import Session
    from motet.engine import SamplingParams


class Chat:
    """One conversation. A reply that is stopped or fails leaves no trace in the history, and the question goes with it."""

    def __init__(
        self,
        session: Session,
        params: SamplingParams,
        effort: Effort,
        analysis: bool,
        opening: list[tuple[str, str | None]],
        save: Path | None = None,
    ) -> None:
        self.session, self.params, self.effort, self.analysis = session, params, effort, analysis
        self.save = save
        self.opening: list[dict[str, Any]] = [{"role": r, "content": t} for r, t in opening if t is not None]
        self.history: list[dict[str, Any]] = []

    def loop(self) -> None:
        """Reads until /quit or the end of input."""
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (line editing for input())
            show.note(f"{self.session.name}, effort {self.effort}. {talk.HELP}")
        while True:
            line = self._read()
            if line is None:
                return
            if line.startswith("/"):
                if not self.command(line):
                    return
            elif line.strip():
                self.reply(line)

    def _read(self) -> str | None:
        """One line, or None at the end. Ctrl-C at the prompt clears the line, as in a shell."""
        while True:
            try:
                if sys.stdin.isatty():
                    return input("> ")
                line = sys.stdin.readline()
                return line.rstrip("\n") if line else None
            except EOFError:
                show.note()
                return None
            except KeyboardInterrupt:
                show.note("\n(/quit or Ctrl-D leaves)")
            except UnicodeDecodeError:
                show.note("That line is not UTF-8 text; it was not sent.", dim=False)

    def command(self, line: str) -> bool:
        """Carries out a line that starts with /; False ends the chat."""
        word, _, rest = line[1:].strip().partition(" ")
        rest = rest.strip()
        if word in ("quit", "exit", "q"):
            return False
        if word == "new":
            self.history = []
            show.note("(new conversation)")
        elif word == "effort" and rest in get_args(Effort):
            self.effort = rest  # type: ignore[assignment]
            show.note(f"(effort {rest})")
        elif word == "analysis" and rest in ("on", "off"):
            self.analysis = rest == "on"
            show.note(f"(analysis {rest})")
        else:
            show.note(talk.HELP, dim=False)
        return True

    def reply(self, text: str) -> None:
        """One turn, shown; both sides join the history when it ends by itself."""
        from motet.harmony import Conversation

        asked = [*self.history, {"role": "user", "content": text}]
        try:
            conversation = Conversation.from_chat([*self.opening, *asked], effort=self.effort)
            folded = talk.take_turn(self.session, conversation, self.params, self.analysis)
        except KeyboardInterrupt:
            show.note("(stopped; this question and its reply are not remembered)")
            return
        except UserError as e:
            show.note(f"{e} (/new starts afresh)", dim=False)
            return
        talk.remark(folded)
        keep([a for r in self.session.results for a in r.artefacts], self.save)
        show.note(talk.speeds(self.session.timing, self.session))
        self.history = [*asked, {"role": "assistant", "content": folded.final}]
