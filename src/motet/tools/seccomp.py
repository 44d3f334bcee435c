"""The system calls that a sandbox refuses, as a BPF program for bubblewrap. Knows numbers; loads nothing itself.

A list of what is refused, not of what is allowed: programs in the sandbox are ordinary ones. Refused are calls that reach
past the sandbox's namespaces (vsock, key rings, tracing, new namespaces, mounts), that hold memory no limit counts
(memfd, System V, shared anonymous or huge pages, pages given to pipes, large socket buffers), that use up what the whole
machine shares (asynchronous I/O contexts), or that have a long record of kernel bugs and no use in a calculation (io_uring, bpf, userfaultfd).
Source of the numbers: the kernel's syscall tables (x86-64 and the generic one of aarch64).
"""

from __future__ import annotations

import errno
import platform
import struct

_X86, _ARM = 0xC000003E, 0xC00000B7  # AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0, _ARG1, _ARG2, _ARG3 = 0, 4, 16, 24, 32, 40
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET, TIME
_NETLINK = 16
_FAMILIES = (
    1,
    2,
    10,
)  # AF_UNIX, AF_INET, AF_INET6: the network is empty, but libraries want to make the sockets

# name: (x86-64, aarch64)
REFUSED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "io_setup": (206, 0), "vmsplice": (278, 75), "landlock_create_ruleset": (444, 444), "kexec_file_load": (320, 294),
    "personality": (135, 92), "lookup_dcookie": (212, 18), "fanotify_init": (300, 262), "vhangup": (153, 58),
}  # fmt: skip
_CLONE, _CLONE3, _SOCKET, _PAIR = (56, 220), (435, 435), (41, 198), (53, 199)
_MMAP, _PRLIMIT, _SETSOCKOPT = (9, 222), (302, 261), (54, 208)
_SHARED, _ANONYMOUS, _HUGE = 0x01, 0x20, 0x40000  # of mmap's flags; private pages have 0x02
_BUFFERS = (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF and the forms that pass the machine's limit


def program(machine: str | None = None) -> bytes:
    """The filter for this machine's instruction set; empty where the numbers are not known."""
    machine = machine or platform.machine()
    if machine not in ("x86_64", "aarch64"):
        return b""
    column = 0 if machine == "x86_64" else 1
    code = [
        _op(_LOAD, _ARCH),
        _op(_EQUAL, _X86 if column == 0 else _ARM, 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NR),
    ]
    if column == 0:  # the x32 numbers would be a second way to every call
        code += [_op(_AT_LEAST, 0x40000000, 0, 1), _op(_RETURN, _KILL)]
    for numbers in REFUSED.values():
        code += [_op(_EQUAL, numbers[column], 0, 1), _op(_RETURN, _ERRNO | errno.EPERM)]
    code += _by_arguments(column)
    return b"".join([*code, _op(_RETURN, _ALLOW)])


def _by_arguments(column: int) -> list[bytes]:
    """Calls of which only some uses are refused. The number of the call is loaded before and after each rule."""
    code: list[bytes] = []
    # clone3 hides its flags behind a pointer; libc falls back to clone when told that it does not exist.
    code += [_op(_EQUAL, _CLONE3[column], 0, 1), _op(_RETURN, _ERRNO | errno.ENOSYS)]
    code += [
        _op(_EQUAL, _CLONE[column], 0, 4),
        _op(_LOAD, _ARG0),
        _op(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        _op(_RETURN, _ERRNO | errno.EPERM),
        _op(_LOAD, _NR),
    ]
    # Interfaces are listed through netlink's routing family (0), which pyzmq does; the other families stay shut.
    code += [
        _op(_EQUAL, _SOCKET[column], 0, 6),
        _op(_LOAD, _ARG0),
        _op(_EQUAL, _NETLINK, 0, 3),
        _op(_LOAD, _ARG2),
        _op(_EQUAL, 0, 0, 1),
        _op(_RETURN, _ALLOW),
        _op(_LOAD, _NR),
    ]
    for numbers in (_SOCKET, _PAIR):
        n = len(_FAMILIES)
        code += [_op(_EQUAL, numbers[column], 0, n + 3), _op(_LOAD, _ARG0)]
        code += [_op(_EQUAL, family, n - i, 0) for i, family in enumerate(_FAMILIES)]
        code += [_op(_RETURN, _ERRNO | errno.EAFNOSUPPORT), _op(_LOAD, _NR)]
    refuse = _op(_RETURN, _ERRNO | errno.EPERM)
    code += [_op(_EQUAL, _MMAP[column], 0, 6), _op(_LOAD, _ARG3), _op(_ANY_BIT, _HUGE, 2, 0)]
    code += [_op(_ANY_BIT, _ANONYMOUS, 0, 2), _op(_ANY_BIT, _SHARED, 0, 1), refuse, _op(_LOAD, _NR)]
    # The limits of the first process are not for others to set.
    code += [
        _op(_EQUAL, _PRLIMIT[column], 0, 4),
        _op(_LOAD, _ARG0),
        _op(_EQUAL, 0, 1, 0),
        refuse,
        _op(_LOAD, _NR),
    ]
    # Sizes of socket buffers are accepted and not heard: libraries set them and do not need them.
    n = len(_BUFFERS)
    code += [
        _op(_EQUAL, _SETSOCKOPT[column], 0, n + 5),
        _op(_LOAD, _ARG1),
        _op(_EQUAL, 1, 0, n + 2),
        _op(_LOAD, _ARG2),
    ]
    code += [_op(_EQUAL, option, n - 1 - i, 1 if i == n - 1 else 0) for i, option in enumerate(_BUFFERS)]
    code += [_op(_RETURN, _ERRNO | 0), _op(_LOAD, _NR)]
    return code


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
