"""How each program is asked for one figure, and how its answer is read: motet, llama.cpp, ik_llama.cpp.

Every contender answers the same questions with `Ask`; a figure it cannot give is None with the reason beside it. Knows the
programs' options and output, not which rows make the table. Programs run as separate processes through `bench.timed`.
"""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import timed as timing

from motet.errors import UserError


@dataclass(frozen=True)
class Ask:
    """One figure: `kind` is prefill, decode, batch or start.

    tokens: of the prompt (prefill) or decoded (decode, batch); depth: tokens held before; batch: sequences together;
    prompt: the text of a start; spin: processes that spin beside.
    """

    kind: str
    tokens: int = 0
    depth: int = 0
    batch: int = 1
    repeats: int = 1
    prompt: str = ""
    spin: int = 0


@dataclass(frozen=True)
class Answer:
    """A figure (tokens/s, or seconds for a start), the process's peak memory, and motet's ceiling where it states one."""

    value: float | None
    peak_bytes: int = 0
    ceiling: float | None = None
    ceilings: dict[str, float] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Contender:
    """A program with its model. `before` goes before every command: taskset, nice, a lock."""

    name: str
    model: Path
    threads: int
    before: tuple[str, ...] = ()

    def ask(self, ask: Ask) -> Answer:
        raise NotImplementedError

    def _run(self, command: list[str], ask: Ask, warm: Path | None = None) -> dict[str, Any]:
        """The report of bench.timed. Raises UserError with the last line a failing program said."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            timed = [sys.executable, timing.__file__, str(report), "--spin", str(ask.spin)]
            timed += ["--warm", str(warm)] if warm else []
            # Some programs leave logs where they run, so they run where everything goes.
            subprocess.run([*self.before, *timed, "--", *command], check=False, cwd=folder)
            if not report.is_file():
                raise UserError(
                    f"{self.name} was stopped before it ended; give it more time or a smaller row."
                )
            said: dict[str, Any] = json.loads(report.read_text())
        if said["code"]:
            last = (said["stderr"].strip() or "nothing").splitlines()[-1]
            raise UserError(f"{shlex.join(command)} failed with code {said['code']}; it said: {last[:300]}")
        return said


class Motet(Contender):
    """This package, through its own command line in a process of its own.

    Its pack is read into the page cache first: peers read their weights as they start, and evict it while they run.
    """

    def ask(self, ask: Ask) -> Answer:
        motet, pack = [sys.executable, "-m", "motet"], _pack(self.model)
        if ask.kind == "start":
            said = self._run([*motet, "run", ask.prompt, "--model", str(self.model), "--max-tokens", "1", "--analysis",
                              "--temperature", "0", "--threads", str(self.threads)], ask, pack)  # fmt: skip
            return Answer(said["first_byte_s"], said["peak_bytes"])
        prompt = ask.tokens if ask.kind == "prefill" else 16
        gen = 1 if ask.kind == "prefill" else ask.tokens
        said = self._run([*motet, "bench", str(self.model), "--prompt", str(prompt), "--gen", str(gen), "--depth",
                          str(ask.depth), "--batch", str(ask.batch), "--repeats", str(ask.repeats), "--threads",
                          str(self.threads), "--json"], ask, pack)  # fmt: skip
        result = json.loads(said["stdout"])
        rows = result["prefill"] if ask.kind == "prefill" else result["decode"]
        row = rows if isinstance(rows, dict) else rows[0]
        return Answer(row["tokens_per_s"], said["peak_bytes"], row["ceiling"], result["ceilings"])


def _pack(model: Path) -> Path | None:
    from motet.pack import pack_path

    file = pack_path(model, "int8")
    return file if file.is_file() else None


@dataclass(frozen=True)
class Llama(Contender):
    """llama.cpp by its llama-bench and the programs beside it; `flags` are appended to every command."""

    bench: Path = Path()
    flags: tuple[str, ...] = ()

    def ask(self, ask: Ask) -> Answer:
        if ask.kind == "start":
            return self._start(ask)
        if ask.kind == "batch":
            return self._batch(ask)
        return self._bench(
            ask, ["-p", str(ask.tokens), "-n", "0"] if ask.kind == "prefill" else self._decode(ask)
        )

    def beside(self, *names: str) -> Path | None:
        """The first of these programs in llama-bench's folder."""
        return next((p for n in names if (p := self.bench.with_name(n)).is_file()), None)

    def common(self, program: Path) -> list[str]:
        """The program with model, threads and flags."""
        return [str(program), "-m", str(self.model), "-t", str(self.threads), "-fa", "on", *self.flags]

    def _decode(self, ask: Ask) -> list[str]:
        return ["-p", "0", "-n", str(ask.tokens), "-d", str(ask.depth)]

    def _bench(self, ask: Ask, task: list[str]) -> Answer:
        command = [str(self.bench), "-m", str(self.model), "-t", str(self.threads), "-fa", "1", *self.flags]
        said = self._run([*command, *task, "-r", str(ask.repeats), "-o", "json"], ask)
        return Answer(_last_rate(said["stdout"]), said["peak_bytes"])

    def _batch(self, ask: Ask) -> Answer:
        program = self.beside("llama-batched-bench")
        if program is None:
            return Answer(None, why=f"no llama-batched-bench beside {self.bench.name}")
        room = ask.batch * (8 + ask.tokens)
        said = self._run([*self.common(program), "-c", str(room), "-npp", "8", "-ntg", str(ask.tokens), "-npl",
                          str(ask.batch), "--output-format", "jsonl"], ask)  # fmt: skip
        lines = [json.loads(line) for line in said["stdout"].splitlines() if line.startswith("{")]
        return Answer(float(lines[-1]["speed_tg"]), said["peak_bytes"])

    def _start(self, ask: Ask) -> Answer:
        program = self.beside("llama-completion", "llama-cli")
        if program is None:
            return Answer(None, why=f"no llama-completion beside {self.bench.name}")
        said = self._run([*self.common(program), "-c", "4096", "-p", ask.prompt, "-n", "1", "--temp", "0", "--no-warmup",
                          "--no-display-prompt", *self._plain()], ask, self.model)  # fmt: skip
        return Answer(said["first_byte_s"], said["peak_bytes"])

    def _plain(self) -> list[str]:
        return ["-no-cnv", "--special"]

    def logits(self, text: Path, length: int, chunks: int, out: Path) -> str:
        """Log-probabilities of the second half of every chunk, in llama-perplexity's file; a reason when it cannot."""
        program = self.beside("llama-perplexity")
        if program is None:
            return f"no llama-perplexity beside {self.bench.name}"
        self._run([*self.common(program), "-f", str(text), "-c", str(length), "-b", str(length), "--chunks", str(chunks),
                   "--kl-divergence-base", str(out)], Ask("fidelity"))  # fmt: skip
        return ""


