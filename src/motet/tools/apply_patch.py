"""`apply_patch`: the published patch language, inside one folder, all of it or nothing.

Reading a patch and finding its place follow openai/gpt-oss (tools/apply_patch.py and .md); what a patch may touch is ours: no
path leaves the root, no link is followed, and a patch that fails changes nothing. Knows no model.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from motet.errors import UserError
from motet.harmony import Function, Namespace
from motet.tools import base
from motet.tools.base import Answer

BEGIN, END, EOF = "*** Begin Patch", "*** End Patch", "*** End of File"
ADD, DELETE, UPDATE, MOVE = "*** Add File: ", "*** Delete File: ", "*** Update File: ", "*** Move to: "
_SECTION_ENDS = (END, UPDATE.rstrip(), DELETE.rstrip(), ADD.rstrip(), EOF)
MAX_FILE = 16 << 20
MAX_PATCH = 4 << 20


class PatchError(Exception):
    """A patch that cannot be read or does not fit; nothing has changed."""


@dataclass
class Chunk:
    """Lines that go and lines that come, at a line of the old file."""

    at: int
    gone: list[str]
    new: list[str]


@dataclass
class Change:
    """What happens to one file. `new` is None for a file that goes; `fuzz` says how loosely the context fitted:
    0 exactly, +1 trailing space or a loose header, +100 all outer space, +10,000 not at the end of file as claimed."""

    kind: Literal["add", "delete", "update"]
    path: str
    new: str | None = None
    move_to: str | None = None
    fuzz: int = 0


@dataclass
class _Op:
    kind: Literal["add", "delete", "update"]
    path: str
    lines: list[str] = field(default_factory=list)
    move_to: str | None = None


def parse(text: str) -> list[_Op]:
    """The operations of a patch, their lines unread."""
    lines = [line.removesuffix("\r") for line in text.strip("\n").split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    if len(text) > MAX_PATCH:
        raise PatchError("The patch is too long.")
    if len(lines) < 2 or lines[0].rstrip() != BEGIN or lines[-1].rstrip() != END:
        raise PatchError(f"A patch begins with '{BEGIN}' and ends with '{END}'")
    ops: list[_Op] = []
    for line in lines[1:-1]:
        for kind, mark in (("add", ADD), ("delete", DELETE), ("update", UPDATE)):
            if line.startswith(mark):
                op = _Op(kind, line.removeprefix(mark).strip())  # type: ignore[arg-type]
                if any(o.path == op.path for o in ops):
                    raise PatchError(f"Duplicate {kind} for file: {op.path}")
                ops.append(op)
                break
        else:
            _body(ops, line)
    return ops


def _body(ops: list[_Op], line: str) -> None:
    if not ops or (ops[-1].kind == "delete" and line.strip()):
        raise PatchError(f"Unknown line while parsing: {line}")
    op = ops[-1]
    if line.startswith(MOVE) and op.kind == "update" and not op.lines and op.move_to is None:
        op.move_to = line.removeprefix(MOVE).strip()
    elif op.kind == "add" and not line.startswith("+"):
        raise PatchError(f"Invalid Add File line (missing '+'): {line}")
    elif op.kind != "delete":
        op.lines.append(line)


def updated(old: str, lines: list[str], path: str) -> tuple[str, int]:
    """(the new text, fuzz) of an Update. Lines keep their own ends; new ones get the file's."""
    crlf = old.count("\r\n") * 2 > old.count("\n")
    have = old.split("\n")
    bare = [line.removesuffix("\r") for line in have]
    chunks, fuzz = _place(bare, lines)
    out: list[str] = []
    here = 0
    for c in chunks:
        if c.at < here:
            raise PatchError(f"{path}: overlapping chunks at {here} > {c.at}")
        out += have[here : c.at]
        here = c.at + len(c.gone)
        new = _indented(bare[c.at : here], c)
        # The line after the last end of line has no end of its own.
        ends = ["\r" if crlf else ""] * len(new)
        if ends and here >= len(have):
            ends[-1] = ""
            if crlf and out and len(c.gone) == 0 and not out[-1].endswith("\r"):
                out[-1] += "\r"
        out += [n + e for n, e in zip(new, ends, strict=True)]
    return "\n".join([*out, *have[here:]]), fuzz


