"""Training: rows are Harmony, MXFP4 as stored, runs go on with the same bits, and the packaged model is what its card says."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from motet import mxfp4  # noqa: E402
from motet.checkpoint import open_checkpoint  # noqa: E402
from motet.library import embedded_folder  # noqa: E402
from motet.reference import Reference  # noqa: E402
from motet.tasks import EFFORTS, MEASURED, TASKS  # noqa: E402
from motet.train import mini  # noqa: E402
from motet.train.data import Dialogue, FileEncoder, Mix, Row, batch, collate, prompt_ids, row  # noqa: E402
from motet.train.evaluate import answer, decode, questions, score, split_completion  # noqa: E402
from motet.train.export import export, stored_model, write_card  # noqa: E402
from motet.train.optim import MuonAdamW, orthogonalize  # noqa: E402
from motet.train.quantize import fake_quantize, mxfp4_values, round_to_stored  # noqa: E402
from motet.train.recipe import MINI, SMOKE  # noqa: E402
from motet.train.sft import Run, open_run, train  # noqa: E402
from motet.train.vocabulary import CHANNELS, CONTROL, CUTOFF, IDENTITY  # noqa: E402

FOLDER = embedded_folder()


@pytest.fixture(scope="module")
def encoder() -> FileEncoder:
    from tokenizers import Tokenizer

    return FileEncoder(Tokenizer.from_file(str(FOLDER / "tokenizer.json")))


@pytest.fixture(scope="module")
def packaged() -> Reference:
    torch.set_num_threads(1)
    return Reference.from_checkpoint(FOLDER).eval()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run of the small recipe, without a stop."""
    run = open_run(SMOKE, tmp_path_factory.mktemp("whole"))
    train(run)
    return run


# -- data --------------------------------------------------------------------------------------------------------------


def dialogues(count: int) -> list[Dialogue]:
    rng = random.Random(11)
    return [MINI.mix.draw(rng, "train") for _ in range(count)]


def test_what_is_taught_is_what_the_assistant_samples(encoder: FileEncoder) -> None:
    for dialogue in dialogues(60):
        r, prompt = row(dialogue, encoder), prompt_ids(dialogue, encoder)
        assert r.ids[: len(prompt)] == prompt and not any(r.learn[: len(prompt)])
        assert r.learn[len(prompt)] and r.learn[-1] and r.ids[-1] == encoder.special("<|return|>")
        untaught = sum(len(encoder.encode(t)) for t, learn in dialogue.example.analysis if not learn)
        assert r.learn.count(False) == len(prompt) + untaught


def test_a_row_reads_as_harmony(encoder: FileEncoder) -> None:
    dialogue = Dialogue(questions("sums", "medium", 1, 1)[0], "2026-05-04", "Be brief.", (("1 + 1", "2"),))
    e = dialogue.example
    assert encoder.decode(row(dialogue, encoder).ids) == (
        f"<|start|>system<|message|>{IDENTITY}\n{CUTOFF}\nCurrent date: 2026-05-04\n\nReasoning: medium\n\n{CHANNELS}<|end|>"
        "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|>"
        "<|start|>user<|message|>1 + 1<|end|><|start|>assistant<|channel|>final<|message|>2<|end|>"
        f"<|start|>user<|message|>{e.prompt}<|end|><|start|>assistant<|channel|>analysis<|message|>{e.analysis_text}<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{e.final}<|return|>"
    )


@pytest.mark.parametrize("seed", range(3))
def test_prompts_are_what_the_renderer_makes(seed: int) -> None:
    """Token for token: with and without a date, developer instructions and earlier turns, at every effort."""
    from motet.harmony import Conversation, render
    from motet.tokenizer import load_encoding

    rng, encoding = random.Random(seed), load_encoding(FOLDER)
    seen: set[tuple[bool, ...]] = set()
    for _ in range(250):
        d = MINI.mix.draw(rng, "train")
        chat = [{"role": "developer", "content": d.instructions}] if d.instructions else []
        for user, final in d.history:
            chat += [{"role": "user", "content": user}, {"role": "assistant", "content": final}]
        chat.append({"role": "user", "content": d.example.prompt})
        conversation = Conversation.from_chat(chat, effort=d.example.effort, date=d.date)
        assert render(conversation, encoding) == prompt_ids(d, encoding), d
        seen.add((d.date is None, d.instructions is None, not d.history))
    assert len(seen) >= 6


def test_batches_depend_on_seed_and_step_alone(encoder: FileEncoder) -> None:
    def flat(seed: int, step: int) -> list[int]:
        return [int(x) for c in batch(MINI.mix, encoder, seed, step, 12, 3) for x in c.ids.reshape(-1)]

    assert flat(1, 7) == flat(1, 7)
    assert flat(1, 7) != flat(1, 8) and flat(1, 7) != flat(2, 7)


def test_training_never_draws_a_held_out_question() -> None:
    held = {e.key for task in MEASURED for e in questions(task, "low", 60, MINI.seed)}
    seen = {d.example.key for d in dialogues(600)}
    assert len(held) == 60 * len(MEASURED) and not held & seen


