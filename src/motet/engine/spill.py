"""Prefixes on disk: blocks the cache has no room for, one file each, found again after a restart. Off by default.

A file is named by the hash of all ids up to its end and lies in a folder named by what its bytes depend on (weights,
precision, kind of keys and values, instruction set), so that a changed model never reads old ones. It ends with a hash of
its content: a damaged or cut file is deleted and its block computed again. When the folder passes its limit, the files
longest unused go. A disk that cannot be written costs the spill, never a request. Knows nodes and bytes; no requests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from motet.engine.prefix import Node, Prefixes
    from motet.kvcache import Pages

CHECK = 16  # bytes of the hash at the end


class Spill:
    """The files of one folder, at most `limit` bytes of them; one process at a time should use it."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Reads the heads of the files that are there. Raises OSError when the folder cannot be made."""
        self.folder, self.limit = folder, limit
        self.stored = self.loaded = 0  # blocks, since this object was made
        folder.mkdir(parents=True, exist_ok=True)
        self._files: OrderedDict[str, int] = OrderedDict()  # name -> bytes, least recently used first
        self._below: dict[str, dict[tuple[int, ...], str]] = {}  # name of the path above -> ids -> name
        found = [p for p in folder.glob("*.kv") if p.is_file()]
        for path in sorted(found, key=lambda p: p.stat().st_mtime_ns):
            head = _head(path)
            if head is None:
                _remove(path)
                continue
            self._files[path.stem] = path.stat().st_size
            self._below.setdefault(head["above"], {})[tuple(head["ids"])] = path.stem
        self._shrink()

    @property
    def nbytes(self) -> int:
        """Bytes of the files."""
        return sum(self._files.values())

    def store(self, pages: Pages, node: Node) -> None:
        """Writes a block, if it is not there."""
        assert node.parent is not None
        name, above = node.digest.hex(), node.parent.digest.hex()
        if name in self._files:
            self._touch(name)
            return
        parts = [None if n is None else pool.page(n).tobytes() for pool, n in zip(pages.pools, node.pages, strict=True)]  # fmt: skip
        routes = None if node.routes is None else [node.routes.dtype.str, list(node.routes.shape)]
        head = {"above": above, "ids": node.ids, "branch": node.branch, "routes": routes,
                "parts": [None if p is None else len(p) for p in parts]}  # fmt: skip
        text = json.dumps(head).encode()
        body = b"".join(p for p in parts if p is not None)
        if node.routes is not None:
            body += node.routes.tobytes()
        data = len(text).to_bytes(8, "little") + text + body
        data += hashlib.blake2b(data, digest_size=CHECK).digest()
        if len(data) > self.limit:
            return
        path = self.folder / f"{name}.kv"
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            _remove(part)
            return
        self._files[name] = len(data)
        self._below.setdefault(above, {})[node.ids] = name
        self.stored += 1
        self._shrink()

    def load(self, prefixes: Prefixes, parent: Node, ids: tuple[int, ...]) -> Node | None:
        """The block `ids` below `parent`, back in pages; None when it is not here, damaged, or there is no room."""
        name = self._below.get(parent.digest.hex(), {}).get(ids)
        if name is None:
            return None
        data = self._read(name)
        if data is None:
            return None
        head, body = data
        pages = prefixes.pages
        wanted = [int(n is not None) for n in head["parts"]]
        if [n for n in head["parts"] if n is not None] != [
            p.layout.nbytes for p, want in zip(pages.pools, wanted, strict=True) if want
        ]:
            self._forget(name)
            return None
        while pages.budget is not None and pages.nbytes + pages.bytes_of(wanted) > pages.budget:
            if not prefixes.evict(keep=parent):
                return None
        numbers: list[int | None] = []
        at = 0
        for pool, size in zip(pages.pools, head["parts"], strict=True):
            if size is None:
                numbers.append(None)
                continue
            number = pool.allocate()
            pool.page(number)[:] = np.frombuffer(body, np.uint8, size, at)
            numbers.append(number)
            at += size
        node = prefixes.adopt(parent, ids, numbers, bool(head["branch"]))
        if head["routes"]:
            dtype, shape = head["routes"]
            node.routes = np.frombuffer(body, dtype, offset=at).reshape(shape)
        self._touch(name)
        self.loaded += 1
        return node

    def load_alike(self, prefixes: Prefixes, parent: Node, rest: tuple[int, ...]) -> None:
        """Brings back the block below `parent` that has the longest beginning in common with `rest`, if any has one."""
        from motet.engine.prefix import common

        known = self._below.get(parent.digest.hex(), {})
        best = max(known, key=lambda ids: common(ids, rest), default=())
        have = max((common(c, rest) for c in parent.children), default=0)
        if best not in parent.children and common(best, rest) > have:
            self.load(prefixes, parent, best)

    def _read(self, name: str) -> tuple[dict[str, Any], bytes] | None:
        try:
            data = (self.folder / f"{name}.kv").read_bytes()
            size = int.from_bytes(data[:8], "little")
            if hashlib.blake2b(data[:-CHECK], digest_size=CHECK).digest() == data[-CHECK:]:
                return json.loads(data[8 : 8 + size]), data[8 + size : -CHECK]
        except (OSError, ValueError):
            pass
        self._forget(name)
        return None

    def _touch(self, name: str) -> None:
        self._files.move_to_end(name)
        with contextlib.suppress(OSError):
            os.utime(self.folder / f"{name}.kv")

    def _forget(self, name: str) -> None:
        self._files.pop(name, None)
        for below in self._below.values():
            for ids in [i for i, n in below.items() if n == name]:
                del below[ids]
        _remove(self.folder / f"{name}.kv")

    def _shrink(self) -> None:
        total = self.nbytes
        while total > self.limit and self._files:
            name = next(iter(self._files))
            total -= self._files[name]
            self._forget(name)


def _head(path: Path) -> dict[str, Any] | None:
    """The head of a file that looks like one of ours, else None."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(size)) if 0 < size < 1 << 20 else None
    except (OSError, ValueError):
        return None
    fine = isinstance(head, dict) and isinstance(head.get("above"), str) and isinstance(head.get("ids"), list)
    return head if fine else None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
