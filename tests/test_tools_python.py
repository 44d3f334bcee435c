"""The python tool against honest and hostile cells, in its real sandbox: as whoever runs the tests.

test_tools_python_user.py runs them again without root's rights.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from motet.errors import UserError
from motet.tools import base, sandbox
from motet.tools.base import Answer, ToolError
from motet.tools.python import SILENT, PythonTool
from motet.tools.sandbox import Limits, Sandbox

LIMITS = Limits(wall_s=20, memory_bytes=768 << 20, disk_bytes=32 << 20, processes=64, grace_s=2)


@pytest.fixture(scope="module")
def tool() -> Iterator[PythonTool]:
    try:
        tool = PythonTool(LIMITS)
    except UserError as e:
        pytest.fail(str(e))
    with tool:
        yield tool


def run(tool: PythonTool, code: str, seconds: float = 20.0) -> Answer:
    """A cell, with a deadline as the turn sets one."""
    token = base._RUN.set(base.Run(deadline=time.monotonic() + seconds))
    try:
        return tool.call("python", code)
    finally:
        base._RUN.reset(token)


def works(tool: PythonTool) -> None:
    """The session takes cells, whatever happened before."""
    assert run(tool, "print(6 * 7)").text == "42"


def test_a_session_has_state_and_answers_as_jupyter_does(tool: PythonTool) -> None:
    assert run(tool, "x = 20").text == SILENT
    assert run(tool, "x + 22").text == "42"
    assert run(tool, "print('a'); import sys; print('b', file=sys.stderr)").text == "a\nb"
    failed = run(tool, "def f():\n    return 1 / 0\nf()")
    assert failed.error
    assert "ZeroDivisionError: division by zero" in failed.text
    assert "\x1b" not in failed.text
    assert run(tool, "await __import__('asyncio').sleep(0, 'done')").text == "'done'"
    assert "StdinNotImplementedError" in run(tool, "input('?')").text
    assert run(tool, "import getpass; getpass.getuser()").text == "'user'"
    with pytest.raises(ToolError, match="no code"):
        tool.call("python", " \n")


def test_plots_and_files_come_back(tool: PythonTool) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.show()\n"
    answer = run(tool, code + "_ = open('/mnt/data/squares.csv', 'w').write('1,4,9')", 60)
    plot, table = answer.artefacts
    assert (plot.name, plot.mime, plot.data[:8]) == ("plot-1.png", "image/png", b"\x89PNG\r\n\x1a\n")
    assert (table.name, table.mime, table.data) == ("squares.csv", "text/csv", b"1,4,9")
    assert (
        answer.text == "<Figure size 640x480 with 1 Axes>\n[saved: plot-1.png, squares.csv]"
    )  # and no complaints
    assert run(tool, "print(open('/mnt/data/squares.csv').read())") == Answer("1,4,9")


def test_only_real_files_come_back(tool: PythonTool) -> None:
    """No link, pipe or device, and no name that leads anywhere; /etc/hostname of this machine is out of reach anyway."""
    code = """
import os
os.symlink('/etc/hostname', 'link'); os.symlink('/proc/1/environ', 'link.txt'); os.mkfifo('pipe'); os.symlink('/', 'all')
os.makedirs('deep/er', exist_ok=True); open('deep/er/x.txt', 'w').write('here'); open('big.bin', 'wb').write(bytes(20 << 20))
"""
    answer = run(tool, code)
    assert [(a.name, a.data) for a in answer.artefacts] == [("deep-er-x.txt", b"here")]
    assert "too many or too large: big.bin]" in answer.text
    run(tool, "import os\nfor n in ('link', 'link.txt', 'pipe', 'all', 'big.bin'): os.unlink(n)")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a\\..\\..\\b", "..", ".bashrc", "a\nb", ""]
)
def test_names_of_artefacts_have_no_folders(name: str) -> None:
    clean = sandbox._name(name)
    assert (
        clean and "/" not in clean and "\\" not in clean and not clean.startswith(".") and "\n" not in clean
    )


def test_there_is_no_way_out(tool: PythonTool) -> None:
    """Network, files, processes, privileges: each attempt fails, and says so."""
    server = socket.create_server(("127.0.0.1", 0))
    secret = Path(os.environ.get("TMPDIR", "/tmp")) / f"motet-secret-{os.getpid()}"
    secret.write_text("the secret")
    code = f"""
