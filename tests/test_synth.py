"""motet.synth: same seed same bytes, layouts that agree, sane values, and folders that are left alone."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motet import synth as module
from motet.checkpoint import CheckpointError, Tensor, open_checkpoint, tensor_shapes
from motet.config import ModelConfig
from motet.errors import UsageError, UserError
from motet.mxfp4 import dequantize
from motet.synth import CONTROL, random_checkpoint, random_tensor, shape_config, synth

FORMS = [(layout, experts) for layout in ("hf", "openai") for experts in ("mxfp4", "bfloat16", "float32")]


def digest(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def values(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor as float32, experts dequantised."""
    checkpoint, out = open_checkpoint(folder), {}
    for name in checkpoint.names():
        if name.endswith(".blocks"):
            plain = name.removesuffix(".blocks")
            out[plain] = dequantize(checkpoint.tensor(name).data, checkpoint.tensor(f"{plain}.scales").data)
        elif not name.endswith("_weight.scales"):
            out[name] = checkpoint.tensor(name).float32()
    return out


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first, again, other = (synth("tiny", tmp_path / str(i), seed=seed) for i, seed in enumerate((7, 7, 8)))
    assert digest(first) == digest(again)
    assert digest(first)["model.safetensors"] != digest(other)["model.safetensors"]


def test_every_form_holds_the_same_values(tmp_path: Path) -> None:
    config = replace(
        ModelConfig.tiny(), num_experts=3, experts_per_token=3, num_attention_heads=6, vocab_size=97
    )
    folders = [random_checkpoint(config, tmp_path / (a + b), layout=a, experts=b) for a, b in FORMS]
    first = values(folders[0])
    assert set(first) == set(tensor_shapes(config, "bfloat16"))
    for folder, (layout, experts) in zip(folders, FORMS, strict=True):
        checkpoint = open_checkpoint(folder)
        assert (checkpoint.config, checkpoint.layout, checkpoint.experts) == (config, layout, experts)
        for name, value in values(folder).items():
            assert np.array_equal(value, first[name]), (layout, experts, name)


@pytest.mark.parametrize("tied", [False, True])
def test_the_model_runs_and_stays_sane(tmp_path: Path, tied: bool) -> None:
    torch = pytest.importorskip("torch")
    from motet.reference import Reference

    config = replace(
        ModelConfig.tiny(),
        num_hidden_layers=12,
        layer_types=(),
        hidden_size=128,
        intermediate_size=128,
        tie_word_embeddings=tied,
    )
    model = Reference.from_checkpoint(random_checkpoint(config, tmp_path / "m"))
    with torch.no_grad():
        logits = model(torch.arange(300)[None])
    # rms 3 by design (unembedding of a normed state); rows that differ: no input is drowned by the layers.
    assert 2 < logits.square().mean().sqrt() < 4.5
    assert logits.std(dim=1).mean() > 1


def test_standard_deviations() -> None:
    config = ModelConfig.gpt_oss_20b()
    for name, expected in (
        ("block.3.attn.out.weight", 4096**-0.5),
        ("block.3.attn.sinks", 1.0),
        ("block.0.mlp.norm.scale", 0.1),
    ):
        pieces = [p for p in random_tensor(config, 0, name) if isinstance(p, Tensor)]
        x = np.concatenate([p.float32().ravel() for p in pieces])
        assert x.std() == pytest.approx(expected, rel=0.02 if x.size > 1000 else 0.35)
    blocks = next(iter(random_tensor(config, 0, "block.3.mlp.mlp1_weight.blocks")))
    scales = next(iter(random_tensor(config, 0, "block.3.mlp.mlp1_weight.scales")))
    assert isinstance(blocks, np.ndarray) and isinstance(scales, np.ndarray)
    assert len(np.unique(blocks)) == 256 and len(np.unique(scales)) == 4
    assert dequantize(blocks[0], scales[0]).std() == pytest.approx(2880**-0.5, rel=0.1)


def test_a_tensor_does_not_depend_on_depth_or_neighbours() -> None:
    for name in ("block.0.attn.qkv.bias", "block.0.mlp.mlp1_bias"):
        deep, shallow = (np.concatenate([p.data for p in random_tensor(c, 1, name) if isinstance(p, Tensor)])
                         for c in (ModelConfig.gpt_oss_20b(), ModelConfig.gpt_oss_20b(1)))  # fmt: skip
        assert np.array_equal(deep, shallow)
    assert not np.array_equal(deep.ravel()[:2880], np.concatenate(
        [p.data for p in random_tensor(ModelConfig.gpt_oss_20b(), 1, "block.1.mlp.mlp1_bias") if isinstance(p, Tensor)]
    ).ravel()[:2880])  # fmt: skip


