"""bench/: a checkpoint as GGUF read back by the gguf package, the table's arithmetic, the file of logits, bad input."""

from __future__ import annotations

import dataclasses
import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from bench import fidelity, gguf_file, peers, table, timed
from bench.contenders import Ask, IkLlama, Llama

from motet.checkpoint import open_checkpoint
from motet.config import ModelConfig
from motet.errors import UserError
from motet.mxfp4 import dequantize
from motet.synth import byte_vocabulary, random_checkpoint
from motet.tokenizer import o200k_harmony, read_o200k

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = dataclasses.replace(ModelConfig.tiny(), rope_scaling_factor=32.0)
    return random_checkpoint(config, tmp_path_factory.mktemp("peers") / "model", seed=3,
                             vocabulary=byte_vocabulary(config.vocab_size))  # fmt: skip


@pytest.fixture(scope="module")
def written(model: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(gguf_file.write(model, model.parent / "model.gguf"))


def test_mxfp4_comes_back_bit_for_bit(model: Path, written: gguf.GGUFReader) -> None:
    checkpoint, tensors = open_checkpoint(model), {t.name: t for t in written.tensors}
    for n in range(checkpoint.config.num_hidden_layers):
        for part, ours, rows in (("gate", "mlp1", slice(0, None, 2)), ("up", "mlp1", slice(1, None, 2)),
                                 ("down", "mlp2", slice(None))):  # fmt: skip
            name = f"block.{n}.mlp.{ours}_weight"
            blocks = checkpoint.tensor(f"{name}.blocks").data[:, rows]
            scales = checkpoint.tensor(f"{name}.scales").data[:, rows]
            stored = tensors[f"blk.{n}.ffn_{part}_exps.weight"]
            assert stored.tensor_type == gguf.GGMLQuantizationType.MXFP4
            assert [int(k) for k in stored.shape] == [blocks.shape[2] * 32, blocks.shape[1], blocks.shape[0]]
            raw = stored.data.reshape(*scales.shape, 17)
            assert np.array_equal(raw[..., 0], scales)
            # Both orders of nibbles say the same 32 codes.
            theirs = np.concatenate((raw[..., 1:] & 15, raw[..., 1:] >> 4), axis=-1)
            mine = np.stack((blocks & 15, blocks >> 4), axis=-1).reshape(theirs.shape)
            assert np.array_equal(theirs, mine)
            read = gguf.quants.dequantize(stored.data, stored.tensor_type)
            assert np.array_equal(
                read.reshape(-1),
                dequantize(np.ascontiguousarray(blocks), np.ascontiguousarray(scales)).reshape(-1),
            )


def test_other_tensors_and_keys(model: Path, written: gguf.GGUFReader) -> None:
    checkpoint, tensors = open_checkpoint(model), {t.name: t for t in written.tensors}
    c = checkpoint.config
    known = {gguf.TENSOR_NAMES[t] for t in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GPT_OSS]}
    for name in tensors:
        stem = name.rsplit(".", 1)[0]
        assert stem in known or stem.replace(f"blk.{stem.split('.')[1]}", "blk.{bid}", 1) in known, name
    assert len(tensors) == 3 + 19 * c.num_hidden_layers
    qkv = checkpoint.tensor("block.1.attn.qkv.weight").float32()
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    for part, rows in (("q", qkv[:q]), ("k", qkv[q : q + kv]), ("v", qkv[q + kv :])):
        item = tensors[f"blk.1.attn_{part}.weight"]
        assert item.tensor_type == gguf.GGMLQuantizationType.Q8_0
        read = gguf.quants.dequantize(item.data, item.tensor_type)
        # Half a step of the block's own scale, and the scale's rounding to half precision.
        step = np.abs(rows).reshape(len(rows), -1, 32).max(-1, keepdims=True) / 127
        assert (np.abs(read - rows).reshape(*step.shape[:2], 32) <= step * 0.5 + 127 * step * 2**-11).all()
    for name, ours in (("blk.0.attn_sinks.weight", "block.0.attn.sinks"), ("output_norm.weight", "norm.scale"),
                       ("blk.1.ffn_gate_inp.weight", "block.1.mlp.gate.weight"),
                       ("blk.1.ffn_down_exps.bias", "block.1.mlp.mlp2_bias")):  # fmt: skip
        assert tensors[name].tensor_type == gguf.GGMLQuantizationType.F32
        assert np.array_equal(tensors[name].data.reshape(-1), checkpoint.tensor(ours).float32().reshape(-1))
    gate = checkpoint.tensor("block.0.mlp.mlp1_bias").float32()
    assert np.array_equal(tensors["blk.0.ffn_up_exps.bias"].data, gate[:, 1::2])
    say = {k: f.contents() for k, f in written.fields.items()}
    assert say["general.architecture"] == "gpt-oss" and say["gpt-oss.block_count"] == c.num_hidden_layers
    assert say["gpt-oss.attention.sliding_window"] == c.sliding_window
    assert say["gpt-oss.expert_used_count"] == c.experts_per_token
    assert say["gpt-oss.rope.scaling.type"] == "yarn" and say["gpt-oss.rope.scaling.factor"] == 32.0
    assert len(say["tokenizer.ggml.tokens"]) == c.vocab_size and say["tokenizer.ggml.add_bos_token"] is False
    assert say["tokenizer.ggml.token_type"][255:258] == [1, 3, 3]