import ctypes, os, signal, socket, subprocess
def attempt(what, f):
    try: r = f()
    except BaseException as e: r = None
    if r: print('WAY OUT', what, r)
libc = ctypes.CDLL(None, use_errno=True)
def sys_ok(*a): return libc.syscall(*a) >= 0
attempt('host loopback', lambda: socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1))
attempt('network', lambda: socket.create_connection(('1.1.1.1', 53), 1))
attempt('udp', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53)))
attempt('vsock', lambda: socket.socket(40, socket.SOCK_STREAM))
attempt('packet', lambda: socket.socket(17, socket.SOCK_RAW))
attempt('secret', lambda: open({str(secret)!r}).read())
attempt('shadow', lambda: open('/etc/shadow').read())
attempt('home', lambda: [p for p in os.listdir('/') if p in ('home', 'sys', 'boot', 'var', 'srv')])
attempt('write usr', lambda: open('/usr/x', 'w'))
attempt('write python', lambda: open(os.path.join({sys.prefix!r}, 'x'), 'w'))
attempt('write root', lambda: open('/x', 'w'))
attempt('become root', lambda: os.setuid(0) is None)
attempt('other processes', lambda: [p for p in os.listdir('/proc') if p.isdigit() and int(p) > 3000])
attempt('memory of 1', lambda: open('/proc/1/mem', 'rb'))
attempt('descriptors of 1', lambda: os.listdir('/proc/1/fd'))
attempt('trace 1', lambda: libc.ptrace(16, 1, 0, 0) == 0)
attempt('user namespace', lambda: libc.unshare(0x10000000) == 0)
attempt('mount', lambda: libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0)
attempt('bpf', lambda: sys_ok(321, 0, 0, 0)); attempt('io_uring', lambda: sys_ok(425, 1, 0)); attempt('keys', lambda: sys_ok(250, 0, -3, 1))
attempt('memfd', lambda: os.memfd_create('x') >= 0)
import mmap, resource
attempt('shared pages', lambda: mmap.mmap(-1, 4096)); attempt('huge pages', lambda: mmap.mmap(-1, 2 << 20, 0x40022))
attempt('shared zeros', lambda: mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096))
attempt('given pages', lambda: os.uname().machine != 'x86_64' or sys_ok(278, os.pipe()[1], 0, 0, 0))
attempt('aio', lambda: sys_ok(206, 9, ctypes.byref(ctypes.c_long(0))) or sys_ok(0, 9, ctypes.byref(ctypes.c_long(0))))
attempt('landlock', lambda: sys_ok(444, None, 0, 1))
attempt('limits of 1', lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (9, 9)) is None)
pair = socket.socketpair(); pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
attempt('large buffers', lambda: pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 1 << 20)
attempt('spared by the machine', lambda: int(open('/proc/self/oom_score_adj').read()) < 1000)
private = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); private[0] = 1
assert open('/dev/zero', 'rb').read(3) == bytes(3)
attempt('devices', lambda: [d for d in os.listdir('/dev') if d in ('sda', 'vda', 'kvm', 'mem', 'fuse', 'vsock')])
attempt('set-uid', lambda: subprocess.run(['su', '-c', 'id'], capture_output=True, timeout=2).returncode == 0)
attempt('core limit', lambda: __import__('resource').setrlimit(__import__('resource').RLIMIT_NPROC, (9999, 9999)) is None)
attempt('signal 1', lambda: [os.kill(1, s) for s in (9, 15, 11, 19)] and not os.path.exists('/proc/1'))
print('tried')
"""
    with server:
        answer = run(tool, code, 60)
    secret.unlink()
    assert answer.text == "tried"
    works(tool)


HOSTILE = {
    "exit": ("import os; os._exit(3)", "The kernel died (exit code 3)"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "The kernel died (SIGSEGV)"),
    "kill parent and self": (
        "import os, signal\nos.kill(os.getppid(), 9); os.kill(os.getpid(), 9)",
        "The kernel died (SIGKILL)",
    ),
    "fork bomb": ("import os\nwhile True: os.fork()", ""),
    "fork bomb in a shell": (
        "import subprocess\nsubprocess.run(['sh', '-c', 'b() { b | b & }; b; sleep 60'])",
        "",
    ),
    "endless printer": ("while True: print('spam ' * 1000)", "printed far more"),
    "memory hog": ("x = bytearray(10 << 30)", "MemoryError"),
    "many hogs": (
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0: x = b'x' * (300 << 20); time.sleep(60)\ntime.sleep(60)",
        "more than 768 MiB of memory",
    ),
    "disk filler": (
        "f = open('/mnt/data/.fill', 'wb')\nwhile True: f.write(bytes(1 << 20))",
        "No space left",
    ),
    "shared memory filler": (
        "f = open('/dev/shm/fill', 'wb')\nwhile True: f.write(bytes(1 << 20))",
        "No space left",
    ),
    "deaf to signals": (
        "import signal, time\nfor s in set(signal.valid_signals()) - {9, 19}:\n    signal.signal(s, signal.SIG_IGN)\n"
        "while True: time.sleep(1)",
        "timed out",
    ),
    "sleeper": ("import time; time.sleep(60)", "timed out"),
    "stopped": ("import os; os.kill(os.getpid(), 19)", "timed out"),
    "no end of recursion": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", ""),
    "broken channel": (
        "from ipykernel.kernelapp import IPKernelApp\nIPKernelApp.instance().shell_socket.close(0)\n"
        "import time; time.sleep(60)",
        "",
    ),
    "flood of pictures": (
        "from IPython.display import Image, display\npng = Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + bytes(1 << 16), format='png')\n"
        "for _ in range(3000): display(png)",
        "plot-16.png]",
    ),
    "forged message": (
        "from ipykernel.kernelapp import IPKernelApp\nk = IPKernelApp.instance().kernel\n"
        "k.session.send(k.iopub_socket, 'error', content={'traceback': 5}, parent=k.get_parent())\n"
        "import time; time.sleep(60)",
        "The cell broke the kernel's channels. All variables are lost; files in /mnt/data are still there.",
    ),
    "channels in the way of the next kernel": (
        "import os\nos.chdir('/run/kernel')\nopen('fill', 'wb').write(bytes(1 << 20))\n"
        "for i in range(9): os.makedirs(f'{i}.json')\n"
        "os.makedirs('/tmp/.ipython/profile_default/startup')\n"
        "open('/tmp/.ipython/profile_default/startup/a.py', 'w').write('import os; os._exit(1)')\nos._exit(4)",
        "exit code 4). All variables are lost; files in /mnt/data are still there.",
    ),
    "deaf child": (
        "import os; os.system('sleep 60')",
        "timed out after 1.5 seconds. Variables are still there.",
    ),
    "deep folders": (
        "import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')\nprint('deep')",
        "",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_reported_and_survived(tool: PythonTool, name: str) -> None:
    code, said = HOSTILE[name]
    began = time.monotonic()
    wall = 1.5 if not said or "timed out" in said else 15
    answer = run(tool, code, wall)
    assert said in answer.text, answer.text
    assert len(answer.text) <= LIMITS.output_chars + 1000
    assert time.monotonic() - began < wall + 20
    works(tool)
    run(
        tool,
        "import shutil, os; os.chdir('/mnt/data'); [os.path.isfile(f) and os.unlink(f) for f in ('.fill', '/dev/shm/fill')]",
    )


def test_output_is_text_without_escapes(tool: PythonTool) -> None:
    """Half a surrogate pair, colours, a window title, a control token: nothing of it leaves the text."""
    code = r"print('\ud800', '\x1b[31mred\x1b[0m', '\x1b]0;title\x07.', '<|end|>')"
    assert run(tool, code).text == r"\ud800 red . <|end|>"
    raw = '{"text": "half \\ud83d"}'
    code = (
        "import json\nfrom ipykernel.kernelapp import IPKernelApp\nk = IPKernelApp.instance().kernel; s = k.session\n"
        f'parts = [b\'{{"msg_id": "a", "msg_type": "stream", "version": "5.3"}}\', json.dumps(k.get_parent()[\'header\'], default=str).encode(),'
        f" b'{{}}', {raw.encode()!r}]\nk.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', s.sign(parts), *parts])"
    )
    answer = run(tool, code)
    assert answer.text == "half ?"
    run(
        tool,
        "open('a\\nb\\x1b[1m.txt', 'w').write('x')\nfor i in range(20): open(f'z\\n{i}', 'w').write('x')",
    )
    left_out = run(tool, "for i in range(20): open(f'z\\n{i}', 'w').write('xy')").text
    assert "\n" not in left_out.partition("[not handed over")[2]
    run(tool, "import os; [os.unlink(f) for f in os.listdir() if '\\n' in f]")


def test_what_ends_between_two_cells_is_told(tool: PythonTool) -> None:
    """A kernel that dies later costs the variables, a session that ends later the files too; never without a word."""
    later = "import os, threading; threading.Timer(0.2, lambda: os._exit(7)).start(); open('kept', 'w').write('k')"
    run(tool, later)
    time.sleep(0.7)
    said = run(tool, "open('ran', 'w')")
    assert "(exit code 7)" in said.text or "died after the last call, and this code did not run" in said.text
    assert run(tool, "import os; print(os.path.exists('kept'), os.path.exists('ran'))").text == "True False"
    assert tool.sandbox._process is not None
    os.kill(sandbox._children(tool.sandbox._process.pid)[0], 9)
    tool.sandbox._process.wait()
    said = run(tool, "print(os.path.exists('kept')) if 'os' in globals() else print('new')")
    assert (
        said.text
        == "[ERROR] The session ended after the last call. All variables and files are lost; a new one has begun.\nnew"
    )
    works(tool)


def test_a_session_closed_from_another_thread_answers_at_once(tool: PythonTool) -> None:
    works(tool)
    threading.Timer(0.3, tool.close).start()
    began = time.monotonic()
    assert "The session broke down" in run(tool, "import time; time.sleep(15)").text
    assert time.monotonic() - began < 10
    works(tool)


def test_a_call_without_time_or_reader_runs_nothing(tool: PythonTool) -> None:
    works(tool)
    call = base.Run()
    call.stop.set()
    token = base._RUN.set(call)
    try:
        assert "cancelled" in tool.call("python", "open('ran', 'w')").text
    finally:
        base._RUN.reset(token)
    assert run(tool, "import os; os.path.exists('ran')").text == "False"
    assert "timed out after 0.0 seconds" in run(tool, "import time; time.sleep(60)", -1).text


def test_a_machine_without_memory_ends_the_cell(tool: PythonTool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Socket buffers are on no process's account; the watcher looks at what the machine has left."""
    assert not sandbox._exhausted()
    works(tool)
    monkeypatch.setattr(sandbox, "_exhausted", lambda: True)
    said = run(tool, "import time; time.sleep(60)").text
    assert "The machine's memory is nearly full and the session was stopped. All variables are lost" in said


