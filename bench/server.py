"""The server under load: what it adds to the engine, how it holds out, and llama-server beside it where that can do the work.

    python -m bench.server --part added                       16 streams: the engine alone, with turns, and over HTTP, in turns
    python -m bench.server --part load --minutes 10           1, 16, 64 and 256 streams with slow, leaving and garbled clients
    python -m bench.server --part peer --llama-server PATH    the same prompts to llama-server, which gets the model as GGUF

Everything runs on the embedded model unless --model names another; questions, seeds and budgets are fixed, so every part
does the same work. The client (bench/wire.py) is on the same machine and takes its share of it. With --json one object, last.
--record FILE keeps the figures (bench/results).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.load import CHAT, GROWTH_MB, Json, Load, at_rest
from bench.wire import Heard, ask_json

from motet.errors import UserError


def body(n: int, tokens: int) -> Json:
    """Request number n: a question of its own, at high effort, sampled with a seed of its own; every model answers to `mini`."""
    question = f"Use {n % 9 + 1}, {n % 7 + 8}, {n % 5 + 15} to make {20 + n % 30}."
    out: Json = {
        "model": "mini",
        "messages": [{"role": "user", "content": question}],
        "seed": n,
        "max_tokens": tokens,
    }
    return out | {
        "reasoning_effort": "high",
        "temperature": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def quantiles(values: Sequence[float]) -> Json:
    """p50, p99 and the greatest, in milliseconds."""
    if not values:
        return {"p50": None, "p99": None, "max": None}
    ordered = sorted(values)
    pick = {"p50": ordered[len(ordered) // 2], "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], "max": ordered[-1]}  # fmt: skip
    return {k: round(1e3 * v, 3) for k, v in pick.items()}


def gaps(times: Sequence[float]) -> list[float]:
    """Between one piece and the next."""
    return [b - a for a, b in pairwise(times)]


# --- the server's process ---


@contextmanager
def serving(given: argparse.Namespace, batch: int) -> Iterator[tuple[str, int]]:
    """(URL, process id) of a server of its own, which is ended as an operator would end it."""
    command = [
        sys.executable,
        "-m",
        "motet",
        "serve",
        "--port",
        "0",
        "--model",
        given.model,
        "--name",
        "mini",
        "--store",
        "none",
    ]
    command += ["--max-batch", str(batch), "--kv-memory", str(given.kv_memory)]
    if given.threads:
        command += ["--threads", str(given.threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = ""
        while " answers at " not in said:
            said = process.stdout.readline()
            if not said:
                raise UserError("The server did not start.")
        try:
            yield said.split(" answers at ")[1].split("/v1")[0].strip(), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait(60) != 0:
                raise UserError(f"The server ended with {process.returncode}.")


def used_s(pid: int) -> float:
    """Seconds of processor time a process has used."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


# --- what the server adds ---


def alone(given: argparse.Namespace, turns: bool) -> Json:
    """The same requests without HTTP, a thread for each stream: bare tokens, or turns with grammar and parser."""
    from motet.engine import Engine, SamplingParams
    from motet.harmony import Conversation, Rules, render
    from motet.library import find
    from motet.model import load
    from motet.turn import run_turn

    model = load(find(given.model), threads=given.threads)
    tokens, firsts, between, lock = 0, [], [], threading.Lock()

    def one(n: int) -> None:
        nonlocal tokens
        ask = body(n, given.tokens)
        params = SamplingParams(temperature=1.0, seed=n, max_tokens=given.tokens)
        conversation = Conversation.from_chat(ask["messages"], effort="high")
        began = time.perf_counter()
        if turns:
            pieces = run_turn(engine, conversation, model.encoding, params, rules=Rules())
        else:
            stops = (model.encoding.special("<|return|>"), model.encoding.special("<|call|>"))
            pieces = engine.stream(render(conversation, model.encoding), _with_stops(params, stops))
        times, count = [], 0
        for piece in pieces:
            times.append(time.perf_counter() - began)
            count += len(getattr(piece, "ids", ())) if turns else 1
        with lock:
            tokens += count
            firsts.append(times[0])
            between.extend(gaps(times))

    with Engine(model, max_batch=given.streams) as engine:
        _together(one, given.streams, given.streams)  # warm
        tokens, firsts, between = 0, [], []
        cpu, began = time.process_time(), time.perf_counter()
        _together(one, given.streams, given.streams * given.repeats)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return _row(tokens, wall, cpu, firsts, between)


def _with_stops(params: Any, stops: tuple[int, ...]) -> Any:
    import dataclasses

    return dataclasses.replace(params, stop_token_ids=stops)