def test_merges_give_the_ranks_back() -> None:
    ranks = {token: i for i, token in enumerate(read_o200k())}
    # Merging exactly the recovered pairs, lowest rank first, is what a reader of the file does.
    for token in [b" the", b" indistinguishable", "größer".encode(), b"    ", b"\n\n\n"]:
        ids = o200k_harmony().encode(token.decode())
        for i in ids:
            pair = gguf_file.halves(o200k_harmony().token_bytes(i), ranks)
            assert pair is not None and b"".join(pair) == o200k_harmony().token_bytes(i)
            assert all(ranks[half] < i for half in pair if len(half) > 1)


@pytest.mark.parametrize(("change", "says"), [
    ({"swiglu_limit": 5.0}, "SwiGLU"),
    ({"layer_types": ("full_attention",) * 2}, "in turn"),
    ({"rope_attention_factor": 2.0, "rope_scaling_factor": 4.0}, "YaRN"),
])  # fmt: skip
def test_models_that_readers_compute_otherwise_are_refused(
    change: dict[str, object], says: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(ModelConfig.tiny(), **change)  # type: ignore[arg-type]
    folder = random_checkpoint(config, tmp_path / "m", vocabulary=byte_vocabulary(config.vocab_size))
    with pytest.raises(UserError, match=says):
        gguf_file.write(folder, tmp_path / "m.gguf")
    assert not list(tmp_path.glob("m.*"))


# -- the table ---------------------------------------------------------------------------------------------------------


def test_ratios_above_one_mean_ahead() -> None:
    more = table.line(
        table.BY_NAME["prefill512"],
        {"motet": [80, 100, 90], "llama.cpp": [30], "ik_llama.cpp": [60, 40]},
        [200, 300],
    )
    assert (more["motet"], more["ik_llama.cpp"], more["ceiling"]) == (90, 50, 250)
    assert more["ratio to llama.cpp"] == 3 and more["ratio to better peer"] == pytest.approx(1.8)
    assert more["motet of ceiling"] == pytest.approx(0.36) and more["spread"]["motet"] == [80, 100]
    less = table.line(
        table.BY_NAME["start"], {"motet": [2.0], "llama.cpp": [14.0], "ik_llama.cpp": [9.0]}, []
    )
    assert less["ratio to llama.cpp"] == 7 and less["ratio to better peer"] == 4.5 and less["ceiling"] is None
    alone = table.line(table.BY_NAME["batch8"], {"motet": [10.0]}, [40.0], "none")
    assert alone["ratio to better peer"] is None and alone["llama.cpp of ceiling"] is None


def test_table_keeps_rows_not_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "results" / "m.json"
    for date, name, value in (("1", "start", 2.0), ("1", "prefill512", 50.0), ("2", "start", 1.0)):
        row = table.line(table.BY_NAME[name], {"motet": [value], "llama.cpp": [10.0]}, [])
        table.save(file, table.merge(file, {"date": date}, [row]))
    rows = json.loads(file.read_text())["rows"]
    assert list(rows) == ["prefill512", "start"]
    assert rows["start"]["motet"] == 1.0 and rows["start"]["measured"] == {"date": "2"}
    assert rows["prefill512"]["measured"] == {"date": "1"}
    lines = file.with_suffix(".csv").read_text().splitlines()
    assert lines[0].startswith("row,unit,motet,") and lines[1].startswith("prefill512,tokens/s,50,")
    shown = table.markdown(json.loads(file.read_text()))
    assert "| prefill, 512 tokens (tokens/s) | 50 | 10 | – | 5x | – | >= 1.4x |" in shown


def test_composed_rate_adds_what_depth_costs() -> None:
    # 0.1 s a token when empty; a pair of layers loses 2 ms with depth, twelve pairs 24 ms.
    assert peers.compose(10, 1 / 0.020, 1 / 0.022, 12) == pytest.approx(1 / 0.124)


def test_rows_are_chosen_by_name_or_its_start() -> None:
    assert [r.name for r in table.choose("decode,prefill512")] == [
        "prefill512",
        "decode0",
        "decode4096",
        "decode32768",
    ]
    with pytest.raises(ValueError, match="speed"):
        table.choose("speed")


# -- logits ------------------------------------------------------------------------------------------------------------


def _file(path: Path, logits: np.ndarray, ids: np.ndarray) -> None:
    """What llama-perplexity writes for these logits (chunks * kept, V)."""
    vocabulary = logits.shape[1]
    with path.open("wb") as out:
        out.write(b"_logits_" + np.array([ids.shape[1], vocabulary, len(ids)], np.int32).tobytes())
        out.write(ids.astype(np.int32).tobytes())
        for row in logits.astype(np.float64):
            row = row - row.max() - np.log(np.exp(row - row.max()).sum())
            low = max(row.min(), row.max() - 16)
            step = (row.max() - low) / 65535
            values = np.zeros(2 * ((vocabulary + 1) // 2), np.uint16)
            values[:vocabulary] = np.rint((np.maximum(row, low) - low) / step)
            out.write(np.array([step, low], np.float32).tobytes() + values.tobytes())


def test_logits_of_a_peer_are_read_and_judged_like_our_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids, logits = rng.integers(0, 99, (2, 8)), (rng.normal(0, 4, (6, 99))).astype(np.float32)
    logits[0, 3] = -60  # below the file's 16 nats
    _file(tmp_path / "l", logits, ids)
    got = fidelity.read(tmp_path / "l")
    assert np.array_equal(got.ids, ids)
    both = np.concatenate([got.chunk(0), got.chunk(1)])
    assert np.allclose(both, fidelity.rounded(logits), atol=1e-5)
    exact = fidelity.log_softmax(logits)
    assert np.abs(both - exact)[exact > exact.max(-1, keepdims=True) - 15].max() < 2e-4
    assert np.abs(fidelity.divergence(exact, both)).max() < 1e-4
    p, q = (
        fidelity.log_softmax(np.log(np.array([[0.5, 0.5]]))),
        fidelity.log_softmax(np.log(np.array([[0.25, 0.75]]))),
    )
    assert fidelity.divergence(p, q)[0] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    data = (tmp_path / "l").read_bytes()
    for broken in (b"", b"nothing", data[:-10]):
        (tmp_path / "l").write_bytes(broken)
        with pytest.raises(UserError, match=r"no log-prob|cut off"):
            fidelity.read(tmp_path / "l")


# -- programs ----------------------------------------------------------------------------------------------------------


def _program(path: Path, body: str) -> Path:
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_what_is_asked_and_what_is_read(tmp_path: Path) -> None:
    said = tmp_path / "said"
    bench = _program(tmp_path / "llama-bench",
                     f"open({str(said)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
                     "print('noise'); print('[{\"avg_ts\": 1.5}, {\"avg_ts\": 2.5, \"samples_ts\": [1, 2.5, 9]}]')")  # fmt: skip
    llama = Llama("llama.cpp", tmp_path / "m.gguf", 2, (), bench, ("-lm", "none"))
    ik = IkLlama("ik_llama.cpp", tmp_path / "m.gguf", 2, (), bench)
    assert llama.ask(Ask("decode", 32, depth=4096)).value == 2.5
    assert ik.ask(Ask("decode", 32, depth=4096)).peak_bytes > 1 << 20
    ik.ask(Ask("batch", 10, batch=8))
    lines = said.read_text().splitlines()
    assert lines[0].endswith("-fa 1 -lm none -p 0 -n 32 -d 4096 -r 1 -o json") and "-t 2" in lines[0]
    assert "-gp 4096,32 -rtr 1" in lines[1] and "-p 8 -n 0" in lines[2]
    missing = llama.ask(Ask("batch", 32, batch=8))
    assert missing.value is None and "llama-batched-bench" in missing.why
    bench.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('error: no such tensor')\n")
    with pytest.raises(UserError, match=r"llama-bench .* failed with code 1; it said: error: no such tensor"):
        llama.ask(Ask("prefill", 8))


def test_a_command_is_timed_from_outside() -> None:
    body = "import time; b = bytearray(90 << 20); print('a', flush=True); time.sleep(0.3); print('b')"
    got = timed.run([sys.executable, "-c", body], spin=1, warm=(Path(__file__),))
    assert got["code"] == 0 and got["stdout"] == "a\nb\n"
    assert 0 < got["first_byte_s"] < got["seconds"] - 0.2 and got["peak_bytes"] > 90 << 20
    assert timed.run([sys.executable, "-c", "import sys; sys.exit('why')"])["stderr"].strip() == "why"


@pytest.mark.parametrize(("extra", "says"), [
    (["--llama-bench", "/nowhere/llama-bench"], "is no program"),
    ([], "there is no peer"),
    (["--llama-bench", sys.executable, "--rows", "speed"], "there is no row speed"),
    (["--llama-bench", sys.executable, "--model", "/nowhere"], "has no config.json"),
])  # fmt: skip
def test_bad_input_is_one_sentence(
    extra: list[str], says: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        peers.arguments(["--model", str(model), *extra])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 2 and says in last