def test_threads_that_go_on_printing_fill_no_memory(tool: PythonTool) -> None:
    run(
        tool,
        "import threading, time\nend = time.time() + 2\n"
        "def shout():\n    while time.time() < end: print('noise' * 200); time.sleep(0.0001)\n"
        "threading.Thread(target=shout, daemon=True).start()",
    )
    time.sleep(2.5)
    works(tool)


def test_millions_of_files_end_the_session(tool: PythonTool) -> None:
    answer = run(tool, "n = 0\nwhile True:\n    open(f'/mnt/data/.{n}', 'w').close(); n += 1", 15)
    assert "a new session has begun" in answer.text
    works(tool)


def test_long_output_keeps_both_ends(tool: PythonTool) -> None:
    text = run(tool, "for i in range(20000): print(i)").text
    assert text.startswith("0\n1\n2\n") and text.endswith("19998\n19999")
    assert "characters left out" in text
    assert len(text) <= LIMITS.output_chars + 100


def test_cancelling_reaches_the_cell_and_keeps_the_variables(tool: PythonTool) -> None:
    run(tool, "kept = 1")
    call = base.Run()
    token = base._RUN.set(call)
    threading.Timer(0.5, call.stop.set).start()
    try:
        answer = tool.call("python", "import time; time.sleep(60)")
    finally:
        base._RUN.reset(token)
    assert "[ERROR] Execution was cancelled. Variables are still there." in answer.text
    assert run(tool, "kept").text == "1"


