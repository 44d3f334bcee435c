"""Checkpoints: both layouts against transformers and against each other, and every way a folder can be wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from motet import checkpoint as ck
from motet.checkpoint import (
    CheckpointError,
    Tensor,
    UnknownTensor,
    open_checkpoint,
    tensor_shapes,
    write_checkpoint,
)
from motet.config import ConfigError, ModelConfig
from motet.mxfp4 import dequantize, quantize

TINY = ModelConfig.tiny()
Weights = dict[str, np.ndarray]
LAYOUTS = ("hf", "openai")


def weights(config: ModelConfig = TINY, seed: int = 0) -> Weights:
    """Random values that bfloat16 holds exactly, under the plain names."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in tensor_shapes(config, "bfloat16").items():
        bits = rng.standard_normal(shape).astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        out[name] = bits.view(np.float32)
    if config.tie_word_embeddings:
        out["unembedding.weight"] = out["embedding.weight"]
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole checkpoint in HF layout with bf16 experts, in one file."""
    return write_checkpoint(tmp_path / "model", TINY, weights().__getitem__, experts="bfloat16")


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], body: bytes | None = None) -> None:
    """Put a changed header before the old (or given) bytes."""
    table, old = header(path)
    change(table)
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + (old if body is None else body))


def complaint(folder: Path) -> str:
    """The one sentence that opening a bad folder gives."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    text = str(caught.value)
    assert "\n" not in text and text.endswith((".", "?")), text
    return text


