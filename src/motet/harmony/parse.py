"""Token ids to events: total, loss-free, one id at a time.

Any sequence of integers parses and nothing raises; every id ends up in exactly one event. A control token inside content
ends the message and is never text. Headers are read by token, so words that merely spell a marker are words. Knows the
format; knows no tools, no policy and no model.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from motet.harmony.events import Delta, Event, MessageEnd, MessageStart, Quarantined, Stop
from motet.tokenizer import TokenizerError

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

CHANNELS = ("analysis", "commentary", "final")
ROLES = ("system", "developer", "user", "assistant")
CONSTRAIN = "<|constrain|>"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_TYPE = re.compile(r"[A-Za-z0-9_./+-]{1,64}")
# Content types the model is known to write as a plain word; with a recipient before it any word will do.
_PLAIN_TYPES = ("json", "code", "text")
_SPACE = " \t\n\r\f\v"


@dataclass(frozen=True, slots=True)
class _Bad:
    reason: str


# A header, cut at its control tokens: ("text" | "channel" | "constrain", the text after the marker).
_Parts = list[tuple[str, str]]


@functools.lru_cache(maxsize=8)
def _tables(encoding: Encoding) -> tuple[frozenset[int], dict[int, str], dict[int, bytes]]:
    """Special ids; text of ids whose bytes are whole characters and bytes of ids, as far as these have been met.

    Shared by all parsers of a vocabulary.
    """
    return frozenset(encoding.special_tokens.values()), {}, {}


class StreamParser:
    """Reads one stream. `feed` returns the events an id completes, `finish` those the end of the stream completes.

    `role` is the author whose header the prompt has begun ("assistant" for a completion); None: the stream itself begins
    with `<|start|>`. A stream that begins with `<|start|>` is understood either way.
    """

    def __init__(self, encoding: Encoding, role: str | None = "assistant") -> None:
        names = ("start", "end", "message", "channel", "constrain", "return", "call")
        self._start, self._end, self._message, self._channel, self._constrain, ret, call = (
            encoding.special(f"<|{n}|>") for n in names
        )
        self._encoding = encoding
        self._stops: dict[int, Stop] = {self._end: "end", ret: "return", call: "call"}
        if "<|endoftext|>" in encoding.special_tokens:
            self._stops[encoding.special("<|endoftext|>")] = "endoftext"
        self._special, self._whole, self._known = _tables(encoding)
        self._state = self._in_header if role is not None else self._between
        self._role = role
        self._held: list[int] = []  # ids of a header or of quarantine, not yet in an event
        self._reason = ""
        self._fresh = True  # nothing but the prompt's own header has been read
        self._decoder = encoding.stream_decoder()
        self._pending: list[int] = []  # ids whose bytes do not make a character yet
        self._begun = False  # the open message has some content

    def feed(self, token: int) -> list[Event]:
        """The events this id completes, often none. Any integer is legal input."""
        return self._state(token)

    def finish(self) -> list[Event]:
        """The events of the end of the stream; afterwards the parser waits for `<|start|>`."""
        if self._state == self._in_content:
            return self._close("cut", ())
        if self._state == self._after_plain:
            return self._plain()
        if not self._held:
            return []
        reason = self._reason or (
            "text_between_messages" if self._state == self._between else "cut_in_header"
        )
        if self._state == self._in_header and self._fresh and not self._marked():
            reason = "no_markup"
        return [self._quarantine(reason)]

    # --- states: each takes a token and returns events ---

    def _in_content(self, token: int) -> list[Event]:
        if self._begun and not self._pending and token in self._whole:
            return [Delta(self._whole[token], (token,))]
        if token not in self._special:
            return self._word(token)
        if token in self._stops:
            return self._close(self._stops[token], (token,))
        if token == self._start:
            return [*self._close("boundary", ()), *self._between(token)]
        if token == self._channel:  # a header follows, its <|start|> forgotten
            return [*self._close("boundary", ()), *self._between(token)]
        if token == self._message and not self._begun:
            self._begun = True  # a second doubling is none
            return [Quarantined((token,), self._show([token]), "doubled_message")]
        if token in (self._message, self._constrain):
            events = self._close("boundary", ())
            which = "message" if token == self._message else "constrain"
            self._state, self._reason, self._held = self._in_quarantine, f"{which}_token_in_content", [token]
            return events
        return [*self._flush(), Quarantined((token,), self._show([token]), "not_text")]

    def _word(self, token: int) -> list[Event]:
        """An id of content that is no control token."""
        text = self._text(token)
        if text is None:
            return [*self._flush(), Quarantined((token,), self._show([token]), "not_text")]
        self._begun = True
        self._pending.append(token)
        if not text:
            return []
        ids, self._pending = tuple(self._pending), []
        if len(ids) == 1 and text.encode() == self._encoding.token_bytes(token):
            self._whole[token] = text
        return [Delta(text, ids)]

    def _in_header(self, token: int) -> list[Event]:
        if token == self._message:
            return self._open(self._role)
        if token in self._stops:
            return self._unopened(token)
        if token != self._start:
            self._held.append(token)
            return []
        if not self._held or self._held[-1] == self._start:  # <|start|><|start|>: the first is framing too
            self._held.append(token)
            self._role, self._fresh = None, False
            return []
        events: list[Event] = [self._quarantine("no_message_token")]
        self._state, self._held, self._role = self._in_header, [token], None
        return events

    def _between(self, token: int) -> list[Event]:
        if token == self._start:
            events: list[Event] = [self._quarantine("text_between_messages")] if self._held else []
            self._state, self._held, self._role, self._fresh = self._in_header, [token], None, False
            return events
        if token in self._stops:
            reason = "text_between_messages" if self._held else "stray_stop"
            self._held.append(token)
            return [self._quarantine(reason)]
        if token == self._message:
            return self._open(None, started=False)
        self._held.append(token)
        return []

    def _in_quarantine(self, token: int) -> list[Event]:
        if token == self._start:
            return [self._quarantine(self._reason), *self._between(token)]
        self._held.append(token)
        return [self._quarantine(self._reason)] if token in self._stops else []

    def _after_plain(self, token: int) -> list[Event]:
        """A text without markup has ended with `<|end|>`. It is a reply only if it is all there is: words before a message may
        be thinking that lost its header."""
        return [self._quarantine("no_message_token"), *self._between(token)]

    # --- transitions ---

    def _open(self, role: str | None, started: bool = True) -> list[Event]:
        """`<|message|>` has come: the held ids are a header, or the message goes to quarantine."""
        held = self._held
        header = self._read(held, role, started)
        held.append(self._message)
        self._fresh = False
        if isinstance(header, _Bad):
            self._state, self._reason = self._in_quarantine, header.reason
            return []
        self._state, self._held, self._role = self._in_content, [], None
        self._decoder, self._pending, self._begun = self._encoding.stream_decoder(), [], False
        return [_with_ids(header, held)]

    def _close(self, stop: Stop, ids: tuple[int, ...]) -> list[Event]:
        events = self._flush()
        self._state, self._held, self._reason, self._fresh = self._between, [], "", False
        return [*events, MessageEnd(stop, ids)]

    def _flush(self) -> list[Event]:
        text = self._decoder.flush()
        ids, self._pending = tuple(self._pending), []
        return [Delta(text, ids)] if text or ids else []

    def _plain(self) -> list[Event]:
        """The held text as a reply without markup, which may be shown as an answer (visible.py): its end is no part of the words."""
        said = self._show(self._held[:-1])
        item = self._quarantine("no_markup")
        return [Quarantined(item.ids, said, item.reason)]

    def _quarantine(self, reason: str) -> Quarantined:
        item = Quarantined(tuple(self._held), self._show(self._held), reason)
        self._state, self._held, self._reason, self._role, self._fresh = self._between, [], "", None, False
        return item

    def _unopened(self, stop: int) -> list[Event]:
        """An end token inside a header. Thinking that lacks its `<|message|>` is kept as thinking, nothing else is."""
        cut = self._analysis_without_message()
        if cut is None:
            reason = "no_message_token" if self._marked() or not self._fresh else "no_markup"
            if not self._held:
                reason = "stray_stop"
            self._held.append(stop)
            if reason == "no_markup":
                self._state = self._after_plain
                return [] if stop == self._end else self._plain()
            return [self._quarantine(reason)]
        head, body = self._held[:cut], self._held[cut:]
        text = self._encoding.decode_bytes(body).decode("utf-8", "replace")
        start = MessageStart("assistant", "analysis", repairs=("no_message_token",), ids=tuple(head))
        events: list[Event] = [start, Delta(text.lstrip(" "), tuple(body))]
        return [*events, *self._close(self._stops[stop], (stop,))]

    def _analysis_without_message(self) -> int | None:
        """Where the content begins in `[assistant]<|channel|>analysis We need ...`, or None."""
        if self._held.count(self._channel) != 1:
            return None
        at = self._held.index(self._channel)
        author = self._words(self._held[:at])
        if author != (["assistant"] if self._role is None else []):
            return None
        body = self._held[at + 1 :]
        if any(self._bytes(i) is None for i in body):
            return None
        for n in range(1, min(len(body), 9)):
            name = self._encoding.decode_bytes(body[:n])
            if name == b"analysis":
                follows = self._encoding.decode_bytes(body[n : n + 1])
                rest = self._encoding.decode_bytes(body[n:])
                # " to=f" is a call without content, not thinking
                return (
                    at + 1 + n
                    if follows[:1] in (b" ", b"\n") and not rest.lstrip().startswith(b"to=")
                    else None
                )
        return None

    # --- reading a header ---

    def _read(self, held: Sequence[int], role: str | None, started: bool) -> MessageStart | _Bad:
        starts = sum(1 for i in held if i == self._start)
        parts = self._parts(held[starts:])
        if isinstance(parts, _Bad):
            return parts
        repairs = ["doubled_start"] if starts > 1 else []
        if not started:
            if self._channel not in held:
                return _Bad("text_between_messages")
            repairs.append("missing_start")
        if role is None and parts[0] == ("text", "") and len(parts) > 1 and parts[1][0] == "channel":
            role = "assistant"  # nobody else has channels to name
            repairs += ["missing_role"] if started else []
        return read_header(parts, role, repairs)

    def _parts(self, ids: Sequence[int]) -> _Parts | _Bad:
        """The header cut at its control tokens; always begins with a "text" part."""
        runs: list[tuple[str, list[bytes]]] = [("text", [])]
        for i in ids:
            if i == self._channel:
                runs.append(("channel", []))
            elif i == self._constrain:
                runs.append(("constrain", []))
            else:
                data = self._bytes(i)
                if data is None:
                    return _Bad("header_not_text")
                runs[-1][1].append(data)
        try:
            return [(kind, b"".join(run).decode("utf-8")) for kind, run in runs]
        except UnicodeDecodeError:
            return _Bad("header_not_text")

    def _words(self, ids: Sequence[int]) -> list[str] | None:
        parts = self._parts([i for i in ids if i != self._start])
        return None if isinstance(parts, _Bad) or len(parts) > 1 else _split(parts[0][1])

    def _marked(self) -> bool:
        return any(i in self._special for i in self._held)

    # --- ids to text ---

    def _bytes(self, token: int) -> bytes | None:
        """The bytes of an ordinary id; None for control tokens, gaps in the vocabulary and ids beyond it."""
        if token in self._known:
            return self._known[token]
        if token in self._special or not 0 <= token < self._encoding.n_vocab:
            return None
        try:
            data = self._encoding.token_bytes(token)
        except TokenizerError:  # a gap
            return None
        self._known[token] = data
        return data

    def _text(self, token: int) -> str | None:
        """The text this id completes; None if it stands for none."""
        text = self._decoder.feed(token) if 0 <= token < self._encoding.n_vocab else None
        if text and "\ufffd" in text and self._bytes(token) is None:
            return None
        return text

    def _show(self, ids: Iterable[int]) -> str:
        """Ids as text for a diagnosis: control tokens by name, ids without bytes as U+FFFD."""
        decoder = self._encoding.stream_decoder()
        return "".join([decoder.feed(i) for i in ids]) + decoder.flush()


def _with_ids(header: MessageStart, ids: Sequence[int]) -> MessageStart:
    h = header
    return MessageStart(h.role, h.channel, h.recipient, h.content_type, h.name, h.repairs, tuple(ids))


def _split(text: str) -> list[str]:
    """Words between ASCII white space, as the published parser splits."""
    return [w for w in re.split(f"[{_SPACE}]+", text) if w]


def read_header(parts: _Parts, role: str | None, repairs: list[str] | None = None) -> MessageStart | _Bad:
    """A header from its parts; `role` is the author the prompt has already named, or None."""
    repairs = list(repairs or [])
    channels: list[str] = []
    words: list[tuple[bool, str]] = []  # (after <|constrain|>, word)
    for kind, text in parts:
        if kind == "channel":
            name, text = _channel_name(text)
            channels.append(name)
        elif kind == "constrain":
            marked = _split(text)
            words += [(n == 0, w) for n, w in enumerate(marked)]
            repairs += [] if marked else ["empty_constrain"]
            continue
        words += [(False, w) for w in _split(text)]
    if "" in channels:
        return _Bad("no_channel_name")
    if any(c not in CHANNELS for c in channels):
        return _Bad("unknown_channel")
    if len(set(channels)) > 1:
        return _Bad("two_channels")
    if len(channels) > 1:
        repairs.append("doubled_channel")
    author = _author(words, role, repairs)
    if isinstance(author, _Bad):
        return author
    tail = _tail(words, repairs)
    if isinstance(tail, _Bad):
        return tail
    who, author_name = author
    recipient, content_type = tail
    channel = channels[0] if channels else None
    if who == "assistant" and recipient is not None:
        builtin = recipient.partition(".")[0] in ("browser", "python")
        if channel == "final" or (channel == "analysis" and not builtin):
            repairs.append(f"call_on_{channel}")
    return MessageStart(who, channel, recipient, content_type, author_name, tuple(repairs))


def _channel_name(text: str) -> tuple[str, str]:
    """(name, what follows): the name ends at white space."""
    found = re.match(f"[^{_SPACE}]*", text)
    end = found.end() if found else 0
    return text[:end], text[end:]


def _author(
    words: list[tuple[bool, str]], role: str | None, repairs: list[str]
) -> tuple[str, str | None] | _Bad:
    """Takes the author's word off `words`."""
    first = words[0][1] if words and not words[0][0] else None
    if role is not None:
        if first == role:
            words.pop(0)
            repairs.append("doubled_role")
        return role, None
    if first is None:
        return _Bad("no_role")
    words.pop(0)
    base, colon, name = first.partition(":")
    if base in ROLES:
        if colon and not _NAME.fullmatch(name):
            return _Bad("unknown_role")
        return base, name or None
    # A tool's result: its name stands where the role would. Without a recipient only a dotted name is trusted.
    addressed = any(w.startswith("to=") for _, w in words)
    if _NAME.fullmatch(first) and (addressed or "." in first or first == "python"):
        return "tool", first
    return _Bad("unknown_role")


