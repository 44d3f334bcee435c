"""Runs a test module again as a user without rights, for tests whose subject is what such a user can do.

The interpreter or the checkout may stand below a folder that is closed to others (a root's home); that folder is then
replaced, in a mount namespace of the run, by an empty open one that holds only what is needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

UID = 54321
ROOT = Path(__file__).resolve().parent.parent


def command(*words: str) -> list[str]:
    """The command line that makes root run these words as UID."""
    needed = {Path(os.path.realpath(p)) for p in (ROOT, sys.prefix, sys.base_prefix)}
    closed = {d for p in needed for d in [*p.parents, p] if not d.stat().st_mode & 0o001}
    out = ["bwrap", "--dev-bind", "/", "/"]
    for folder in sorted(closed, key=lambda d: len(d.parts)):
        inside = [p for p in needed if p != folder and folder in p.parents]
        out += ["--perms", "0755", "--tmpfs", str(folder)]
        for path in inside:
            for parent in reversed(path.parents):
                if folder in parent.parents:
                    out += ["--perms", "0755", "--dir", str(parent)]
            out += ["--ro-bind", str(path), str(path)]
    return [*out, "setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", *words]


def rerun(module: str, *options: str) -> None:
    """Runs the tests of a module as UID and fails with their output."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o777)
        _rerun(module, Path(home), options)


def _rerun(module: str, folder: Path, options: tuple[str, ...]) -> None:
    environment = {**os.environ, "MOTET_AS_USER": "1", "HOME": str(folder), "TMPDIR": str(folder)}
    environment["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder)
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", module]
    words += ["--basetemp", str(folder / "tests"), *options]
    ran = subprocess.run(
        command(*words), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout
