"""engine/vllm.py against the real vLLM on the CPU, in this process and behind its own server; `make oracle-vllm` runs it.

Without vLLM only what needs none of it is tested. vLLM computes in bf16, so its log-probabilities are compared with
motet's float32 ones within what that rounding explains, and its tokens where those leave no doubt.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motet.config import ModelConfig
from motet.engine import DeadlineError, EngineError, Loops, SamplingParams
from motet.engine.vllm import VllmEngine, VllmServer
from motet.errors import UsageError
from motet.model import ContextError
from motet.synth import byte_vocabulary, random_checkpoint

CONTEXT = 1024
OPTIONS: dict[str, Any] = {
    "enforce_eager": True,
    "dtype": "bfloat16",
    "max_model_len": CONTEXT,
    "max_num_seqs": 4,
}
PROMPT = [(7 * n * n + 3 * n) % 250 for n in range(200)]


def shape() -> ModelConfig:
    """Small, with a head size that vLLM's attention on the CPU has code for."""
    tiny = ModelConfig.tiny()
    return type(tiny)(**{**vars(tiny), "head_dim": 32, "sliding_window": 128})


def installed() -> bool:
    try:
        import vllm  # noqa: F401
    except ImportError:
        return False
    return True


needs_vllm = pytest.mark.skipif(
    not installed(), reason="vLLM is not installed here; 'make oracle-vllm' installs it"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "tiny"
    words = byte_vocabulary(shape().vocab_size)
    return random_checkpoint(shape(), folder, experts="bfloat16", seed=3, vocabulary=words)


@pytest.fixture(scope="module")
def engines(checkpoint: Path) -> Iterator[dict[str, Any]]:
    """One engine in this process, one on a server of its own."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint),
               "--served-model-name", "tiny", "--port", str(port), "--host", "127.0.0.1", "--skip-tokenizer-init",
               "--enforce-eager", "--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", "4",
               "--enable-prompt-tokens-details"]  # fmt: skip
    with (checkpoint.parent / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ)
    try:
        local = VllmEngine(checkpoint, **OPTIONS)
        wait(f"http://127.0.0.1:{port}/health", server, checkpoint.parent / "server.log")
        remote = VllmServer(f"http://127.0.0.1:{port}/v1", "tiny", shape(), context=CONTEXT)
        yield {"here": local, "server": remote}
        local.close()
        remote.close()
    finally:
        server.terminate()
        server.wait(30)


def wait(url: str, server: Any, log: Path) -> None:
    import httpx

    for _ in range(240):
        if server.poll() is not None:
            break
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-3000:]}")


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize("which", ["here", "server"])
def test_ids_in_ids_out_as_the_protocol_says(engines: dict[str, Any], checkpoint: Path, which: str) -> None:
    from motet.model import load

    engine = engines[which]
    model = load(checkpoint, precision="float32")
    greedy = SamplingParams(temperature=0, max_tokens=8, stop_token_ids=(), logprobs=3)
    request = engine.submit(PROMPT, greedy)
    outs = list(request)
    assert [o.finish for o in outs] == [None] * 7 + ["length"] and request.finish == "length"
    assert request.stats.n_sampled == 8 and 0 < request.stats.first_s <= request.stats.total_s
    rows = model.logits(PROMPT + [o.token for o in outs])[len(PROMPT) - 1 : -1]
    for out, row in zip(outs, rows, strict=True):
        own = row - row.max() - np.log(np.exp(row - row.max()).sum(dtype=np.float64))
        # bf16 keeps 8 bits: logits of a few units come out within some hundredths.
        assert abs(out.logprob - own[out.token]) < 0.1
        assert len(out.top_logprobs) == 3 and out.top_logprobs[0] == (out.token, out.logprob)
        assert all(abs(v - own[i]) < 0.1 for i, v in out.top_logprobs)
        likely = np.sort(own)[::-1]
        assert out.token == own.argmax() or likely[0] - own[out.token] < 0.1
    # A stop token is emitted and ends it; a budget of one token is "length".
    stop = outs[2].token
    first = [o.token for o in outs].index(stop)
    stopped = list(engine.submit(PROMPT, SamplingParams(temperature=0, stop_token_ids=(stop,), max_tokens=8)))
    assert [o.token for o in stopped] == [o.token for o in outs[: first + 1]] and stopped[-1].finish == "stop"
    # The prompt is in vLLM's prefix cache now, in blocks.
    again = engine.submit(PROMPT, greedy)
    list(again)
    assert 0 < again.stats.cached_tokens < len(PROMPT)


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize("which", ["here", "server"])
def test_seeds_several_answers_cancelling_and_deadlines(engines: dict[str, Any], which: str) -> None:
    engine = engines[which]
    requests = engine.submit_many(PROMPT, 3, SamplingParams(seed=5, max_tokens=12, stop_token_ids=()))
    answers = [[o.token for o in r] for r in requests]
    assert len({tuple(a) for a in answers}) == 3
    again = engine.generate(
        PROMPT, SamplingParams(seed=requests[1].stats.seed, max_tokens=12, stop_token_ids=())
    )
    assert again == answers[1]
    long = engine.submit([1, 2, 3], SamplingParams(stop_token_ids=()))
    for _ in long:
        break
    list(long)
    assert long.finish == "cancelled" and long.stats.n_sampled < CONTEXT - 3
    late = engine.submit([1, 2, 3], SamplingParams(stop_token_ids=()), deadline_s=0.2)
    with pytest.raises(DeadlineError):
        list(late)
    assert late.finish == "error"


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize("which", ["here", "server"])
def test_what_vllm_cannot_honour_is_declared_and_refused(engines: dict[str, Any], which: str) -> None:
    engine = engines[which]
    able = engine.capabilities
    assert not (able.bit_equal or able.constraints or able.router_counts or able.loops)
    for params in (
        SamplingParams(loops=Loops()),
        SamplingParams(constraint=lambda: None),  # type: ignore[arg-type, return-value]
        SamplingParams(logprobs=21),
        SamplingParams(logit_bias={3: -float("inf")}),
    ):
        with pytest.raises(UsageError, match=r"\(vLLM\)"):
            engine.submit([1], params)
    if not able.priorities:
        with pytest.raises(UsageError, match="priorities"):
            engine.submit([1], priority=1)
    with pytest.raises(ContextError):
        engine.submit([1] * CONTEXT)
    with pytest.raises(UsageError, match="vocabulary"):
        engine.submit([1], SamplingParams(logit_bias={10**6: 1.0}))


@pytest.mark.slow
@needs_vllm
def test_a_turn_runs_on_vllm_as_on_our_own_engine(engines: dict[str, Any]) -> None:
    """run_turn takes any engine with `stream`; random weights say nothing sensible, but every byte comes back as events."""
    from motet.harmony import TurnDone
    from motet.tokenizer import load_encoding
    from motet.turn import conversation_of, run_turn

    encoding = load_encoding(Path(engines["here"]._llm.model_config.model))
    events = list(
        run_turn(engines["here"], conversation_of("hi"), encoding, SamplingParams(seed=1, max_tokens=20))
    )
    assert isinstance(events[-1], TurnDone)


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    pytest.importorskip("httpx", reason="httpx is not installed")
    with VllmServer("http://127.0.0.1:9/v1", "tiny", shape(), context=CONTEXT) as engine:
        with pytest.raises(EngineError, match="does not answer"):
            engine.generate([1, 2], SamplingParams(max_tokens=2))
        with pytest.raises(UsageError, match="loops"):
            engine.submit([1], SamplingParams(loops=Loops()))
    with pytest.raises(EngineError, match="closed"):
        engine.submit([1])


@pytest.mark.skipif(installed(), reason="vLLM is installed")
def test_without_vllm_the_message_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="install vllm"):
        VllmEngine(tmp_path)
