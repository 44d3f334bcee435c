"""Thinking that a caller carries and cannot read: encrypted for one key, by a secret of the server (or of its store).

Who keeps a conversation himself (`store: false`) sends such items back, and the model goes on with the very tokens it wrote.
What a policy hides travels in them too: thoughts, and calls of tools that stand on their channel. Knows items; no requests.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from motet.harmony import Event
    from motet.server.output import Output

Json = dict[str, Any]
Said = tuple[Json, list[int] | None]
"""(an item, the ids it was sampled as)"""
_KEPT = {
    "reasoning": ("content",),
    "code_interpreter_call": ("code", "outputs"),
    "web_search_call": ("action", "arguments", "output"),
}
_ROUND = (
    256  # sealed texts are as long as the next multiple, in bytes: usage tells the number of tokens anyway
)
_NONCE = 12


class Vault:
    """Seals and opens, with AES-256 in GCM. `secret` has 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @cached_property
    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._secret)

    def seal(self, owner: str, said: Sequence[Said]) -> str:
        """Items as a text that only `open` with the same owner reads."""
        data = json.dumps([[bare(item), ids] for item, ids in said], separators=(",", ":")).encode()
        data += b" " * (-len(data) % _ROUND)
        nonce = secrets.token_bytes(_NONCE)
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, data, _purpose(owner))).decode()

    def open(self, owner: str, text: Any) -> list[Said] | None:
        """What was sealed; None for what was not, not for this owner, not with this secret, or is not whole."""
        from cryptography.exceptions import InvalidTag

        try:
            raw = base64.b64decode(text, altchars=b"-_", validate=True)
            data = self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], _purpose(owner))
        except (TypeError, ValueError, binascii.Error, InvalidTag):
            return None
        return [(item, ids) for item, ids in json.loads(data)]


def _purpose(owner: str) -> bytes:
    return b"motet reasoning 1\0" + owner.encode()


def bare(item: Json) -> Json:
    """An item with nothing but what the model reads of it."""
    out = {"type": item["type"], **{k: item[k] for k in _KEPT[item["type"]] if item.get(k) is not None}}
    if "outputs" in out:
        out["outputs"] = [o for o in out["outputs"] if o["type"] == "logs"]  # pictures are for people
    return out


class Hidden:
    """Follows a turn behind a policy that hides its thinking; `take` gives what is hidden, as it gets complete."""

    def __init__(self, output: Output) -> None:
        """`output` holds everything, and is fed by nobody else."""
        self._output, self._taken = output, 0

    def feed(self, event: Event) -> None:
        """One event of the turn, seen or not."""
        self._output.feed(event)

    def take(self) -> list[Said]:
        """Hidden items that have become complete since the last time."""
        out: list[Said] = []
        items = self._output.items
        while self._taken < len(items) and items[self._taken]["status"] != "in_progress":
            item, ids = items[self._taken], self._output.ids[self._taken]
            self._taken += 1
            # a call that was cut off was never made
            if item["type"] == "reasoning" or (item["type"] in _KEPT and item["status"] == "completed"):
                out.append((item, ids))
        return out
