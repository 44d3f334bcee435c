"""More hostile cells for the python tool's sandbox: messages, signals, descriptors, system calls, files, exits.

test_tools_python_user.py runs them again without root's rights.
"""

from __future__ import annotations

import platform
import time

import pytest

from motet.tools.python import PythonTool
from test_tools_python import LIMITS, run, tool, works

__all__ = ["tool"]  # the fixture

KERNEL = "from ipykernel.kernelapp import IPKernelApp\nk = IPKernelApp.instance().kernel\n"
# name -> (code, what the answer says, the cell's seconds)
CELLS: dict[str, tuple[str, str, float]] = {
    "a signal for everyone": ("import os; os.kill(-1, 9)", "ProcessLookupError", 15),
    "the interpreter's lock held in C": ("import ctypes\nctypes.PyDLL(None).pause()", "timed out", 1.5),
    "an exception that never ends speaking": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", "timed out", 1.5),
    "an exception of many megabytes": ("raise ValueError('x' * (100 << 20))", "", 15),
    "a value whose repr is itself": ("class R:\n    def __repr__(self): return repr(self)\nR()", "RecursionError", 15),
    "a value that lies about its picture": (
        "class P:\n    def _repr_png_(self): return b'no picture'\n    def __repr__(self): return 'shown'\nP()", "shown", 15),
    "a picture that is a list": (
        "from IPython.display import display\ndisplay({'image/png': [1, {'a': 2}], 'text/plain': ['x', None]}, raw=True)\nprint('done')", "done", 15),
    "a message nested to the bottom": (
        KERNEL + "k.iopub_socket.send_multipart([b'<IDS|MSG>', b'', b'[' * 100000, b'{}', b'{}', b'{}'])\nimport time; time.sleep(60)",
        "The cell broke the kernel's channels", 15),
    "messages of a kind nobody asked for": (
        KERNEL + "while True: k.session.send(k.iopub_socket, 'comm_msg', content={'x': 'y' * 999}, parent=k.get_parent())", "timed out", 1.5),
    "a question to nobody": ("input('password? ')", "StdinNotImplementedError", 15),
    "a breakpoint": ("breakpoint()", "", 15),
    "the end, politely": ("quit()", "", 15),
    "the end, at once": ("get_ipython().kernel.do_shutdown(False); import os; os.abort()", "The kernel died (SIGABRT)", 15),
    "hanging on at the exit": ("import atexit, sys, time\natexit.register(time.sleep, 999)\nget_ipython().ask_exit()\nprint('going')", "", 15),
    "garbage in every descriptor": (
        "import os\nfor fd in range(256):\n    try: os.set_blocking(fd, False); os.write(fd, b'\\xff' * 4096)\n    except OSError: pass", "", 15),
    "every descriptor closed": ("import os; os.closerange(0, 256)", "", 5),
    "real time": ("import os\nos.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))", "PermissionError", 15),
    "first in the queue": ("import os; os.nice(-20)", "PermissionError", 15),
    "ten thousand threads": (
        "import threading, time\nfor _ in range(10_000): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()", "can't start new thread", 15),
    "a thread with a stack of gigabytes": (
        "import threading, time\nthreading.stack_size(1 << 34)\nthreading.Thread(target=time.sleep, args=(1,)).start()", "Error", 15),
    "a file of a petabyte": ("open('/mnt/data/.big', 'wb').truncate(1 << 50)", "OSError", 15),
    "a file that is all hole": ("open('/mnt/data/hole.bin', 'wb').truncate(30 << 20)", "not handed over, too many or too large: hole.bin", 15),
    "an address space of terabytes": (
        "import mmap\nmmap.mmap(-1, 1 << 44, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)", "Cannot allocate memory", 15),
    "attributes in place of files": (
        "import os\nopen('/mnt/data/.a', 'w').close()\nn = 0\ntry:\n    while n < 100_000: os.setxattr('/mnt/data/.a', f'user.{n}', bytes(60_000)); n += 1\n"
        "except OSError as e: print('stopped')\nprint(n < 100_000)", "", 15),
    "descriptors in flight": (
        "import array, os, socket\nr, w = os.pipe()\nheld = []\ntry:\n    while True:\n        a, b = socket.socketpair(); held += [a, b]; a.setblocking(False)\n"
        "        try:\n            while True: a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [r] * 250))])\n"
        "        except BlockingIOError: pass\nexcept OSError as e: print('stopped')", "stopped", 15),
    "names that are no text": (
        "import os\nfor n in range(40): open(b'/mnt/data/\\xff\\xfe%d' % n, 'w').close()\nprint(len(os.listdir('/mnt/data')) >= 40)", "True", 15),
    "times beyond the calendar": (
        "import os\nopen('/mnt/data/old.txt', 'w').write('x')\nos.utime('/mnt/data/old.txt', ns=(-(1 << 62), 1 << 62))", "", 15),
    "a file that is now a link": (
        "import os, threading\nopen('/mnt/data/real', 'w').write('harmless')\nos.symlink('/proc/1/environ', '/mnt/data/link')\n"
        "def swap():\n    while True:\n        try: os.rename('/mnt/data/link', '/mnt/data/x.txt'); os.symlink('/proc/1/environ', '/mnt/data/link')\n        except OSError: pass\n"
        "        try: os.link('/mnt/data/real', '/mnt/data/y'); os.rename('/mnt/data/y', '/mnt/data/x.txt')\n        except OSError: pass\n"
        "threading.Thread(target=swap, daemon=True).start()", "", 15),
    "the print of the kernel replaced": (
        "import sys\nclass Out:\n    def write(self, t): raise MemoryError\n    def flush(self): raise SystemExit\nsys.stdout = sys.stderr = Out()\nprint('x')", "", 5),
    "a shell that stays": ("!(setsid sh -c 'trap \"\" TERM INT HUP; while :; do :; done' &) ; echo gone", "gone", 15),
}  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_a_hostile_cell_is_survived(tool: PythonTool, name: str) -> None:
    code, said, wall = CELLS[name]
    began = time.monotonic()
    answer = run(tool, code, wall)
    assert said in answer.text, answer.text
    assert len(answer.text) <= LIMITS.output_chars + 1000
    assert time.monotonic() - began < wall + 25
    assert all(b"PATH=" not in a.data for a in answer.artefacts)
    run(tool, "import os, shutil\nfor n in os.listdir(b'/mnt/data'):\n    os.unlink(b'/mnt/data/' + n)", 10)
    tool.close() if name == "a file that is now a link" else None
    works(tool)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86-64")
