"""What an operator may set, with the defaults in one place. Knows values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from motet.errors import UsageError
from motet.monitor.watch import Watch

THINKING = ("hide", "summary", "show")


@dataclass(frozen=True)
class Limits:
    """Bounds on one request and on the whole server. Bytes are of JSON as it arrives, seconds of wall-clock time."""

    body_bytes: int = 8 << 20  # a full context of 131,072 tokens is about 0.6 MB of text
    messages: int = 4096
    tools: int = 128  # as the OpenAI API
    schema_bytes: int = 256 << 10  # one schema
    choices: int = 16
    made_bytes: int = (
        32 << 20
    )  # files that the code of one response hands over, or of a session that is not stored
    files_bytes: int = 1 << 30  # of one key in the store; its oldest go
    in_flight: int = 512  # requests under way or waiting, each with a thread
    read_s: float = 30.0  # for a whole request body to arrive
    send_s: float = 60.0  # for a client to take one piece of a stream
    keep_alive_s: int = 75  # an idle connection
    ping_s: int = 15  # a comment in a silent stream
    drain_s: float = 30.0  # for running requests, after SIGTERM


@dataclass(frozen=True)
class Settings:
    """One server. `thinking` is what callers without a rule of their own see of it: hide, summary or show."""

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Path | None = None
    store: str | None = None  # an SQLAlchemy URL, "none", or None for a file in the user's data folder
    retention_days: float | None = 30.0
    thinking: str = "show"
    tools: tuple[str, ...] = ()  # what callers may let the model use: python, browser:DIR
    mcp: tuple[str, ...] = ()  # and whose tools: MCP servers, NAME=URL or NAME=COMMAND
    names: tuple[str, ...] = ()  # more names the model answers to
    cors: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()  # "kind=action", or "off"; see monitor/watch.py
    tls_cert: Path | None = None
    tls_key: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.thinking not in THINKING:
            raise UsageError(f"thinking is {self.thinking!r}; use hide, summary or show.")
        Watch.of(self.watch)
        if not 0 <= self.port <= 65535:
            raise UsageError(f"The port is {self.port}; give 1 to 65535, or 0 for any that is free.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs two files; give --tls-cert and --tls-key.")
        if self.keys is None and not loopback(self.host):
            raise UsageError(
                f"Anyone who reaches {self.host} could use this server; give --keys FILE (make one with 'motet key'), "
                "or stay on 127.0.0.1."
            )


def loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
