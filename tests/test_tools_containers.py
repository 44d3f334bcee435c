"""The python tool in docker and podman: for real where an engine answers and MOTET_SANDBOX_IMAGE names an image with Python and
ipykernel; and what is said where none does. Nothing runs unconfined either way."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from motet.errors import UserError
from motet.tools import sandbox
from motet.tools.python import PythonTool
from motet.tools.sandbox import Kind, Limits, Sandbox
from test_tools_python import run, works

LIMITS = Limits(wall_s=30, memory_bytes=512 << 20, disk_bytes=32 << 20, processes=64, grace_s=2)


def answers(engine: str) -> bool:
    try:
        ran = subprocess.run([engine, "info"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ran.returncode == 0


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> Kind:
    if not os.environ.get("MOTET_SANDBOX_IMAGE") or not answers(request.param):
        pytest.skip(f"{request.param} does not answer here, or MOTET_SANDBOX_IMAGE names no image")
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def tool(engine: Kind) -> Iterator[PythonTool]:
    with PythonTool(LIMITS, kind=engine) as tool:
        yield tool


def test_a_session_in_a_container(tool: PythonTool) -> None:
    assert run(tool, "x = 41", 30).text.startswith("[WARN]")
    assert run(tool, "x + 1").text == "42"
    made = run(tool, "open('/mnt/data/a.txt', 'w').write('hi')")
    assert [(a.name, a.data) for a in made.artefacts] == [("a.txt", b"hi")]
    tool.restart()
    assert "NameError" in run(tool, "x").text and run(tool, "open('/mnt/data/a.txt').read()").text == "'hi'"


def test_a_container_is_confined(tool: PythonTool) -> None:
    code = """
import os, socket
def attempt(what, f):
    try: r = f()
    except OSError: r = None
    if r: print('WAY OUT', what, r)
attempt('network', lambda: socket.create_connection(('1.1.1.1', 53), 1))
attempt('root', lambda: os.getuid() == 0 or os.setuid(0) is None)
attempt('write', lambda: open('/usr/x', 'w'))
attempt('write elsewhere', lambda: open('/var/tmp/x', 'w'))
status = open('/proc/self/status').read()
attempt('capabilities', lambda: 'CapEff:\\t0000000000000000' not in status or 'NoNewPrivs:\\t1' not in status)
attempt('devices', lambda: [d for d in os.listdir('/dev') if d in ('sda', 'vda', 'kvm', 'mem', 'fuse')])
attempt('descriptors of 1', lambda: os.listdir('/proc/1/fd'))
print('tried')
"""
    assert run(tool, code).text == "tried"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os._exit(3)", "The kernel died (exit code 3)"),
        ("import os\nwhile True: os.fork()", ""),
        ("while True: print('spam ' * 1000)", "printed far more"),
        ("f = open('/mnt/data/.fill', 'wb')\nwhile True: f.write(bytes(1 << 20))", "No space left"),
        ("f = open('/dev/shm/fill', 'wb')\nwhile True: f.write(bytes(1 << 20))", "No space left"),
        ("import os, time\nfor _ in range(4):\n    if os.fork() == 0: x = b'x' * (300 << 20); time.sleep(60)\ntime.sleep(60)", ""),
        ("import time; time.sleep(60)", "timed out"),
    ],
)  # fmt: skip
def test_hostile_code_in_a_container(tool: PythonTool, code: str, said: str) -> None:
    answer = run(tool, code, 3.0 if not said or said == "timed out" else 20.0)
    assert said in answer.text, answer.text
    works(tool)
    run(tool, "import os; [os.path.isfile(f) and os.unlink(f) for f in ('/mnt/data/.fill', '/dev/shm/fill')]")


def test_no_container_is_left(engine: Kind) -> None:
    with PythonTool(LIMITS, kind=engine) as tool:
        works(tool)
        name = tool.sandbox._name
        assert name in subprocess.run([engine, "ps"], capture_output=True, text=True, check=True).stdout
    end = time.monotonic() + 30
    while name in subprocess.run([engine, "ps", "-a"], capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < end
        time.sleep(0.2)


def test_an_image_that_is_not_there_is_one_sentence(engine: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTET_SANDBOX_IMAGE", "localhost/no-such-image:none")
    with pytest.raises(UserError, match=rf"sandbox \({engine}\) did not start: ") as said:
        Sandbox(LIMITS, kind=engine).execute("1", seconds=20)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo Cannot connect to the daemon >&2; exit 1",
            r"does not answer \(Cannot connect to the daemon\)",
        ),
        ("exit 125", r"does not answer \(no reason given\)"),
        ("exec sleep 60", "does not answer"),
    ],
)
def test_an_engine_without_its_daemon_is_refused(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither bubblewrap nor an engine that works: a sentence, and not one process but the question to the engine."""
    ran: list[list[str]] = []
    real = subprocess.run

    def noting(command: list[str], **options: object) -> object:
        ran.append(command)
        if "timeout" in options:
            options["timeout"] = 2
        return real(command, **options)  # type: ignore[call-overload]

    (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "docker").chmod(0o755)
    for program in ("sh", "sleep"):
        (tmp_path / program).symlink_to(shutil.which(program) or program)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MOTET_SANDBOX_IMAGE", "image")
    monkeypatch.setattr(subprocess, "run", noting)
    sandbox.choose.cache_clear()
    try:
        with pytest.raises(UserError, match=rf"refused.*bwrap is not installed.*docker {said}"):
            PythonTool()
        with pytest.raises(UserError, match=said):
            PythonTool(kind="docker")
    finally:
        sandbox.choose.cache_clear()
    assert ran == [["docker", "info"]] * 2


def test_the_engine_is_told_no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """podman hands the addresses of proxies on to what runs inside; they may hold passwords."""
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy")
    monkeypatch.setenv("DOCKER_HOST", "unix:///x")
    env = sandbox._engine_env()
    assert "secret" not in str(env) and env["DOCKER_HOST"] == "unix:///x"
