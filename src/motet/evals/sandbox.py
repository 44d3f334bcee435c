"""Our python sandbox as a place where Inspect's tasks run commands (`sandbox="motet"`): no container, no network, nothing of the host.

A command is a cell that starts a process inside; files go in and out through cells too, a few megabytes at a time. One session a
sample, started with its first command. Knows the sandbox's cells; tools/sandbox.py confines them.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any, Literal, overload

from inspect_ai.util import ExecResult, SandboxEnvironment, sandboxenv

from motet.tools.sandbox import Execution, Limits, Sandbox

LIMITS = Limits(wall_s=180.0, output_chars=1 << 20)
CHUNK = 400_000  # bytes of a file a cell
_MARK = "motet:"  # before what a cell answers

_INSIDE = """
import base64 as _b, json as _j, os as _o, subprocess as _s
def _run(cmd, data, cwd, env, seconds):
    cwd = _o.path.join('/mnt/data', cwd or '')
    _o.makedirs(cwd, exist_ok=True)
    cut = lambda x: (x or b'')[-200_000:].decode('utf-8', 'replace')
    try:
        r = _s.run(cmd, input=_b.b64decode(data), cwd=cwd, env={**_o.environ, **env}, timeout=seconds, capture_output=True)
        return {'code': r.returncode, 'out': cut(r.stdout), 'err': cut(r.stderr)}
    except _s.TimeoutExpired:
        return {'timeout': True}
    except OSError as e:
        return {'code': 127 if isinstance(e, FileNotFoundError) else 126, 'out': '', 'err': str(e)}
def _write(path, data, first):
    path = _o.path.join('/mnt/data', path)
    try:
        _o.makedirs(_o.path.dirname(path), exist_ok=True)
        with open(path, 'wb' if first else 'ab') as f:
            f.write(_b.b64decode(data))
        return {}
    except OSError as e:
        return {'error': type(e).__name__}
def _read(path, at, n):
    path = _o.path.join('/mnt/data', path)
    if _o.path.isdir(path):
        return {'error': 'IsADirectoryError'}
    try:
        with open(path, 'rb') as f:
            f.seek(at)
            return {'data': _b.b64encode(f.read(n)).decode()}
    except OSError as e:
        return {'error': type(e).__name__}
def _said(x):
    print('motet:' + _j.dumps(x))
"""


@sandboxenv(name="motet")
class MotetSandbox(SandboxEnvironment):
    """See the module. Paths are relative to /mnt/data; there is one user."""

    def __init__(self) -> None:
        super().__init__()
        self._sandbox: Sandbox | None = None
        self._turn = asyncio.Lock()

    @classmethod
    async def sample_init(
        cls, task_name: str, config: Any, metadata: Mapping[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """A place of its own for each sample."""
        return {"default": cls()}

    @classmethod
    async def sample_cleanup(
        cls, task_name: str, config: Any, environments: Mapping[str, SandboxEnvironment], interrupted: bool
    ) -> None:
        """Ends the sessions."""
        for environment in environments.values():
            if isinstance(environment, cls) and environment._sandbox is not None:
                await asyncio.to_thread(environment._sandbox.close)

    async def _cell(self, call: str, seconds: float = 60.0) -> dict[str, Any]:
        """What a call of one of the functions above answers. TimeoutError, or RuntimeError when the session broke."""
        async with self._turn:
            ran = await asyncio.to_thread(self._execute, call, seconds)
        line = next((x for x in reversed(ran.text.splitlines()) if x.startswith(_MARK)), None)
        if ran.why == "timeout":
            raise TimeoutError(f"The command took more than {seconds:.0f} s.")
        if line is None:
            raise RuntimeError(f"The sandbox did not answer ({ran.why or ran.status}): {ran.text[-200:]}")
        answer: dict[str, Any] = json.loads(line.removeprefix(_MARK))
        return answer

    def _execute(self, call: str, seconds: float) -> Execution:
        if self._sandbox is None:
            self._sandbox = Sandbox(LIMITS)
        if not self._sandbox.running:
            self._sandbox.execute(_INSIDE)
        return self._sandbox.execute(f"_said({call})", seconds=seconds)

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Runs a program inside; of long output the end is kept. TimeoutError after `timeout` seconds, 120 without."""
        seconds = float(min(timeout or 120, LIMITS.wall_s - 20))
        data = base64.b64encode(input.encode() if isinstance(input, str) else input or b"").decode()
        ran = await self._cell(f"_run({cmd!r}, {data!r}, {cwd!r}, {env or {}!r}, {seconds})", seconds + 15)
        if "timeout" in ran:
            raise TimeoutError(f"The command took more than {seconds:.0f} s.")
        return ExecResult(ran["code"] == 0, ran["code"], ran["out"], ran["err"])

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """As in Inspect."""
        data = contents.encode() if isinstance(contents, str) else contents
        for at in range(0, max(1, len(data)), CHUNK):
            piece = base64.b64encode(data[at : at + CHUNK]).decode()
            _check(await self._cell(f"_write({file!r}, {piece!r}, {at == 0})"), file)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """As in Inspect."""
        found = b""
        while True:
            piece = base64.b64decode(
                _check(await self._cell(f"_read({file!r}, {len(found)}, {CHUNK})"), file)["data"]
            )
            found += piece
            if len(piece) < CHUNK:
                return found.decode() if text else found


_ERRORS = {e.__name__: e for e in (FileNotFoundError, IsADirectoryError, PermissionError)}


def _check(answer: dict[str, Any], file: str) -> dict[str, Any]:
    if "error" in answer:
        raise _ERRORS.get(answer["error"], OSError)(f"{file}: {answer['error']}")
    return answer