def _tail(words: list[tuple[bool, str]], repairs: list[str]) -> tuple[str | None, str | None] | _Bad:
    """(recipient, content type) from the words after the author."""
    recipients = [w[3:] for marked, w in words if not marked and w.startswith("to=")]
    if any(not _NAME.fullmatch(r) for r in recipients) or len(set(recipients)) > 1:
        return _Bad("bad_recipient")
    if len(recipients) > 1:
        repairs.append("doubled_recipient")
    rest = [(n, marked, w) for n, (marked, w) in enumerate(words) if marked or not w.startswith("to=")]
    recipient = recipients[0] if recipients else None
    if not rest:
        return recipient, None
    if len(rest) > 1:
        return _Bad("header_junk")
    at, marked, word = rest[0]
    if marked:
        if not _TYPE.fullmatch(word):
            return _Bad("bad_content_type")
        return recipient, CONSTRAIN + word
    if at != len(words) - 1 or (recipient is None and word not in _PLAIN_TYPES):
        return _Bad("header_junk")
    return (recipient, word) if _TYPE.fullmatch(word) else _Bad("bad_content_type")


def parse(ids: Iterable[int], encoding: Encoding, role: str | None = "assistant") -> list[Event]:
    """All events of a finished stream; the same as feeding one id at a time."""
    parser = StreamParser(encoding, role)
    events: list[Event] = []
    for token in ids:
        events += parser.feed(token)
    return events + parser.finish()