def _place(have: list[str], lines: list[str]) -> tuple[list[Chunk], int]:
    """Every chunk of an Update with its place in the file."""
    chunks: list[Chunk] = []
    at = here = fuzz = 0
    while here < len(lines):
        if base.cancelled():
            raise PatchError("Cancelled; nothing was changed")
        line = lines[here]
        header = line[3:] if line.startswith("@@ ") else ""
        if line.startswith("@@ ") or line.rstrip() == "@@":
            here += 1
        elif at or chunks or here:
            raise PatchError(f"Invalid line in update section:\n{line}")
        if header.strip():
            at, loose = _after(have, header, at)
            fuzz += loose
        context, found, here, at_end = _section(lines, here)
        start, cost = _find(have, context, at, at_end)
        if start < 0:
            raise PatchError(f"Invalid {'EOF ' if at_end else ''}context at {at}:\n" + "\n".join(context))
        fuzz += cost
        chunks += [Chunk(start + c.at, c.gone, c.new) for c in found]
        at = start + len(context)
    return chunks, fuzz


def _after(have: list[str], header: str, at: int) -> tuple[int, int]:
    """(the line after the one a header names, its cost); a header that is not found, or lies behind, is ignored."""
    for same, cost in ((lambda s: s, 0), (str.strip, 1)):
        key: Callable[[str], str] = same
        wanted = key(header)
        if wanted not in map(key, have[:at]):
            for i in range(at, len(have)):
                if key(have[i]) == wanted:
                    return i + 1, cost
    return at, 0


def _section(lines: list[str], here: int) -> tuple[list[str], list[Chunk], int, bool]:
    """(old lines, chunks relative to them, the line after, whether it ends the file)."""
    old: list[str] = []
    chunks: list[Chunk] = []
    began, keep = here, True
    while here < len(lines):
        line = lines[here]
        if line.startswith(("@@", EOF)):
            break
        if line.startswith("***"):
            raise PatchError(f"Invalid Line: {line}")
        here += 1
        mark, text = (line[0], line[1:]) if line else (" ", "")
        if mark not in " +-":
            raise PatchError(f"Invalid Line: {line}")
        if mark == " ":
            keep = True
            old.append(text)
            continue
        if keep:
            chunks.append(Chunk(len(old), [], []))
            keep = False
        if mark == "+":
            chunks[-1].new.append(text)
        else:
            chunks[-1].gone.append(text)
            old.append(text)
    if here < len(lines) and lines[here].rstrip() == EOF:
        return old, chunks, here + 1, True
    if here == began:
        raise PatchError("Nothing in this section")
    return old, chunks, here, False


def _find(have: list[str], context: list[str], at: int, at_end: bool) -> tuple[int, int]:
    if not at_end:
        return _find_from(have, context, at)
    # A text that ends with an end of line has one more, empty, line in this count: the end stands before it.
    for end in (len(have), len(have) - (have[-1] == "")):
        found, cost = _find_from(have, context, max(at, end - len(context)), end)
        if found >= 0:
            return found, cost
    found, cost = _find_from(have, context, at)
    return found, cost + 10_000


def _find_from(have: list[str], context: list[str], at: int, end: int | None = None) -> tuple[int, int]:
    """(first line at which the context stands, its cost), (-1, 0) for nowhere."""
    if not context:
        return (len(have) - (have[-1] == "") if end is not None else at), 0
    stop = (len(have) if end is None else end) - len(context) + 1
    for key, cost in ((lambda s: s, 0), (str.rstrip, 1), (str.strip, 100)):
        normal: Callable[[str], str] = key
        wanted = [normal(s) for s in context]
        lines = [normal(s) for s in have]
        for i in range(at, stop):
            if lines[i : i + len(wanted)] == wanted:
                return i, cost
    return -1, 0


def _indented(actual: list[str], chunk: Chunk) -> list[str]:
    """New lines with the file's indentation, where the old ones differ from the patch's by one common indent only."""
    pairs = [(a, g) for a, g in zip(actual, chunk.gone, strict=True) if a != g and g.strip()]
    if not pairs or [a.strip() for a in actual] != [g.strip() for g in chunk.gone]:
        return chunk.new
    theirs, ours = (line[: len(line) - len(line.lstrip())] for line in pairs[0])
    if any(not g.startswith(ours) or a.rstrip() != (theirs + g[len(ours) :]).rstrip() for a, g in pairs):
        return chunk.new
    if any(n.strip() and not n.startswith(ours) for n in chunk.new):
        return chunk.new
    return [theirs + n[len(ours) :] if n.strip() else n for n in chunk.new]


