"""Runs the calls of a turn: in threads, side by side where they are independent, within a time, until someone cancels.

Whatever a tool does, a call ends in an Answer that the model can read. Knows tools; knows no engine and no tokens.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from motet.errors import UserError
from motet.tools import base
from motet.tools.base import Answer, Run, Tool, ToolError

TIMEOUT_S = 300.0  # for a tool that does not say how long it may take
_GRACE_S = 1.0  # for a tool to notice that its call is cancelled; one may ask for more with `grace_s`


@dataclass
class Call:
    """A call to run: its tool, and the two texts the tool is given."""

    tool: Tool
    recipient: str
    content: str


@dataclass
class _Job:
    """A call under way."""

    number: int
    call: Call
    run: Run
    limit_s: float
    began: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)
    given_up: bool = False


def run_calls(
    calls: Sequence[Call], *, seconds: float = float("inf"), stop: threading.Event | None = None
) -> Iterator[tuple[int, str | Answer]]:
    """(number of the call, text) for progress, (number, Answer) once for every call, as they come.

    Calls to tools with `parallel` run side by side; those to one other tool one after another. Each call has its tool's
    `timeout_s`, at most `seconds`. A tool that does not stop when it should is left behind in its thread, which Python
    cannot end. Closing the iterator, or setting `stop`, cancels what runs.
    """
    heard: queue.Queue[tuple[int, str | Answer]] = queue.Queue()
    jobs = [_job(n, c, seconds, heard) for n, c in enumerate(calls)]
    for lane in _lanes(jobs):
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(_work, lane, heard), daemon=True).start()
    open_jobs = {j.number: j for j in jobs}
    try:
        while open_jobs:
            try:
                number, said = heard.get(timeout=0.05)
            except queue.Empty:
                for job in list(open_jobs.values()):
                    if (answer := _overdue(job, stop)) is not None:
                        del open_jobs[job.number]
                        yield job.number, answer
                continue
            if number in open_jobs:
                if isinstance(said, Answer):
                    del open_jobs[number]
                yield number, said
    finally:
        for job in open_jobs.values():
            _cancel(job)
        for job in open_jobs.values():
            job.done.wait(_grace(job))


def _job(number: int, call: Call, seconds: float, heard: queue.Queue[tuple[int, str | Answer]]) -> _Job:
    limit = min(seconds, getattr(call.tool, "timeout_s", TIMEOUT_S))
    run = Run(lambda text: heard.put((number, base.text(str(text)))))
    return _Job(number, call, run, limit)


def _lanes(jobs: Sequence[_Job]) -> list[list[_Job]]:
    lanes: dict[object, list[_Job]] = {}
    for job in jobs:
        key = job.number if getattr(job.call.tool, "parallel", False) else ("tool", id(job.call.tool))
        lanes.setdefault(key, []).append(job)
    return list(lanes.values())


def _work(lane: Sequence[_Job], heard: queue.Queue[tuple[int, str | Answer]]) -> None:
    for job in lane:
        job.began = time.monotonic()
        job.run.deadline = job.began + job.limit_s
        token = base._RUN.set(job.run)
        answer = Answer("Error: Cancelled.", (), True) if job.run.stop.is_set() else answer_of(job.call)
        base._RUN.reset(token)
        heard.put((job.number, answer))
        job.done.set()


def answer_of(call: Call) -> Answer:
    """The tool's answer; whatever it raises becomes one."""
    try:
        said = call.tool.call(call.recipient, call.content)
    except (ToolError, UserError) as e:
        said = Answer(f"Error: {e}", (), True)
    except BaseException as e:  # SystemExit of a tool's library must not end a thread without an answer
        said = Answer(f"Error: {_said(e)}", (), True)
    answer = said if isinstance(said, Answer) else Answer(said)
    if not isinstance(answer.text, str):
        return Answer(f"Error: the tool answered with {type(answer.text).__name__}, not with text.", (), True)
    return dataclasses.replace(answer, text=base.text(answer.text))


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an exception that cannot even say what it is
        return type(error).__name__


def _overdue(job: _Job, stop: threading.Event | None) -> Answer | None:
    """Cancels a job whose time is over; an Answer in its place when it does not hear."""
    now = time.monotonic()
    late = bool(job.began) and now > job.run.deadline
    if not late and not (stop is not None and stop.is_set()):
        return None
    if not job.run.stop.is_set():
        job.run.late = late
        _cancel(job)
        job.run.deadline = min(job.run.deadline, now)
        return None
    if now < job.run.deadline + _grace(job) or job.done.is_set():
        return None
    if stop is not None and stop.is_set():
        return Answer("Error: Cancelled.", (), True)
    return Answer(f"Error: the call timed out after {job.limit_s:g} seconds.", (), True)


def _cancel(job: _Job) -> None:
    job.run.stop.set()
    cancel = getattr(job.call.tool, "cancel", None)
    if callable(cancel):
        with contextlib.suppress(Exception):
            cancel()


def _grace(job: _Job) -> float:
    return float(getattr(job.call.tool, "grace_s", _GRACE_S))
