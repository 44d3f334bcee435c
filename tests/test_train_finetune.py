"""Fine-tuning: many processes learn what one does, checkpoints go on with another number, and write-back keeps what was not trained."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from motet.checkpoint import open_checkpoint  # noqa: E402
from motet.errors import UserError  # noqa: E402
from motet.library import embedded_folder  # noqa: E402
from motet.reference import Reference  # noqa: E402
from motet.synth import synth  # noqa: E402
from motet.tasks import TASKS  # noqa: E402
from motet.tokenizer import load_encoding  # noqa: E402
from motet.train import finetune  # noqa: E402
from motet.train.data import Row  # noqa: E402

MXFP4 = (".mlp1_weight.blocks", ".mlp1_weight.scales", ".mlp2_weight.blocks", ".mlp2_weight.scales")


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, path = random.Random(1), tmp_path_factory.mktemp("chats") / "chats.jsonl"
    with path.open("w") as file:
        for _ in range(12):
            e = TASKS["multiplication"].example(rng, "low", "train")
            messages = [{"role": "user", "content": e.prompt}, {"role": "assistant", "content": e.final}]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def _run(processes: int, chats: Path, out: Path, *more: str) -> list[float]:
    """The losses of a run of the command, by torchrun where there is more than one process."""
    how = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        if processes > 1
        else []
    )
    command = [sys.executable, *how, "-m", "motet.train.finetune", "mini", "--data", str(chats), "--out", str(out),
               "--batch", "5", "--rate", "1e-3", *more]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MOTET_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line)["loss"] for line in done.stdout.splitlines() if line.startswith("{")]


def test_two_processes_learn_what_one_does_and_a_run_goes_on_with_another_number(
    chats: Path, tmp_path: Path
) -> None:
    one = _run(1, chats, tmp_path / "one", "--steps", "4")
    two = _run(2, chats, tmp_path / "two", "--steps", "2")
    more = _run(1, chats, tmp_path / "two", "--steps", "4")
    assert len(one) == 4 and len(two) == len(more) == 2 and one[-1] < one[0]
    # Sums in another order: float32 differences, grown over AdamW's first steps of the size of the rate.
    assert np.allclose(one, two + more, rtol=2e-3)
    a, b = (Reference.from_checkpoint(tmp_path / n).state_dict() for n in ("one", "two"))
    close = [torch.isclose(a[n], b[n], rtol=0.02, atol=2e-3).float().mean().item() for n in a]
    assert min(close) > 0.98
    assert load_encoding(tmp_path / "two").special("<|call|>") == load_encoding(embedded_folder()).special(
        "<|call|>"
    )


def _rows() -> list[Row]:
    g = random.Random(3)
    lengths = (17, 40, 5)
    return [Row([g.randrange(100) for _ in range(n)], [False] + [True] * (n - 1)) for n in lengths]


@pytest.mark.parametrize("layout", ["hf", "openai"])
@pytest.mark.parametrize("rank", [0, 4])
def test_either_layout_in_and_out(tmp_path: Path, layout: str, rank: int) -> None:
    """Whole: what is stored is the trained model, experts rounded once. LoRA: experts keep their very bytes."""
    source = tmp_path / "source"
    synth("tiny", source, layout=layout)
    job = finetune.begin(source, rank, rate=1e-2)
    losses = [finetune.learn(job, _rows(), 64) for _ in range(6)]
    assert losses[-1] < losses[0]
    before = open_checkpoint(source)
    for out_layout in ("hf", "openai"):
        finetune.write_back(job, source, tmp_path / out_layout, out_layout)
        after = open_checkpoint(tmp_path / out_layout)
        assert after.layout == out_layout
        same = {n: np.array_equal(before.tensor(n).data, after.tensor(n).data) for n in before.names()}
        experts = [n for n in same if n.endswith(MXFP4)]
        assert experts and all(same[n] for n in experts) == bool(rank)
        if rank:
            changed = {n.split(".", 2)[2] for n in same if not same[n]}
            assert changed == {"attn.qkv.weight", "attn.out.weight"}
        stored = Reference.from_checkpoint(tmp_path / out_layout)
        ids = torch.arange(30)[None]
        with torch.no_grad():
            found, wanted = stored(ids), job.model(ids)
        if rank:  # all that is lost is bfloat16's rounding of two matrices a layer
            assert float((found - wanted).norm()) < 0.02 * float(wanted.norm())


@pytest.mark.skipif(
    os.environ.get("MOTET_FUZZ") != "full", reason="takes 8 GB and minutes; MOTET_FUZZ=full runs it"
)
def test_a_slice_of_the_20b(tmp_path: Path) -> None:
    """One layer of the published shape, LoRA in bfloat16, written back: the experts' bytes are untouched."""
    source = tmp_path / "source"
    synth("20b-1-layers", source)
    job = finetune.begin(source, 8, rate=1e-3, dtype=torch.bfloat16)
    losses = [finetune.learn(job, _rows(), 64) for _ in range(3)]
    assert losses[-1] < losses[0]
    finetune.write_back(job, source, tmp_path / "out", "openai")
    before, after = open_checkpoint(source), open_checkpoint(tmp_path / "out")
    for name in before.names():
        if name.endswith(MXFP4):
            assert np.array_equal(before.tensor(name).data, after.tensor(name).data), name


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "line 2, is no chat"), ('{"messages": 3}', "line 2, is no chat"),
     ('{"messages": [{"role": "user", "content": "q"}]}', "line 2, has no answer after its last user's message")],
)  # fmt: skip
def test_bad_chats_are_named_by_their_line(chats: Path, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(chats.read_text().splitlines()[0] + "\n" + line + "\n")
    with pytest.raises(UserError, match=message):
        finetune.read_chats(path, load_encoding(embedded_folder()))
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no chats"):
        finetune.read_chats(tmp_path / "none.jsonl", load_encoding(embedded_folder()))


def test_bad_usage_of_the_command(chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common: list[Any] = ["--data", str(chats), "--out", str(tmp_path / "out")]
    assert finetune.main(["mini", *common, "--steps", "0"]) == 2
    assert finetune.main(["no-such-model", *common]) == 1
    assert capsys.readouterr().err.count("finetune:") == 2
