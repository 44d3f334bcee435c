"""Runs the calls of a turn: in threads, side by side where they are independent, within a time, until someone cancels.

Whatever a tool does, a call ends in an Answer that the model can read. Knows tools; knows no engine and no tokens.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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
    run = Run(lambda text: heard.put((number, text)))
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
        try:
            answer = Answer("Error: Cancelled.", (), True) if job.run.stop.is_set() else answer_of(job.call)
        finally:
            base._RUN.reset(token)
            job.done.set()
        heard.put((job.number, answer))


def answer_of(call: Call) -> Answer:
    """The tool's answer; whatever it raises becomes one."""
    try:
        said = call.tool.call(call.recipient, call.content)
    except ToolError as e:
        return Answer(f"Error: {e}", (), True)
    except BaseException as e:  # SystemExit of a tool's library must not end a thread without an answer
        return Answer(f"Error: {type(e).__name__}: {e}", (), True)
    if isinstance(said, Answer):
        return said
    if not isinstance(said, str):
        return Answer(f"Error: the tool answered with {type(said).__name__}, not with text.", (), True)
    return Answer(said)


def _overdue(job: _Job, stop: threading.Event | None) -> Answer | None:
    """Cancels a job whose time is over; an Answer in its place when it does not hear."""
    now = time.monotonic()
    late = bool(job.began) and now > job.run.deadline
    if not late and not (stop is not None and stop.is_set()):
        return None
    if not job.run.stop.is_set():
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
        cancel()


def _grace(job: _Job) -> float:
    return float(getattr(job.call.tool, "grace_s", _GRACE_S))
