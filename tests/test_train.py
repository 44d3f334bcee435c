"""Training: rows are Harmony, MXFP4 as stored, the fast path has the reference's gradients, runs go on with the same bits."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from motet import mxfp4  # noqa: E402
from motet.checkpoint import open_checkpoint  # noqa: E402
from motet.config import ModelConfig  # noqa: E402
from motet.errors import UsageError, UserError  # noqa: E402
from motet.harmony import Message, render_message  # noqa: E402
from motet.library import embedded_folder  # noqa: E402
from motet.reference import Parts, Reference, Routing  # noqa: E402
from motet.tasks import EFFORTS, TASKS, Scene, lesson  # noqa: E402
from motet.tasks.desk import Desk  # noqa: E402
from motet.tasks.drills import drill  # noqa: E402
from motet.tokenizer import Encoding, load_encoding  # noqa: E402
from motet.train.curve import draw_curves  # noqa: E402
from motet.train.data import SOURCES, Question, Row, batch, collate, draw, pack, prompt_ids, row  # noqa: E402
from motet.train.evaluate import questions  # noqa: E402
from motet.train.export import export, write_card  # noqa: E402
from motet.train.fast import FAST, fast_model, slots  # noqa: E402
from motet.train.optim import MuonAdamW, orthogonalize  # noqa: E402
from motet.train.quantize import fake_quantize, is_expert, mxfp4_values, seen  # noqa: E402
from motet.train.recipe import Prices, Recipe, read_recipe  # noqa: E402
from motet.train.reinforce import reinforce_step, roll, to_row  # noqa: E402
from motet.train.reward import Outcome, judge  # noqa: E402
from motet.train.rollout import Reply, Seen, converse, outcome_of, sample  # noqa: E402
from motet.train.run import Run, carry_on, open_stage, read_log  # noqa: E402
from motet.train.stages import STEPS  # noqa: E402

DATA = {"addition": 1.0, "multiplication": 1.0, "limits": 0.2}
RECIPE = """
threads = 1
precision = "float32"
fuse = false
[vocabulary]
size = 420
examples = 150
[model]
num_hidden_layers = 2
hidden_size = 64
intermediate_size = 32
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 16
num_experts = 8
experts_per_token = 4
sliding_window = 32
initial_context_length = 256
rope_theta = 150000.0
rope_scaling_factor = 4.0
max_position_embeddings = 1024
[stages.distill]
kind = "supervised"
steps = 6
data = { addition = 1.0, multiplication = 1.0 }
tokens = 900
chunks = 2
longest = 256
log_every = 1
save_every = 2
optimizer = { warmup = 2 }
[stages.rl]
kind = "reinforce"
steps = 4
data = { addition = 1.0, multiplication = 1.0 }
prompts = 3
samples = 4
max_new = 12
log_every = 1
save_every = 2
kl = 0.01
prices = { form = 0.1 }
[stages.qat]
kind = "supervised"
steps = 2
quantize = true
data = { addition = 1.0 }
tokens = 600
chunks = 1
longest = 256
[stages.export]
kind = "export"
questions = 0
"""


@pytest.fixture(scope="module")
def encoding() -> Encoding:
    return load_encoding(embedded_folder())


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return read_recipe(str(path))


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose stages up to qat are done, none of them stopped."""
    folder = tmp_path_factory.mktemp("whole")
    for stage in ("distill", "rl", "qat"):
        run = open_stage(recipe, folder, stage)
        carry_on(run, _step(run))
    return folder


def _step(run: Run) -> Any:
    """The stage's step; an untrained model's groups are all worth the same, so its rewards are made to differ."""
    return STEPS[run.settings.kind] if run.stage != "rl" else _spread


def _spread(run: Run) -> dict[str, Any]:
    from motet.train import reinforce

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reinforce, "judge", lambda e, o, b, p: _by_length(o))
        patch.setattr(reinforce, "outcome_of", lambda r, e: Outcome("", len(set(r.ids)), 0))
        return reinforce_step(run)


def _by_length(outcome: Outcome) -> Any:
    from motet.train.reward import Judged

    return Judged(outcome.analysis_tokens / 10, False, False)


