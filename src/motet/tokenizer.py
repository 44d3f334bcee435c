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

    @functools.cached_property
    def not_text(self) -> frozenset[int]:
        """The ids below n_vocab that stand for no text: special tokens, and gaps in the vocabulary."""
        return frozenset(i for i, b in enumerate(self._table) if b is None or i in self._special_ids)

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
        ids: list[int] = []
        for i, part in enumerate((self._any_special if allowed == "all" else _any_of(names)).split(text)):
            if i % 2:
                ids.append(names[part])
            elif part:
                ids += self.encode(part)
        return ids

    @functools.cached_property
    def _any_special(self) -> re.Pattern[str]:
        return _any_of(self._special)

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
                raise TokenizerError(
                    f"Token id {token} is not in the vocabulary '{self.name}' (0..{self.n_vocab - 1})."
                )
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
# Such a run shows as twenty spaces in a row among every thousandth character, which is a quick look.
_SAMPLED_RUN = re.compile(_SPACES + r"{20}")


def _any_of(names: Collection[str]) -> re.Pattern[str]:
    """Finds the names in a text, longer ones first."""
    return re.compile("(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")")


class _Ranks:
    """Ordinary encoding with tiktoken, made safe for very long runs of spaces without changing an id.

    A run of spaces that no line break follows always starts a new piece; that piece ends one character before the next
    visible character, or with the text. So the text is cut there and the run is merged without the pattern.
    """

    def __init__(self, core: tiktoken.Encoding) -> None:
        self._core = core

    def __call__(self, text: str) -> list[int]:
        run = _LONG_RUN.search(text) if _SAMPLED_RUN.search(text[::1000]) else None
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


# --- the vocabulary of a checkpoint folder ------------------------------------------------------------------------------

_BYTE_NAME = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how sentencepiece spells a single byte
_META = "\u2581"  # how sentencepiece spells a space


def load_encoding(folder: str | os.PathLike[str]) -> Encoding:
    """The vocabulary of a checkpoint folder.

    It is o200k_harmony when the folder's tokenizer.json is the published one, or when there is none and config.json has
    gpt-oss' vocab_size. Any other tokenizer.json must be byte-level or sentencepiece-style BPE, or Unigram. Raises
    TokenizerError for a file that is missing, broken, of another kind, or has more ids than the model has rows.
    """
    folder = Path(folder)
    rows = _rows(folder)
    places = [folder] if folder.resolve().name != "original" else [folder, folder.resolve().parent]
    path = next((p / "tokenizer.json" for p in places if (p / "tokenizer.json").is_file()), None)
    if path is None:
        if rows == HARMONY_VOCABULARY:
            return o200k_harmony()
        raise TokenizerError(
            f"The folder {folder} has no tokenizer.json; copy it there from where the checkpoint came from"
            + (
                " (only gpt-oss' own vocabulary is built in)."
                if folder.is_dir()
                else ", or check the folder's name."
            )
        )
    document = _read_json(path)
    try:
        added = {str(t["content"]): int(t["id"]) for t in document.get("added_tokens") or []}
        if not _has_o200k_tokens(document["model"], added):
            encoding = _from_document(folder.resolve().name, document)
        elif (rows is None or rows >= HARMONY_VOCABULARY) and _has_harmony_names(added):
            return o200k_harmony()
        else:
            encoding = _renamed_o200k(folder.resolve().name, added)
    except TokenizerError as e:
        raise TokenizerError(f"The vocabulary file {path} cannot be used: {e}") from e.__cause__
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        raise TokenizerError(
            f"The vocabulary file {path} is damaged ({type(e).__name__}: {e}); copy it again."
        ) from e
    if rows is not None and encoding.n_vocab > rows:
        raise TokenizerError(
            f"The vocabulary file {path} has ids up to {encoding.n_vocab - 1}, but config.json gives the model only "
            f"{rows} rows (vocab_size); use the tokenizer.json that belongs to this checkpoint."
        )
    return encoding


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise TokenizerError(f"The file {path} cannot be read ({e.strerror}); check its permissions.") from e
    except (ValueError, RecursionError) as e:
        raise TokenizerError(f"The file {path} is not valid JSON ({e}); copy it again.") from e
    if not isinstance(document, dict):
        raise TokenizerError(f"The file {path} does not hold a JSON object; copy it again.")
    return document


