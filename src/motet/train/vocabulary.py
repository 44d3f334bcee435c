"""A small byte-level BPE vocabulary with Harmony's control tokens, trained on the text the model will really see.

Written in the tokenizer.json form of the published checkpoints (Split by regex, ByteLevel, BPE). Digits are always
single tokens; the constant lines of the system message are single tokens, so that prompts stay short.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from motet.harmony.render import has_functions, part_text
from motet.train.data import draw

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTROL = ("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>",
           "<|message|>", "<|call|>")  # fmt: skip
IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
CUTOFF = "Knowledge cutoff: 2024-06"
CHANNELS = "# Valid channels: analysis, commentary, final. Channel must be included for every message."
PATTERN = "|".join([re.escape(line).replace("\\ ", " ").replace("\\-", "-").replace("\\#", "#")
                    for line in (IDENTITY, CUTOFF, CHANNELS)]
                   + [r" ?\p{L}+(?:'\p{L}+)?", r"\p{N}", r" ?[^\s\p{L}\p{N}]", r"\n+", r"\s"])  # fmt: skip


def corpus(data: Sequence[Mapping[str, float]], examples: int, seed: int) -> Iterable[str]:
    """Texts to learn merges from: what the sources of each stage draw, and the lines that every prompt has."""
    rng = random.Random(f"vocabulary {seed}")
    fixed = (
        IDENTITY,
        CUTOFF,
        CHANNELS,
        "system",
        "developer",
        "user",
        "assistant",
        "analysis",
        "commentary",
        "final",
    )
    for i in range(examples):
        drawn = draw(data[i % len(data)], rng)
        yield from fixed
        if isinstance(drawn, tuple):  # drills: words of the other sources and bare numbers
            continue
        if isinstance(drawn, str):
            yield drawn
            continue
        conversation = drawn.lesson.prompt
        for m in (*conversation.messages, *drawn.lesson.turn):
            yield from (part_text(part, has_functions(conversation)) for part in m.parts)
            yield from (word for word in (m.recipient, m.content_type, m.name) if word)


def train_vocabulary(size: int, data: Sequence[Mapping[str, float]], examples: int, seed: int) -> Tokenizer:
    """Learn a vocabulary of at most `size` ids: 256 bytes, merges in order of their making, then the control tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(CONTROL), min_frequency=8, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[], show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus(data, examples, seed), trainer)
    tokenizer.add_special_tokens(list(CONTROL))
    return tokenizer


def save_vocabulary(tokenizer: Tokenizer, path: Path) -> None:
    """Write tokenizer.json, after checking that its ids are 0..n-1 without a gap."""
    ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    if ids != list(range(len(ids))):
        raise ValueError("the vocabulary has gaps or duplicate ids")
    path.write_text(
        json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
