"""The first process inside the python tool's sandbox: keeps a Jupyter kernel, runs cells, hands out results and files.

Runs as process 1, where nothing inside can kill it, so that a dead kernel costs its variables but not the files. Speaks
frames over stdin and stdout: four bytes of length, big-endian, then JSON. Imports nothing of motet, because the sandbox
need not contain it. Knows no turns; the other end (sandbox.py) trusts nothing that it says.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mimetypes
import os
import re
import resource
import secrets
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import deque
from typing import Any

DATA = "/mnt/data"
RUN = "/run/kernel"
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
FLOOD = 200  # a cell that prints this many times what is kept is stopped
# Runs in a new kernel: print() fails there and then when a cell prints without end, before the pages of text pile up in
# the kernel's memory. A cell can undo it; then the limit on memory stops the kernel.
SETUP = """
def _():
    import sys
    from IPython import get_ipython
    def bound(info):  # IPython puts the streams' own write back after each cell
        left = [%d]
        for stream in (sys.stdout, sys.stderr):
            def write(text, write=stream.write):
                left[0] -= len(text)
                if left[0] < 0:
                    raise RuntimeError("the cell printed far more than can be shown")
                if not text.isascii():  # half a surrogate pair would break the channel
                    text = text.encode("utf-8", "backslashreplace").decode()
                return write(text)
            stream.write = write
    get_ipython().events.register("pre_run_cell", bound)
_()
del _
"""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[]P^_][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z^_`-~])")


class Pipe:
    """Frames on two file descriptors."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write

    def send(self, **frame: Any) -> None:
        """Writes a frame whole."""
        data = json.dumps(frame).encode("utf-8", "surrogatepass")
        data = len(data).to_bytes(4, "big") + data
        while data:
            data = data[os.write(self.write, data) :]

    def receive(self) -> Any:
        """The next frame; EOFError when the other end is gone."""
        return json.loads(self._exactly(int.from_bytes(self._exactly(4), "big")))

    def _exactly(self, n: int) -> bytes:
        out = b""
        while len(out) < n:
            piece = os.read(self.read, n - len(out))
            if not piece:
                raise EOFError
            out += piece
        return out


class Output:
    """What a cell printed: the first half of the limit is passed on at once, of the rest the end is kept."""

    def __init__(self, limit: int, pipe: Pipe) -> None:
        self.pipe, self.half = pipe, limit // 2
        self.total = 0
        self._tail: deque[str] = deque()
        self._kept = 0

    def add(self, text: str) -> None:
        """More text; escape sequences of terminals are left out."""
        text = _ESCAPES.sub("", text)
        room = max(0, self.half - self.total)
        self.total += len(text)
        if room:
            self.pipe.send(t="out", text=text[:room])
        rest = text[room:][-self.half :]
        if rest:
            self._tail.append(rest)
            self._kept += len(rest)
        while self._tail and self._kept - len(self._tail[0]) >= self.half:
            self._kept -= len(self._tail.popleft())

    def close(self) -> None:
        """Passes on the end, behind a line that says how much is missing."""
        end = "".join(self._tail)[-self.half :] if self.half else ""
        lost = self.total - min(self.total, self.half) - len(end)
        mark = f"\n[... {lost} characters left out ...]\n" if lost > 0 else ""
        if mark or end:
            self.pipe.send(t="out", text=mark + end)


