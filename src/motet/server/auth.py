"""Who may use the server: keys from a file, compared in constant time. The file holds hashes, no key.

    {"keys": [{"name": "alice", "sha256": "...", "thinking": "hide", "concurrency": 4,
               "requests_per_minute": 60, "tokens_per_day": 1000000}]}

Only name and sha256 are required. Keys are 256 random bits, so that one round of SHA-256 hides them well enough.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from motet.errors import UsageError, UserError
from motet.server.settings import THINKING

PREFIX = "sk-motet-"
PUBLIC = ("/health",)


@dataclass(frozen=True)
class Key:
    """One caller. `thinking`: hide, summary or show; None takes the server's. Bounds that are None do not bind."""

    name: str
    sha256: str = ""
    thinking: str | None = None
    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{0,64}", self.name):
            raise UsageError("The name of a key has letters, digits, '_', '-' and '.', 64 at most.")
        if self.thinking is not None and self.thinking not in THINKING:
            raise UsageError(
                f"thinking of the key {self.name} is {self.thinking!r}; use hide, summary or show."
            )
        for bound in ("concurrency", "requests_per_minute", "tokens_per_day"):
            value = getattr(self, bound)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UsageError(
                    f"{bound} of the key {self.name} is {value!r}; give a whole number, or leave it out."
                )


NOBODY = Key("")  # a server without keys has one caller


class Keys:
    """The keys of a file; without a file everybody is `NOBODY`."""

    def __init__(self, path: Path | None) -> None:
        self._keys = [] if path is None else read(path)
        self.wanted = path is not None
        if self.wanted and not self._keys:
            raise UserError("The file of keys holds none; make one with 'motet key'.")

    def find(self, authorization: str | None) -> Key | None:
        """The caller behind an Authorization header; None for nobody known. Takes as long for a wrong key as for a right one."""
        if not self.wanted:
            return NOBODY
        scheme, _, given = (authorization or "").partition(" ")
        digest = hashlib.sha256(given.strip().encode()).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found if scheme.lower() == "bearer" else None


def read(path: Path) -> list[Key]:
    """The keys of a file. UserError says what is wrong with it."""
    try:
        entries = json.loads(path.read_text("utf-8"))["keys"]
        known = {f.name for f in fields(Key)}
        keys = []
        for entry in entries:
            if set(entry) - known:
                raise UserError(
                    f"A key in {path.name} has the field {min(set(entry) - known)!r}; known are {', '.join(sorted(known))}."
                )
            key = Key(**entry)
            if not re.fullmatch("[0-9a-f]{64}", key.sha256) or not key.name:
                raise UserError(
                    f"A key in {path.name} has no name or no sha256 of 64 hexadecimal digits; make it with 'motet key'."
                )
            keys.append(key)
    except OSError as e:
        raise UserError(f"The file of keys cannot be read ({e.strerror}); check --keys.") from None
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"{path.name} is no file of keys ({type(e).__name__}); make one with 'motet key'."
        ) from None
    if len({k.name for k in keys}) < len(keys):
        raise UserError(f"Two keys in {path.name} have one name; names must differ.")
    return keys


def add(path: Path, name: str, **bounds: Any) -> str:
    """Adds a key to a file, making it if need be, and returns the key: the only time it is to be seen."""
    keys = read(path) if path.exists() else []
    if name in {k.name for k in keys}:
        raise UserError(f"There is a key named {name} already; choose another name, or delete its entry.")
    secret = PREFIX + secrets.token_urlsafe(32)
    keys.append(Key(name, hashlib.sha256(secret.encode()).hexdigest(), **bounds))
    entries = [{k: v for k, v in asdict(key).items() if v is not None} for key in keys]
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".keys")  # readable by its owner only
    with os.fdopen(handle, "w") as f:
        json.dump({"keys": entries}, f, indent=1)
    os.replace(temporary, path)
    return secret
