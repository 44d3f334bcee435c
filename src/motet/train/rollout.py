"""Replies of the model in training: a batched sampler with a cache, tools in the loop, read as Harmony.

Knows prompts, decoding and how a completion comes to an Outcome. Does not know rewards or gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from motet.harmony import Message, parse, render_message, said
from motet.reference import Reference
from motet.tasks.strict import strictly
from motet.tokenizer import Encoding
from motet.train.attention import Buffers
from motet.train.quantize import seen
from motet.train.reward import Outcome

Respond = Callable[[int, Message], Message | None]
"""(which prompt, the call) -> what the tool answers, or None where nobody answers."""


@dataclass(frozen=True)
class Seen:
    """A model with the parameters its stage sees, made once for many steps."""

    model: Reference
    parameters: dict[str, Tensor]

    @classmethod
    def of(cls, model: Reference, dtype: torch.dtype, quantized: bool) -> Seen:
        """See `motet.train.quantize.seen`."""
        with torch.no_grad():
            return cls(model, seen(model, dtype, quantized))

    def logits(self, ids: Tensor, cache: Buffers, last: Tensor) -> Tensor:
        """(B, V) float32 at the flat positions `last`."""
        inputs = {"cache": cache, "at": last}
        logits: Tensor = torch.func.functional_call(self.model, self.parameters, (ids,), inputs)
        return logits.float()

    @torch.inference_mode()
    def score(self, ids: list[int], given: int) -> float:
        """Mean log probability of the ids from `given` on."""
        inputs = torch.tensor([ids[:-1]])
        logits: Tensor = torch.func.functional_call(self.model, self.parameters, (inputs,))
        logp = logits[0].float().log_softmax(-1)[given - 1 :]
        return float(logp.gather(1, torch.tensor(ids[given:])[:, None]).mean())


@dataclass
class Reply:
    """What was sampled after a prompt, tool results in between. `own` marks the ids the model chose."""

    ids: list[int] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)
    calls: int = 0


@torch.inference_mode()
def sample(
    model: Seen,
    prompts: Sequence[list[int]],
    stops: Sequence[int],
    max_new: int,
    temperature: float = 1.0,
    seed: int = 0,
    rows: int = 256,
) -> list[list[int]]:
    """Continuations, the stop token included, each of at most `max_new` ids, in the order of the prompts.

    Temperature 0 is greedy; else samples depend on the seed and on which prompts share a batch: those of similar length.
    """
    generator = torch.Generator().manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), rows):
        _sample_group(
            model, prompts, order[start : start + rows], out, stops, max_new, temperature, generator
        )
    return out


def _sample_group(
    model: Seen,
    prompts: Sequence[list[int]],
    live: list[int],
    out: list[list[int]],
    stops: Sequence[int],
    max_new: int,
    temperature: float,
    generator: torch.Generator,
) -> None:
    width = max(len(prompts[i]) for i in live)
    pad = torch.tensor([width - len(prompts[i]) for i in live])
    ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in live])
    cache = Buffers(model.model.config.num_hidden_layers, pad, width + max_new)
    last = torch.arange(1, len(live) + 1) * width - 1
    stop = torch.tensor(list(stops))
    chosen: list[Tensor] = []  # (rows,) a step, -1 where a row had ended
    where = torch.arange(len(live))  # the place in the group of every row still in the batch
    done = torch.zeros(len(live), dtype=torch.bool)
    for _ in range(max_new):
        logits = model.logits(ids, cache, last)
        if temperature == 0:
            best = logits.argmax(-1)
        else:
            best = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
        column = torch.full((len(live),), -1)
        column[where] = torch.where(done, -1, best)
        chosen.append(column)
        done = done | torch.isin(best, stop)
        alive = int((~done).sum())
        if not alive:
            break
        # Rows leave in groups: every new batch size costs compiled primitives, and moving the cache costs a pass.
        if alive <= 0.75 * len(where):
            keep = torch.nonzero(~done)[:, 0]
            cache.keep(keep)
            where, best, done = where[keep], best[keep], done[keep]
        ids, last = best[:, None], torch.arange(len(where))
    for row, i in zip(torch.stack(chosen, 1).tolist(), live, strict=True):
        out[i] = [t for t in row if t >= 0]


def converse(
    model: Seen,
    prompts: Sequence[list[int]],
    encoding: Encoding,
    respond: Respond,
    *,
    max_new: int,
    calls: int,
    functions: Sequence[bool],
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Reply]:
    """Whole turns: a reply that ends in a call gets its tool's answer, at most `calls` times, and goes on.

    prompts end in `<|start|>assistant`; `functions` says which prompts declare functions (see render_message).
    """
    call, opening = (
        encoding.special("<|call|>"),
        [encoding.special("<|start|>"), *encoding.encode("assistant")],
    )
    stops = [encoding.special(n) for n in ("<|return|>", "<|endoftext|>", "<|call|>")]
    replies = [Reply() for _ in prompts]
    going = list(range(len(prompts)))
    for turn in range(calls + 1):
        begun = [prompts[i] + replies[i].ids for i in going]
        more = sample(model, begun, stops, max_new, temperature, seed + turn)
        again = []
        for i, ids in zip(going, more, strict=True):
            reply = replies[i]
            reply.ids += ids
            reply.own += [True] * len(ids)
            if ids[-1] != call:
                continue
            reply.calls += 1
            said_last = said(parse(ids, encoding))
            answer = respond(i, said_last[-1]) if said_last else None
            if answer is None or turn == calls:
                continue
            shown = render_message(answer, encoding, functions=functions[i]) + opening
            reply.ids += shown
            reply.own += [False] * len(shown)
            again.append(i)
        going = again
        if not going:
            break
    return replies


def outcome_of(reply: Reply, encoding: Encoding) -> Outcome:
    """The reply read as Harmony. No final message where anything is out of form: strict on purpose."""
    read = strictly(parse(reply.ids, encoding))
    return Outcome(read.final, read.analysis_tokens, read.final_tokens, reply.calls)
