"""Text to token ids and back: o200k_harmony, and whatever vocabulary a checkpoint folder brings.

Text encodes to ordinary ids only; control tokens exist as ids that callers look up by name. Knows no messages, roles
or channels, and nothing of the model but its number of rows.
"""

from __future__ import annotations

import codecs
import functools
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from motet.errors import UserError

if TYPE_CHECKING:
    import tiktoken

# The published vocabulary: every rank is its line number (tiktoken, o200k_base; MIT, see NOTICE).
O200K_FILE = Path(__file__).resolve().parent / "data" / "o200k_base.tiktoken.gz"
O200K_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
O200K_RANKS = 199_998
# tiktoken's o200k_base splits text with these seven alternatives before merging bytes.
_LETTERS_THEN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_PATTERN = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS_THEN}*{_LOWER}+{_CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS_THEN}+{_LOWER}*{_CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
HARMONY_VOCABULARY = 201_088
_NAMED = {
    199_998: "<|startoftext|>",
    199_999: "<|endoftext|>",
    200_002: "<|return|>",
    200_003: "<|constrain|>",
    200_005: "<|channel|>",
    200_006: "<|start|>",
    200_007: "<|end|>",
    200_008: "<|message|>",
    200_012: "<|call|>",
}
# o200k_base calls this id <|endofprompt|>, o200k_harmony calls it reserved; we decode to the harmony name and accept both.
_ENDOFPROMPT = ("<|endofprompt|>", 200_018)
# A tokenizer.json that turns o200k_base into merges lists every way to split every token in two.
_O200K_MERGES = 446_189
_MAX_IDS = 1 << 22  # more ids than this in a file is damage, not a vocabulary

Pieces = Callable[[str], list[int]]


class TokenizerError(UserError):
    """A vocabulary that cannot be read or used, or a token that is not in it."""


class StreamDecoder:
    """Turns ids into text one at a time and never splits a character.

    Total: every integer gives text. Ids without bytes (rows the model has beyond its vocabulary) give U+FFFD. The joined
    output equals `decode` of the same ids, and invalid UTF-8 gives as many U+FFFD as `bytes.decode(errors="replace")`.
    """

    def __init__(self, table: Sequence[bytes | None], drops_space: bool = False) -> None:
        self._table = table
        self._drops_space = drops_space
        self._reset()

    def _reset(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = self._drops_space

    def feed(self, token: int) -> str:
        """The text that this id completes; empty while a character is unfinished."""
        data = self._table[token] if 0 <= token < len(self._table) else None
        return self._visible(self._decoder.decode(b"\xff" if data is None else data))

    def flush(self) -> str:
        """What is left, an unfinished character as U+FFFD; afterwards the decoder is as new."""
        text = self._visible(self._decoder.decode(b"", final=True))
        self._reset()
        return text

    def _visible(self, text: str) -> str:
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text


class Encoding:
    """A vocabulary: ordinary tokens that text encodes to, and special tokens that are reached by name only."""

    def __init__(
        self,
        name: str,
        table: Sequence[bytes | None],
        special_tokens: dict[str, int],
        pieces: Pieces,
        drops_space: bool = False,
    ) -> None:
        """`table[id]` are the bytes of an id (None: no such token); `pieces` encodes text without special tokens.

        `drops_space`: this vocabulary puts a space before every text, so decoding drops one at the start.
        """
        self.name = name
        self._table = table
        self._special = dict(special_tokens)
        self._special_ids = frozenset(special_tokens.values())
        self._pieces = pieces
        self._drops_space = drops_space

    def __repr__(self) -> str:
        return f"<Encoding {self.name!r}: {self.n_vocab} ids, {len(self._special)} special names>"

    @property
    def n_vocab(self) -> int:
        """Highest id plus one. A model may have more rows than this, never fewer."""
        return len(self._table)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Name -> id of every special token (a copy)."""
        return dict(self._special)

    def special(self, name: str) -> int:
        """The id of a special token by its full name, such as `<|channel|>`; TokenizerError if there is none."""
        try:
            return self._special[name]
        except KeyError:
            raise TokenizerError(
                f"The vocabulary '{self.name}' has no special token {name!r}, so it cannot speak Harmony here; "
                f"use a checkpoint whose tokenizer.json lists {name!r} in added_tokens, or o200k_harmony."
            ) from None

    def is_special(self, token: int) -> bool:
        """True for ids that no text can encode to."""
        return token in self._special_ids

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text. Control tokens spelled in the text come out as ordinary ids, never as themselves.

        A lone surrogate becomes U+FFFD and a surrogate pair its character, as in tiktoken.
        """
        try:
            return self._pieces(text)
        except UnicodeEncodeError:
            return self._pieces(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    def encode_with_special(self, text: str, allowed: Literal["all"] | Collection[str] = "all") -> list[int]:
        """For tools and tests, never for text from outside: special tokens named in `allowed` become their ids.

        Raises TokenizerError for a name the vocabulary does not have.
        """
        names = self._special if allowed == "all" else {name: self.special(name) for name in allowed}
        if not names:
            return self.encode(text)
        longest_first = sorted(names, key=len, reverse=True)
        parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
        ids: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(names[part])
            elif part:
                ids += self.encode(part)
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id (of a special token: its name in UTF-8); TokenizerError if the id has none."""
        return self.decode_bytes([token])

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids, joined; TokenizerError names the first id that the vocabulary does not have."""
        ids = ids if isinstance(ids, list) else [int(i) for i in ids]
        if not ids:
            return b""
        try:
            if min(ids) >= 0:
                return b"".join(map(self._table.__getitem__, ids))  # type: ignore[arg-type]
        except (IndexError, TypeError):
            pass
        for token in ids:
            if not 0 <= token < self.n_vocab or self._table[token] is None:
                raise TokenizerError(f"Token id {token} is not in the vocabulary '{self.name}' (0..{self.n_vocab - 1}).")
        raise TokenizerError("Token ids must be whole numbers.")

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Text of the ids; bytes that are not UTF-8 are handled as in `bytes.decode` (default: U+FFFD)."""
        text = self.decode_bytes(ids).decode("utf-8", errors)
        return text.removeprefix(" ") if self._drops_space else text

    def stream_decoder(self) -> StreamDecoder:
        """A fresh decoder for one stream of ids."""
        return StreamDecoder(self._table, self._drops_space)


# --- o200k_harmony -----------------------------------------------------------------------------------------------------

# Unicode White_Space without CR and LF, which is what \s means in the splitting pattern. Python's \s adds U+001C..U+001F.
_SPACES = r"[\t\v\f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
# tiktoken's pattern engine keeps a state per character of `\s+(?!\S)` and aborts at a million of them.
_LONG_RUN = re.compile(_SPACES + r"{20000,}+(?![\r\n])")


class _Ranks:
    """Ordinary encoding with tiktoken, made safe for very long runs of spaces without changing an id.

    A run of spaces that no line break follows always starts a new piece; that piece ends one character before the next
    visible character, or with the text. So the text is cut there and the run is merged without the pattern.
    """

    def __init__(self, core: tiktoken.Encoding) -> None:
        self._core = core

    def __call__(self, text: str) -> list[int]:
        run = _LONG_RUN.search(text) if len(text) >= 20_000 else None
        if run is None:
            return self._core.encode_ordinary(text)
        ids: list[int] = []
        done = 0
        while run is not None:
            ids += self._core.encode_ordinary(text[done : run.start()])
            done = run.end() if run.end() == len(text) else run.end() - 1
            ids += self._core._encode_single_piece(text[run.start() : done])
            run = _LONG_RUN.search(text, done)
        return ids + self._core.encode_ordinary(text[done:])


def harmony_special_tokens() -> dict[str, int]:
    """Every special name of o200k_harmony: 199998..201087, and `<|endofprompt|>` as a second name of 200018."""
    named = {_NAMED.get(i, f"<|reserved_{i}|>"): i for i in range(O200K_RANKS, HARMONY_VOCABULARY)}
    return {**named, _ENDOFPROMPT[0]: _ENDOFPROMPT[1]}


def read_o200k(path: Path = O200K_FILE) -> list[bytes]:
    """The 199,998 ordinary tokens in order of rank, after checking the sha256 of the file's content.

    Raises TokenizerError when the file is missing or is not the published vocabulary.
    """
    import gzip
    import hashlib
    import zlib
    from binascii import a2b_base64

    try:
        content = gzip.decompress(path.read_bytes())
        intact = hashlib.sha256(content).hexdigest() == O200K_SHA256
    except (OSError, EOFError, zlib.error):
        intact = False
    if not intact:
        raise TokenizerError(f"The vocabulary file {path} is missing or damaged; reinstall motet.")
    return list(map(a2b_base64, content.split()[::2]))


@functools.cache
def o200k_harmony() -> Encoding:
    """The vocabulary of gpt-oss (openai/harmony; tiktoken's o200k_harmony). Loaded once; safe to share by threads."""
    tokens = read_o200k()
    special = harmony_special_tokens()
    names = {token: name.encode() for name, token in reversed(special.items())}
    table = tokens + [names[i] for i in range(O200K_RANKS, HARMONY_VOCABULARY)]
    return Encoding("o200k_harmony", table, special, _o200k_pieces(tokens))


def _o200k_pieces(tokens: list[bytes]) -> _Ranks:
    import tiktoken

    ranks = dict(zip(tokens, range(len(tokens)), strict=True))
    return _Ranks(tiktoken.Encoding("o200k", pat_str=O200K_PATTERN, mergeable_ranks=ranks, special_tokens={}))


def load_encoding(folder: str | os.PathLike[str]) -> Encoding:
    """The vocabulary of a checkpoint folder: o200k_harmony when its config.json has gpt-oss' vocab_size."""
    return o200k_harmony()
