"""The published library as an oracle: our conversations as its conversations, and hypothesis strategies for both."""

from __future__ import annotations

import functools
import gzip
import os
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


# --- strategies ---

_SPECIAL = [
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|channel|>",
    "<|constrain|>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
]
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(
        st.sampled_from(
            [*_SPECIAL, "final", "assistant", " to=", "json", "\n", "\r\n", " ", "// ", "{", '"', "null", "é"]
        ),
        max_size=8,
    ).map("".join),
)
names = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
keys = st.one_of(names, st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.integers(-9, 9), st.floats(allow_nan=False, allow_infinity=False)
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=5,
)
_kinds = st.sampled_from(["object", "string", "number", "integer", "boolean", "array", "null", "strange"])


def _schema_with(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(_kinds, st.lists(st.one_of(_kinds, st.integers()), max_size=3)),
            "description": st.one_of(texts, st.just(3)),
            "title": texts,
            "default": json_values,
            "enum": st.one_of(st.lists(st.one_of(texts, st.integers(0, 3)), max_size=3), st.just("no")),
            "examples": st.lists(st.one_of(texts, st.integers(0, 3)), max_size=3),
            "nullable": st.one_of(st.booleans(), st.just("yes")),
            "oneOf": st.one_of(st.lists(inner, max_size=3), st.just({})),
            "items": inner,
            "properties": st.dictionaries(keys, inner, max_size=3),
            "required": st.lists(names, max_size=3),
            "anyOf": st.lists(inner, max_size=1),
            "additionalProperties": st.booleans(),
        },
    )


@st.composite
def _object(draw: Any, inner: Any) -> Any:
    properties = draw(st.dictionaries(keys, inner, max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    return {**draw(_schema_with(inner)), "type": "object", "properties": properties, "required": required}


schemas = st.recursive(
    st.one_of(st.just({}), _kinds.map(lambda k: {"type": k}), st.booleans()),
    lambda inner: st.one_of(_schema_with(inner), _object(inner)),
    max_leaves=8,
)
parameters = st.one_of(_object(schemas), schemas.filter(lambda s: isinstance(s, dict)))
functions = st.builds(Function, names, texts, st.none() | parameters)
namespaces = st.builds(
    Namespace,
    st.one_of(st.sampled_from(["functions", "browser", "python"]), names),
    st.none() | texts,
    st.lists(functions, max_size=3).map(tuple),
)
_spaces = st.lists(namespaces, max_size=2, unique_by=lambda n: n.name).map(tuple)
systems = st.builds(
    SystemContent,
    identity=st.none() | texts,
    cutoff=st.none() | texts,
    date=st.none() | st.dates().map(str),
    effort=st.none() | st.sampled_from(["low", "medium", "high"]),
    namespaces=_spaces,
    channels=st.lists(st.sampled_from(["analysis", "commentary", "final"]), max_size=3).map(tuple),
    channel_required=st.booleans(),
)
developers = st.builds(DeveloperContent, st.none() | texts, _spaces)


@st.composite
def messages(draw: Any) -> Message:
    role = draw(
        st.sampled_from(["system", "developer", "user", "assistant", "assistant", "assistant", "tool"])
    )
    parts: list[Any] = [texts]
    parts += [systems] if role == "system" else [developers] if role == "developer" else []
    content = draw(st.lists(st.one_of(*parts), min_size=1, max_size=2).map(tuple))
    recipients = st.one_of(st.just("all"), st.just("assistant"), names, names.map("functions.{}".format))
    return Message(
        role,
        content,
        channel=draw(st.none() | st.sampled_from(["analysis", "commentary", "final"])),
        recipient=draw(st.none() | recipients),
        content_type=draw(st.sampled_from([None, "json", "code", "<|constrain|>json", "<|constrain|>lark"])),
        name=draw(names.map("functions.{}".format) if role == "tool" else st.none() | names),
    )


conversations = st.lists(messages(), max_size=7).map(lambda m: Conversation.of(*m))