@pytest.mark.parametrize("code", ["b814000000cd80c3", "b827000040" + "0f05c3"], ids=["int 0x80", "x32"])
def test_other_ways_to_call_the_kernel_end_the_program(tool: PythonTool, code: str) -> None:
    """The numbers of 32-bit programs and of x32 mean other calls than those the filter knows."""
    cell = (
        "import ctypes, mmap\npage = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)\n"
        f"page.write(bytes.fromhex('{code}'))\n"
        "print('called', ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())"
    )
    answer = run(tool, cell)
    assert "called" not in answer.text and "The kernel died (SIGSYS)" in answer.text
    works(tool)


CALLS = {  # x86-64: calls with a long record of bugs, or that reach past the sandbox, beyond those tried elsewhere
    "modify_ldt": 154, "iopl": 172, "ioperm": 173, "kexec_load": 246, "mbind of others": 256, "migrate_pages": 256,
    "fanotify_init": 300, "open_by_handle_at": 304, "finit_module": 313, "userfaultfd": 323, "fsopen": 430, "pidfd_getfd": 438,
    "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447, "process_mrelease": 448, "listmount": 458, "open_tree_attr": 467,
}  # fmt: skip


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")
def test_more_calls_that_lead_nowhere(tool: PythonTool) -> None:
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"for name, n in {CALLS!r}.items():\n"
        "    ctypes.set_errno(0)\n    if libc.syscall(n, 1, 0, 0, 0, 0) >= 0: print('WAY OUT', name)\nprint('tried')"
    )
    assert run(tool, code).text == "tried"
    works(tool)


def test_no_signal_or_terminal_reaches_outside(tool: PythonTool) -> None:
    """Process 1 shrugs off what a cell sends it, by number and by descriptor; there is no terminal to type into."""
    code = """
import ctypes, fcntl, os, signal, termios
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.syscall(434, 1, 0)  # pidfd_open
for s in (9, 15, 19, 31):
    if fd >= 0: libc.syscall(424, fd, s, None, 0)
for path in ('/dev/tty', '/dev/console', '/dev/pts/0', '/dev/ptmx'):
    try:
        t = os.open(path, os.O_RDWR | os.O_NOCTTY)
        if path != '/dev/ptmx': fcntl.ioctl(t, termios.TIOCSTI, b'x'); print('WAY OUT', path)
    except OSError: pass
for pid in (0, -1):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try: os.kill(pid, signal.SIGTERM)
    except OSError: pass
print('tried', os.path.exists('/proc/1'))
"""
    assert run(tool, code).text == "tried True"
    works(tool)
