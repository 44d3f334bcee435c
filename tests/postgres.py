"""A real PostgreSQL of its own for tests, from Debian's package: in a temporary folder, reached by a socket file."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MISSING = "PostgreSQL is not installed (Debian: apt-get install postgresql)"


def programs() -> Path | None:
    """The folder of initdb and postgres."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def postgres() -> Iterator[str]:
    """Its URL. It refuses to run as root, so root runs it as another user."""
    where = programs()
    if where is None:
        pytest.skip(MISSING)
    root = os.getuid() == 0
    user = "postgres" if root and any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody"
    as_user: dict[str, str] = {"user": user} if root else {}
    with tempfile.TemporaryDirectory(prefix="motet-pg-", dir="/tmp") as name:
        folder = Path(name)
        if root:
            shutil.chown(folder, user)
        data = folder / "data"
        make = [
            where / "initdb",
            "-D",
            data,
            "-U",
            "motet",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--no-locale",
        ]
        done = subprocess.run(make, cwd=folder, capture_output=True, text=True, **as_user)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        run = [
            where / "postgres",
            "-D",
            data,
            "-k",
            folder,
            "-h",
            "",
            "-c",
            "fsync=off",
            "-c",
            "max_connections=40",
        ]
        server = subprocess.Popen(run, cwd=folder, stderr=subprocess.PIPE, text=True, **as_user)  # type: ignore[call-overload]
        try:
            for line in server.stderr:
                if "ready to accept connections" in line:
                    break
            yield f"postgresql://motet@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # without waiting for clients
            server.communicate(timeout=30)
