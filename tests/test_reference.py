"""motet.reference against transformers' GptOssForCausalLM, and against plain arithmetic where that is clearer.

A fast subset of `make oracle` (tests/oracle_transformers.py), which derives the tolerances and runs every case.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


import oracle_transformers as oracle  # noqa: E402
from motet.checkpoint import write_checkpoint  # noqa: E402
from motet.reference import Reference, Routing, _SinkAttention, swiglu, top_k  # noqa: E402
from oracle_transformers import Case, small  # noqa: E402

CASES = {c.name: c for c in oracle.cases()}
SLOW = {"YaRN beyond 4096 positions", "window 128, 300 tokens, batch 3"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", [n for n in CASES if n not in SLOW])
def test_float32_logits_equal_transformers(name: str) -> None:
    d = oracle.float32_difference(CASES[name], seed=5)
    assert d.largest <= d.tolerance, d
    assert d.logit > 0.5, "logits this small would hide a difference"


def test_yarn_beyond_4096_positions() -> None:
    """One dense layer with one head, so that 4,224 squared scores stay cheap; `make oracle` runs two layers and heads."""
    heads = dict(hidden_size=32, intermediate_size=32, num_attention_heads=1, num_key_value_heads=1)
    case = Case("YaRN", small(**heads, num_hidden_layers=1, layer_types=("full_attention",)), 4224)
    d = oracle.float32_difference(case)
    assert d.largest <= d.tolerance, d


def test_the_clamping_case_clamps() -> None:
    d = oracle.float32_difference(CASES["clamps bite"])
    assert d.clamped > 0.3 and d.largest <= d.tolerance, d


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("window 1", {"sliding_window": 2}),
        ("sliding attention only", {"sliding_window": 7}),
        ("sliding attention only", {"sliding_window": 9}),
        ("window 128, 129 tokens", {"rope_truncate": True}),
        ("window 128, 129 tokens", {"rope_scaling_factor": 1.0}),
        ("window 128, 129 tokens", {"rms_norm_eps": 1e-3}),
        ("window 128, 129 tokens", {"swiglu_alpha": 1.0}),
        ("clamps bite", {"swiglu_limit": 7.5}),
        ("top 4 of 32, 6 layers", {"experts_per_token": 3}),
    ],
)
def test_the_tolerance_catches_a_small_mistake(name: str, change: dict[str, float]) -> None:
    """The same weights under a slightly wrong config differ by far more than the tolerance allows."""
    case = CASES[name]
    right, ids = oracle.random_model(case), oracle.random_ids(case)
    wrong = Reference(replace(case.config, **change))
    wrong.load_state_dict(right.state_dict())
    with torch.no_grad():
        difference = (right(ids) - wrong(ids)).abs().max().item()
    assert difference > 10 * oracle.float32_difference(case).tolerance


def test_dropping_the_sinks_would_show() -> None:
    case = CASES["window 128, 127 tokens"]
    model, ids = oracle.random_model(case), oracle.random_ids(case)
    with torch.no_grad():
        before = model(ids)
        for block in model.block:
            block.attn.sinks.fill_(float("-inf"))
        after = model(ids)
    assert torch.isfinite(after).all()
    assert (before - after).abs().max() > 10 * oracle.float32_difference(case).tolerance


@pytest.mark.parametrize("tokens", [127, 128, 129])
def test_which_keys_a_window_of_128_sees(tokens: int) -> None:
    """One sliding layer: the last query feels the key 127 back, not the one 128 back, in both implementations.

    One key among 128 moves logits by less than the general tolerance, so this asks for exact (in)equality instead.
    """
    case = Case("one layer", small(num_hidden_layers=1, layer_types=("sliding_attention",)), tokens)
    model, ids = oracle.random_model(case), oracle.random_ids(case)
    other = oracle.peer(model)
    with torch.no_grad():
        for back in range(126, tokens):
            changed = ids.clone()
            changed[0, tokens - 1 - back] = (changed[0, tokens - 1 - back] + 1) % 97
            assert torch.equal(model(changed)[0, -1], model(ids)[0, -1]) == (back == 128)
            assert torch.equal(other(changed).logits[0, -1], other(ids).logits[0, -1]) == (back == 128)


@pytest.mark.parametrize("name", ["all 4 of 4", "window 128, 129 tokens", "large sinks", "limit 1, alpha 1"])
def test_bfloat16_is_as_near_the_truth_as_transformers(name: str) -> None:
    """Both run in bf16 on the same bf16-exact weights; float32 logits of those weights are the truth.

    With all experts chosen nothing discrete can flip: our rms error stays within 1.25 of theirs (it is an average over
    thousands of logits, so its own scatter is a few per cent; ours rounds less often). Where a choice of expert may
    flip in either model, rounding of bf16 through 2 L sub-layers bounds neither; 2 allows for an unequal number of flips.
    """
    h = oracle.bf16_distance(CASES[name])
    assert h.ours <= (1.25 if name == "all 4 of 4" else 2) * h.theirs, h
    assert h.theirs > 0


def test_bfloat16_error_is_of_the_size_of_its_rounding() -> None:
    """Each of 2 L sub-layers adds about one rounding of a relative 2^-9 to the stream, twice with what it computes.

    sqrt(4 L + 2) roundings of rms 2^-9 / sqrt(3), amplified by at most a factor 8 by depth and normalisation.
    """
    case = CASES["all 4 of 4"]
    h = oracle.bf16_distance(case)
    roundings = (4 * case.config.num_hidden_layers + 2) ** 0.5
    assert h.ours <= 8 * roundings * 2**-9 / 3**0.5 * h.rms_logit, h


def test_a_cache_gives_the_logits_of_one_pass() -> None:
    """In pieces of 1, 63, 65 and 1 tokens, over the window's edge; a batch row padded on the left as well."""
    case = Case("cache", small(), 130)
    model, ids = oracle.random_model(case), oracle.random_ids(case)
    with torch.no_grad():
        whole, cache = model(ids), model.new_cache()
        parts = [model(piece, cache=cache) for piece in ids.split([1, 63, 65, 1], dim=1)]
        padded = torch.cat((torch.zeros(1, 5, dtype=torch.long), ids), dim=1)
        shifted = model(padded, cache=model.new_cache(torch.tensor([5])))[:, 5:]
    tolerance = oracle.float32_difference(case).tolerance
    assert (torch.cat(parts, dim=1) - whole).abs().max() <= tolerance
    assert (shifted - whole).abs().max() <= tolerance


def test_router_ties_go_to_the_lowest_index_and_weights_sum_to_one() -> None:
    values, index = top_k(torch.tensor([[1.0, 3.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]]), 3)
    assert index.tolist() == [[1, 2, 3], [0, 1, 2]] and values[0].tolist() == [3, 3, 3]
    case, seen = CASES["top 4 of 32, 6 layers"], list[Routing]()
    model, ids = oracle.random_model(case), oracle.random_ids(case)
    with torch.no_grad():
        model(ids, routing=seen)
    assert len(seen) == 6
    for r in seen:
        chosen = r.logits.gather(1, r.choice)
        assert torch.allclose(r.weight, chosen.softmax(-1)) and torch.allclose(
            r.weight.sum(-1), torch.ones(60)
        )
        rest = r.logits.scatter(1, r.choice, float("-inf"))
        assert (chosen.min(-1).values >= rest.max(-1).values).all()


def test_swiglu_at_planted_points() -> None:
    """By hand: gate bounded above only, up on both sides, alpha 1.702, one added to up."""
    gate, up = torch.tensor([20.0, -20.0, 1.0, 1.0, 7.0]), torch.tensor([20.0, 1.0, -20.0, 0.0, -1.0])
    sigmoid = lambda x: 1 / (1 + np.exp(-1.702 * x))  # noqa: E731
    want = [7 * sigmoid(7) * 8, -20 * sigmoid(-20) * 2, sigmoid(1) * -6, sigmoid(1), 0.0]
    np.testing.assert_allclose(swiglu(gate, up, 1.702, 7.0).numpy(), want, rtol=1e-6)


def test_attention_with_sinks_and_its_gradient() -> None:
    """Output and gradients against the definition, written out in float64."""
    g = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 3, 9, 8, generator=g, requires_grad=True) for _ in range(3))
    sinks = torch.randn(3, generator=g, requires_grad=True)
    out_grad = torch.randn(2, 3, 9, 8, generator=g)
    _SinkAttention.apply(q, k, v, sinks, None).backward(out_grad)
    twins = [x.detach().double().requires_grad_() for x in (q, k, v, sinks)]
    q2, k2, v2, s2 = twins
    scores = (q2 @ k2.transpose(2, 3) / 8**0.5).masked_fill(~torch.ones(9, 9).tril().bool(), float("-inf"))
    column = s2.view(1, 3, 1, 1).expand(2, 3, 9, 1)
    (torch.cat((scores, column), -1).softmax(-1)[..., :-1] @ v2).backward(out_grad.double())
    for mine, truth in zip((q, k, v, sinks), twins, strict=True):
        assert torch.allclose(mine.grad.double(), truth.grad, atol=1e-5), (mine.grad - truth.grad).abs().max()


@pytest.mark.parametrize("layout", ["hf", "openai"])
@pytest.mark.parametrize("name", ["window 128, 127 tokens", "tied embeddings"])
def test_from_checkpoint_gives_the_same_logits(tmp_path: Path, layout: str, name: str) -> None:
    case = CASES[name]
    model, ids = oracle.random_model(case), oracle.random_ids(case)
    state = {n: p.detach().numpy() for n, p in model.named_parameters()}
    with torch.no_grad():
        want = model(ids)
        for experts in ("float32", "bfloat16"):
            write_checkpoint(
                tmp_path / experts, case.config, state.__getitem__, layout=layout, experts=experts
            )
            assert torch.equal(Reference.from_checkpoint(tmp_path / experts)(ids), want)


def test_mxfp4_checkpoints_of_both_layouts_give_the_logits_of_the_rounded_weights(tmp_path: Path) -> None:
    from motet.mxfp4 import dequantize, quantize

    case = CASES["window 128, 127 tokens"]
    model, ids = oracle.random_model(case), oracle.random_ids(case)
    with torch.no_grad():
        state = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
        exact = model(ids)
        for n, p in model.named_parameters():
            if n.endswith(("mlp1_weight", "mlp2_weight")):
                p.copy_(torch.from_numpy(dequantize(*quantize(p.numpy()))))
        want = model(ids)
        for layout in ("hf", "openai"):
            write_checkpoint(tmp_path / layout, case.config, state.__getitem__, layout=layout)
            assert torch.equal(Reference.from_checkpoint(tmp_path / layout)(ids), want)
    assert not torch.equal(exact, want)
