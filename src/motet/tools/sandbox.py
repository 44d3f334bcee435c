"""A Jupyter kernel that cannot reach anything: started in bubblewrap (or docker, podman), fed cells, watched, ended.

Everything that comes out of the sandbox is hostile: frames have a size limit, values are checked, and no path inside is
ever opened from outside. docs/tools.md says what the sandbox does not stop. Knows no model and no messages.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from motet.errors import UserError
from motet.tools import base, seccomp
from motet.tools.base import Artefact

Kind = Literal["bwrap", "docker", "podman"]
INSIDE = Path(__file__).with_name("inside.py")
START_S = 60.0  # a first start reads a few thousand files of the environment
_FRAMES = 20_000  # of one cell; an honest one sends a few
_END_S = 10.0  # what the inside may take to end what a cell has started, and to hand over its files
_RESERVE = 1 << 30  # bytes the machine keeps free of sandboxes, at most a twentieth of what it has


@dataclass(frozen=True)
class Limits:
    """What a session may use. Bytes and seconds; `processes` counts threads too."""

    wall_s: float = 120.0
    memory_bytes: int = 2 << 30  # resident, all processes together; one process may map twice that
    processes: int = 96
    disk_bytes: int = 256 << 20  # of /mnt/data, in memory; a quarter of it for /tmp
    output_chars: int = 20_000
    artefacts: int = 16
    artefact_bytes: int = 16 << 20
    open_files: int = 256
    grace_s: float = 3.0  # between asking a cell to stop and ending its process

    def inside(self) -> dict[str, Any]:
        """As the first process inside reads them."""
        return {**asdict(self), "address_bytes": 2 * self.memory_bytes}


@dataclass
class Execution:
    """What a cell did. status: ok, error, interrupted, died (the kernel was replaced) or gone (the sandbox ended). `lost`:
    the session of earlier cells was found dead before this one, which ran in a new one."""

    status: str = "gone"
    why: str = ""
    text: str = ""
    artefacts: list[Artefact] = field(default_factory=list)
    omitted: list[str] = field(default_factory=list)
    exit_code: int | None = None
    seconds: float = 0.0
    lost: bool = False
    frames: int = 0
    characters: int = 0


class Sandbox:
    """One session. Starts with the first cell; not for several threads at once. A context manager."""

    def __init__(
        self, limits: Limits | None = None, files: Sequence[Path] = (), kind: Kind | None = None
    ) -> None:
        """`files` are copied to /mnt/data, read-only. UserError when nothing here can confine a process."""
        self.limits = limits or Limits()
        self.kind = choose(kind)
        self.files = _inputs(files, self.limits.disk_bytes)
        self._process: subprocess.Popen[bytes] | None = None
        self._frames: queue.Queue[dict[str, Any] | None] = queue.Queue(64)
        self._over = ""  # what the watcher ended processes for
        self._settled = False  # whether a kernel is known to be ready
        self._name = ""

    @property
    def running(self) -> bool:
        """Whether there is a session whose variables and files a cell would find."""
        return self._process is not None and self._process.poll() is None

    def execute(
        self,
        code: str,
        *,
        seconds: float | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        progress: Callable[[str], None] = lambda text: None,
    ) -> Execution:
        """Runs a cell; text goes to `progress` as it comes. Never raises for what the cell does."""
        limit = self.limits.wall_s if seconds is None else min(seconds, self.limits.wall_s)
        try:
            lost = self._process is not None and not self._ready(cancelled) and self._process is None
            if self._process is None and not cancelled():
                self._start(cancelled)
            if cancelled():
                return Execution("interrupted", "cancelled", lost=lost)
            self._over = ""
            self._send(op="execute", code=code)
            out = self._collect(limit, cancelled, progress)
            out.lost = lost
            return out
        except BaseException:  # Ctrl-C among others: a session that is out of step is of no use
            self.close()
            raise

    def restart(self) -> None:
        """Forgets all variables; files in /mnt/data stay."""
        if self.running and self._ready():
            self._send(op="restart")
            self._settled = False
            if not self._ready():
                raise UserError("The python tool's session did not restart; its files are lost.")

    def close(self) -> None:
        """Ends every process inside; the next cell begins anew. May be called from any thread."""
        process, self._process, self._settled = self._process, None, False
        if process is None:
            return
        for pid in _children(process.pid):
            _kill(pid)
        process.kill()
        if self.kind != "bwrap":
            command = [self.kind, "rm", "-f", self._name]
            subprocess.run(command, capture_output=True, check=False, env=_engine_env())
        process.wait()
        with contextlib.suppress(queue.Empty):  # lets go of a reader that waits for room
            while True:
                self._frames.get_nowait()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _start(self, cancelled: Callable[[], bool]) -> None:
        self.close()
        self._name = f"motet-{os.getpid()}-{random.getrandbits(48):x}"
        uid = 0x40000000 + random.getrandbits(24) if os.geteuid() == 0 and self.kind == "bwrap" else None
        config = json.dumps({"limits": self.limits.inside(), "uid": uid})
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the last reference)
        with contextlib.ExitStack() as stack:
            if self.kind == "bwrap":
                command, fds = _bwrap(self.limits, self.files, config, uid, stack)
            else:
                command, fds = _container(self.kind, self._name, self.limits, self.files, config), []
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=fds,
                env=_ENV if self.kind == "bwrap" else _engine_env(),
                cwd=None
                if self.kind == "bwrap"
                else tempfile.gettempdir(),  # conmon leaves a note where it stands
            )
        self._process, self._frames = process, queue.Queue(64)
        assert process.stdout is not None
        threading.Thread(target=_read, args=(process.stdout, self._frames), daemon=True).start()
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()
        if not self._ready(cancelled) and not cancelled():
            errors.seek(0)
            said = errors.read(4096).decode("utf-8", "replace").strip().splitlines()
            raise UserError(
                f"The python tool's sandbox ({self.kind}) did not start: {said[-1] if said else 'no reason given'}"
            )

    def _ready(self, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Waits until a kernel takes cells, the first one or one that replaces another. A session without is ended."""
        end = time.monotonic() + START_S
        while self.running and not self._settled and time.monotonic() < end:
            if cancelled():
                return False
            with contextlib.suppress(queue.Empty):
                frame = self._frames.get(timeout=0.1)
                if frame is None or frame.get("t") != "ready":
                    break
                self._settled = True
        if not (self.running and self._settled):
            self.close()
        return self._settled

    def _send(self, **frame: Any) -> None:
        data = json.dumps(frame).encode()
        process = self._process
        with contextlib.suppress(OSError):  # a sandbox that is gone is found out by who reads
            if process is not None and process.stdin is not None:
                process.stdin.write(len(data).to_bytes(4, "big") + data)
                process.stdin.flush()

    def _collect(
        self, seconds: float, cancelled: Callable[[], bool], progress: Callable[[str], None]
    ) -> Execution:
        out, why = Execution(), ""
        text: list[str] = []
        process, frames = self._process, self._frames
        began, asked = time.monotonic(), 0.0
        while out.status == "gone":
            try:
                frame = frames.get(timeout=0.1)
                if frame is None or not _take(frame, out, text, self.limits, progress):
                    self.close()
                    break
            except queue.Empty:
                if self._process is not process:  # closed from another thread
                    break
            now = time.monotonic()
            if not asked and (now - began > seconds or cancelled()):
                asked, why = now, "cancelled" if cancelled() else "timeout"
                self._send(op="interrupt", why=why)
            if asked and now - asked > self.limits.grace_s + _END_S and out.status == "gone":
                self.close()
                break
        if self._process is process:
            self._settled = out.status not in ("gone", "died")
        out.why = self._over or why or out.why
        out.text, out.seconds = "".join(text), seconds
        return out

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Ends everything but the first process inside when all together hold too much memory, and when the machine
        has none left: socket buffers and the like are on no process's account."""
        while process.poll() is None:
            first = _children(process.pid)
            inside = [p for f in first for p in _descendants(f)]
            own = sum(map(_memory, first))
            if own + sum(map(_memory, inside)) > self.limits.memory_bytes:
                self._over = "memory"
            elif _exhausted():
                self._over = "machine"
            else:
                time.sleep(0.1)
                continue
            for pid in [*inside, *(first if own > self.limits.memory_bytes // 2 else [])]:
                _kill(pid)
            time.sleep(0.1)


_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def _engine_env() -> dict[str, str]:
    """What an engine needs to find itself; addresses of proxies, which podman hands on, may hold passwords."""
    wanted = ("PATH", "HOME", "USER", "XDG_", "DOCKER_", "CONTAINER", "DBUS_SESSION_BUS_ADDRESS")
    return _ENV | {k: v for k, v in os.environ.items() if k.startswith(wanted)}


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return _printable(lines[-1]) if lines else "no reason given"


@cache
def choose(kind: Kind | None = None) -> Kind:
    """What confines the session: the one asked for, else bubblewrap, docker or podman. UserError when there is none."""
    if not sys.platform.startswith("linux"):
        raise UserError("The python tool needs Linux, whose namespaces confine it; leave the tool out here.")
    reasons: dict[str, str] = {}
    for name in (kind,) if kind else ("bwrap", "docker", "podman"):
        reason = _unfit(name)
        if reason is None:
            return name
        reasons[name] = reason
    if not kind and reasons["bwrap"] != "is not installed":
        reasons = {"bwrap": reasons["bwrap"]}
    why = "; ".join(f"{n} {r}" for n, r in reasons.items())
    raise UserError(
        f"The python tool is refused, since nothing can confine it ({why}); install bubblewrap "
        "(Debian: apt-get install bubblewrap) or leave the tool out."
    )


def _unfit(name: Kind) -> str | None:
    """Why this program cannot be used; None when it can."""
    if shutil.which(name) is None:
        return "is not installed"
    if name != "bwrap":
        if not os.environ.get("MOTET_SANDBOX_IMAGE"):
            return "needs an image with Python and ipykernel named in MOTET_SANDBOX_IMAGE"
        with contextlib.suppress(subprocess.TimeoutExpired):
            ran = subprocess.run(
                [name, "info"], capture_output=True, text=True, timeout=20, check=False, env=_engine_env()
            )
            return None if ran.returncode == 0 else f"does not answer ({_last(ran.stderr)})"
        return "does not answer"
    usage = subprocess.run(
        [shutil.which(name) or name, "--help"], capture_output=True, text=True, check=False
    )
    if "--size" not in usage.stdout + usage.stderr:
        return "is too old to limit a disk (0.7 or newer is needed)"
    with contextlib.ExitStack() as stack:
        command, fds = _bwrap(
            Limits(), {}, "", 0 if os.geteuid() == 0 else None, stack, ["/usr/bin/env", "true"]
        )
        ran = subprocess.run(command, capture_output=True, text=True, pass_fds=fds, env=_ENV, check=False)
    if ran.returncode == 0:
        return None
    said = ran.stderr.strip().splitlines()
    return f"is not allowed to make namespaces here: {said[-1] if said else ran.returncode}"


def _bwrap(
    limits: Limits,
    files: dict[str, bytes],
    config: str,
    uid: int | None,
    stack: contextlib.ExitStack,
    program: Sequence[str] | None = None,
) -> tuple[list[str], list[int]]:
    """(command, file descriptors it reads). Root keeps its namespace and becomes nobody's uid inside instead, because
    the kernel counts no processes for root, whatever the uid is called in a namespace of users."""
    fds: list[int] = []

    def data(content: bytes) -> str:
        f = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        f.write(content)
        f.seek(0)
        fds.append(f.fileno())
        return str(f.fileno())

    command = [shutil.which("bwrap") or "bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net"]
    command += ["--unshare-uts", "--unshare-cgroup-try"]
    command += ["--as-pid-1", "--new-session", "--clearenv", "--hostname", "sandbox", "--cap-drop", "ALL"]
    if uid is None:
        command += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    else:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    command += _system()
    user = f"user:x:{uid or 1000}:{uid or 1000}::/tmp:/bin/sh\n"
    command += ["--perms", "0444", "--ro-bind-data", data(user.encode()), "/etc/passwd"]
    if not os.path.exists("/etc/fonts/fonts.conf"):
        command += ["--perms", "0444", "--ro-bind-data", data(b"<fontconfig/>"), "/etc/fonts/fonts.conf"]
    # /dev/full reads as zeros too, and cannot be mapped: shared zeros are memory on no process's account.
    command += ["--proc", "/proc", "--dev", "/dev", "--dev-bind", "/dev/full", "/dev/zero"]
    disk = limits.disk_bytes
    for path, size in (("/dev/shm", disk // 4), ("/tmp", disk // 4), ("/run", 4 << 20), ("/mnt/data", disk)):
        command += ["--perms", "0777", "--size", str(size), "--tmpfs", path]
    for path in _prefixes():
        for parent in reversed(Path(path).parents[:-1]):  # bubblewrap would close them to others than root
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--ro-bind", path, path]
    for name, content in files.items():
        command += ["--perms", "0444", "--ro-bind-data", data(content), f"/mnt/data/{name}"]
    command += ["--perms", "0444", "--ro-bind-data", data(INSIDE.read_bytes()), "/inside.py"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/mnt/data"]
    if rules := seccomp.program():
        command += ["--seccomp", data(rules)]
    command += ["--", *(program or [sys.executable, "-I", "/inside.py", config])]
    return command, fds


def _system() -> list[str]:
    """The parts of this machine that programs need, read-only, and their environment."""
    out = [
        "--perms",
        "0755",
        "--dir",
        "/etc",
        "--perms",
        "0755",
        "--dir",
        "/mnt",
    ]  # else they are root's alone
    for name, value in _environment().items():
        out += ["--setenv", name, value]
    for path in ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"):
        if os.path.islink(path):
            out += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            out += ["--ro-bind", path, path]
    for path in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts", "/etc/localtime"):
        out += ["--ro-bind-try", path, path]
    return out


def _container(kind: Kind, name: str, limits: Limits, files: dict[str, bytes], config: str) -> list[str]:
    """The same session in a container: the engine's limits instead of ours where it has them."""
    if files:
        raise UserError(f"Files cannot be handed to a session in {kind}; install bubblewrap for that.")
    # The kernel counts processes by user: one that nobody else is. Few ids, since a user's own podman maps 65,536.
    uid = random.randrange(20_000, 60_000)
    command = [
        kind,
        "run",
        "--rm",
        "-i",
        "--name",
        name,
        "--network",
        "none",
        "--read-only",
        "--cap-drop",
        "ALL",
    ]
    command += [
        "--security-opt",
        "no-new-privileges",
        "--user",
        f"{uid}:{uid}",
        "--workdir",
        "/mnt/data",
        "--ipc",
        "private",
    ]
    command += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
    command += ["--pids-limit", str(limits.processes)]
    for limit, most in (("nofile", limits.open_files), ("nproc", limits.processes), ("core", 0)):
        command += ["--ulimit", f"{limit}={most}:{most}"]  # an engine's own may be more than it may give
    # A folder that the image has keeps its mode, so each belongs to the user inside; the engines say that differently.
    # podman would also lay folders without limit over a read-only root, and cannot count files, which inside.py does.
    own = f"uid={uid},gid={uid},nr_inodes=20000" if kind == "docker" else "notmpcopyup,U"
    command += [] if kind == "docker" else ["--read-only-tmpfs=false"]
    for path, size in (("/tmp", limits.disk_bytes // 4), ("/run", 4 << 20), ("/mnt/data", limits.disk_bytes)):
        command += ["--tmpfs", f"{path}:size={size},mode=1777,{own}"]
    command += ["--shm-size", str(limits.disk_bytes // 4)]
    for key, value in _environment().items():
        command += ["--env", f"{key}={value}"]
    command += [os.environ["MOTET_SANDBOX_IMAGE"], "python3", "-I", "-c", INSIDE.read_text("utf-8"), config]
    return command


def _environment() -> dict[str, str]:
    """Few threads, since each counts as a process; everything programs like to keep in a home goes to /tmp."""
    few = str(min(4, os.cpu_count() or 1))
    return {
        "PATH": f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8",
        "TZ": "UTC", "TERM": "dumb", "IPYTHONDIR": "/tmp/.ipython", "JUPYTER_RUNTIME_DIR": "/run/jupyter",
        "MPLCONFIGDIR": "/tmp/.matplotlib", "OMP_NUM_THREADS": few, "OPENBLAS_NUM_THREADS": few, "MKL_NUM_THREADS": few,
        "MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def _prefixes() -> list[str]:
    """The interpreter's folders that do not stand below /usr."""
    found = {p for q in (sys.prefix, sys.base_prefix, sys.exec_prefix) for p in (q, os.path.realpath(q))}
    return sorted(p for p in found if not f"{p}/".startswith("/usr/"))


def _inputs(files: Sequence[Path], limit: int) -> dict[str, bytes]:
    out: dict[str, bytes] = {}
    for path in map(Path, files):
        if not path.is_file():
            raise UserError(f"There is no file '{path}' to hand to the python tool; check the path.")
        if path.name in out:
            raise UserError(f"Two files for the python tool are called '{path.name}'; rename one.")
        limit -= path.stat().st_size
        if limit < 0:
            raise UserError(
                f"'{path}' does not fit into the python tool's disk; hand it fewer or smaller files."
            )
        out[path.name] = path.read_bytes()
    return out


def _read(stream: IO[bytes], frames: queue.Queue[dict[str, Any] | None]) -> None:
    """Frames until the stream ends or is no frame; None last."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        while len(head := stream.read(4)) == 4:
            n = int.from_bytes(head, "big")
            if n > 64 << 20 or len(body := stream.read(n)) < n:
                break
            frame = json.loads(body)
            if not isinstance(frame, dict):
                break
            frames.put(frame)
    frames.put(None)


def _take(
    frame: dict[str, Any],
    out: Execution,
    text: list[str],
    limits: Limits,
    progress: Callable[[str], None],
) -> bool:
    """Adds a frame to what a cell did; False for one that an honest inside does not send."""
    kind = frame.get("t")
    out.frames += 1
    if out.frames > _FRAMES:
        return False
    if kind == "done":
        out.status, out.why = str(frame.get("status"))[:20], str(frame.get("why"))[:100]
        out.exit_code = frame["exit"] if isinstance(frame.get("exit"), int) else None
        omitted = frame.get("omitted")
        out.omitted += [_printable(str(o)) for o in omitted[:20]] if isinstance(omitted, list) else []
        return out.status in ("ok", "error", "interrupted", "died")
    if kind == "out":
        piece = base.text(str(frame.get("text")))
        out.characters += len(piece)
        text.append(piece)
        progress(piece)
        return out.characters <= limits.output_chars + 200
    if kind not in ("file", "image"):
        return False
    try:
        data = base64.b64decode(str(frame.get("data")), validate=kind == "file")
    except (binascii.Error, ValueError):
        return False
    mime = str(frame.get("mime"))
    mime = mime if _MIME.fullmatch(mime) else "application/octet-stream"
    if kind == "image" and mime == "image/svg+xml":
        data = str(frame.get("data")).encode("utf-8", "replace")
    plot = f"plot-{len(out.artefacts) + 1}.{_ENDING.get(mime, 'bin')}"
    name = plot if kind == "image" else _name(str(frame.get("name")))
    total = len(data) + sum(len(a.data) for a in out.artefacts)
    if total > limits.artefact_bytes or len(out.artefacts) >= limits.artefacts:
        out.omitted += [name] if len(out.omitted) < 20 else []
    else:
        out.artefacts.append(Artefact(name, mime, data))
    return True


_ENDING = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}
_MIME = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)


def _name(name: str) -> str:
    """A file name that says nothing about folders, so that whoever saves it stays where he is."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]
    return _printable("-".join(parts)).lstrip(".") or "file"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in text)[:200]


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []


def _descendants(pid: int) -> list[int]:
    """All below `pid`, which itself is left out; children of any thread count."""
    out: list[int] = []
    todo = [pid]
    while todo:
        with contextlib.suppress(OSError):
            here = todo.pop()
            for thread in os.listdir(f"/proc/{here}/task"):
                with contextlib.suppress(OSError, ValueError):
                    below = [int(p) for p in Path(f"/proc/{here}/task/{thread}/children").read_text().split()]
                    out += below
                    todo += below
    return out


def _memory(pid: int) -> int:
    """Bytes a process holds: resident, swapped out, and its page tables."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError:
        return 0
    return sum(int(kib) for kib in _HELD.findall(status)) << 10


_HELD = re.compile(r"^Vm(?:RSS|Swap|PTE):\s*(\d+) kB", re.M)


def _exhausted() -> bool:
    """Whether the machine's memory is nearly all in use."""
    try:
        found = dict(
            re.findall(r"^(MemTotal|MemAvailable):\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
        )
        total, left = int(found["MemTotal"]) << 10, int(found["MemAvailable"]) << 10
    except (OSError, KeyError):
        return False
    return left < min(_RESERVE, total // 20)


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