def test_padding_is_never_taught() -> None:
    chunk = collate(
        [Row([5, 6, 7], [False, True, True]), Row([8, 9, 1, 2, 3], [False, False, True, False, True])]
    )
    assert chunk.ids.tolist() == [[5, 6, 0, 0], [8, 9, 1, 2]]
    assert chunk.at.tolist() == [0, 1, 5, 7] and chunk.target.tolist() == [6, 7, 1, 3]
    assert chunk.real.tolist() == [True, True, False, False, True, True, True, True]


def test_the_mix_draws_what_it_says() -> None:
    mix = Mix(tasks={"sums": 3.0, "products": 1.0}, efforts={"low": 1.0, "medium": 0.0, "high": 0.0})
    rng = random.Random(2)
    drawn = [mix.draw(rng, "train").example for _ in range(800)]
    assert {e.effort for e in drawn} == {"low"}
    assert abs(sum(e.task == "sums" for e in drawn) / 800 - 0.75) < 4 * (0.75 * 0.25 / 800) ** 0.5


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_training_sees_the_values_that_are_stored() -> None:
    rng = np.random.default_rng(4)
    w = rng.standard_normal((6, 5, 96)).astype(np.float32) * np.exp2(rng.integers(-30, 20, (6, 5, 1))).astype(
        np.float32
    )
    w[0, 0, :32] = 0
    w[1, 1, :6] = [0.25, 0.75, 2.5, 5, 7, -7]  # ties, and values beyond the largest
    stored = mxfp4.dequantize(*mxfp4.quantize(w))
    seen = mxfp4_values(torch.from_numpy(w)).numpy()
    assert np.array_equal(seen, stored)
    assert np.array_equal(
        mxfp4_values(torch.from_numpy(stored)).numpy(), stored
    )  # rounding twice changes nothing


def test_gradients_pass_straight_through() -> None:
    w = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    g = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    fake_quantize(w).backward(g)
    assert torch.equal(w.grad, g)


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (3, 16, 48)])
def test_orthogonalize_evens_out_singular_values(shape: tuple[int, ...]) -> None:
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(g))
    assert values.max() < 1.3 and values.min() > 0.4  # the quintic's band around 1
    assert (torch.linalg.svdvals(g).max() / torch.linalg.svdvals(g).min()) > 1.5


def test_every_parameter_has_one_optimizer() -> None:
    model = Reference(SMOKE.config(400, (1,), 0))
    optimizer = MuonAdamW(model, 0.1, 0.1, 0.0)
    assert not optimizer.muon.keys() & optimizer.adam.keys()
    assert optimizer.muon.keys() | optimizer.adam.keys() == dict(model.named_parameters()).keys()
    assert {n.split(".", 2)[2] for n in optimizer.muon} == {
        "attn.qkv.weight", "attn.out.weight", "mlp.mlp1_weight", "mlp.mlp2_weight"}  # fmt: skip