def test_progress_is_heard_before_the_end(tool: PythonTool) -> None:
    heard: list[tuple[float, str]] = []
    token = base._RUN.set(base.Run(lambda text: heard.append((time.monotonic(), text))))
    try:
        tool.call("python", "import time\nprint('first', flush=True); time.sleep(1); print('second')")
    finally:
        base._RUN.reset(token)
    assert "".join(text for _, text in heard) == "first\nsecond\n"
    assert heard[-1][0] - heard[0][0] > 0.5


def test_restart_forgets_variables_and_keeps_files(tool: PythonTool) -> None:
    run(tool, "y = 1; open('kept.txt', 'w').write('kept')")
    tool.restart()
    assert "NameError" in run(tool, "y").text
    assert run(tool, "print(open('kept.txt').read())").text == "kept"


def test_nothing_is_left_running(tmp_path: Path) -> None:
    """Neither after close nor when the program that holds the session is killed."""
    given = tmp_path / "in.csv"
    given.write_text("1,2")
    with PythonTool(LIMITS, [given]) as tool:
        assert run(tool, "print(open('/mnt/data/in.csv').read())").text == "1,2"
        assert run(tool, "open('/mnt/data/in.csv', 'a')").error
        process = tool.sandbox._process
        assert process is not None
        inside = sandbox._descendants(process.pid)
        assert len(inside) >= 2
    _gone(inside)
    code = (
        "import time\nfrom motet.tools.python import PythonTool\nfrom motet.tools import sandbox\nt = PythonTool()\n"
        "t.call('python', 'import subprocess; p = subprocess.Popen([\"sleep\", \"60\"])')\n"
        "print(*sandbox._descendants(t.sandbox._process.pid), flush=True)\ntime.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    inside = [int(p) for p in holder.stdout.readline().split()]
    holder.kill()
    holder.wait()
    assert len(inside) >= 3
    _gone(inside)


def _gone(pids: list[int]) -> None:
    end = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{p}") for p in pids):
        assert time.monotonic() < end, pids
        time.sleep(0.05)


def test_frames_of_a_lying_inside_are_refused() -> None:
    """What a compromised first process could send: the session ends, the host is not harmed."""
    ok = sandbox.Execution()
    limits = Limits(output_chars=100, artefact_bytes=100)
    text: list[str] = []
    take = lambda **frame: sandbox._take(frame, ok, text, limits, lambda t: None)  # noqa: E731
    assert not take(t="done", status="great")
    assert not take(t="nonsense")
    assert not take(t="file", name="x", data="not base64!")
    assert not take(t="out", text="x" * 1000)
    assert take(t="file", name=["a"], mime=3, data="") and take(
        t="file", name="big", mime="a/b", data="QUFB" * 100
    )
    assert ok.omitted == ["big"]
    assert (
        take(t="file", name="x", mime="text/\x1b[1m", data="")
        and ok.artefacts[-1].mime == "application/octet-stream"
    )
    assert take(t="done", status="ok", omitted=["a\nb\x1b", 7]) and ok.omitted[1:] == ["a_b_", "7"]


@pytest.mark.parametrize(
    "raw", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x03{}", b"\0\0\0\x02x}", b"\0\0\0\x05[[[[["]
)
def test_a_stream_that_is_no_frames_ends(raw: bytes) -> None:
    import io
    import queue

    frames: queue.Queue[dict[str, object] | None] = queue.Queue(64)
    sandbox._read(io.BytesIO(raw), frames)
    assert frames.get_nowait() is None


def test_without_bubblewrap_the_tool_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Never silently unsandboxed: no program, an old one, or one that may not make namespaces."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("MOTET_SANDBOX_IMAGE", raising=False)
    sandbox.choose.cache_clear()
    try:
        with pytest.raises(UserError, match=r"refused.*bwrap is not installed.*apt-get install bubblewrap"):
            Sandbox()
        (tmp_path / "bwrap").write_text("#!/bin/sh\necho --bind\n")
        (tmp_path / "bwrap").chmod(0o755)
        with pytest.raises(UserError, match="too old to limit a disk"):
            Sandbox()
        (tmp_path / "bwrap").write_text(
            "#!/bin/sh\necho --size\necho bwrap: No permissions >&2\ncase $1 in --help) exit 0;; esac\nexit 1\n"
        )
        with pytest.raises(UserError, match="not allowed to make namespaces here: bwrap: No permissions"):
            Sandbox()
        (tmp_path / "docker").write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / "docker").chmod(0o755)
        with pytest.raises(UserError, match="MOTET_SANDBOX_IMAGE"):
            Sandbox(kind="docker")
    finally:
        sandbox.choose.cache_clear()


def test_a_container_gets_the_same_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTET_SANDBOX_IMAGE", "image")
    command = sandbox._container("podman", "name", LIMITS, {}, "{}")
    assert command[:2] == ["podman", "run"]
    for words in (
        ["--network", "none"],
        ["--cap-drop", "ALL"],
        ["--pids-limit", "64"],
    ):
        at = command.index(words[0])
        assert command[at : at + 2] == words
    assert "--read-only" in command and command.index("image") < command.index("python3")
