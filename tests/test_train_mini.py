"""The packaged model is what its card says."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from motet.checkpoint import open_checkpoint  # noqa: E402
from motet.library import embedded_folder  # noqa: E402
from motet.reference import Reference  # noqa: E402
from motet.tasks import EFFORTS, FAMILIES, TALKS, TASKS  # noqa: E402
from motet.tokenizer import Encoding, load_encoding  # noqa: E402
from motet.train.evaluate import answer, questions, score  # noqa: E402
from motet.train.quantize import round_to_stored  # noqa: E402
from motet.train.rollout import Seen  # noqa: E402
from motet.train.vocabulary import CONTROL  # noqa: E402

FOLDER = embedded_folder()
CARD = json.loads((FOLDER / "card.json").read_text())
RECIPE = CARD["recipe"]
STAGES = RECIPE["stages"]
ASKED, MAX_NEW = STAGES["export"]["questions"], STAGES["export"]["max_new"]


@pytest.fixture(scope="module")
def encoder() -> Encoding:
    return load_encoding(FOLDER)


@pytest.fixture(scope="module")
def packaged() -> Reference:
    torch.set_num_threads(1)
    return Reference.from_checkpoint(FOLDER).eval()


def test_the_package_stays_small() -> None:
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 8e6
    assert (FOLDER / "reference.npz").stat().st_size <= 1e6


def test_the_card_tells_of_these_files() -> None:
    card = CARD
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name
    assert {"model.safetensors", "tokenizer.json", "training.jsonl", "reference.npz"} <= card["sha256"].keys()
    log = [json.loads(line) for line in (FOLDER / "training.jsonl").read_text().splitlines()]
    for name, stage in STAGES.items():
        steps = [r["step"] for r in log if r["stage"] == name and "accepted" not in r]
        assert steps == sorted(set(steps)) and (steps[-1] if steps else 0) == stage["steps"], name
        assert stage["kind"] == "export" or any(r["stage"] == name and "accepted" in r for r in log), name
    assert card["training"]["last"] == [r for r in log if "accepted" not in r][-1]
    for way in ("greedy", "temperature 1"):
        assert all(
            card["held_out"][way][t][e]["asked"] == ASKED for t in (*FAMILIES, *TALKS) for e in EFFORTS
        )


def test_its_control_tokens(encoder: Encoding) -> None:
    config = open_checkpoint(FOLDER).config
    assert config.eos_token_ids == tuple(
        encoder.special(n) for n in ("<|return|>", "<|endoftext|>", "<|call|>")
    )
    assert config.pad_token_id == encoder.special("<|endoftext|>")
    ids = [encoder.special(name) for name in CONTROL]
    assert ids == list(range(config.vocab_size - len(CONTROL), config.vocab_size))
    assert not set(encoder.encode("".join(CONTROL))) & set(ids)  # in text they are text
    for digits in ("7", "42", "1234567890"):
        assert len(encoder.encode(digits)) == len(digits)
    text = "Any text: ünï çødé, 漢字, 🦆\n\t end"
    assert encoder.decode(encoder.encode(text)) == text


def test_its_reference_logits(packaged: Reference) -> None:
    """Written by the reference model; another machine may add in another order."""
    with np.load(FOLDER / "reference.npz") as file, torch.inference_mode():
        for n in range(2):
            found = packaged(torch.from_numpy(file[f"ids{n}"]).long()[None])[0].numpy()
            np.testing.assert_allclose(found, file[f"logits{n}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "effort"), [("addition", "low"), ("multiplication", "medium"), ("modular", "high")]
)
def test_the_card_tells_the_measured_accuracy(
    packaged: Reference, encoder: Encoding, task: str, effort: str
) -> None:
    """The card's questions again, greedily; other batches add in another order, which may turn one answer in fifty."""
    asked = questions(task, effort, ASKED, RECIPE["seed"])  # type: ignore[arg-type]
    found = score(answer(Seen.of(packaged, torch.float32, False), encoder, asked, MAX_NEW))
    assert abs(found.right - CARD["held_out"]["greedy"][task][effort]["right"]) <= ASKED // 50


def test_another_question_gets_another_answer(packaged: Reference, encoder: Encoding) -> None:
    answers = answer(
        Seen.of(packaged, torch.float32, False),
        encoder,
        questions("multiplication", "high", 12, 999),
        MAX_NEW,
    )
    assert len({a.final for a in answers}) > 8
    assert all(TASKS["multiplication"].grade(a.example, a.final) is a.right for a in answers)


def test_rounding_is_idempotent(packaged: Reference) -> None:
    before = {n: p.clone() for n, p in packaged.named_parameters()}
    round_to_stored(packaged)
    assert all(torch.equal(p, before[n]) for n, p in packaged.named_parameters())
