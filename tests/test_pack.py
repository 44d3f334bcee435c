"""Packs: whole or absent, rebuilt when the source changes, refused with one sentence when they cannot be written."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from motet.checkpoint import open_checkpoint
from motet.config import ModelConfig
from motet.errors import UserError
from motet.kernels import bf16_to_f32
from motet.mxfp4 import dequantize
from motet.pack import Pack, PackError, ensure_pack, pack_path, quantize_checkpoint, read_header
from motet.synth import random_checkpoint


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MOTET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_checkpoint(ModelConfig.tiny(), tmp_path / "model", layout="hf", seed=0, experts="mxfp4")
    return tmp_path / "model"


def test_a_pack_holds_the_checkpoint(folder: Path) -> None:
    source, pack = open_checkpoint(folder), Pack(ensure_pack(folder, "float32"))
    names = (
        "mlp.mlp1_weight.blocks",
        "mlp.mlp1_weight.scales",
        "mlp.mlp2_weight.blocks",
        "mlp.mlp2_weight.scales",
    )
    b1, s1, b2, s2 = (source.tensor("block.0." + n).data for n in names)
    w1 = dequantize(np.asarray(b1), np.asarray(s1))
    packed = pack.matrix("block.0.mlp.mlp1_weight")
    for e in range(source.config.num_experts):
        gate, up = packed.dense_pair(e)
        np.testing.assert_array_equal(gate, w1[e, ::2])
        np.testing.assert_array_equal(up, w1[e, 1::2])
    np.testing.assert_array_equal(
        pack.matrix("block.0.mlp.mlp2_weight").dense(1), dequantize(np.asarray(b2), np.asarray(s2))[1]
    )
    np.testing.assert_array_equal(
        pack.matrix("block.1.attn.qkv.weight").dense(), source.tensor("block.1.attn.qkv.weight").float32()
    )
    np.testing.assert_array_equal(
        pack.array("block.1.attn.sinks"), source.tensor("block.1.attn.sinks").float32()
    )
    table = pack.array("embedding.weight")
    table = bf16_to_f32(table) if table.dtype == np.uint16 else table
    np.testing.assert_array_equal(table, source.tensor("embedding.weight").float32())
    assert pack.config == source.config


def test_it_is_made_once_and_again_when_the_source_changes(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = ensure_pack(folder, "int8", lambda done, total: calls.append((done, total)))
    assert calls and calls[-1][0] == calls[-1][1]
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(calls))
    made = first.stat().st_mtime_ns
    assert ensure_pack(folder, "int8") == first and first.stat().st_mtime_ns == made
    tensors = next(folder.glob("*.safetensors"))
    os.utime(tensors, ns=(1, 1))
    assert ensure_pack(folder, "int8") != first
    assert ensure_pack(folder, "bf16") != ensure_pack(folder, "int8")


def test_rows_read_from_the_file_are_the_mapped_ones(folder: Path) -> None:
    pack = Pack(ensure_pack(folder, "int8"))
    ids = np.array([3, 0, 3, pack.config.vocab_size - 1])
    assert np.array_equal(pack.rows("embedding.weight", ids), pack.array("embedding.weight")[ids])
    assert pack.rows("embedding.weight", ids[:0]).shape == (0, pack.config.hidden_size)
    os.truncate(pack.path, pack.nbytes // 4096)
    with pytest.raises(PackError, match="cut short"):
        pack.rows("embedding.weight", ids)


@pytest.mark.parametrize("harm", ["short", "long", "magic", "empty", "header"])
def test_a_damaged_pack_is_never_trusted(folder: Path, harm: str) -> None:
    path = ensure_pack(folder, "int8")
    whole = path.read_bytes()
    damaged = {
        "short": whole[:-1], "long": whole + b"x", "magic": b"X" + whole[1:], "empty": b"",
        "header": whole[:40] + b"\x00" + whole[41:],
    }[harm]  # fmt: skip
    path.write_bytes(damaged)
    assert read_header(path) is None
    with pytest.raises(PackError, match="delete it"):
        Pack(path)
    assert ensure_pack(folder, "int8").read_bytes() == whole


def test_no_room_is_said_before_anything_is_written(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(PackError, match=r"needs .* GB .* MOTET_CACHE"):
        ensure_pack(folder, "int8")
    assert list(cache.iterdir()) == []


def test_ctrl_c_leaves_nothing_and_a_kill_leaves_nothing_trusted(tmp_path: Path, cache: Path) -> None:
    shape = ModelConfig.gpt_oss_20b()
    shape = dataclasses.replace(
        shape, num_hidden_layers=2, layer_types=shape.layer_types[:2], num_experts=8, vocab_size=20000
    )
    random_checkpoint(shape, tmp_path / "big", layout="hf", seed=0, experts="mxfp4")
    code = "import sys; from motet.pack import ensure_pack; ensure_pack(sys.argv[1], 'int8')"
    for sent in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "big")], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not list(cache.glob("*.partial")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(sent)
        assert process.wait(60) != 0
        assert list(cache.glob("*.motet")) == []
        if sent == signal.SIGINT:
            assert list(cache.iterdir()) == []
    path = ensure_pack(tmp_path / "big", "int8")
    assert [path] == list(cache.iterdir()), "what the killed process left is cleared away"
    assert read_header(path) is not None


def test_a_scale_that_is_not_a_number_is_refused(folder: Path) -> None:
    """E8M0 255 is NaN; every weight of its block would be."""
    path = next(folder.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    n = int.from_bytes(data[:8], "little")
    begin, _ = json.loads(data[8 : 8 + n])["model.layers.1.mlp.experts.down_proj_scales"]["data_offsets"]
    data[8 + n + begin] = 255
    path.write_bytes(data)
    with pytest.raises(PackError, match=r"block\.1\.mlp\.mlp2_weight\.scales holds 255"):
        ensure_pack(folder, "int8")


def test_quantising_a_plain_checkpoint(tmp_path: Path) -> None:
    random_checkpoint(ModelConfig.tiny(), tmp_path / "plain", layout="hf", seed=0, experts="bfloat16")
    quantize_checkpoint(tmp_path / "plain", tmp_path / "small")
    plain, small = open_checkpoint(tmp_path / "plain"), open_checkpoint(tmp_path / "small")
    assert (plain.experts, small.experts) == ("bfloat16", "mxfp4")
    w = plain.tensor("block.0.mlp.mlp2_weight").float32()
    q = dequantize(
        np.asarray(small.tensor("block.0.mlp.mlp2_weight.blocks").data),
        np.asarray(small.tensor("block.0.mlp.mlp2_weight.scales").data),
    )
    top = np.abs(w).reshape(*w.shape[:-1], -1, 32).max(-1, keepdims=True)
    # Values up to 6 * 2^e are kept with steps of at most 2 * 2^e; above 6 they are cut at 6 (top below 8 * 2^e).
    assert (np.abs(q - w).reshape(*w.shape[:-1], -1, 32) <= top / 4 * (1 + 1e-6)).all()
    with pytest.raises(PackError, match="MXFP4 already"):
        quantize_checkpoint(tmp_path / "small", tmp_path / "again")


def test_bad_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        ensure_pack(tmp_path / "nowhere", "int8")
    with pytest.raises(UserError, match="int8, bf16, float32"):
        ensure_pack(tmp_path, "fp4")
    assert not pack_path(tmp_path, "int8").exists()