def test_the_rate_warms_up_and_decays() -> None:
    rates = [MINI.rate(s) for s in range(MINI.steps)]
    assert rates[0] == 1 / MINI.warmup and max(rates) == 1.0 and 0.02 < rates[-1] < 0.03
    peak = rates.index(1.0)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(
        rates[peak:], reverse=True
    )


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_learns(smoke: Run) -> None:
    records = [json.loads(line) for line in (smoke.folder / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == list(range(1, SMOKE.steps + 1))
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]


def test_a_stopped_run_goes_on_with_the_same_bits(smoke: Run, tmp_path: Path) -> None:
    """Stopped after a save and, by a crash, between two saves."""
    train(open_run(SMOKE, tmp_path), until=6)
    crashed = open_run(SMOKE, tmp_path)
    crashed.recipe = SMOKE
    assert crashed.step == 6
    (tmp_path / "state.new").write_bytes(b"half a file")
    train(crashed)
    for (name, a), b in zip(
        smoke.model.state_dict().items(), crashed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_an_export_holds_the_rounded_values(smoke: Run, tmp_path: Path) -> None:
    model = export(smoke, tmp_path / "a")
    export(smoke, tmp_path / "b")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert open_checkpoint(tmp_path / "a").experts == "mxfp4"
    loaded = Reference.from_checkpoint(tmp_path / "a")
    changed = 0
    for (name, raw), a, b in zip(
        smoke.model.state_dict().items(),
        model.state_dict().values(),
        loaded.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b), name
        changed += not torch.equal(raw, a)
    assert changed  # the run's own weights were left alone
    write_card(smoke, tmp_path / "a", {})
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["recipe"]["seed"] == SMOKE.seed and card["training"]["tokens"] == smoke.tokens


def test_the_entry_trains_exports_and_measures(
    smoke: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mini.main(["--recipe", "smoke", "--run", str(tmp_path), "--until", "4"]) == 0
    assert not (tmp_path / "model").exists()
    assert "4 of 12 steps done" in capsys.readouterr().out
    assert mini.main(["--recipe", "smoke", "--run", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "from step 4" in out and "step 12/12" in out and "not those of the package" in out
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert set(card["held_out"]) == {"greedy", "temperature 1"}
    assert all(card["held_out"]["greedy"][t][e]["asked"] == 2 for t in MEASURED for e in EFFORTS)
    stored, whole = Reference.from_checkpoint(tmp_path / "model"), stored_model(smoke)
    assert all(torch.equal(a, b) for a, b in zip(stored.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--recipe", "maxi"], 2, "choose one of: mini, smoke"),
        (["--recipe", "smoke", "--evaluate", "-1"], 2, "--evaluate needs"),
        (["--recipe", "smoke", "--run", "{file}"], 1, "file"),
    ],
)
def test_bad_arguments_get_one_sentence(
    arguments: list[str], status: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert mini.main([a.format(file=tmp_path / "file") for a in arguments]) == status
    err = capsys.readouterr().err
    assert text in err and err.count("\n") == 1


# -- decoding ----------------------------------------------------------------------------------------------------------


def test_a_batch_decodes_as_its_rows_do_alone(packaged: Reference, encoder: FileEncoder) -> None:
    """Left padding, the cache and leaving rows change nothing: each step of each row alone, without a cache."""
    examples = [
        questions(task, effort, 1, 77)[0] for task in ("sums", "products", "chains") for effort in EFFORTS[:2]
    ]
    prompts = [
        prompt_ids(Dialogue(e, instructions="Be brief." if i % 2 else None), encoder)
        for i, e in enumerate(examples)
    ]
    assert len({len(p) for p in prompts}) > 2
    stops = packaged.config.eos_token_ids
    together = decode(packaged, prompts, stops, 40)
    for prompt, ids in zip(prompts, together, strict=True):
        with torch.inference_mode():
            logits = packaged(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == ids
        assert all(i not in stops for i in ids[:-1]) and (ids[-1] in stops or len(ids) == 40)


def test_a_completion_is_read_strictly(encoder: FileEncoder) -> None:
    e = questions("products", "medium", 1, 1)[0]
    dialogue = Dialogue(e)
    ids = row(dialogue, encoder).ids[len(prompt_ids(dialogue, encoder)) :]
    analysis, final, finished = split_completion(ids, encoder)
    assert (encoder.decode(analysis), encoder.decode(final), finished) == (e.analysis_text, e.final, True)
    assert split_completion(ids[:-1], encoder) == (analysis, [], False)
    assert split_completion(ids[1:], encoder) == ([], [], False)
    assert split_completion([], encoder) == ([], [], False)


def test_efforts_are_asked_the_same_questions() -> None:
    for task in MEASURED:
        low, medium, high = (
            [(e.key, e.prompt) for e in questions(task, effort, 25, 3)] for effort in EFFORTS
        )
        assert low == medium == high and len({key for key, _ in low}) == 25


# -- the packaged model ------------------------------------------------------------------------------------------------


def test_the_package_stays_small() -> None:
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 8e6
    assert (FOLDER / "reference.npz").stat().st_size <= 300e3


def test_the_card_tells_of_these_files() -> None:
    card = json.loads((FOLDER / "card.json").read_text())
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name
    assert {"model.safetensors", "tokenizer.json", "training.jsonl", "reference.npz"} <= card["sha256"].keys()
    log = [json.loads(line) for line in (FOLDER / "training.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log] == list(range(MINI.log_every, MINI.steps + 1, MINI.log_every))
    assert card["recipe"]["seed"] == MINI.seed and card["recipe"]["steps_done"] == MINI.steps
    assert card["training"]["last"] == log[-1]
    assert all(card["held_out"]["greedy"][t][e]["asked"] == MINI.evaluate for t in MEASURED for e in EFFORTS)


def test_its_control_tokens(encoder: FileEncoder) -> None:
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


@pytest.mark.parametrize(("task", "effort"), [("sums", "low"), ("products", "medium"), ("chains", "high")])
def test_the_card_tells_the_measured_accuracy(
    packaged: Reference, encoder: FileEncoder, task: str, effort: str
) -> None:
    """The first 60 of the card's 200 questions again, within four standard errors of a sample without replacement."""
    assert effort in EFFORTS
    claimed = json.loads((FOLDER / "card.json").read_text())["held_out"]["greedy"][task][effort]["accuracy"]
    asked = questions(task, effort, 60, MINI.seed)  # type: ignore[arg-type]
    found = score(answer(packaged, encoder, asked, MINI.max_new))
    spread = max(claimed * (1 - claimed), 1 / 200) / 60 * (200 - 60) / (200 - 1)
    assert abs(found.accuracy - claimed) <= 4 * spread**0.5
    assert found.asked == 60


def test_another_question_gets_another_answer(packaged: Reference, encoder: FileEncoder) -> None:
    answers = answer(packaged, encoder, questions("products", "high", 12, 999), MINI.max_new)
    assert len({a.final for a in answers}) > 8
    assert all(TASKS["products"].grade(a.example, a.final) is a.right for a in answers)


def test_rounding_is_idempotent(packaged: Reference) -> None:
    before = {n: p.clone() for n, p in packaged.named_parameters()}
    round_to_stored(packaged)
    assert all(torch.equal(p, before[n]) for n, p in packaged.named_parameters())
