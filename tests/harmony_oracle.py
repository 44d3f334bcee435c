"""The published library as an oracle: our conversations as its conversations, and values to compare them on."""

from __future__ import annotations

import functools
import gzip
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from motet.harmony import Conversation, DeveloperContent, Function, Message, Namespace, SystemContent
from motet.tokenizer import O200K_FILE


@functools.cache
def oracle() -> Any:
    """oss-harmony's encoding, from the vocabulary in the package; no network."""
    folder = Path(tempfile.mkdtemp(prefix="o200k-"))
    (folder / "o200k_base.tiktoken").write_bytes(gzip.decompress(O200K_FILE.read_bytes()))
    before = os.environ.get("TIKTOKEN_ENCODINGS_BASE")
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(folder)
    try:
        import openai_harmony as oh

        return oh.load_harmony_encoding("HarmonyGptOss")
    finally:
        (folder / "o200k_base.tiktoken").unlink()
        folder.rmdir()
        if before is None:
            del os.environ["TIKTOKEN_ENCODINGS_BASE"]
        else:
            os.environ["TIKTOKEN_ENCODINGS_BASE"] = before


def to_oracle(conversation: Conversation) -> Any:
    """The same conversation in the library's classes."""
    import openai_harmony as oh

    return oh.Conversation.from_messages([_message(m) for m in conversation.messages])


def _message(m: Message) -> Any:
    import openai_harmony as oh

    out = oh.Message.from_role_and_contents(oh.Role(m.role), [_part(p) for p in m.parts])
    out.author.name, out.channel, out.recipient, out.content_type = (
        m.name,
        m.channel,
        m.recipient,
        m.content_type,
    )
    return out


def _part(part: Any) -> Any:
    import openai_harmony as oh

    if isinstance(part, str):
        return oh.TextContent(text=part)
    spaces = {n.name: _namespace(n) for n in part.namespaces} or None
    if isinstance(part, DeveloperContent):
        return oh.DeveloperContent(instructions=part.instructions, tools=spaces)
    return oh.SystemContent(
        model_identity=part.identity,
        knowledge_cutoff=part.cutoff,
        conversation_start_date=part.date,
        reasoning_effort=oh.ReasoningEffort(part.effort.capitalize()) if part.effort else None,
        channel_config=oh.ChannelConfig(
            valid_channels=list(part.channels), channel_required=part.channel_required
        ),
        tools=spaces,
    )


def _namespace(n: Namespace) -> Any:
    import openai_harmony as oh

    tools = [
        oh.ToolDescription(name=f.name, description=f.description, parameters=f.parameters)
        for f in n.functions
    ]
    return oh.ToolNamespaceConfig(name=n.name, description=n.description, tools=tools)


def oracle_ids(
    conversation: Conversation, *, drop: bool = True, next_role: str | None = "assistant"
) -> list[int]:
    """What the library renders."""
    import openai_harmony as oh

    config = oh.RenderConversationConfig(auto_drop_analysis=drop)
    theirs = to_oracle(conversation)
    if next_role is None:
        return list(oracle().render_conversation(theirs, config))
    return list(oracle().render_conversation_for_completion(theirs, oh.Role(next_role), config))


# --- generated values: plain random draws behind a hypothesis seed, a hundred times faster than nested strategies ---

_WORDS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>", "<|endoftext|>",
          "final", "assistant", " to=", "json", "\n", "\r\n", "\r", " ", "\t", "// ", "{", '"', "\\", "null", "é", "🙂", "中文",
          "\u200d", "\x00", "\x7f", "\u2028", "1234567", "a", "The quick", " brown fox", "'s", "  ", "\ufffd"]  # fmt: skip
_KINDS = ["object", "string", "number", "integer", "boolean", "array", "null", "strange"]
_NAME = "abcXYZ019_-"


