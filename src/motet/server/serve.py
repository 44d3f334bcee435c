"""A process that serves: sockets, TLS, the end by signal. Knows uvicorn; no routes."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable
from typing import Any

from motet.errors import UserError
from motet.server.host import Host, host_of
from motet.server.settings import Settings


def create(name: str = "mini", settings: Settings | None = None, *, precision: str = "int8", threads: int | None = None,
           **engine_options: Any) -> Any:  # fmt: skip
    """An ASGI application that answers from one model; for servers that bring their own loop."""
    from motet.server.app import create_app

    return create_app(host_of(name, precision, threads, settings or Settings(), engine_options))


def serve(host: Host, on_ready: Callable[[str], None] | None = None) -> None:
    """Answers until SIGTERM or Ctrl-C. Then: no new connections, running requests end, the engine stops.

    `on_ready(url)` is called when the socket listens.
    """
    import uvicorn

    try:
        sock = listen(host.settings.host, host.settings.port)
        if on_ready is not None:
            on_ready(url_of(host.settings, sock))
        server = uvicorn.Server(config_of(host))
        # uvicorn ends in good order and then raises the signal again, which would end the process as by an accident.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        server.run(sockets=[sock])
    finally:
        host.close()


def listen(address: str, port: int) -> socket.socket:
    """A listening socket. UserError when there can be none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.create_server((address, port), family=family, backlog=1024)
    except OSError as e:
        said = {errno.EADDRINUSE: "is in use", errno.EACCES: "may not be used"}.get(
            e.errno or 0, "cannot be used"
        )
        raise UserError(f"Port {port} of {address} {said}; choose another with --port.") from None
    sock.setblocking(False)
    return sock


def url_of(settings: Settings, sock: socket.socket) -> str:
    """Where a socket is reached."""
    address, port = sock.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    return f"{'https' if settings.tls_cert else 'http'}://{shown}:{port}"


def config_of(host: Host) -> Any:
    """uvicorn's settings for a host."""
    import uvicorn

    from motet.server.app import create_app

    s = host.settings
    return uvicorn.Config(
        create_app(host), host=s.host, port=s.port, log_level="warning", access_log=False, server_header=False,
        timeout_keep_alive=s.limits.keep_alive_s, timeout_graceful_shutdown=int(s.limits.drain_s) + 5,
        ssl_certfile=str(s.tls_cert) if s.tls_cert else None, ssl_keyfile=str(s.tls_key) if s.tls_key else None,
    )  # fmt: skip