class Kernel:
    """One ipykernel process and the client of it."""

    def __init__(self, limits: dict[str, Any]) -> None:
        import zmq
        from jupyter_client.blocking.client import BlockingKernelClient
        from jupyter_client.connect import write_connection_file

        # A folder whose name no earlier cell could know, and so neither fill nor occupy.
        folder = f"{RUN}/{secrets.token_hex(8)}"
        os.makedirs(folder)
        base = f"{folder}/k"
        write_connection_file(f"{base}.json", ip=base, transport="ipc", key=secrets.token_hex(32).encode())
        command = [sys.executable, "-I", "-m", "ipykernel_launcher", "-f", f"{base}.json"]
        command += ["--InteractiveShell.colors=NoColor", "--HistoryManager.enabled=False"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=DATA,
            env={**os.environ, "IPYTHONDIR": folder},
            start_new_session=True,
        )
        self.client = BlockingKernelClient(connection_file=f"{base}.json", context=zmq.Context())
        self.client.context.setsockopt(zmq.MAXMSGSIZE, min(limits["memory_bytes"] // 8, 64 << 20))
        self.client.load_connection_file()
        self.client.start_channels(stdin=False, hb=False)

    def wait(self, seconds: float) -> bool:
        """Whether the kernel answers within this time."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(RuntimeError):
                self.client.wait_for_ready(timeout=1)
                return self.process.poll() is None
        return False

    def interrupt(self) -> None:
        """Ctrl-C, for programs that the cell waits for too."""
        try:
            os.killpg(self.process.pid, signal.SIGINT)
        except ProcessLookupError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGINT)

    def end(self) -> None:
        """Ends the kernel and everything else in the sandbox but this process."""
        kill_all()
        with contextlib.suppress(Exception):
            self.process.wait(5)
        with contextlib.suppress(Exception):
            self.client.stop_channels()
            self.client.context.destroy(linger=0)


def kill_all() -> None:
    """Ends every process but this one; repeated, since one that is forking may slip through a round."""
    for _ in range(50):
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.01)
        reap(0)


def reap(keep: int) -> None:
    """Collects orphans; the kernel itself is left to its Popen."""
    with contextlib.suppress(ChildProcessError):
        while True:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None or info.si_pid == keep:
                return
            os.waitpid(info.si_pid, 0)


def crowded(most: int = 20_000) -> bool:
    """Whether there are more files than anyone needs: a small disk can hold millions of empty ones, in kernel memory."""
    held = (os.statvfs(folder) for folder in (DATA, "/tmp", "/dev/shm", "/run"))
    return any(v.f_files - v.f_ffree > most for v in held)


def processes() -> int:
    """How many processes there are besides this one."""
    return sum(name.isdigit() for name in os.listdir("/proc")) - 1


class Files:
    """What is new in the data folder since the last look."""

    def __init__(self, limit: int, count: int) -> None:
        self.limit, self.count = limit, count
        self.seen = dict(self._walk())

    def new(self, pipe: Pipe) -> list[str]:
        """Sends new and changed files; returns the names of those that were too many or too large."""
        now = dict(self._walk())
        changed = [p for p, mark in now.items() if self.seen.get(p) != mark]
        self.seen = now
        left, omitted = self.limit, []
        for n, path in enumerate(sorted(changed)):
            data = self._read(path, left) if n < self.count else None
            name = os.path.relpath(path, DATA)
            if data is None:
                omitted.append(name)
                continue
            left -= len(data)
            mime = mimetypes.guess_type(name)[0] or "application/octet-stream"
            pipe.send(t="file", name=name, mime=mime, data=base64.b64encode(data).decode())
        return omitted

    def _walk(self) -> list[tuple[str, tuple[int, int, int]]]:
        out: list[tuple[str, tuple[int, int, int]]] = []
        looked = 0
        for folder, folders, names in os.walk(DATA):
            folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__"]
            for name in names:
                looked += 1
                if looked > 10_000:
                    return out
                with contextlib.suppress(OSError, ValueError):
                    path = os.path.join(folder, name)
                    path.encode()  # a name that is no text is no artefact
                    s = os.lstat(path)
                    if stat.S_ISREG(s.st_mode) and not name.startswith("."):
                        out.append((path, (s.st_mtime_ns, s.st_size, s.st_ino)))
        return out

    @staticmethod
    def _read(path: str, limit: int) -> bytes | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        with os.fdopen(fd, "rb") as f:
            try:
                data = f.read(limit + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else None
            except OSError:  # by way of a folder that has become a link: something of /proc
                data = None
        return data if data is not None and len(data) <= limit else None


class Session:
    """Cells, one after another, in one kernel that is replaced when it dies."""

    def __init__(self, limits: dict[str, Any], pipe: Pipe) -> None:
        self.limits, self.pipe = limits, pipe
        self.files = Files(limits["artefact_bytes"], limits["artefacts"])
        self._asked: float | None = None  # when the running cell was asked to stop
        self._why, self._images, self._large = "", 0, 0
        self._begin()

    def _begin(self) -> None:
        """Starts a kernel and says so. What earlier ones left in the folder of channels goes first."""
        for _ in range(2):  # the host may still be ending what held too much memory
            shutil.rmtree(RUN, ignore_errors=True)
            self.kernel = Kernel(self.limits)
            if self.kernel.wait(25):
                break
            self.kernel.end()
        else:
            raise RuntimeError("the kernel does not start")
        self.kernel.client.execute(SETUP % (FLOOD * self.limits["output_chars"]), silent=True)
        self.pipe.send(t="ready")

    def restart(self) -> None:
        """A kernel without variables; files stay."""
        self.kernel.end()
        self._begin()

    def execute(self, code: str) -> None:
        """Runs a cell and sends what comes of it, `done` last; `ready` follows when another kernel had to begin."""
        output = Output(self.limits["output_chars"], self.pipe)
        self._asked, self._why, self._images, self._large = None, "", 0, 0
        ended = "died"
        if self.kernel.process.poll() is not None:
            self._why = "before"
        else:
            try:
                ended = self._run(code, output)
            except (EOFError, BrokenPipeError):
                raise
            except Exception:  # whatever a hostile cell made of the channels
                self._why = self._why or "channel"
        exit_code = self.kernel.process.poll()
        if exit_code is not None:
            ended = "died"
        if ended == "died":
            self.kernel.end()
        elif processes() > self.limits["processes"] // 2:
            self._strays()
        output.close()
        omitted = self.files.new(self.pipe)[:20]
        if more := max(0, self._images - self.limits["artefacts"]) + self._large:
            omitted.insert(0, f"{more} plots")
        self.pipe.send(t="done", status=ended, why=self._why, exit=exit_code, omitted=omitted)
        if ended == "died":
            self._begin()

    def _run(self, code: str, output: Output) -> str:
        """ok, error, interrupted or died."""
        import zmq

        client = self.kernel.client
        iopub, shell = client.iopub_channel, client.shell_channel
        poller = zmq.Poller()
        for socket in (iopub.socket, shell.socket, self.pipe.read):
            poller.register(socket, zmq.POLLIN)
        number = client.execute(code, allow_stdin=False, store_history=True)
        status, idle, replied_at = "", False, 0.0
        while not (status and (idle or time.monotonic() - replied_at > 2)):
            ready = dict(poller.poll(200))
            reap(self.kernel.process.pid)
            if crowded():
                raise EOFError  # only the end of the sandbox gives the memory back
            if self.kernel.process.poll() is not None or self._overdue():
                return "died"
            if self.pipe.read in ready:
                self._command(self.pipe.receive())
            if (
                iopub.socket in ready
                and (m := iopub.get_msg(timeout=0))["parent_header"].get("msg_id") == number
            ):
                idle = self._shown(m, output) or idle
            if (
                shell.socket in ready
                and (m := shell.get_msg(timeout=0))["parent_header"].get("msg_id") == number
            ):
                status = "ok" if m["content"].get("status") == "ok" else "error"
                replied_at = time.monotonic()
            if output.total > FLOOD * self.limits["output_chars"]:
                self._stop("flood")
        return "interrupted" if self._asked else status

    def _shown(self, m: dict[str, Any], output: Output) -> bool:
        """Takes a message of the kernel; True when it says that the cell is over."""
        kind, content = m["msg_type"], m["content"]
        if kind == "status":
            return bool(content.get("execution_state") == "idle")
        if kind == "stream":
            output.add(str(content.get("text", "")))
        elif kind == "error":
            output.add("\n".join(map(str, content.get("traceback", []))) + "\n")
        elif kind in ("execute_result", "display_data"):
            data = content.get("data", {})
            self._picture(data)
            output.add(str(data.get("text/plain", "")) + "\n")
        return False

    def _picture(self, data: dict[str, Any]) -> None:
        """Passes on the first form of a picture that fits."""
        forms = [m for m in IMAGES if isinstance(data.get(m), str)]
        fit = [m for m in forms if len(data[m]) <= self.limits["artefact_bytes"] * 4 // 3]
        self._images += bool(fit)
        self._large += bool(forms) and not fit
        if fit and self._images <= self.limits["artefacts"]:
            self.pipe.send(t="image", mime=fit[0], data=data[fit[0]])

    def _command(self, frame: dict[str, Any]) -> None:
        if frame["op"] == "interrupt":
            self._stop(frame.get("why", "interrupt"))

    def _stop(self, why: str) -> None:
        if self._asked is None:
            self._asked, self._why = time.monotonic(), why
            self.kernel.interrupt()

    def _overdue(self) -> bool:
        return self._asked is not None and time.monotonic() - self._asked > self.limits["grace_s"]

    def _strays(self) -> None:
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in (1, self.kernel.process.pid):
                with contextlib.suppress(OSError):
                    os.kill(int(name), signal.SIGKILL)
        self._why = self._why or "strays"

    def _forget(self) -> None:
        """Throws away what threads of finished cells go on printing, before it piles up here."""
        import zmq

        with contextlib.suppress(zmq.ZMQError):
            for _ in range(10_000):
                self.kernel.client.iopub_channel.socket.recv_multipart(zmq.NOBLOCK, copy=False)

    def serve(self) -> None:
        """Until the other end closes."""
        while True:
            if not select.select([self.pipe.read], [], [], 1.0)[0]:
                reap(self.kernel.process.pid)
                if crowded():
                    return
                self._forget()
                continue
            frame = self.pipe.receive()
            if frame["op"] == "execute":
                self.execute(frame["code"])
            elif frame["op"] == "restart":
                self.restart()


def confine(config: dict[str, Any]) -> None:
    """Limits that hold for every process inside, then the user that has no rights."""
    import ctypes

    limits = config["limits"]
    for kind, value in (
        (resource.RLIMIT_AS, limits["address_bytes"]),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 1 << 20),
        (resource.RLIMIT_SIGPENDING, 1024),
    ):
        resource.setrlimit(kind, (value, value))
    os.nice(5)
    with open("/proc/self/oom_score_adj", "w") as f:  # a machine without memory ends the sandbox first
        f.write("1000")
    uid = config.get("uid")
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/1 is closed to the others
    prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: nothing runs on when bubblewrap is gone
    os.umask(0o077)


def main() -> None:
    """argv[1] is JSON: limits, and the uid to become."""
    config = json.loads(sys.argv[1])
    confine(config)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Pipe(os.dup(0), os.dup(1))
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    session = Session(config["limits"], pipe)
    with contextlib.suppress(EOFError):
        session.serve()
    kill_all()


if __name__ == "__main__":
    main()