def drawn(count: int, data: dict[str, float] = DATA) -> list[Question]:
    rng = random.Random(11)
    found = [draw(data, rng) for _ in range(count)]
    return [q for q in found if isinstance(q, Question)]


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", sorted(SOURCES.keys() - {"world", "unfiltered", "sheets"}))
def test_what_is_taught_is_what_the_assistant_samples(source: str, encoding: Encoding) -> None:
    """And the prompt is, token for token, what the renderer makes of the conversation."""
    for q in drawn(12, {source: 1.0}):
        r, prompt = row(q, encoding), prompt_ids(q.lesson, encoding)
        assert r.ids[: len(prompt)] == prompt and not any(r.learn[: len(prompt)])
        assert r.learn[len(prompt)] and r.learn[-1]
        assert r.ids[-1] in (encoding.special("<|return|>"), encoding.special("<|call|>"))
        if not q.example.turn:
            untaught = sum(len(encoding.encode(t)) for t, learn in q.example.analysis if not learn)
            assert r.learn.count(False) == len(prompt) + untaught


def test_what_a_tool_answers_is_shown_and_not_taught(encoding: Encoding) -> None:

    call = Message("assistant", "{}", "commentary", "functions.f", "json")
    result = Message("tool", "result", "commentary", "assistant", name="functions.f")
    example = replace(
        TASKS["addition"].example(random.Random(1), "low", "train"),
        turn=(
            Message("assistant", "I ask.", "analysis"),
            call,
            result,
            Message("assistant", "It is 3.", "final"),
        ),
    )
    q = Question(example, lesson(example))
    r = row(q, encoding)
    taught = encoding.decode([i for i, learn in zip(r.ids, r.learn, strict=True) if learn])
    assert "result" not in taught and "functions.f to=assistant" not in taught
    assert taught.startswith("<|channel|>analysis<|message|>I ask.<|end|>")
    assert taught.endswith("<|channel|>final<|message|>It is 3.<|return|>")
    assert encoding.decode(r.ids).endswith(
        "<|message|>result<|end|><|start|>assistant<|channel|>final<|message|>It is 3.<|return|>"
    )


@pytest.mark.parametrize("source", ["world", "unfiltered", "sheets"])
def test_plain_text_is_taught_whole(source: str, encoding: Encoding) -> None:
    text = draw({source: 1.0}, random.Random(1))
    assert isinstance(text, str)
    r = row(text, encoding)
    assert encoding.decode(r.ids) == text + "<|endoftext|>" and r.learn == [False] + [True] * (len(r.ids) - 1)


def test_batches_depend_on_their_name_alone(encoding: Encoding) -> None:
    def flat(name: str) -> list[int]:
        return [int(x) for c in batch(DATA, encoding, name, 2000, 3, 512) for x in c.ids.reshape(-1)]

    assert flat("1 distill 7") == flat("1 distill 7")
    assert flat("1 distill 7") != flat("1 distill 8") != flat("2 distill 8")


def test_training_never_draws_a_held_out_question() -> None:
    tasks = ("addition", "multiplication", "dates", "sorting")
    held = {e.key for task in tasks for e in questions(task, "low", 40, 1)}
    seen_keys = {q.example.key for q in drawn(600, dict.fromkeys(tasks, 1.0))}
    assert len(held) == 40 * len(tasks) and not held & seen_keys


def test_drills_teach_only_what_follows_from_what_is_shown(encoding: Encoding) -> None:
    """Every item that is taught was shown before it, in the same drill; what is random is not taught."""
    rng = random.Random(9)
    kinds = set()
    for _ in range(300):
        pieces = drill(rng)
        shown: set[str] = {"yes", "no", "of"}
        for text, taught in pieces:
            words = set(re.findall(r"\w+", text))
            if taught:
                assert words <= shown, (pieces, words - shown)
            shown |= words
        kinds.add(re.sub(r"\w+", "", "".join(t for t, _ in pieces))[:3])
        made = row(pieces, encoding)
        assert encoding.decode(made.ids[:-1]) == "".join(t for t, _ in pieces)
        assert sum(made.learn) == 1 + sum(len(encoding.encode(t)) for t, taught in pieces if taught)
    assert len(kinds) > 5
    assert drill(random.Random(4)) == drill(random.Random(4)) != drill(random.Random(5))