def test_large_tensors_come_in_pieces_of_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", 1 << 20)
    config = ModelConfig.gpt_oss_20b()
    module._normal(0.0, 3 / 2880**0.5)
    tracemalloc.start()
    rows = 0
    for i, piece in enumerate(random_tensor(config, 0, "unembedding.weight")):
        rows += piece.shape[0]
        if i == 20:
            break
    assert 0 < rows < 21 * (1 << 20) / 5760
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_widths_that_mxfp4_cannot_store(tmp_path: Path) -> None:
    config = replace(ModelConfig.tiny(), hidden_size=33, intermediate_size=17)
    checkpoint = open_checkpoint(random_checkpoint(config, tmp_path / "a", experts="bfloat16"))
    assert checkpoint.config == config and checkpoint.tensor("block.1.mlp.mlp2_weight").shape == (4, 33, 17)
    with pytest.raises(CheckpointError, match="hidden_size"):
        random_checkpoint(config, tmp_path / "b")
    assert not (tmp_path / "b").exists()


# -- shapes and folders --------------------------------------------------------------------------------------------


def test_shapes() -> None:
    assert shape_config("20b") == ModelConfig.gpt_oss_20b()
    assert shape_config("120b") == ModelConfig.gpt_oss_120b()
    assert shape_config("120b-3-layers") == ModelConfig.gpt_oss_120b(3)
    assert shape_config("20b-24-layers") == ModelConfig.gpt_oss_20b()


@pytest.mark.parametrize(
    "shape",
    [
        "",
        "7b",
        "20b-0-layers",
        "20b-25-layers",
        "120b-37-layers",
        "20b-99999999-layers",
        "tiny-2-layers",
        "20B",
    ],
)
def test_an_unknown_shape_lists_the_choices(tmp_path: Path, shape: str) -> None:
    with pytest.raises(UsageError, match=r"20b, 120b, 20b-N-layers .* tiny"):
        synth(shape, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("wrong", [{"layout": "gguf"}, {"experts": "int4"}])
def test_other_wrong_choices(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="choose"):
        synth("tiny", tmp_path / "x", **wrong)


def test_a_folder_with_content_is_left_alone(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text("mine")
    for folder in (tmp_path, note):
        with pytest.raises(UserError, match="choose a new folder"):
            synth("tiny", folder)
    assert digest(tmp_path).keys() == {"note"} and note.read_text() == "mine"


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synth("tiny", tmp_path / "x", progress=stop)
    assert not (tmp_path / "x").exists()
    (tmp_path / "own").mkdir()
    with pytest.raises(KeyboardInterrupt):
        synth("tiny", tmp_path / "own", progress=stop)
    assert list((tmp_path / "own").iterdir()) == []
    assert open_checkpoint(synth("tiny", tmp_path / "own")).config == ModelConfig.tiny()


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = synth("tiny", tmp_path / "x", progress=lambda done, total: seen.append((done, total)))
    total = ModelConfig.tiny().counts().checkpoint_bytes
    assert open_checkpoint(folder).nbytes == total
    assert seen[-1] == (total, total) and seen == sorted(seen)


# -- the tiny vocabulary -------------------------------------------------------------------------------------------


def test_the_tiny_vocabulary(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = synth("tiny", tmp_path / "x")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = open_checkpoint(folder).config
    assert tokenizer.get_vocab_size(with_added_tokens=True) == config.vocab_size
    text = "Grüße, 世界 🙂\r\n\x00\x7f  end"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == list(text.encode()) and tokenizer.decode(ids) == text
    assert [tokenizer.token_to_id(name) for name in CONTROL] == list(range(256, 265))
    assert tokenizer.encode("<|start|>user", add_special_tokens=False).ids == [261, *b"user"]
    stops = [tokenizer.token_to_id(name) for name in ("<|return|>", "<|endoftext|>", "<|call|>")]
    assert list(config.eos_token_ids) == stops and config.pad_token_id == stops[1]