# --- what is written is what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("experts", ["bfloat16", "float32"])
@pytest.mark.parametrize("shard", [10**9, 60_000, 1])
def test_plain_experts_come_back_bit_for_bit(tmp_path: Path, layout: str, experts: str, shard: int) -> None:
    w, seen = weights(), []
    write_checkpoint(tmp_path, TINY, w.__getitem__, layout=layout, experts=experts, max_shard_bytes=shard,
                     progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    c = open_checkpoint(tmp_path)
    assert (c.layout, c.experts, c.config, c.folder) == (layout, experts, TINY, tmp_path)
    assert list(c.names()) == list(w)
    for name, value in w.items():
        got = c.tensor(name)
        assert got.dtype == ("BF16" if experts == "bfloat16" else "F32")
        assert got.shape == value.shape and np.array_equal(got.float32(), value), name
    assert seen[-1] == (c.nbytes, c.nbytes) and all(a[0] <= b[0] for a, b in pairwise(seen))
    assert (
        (len(list(tmp_path.glob("*.safetensors"))) > 1)
        == (shard < 10**9)
        == (tmp_path / ck.files.INDEX).exists()
    )
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mxfp4_experts_quantised_on_the_way_or_given_as_blocks(tmp_path: Path, layout: str) -> None:
    w = weights()
    stored = {n: v for n, v in w.items() if not n.endswith(("mlp1_weight", "mlp2_weight"))}
    for n in set(w) - set(stored):
        stored[f"{n}.blocks"], stored[f"{n}.scales"] = quantize(w[n])
    write_checkpoint(tmp_path / "a", TINY, w.__getitem__, layout=layout)
    write_checkpoint(tmp_path / "b", TINY, stored.__getitem__, layout=layout)
    a, b = open_checkpoint(tmp_path / "a"), open_checkpoint(tmp_path / "b")
    assert a.experts == b.experts == "mxfp4" and set(a.names()) == set(stored)
    for name in a.names():
        assert np.array_equal(a.tensor(name).float32(), stored[name]), name
        assert np.array_equal(a.tensor(name).data, b.tensor(name).data), name


def test_the_layouts_convert_into_each_other(tmp_path: Path) -> None:
    for experts in ("mxfp4", "bfloat16", "float32"):
        first = tmp_path / experts
        write_checkpoint(first, TINY, weights().__getitem__, layout="openai", experts=experts)
        previous = open_checkpoint(first)
        for step, layout in enumerate(("hf", "hf", "openai")):
            path = tmp_path / f"{experts}{step}"
            write_checkpoint(path, TINY, previous.tensor, layout=layout, experts=experts)
            again = open_checkpoint(path)
            for name in again.names():
                assert np.array_equal(again.tensor(name).data, previous.tensor(name).data), (name, layout)
            previous = again


def test_mxfp4_to_plain_and_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", TINY, weights().__getitem__)
    a = open_checkpoint(tmp_path / "a")
    write_checkpoint(tmp_path / "b", TINY, a.tensor, experts="float32")
    b = open_checkpoint(tmp_path / "b")
    name = "block.1.mlp.mlp2_weight"
    value = dequantize(a.tensor(name + ".blocks").data, a.tensor(name + ".scales").data)
    assert np.array_equal(b.tensor(name).data, value)
    write_checkpoint(tmp_path / "c", TINY, b.tensor)
    c = open_checkpoint(tmp_path / "c")
    assert np.array_equal(dequantize(c.tensor(name + ".blocks").data, c.tensor(name + ".scales").data), value)


def test_pieces_along_the_first_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    w = weights()

    def fetch(name: str) -> Iterator[np.ndarray]:
        return iter(np.array_split(w[name], 3))

    monkeypatch.setattr("motet.checkpoint.write._PIECE", 100)
    write_checkpoint(tmp_path / "a", TINY, fetch, experts="float32")
    c = open_checkpoint(tmp_path / "a")
    assert all(np.array_equal(c.tensor(n).data, v) for n, v in w.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tied_embeddings_are_stored_once(tmp_path: Path, layout: str) -> None:
    config = replace(TINY, tie_word_embeddings=True)
    w = weights(config)
    write_checkpoint(tmp_path, config, w.__getitem__, layout=layout, experts="bfloat16")
    c = open_checkpoint(tmp_path)
    assert c.config.tie_word_embeddings and "unembedding.weight" in c.names()
    assert np.array_equal(c.tensor("unembedding.weight").float32(), w["embedding.weight"])
    assert c.nbytes == 2 * sum(v.size for n, v in w.items() if n != "unembedding.weight")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_biases_switched_off_are_zeros(tmp_path: Path, layout: str) -> None:
    config = replace(TINY, attention_bias=False)
    write_checkpoint(tmp_path, config, weights(config).__getitem__, layout=layout, experts="float32")
    c = open_checkpoint(tmp_path)
    assert not c.tensor("block.0.attn.qkv.bias").float32().any() and c.tensor(
        "block.0.attn.out.bias"
    ).shape == (64,)
    assert not any("qkv.bias" in n or "q_proj.bias" in n for n in load_file(tmp_path / "model.safetensors"))


def test_names_and_axes_of_both_layouts_are_the_published_ones(tmp_path: Path) -> None:
    """Read with the safetensors library, not with our own reader. A config in which no two sizes agree."""
    config = replace(TINY, hidden_size=32, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2)
    w = weights(config)
    for layout in LAYOUTS:
        write_checkpoint(tmp_path / layout, config, w.__getitem__, layout=layout, experts="float32")
    hf = load_file(tmp_path / "hf" / "model.safetensors")
    b, t = "block.1.", "model.layers.1."
    q, k, v = np.split(w[b + "attn.qkv.weight"], [64, 96])
    assert np.array_equal(hf[t + "self_attn.q_proj.weight"], q) and np.array_equal(
        hf[t + "self_attn.k_proj.weight"], k
    )
    assert np.array_equal(hf[t + "self_attn.v_proj.weight"], v)
    assert np.array_equal(hf[t + "self_attn.v_proj.bias"], w[b + "attn.qkv.bias"][96:])
    gate_up, down = hf[t + "mlp.experts.gate_up_proj"], hf[t + "mlp.experts.down_proj"]
    assert gate_up.shape == (4, 32, 192) and np.array_equal(
        gate_up.transpose(0, 2, 1), w[b + "mlp.mlp1_weight"]
    )
    assert down.shape == (4, 96, 32) and np.array_equal(down.transpose(0, 2, 1), w[b + "mlp.mlp2_weight"])
    assert np.array_equal(hf[t + "post_attention_layernorm.weight"], w[b + "mlp.norm.scale"])
    assert np.array_equal(hf["lm_head.weight"], w["unembedding.weight"])
    openai = load_file(tmp_path / "openai" / "model.safetensors")
    assert set(openai) == set(w) and all(np.array_equal(openai[n], w[n]) for n in w)


def test_published_sizes_give_published_bytes() -> None:
    """13,761,264,768 bytes for the 20b and 65,248,815,744 for the 120b, from our own table of shapes."""
    for config, expected in (
        (ModelConfig.gpt_oss_20b(), 13_761_264_768),
        (ModelConfig.gpt_oss_120b(), 65_248_815_744),
    ):
        total = 0
        for name, shape in tensor_shapes(config).items():
            total += int(np.prod(shape)) * (1 if name.endswith((".blocks", ".scales")) else 2)
        assert total == expected


def test_nothing_is_read_until_it_is_asked_for(folder: Path) -> None:
    c = open_checkpoint(folder)
    whole, one = c.tensor("block.0.mlp.mlp1_weight"), c.expert("block.0.mlp.mlp1_weight", 2)
    assert not whole.data.flags.owndata and not whole.data.flags.writeable
    assert one.shape == whole.shape[1:] and np.array_equal(one.data, whole.data[2])
    assert np.shares_memory(one.data, whole.data)
    fresh = whole.float32()
    assert fresh.flags.writeable and fresh.flags.c_contiguous


def test_a_tensor_at_an_odd_offset_is_aligned(folder: Path) -> None:
    """Legal in the format: nothing demands that the header's length be even."""
    expected = open_checkpoint(folder).tensor("norm.scale").float32()
    raw = (folder / "model.safetensors").read_bytes()
    n = int.from_bytes(raw[:8], "little")
    (folder / "model.safetensors").write_bytes(
        (n + 1).to_bytes(8, "little") + raw[8 : 8 + n] + b" " + raw[8 + n :]
    )
    got = open_checkpoint(folder).tensor("norm.scale")
    assert got.data.flags.aligned and np.array_equal(got.float32(), expected)


def test_rounding_to_bfloat16_is_torchs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(1).integers(0, 2**32, (TINY.vocab_size, 64), np.uint32)
    bits[0, :8] = (
        0x7F7FFFFF,
        0x3F808000,
        0x3F818000,
        0x00000001,
        0x7F800000,
        0xFF800000,
        0x80000000,
        0x00008000,
    )
    w = weights() | {"embedding.weight": bits.view(np.float32)}
    write_checkpoint(tmp_path, TINY, w.__getitem__, experts="bfloat16")
    got = open_checkpoint(tmp_path).tensor("embedding.weight").float32()
    want = torch.from_numpy(w["embedding.weight"].copy()).bfloat16().float().numpy()
    assert np.array_equal(got, want, equal_nan=True)


# --- transformers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experts", ["bfloat16", "float32"])
@pytest.mark.parametrize("shard", ["5GB", "60KB"])
def test_transformers_loads_ours_and_we_load_what_it_saves(tmp_path: Path, experts: str, shard: str) -> None:
    pytest.importorskip("torch")
    from transformers import GptOssForCausalLM

    w = weights()
    limit = 60_000 if shard == "60KB" else 10**9
    write_checkpoint(tmp_path / "ours", TINY, w.__getitem__, experts=experts, max_shard_bytes=limit)
    theirs, report = GptOssForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert str(theirs.dtype) == f"torch.{experts}"
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shard)
    c = open_checkpoint(tmp_path / "theirs")
    assert (c.layout, c.experts, c.config) == ("hf", experts, TINY)
    for name, value in w.items():
        assert np.array_equal(c.tensor(name).float32(), value), name


def test_transformers_unpacks_our_blocks_to_the_same_numbers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    write_checkpoint(tmp_path, TINY, weights().__getitem__)
    assert (
        json.loads((tmp_path / "config.json").read_text())["quantization_config"]["quant_method"] == "mxfp4"
    )
    raw, c = load_file_u8(tmp_path / "model.safetensors"), open_checkpoint(tmp_path)
    for ours, theirs in (("mlp1", "gate_up"), ("mlp2", "down")):
        stem = f"model.layers.1.mlp.experts.{theirs}_proj"
        blocks, scales = (torch.from_numpy(raw[f"{stem}_{x}"]) for x in ("blocks", "scales"))
        unpacked = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2).numpy()
        name = f"block.1.mlp.{ours}_weight"
        assert np.array_equal(
            unpacked, dequantize(c.tensor(f"{name}.blocks").data, c.tensor(f"{name}.scales").data)
        )