def test_packing_keeps_documents_apart_and_padding_untaught() -> None:
    rows = [Row([5, 6, 7], [False, True, True], 0.5), Row([8, 9, 1, 2, 3], [False, False, True, False, True])]
    (chunk,) = [collate(pack(rows, 64))]
    assert chunk.ids[0, :7].tolist() == [8, 9, 1, 2, 5, 6, 0]
    assert chunk.segments[0, :7].tolist() == [0, 0, 0, 0, 1, 1, -1]
    assert chunk.at.tolist() == [1, 3, 4, 5] and chunk.target.tolist() == [1, 3, 6, 7]
    assert chunk.weight.tolist() == [1.0, 1.0, 0.5, 0.5] and int(chunk.real.sum()) == 6
    assert [len(b) for b in pack(rows, 4)] == [1, 1]


@pytest.mark.parametrize("parts", [Parts(), FAST])
def test_a_packed_document_reads_as_it_does_alone(parts: Parts) -> None:
    """Two rows that end in padding; documents shorter than a window, longer than two, of one token; numbers that come again."""
    model = Reference(_shape(), parts=parts).initialize(torch.Generator().manual_seed(3), std=1.0)
    g = torch.Generator().manual_seed(4)
    rows = [
        [torch.randint(0, 90, (n,), generator=g) for n in lengths]
        for lengths in ((70, 21, 1, 40), (32, 33, 64))
    ]
    ids, segments = torch.zeros(2, 140, dtype=torch.int64), torch.full((2, 140), -1)
    for b, documents in enumerate(rows):
        whole = torch.cat(documents)
        ids[b, : len(whole)] = whole
        segments[b, : len(whole)] = torch.arange(len(documents)).repeat_interleave(
            torch.tensor([len(d) for d in documents])
        )
    with torch.no_grad():
        together = model(ids, segments=segments)[segments >= 0]
        alone = torch.cat([model(d[None])[0] for documents in rows for d in documents])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


# -- the fast path -----------------------------------------------------------------------------------------------------