def plan(text: str, read: Callable[[str], str | None]) -> list[Change]:
    """What a patch does, without doing it. `read` gives the text of a file, or None when there is none."""
    changes: list[Change] = []
    for op in parse(text):
        old = read(op.path)
        if op.kind == "add":
            if old is not None:
                raise PatchError(f"Add File Error - file already exists: {op.path}")
            changes.append(Change("add", op.path, "".join(f"{line[1:]}\n" for line in op.lines)))
            continue
        if old is None:
            raise PatchError(f"{op.kind.capitalize()} File Error - missing file: {op.path}")
        if op.kind == "delete":
            changes.append(Change("delete", op.path))
            continue
        if op.move_to is not None and op.move_to != op.path and read(op.move_to) is not None:
            raise PatchError(f"Move Error - file already exists: {op.move_to}")
        new, fuzz = updated(old, op.lines, op.path)
        changes.append(Change("update", op.path, new, op.move_to, fuzz))
    for c in changes:
        if c.new is not None and base.text(c.new) != c.new:
            raise PatchError(f"{c.path}: the new text holds half a surrogate pair, which is no text")
    targets = [c.move_to or c.path for c in changes]
    if len(set(targets)) < len(targets):
        raise PatchError("Two operations write the same file.")
    return changes


def diff(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """A patch that makes `new` of `old` (path -> text). Every text ends with an end of line or is empty."""
    out = [BEGIN]
    for path in sorted({*old, *new}):
        if path not in new:
            out.append(DELETE + path)
        elif path not in old:
            out += [ADD + path, *(f"+{line}" for line in new[path].split("\n")[:-1])]
        elif old[path] != new[path]:
            a, b = old[path].split("\n"), new[path].split("\n")
            out.append(UPDATE + path)
            out.append("@@")
            for tag, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
                if tag == "equal":
                    out += [f" {line}" for line in a[i:j]]
                else:
                    out += [f"-{line}" for line in a[i:j]] + [f"+{line}" for line in b[k:m]]
            out.append(EOF)
    return "\n".join([*out, END]) + "\n"


class Folder:
    """Files below one folder, by relative paths. No link is followed: each step is opened from the one before."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        if not self.root.is_dir():
            raise UserError(f"There is no folder '{root}' to patch files in; check the path.")

    def read(self, path: str) -> str | None:
        """The text of a file; None when there is none. PatchError for what is no text file below the root."""
        with self._folder(path, make=None) as (folder, name):
            if folder is None:
                return None
            try:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                return None
            except OSError as e:
                raise PatchError(f"{path}: cannot be opened ({_reason(e)})") from None
            try:
                kind = os.fstat(fd)
                if not stat.S_ISREG(kind.st_mode) or kind.st_size > MAX_FILE:
                    raise PatchError(f"{path}: is not a text file of at most {MAX_FILE >> 20} MiB")
                with os.fdopen(os.dup(fd), "rb") as f:
                    return f.read(MAX_FILE + 1).decode("utf-8")
            except UnicodeDecodeError:
                raise PatchError(f"{path}: is not UTF-8 text") from None
            finally:
                os.close(fd)

    def apply(self, changes: list[Change], seen: Mapping[str, str | None]) -> None:
        """Carries out all changes, or none. `seen` is what was read: a file that has changed since is not touched."""
        undo: list[Callable[[], None]] = []
        done: list[Callable[[], None]] = []
        try:
            for path, text in seen.items():
                if self.read(path) != text:
                    raise PatchError(f"{path}: has changed while the patch was prepared")
            for c in changes:
                target = c.move_to or c.path
                if c.new is not None:
                    self._write(target, c.new, self._mode(c.path), undo, done)
                if c.new is None or target != c.path:
                    self._remove(c.path, undo, done)
        except BaseException as e:  # Ctrl-C among others
            for step in reversed(undo):
                step()
            if isinstance(e, OSError):
                raise PatchError(f"{_reason(e)}; nothing was changed") from None
            raise
        for step in done:
            step()

    def _mode(self, path: str) -> int | None:
        with self._folder(path, make=None) as (folder, name):
            try:
                return (
                    None
                    if folder is None
                    else os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode & 0o777
                )
            except FileNotFoundError:
                return None

    def _write(
        self,
        path: str,
        text: str,
        mode: int | None,
        undo: list[Callable[[], None]],
        done: list[Callable[[], None]],
    ) -> None:
        """A new file beside the old one takes its place; the old one waits under another name until all is done."""
        with self._folder(path, make=undo) as (folder, name):
            assert folder is not None
            fresh = f".{secrets.token_hex(8)}.patch"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(fresh, flags, 0o666, dir_fd=folder)
            try:
                with os.fdopen(fd, "wb") as f:
                    f.write(text.encode("utf-8"))
                    f.flush()
                    if mode is not None:
                        os.fchmod(fd, mode)
                    os.fsync(fd)
                self._remove(path, undo, done)
                # link, not rename: a file that somebody else has put there meanwhile is not lost
                try:
                    os.link(fresh, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                except PermissionError:  # a file system without hard links
                    os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(fresh, dir_fd=folder)
        undo.append(lambda: self._unlink(path))

    def _remove(self, path: str, undo: list[Callable[[], None]], done: list[Callable[[], None]]) -> None:
        """Puts a file aside under another name, if it is there."""
        aside = f".{secrets.token_hex(8)}.old"
        other = str(Path(path).with_name(aside))
        with self._folder(path, make=None) as (folder, name):
            if folder is None:
                return
            try:
                os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)
            except FileNotFoundError:
                return
        undo.append(lambda: self._rename(other, path))
        done.append(lambda: self._unlink(other))

    def _rename(self, path: str, to: str) -> None:
        with self._folder(path, make=None) as (folder, name), contextlib.suppress(OSError):
            if folder is not None:
                os.rename(name, Path(to).name, src_dir_fd=folder, dst_dir_fd=folder)

    def _unlink(self, path: str) -> None:
        with self._folder(path, make=None) as (folder, name), contextlib.suppress(OSError):
            if folder is not None:
                os.unlink(name, dir_fd=folder)

    @contextlib.contextmanager
    def _folder(self, path: str, make: list[Callable[[], None]] | None) -> Iterator[tuple[int | None, str]]:
        """(the open folder a path stands in, its last name); None when a folder is missing and none is to be made."""
        *folders, name = _steps(path)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        fd: int | None = os.open(self.root, flags)
        try:
            for n, step in enumerate(folders):
                assert fd is not None
                try:
                    inner = os.open(step, flags | os.O_NOFOLLOW, dir_fd=fd)
                except FileNotFoundError:
                    if make is None:
                        os.close(fd)
                        fd = None
                        break
                    os.mkdir(step, dir_fd=fd)
                    made = "/".join(folders[: n + 1])
                    make.append(lambda made=made: self._rmdir(made))  # type: ignore[misc]
                    inner = os.open(step, flags | os.O_NOFOLLOW, dir_fd=fd)
                except OSError as e:
                    raise PatchError(f"{path}: '{step}' cannot be entered ({_reason(e)})") from None
                os.close(fd)
                fd = inner
            yield fd, name
        finally:
            if fd is not None:
                os.close(fd)

    def _rmdir(self, path: str) -> None:
        with self._folder(path, make=None) as (folder, name), contextlib.suppress(OSError):
            if folder is not None:
                os.rmdir(name, dir_fd=folder)


def _steps(path: str) -> list[str]:
    """The names of a relative path that stays below where it starts."""
    steps = path.split("/")
    if (
        not path
        or path.startswith("/")
        or any(s in ("", ".", "..") for s in steps)
        or "\0" in path
        or path != base.text(path)
    ):
        raise PatchError(f"{path!r}: only relative paths without '.', '..' and empty names are taken")
    return steps


def _reason(e: OSError) -> str:
    import errno

    if e.errno in (errno.ELOOP, errno.ENOTDIR):
        return "it is a link or no folder"
    return e.strerror or type(e).__name__


def apply(text: str, root: str | Path, *, dry_run: bool = False) -> list[Change]:
    """Applies a patch to the files below `root`, all of it or nothing. PatchError says why not."""
    folder = Folder(root)
    seen: dict[str, str | None] = {}

    def read(path: str) -> str | None:
        seen[path] = folder.read(path)
        return seen[path]

    changes = plan(text, read)
    if not dry_run:
        folder.apply(changes, seen)
    return changes


class ApplyPatchTool:
    """`functions.apply_patch` on the files below one folder. The call is a raw patch, or JSON with the patch as a value."""

    def __init__(self, root: str | Path, *, dry_run: bool = False) -> None:
        self.root, self.dry_run = Folder(root).root, dry_run

    @property
    def namespace(self) -> Namespace:
        """As the models know it: one bare text."""
        default = f"{BEGIN}\n{END}\n"
        schema = {"type": "string", "description": "Formatted patch code", "default": default}
        return Namespace("functions", None, (Function("apply_patch", "Patch a file", schema),))

    def call(self, recipient: str, content: str) -> Answer:
        """Done!, or why the patch was not applied."""
        patch = content
        if content.lstrip().startswith(("{", '"')):
            try:
                value = json.loads(content)
            except (ValueError, RecursionError) as e:
                return Answer(f"Error parsing JSON: {e}", (), True)
            texts = [v for v in value.values() if isinstance(v, str)] if isinstance(value, dict) else [value]
            if len(texts) != 1 or not isinstance(texts[0], str):
                return Answer("Error parsing JSON: give one text, the patch.", (), True)
            patch = texts[0]
        try:
            changes = apply(patch, self.root, dry_run=self.dry_run)
        except (PatchError, OSError) as e:
            return Answer(f"Error applying patch: {e}", (), True)
        loose = [f"{c.path} (fuzz {c.fuzz})" for c in changes if c.fuzz]
        said = "Done!" if not self.dry_run else "The patch fits; this was a dry run and nothing has changed."
        return Answer(f"{said} Context fitted loosely: {', '.join(loose)}." if loose else said)
