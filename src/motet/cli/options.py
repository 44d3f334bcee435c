"""Options that several commands share, each declared once. Knows names and help texts, no behaviour."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from motet.errors import UsageError

Effort = Literal["low", "medium", "high"]
Precision = Literal["int8", "bf16", "float32"]
Kv = Literal["bf16", "int8"]

ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="M", help="mini, a name from 'motet models', or a folder.")
]
EffortOption = Annotated[Effort, typer.Option("--effort", "-e", help="How long the model thinks.")]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="Arithmetic of the matrix products.")]
KvOption = Annotated[
    Kv | None,
    typer.Option(
        "--kv", help="Keys and values: bf16 (the default), or int8 in half the memory, a little less exact."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, max=256, help="Native threads; the default is all cores."),
]
KvMemoryOption = Annotated[
    str | None,
    typer.Option(
        "--kv-memory", metavar="SIZE",
        help="Memory for keys and values, such as 512M or 4G; the default is a quarter of the machine's.",
    ),
]  # fmt: skip
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout; everything else on stderr.")
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", help="Stop after N sampled tokens.")
]
Temperature = Annotated[float | None, typer.Option("--temperature", metavar="T", help="0 is greedy.")]
TopP = Annotated[float | None, typer.Option("--top-p", metavar="P", help="Nucleus sampling.")]
TopK = Annotated[int | None, typer.Option("--top-k", metavar="K", help="0 is off.")]
MinP = Annotated[float | None, typer.Option("--min-p", metavar="P", help="Relative to the likeliest token.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="S", help="Same seed, same prompt: same bits.")]


def n_bytes(size: str | None) -> int | None:
    """Bytes of a size such as 512M, 4G or 1.5GiB (powers of 1024); None for None."""
    if size is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", size.strip(), re.IGNORECASE)
    value = float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ") if match else 0.0
    if value < 1:
        raise UsageError(f"--kv-memory is '{size}'; give a size such as 512M or 4G.")
    return int(value)


MaxReasoning = Annotated[
    int | None,
    typer.Option(
        "--max-reasoning-tokens",
        metavar="N",
        min=0,
        help="Thinking ends after N tokens and the answer begins.",
    ),
]
ToolChoice = Annotated[
    str, typer.Option("--tool-choice", metavar="C", help="auto, none, required, or the name of a tool.")
]
JsonSchema = Annotated[
    Path | None,
    typer.Option("--json-schema", metavar="FILE", help="Hold the answer to the JSON Schema in a file."),
]
Grammar = Annotated[
    Literal["on", "off"],
    typer.Option("--grammar", help="Hold the output to the format, so that none is malformed."),
]