def _shape(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = dict(
        num_hidden_layers=2, hidden_size=64, intermediate_size=32, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, num_experts=8, experts_per_token=4, sliding_window=32, initial_context_length=256,
        rope_theta=150000.0, rope_scaling_factor=4.0, max_position_embeddings=1024, vocab_size=90, eos_token_ids=(1,),
        pad_token_id=0,
    )  # fmt: skip
    return ModelConfig(**(values | changes))


def test_the_fast_path_has_the_gradients_of_the_reference() -> None:
    """Loud activations, so that the clamp bites; biases and sinks away from zero; a bound from float32's epsilon."""
    g = torch.Generator().manual_seed(5)
    slow = Reference(_shape()).initialize(g)
    with torch.no_grad():
        for name, p in slow.named_parameters():
            p.add_(torch.randn(p.shape, generator=g) * (2.0 if "mlp1_bias" in name else 0.2))
    fast = fast_model(_shape())
    fast.load_state_dict(slow.state_dict())
    ids, target = torch.randint(0, 90, (2, 3, 97), generator=g)
    segments = (torch.arange(97) // 40).expand(3, -1).contiguous()
    segments[0, 50:], segments[1, 80:] = 1, -1  # a long document, and padding
    real = segments.view(-1) >= 0
    for model in (slow, fast):
        routing: list[Routing] = []
        logits = model(ids, routing=routing, segments=segments)
        loss = torch.nn.functional.cross_entropy(logits.view(-1, 90)[real], target.view(-1)[real])
        (loss + 0.01 * sum(r.logits[real].logsumexp(-1).square().mean() for r in routing)).backward()
    for (name, a), b in zip(slow.named_parameters(), fast.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert float((a.grad - b.grad).norm()) <= 2e-5 * float(a.grad.norm()) + 1e-8, name


@pytest.mark.parametrize("skew", [0.0, 2.0, 50.0])
def test_slots_hold_every_choice_once_however_uneven_the_experts_are(skew: float) -> None:
    """Even, uneven, and all tokens on the same four of thirty-two: each choice on a row of its own, with its expert."""
    g = torch.Generator().manual_seed(8)
    scores = torch.randn(500, 32, generator=g) + skew * torch.randn(32, generator=g)
    choice = scores.topk(4, dim=-1).indices
    at = slots(choice, 32)
    rows = at.place.view(-1)
    assert len(set(rows.tolist())) == 2000 and int((at.token < 500).sum()) == 2000
    assert (at.token[at.place] == torch.arange(500).unsqueeze(1)).all()
    expert_of = torch.full((len(at.token),), -1)
    for first, count, start, each in at.groups:
        expert_of[start : start + count * each] = at.order[first : first + count].repeat_interleave(each)
    assert (expert_of[at.place] == choice).all()
    assert (
        len(at.token)
        <= sum(max(64, -(-int(n) // 64) * 64) for n in choice.view(-1).bincount(minlength=32)) * 3
    )
    x, m = torch.randn(len(at.token), 8, generator=g), torch.randn(32, 8, 3, generator=g)
    torch.testing.assert_close(at.batched(x, m[at.order])[rows[7]], x[rows[7]] @ m[choice.view(-1)[7]])


def test_a_pass_holds_documents_one_behind_the_other(encoding: Encoding) -> None:
    """No padding but at the end, every document once, passes of about one size; more passes hold the same documents."""
    kinds = {"world": 0.5, "sheets": 0.5}
    (whole,), parts = (batch(kinds, encoding, "passes", 6000, n, 512) for n in (1, 3))
    assert len(parts) == 3 and all(len(c.ids) == 1 for c in (whole, *parts))
    for c in (whole, *parts):
        assert c.ids.numel() % 64 == 0 and c.ids.numel() - int(c.real.sum()) < 64
        assert c.real.diff().sum() <= 1 and c.segments.diff()[:, : int(c.real.sum()) - 1].min() >= 0
        assert abs(int(c.real.sum()) - 6000 * len(c.ids) / (1 if c is whole else 3)) < 600
    assert torch.cat([c.ids.view(-1)[c.real] for c in parts]).equal(whole.ids.view(-1)[whole.real])
    documents = int(whole.segments.max()) + 1
    assert 6000 <= int(whole.real.sum()) + documents < 6000 + 512


def test_a_batch_is_sampled_as_its_rows_are_alone(encoding: Encoding) -> None:
    """Left padding, the cache and leaving rows change nothing: every step of every row again, alone, without a cache."""
    model = fast_model(_shape(vocab_size=400)).initialize(torch.Generator().manual_seed(1), std=1.0)
    g = torch.Generator().manual_seed(2)
    prompts = [torch.randint(0, 400, (n,), generator=g).tolist() for n in (3, 61, 40, 12, 12, 33, 50, 7)]
    stops = list(range(30))
    seen_model = Seen.of(model, torch.float32, False)
    together = sample(seen_model, prompts, stops, 40, temperature=0)
    assert len({len(t) for t in together}) > 2
    for prompt, ids in zip(prompts, together, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == ids
        assert all(i not in stops for i in ids[:-1]) and (ids[-1] in stops or len(ids) == 40)
    hot = [sample(seen_model, prompts, stops, 20, 1.0, seed) for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]


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
    model = Reference(_shape())
    optimizer = MuonAdamW(model, 0.1, 0.1, 0.0)
    assert not optimizer.muon.keys() & optimizer.adam.keys()
    assert optimizer.muon.keys() | optimizer.adam.keys() == dict(model.named_parameters()).keys()
    assert {n.split(".", 2)[2] for n in optimizer.muon} == {
        "attn.qkv.weight", "attn.out.weight", "mlp.mlp1_weight", "mlp.mlp2_weight"}  # fmt: skip
    without = MuonAdamW(model, 0.0, 0.1, 0.0)
    assert not without.muon and without.adam.keys() == dict(model.named_parameters()).keys()


def test_the_rate_warms_up_and_decays() -> None:
    optimizer = read_recipe("mini").stages["distill"].optimizer
    rates = [optimizer.rate(s, 1000) for s in range(1000)]
    assert rates[0] == 1 / optimizer.warmup and max(rates) == 1.0 and 0 < rates[-1] - optimizer.floor < 0.01
    peak = rates.index(1.0)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(
        rates[peak:], reverse=True
    )


# -- rewards -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    first=st.text(max_size=60),
    second=st.text(max_size=60),
    final=st.sampled_from(["{answer}", "It is {answer}.", "No."]),
)
def test_a_reward_cannot_tell_one_analysis_from_another(
    encoding: Encoding, first: str, second: str, final: str
) -> None:
    """Two replies whose analyses have as many tokens and nothing else in common are worth the same."""
    example, prices = TASKS["multiplication"].example(random.Random(3), "medium", "train"), Prices()
    a, b = encoding.encode(first), encoding.encode(second)
    n = min(len(a), len(b))
    worth = []
    for part in (a[:n], b[:n]):
        ids = _completion(encoding, part, final.format(answer=example.answer))
        outcome = outcome_of(Reply(ids, [True] * len(ids)), encoding)
        # Ids cut out of a text need not be whole characters; the count is what must agree.
        assert outcome.final == final.format(answer=example.answer)
        worth.append(judge(example, Outcome(outcome.final, n, outcome.final_tokens), 10, prices))
    assert worth[0] == worth[1]
    assert not {"analysis", "ids", "text"} & set(Outcome.__dataclass_fields__)


def _completion(encoding: Encoding, analysis: list[int], final: str) -> list[int]:
    whole = render_message(Message("assistant", "", "analysis"), encoding)[2:]
    last = render_message(Message("assistant", final, "final"), encoding)
    return whole[:-1] + analysis + whole[-1:] + last[:-1] + [encoding.special("<|return|>")]


def test_length_form_and_leaks_are_priced() -> None:
    example = TASKS["multiplication"].example(random.Random(3), "medium", "train")
    prices = Prices()
    right, wrong = example.final, "-7"

    def worth(final: str | None, tokens: int = 5, final_tokens: int = 5) -> float:
        return judge(example, Outcome(final, tokens, final_tokens), 10, prices).reward

    assert (
        worth(right)
        == 1.0
        == worth(right, 10)
        > worth(right, 20)
        > worth(right, 30)
        >= 0.5
        == worth(right, 10_000)
    )
    assert worth(wrong) == prices.form > worth(None) == 0.0
    assert worth(right, 5, prices.final_tokens + 1) == 1.0 - prices.leak


def test_a_reply_is_read_strictly(encoding: Encoding) -> None:
    ids = _completion(encoding, encoding.encode("2 + 2"), "4")
    good = outcome_of(Reply(ids), encoding)
    assert good == Outcome("4", len(encoding.encode("2 + 2")), 1)
    assert outcome_of(Reply(ids[:-1]), encoding).final is None
    assert outcome_of(Reply(ids[1:]), encoding).final is None
    assert outcome_of(Reply([]), encoding).final is None
    assert outcome_of(Reply([*ids[:-1], encoding.special("<|call|>")]), encoding).final is None


@pytest.mark.parametrize("task", ["functions", "browsing", "python"])
def test_a_desk_gives_the_teacher_what_it_got_and_strangers_nothing(task: str) -> None:
    rng = random.Random(8)
    for _ in range(15):
        example = TASKS[task].example(rng, "medium", "train")
        desk = Desk(example)
        for call, result in zip(example.turn, example.turn[1:], strict=False):
            if (call.role, result.role) == ("assistant", "tool"):
                assert desk.answer(call) == result
        assert desk.answer(Message("assistant", "{}", "commentary", "functions.nobody", "json")) is None
        if task == "functions" and any(d.startswith("functions.") for d in desk._declared):
            stranger = Message("assistant", '{"odd": 1}', "commentary", min(desk._declared), "json")
            assert "Error" in desk.answer(stranger).text  # type: ignore[union-attr]


def test_tools_answer_within_a_turn_and_are_not_learned(
    recipe: Recipe, tmp_path: Path, encoding: Encoding
) -> None:
    """A model made to call python at once: the call is answered, the reply goes on, and only its own ids are taught."""

    from motet.harmony import PYTHON

    example = replace(
        TASKS["addition"].example(random.Random(1), "low", "train"), scene=Scene(builtin=(PYTHON,))
    )
    call = render_message(Message("assistant", "2 * 21", "analysis", "python", "code"), encoding)[2:]
    call = [*call[:-1], encoding.special("<|call|>")]
    after = _completion(encoding, encoding.encode("ok"), "42")
    script, desk = {0: call, 1: after}, Desk(example)
    prompt = prompt_ids(lesson(example), encoding)
    with pytest.MonkeyPatch.context() as patch:
        turn = iter(range(2))
        patch.setattr("motet.train.rollout.sample", lambda *a, **k: [script[next(turn)]])
        (reply,) = converse(None, [prompt], encoding, lambda i, c: desk.answer(c),  # type: ignore[arg-type]
                            max_new=50, calls=2, functions=[False])  # fmt: skip
    shown = encoding.decode([i for i, own in zip(reply.ids, reply.own, strict=True) if not own])
    assert shown == "<|start|>python to=assistant<|channel|>analysis<|message|>42<|end|><|start|>assistant"
    assert [i for i, own in zip(reply.ids, reply.own, strict=True) if own] == call + after
    assert outcome_of(reply, encoding) == Outcome(
        "42", len(encoding.encode("ok")), len(encoding.encode("42")), 1
    )


def test_a_step_of_reinforcement_raises_what_was_better(
    recipe: Recipe, trained: Path, tmp_path: Path
) -> None:
    """The log probability of above-average replies goes up against that of the others, and tool ids carry no weight."""
    _copy(trained, tmp_path, ["distill"])
    run = open_stage(recipe, tmp_path, "rl")
    with pytest.MonkeyPatch.context() as patch:
        from motet.train import reinforce

        patch.setattr(reinforce, "judge", lambda e, o, b, p: _by_length(o))
        patch.setattr(reinforce, "outcome_of", lambda r, e: Outcome("", len(set(r.ids)), 0))
        rows = [to_row(r) for r in roll(run)]
        chunk = collate(pack(rows, 640))

        def gain() -> float:
            with torch.no_grad():
                logp = run.model(chunk.ids, at=chunk.at, segments=chunk.segments).log_softmax(-1)
            return float((logp.gather(1, chunk.target[:, None])[:, 0] * chunk.weight).sum())

        before = gain()
        reinforce_step(run)
    assert abs(sum(r.weight for r in rows)) < 1e-4 and gain() > before


# -- runs --------------------------------------------------------------------------------------------------------------


def _copy(source: Path, target: Path, stages: list[str]) -> None:
    for name in ("recipe.json", "tokenizer.json", *(f"{s}.pt" for s in stages)):
        (target / name).write_bytes((source / name).read_bytes())


def test_a_run_learns(trained: Path) -> None:
    records = [r for r in read_log(trained) if r["stage"] == "distill"]
    assert [r["step"] for r in records] == list(range(1, 7))
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]


@pytest.mark.parametrize(("stage", "before", "at"), [("distill", [], 3), ("rl", ["distill"], 2)])
def test_a_stopped_stage_goes_on_with_the_same_bits(
    recipe: Recipe, trained: Path, tmp_path: Path, stage: str, before: list[str], at: int
) -> None:
    """Stopped at a step, and by a crash that left half a file."""
    _copy(trained, tmp_path, before)
    run = open_stage(recipe, tmp_path, stage)
    carry_on(run, _step(run), until=at)
    (tmp_path / f"{stage}.new").write_bytes(b"half a file")
    run = open_stage(recipe, tmp_path, stage)
    assert run.step == at
    carry_on(run, _step(run))
    whole = torch.load(trained / f"{stage}.pt", weights_only=True)["model"]
    for name, value in run.model.state_dict().items():
        assert torch.equal(whole[name], value), name


def test_a_folder_is_not_mixed_up(recipe: Recipe, trained: Path, tmp_path: Path) -> None:

    with pytest.raises(UserError, match="whose seed differs"):
        open_stage(replace(recipe, seed=2), trained, "distill")
    with pytest.raises(UserError, match=r"'distill' .* is not finished; run 'motet train distill' first"):
        open_stage(recipe, tmp_path, "rl")


def test_a_recipe_may_change_where_a_run_has_not_been(recipe: Recipe, trained: Path, tmp_path: Path) -> None:

    _copy(trained, tmp_path, ["distill"])
    open_stage(recipe, tmp_path, "rl")
    later = {**recipe.stages, "rl": replace(recipe.stages["rl"], steps=7)}
    assert open_stage(replace(recipe, stages=later), tmp_path, "rl").settings.steps == 7
    with pytest.raises(UserError, match=r"whose stages\.rl\.steps differs"):
        open_stage(replace(recipe, stages=later), trained, "rl")
    moved = {"rl": recipe.stages["rl"], **recipe.stages}
    with pytest.raises(UserError, match="whose order of stages differs"):
        open_stage(replace(recipe, stages=moved), trained, "distill")


def test_the_log_draws_as_a_picture(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_curves(read_log(trained), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("layout", ["hf", "openai"])
def test_an_export_holds_the_values_training_saw(
    recipe: Recipe, trained: Path, tmp_path: Path, layout: Any
) -> None:
    """Bit for bit: dequantised experts are the fake-quantised ones of the last step; the same run, the same bytes."""
    run = open_stage(recipe, trained, "export")
    model = export(run, tmp_path / "a", layout)
    export(run, tmp_path / "b", layout)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert open_checkpoint(tmp_path / "a").experts == "mxfp4"
    loaded = Reference.from_checkpoint(tmp_path / "a")
    in_training = seen(run.model, torch.float32, True)
    for (name, a), b in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert not is_expert(name) or torch.equal(b, in_training[name]), name
    write_card(run, tmp_path / "a", {})
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["recipe"]["seed"] == recipe.seed and card["training"]["tokens"] == run.tokens


def test_an_export_of_an_earlier_stage(recipe: Recipe, trained: Path, tmp_path: Path) -> None:
    """Where later stages made a model worse, what is stored is the one before them."""
    (tmp_path / "early.toml").write_text(RECIPE + 'weights = "distill"')
    early = read_recipe(str(tmp_path / "early.toml"))
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "recipe.json").unlink()
    stored = torch.load(folder / "distill.pt", weights_only=True)["model"]
    model = open_stage(early, folder, "export").model
    assert all(torch.equal(p, stored[n]) for n, p in model.named_parameters())
    late = open_stage(recipe, trained, "export").model
    assert not all(torch.equal(p, stored[n]) for n, p in late.named_parameters())


def test_stages_that_begin_with_the_same_weights(recipe: Recipe, trained: Path, tmp_path: Path) -> None:
    """Two ways to go on from one stage, to compare them."""
    (tmp_path / "fork.toml").write_text(
        RECIPE.replace("[stages.qat]\n", '[stages.qat]\nweights = "distill"\n')
    )
    fork = read_recipe(str(tmp_path / "fork.toml"))
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("tokenizer.json", "distill.pt"):
        shutil.copy(trained / name, folder / name)
    stored = torch.load(folder / "distill.pt", weights_only=True)
    run = open_stage(fork, folder, "qat")
    assert all(torch.equal(p, stored["model"][n]) for n, p in run.model.named_parameters())
    assert run.tokens == stored["tokens"] and fork.before("export") == "qat"


@pytest.mark.parametrize("stage", ["rl", "qat"])
def test_a_stage_that_trains_some_parameters_leaves_the_others(
    stage: str, trained: Path, tmp_path: Path
) -> None:
    """`only` names them by how their names begin; what begins with nothing is said."""
    (tmp_path / "some.toml").write_text(
        RECIPE.replace(f"[stages.{stage}]\n", f'[stages.{stage}]\nonly = "norm."\n')
    )
    some = read_recipe(str(tmp_path / "some.toml"))
    folder = tmp_path / "run"
    folder.mkdir()
    _copy(trained, folder, ["distill", *(("rl",) if stage == "qat" else ())])
    (folder / "recipe.json").unlink()
    run = open_stage(some, folder, stage)
    first = {n: p.clone() for n, p in run.model.named_parameters()}
    with pytest.MonkeyPatch.context() as patch:
        from motet.train import reinforce

        patch.setattr(reinforce, "judge", lambda e, o, b, p: _by_length(o))
        patch.setattr(reinforce, "outcome_of", lambda r, e: Outcome("", len(set(r.ids)), 0))
        STEPS[some.stages[stage].kind](run)
    changed = {n for n, p in run.model.named_parameters() if not torch.equal(p, first[n])}
    assert changed == {"norm.scale"} and len(run.optimizer.state_dict()["state"]) == 1
    none = replace(some, stages={**some.stages, stage: replace(some.stages[stage], only="gate")})
    with pytest.raises(UsageError, match=r"only is 'gate'; the parameters are embedding.weight, block.N"):
        open_stage(none, folder, stage)


def test_an_export_runs_in_the_engine(recipe: Recipe, trained: Path, tmp_path: Path) -> None:
    """Trained, stored, packed, served: the engine's logits are the stored model's."""
    import motet

    model = export(open_stage(recipe, trained, "export"), tmp_path / "model")
    ids = list(range(40, 90))
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0].numpy()
    loaded = motet.load(str(tmp_path / "model"), precision="float32")
    np.testing.assert_allclose(loaded.logits(ids), expected, rtol=0, atol=2e-3)


def test_a_stage_may_draw_what_an_earlier_one_did(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.replace("{ addition = 1.0 }\ntokens", '"distill"\ntokens'))
    stages = read_recipe(str(tmp_path / "r.toml")).stages
    assert stages["qat"].data == stages["distill"].data != {"addition": 1.0}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1", "at least one"),
        (RECIPE.replace("tokens = 900", "tokens = -1"), "must not be negative"),
        (RECIPE.replace("tokens = 900", "token = 1"), "stages.distill.token is no key"),
        (RECIPE.replace('"reinforce"', '"magic"'), "choose one of supervised"),
        (RECIPE.replace("num_attention_heads = 4", "num_attention_heads = 3"), "num_attention_heads"),
        (RECIPE.replace("steps = 6", "steps = 0"), "at least one step"),
        (RECIPE.replace("data = { addition = 1.0 }\ntokens", "tokens"), "stages.qat.data is empty"),
        (RECIPE.replace("{ addition = 1.0 }\ntokens", "{ plus = 1.0 }\ntokens"), "no data source 'plus'"),
        (
            RECIPE + 'weights = "export"',
            "stages.export.weights is 'export'; name a stage before it: distill, rl, qat",
        ),
        (
            RECIPE.replace("[stages.distill]\n", '[stages.distill]\nweights = "qat"\n'),
            "stages.distill.weights is 'qat'; name a stage before it: there is none",
        ),
        (
            RECIPE.replace("{ addition = 1.0 }\ntokens", '"export"\ntokens'),
            "stages.qat.data is 'export'; name a stage before it",
        ),
        ("seed = ", "no TOML"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_recipe(str(tmp_path / "r.toml"))
    assert "\n" not in str(caught.value)


def test_recipes_of_the_package_are_sound() -> None:
    from motet.train.recipe import recipes

    for name in recipes():
        whole, small = read_recipe(name), read_recipe(name, smoke=True)
        assert list(whole.stages) == list(small.stages)
    with pytest.raises(UsageError, match="no recipe 'maxi'; choose one of mini"):
        read_recipe("maxi")


def test_the_command_trains_stops_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All stages of a recipe by `motet train`, with a stop between."""
    from motet.cli.app import run as command

    path = tmp_path / "tiny.toml"
    path.write_text(
        RECIPE.replace("questions = 0", "questions = 1\nmax_new = 4").replace("steps = 4", "steps = 1")
    )
    common = ["--recipe", str(path), "--run", str(tmp_path / "run")]
    with pytest.raises(UserError, match="'distill'"):
        command(["train", "rl", *common])
    assert command(["train", "distill", *common, "--until", "2"]) == 0
    assert "2/6" in capsys.readouterr().err
    assert command(["train", "all", *common, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "from step 2 of 6" in err and set(json.loads(out)["stages"]) == {"distill", "rl", "qat", "export"}
    card = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert set(card["held_out"]) == {"greedy", "temperature 1"}
    assert (tmp_path / "run" / "curve.png").exists() and (tmp_path / "run" / "model-original").is_dir()
    for more, kind, words in (
        (["nothing"], UsageError, "no stage 'nothing'; choose from distill"),
        (["all", "--until", "3"], UsageError, "--until belongs to one stage"),
        (["all", "--seed", "9"], UserError, "whose seed differs"),
    ):
        with pytest.raises(kind, match=words):
            command(["train", *more, *common])


def test_efforts_are_asked_the_same_questions() -> None:
    for task in ("addition", "modular", "sorting"):
        low, medium, high = (
            [(e.key, e.prompt) for e in questions(task, effort, 25, 3)] for effort in EFFORTS
        )
        assert low == medium == high and len({key for key, _ in low}) == 25