class Draw(random.Random):
    """Random pieces of conversations."""

    def maybe(self, value: Any, share: float = 0.5) -> Any:
        return value if self.random() < share else None

    def text(self) -> str:
        if self.random() < 0.2:
            planes = [(0, 0x7F), (0x80, 0x2FFF), (0x3000, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
            return "".join(chr(self.randint(*self.choice(planes))) for _ in range(self.randrange(12)))
        return "".join(self.choices(_WORDS, k=self.randrange(6)))

    def word(self) -> str:
        return "".join(self.choices(_NAME, k=self.randint(1, 8)))

    def key(self) -> str:
        return self.word() if self.random() < 0.8 else self.text()

    def json(self, depth: int = 2) -> Any:
        kind = self.randrange(9 if depth else 7)
        if kind == 7:
            return [self.json(depth - 1) for _ in range(self.randrange(3))]
        if kind == 8:
            return {self.key(): self.json(depth - 1) for _ in range(self.randrange(3))}
        # serde_json reads other floats and integers beyond 64 bits with an error in the last place; we do not
        numbers = [self.randint(-9, 9), self.getrandbits(64), -self.getrandbits(63), float(self.randint(-(10**15), 10**15)),
                   float(f"{self.randint(-99999, 99999)}e{self.randint(-20, 15)}")]  # fmt: skip
        return [None, True, False, self.text(), self.text(), self.choice(numbers), self.choice(numbers)][kind]

    def schema(self, depth: int = 3) -> Any:
        if self.random() < 0.05:
            return self.choice([True, None, "x", {}, []])
        inner = (lambda: self.schema(depth - 1)) if depth else (lambda: {"type": self.choice(_KINDS)})
        some = {
            "description": lambda: self.text() if self.random() < 0.95 else 3,
            "title": self.text,
            "default": self.json,
            "enum": lambda: [self.choice([self.text(), 1]) for _ in range(self.randrange(4))],
            "examples": lambda: [self.choice([self.text(), 1]) for _ in range(self.randrange(4))],
            "nullable": lambda: self.choice([True, True, False, "yes"]),
            "oneOf": lambda: [inner() for _ in range(self.randrange(4))] if self.random() < 0.95 else {},
            "items": inner,
            "anyOf": lambda: [inner()],
            "additionalProperties": lambda: self.choice([True, False, inner()]),
        }
        share = {"oneOf": 0.12, "items": 0.4}
        out = {k: make() for k, make in some.items() if self.random() < share.get(k, 0.25)}
        if self.random() < 0.9:
            out["type"] = (
                self.choice(_KINDS)
                if self.random() < 0.85
                else self.choices([*_KINDS, 3], k=self.randrange(4))
            )
        if out.get("type") == "object" or self.random() < 0.1:
            out["properties"] = {self.key(): inner() for _ in range(self.randrange(4))}
            out["required"] = [k for k in out["properties"] if self.random() < 0.5]
        return dict(self.sample(list(out.items()), len(out)))

    def parameters(self) -> dict[str, Any]:
        schema = self.schema()
        return schema if isinstance(schema, dict) else {"type": "object", "properties": {}}

    def namespace(self, name: str) -> Namespace:
        make = lambda: Function(self.word(), self.text(), self.maybe(self.parameters(), 0.8))  # noqa: E731
        return Namespace(name, self.maybe(self.text()), tuple(make() for _ in range(self.randrange(3))))

    def namespaces(self) -> tuple[Namespace, ...]:
        names = [n for n in ("functions", "browser", "python", self.word()) if self.random() < 0.3]
        return tuple(self.namespace(n) for n in self.sample(names, len(names)))

    def part(self, role: str) -> Any:
        if role == "system" and self.random() < 0.8:
            channels = tuple(c for c in ("analysis", "commentary", "final") if self.random() < 0.8)
            effort = self.maybe(self.choice(["low", "medium", "high"]), 0.9)
            date = self.maybe(f"2026-{self.randint(1, 12):02}-{self.randint(1, 28):02}")
            identity, cutoff = self.maybe(self.text(), 0.9), self.maybe(self.text(), 0.9)
            return SystemContent(
                identity, cutoff, date, effort, self.namespaces(), channels, self.random() < 0.5
            )
        if role == "developer" and self.random() < 0.8:
            return DeveloperContent(self.maybe(self.text(), 0.8), self.namespaces())
        return self.text()

    def message(self) -> Message:
        role = self.choice(["system", "developer", "user", "assistant", "assistant", "assistant", "tool"])
        content = tuple(self.part(role) for _ in range(self.choice([1, 1, 1, 0, 2])))
        word = self.word()
        recipient = self.choice(
            [None, None, "all", "assistant", word, f"functions.{word}", "browser.search", "python"]
        )
        content_type = self.choice([None, None, "json", "code", "<|constrain|>json", "<|constrain|>lark"])
        name = f"functions.{word}" if role == "tool" else self.maybe(word, 0.2)
        channel = self.choice([None, "analysis", "commentary", "final"])
        return Message(role, content, channel, recipient, content_type, name)

    def conversation(self) -> Conversation:
        return Conversation.of(*(self.message() for _ in range(self.randrange(7))))


draws = st.integers(0, 2**63).map(Draw)
conversations = draws.map(Draw.conversation)
parameters = draws.map(Draw.parameters)