class IkLlama(Llama):
    """ik_llama.cpp, weights repacked at start: its fast form. llama-bench differs in how depth and repacking are said."""

    def common(self, program: Path) -> list[str]:
        return [*super().common(program), "-rtr"]

    def _decode(self, ask: Ask) -> list[str]:
        return ["-p", "0", "-n", "0", "-gp", f"{ask.depth},{ask.tokens}"] if ask.depth else ["-p", "0", "-n", str(ask.tokens)]  # fmt: skip

    def _bench(self, ask: Ask, task: list[str]) -> Answer:
        return super()._bench(ask, [*task, "-rtr", "1"])

    def _batch(self, ask: Ask) -> Answer:
        # Its llama-batched-bench feeds every sequence the same id, so that all choose the same experts; a prompt of as many
        # random ids in one batch does the work of the sequences' step, less the unembedding of all rows but one.
        many = Ask("batch", ask.batch, repeats=3 * ask.tokens)
        return self._bench(many, ["-p", str(ask.batch), "-n", "0"])

    def _plain(self) -> list[str]:
        return ["--special"]


def _last_rate(text: str) -> float:
    """The last test of llama-bench's JSON, which may follow other lines: the median of its repetitions."""
    row = json.loads(text[text.index("[") :])[-1]
    return float(statistics.median(row.get("samples_ts") or [row["avg_ts"]]))