def _together(work: Callable[[int], None], streams: int, count: int) -> None:
    """`count` pieces of work, `streams` at a time."""
    numbers = iter(range(count))
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                n = next(numbers, None)
            if n is None:
                return
            work(n)

    threads = [threading.Thread(target=run) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _row(tokens: int, wall: float, cpu: float, firsts: list[float], between: list[float]) -> Json:
    return {"tokens": tokens, "seconds": round(wall, 3), "tokens_per_s": round(tokens / wall, 1),
            "us_per_token": round(1e6 * wall / tokens, 1), "cpu_us_per_token": round(1e6 * cpu / tokens, 1),
            "first_ms": quantiles(firsts), "gap_ms": quantiles(between)}  # fmt: skip


async def drive(
    url: str, given: argparse.Namespace, repeats: int, ask_one: Callable[[str, int], Any]
) -> Json:
    """`repeats` requests of each stream over HTTP. `ask_one(url, n)` gives what was heard and the tokens sampled."""
    numbers, heard, tokens = iter(range(given.streams * repeats)), list[Heard](), 0

    async def run() -> None:
        nonlocal tokens
        for n in numbers:
            one, said = await ask_one(url, n)
            heard.append(one)
            tokens += said

    own, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(run() for _ in range(given.streams)))
    wall, own = time.perf_counter() - began, time.process_time() - own
    wrong = Counter(f"{h.status} {h.ended}" for h in heard if h.status != 200 or h.ended != "done")
    row = _row(
        max(1, tokens),
        wall,
        0.0,
        [h.said[0] for h in heard if h.said],
        [g for h in heard for g in gaps(h.said)],
    )
    return row | {"client_cpu_us_per_token": round(1e6 * own / max(1, tokens), 1), "wrong": dict(wrong)}


def measured(given: argparse.Namespace, url: str, pid: int, ask_one: Callable[[str, int], Any]) -> Json:
    """`drive` after a round that warms up, with the processor time of the server's process."""
    asyncio.run(drive(url, given, 1, ask_one))
    cpu = used_s(pid)
    row = asyncio.run(drive(url, given, given.repeats, ask_one))
    row["cpu_us_per_token"] = round(1e6 * (used_s(pid) - cpu) / row["tokens"], 1)
    return row


def over_http(given: argparse.Namespace) -> Json:
    """The same requests over HTTP; `cpu_us_per_token` is that of the server's process."""

    async def ask_one(url: str, n: int) -> tuple[Heard, int]:
        heard = await ask_json(url, CHAT, body(n, given.tokens))
        return heard, int(heard.usage().get("completion_tokens", 0))

    with serving(given, given.streams) as (url, pid):
        return measured(given, url, pid, ask_one)


def added(given: argparse.Namespace) -> Json:
    """Engine, turns and server, one after the other and again; medians, and what each adds to the one before."""
    levels: dict[str, list[Json]] = {"engine": [], "turns": [], "server": []}
    for _ in range(given.rounds):
        for name, rows in levels.items():
            rows.append(over_http(given) if name == "server" else _apart(given, name))
            tell(f"{name}: {rows[-1]['us_per_token']} us a token, gap {rows[-1]['gap_ms']['p50']} ms")
    out: Json = {name: _median(rows) for name, rows in levels.items()}
    for name in ("turns", "server"):
        out[name]["added_us_per_token"] = round(out[name]["us_per_token"] - out["engine"]["us_per_token"], 1)
        out[name]["added_gap_ms"] = round(out[name]["gap_ms"]["p50"] - out["engine"]["gap_ms"]["p50"], 3)
    return out


def _apart(given: argparse.Namespace, level: str) -> Json:
    """In a process of its own, as the server is."""
    command = [sys.executable, "-m", "bench.server", "--alone", level, "--model", given.model, "--streams", str(given.streams)]  # fmt: skip
    command += ["--tokens", str(given.tokens), "--repeats", str(given.repeats), "--json"]
    command += ["--threads", str(given.threads)] if given.threads else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"The engine alone could not be measured: {done.stderr[-500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- llama-server ---


