"""Text and conversations to token ids and back, for eyes and for tests: tokens, render, parse. Runs no model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from motet.cli import show
from motet.cli.options import Effort, JsonOption
from motet.errors import UserError

if TYPE_CHECKING:
    from motet.harmony import Conversation
    from motet.tokenizer import Encoding

Vocabulary = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="M", help="Whose vocabulary: o200k_harmony, a model's name, or a folder."
    ),
]


def encoding_of(name: str) -> Encoding:
    """The encoding behind --model; o200k_harmony needs no model at all."""
    from motet.library import find
    from motet.tokenizer import load_encoding, o200k_harmony

    return o200k_harmony() if name == "o200k_harmony" else load_encoding(find(name))


def piece(encoding: Encoding, token: int) -> str:
    """One token as text a terminal can show; bytes that are no text alone stand as \\x.."""
    if encoding.is_special(token):
        return encoding.decode([token])
    raw = encoding.token_bytes(token)
    try:
        return show.visible(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return "".join(f"\\x{b:02x}" for b in raw)


def print_ids(encoding: Encoding, ids: list[int]) -> None:
    """Ids and pieces side by side, one token a line."""
    rows = [
        [str(n), str(i), "*" if encoding.is_special(i) else "", piece(encoding, i)] for n, i in enumerate(ids)
    ]
    show.table(rows, ["", "id", "", "piece"], right={0, 1})


def legal_ids(value: Any, encoding: Encoding) -> list[int]:
    """A list of ids that exist in the vocabulary. UserError names the first that does not."""
    ids = value.get("ids") if isinstance(value, dict) else value
    if not isinstance(ids, list):
        raise UserError(
            'There are no ids; give a JSON list such as [200005, 17196], or an object with "ids".'
        )
    for n, i in enumerate(ids):
        if isinstance(i, bool) or not isinstance(i, int):
            raise UserError(
                f"Item {n} of the ids is {show.visible(repr(i))[:40]}; every item must be a whole number."
            )
        if not 0 <= i < encoding.n_vocab:
            raise UserError(
                f"Item {n} of the ids is {i}; {encoding.name} has ids 0 to {encoding.n_vocab - 1}."
            )
    return ids


def tokens(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="Text, or - for standard input.")] = None,
    model: Vocabulary = "o200k_harmony",
    special: Annotated[
        bool, typer.Option("--special", help="Read <|start|> and its like as control tokens, not as text.")
    ] = False,
    decode: Annotated[
        bool, typer.Option("--decode", help="TEXT is a JSON list of ids; print the text.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Text to token ids and pieces, side by side."""
    source = show.prompt_text(text)
    encoding = encoding_of(model)
    if decode:
        ids = legal_ids(_ids_in(source), encoding)
    else:
        ids = encoding.encode_with_special(source) if special else encoding.encode(source)
    if json:
        show.emit({"encoding": encoding.name, "n": len(ids), "ids": ids, "pieces": [piece(encoding, i) for i in ids],
                   "text": encoding.decode(ids)})  # fmt: skip
    elif decode:
        print(show.safe(encoding.decode(ids)))
    else:
        print_ids(encoding, ids)
        n_bytes = len(source.encode("utf-8", "surrogatepass"))
        show.note(f"{len(ids)} tokens of {encoding.name}, {len(source)} characters, {n_bytes} bytes")


def _ids_in(text: str) -> Any:
    """`[1, 2]`, `{"ids": [1, 2]}` or bare `1 2` / `1, 2`."""
    import json

    try:
        return json.loads(text)
    except json.JSONDecodeError:
        words = text.replace(",", " ").split()
        if words and all(w.isdecimal() for w in words):
            return [int(w) for w in words]
        raise UserError(
            "The ids are neither a JSON list nor numbers; for instance: [200006, 17360]."
        ) from None


def conversation_in(value: Any, effort: Effort | None) -> Conversation:
    """A Conversation from chat JSON: a list of messages, or an object with messages, tools, reasoning_effort."""
    from motet.harmony import Conversation

    if isinstance(value, list):
        value = {"messages": value}
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise UserError('The conversation needs "messages": a list of {"role": ..., "content": ...}.')
    chosen = effort or value.get("reasoning_effort") or value.get("effort") or "medium"
    return Conversation.from_chat(value["messages"], tools=value.get("tools"), effort=chosen)


def render(
    file: Annotated[
        str, typer.Argument(metavar="CONV.json", help="Chat messages as JSON, or - for standard input.")
    ],
    model: Vocabulary = "o200k_harmony",
    effort: Annotated[Effort | None, typer.Option("--effort", "-e", help="Overrides the file's.")] = None,
    history: Annotated[
        Literal["spec", "parity"], typer.Option("--history", help="How old analysis is kept or dropped.")
    ] = "spec",
    plain: Annotated[bool, typer.Option("--text", help="The prompt as text instead of a table.")] = False,
    json: JsonOption = False,
) -> None:
    """A conversation to the token ids a model sees."""
    from motet.harmony import render as to_ids

    conversation = conversation_in(show.read_json(file), effort)
    encoding = encoding_of(model)
    ids = to_ids(conversation, encoding, history=history)
    if json:
        show.emit({"encoding": encoding.name, "n": len(ids), "ids": ids, "text": encoding.decode(ids)})
    elif plain:
        print(show.safe(encoding.decode(ids)))
    else:
        print_ids(encoding, ids)
        show.note(f"{len(ids)} tokens of {encoding.name}")


def parse(
    file: Annotated[
        str, typer.Argument(metavar="IDS.json", help="Sampled ids as JSON, or - for standard input.")
    ],
    model: Vocabulary = "o200k_harmony",
    json: JsonOption = False,
) -> None:
    """Sampled token ids to events: which message, which channel, what text."""
    from motet.harmony import fold
    from motet.harmony import parse as to_events

    encoding = encoding_of(model)
    ids = legal_ids(show.read_json(file), encoding)
    events = to_events(ids, encoding)
    folded = fold(events)
    if json:
        show.emit({"encoding": encoding.name, "n": len(ids), "events": [event_json(e) for e in events],
                   "final": folded.final, "analysis": folded.analysis, "commentary": folded.commentary})  # fmt: skip
        return
    rows = []
    for event in events:
        fields = event_json(event)
        kind = fields.pop("event")
        rows.append(
            [
                kind,
                ", ".join(
                    f"{k}={show.visible(str(v))}" for k, v in fields.items() if v not in (None, "", [])
                ),
            ]
        )
    show.table(rows, ["event", ""])


def event_json(event: Any) -> dict[str, Any]:
    """An event as JSON: its class name, then its fields."""
    return {"event": type(event).__name__, **_plain(dataclasses.asdict(event))}


def _plain(value: Any) -> Any:
    """Only what JSON knows: enums by value, bytes by code point."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return str(getattr(value, "value", value))
    return (
        value
        if value is None or isinstance(value, bool | int | float)
        else str(getattr(value, "value", value))
    )


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    for command in (tokens, render, parse):
        app.command(rich_help_panel="Text and tokens")(command)
