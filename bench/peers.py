"""motet beside llama.cpp and ik_llama.cpp on the same weights: one table of speeds, memory and fidelity.

    python -m bench.peers --model DIR --llama-bench PATH --ik-llama-bench PATH [--rows prefill,decode0] [--rounds 2]

Takes programs it is given and builds none; others it needs (llama-batched-bench, llama-completion or llama-cli,
llama-perplexity) are looked for beside each llama-bench. Writes the weights as GGUF once, into --work. In every round the
contenders take turns, so that a slow minute of the machine meets all of them. Rows not asked for keep their last figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import fidelity, gguf_file, table
from bench.contenders import Answer, Ask, Contender, IkLlama, Llama, Motet

from motet.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "Why is the sky blue?"
TEXT = ROOT / "LICENSE"
CHUNK, CHUNKS = 512, 4  # tokens a piece and pieces of the text whose logits are compared
PAIR = 2  # layers of the small model: one sliding, one full
SEED = 7
ASKS = {
    "prefill512": Ask("prefill", 512, repeats=2),
    "prefill2048": Ask("prefill", 2048),
    "decode0": Ask("decode", 32, repeats=3),
    "decode4096": Ask("decode", 32, depth=4096),
    "batch8": Ask("batch", 24, batch=8, repeats=2),
    "spin": Ask("decode", 12, spin=2),
}


class Bench:
    """The contenders on the model and on its small cousin, and what was measured so far."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.work = given.work
        self.before = tuple(shlex.split(given.before))
        self.peaks: dict[str, list[float]] = {}  # GB, of the processes that decoded at 4096

    def contenders(self, model: Path) -> list[Contender]:
        """motet last: it is the one that profits least from a processor that clocks down in the course of a round."""
        g, threads = self.given, self.given.threads
        out: list[Contender] = []
        if g.llama_bench:
            out.append(
                Llama(
                    table.LLAMA,
                    self._gguf(model),
                    threads,
                    self.before,
                    g.llama_bench,
                    tuple(shlex.split(g.llama_flags)),
                )
            )
        if g.ik_llama_bench:
            out.append(
                IkLlama(
                    table.IK,
                    self._gguf(model),
                    threads,
                    self.before,
                    g.ik_llama_bench,
                    tuple(shlex.split(g.ik_flags)),
                )
            )
        return [*out, Motet(table.MOTET, model, threads, self.before)]

    def _gguf(self, model: Path) -> Path:
        from motet.pack import fingerprint

        file: Path = self.work / f"{model.resolve().name}-{fingerprint(model)}.gguf"
        if not file.is_file():
            note(f"writing {file}, once")
            gguf_file.write(model, file)
        return file

    def small(self) -> Path:
        """A random checkpoint of the model's shape with one layer of each kind, for figures that the whole makes too dear.

        Its YaRN bounds are whole numbers, as both peers compute them; the published ones are not, which would count as
        the peers' error.
        """
        from motet.config import ModelConfig
        from motet.synth import random_checkpoint

        c = ModelConfig.from_file(self.given.model)
        folder: Path = self.work / f"{self.given.model.resolve().name}-{PAIR}-layers"
        if not folder.is_dir():
            note(f"writing {folder}, once")
            layers = c.layer_types[:PAIR]
            random_checkpoint(
                dataclasses.replace(c, num_hidden_layers=PAIR, layer_types=layers, rope_truncate=True),
                folder,
                seed=SEED,
            )
        return folder

    # -- rows --------------------------------------------------------------------------------------------------------

    def measure(self, row: table.Row) -> dict[str, Any]:
        """One line of the table."""
        if row.name == "fidelity":
            return self._fidelity(row)
        if row.name == "decode32768" and not self.given.whole:
            return self._deep(row)
        if row.name == "memory" and self.peaks:
            return table.line(row, self.peaks, [], "; ".join(NOTES.get(row.name, [])))
        runs: dict[str, list[float]] = {}
        ceilings: list[float] = []
        whys: list[str] = []
        for n in range(self.given.rounds):
            for c in self.contenders(self.given.model):
                answer = self._answer(c, row.name)
                note(
                    f"{row.name}, round {n + 1}, {c.name}: {answer.value if answer.value is None else round(answer.value, 4)} {row.unit}"
                )
                if answer.value is None:
                    whys += [f"{c.name}: {answer.why}"] if n == 0 else []
                    continue
                runs.setdefault(c.name, []).append(answer.value)
                ceilings += [answer.ceiling] if answer.ceiling and row.unit == "tokens/s" else []
        return table.line(row, runs, ceilings, "; ".join(whys + NOTES.get(row.name, [])))

    def _answer(self, c: Contender, name: str) -> Answer:
        if name == "start":
            return c.ask(Ask("start", prompt=prompt(isinstance(c, Motet))))
        if name == "decode32768":
            return c.ask(dataclasses.replace(ASKS["decode4096"], depth=32768))
        answer = c.ask(ASKS["decode4096" if name == "memory" else name])
        if name == "decode4096":
            self.peaks.setdefault(c.name, []).append(answer.peak_bytes / 1e9)
        if name == "memory":
            return dataclasses.replace(answer, value=answer.peak_bytes / 1e9, ceiling=None)
        if name == "spin":
            quiet = c.ask(dataclasses.replace(ASKS[name], spin=0))
            assert answer.value is not None and quiet.value
            note(f"  {c.name}: {answer.value:.3g} of {quiet.value:.3g} tokens/s")
            return dataclasses.replace(answer, value=answer.value / quiet.value, ceiling=None)
        return answer

    def _deep(self, row: table.Row) -> dict[str, Any]:
        """Decode at a depth whose prompt alone would take the slowest peer half an hour: by layers, which are all alike.

        time(whole, deep) = time(whole, empty) + layers / 2 * (time(pair, deep) - time(pair, empty)).
        """
        from motet.config import ModelConfig

        pairs = ModelConfig.from_file(self.given.model).num_hidden_layers / PAIR
        runs: dict[str, list[float]] = {}
        small, whole = self.contenders(self.small()), self.contenders(self.given.model)
        for n in range(self.given.rounds):
            for few, many in zip(small, whole, strict=True):
                deep = few.ask(Ask("decode", 32, depth=32768, repeats=2)).value
                flat = few.ask(Ask("decode", 32, repeats=3)).value
                empty = many.ask(ASKS["decode0"]).value
                assert deep and flat and empty
                value = compose(empty, flat, deep, pairs)
                note(
                    f"{row.name}, round {n + 1}, {few.name}: {value:.4g} (pair {flat:.4g} -> {deep:.4g}, whole empty {empty:.4g})"
                )
                runs.setdefault(few.name, []).append(value)
        return table.line(row, runs, [], "composed: empty cache of the whole model, plus the loss with depth of one sliding and "
                          f"one full layer times {pairs:g} (--whole measures it in one piece)")  # fmt: skip

    def _fidelity(self, row: table.Row) -> dict[str, Any]:
        said, whys = {}, []
        for c in self.contenders(self.small()):
            if not isinstance(c, Llama):
                continue
            out = self.work / f"{c.name}.logits"
            why = c.logits(TEXT, CHUNK, CHUNKS, out)
            if why:
                whys.append(f"{c.name}: {why}")
            else:
                said[c.name] = fidelity.read(out)
                out.unlink()
        if not said:
            raise UserError("Fidelity needs llama-perplexity beside a llama-bench; build it there.")
        with tempfile.TemporaryDirectory(dir=self.work) as packs, environment(MOTET_CACHE=packs):
            found = fidelity.compare(self.small(), said)
        runs = {table.MOTET if name == "motet int8" else name: [f["kl_mean"]] for name, f in found.items()}
        for name, f in found.items():
            note(f"fidelity, {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in f.items()))
        return {**table.line(row, runs, [], "; ".join([*whys, *NOTES["fidelity"]])), "detail": found}


NOTES = {
    "batch8": [f"{table.IK}: a prompt of 8 random ids as one batch (its llama-batched-bench gives all sequences the same id, "
               "and so the same experts)"],
    "fidelity": [f"{PAIR} layers of the model's shape, {CHUNKS * (CHUNK // 2 - 1)} positions of LICENSE"],
}  # fmt: skip


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables for as long as the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def compose(empty: float, flat: float, deep: float, pairs: float) -> float:
    """Tokens/s of the whole model at depth, from three rates; see Bench._deep."""
    return 1 / (1 / empty + pairs * (1 / deep - 1 / flat))


def prompt(bare: bool) -> str:
    """The question as motet takes it, or in Harmony's own words with the same tokens for programs that take those."""
    if bare:
        return QUESTION
    from motet.harmony import Conversation, render
    from motet.tokenizer import o200k_harmony

    encoding = o200k_harmony()
    conversation = Conversation.from_chat([{"role": "user", "content": QUESTION}])
    return encoding.decode(render(conversation, encoding))


def note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def circumstances(given: argparse.Namespace) -> dict[str, Any]:
    """What a figure was measured under."""
    from motet.bench import cpu_name

    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return {"date": time.strftime("%Y-%m-%d %H:%M"), "motet": commit.stdout.strip() or "unknown", "cpu": cpu_name(),
            "threads": given.threads, "rounds": given.rounds, "llama.cpp": given.llama_version,
            "ik_llama.cpp": given.ik_version, "llama flags": given.llama_flags, "ik flags": f"-rtr {given.ik_flags}".strip()}  # fmt: skip


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked. Exits with one sentence on what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--model", type=Path, required=True, help="a gpt-oss checkpoint with MXFP4 experts")
    add("--llama-bench", type=Path, help="llama.cpp's llama-bench")
    add("--ik-llama-bench", type=Path, help="ik_llama.cpp's llama-bench")
    add("--rows", default=",".join(row.name for row in table.ROWS), help="rows by name or start of a name")
    add("--rounds", type=int, default=2, help="times that every contender takes its turn")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--llama-flags", default="-lm none", help="appended to every llama.cpp command")
    add("--ik-flags", default="", help="appended to every ik_llama.cpp command")
    add("--llama-version", default="", help="noted in the results")
    add("--ik-version", default="", help="noted in the results")
    add("--before", default="", help="a command put before every measured one: taskset, a lock")
    add(
        "--whole",
        action="store_true",
        help="decode at 32768 with the whole model; the slowest peer takes half an hour",
    )
    add(
        "--work", type=Path, default=Path("build/peers"), help="where GGUF files and the small model are kept"
    )
    add("--out", type=Path, help="the JSON to write; its CSV stands beside it")
    given = parser.parse_args(argv)
    for name in ("model", "llama_bench", "ik_llama_bench", "work"):
        path = getattr(given, name)
        setattr(given, name, path and path.absolute())
    for path in (given.llama_bench, given.ik_llama_bench):
        if path is not None and not (path.is_file() and os.access(path, os.X_OK)):
            parser.error(f"{path} is no program; build llama-bench and give its path.")
    if given.llama_bench is None and given.ik_llama_bench is None:
        parser.error("there is no peer; give --llama-bench PATH, --ik-llama-bench PATH, or both.")
    if not (given.model / "config.json").is_file():
        parser.error(f"{given.model} has no config.json; give the folder of a checkpoint with --model.")
    try:
        given.rows = table.choose(given.rows)
    except ValueError as unknown:
        parser.error(f"there is no row {unknown}; choose from {', '.join(row.name for row in table.ROWS)}.")
    return given


def main(argv: list[str] | None = None) -> None:
    given = arguments(argv)
    given.work.mkdir(parents=True, exist_ok=True)
    head = circumstances(given)
    slug = "-".join(
        "".join(c if c.isalnum() else " " for c in f"{head['cpu']} {given.threads} threads").lower().split()
    )
    out = given.out or ROOT / "bench" / "results" / f"{slug}.json"
    bench = Bench(given)
    try:
        for row in given.rows:
            held = table.merge(out, head, [bench.measure(row)])
            table.save(out, held)
    except UserError as error:
        sys.exit(f"python -m bench.peers: {error}")
    print(table.markdown(held))


if __name__ == "__main__":
    main()