@contextmanager
def llama_serving(given: argparse.Namespace, folder: Path) -> Iterator[tuple[str, int]]:
    """(URL, process id) of a llama-server with the same weights and as many slots as there are streams."""
    from bench.gguf_file import write

    from motet.library import find

    file, port = write(find(given.model), folder / "model.gguf"), free_port()
    command = [
        str(given.llama_server),
        "-m",
        str(file),
        "-np",
        str(given.streams),
        "-c",
        str(given.streams * 1024),
        "-fa",
        "on",
    ]
    command += ["-t", str(given.threads or os.cpu_count()), "--port", str(port), "--no-webui"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
        try:
            while not answers(url):
                if process.poll() is not None or time.monotonic() > end:
                    raise UserError("llama-server did not start; run it by hand to see why.")
                time.sleep(0.1)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait(60)


def answers(url: str) -> bool:
    """Whether a server is ready."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    """A port nobody listens on just now."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def over_llama(given: argparse.Namespace, folder: Path) -> Json:
    """The same prompts as ids, raw tokens back: no grammar, no parser, no channels, which motet's figure does include."""
    from motet.harmony import Conversation, render
    from motet.library import find
    from motet.tokenizer import load_encoding

    encoding = load_encoding(find(given.model))

    async def ask_one(url: str, n: int) -> tuple[Heard, int]:
        ids = render(Conversation.from_chat(body(n, 1)["messages"], effort="high"), encoding)
        asked = {"prompt": ids, "n_predict": given.tokens, "seed": n, "stream": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}  # fmt: skip
        heard = await ask_json(url, "/completion", asked)
        return heard, int(json.loads(heard.events[-1])["tokens_predicted"])

    with llama_serving(given, folder) as (url, pid):
        return measured(given, url, pid, ask_one)


def peer(given: argparse.Namespace) -> Json:
    """Both servers in turns; medians."""
    import tempfile

    if given.llama_server is None or not given.llama_server.is_file():
        raise UserError("--part peer needs --llama-server PATH; build llama.cpp and give its llama-server.")
    rows: dict[str, list[Json]] = {"motet": [], "llama-server": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.rounds):
            rows["llama-server"].append(over_llama(given, Path(folder)))
            rows["motet"].append(over_http(given))
            tell("; ".join(f"{name}: {r[-1]['tokens_per_s']} tokens/s" for name, r in rows.items()))
    return {name: _median(of) for name, of in rows.items()}


def _median(rows: list[Json]) -> Json:
    return sorted(rows, key=lambda r: float(r["us_per_token"]))[len(rows) // 2]


# --- load ---


def load(given: argparse.Namespace) -> Json:
    """Every level for its share of the minutes, on one server; then whether it holds more than when it was warm."""
    levels = [int(n) for n in given.levels.split(",")]
    share = 60 * given.minutes / len(levels)
    out: Json = {"seconds_a_level": share, "levels": {}}
    with serving(given, given.streams) as (url, pid):
        clients = Load(url, lambda n: body(n, given.tokens), given.questions)
        asyncio.run(clients.warm(max(levels)))
        rest = asyncio.run(at_rest(url, pid))
        tell(f"warm: {rest}")
        for streams in levels:
            before, cpu, began = rest, used_s(pid), time.perf_counter()
            tally = asyncio.run(clients.level(streams, share))
            wall, cpu = time.perf_counter() - began, used_s(pid) - cpu
            rest = asyncio.run(at_rest(url, pid))
            row = _row(max(1, tally.tokens), wall, cpu, tally.firsts, tally.gaps)
            row |= {
                "clients": dict(tally.kinds),
                "statuses": dict(tally.statuses),
                "wrong": dict(tally.wrong),
            }
            row |= {"differing": tally.differing, "before": before, "after": rest}
            row["grew"] = _grew(given, before, rest)
            out["levels"][str(streams)] = row
            tell(f"{streams} streams: {row['tokens_per_s']} tokens/s, first {row['first_ms']}, gap {row['gap_ms']}, "
                 f"wrong {row['wrong']}, differing {row['differing']}, after {rest}")  # fmt: skip
    out["fine"] = not any(r["wrong"] or r["differing"] or r["grew"] for r in out["levels"].values())
    return out


def _grew(given: argparse.Namespace, before: Json, after: Json) -> list[str]:
    """What there is more of at rest than there was; keys and values fill their budget and no more."""
    out = [
        name
        for name, room in (("mb", GROWTH_MB), ("threads", 4), ("files", 4))
        if after[name] > before[name] + room
    ]
    out += ["kv_mb"] if after["kv_mb"] > 1024 * given.kv_memory else []
    return out + (["under_way"] if after["under_way"] else [])


def record(part: str, given: argparse.Namespace, result: Json) -> None:
    """Keeps the last figures of each part."""
    given.record.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(given.record.read_text()) if given.record.is_file() else {}
    known[part] = {"streams": given.streams, "tokens": given.tokens, "model": given.model, **result}
    given.record.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def tell(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=list(PARTS), default="added")
    parser.add_argument("--alone", choices=["engine", "turns"], help=argparse.SUPPRESS)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=400, help="of an answer at most")
    parser.add_argument("--repeats", type=int, default=8, help="requests of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--levels", default="1,16,64,256", help="load: clients at once")
    parser.add_argument("--questions", type=int, default=256, help="load: different ones")
    parser.add_argument("--minutes", type=float, default=10.0, help="load: of all levels together")
    parser.add_argument(
        "--kv-memory", type=float, default=0.05, help="GiB; little, so that it is full all the time"
    )
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--record", type=Path, help="a JSON file that keeps the figures of each part")
    given = parser.parse_args()
    try:
        result = alone(given, given.alone == "turns") if given.alone else PARTS[given.part](given)
    except UserError as e:
        sys.exit(f"bench: {e}")
    if given.record:
        record(given.part, given, result)
    print(json.dumps(result) if given.json else json.dumps(result, indent=1))


PARTS = {"added": added, "load": load, "peer": peer}


if __name__ == "__main__":
    main()