def _rows(folder: Path) -> int | None:
    """vocab_size of the folder's config.json, in either published place; None if it does not say."""
    for path in (folder / "config.json", folder / "original" / "config.json"):
        if path.is_file():
            rows = _read_json(path).get("vocab_size")
            return rows if type(rows) is int else None
    return None


def _has_o200k_tokens(model: dict[str, Any], added: dict[str, int]) -> bool:
    """Are the ordinary tokens those of o200k, with the same ids, whatever their order in the file?"""
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list) or len(merges) != _O200K_MERGES:
        return False
    ordinary = {piece: i for piece, i in vocab.items() if piece not in added}
    if len(ordinary) != O200K_RANKS or any(not O200K_RANKS <= i < _MAX_IDS for i in added.values()):
        return False
    spelling = str.maketrans({chr(byte): c for c, byte in _byte_alphabet().items()})
    return all(ordinary.get(t.decode("latin-1").translate(spelling)) == i for i, t in enumerate(read_o200k()))


def _has_harmony_names(added: dict[str, int]) -> bool:
    return added.items() <= harmony_special_tokens().items() and all(
        name in added for name in _NAMED.values()
    )


def _renamed_o200k(name: str, added: dict[str, int]) -> Encoding:
    """o200k's ordinary tokens under other control tokens, as fine-tunes bring them."""
    tokens = read_o200k()
    table: list[bytes | None] = [
        *tokens,
        *([None] * (max(added.values(), default=O200K_RANKS - 1) + 1 - O200K_RANKS)),
    ]
    for text, i in added.items():
        table[i] = text.encode()
    return Encoding(name, table, added, _o200k_pieces(tokens))


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes as visible characters: character -> byte. Printable Latin-1 stands for itself."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


