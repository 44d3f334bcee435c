"""Text and conversations to token ids and back, for eyes and for tests: tokens, render, parse. Runs no model."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from motet.cli import show
from motet.cli.options import Effort, JsonOption
from motet.errors import UserError

if TYPE_CHECKING:
    from motet.harmony import Conversation, Event, MessageStart
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


_IDS, _TEXT = 46, 60  # columns of ids and of text in a row


def print_stretch(encoding: Encoding, ids: Sequence[int], mark: str = " ") -> None:
    """Ids on the left, their text on the right. A control token stands in a row of its own, marked `*`, because text may
    spell one too; other rows end with a line of the text, or where they are full."""
    row: list[int] = []
    for i in ids:
        special = encoding.is_special(i)
        if row and (special or not _fits(encoding, [*row, i]) or encoding.decode([row[-1]]).endswith("\n")):
            _row(encoding, row, mark)
            row = []
        row.append(i)
        if special:
            _row(encoding, row, "*" if mark == " " else mark)
            row = []
    if row:
        _row(encoding, row, mark)


def _fits(encoding: Encoding, ids: list[int]) -> bool:
    return len(" ".join(map(str, ids))) <= _IDS and len(show.visible(encoding.decode(ids))) <= _TEXT


def _row(encoding: Encoding, ids: list[int], mark: str) -> None:
    text = show.visible(encoding.decode(ids)) if len(ids) > 1 else piece(encoding, ids[0])
    print(f"{mark} {' '.join(map(str, ids)):<{_IDS}}  {text}")


def print_conversation(encoding: Encoding, ids: list[int], role: str | None) -> None:
    """The ids of a prompt or of a completion, message by message."""
    from motet.harmony import Delta, MessageEnd, MessageStart, Quarantined
    from motet.harmony import parse as to_events

    events = to_events(ids, encoding, role)
    opening = role is None and _opening(encoding, events)
    stretch: list[int] = []
    inside = False
    for n, event in enumerate(events):
        if isinstance(event, MessageStart):
            print(show.paint(show.BOLD, f"--- {_title(event)}", sys.stdout))
            print_stretch(encoding, event.ids)
            inside = True
        elif isinstance(event, Delta):
            stretch += event.ids
        if stretch and not isinstance(events[n + 1] if n + 1 < len(events) else None, Delta):
            print_stretch(encoding, stretch)
            stretch = []
        if isinstance(event, MessageEnd):
            print_stretch(encoding, event.ids)
            inside = False
            if event.stop in ("boundary", "cut"):
                print(f"  ({_STOPS[event.stop]})")
        elif isinstance(event, Quarantined):
            last = opening and n == len(events) - 1
            title = "the model goes on here" if last else f"kept aside, {event.reason}"
            if not inside:
                print(show.paint(show.BOLD, f"--- {title}", sys.stdout))
            print_stretch(encoding, event.ids, " " if last else "!")


_STOPS = {"boundary": "its end token was skipped", "cut": "the stream ends here"}


def _title(start: MessageStart) -> str:
    words = [start.role if start.name is None else f"{start.role} {start.name}"]
    words += [f"channel {start.channel}"] if start.channel else []
    words += [f"to {start.recipient}"] if start.recipient else []
    words += [start.content_type.removeprefix("<|constrain|>")] if start.content_type else []
    return ", ".join(words) + (f"   (repaired: {', '.join(start.repairs)})" if start.repairs else "")


def _opening(encoding: Encoding, events: Sequence[Event]) -> bool:
    """Whether the stream ends as a prompt does: with `<|start|>` and a role."""
    last = events[-1] if events else None
    start = encoding.special("<|start|>")
    if getattr(last, "reason", None) != "cut_in_header" or last is None or last.ids[0] != start:
        return False
    return encoding.decode(list(last.ids[1:])) in ("assistant", "user", "developer", "system")


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
    """A Conversation from JSON: chat messages, Responses items, either as a whole request, or a Harmony conversation."""
    from motet.harmony import Conversation
    from motet.harmony.wire import is_harmony

    if isinstance(value, dict) and isinstance(value.get("conversation"), dict):  # what `parse --json` prints
        value = value["conversation"]
    if is_harmony(value):
        return _with_effort(Conversation.from_harmony(value), effort)
    if isinstance(value, list):
        value = {"input": value} if any(_is_item(v) for v in value) else {"messages": value}
    if not isinstance(value, dict) or not ("input" in value or isinstance(value.get("messages"), list)):
        raise UserError(
            'The conversation needs "messages" (or "input"): a list of {"role": ..., "content": ...}.'
        )
    if "input" in value:
        return Conversation.from_responses({**value, "reasoning": {"effort": effort}} if effort else value)
    chosen = effort or value.get("reasoning_effort") or value.get("effort")
    return Conversation.from_chat({**value, "reasoning_effort": chosen} if chosen else value)


def _is_item(value: Any) -> bool:
    """Whether an element of a list is an item of the Responses API rather than a chat message."""
    if not isinstance(value, dict) or "type" not in value:
        return isinstance(value, dict) and "phase" in value
    return True


def _with_effort(conversation: Conversation, effort: Effort | None) -> Conversation:
    from motet.harmony import Conversation, SystemContent

    def changed(part: Any) -> Any:
        return dataclasses.replace(part, effort=effort) if isinstance(part, SystemContent) else part

    if effort is None:
        return conversation
    messages = conversation.messages
    return Conversation(tuple(dataclasses.replace(m, content=tuple(map(changed, m.parts))) for m in messages))


def render(
    file: Annotated[
        str,
        typer.Argument(
            metavar="CONV.json",
            help="Chat messages, Responses items or a Harmony conversation as JSON, or - for standard input.",
        ),
    ],
    model: Vocabulary = "o200k_harmony",
    effort: Annotated[Effort | None, typer.Option("--effort", "-e", help="Overrides the file's.")] = None,
    history: Annotated[
        Literal["spec", "parity", "keep"], typer.Option("--history", help="Which old analysis is dropped.")
    ] = "spec",
    plain: Annotated[bool, typer.Option("--text", help="The prompt as text instead of rows.")] = False,
    json: JsonOption = False,
) -> None:
    """A conversation to the token ids a model sees, ids and text side by side."""
    from motet.harmony import render as to_ids

    conversation = conversation_in(show.read_json(file), effort)
    encoding = encoding_of(model)
    ids = to_ids(conversation, encoding, history=history)
    if json:
        show.emit({"encoding": encoding.name, "n": len(ids), "ids": ids, "text": encoding.decode(ids),
                   "lost": list(conversation.lost)})  # fmt: skip
        return
    if plain:
        print(show.safe(encoding.decode(ids)))
        return
    print_conversation(encoding, ids, None)
    show.note(f"{len(ids)} tokens of {encoding.name}")
    if conversation.lost:
        show.note(f"the model does not see: {', '.join(conversation.lost)}")


def parse(
    file: Annotated[str, typer.Argument(metavar="IDS.json", help="Ids as JSON, or - for standard input.")],
    model: Vocabulary = "o200k_harmony",
    json: JsonOption = False,
) -> None:
    """Token ids to messages: who speaks, on which channel, ids and text side by side. Nothing is hidden."""
    from motet.harmony import Conversation, fold, said
    from motet.harmony import parse as to_events

    encoding = encoding_of(model)
    ids = legal_ids(show.read_json(file), encoding)
    role = None if ids[:1] == [encoding.special("<|start|>")] else "assistant"
    if not json:
        print_conversation(encoding, ids, role)
        show.note(f"{len(ids)} tokens of {encoding.name}")
        return
    events = to_events(ids, encoding, role)
    folded = fold(events)
    show.emit({"encoding": encoding.name, "n": len(ids), "events": [event_json(e) for e in events],
               "final": folded.final, "analysis": folded.analysis, "commentary": folded.commentary,
               "conversation": Conversation(said(events)).to_harmony()})  # fmt: skip


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
