"""Tokens per second of motet's o200k_harmony and of tiktoken on the same texts, in turns, in one process.

    python bench/tokenizer.py [--characters 400000] [--rounds 5]

Both are given the same texts in turn, so that a busy machine slows both; the best round of each counts. Ids are compared
before anything is timed. Knows nothing of models.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import Any

import tiktoken

from motet.tokenizer import O200K_PATTERN, o200k_harmony, read_o200k


def texts(characters: int) -> dict[str, str]:
    """Made-up texts of several kinds, each `characters` long."""
    rng = random.Random(0)
    words = [
        "the",
        "model",
        "answers",
        "question",
        "because",
        "of",
        "a",
        "number",
        "Tokyo",
        "it's",
        "thinking",
        "42",
        "3.14",
    ]
    prose = " ".join(
        rng.choice(words) + rng.choice(["", "", "", ",", ".", ".\n\n"]) for _ in range(characters // 4)
    )
    code = "\n".join(
        f"    if x_{rng.randrange(99)} > {rng.randrange(9999)}:  # {rng.choice(words)}"
        for _ in range(characters // 20)
    )
    han = "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(characters))
    planes = "".join(
        chr(rng.choice([rng.randrange(0x20, 0x3000), rng.randrange(0x1F300, 0x1F700)]))
        for _ in range(characters)
    )
    made = {"English words": prose, "program": code, "Chinese characters": han, "mixed characters": planes}
    return {name: text[:characters] for name, text in made.items()} | {"spaces": " " * characters}


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print one line per kind of text."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--characters", type=int, default=400_000, help="length of each text")
    options.add_argument("--rounds", type=int, default=5, help="the best of this many counts")
    chosen = options.parse_args()
    ours = o200k_harmony()
    ranks = {token: rank for rank, token in enumerate(read_o200k())}
    theirs = tiktoken.Encoding("o200k_base", pat_str=O200K_PATTERN, mergeable_ranks=ranks, special_tokens={})
    print(
        f"{'million tokens/s':20}{'encode':>10}{'tiktoken':>10}{'decode':>10}{'tiktoken':>10}{'streamed':>10}"
    )
    for name, text in texts(chosen.characters).items():
        ids = ours.encode(text)
        if ids != theirs.encode_ordinary(text) or ours.decode(ids) != text:
            raise SystemExit(f"{name}: the ids differ from tiktoken's; there is nothing to time.")
        stream = ours.stream_decoder()
        works: list[Callable[[], Any]] = [
            lambda text=text: ours.encode(text),
            lambda text=text: theirs.encode_ordinary(text),
            lambda ids=ids: ours.decode(ids),
            lambda ids=ids: theirs.decode(ids),
            lambda ids=ids, stream=stream: ("".join(map(stream.feed, ids)), stream.flush()),
        ]
        rounds = [[seconds(work) for work in works] for _ in range(chosen.rounds)]
        best = [min(column) for column in zip(*rounds, strict=True)]
        print(f"{name:20}" + "".join(f"{len(ids) / t / 1e6:10.2f}" for t in best))


if __name__ == "__main__":
    main()
