"""The `python` tool: the model's code as cells of a sandboxed Jupyter session, one session a conversation.

The text of the answers is what models were trained on. Knows what a cell's outcome is called; sandbox.py confines it.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from motet.harmony import PYTHON, Namespace
from motet.tools import base
from motet.tools.base import Answer, ToolError
from motet.tools.sandbox import Execution, Kind, Limits, Sandbox

SILENT = "[WARN] No output available. Use print() to output anything to stdout to receive the output"
_LOST = (
    "[ERROR] The session ended after the last call. All variables and files are lost; a new one has begun."
)


class PythonTool:
    """Stateful Python in a sandbox. The call's content is raw code. Close it, or leave its `with`, to end the session."""

    def __init__(
        self, limits: Limits | None = None, files: Sequence[str | Path] = (), kind: Kind | None = None
    ) -> None:
        """`files` appear in /mnt/data. UserError when nothing on this machine can confine the code."""
        self.sandbox = Sandbox(limits, [Path(f) for f in files], kind)
        # The sandbox keeps the time of a cell, and needs a while to start and to end one that does not want to.
        self.timeout_s = self.sandbox.limits.wall_s + 90
        self.grace_s = self.sandbox.limits.grace_s + 12

    @property
    def namespace(self) -> Namespace:
        """`python`, in the words models know."""
        return PYTHON

    def call(self, recipient: str, content: str) -> Answer:
        """Runs a cell."""
        if not content.strip():
            raise ToolError("There is no code in the call; send Python source as the message.")
        run = base.current()
        ran = self.sandbox.execute(
            content,
            seconds=base.seconds_left(),
            cancelled=run.stop.is_set,
            progress=run.on_progress,
        )
        return Answer(self._text(ran), tuple(ran.artefacts), ran.status != "ok")

    def restart(self) -> None:
        """Forgets all variables; files stay."""
        self.sandbox.restart()

    def close(self) -> None:
        """Ends the session."""
        self.sandbox.close()

    def __enter__(self) -> PythonTool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _text(self, ran: Execution) -> str:
        parts = [_LOST] if ran.lost else []
        parts += [ran.text.rstrip("\n")] if ran.text.strip("\n") else []
        if reason := _reason(ran, self.sandbox.limits):
            parts.append(f"[ERROR] {reason}")
        elif not ran.text.strip("\n") and not ran.artefacts:
            parts.append(SILENT)
        if ran.artefacts:
            parts.append(f"[saved: {', '.join(a.name for a in ran.artefacts)}]")
        if ran.omitted:
            parts.append(f"[not handed over, too many or too large: {', '.join(ran.omitted)}]")
        return "\n".join(parts)


def _reason(ran: Execution, limits: Limits) -> str:
    """What went wrong and what is left, or nothing."""
    causes = {
        "timeout": f"Execution timed out after {ran.seconds:.1f} seconds.",
        "flood": "The cell printed far more than can be shown and was stopped.",
        "memory": f"The session used more than {limits.memory_bytes >> 20} MiB of memory and was stopped.",
        "machine": "The machine's memory is nearly full and the session was stopped.",
        "cancelled": "Execution was cancelled.",
        "before": "The kernel died after the last call, and this code did not run.",
        "channel": "The cell broke the kernel's channels.",
    }
    cause = causes.get(ran.why, "")
    if ran.status == "died":
        cause = cause or f"The kernel died ({_death(ran.exit_code)})."
        return f"{cause} All variables are lost; files in /mnt/data are still there."
    if ran.status == "gone":
        return (
            f"{cause or 'The session broke down.'} All variables and files are lost; a new session has begun."
        )
    if ran.why == "strays":
        return "The cell left too many processes behind; they were ended. Variables are still there."
    return f"{cause} Variables are still there." if cause else ""


def _death(code: int | None) -> str:
    if code is None:
        return "it stopped answering"
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