def _parts(node: Any) -> list[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder and everything a Sequence of them holds, in order."""
    if not isinstance(node, dict):
        return []
    inner = [node.get(key) for key in ("normalizers", "pretokenizers", "decoders")]
    return [node, *(part for items in inner if items for item in items for part in _parts(item))]


def _from_document(name: str, document: dict[str, Any]) -> Encoding:
    """Build an Encoding from a parsed tokenizer.json, which this changes."""
    model = document["model"]
    kind = model.get("type") or (
        "BPE" if "merges" in model else "Unigram" if "unk_id" in model else "unknown"
    )
    if kind not in ("BPE", "Unigram"):
        raise TokenizerError(f"it is of the kind {kind}, and only BPE and Unigram are supported.")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise TokenizerError("it marks the parts of words with a prefix or suffix, which is not supported.")
    vocab = model["vocab"] if kind == "BPE" else {p: i for i, (p, _) in enumerate(model["vocab"])}
    if kind == "Unigram" and len(vocab) != len(model["vocab"]):
        raise TokenizerError("two of its tokens have the same text.")
    added = {str(t["content"]): t for t in document.get("added_tokens") or []}
    by_name = {text: int(t["id"]) for text, t in added.items() if _only_by_name(t, vocab)}
    table = _byte_table(document, vocab, by_name)
    _hide(document, by_name)
    # Added tokens are searched for in the text, and a post-processor adds ids that nobody asked for: neither here.
    document.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    if kind == "BPE":
        model["dropout"] = None
    return Encoding(name, table, by_name, _library_pieces(document), _drops_space(document))


def _only_by_name(token: dict[str, Any], vocab: dict[str, int]) -> bool:
    """Is an added token kept out of the reach of text? All are, but ordinary pieces that are listed there as well.

    Some vocabularies list line breaks or runs of spaces as added tokens though the model's own pieces have them too.
    """
    text = str(token["content"])
    markup = len(text) > 2 and text[0] in "<[" and text[-1] in ">]"
    return bool(token.get("special")) or markup or text not in vocab


def _byte_table(
    document: dict[str, Any], vocab: dict[str, int], by_name: dict[str, int]
) -> list[bytes | None]:
    """id -> bytes. Byte-level pieces are spelled in GPT-2's alphabet, sentencepiece's in text with a mark for spaces."""
    parts = [part for key in ("pre_tokenizer", "decoder") for part in _parts(document.get(key))]
    kinds = {part.get("type") for part in parts}
    fallback = bool(document["model"].get("byte_fallback"))
    marked = any(p.get("type") == "Replace" and p.get("pattern") == {"String": _META} for p in parts)
    byte_level = "ByteLevel" in kinds
    if not (byte_level or fallback or marked or "Metaspace" in kinds):
        raise TokenizerError(
            "it is neither byte-level nor sentencepiece-style, so its tokens have no certain bytes."
        )
    meta = next(
        (str(p["replacement"]) for p in parts if p.get("type") == "Metaspace" and "replacement" in p), _META
    )
    alphabet = _byte_alphabet()

    def content(piece: str) -> bytes:
        if byte_level:
            known = all(c in alphabet for c in piece)
            return bytes(map(alphabet.__getitem__, piece)) if known else piece.encode()
        byte = _BYTE_NAME.fullmatch(piece) if fallback else None
        return bytes([int(byte[1], 16)]) if byte else piece.replace(meta, " ").encode()

    ids = [*vocab.values(), *by_name.values()]
    if not ids or any(type(i) is not int or not 0 <= i < _MAX_IDS for i in ids):
        raise TokenizerError("it has no tokens, or ids that are not sensible whole numbers.")
    table: list[bytes | None] = [None] * (max(ids) + 1)
    for piece, i in vocab.items():
        if table[i] is not None:
            raise TokenizerError(f"two of its tokens have the id {i}.")
        table[i] = content(piece)
    for text, i in by_name.items():
        table[i] = text.encode()
    return table


def _hide(document: dict[str, Any], names: Collection[str]) -> None:
    """Rename tokens inside the model to what no text can spell, and drop the merges that would build them.

    Their ids stay taken; a token for unknown characters keeps its work under its new name.
    """
    model = document["model"]
    secret = {name: f"\0{secrets.token_hex(16)}" for name in names}
    if isinstance(model["vocab"], list):
        model["vocab"] = [[secret.get(piece, piece), score] for piece, score in model["vocab"]]
        return
    model["vocab"] = {secret.get(piece, piece): i for piece, i in model["vocab"].items()}
    if model.get("unk_token") in secret:
        model["unk_token"] = secret[model["unk_token"]]
    pairs = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
    model["merges"] = [[a, b] for a, b in pairs if not {a, b, a + b} & secret.keys()]


def _drops_space(document: dict[str, Any]) -> bool:
    """Does the published decoder take one space from the start of every text?"""
    for part in _parts(document.get("decoder")):
        if part.get("type") == "Metaspace":
            return (
                part.get("prepend_scheme", "always") != "never"
                and part.get("add_prefix_space", True) is not False
            )
        if part.get("type") == "Strip" and part.get("content") == " ":
            return bool(part.get("start"))
    return False


def _library_pieces(document: dict[str, Any]) -> Pieces:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(json.dumps(document))
    except Exception as e:  # the library raises plain Exception
        raise TokenizerError(f"{e}; copy it again, or update the 'tokenizers' package.") from e

    def pieces(text: str) -> list[int]:
        text.encode()  # a lone surrogate is a UnicodeEncodeError here, for Encoding.encode to mend
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    return pieces
