"""The patch language: each operation, each looseness, each error; nothing outside the root, all or nothing; diff then apply."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet.harmony import typescript
from motet.tools.apply_patch import ApplyPatchTool, Folder, PatchError, apply, diff, plan

OLD = "def f():\n    return 1\n\n\ndef g():\n    return 2\n"


def patch(*lines: str) -> str:
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"]) + "\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.py").write_text(OLD)
    (folder / "sub" / "b.txt").write_text("one\ntwo\n")
    (tmp_path / "outside.txt").write_text("mine\n")
    return folder


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_bytes().decode() for p in folder.rglob("*") if p.is_file()}


def test_every_operation_in_one_patch(root: Path) -> None:
    text = patch(
        "*** Add File: new/deep/c.txt", "+hello", "+", "+there",
        "*** Update File: a.py", "@@ def g():", "-    return 2", "+    return 3",
        "*** Update File: sub/b.txt", "*** Move to: sub/d.txt", "@@", " one", "-two", "+2", "*** End of File",
    )  # fmt: skip
    os.chmod(root / "sub/b.txt", 0o750)
    changes = apply(text, root, dry_run=True)
    assert tree(root) == {"a.py": OLD, "sub/b.txt": "one\ntwo\n"}
    assert [c.fuzz for c in changes] == [0, 0, 0]
    apply(text, root)
    expected = {"new/deep/c.txt": "hello\n\nthere\n", "a.py": OLD.replace("2", "3"), "sub/d.txt": "one\n2\n"}
    assert tree(root) == expected
    assert stat.S_IMODE((root / "sub/d.txt").stat().st_mode) == 0o750
    apply(patch("*** Delete File: sub/d.txt"), root)
    assert "sub/d.txt" not in tree(root)


@pytest.mark.parametrize(
    ("lines", "fuzz", "expected"),
    [
        (["@@", " def f():", "-    return 1", "+    return 9"], 0, "return 9"),
        ([" def f():", "-    return 1", "+    return 9"], 0, "return 9"),  # the first section may omit @@
        (["@@", " def f():   ", "-    return 1", "+    return 9"], 1, "return 9"),
        (
            ["@@", " def f():", "-  return 1", "+  return 9"],
            100,
            "    return 9",
        ),  # re-indented as in the file
        (["@@  def g():", "-    return 2", "+    return 9"], 1, "return 9"),  # a loose header
        (["@@ class Nowhere:", "-    return 1", "+    return 9"], 0, "return 9"),  # ignored
        (["@@", "-def f():", "+def h():", "*** End of File"], 10_000, "def h()"),
        (
            ["@@", " def f():", "     return 1", "", "", "-def g():", "+def h():"],
            0,
            "def h()",
        ),  # empty context
        (["@@", "+# end", "*** End of File"], 0, "return 2\n# end\n"),
    ],
)
def test_context_fits_exactly_or_loosely(root: Path, lines: list[str], fuzz: int, expected: str) -> None:
    (change,) = apply(patch("*** Update File: a.py", *lines), root)
    assert change.fuzz == fuzz
    assert expected in tree(root)["a.py"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("*** Update File: a.py\n", "A patch begins with"),
        ("*** Begin Patch\n*** Delete File: a.py", "and ends with"),
        (patch("*** Update File: x.py", "@@", "-1"), "Update File Error - missing file: x.py"),
        (patch("*** Delete File: x.py"), "Delete File Error - missing file: x.py"),
        (patch("*** Add File: a.py", "+1"), "Add File Error - file already exists: a.py"),
        (patch("*** Delete File: a.py", "*** Delete File: a.py"), "Duplicate delete for file: a.py"),
        (patch("*** Update File: a.py", "@@ def f():", "@@", "-    return 1"), "Nothing in this section"),
        (patch("*** Update File: a.py", "@@", " nowhere", "-gone"), "Invalid context at 0:\nnowhere\ngone"),
        (patch("*** Update File: a.py", "@@", "what is this"), "Invalid Line: what is this"),
        (patch("*** Update File: a.py", "*** Rename: b"), "Invalid Line: *** Rename: b"),
        (patch("*** Add File: n.txt", "no plus"), "missing '+'"),
        (patch("hello"), "Unknown line while parsing: hello"),
        (patch("*** Update File: sub/b.txt", "*** Move to: a.py", "@@", "-one"), "Move Error - file already exists"),
        (patch("*** Add File: n", "+1", "*** Update File: a.py", "*** Move to: n", "@@", "-def f():"), "write the same file"),
    ],
)  # fmt: skip
def test_a_patch_that_does_not_fit_is_told_why_and_changes_nothing(root: Path, text: str, said: str) -> None:
    before = tree(root)
    answer = ApplyPatchTool(root).call("functions.apply_patch", text)
    assert answer.error and answer.text.startswith("Error applying patch: ") and said in answer.text
    assert tree(root) == before


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "/etc/passwd",
        "sub/../../outside.txt",
        "link.txt",
        "folder/x",
        "./a.py",
        "sub//b.txt",
        "",
    ],
)
def test_nothing_outside_the_root_is_reached(root: Path, path: str) -> None:
    (root / "link.txt").symlink_to("../outside.txt")
    (root / "folder").symlink_to("..")
    for text in (
        patch(f"*** Update File: {path}", "@@", "-mine", "+yours"),
        patch(f"*** Add File: {path}", "+x"),
        patch(f"*** Delete File: {path}"),
        patch("*** Update File: a.py", f"*** Move to: {path}", "@@", "-def f():", "+def h():"),
    ):
        with pytest.raises(PatchError):
            apply(text, root)
    assert (root.parent / "outside.txt").read_text() == "mine\n"
    assert sorted(p.name for p in root.parent.iterdir()) == ["outside.txt", "root"]
    assert tree(root)["a.py"] == OLD


def test_pipes_devices_and_binary_files_are_refused(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "image").write_bytes(b"\xff\xfe\0")
    for name in ("pipe", "image", "sub"):
        with pytest.raises(PatchError, match=name):
            apply(patch(f"*** Update File: {name}", "@@", "-x"), root)


def test_a_failure_half_way_puts_everything_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(root)
    text = patch(
        "*** Add File: made/new.txt", "+x", "*** Update File: a.py", "@@", "-def f():", "+def h():",
        "*** Delete File: sub/b.txt",
    )  # fmt: skip
    real = os.rename
    calls = []

    def fails(a: str, b: str, **k: int) -> None:
        calls.append(a)
        if a == "b.txt":
            raise OSError(28, "No space left on device")
        real(a, b, **k)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(PatchError, match="No space left on device; nothing was changed"):
        apply(text, root)
    monkeypatch.undo()
    assert "b.txt" in calls
    assert tree(root) == before
    assert not (root / "made").exists()


def test_text_that_cannot_be_written_changes_nothing(root: Path) -> None:
    """JSON can spell half a surrogate pair, in a text and in a path."""
    before = tree(root)
    for broken in ("*** Add File: y\\n+\\ud800", "*** Add File: \\ud800\\n+y"):
        call = f'{{"patch": "*** Begin Patch\\n*** Add File: x\\n+x\\n{broken}\\n*** End Patch"}}'.replace(
            "\\\\", "\\"
        )
        answer = ApplyPatchTool(root).call("functions.apply_patch", call)
        assert answer.error and answer.text.startswith("Error applying patch: ") and tree(root) == before


def test_a_disk_that_refuses_puts_everything_back(root: Path) -> None:
    """Files may not grow beyond a few bytes here, as on a full disk: the second file does not fit."""
    text = patch(
        "*** Add File: new/small", "+x", "*** Update File: a.py", "@@", "-def g():", "+def g():" + " " * 5000
    )
    program = (
        "import resource, signal, sys\nfrom motet.tools.apply_patch import ApplyPatchTool\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "print(ApplyPatchTool(sys.argv[1]).call('functions.apply_patch', sys.argv[2]).text)"
    )
    before = sorted(root.rglob("*")), tree(root)
    ran = subprocess.run(
        [sys.executable, "-c", program, root, text], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "Error applying patch: File too large; nothing was changed\n"
    assert (sorted(root.rglob("*")), tree(root)) == before


def test_a_file_that_changes_meanwhile_is_not_lost(root: Path) -> None:
    folder = Folder(root)
    seen = {"a.py": OLD}
    changes = plan(patch("*** Update File: a.py", "@@", "-def f():", "+def h():"), folder.read)
    (root / "a.py").write_text("somebody else\n")
    with pytest.raises(PatchError, match="has changed"):
        folder.apply(changes, seen)
    assert tree(root)["a.py"] == "somebody else\n"


def test_a_folder_swapped_for_a_link_at_any_moment_leads_nowhere(root: Path) -> None:
    """A racing process turns sub/ into a link out of the root and back; no write ever lands outside."""
    outside = root.parent / "elsewhere"
    outside.mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "sub", root / "kept")
            os.symlink(outside, root / "sub")
            os.unlink(root / "sub")
            os.rename(root / "kept", root / "sub")

    racer = threading.Thread(target=swap)
    racer.start()
    done = 0
    try:
        for n in range(300):
            with contextlib.suppress(PatchError, OSError):
                apply(patch("*** Update File: sub/b.txt", "@@", " two", f"+{n}"), root)
                done += 1
    finally:
        stop.set()
        racer.join()
    assert not list(outside.iterdir())
    assert (root / "sub" / "b.txt").read_text().count("\n") == 2 + done


def test_ends_of_lines_are_kept(root: Path) -> None:
    (root / "w.txt").write_bytes(b"one\r\ntwo\r\nthree")
    apply(patch("*** Update File: w.txt", "@@", " one", "-two", "+2", "+2.5"), root)
    assert (root / "w.txt").read_bytes() == b"one\r\n2\r\n2.5\r\nthree"
    apply(patch("*** Update File: w.txt", "@@", "-three", "+3", "*** End of File"), root)
    assert (root / "w.txt").read_bytes() == b"one\r\n2\r\n2.5\r\n3"


def test_the_call_is_a_patch_or_json_around_it(root: Path) -> None:
    import json

    tool = ApplyPatchTool(root)
    text = patch("*** Add File: x.txt", "+1")
    assert tool.call("functions.apply_patch", json.dumps({"anything": text})).text == "Done!"
    assert tool.call("functions.apply_patch", json.dumps(text.replace("x.txt", "y.txt"))).text == "Done!"
    assert tool.call("functions.apply_patch", '{"input": ').text.startswith("Error parsing JSON: ")
    assert typescript(tool.namespace.functions[0].parameters) == "string"
    dry = ApplyPatchTool(root, dry_run=True)
    assert "dry run" in dry.call("functions.apply_patch", text.replace("x.txt", "z.txt")).text
    assert not (root / "z.txt").exists()


LINES = st.lists(
    st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=8), max_size=8
)
TEXTS = LINES.map(lambda lines: "".join(f"{line}\n" for line in lines))
TREES = st.dictionaries(st.sampled_from(["a", "b.txt", "c/d", "c/e f"]), TEXTS, max_size=4)


@given(TREES, TREES)
def test_applying_a_difference_makes_the_other(old: dict[str, str], new: dict[str, str]) -> None:
    out = dict(old)
    for c in plan(diff(old, new), old.get):
        out.pop(c.path) if c.new is None else out.__setitem__(c.path, c.new)
    assert out == new


@given(TEXTS, TEXTS, st.integers(0, 3))
def test_a_small_change_in_a_file_of_distinct_lines(before: str, change: str, context: int) -> None:
    lines = [f"{n}: {line}" for n, line in enumerate((before + change).split("\n"))]
    at = len(before) % len(lines)
    new = [*lines[:at], "new", *lines[at + 1 :]]
    hunk = [f" {x}" for x in lines[max(0, at - context) : at]] + [f"-{lines[at]}", "+new"]
    hunk += [f" {x}" for x in lines[at + 1 : at + 1 + context]]
    (c,) = plan(patch("*** Update File: f", "@@", *hunk), {"f": "\n".join(lines)}.get)
    assert c.new == "\n".join(new)
    assert c.fuzz == 0


@pytest.mark.fuzz
@given(st.lists(st.sampled_from(["*** Begin Patch", "*** End Patch", "*** Update File: f", "*** Add File: g", "*** Delete File: f",
       "*** Move to: h", "*** End of File", "@@", "@@ x", " x", "-x", "+y", "", "***", "junk"]), max_size=12))  # fmt: skip
def test_any_text_is_applied_or_refused(lines: list[str]) -> None:
    with contextlib.suppress(PatchError):
        plan("\n".join(lines), {"f": "x\nx\n"}.get)