def load_file_u8(path: Path) -> Weights:
    """The byte tensors of a file, through the safetensors library (its numpy side knows no bfloat16)."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return {n: file.get_tensor(n) for n in file.keys() if n.endswith(("_blocks", "_scales"))}  # noqa: SIM118


# --- folders that are wrong ------------------------------------------------------------------------------------------


def test_no_folder_a_file_and_an_empty_folder(tmp_path: Path, folder: Path) -> None:
    assert "does not exist" in complaint(tmp_path / "nowhere")
    assert "is a file" in complaint(folder / "config.json")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in complaint(tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    assert "no *.safetensors" in complaint(folder)
    (folder / "original").mkdir()
    (folder / "original" / "config.json").write_text("{}")
    assert str(folder / "original") in complaint(folder)


def test_another_architecture_is_the_configs_error(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "llama"}))
    with pytest.raises(ConfigError, match="model_type"):
        open_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 3, 8, 9, 500, -1])
def test_a_half_written_shard(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    text = complaint(folder)
    assert "model.safetensors" in text
    assert ("cut short" in text) == (keep not in (0, 3))
    assert ("lm_head.weight" in text) == (keep == -1)


def test_every_truncation_of_the_header_is_caught(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    for keep in range(0, end, 97):
        path.write_bytes(raw[:keep])
        complaint(folder)


def test_random_damage_to_the_header_never_escapes(folder: Path) -> None:
    """Any byte of the header changed: it opens, or one of our own sentences says why not."""
    path, rng = folder / "model.safetensors", np.random.default_rng(3)
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    refused = 0
    for _ in range(300):
        damaged = bytearray(raw)
        damaged[rng.integers(0, end)] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            open_checkpoint(folder)
        except CheckpointError:
            refused += 1
    assert refused > 200


def test_a_git_lfs_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    assert "git lfs pull" in complaint(folder)


NORM = "model.norm.weight"


def set_field(table: dict[str, Any], name: str, key: str, value: object) -> None:
    table[name][key] = value


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop(NORM), f"lacks tensor {NORM} which"),
        (lambda t: [t.pop(n) for n in [*t] if "sinks" in n], "lacks tensor model.layers.0.self_attn.sinks and 1 more"),
        (lambda t: t.pop("lm_head.weight"), "tie_word_embeddings"),
        (lambda t: set_field(t, NORM, "shape", [32, 2]), "has shape [32, 2], but config.json makes it [64]"),
        (lambda t: set_field(t, NORM, "dtype", "I16"), f"Tensor {NORM}"),
        (lambda t: set_field(t, NORM, "dtype", "Q7"), "is Q7, but must be BF16"),
        (lambda t: set_field(t, NORM, "dtype", "F32"), "do not make F32 [64]"),
        (lambda t: set_field(t, NORM, "shape", [65]), "do not make BF16 [65]"),
        (lambda t: set_field(t, NORM, "shape", [-1, -64]), f"describes tensor {NORM} wrongly"),
        (lambda t: set_field(t, NORM, "shape", "64"), f"describes tensor {NORM} wrongly"),
        (lambda t: set_field(t, NORM, "data_offsets", [0]), f"describes tensor {NORM} wrongly"),
        (lambda t: set_field(t, NORM, "data_offsets", [-128, 0]), f"describes tensor {NORM} wrongly"),
        (lambda t: set_field(t, NORM, "data_offsets", [10**18, 10**18 + 128]), "cut short"),
        (lambda t: set_field(t, NORM, "data_offsets", [0, 128]), "in the same bytes"),
        (lambda t: t.update({NORM: 7}), f"describes tensor {NORM} wrongly"),
        (lambda t: t.update({"model.layers.2.self_attn.sinks": t[NORM] | {"shape": [0], "data_offsets": [0, 0]}}),
         "model.layers.2.self_attn.sinks which gpt-oss with this config.json does not have"),
    ],
)  # fmt: skip
def test_the_tensor_at_fault_is_named(folder: Path, change: Callable[[Any], Any], expected: str) -> None:
    rewrite(folder / "model.safetensors", change)
    assert expected in complaint(folder)


def test_a_key_twice_in_the_header_and_a_header_that_is_a_list(folder: Path) -> None:
    path = folder / "model.safetensors"
    for text in (b'{"a":{},"a":{}}', b"[1,2]", b"{nonsense}", b"\xff\xfe{}", b"[" * 5000):
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        assert "damaged header" in complaint(folder), text


def test_buffers_some_savers_add_are_tolerated(folder: Path) -> None:
    extra = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    rewrite(folder / "model.safetensors", lambda t: t.update({"model.rotary_emb.inv_freq": extra,
            "model.layers.0.self_attn.rotary_emb.cos_cached": extra}))  # fmt: skip
    assert "inv_freq" not in " ".join(open_checkpoint(folder).names())


def test_missing_shards_with_and_without_index(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TINY, weights().__getitem__, max_shard_bytes=60_000)
    victim = sorted(tmp_path.glob("*.safetensors"))[1]
    victim.rename(tmp_path / "elsewhere")
    assert f"{victim} is missing, though" in complaint(tmp_path)
    (tmp_path / ck.files.INDEX).unlink()
    assert f"{victim.name} is missing" in complaint(tmp_path)
    (tmp_path / "elsewhere").rename(victim)
    assert open_checkpoint(tmp_path).names()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../b"}}',
    ],
)
def test_a_damaged_index(folder: Path, text: str) -> None:
    (folder / ck.files.INDEX).write_text(text)
    assert "index.json is damaged" in complaint(folder)


def test_the_same_tensor_in_two_files(folder: Path) -> None:
    (folder / "copy.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert "is in both" in complaint(folder)


def test_tied_but_different_is_a_contradiction(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    assert "set tie_word_embeddings to false" in complaint(folder)
    table, body = header(folder / "model.safetensors")
    (a, b), (c, d) = (table[n]["data_offsets"] for n in ("model.embed_tokens.weight", "lm_head.weight"))
    rewrite(folder / "model.safetensors", lambda t: None, body[:c] + body[a:b] + body[d:])
    assert open_checkpoint(folder).config.tie_word_embeddings


def test_unknown_names(folder: Path) -> None:
    c = open_checkpoint(folder)
    for bad in ("model.norm.weight", "block.2.attn.sinks", "block.0.mlp.mlp1_weight.blocks"):
        with pytest.raises(UnknownTensor, match=bad):
            c.tensor(bad)
    with pytest.raises(UnknownTensor, match="0 to 3"):
        c.expert("block.0.mlp.mlp1_weight", 4)
    with pytest.raises(UnknownTensor, match="not an expert"):
        c.expert("norm.scale", 0)


# --- writing that goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("norm.scale", np.zeros(63, np.float32), "ended after 63 of 64 rows"),
        ("norm.scale", np.zeros((64, 1), np.float32), "norm.scale to be written must be floating point"),
        ("norm.scale", np.zeros(64, np.uint8), "is U8"),
        ("norm.scale", Tensor("F32", np.float32(3) * np.ones(())), "norm.scale"),
        ("block.0.mlp.mlp1_weight", np.zeros((5, 192, 64), np.float32), "block.0.mlp.mlp1_weight"),
        ("block.0.mlp.mlp1_weight.blocks", np.zeros((4, 192, 2, 15), np.uint8), "must be U8 [4, 192, 2, 16]"),
    ],
)
def test_fetch_gives_the_wrong_thing(tmp_path: Path, name: str, value: Any, expected: str) -> None:
    w: dict[str, Any] = weights() | {name: value}
    with pytest.raises(CheckpointError) as caught:
        write_checkpoint(tmp_path, TINY, w.__getitem__)
    assert expected in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_sizes_mxfp4_cannot_hold(tmp_path: Path) -> None:
    config = replace(TINY, intermediate_size=100)
    with pytest.raises(CheckpointError, match="intermediate_size to be a multiple of 32, not 100"):
        write_checkpoint(tmp_path, config, weights(config).__getitem__)
    write_checkpoint(tmp_path, config, weights(config).__getitem__, experts="bfloat16")
    assert open_checkpoint(tmp_path).config == config


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match=r"needs 13\.76 GB and .* has 0\.00 GB free"):
        write_checkpoint(tmp_path, ModelConfig.gpt_oss_20b(), lambda name: pytest.fail("asked for weights"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_and_a_folder_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_checkpoint(tmp_path / "file", TINY, weights().__getitem__)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_checkpoint(tmp_path / "new", TINY, weights().__getitem__)
    assert list((tmp_path / "new").iterdir()) == []


def test_an_interruption_anywhere_leaves_nothing_that_opens(tmp_path: Path) -> None:
    w = weights()
    for stop in range(1, 25, 4):
        calls = 0

        def fetch(name: str, stop: int = stop) -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise KeyboardInterrupt
            return w[name]

        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(tmp_path, TINY, fetch, experts="bfloat16", max_shard_bytes=60_000)
        assert list(tmp_path.iterdir()) == []
    assert "no config.json" in complaint(tmp_path)


def test_an_interrupted_rewrite_keeps_the_old_checkpoint(folder: Path) -> None:
    def fetch(name: str) -> np.ndarray:
        if name == "norm.scale":
            raise KeyboardInterrupt
        return weights(seed=9)[name]

    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(folder, TINY, fetch)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("step", range(8))
def test_an_interruption_while_files_get_their_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Old and new differ in layout and shards, so any mixture would be wrong; it must not open, nor open wrongly."""
    rename, calls = Path.rename, 0

    def stopping(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls > step:
            raise KeyboardInterrupt
        return rename(self, target)

    new = weights(seed=9)
    monkeypatch.setattr(Path, "rename", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(
            folder, TINY, new.__getitem__, layout="openai", experts="float32", max_shard_bytes=100_000
        )
    monkeypatch.undo()
    complaint(folder)
    assert not list(folder.glob("*.partial"))
    write_checkpoint(folder, TINY, new.__getitem__, layout="openai", experts="float32")
    c = open_checkpoint(folder)
    assert all(np.array_equal(c.tensor(n).data, v) for n, v in new.items())


KILLED = """
import sys, time
import numpy as np
from motet.checkpoint import tensor_shapes, write_checkpoint
from motet.config import ModelConfig
config = ModelConfig.tiny()
shapes = tensor_shapes(config, "bfloat16")
def fetch(name):
    if name == "norm.scale":
        print("ready", flush=True)
        time.sleep(60)
    return np.zeros(shapes[name], np.float32)
write_checkpoint(sys.argv[1], config, fetch, experts="bfloat16")
"""


def test_a_killed_writer_leaves_nothing_that_opens_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    assert "no config.json" in complaint(tmp_path)
    write_checkpoint(tmp_path, TINY, weights().__getitem__)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_memory_stays_bounded_while_streaming(tmp_path: Path) -> None:
    """A 200 MB tensor in pieces: numpy's own allocations peak far below it."""
    import tracemalloc

    config = replace(TINY, vocab_size=400_000, num_hidden_layers=1, layer_types=())
    small = weights(replace(config, vocab_size=8))

    def fetch(name: str) -> Any:
        if name in ("embedding.weight", "unembedding.weight"):
            return (np.ones((10_000, 64), np.float32) for _ in range(40))
        return small[name]

    tracemalloc.start()
    start = time.monotonic()
    write_checkpoint(tmp_path, config, fetch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6 and time.monotonic() - start < 30
    assert open_checkpoint(tmp_path).nbytes > 100e6
