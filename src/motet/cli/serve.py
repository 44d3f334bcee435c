"""`motet serve` and `motet key`: options to settings. Knows no HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from motet.cli import show
from motet.cli.options import JsonOption, ModelOption, PrecisionOption, ThreadsOption
from motet.errors import UsageError, UserError

Thinking = Literal["hide", "summary", "show"]


HostOption = Annotated[
    str, typer.Option("--host", metavar="ADDRESS", help="Any but this machine's own needs --keys.")
]
PortOption = Annotated[
    int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 is any that is free.")
]
KeysOption = Annotated[
    Path | None, typer.Option("--keys", metavar="FILE", help="Who may ask; see 'motet key'.")
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Where responses are kept: a database URL, a file, or none."),
]
RetentionOption = Annotated[
    float, typer.Option("--retention-days", metavar="D", min=0, help="0 keeps responses for ever.")
]
ServedToolOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tool", metavar="T", help="Callers may let the model use it: python, browser:DIR, browser:fetch."
    ),
]
ServedMcpOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mcp", metavar="S", help="And the tools of an MCP server: NAME= and a URL or a command line."
    ),
]
ThinkingOption = Annotated[Thinking, typer.Option("--thinking", help="What callers see of it.")]
NameOption = Annotated[
    list[str] | None, typer.Option("--name", metavar="NAME", help="Another name of the model.")
]
BatchOption = Annotated[int, typer.Option("--max-batch", metavar="N", min=1, help="Requests run together.")]
QueueOption = Annotated[int, typer.Option("--max-queue", metavar="N", min=1, help="Requests that may wait.")]
KvOption = Annotated[
    float | None,
    typer.Option(
        "--kv-memory", metavar="GIB", min=0.001, help="For keys and values; by default a quarter of all."
    ),
]
CorsOption = Annotated[
    list[str] | None, typer.Option("--cors", metavar="ORIGIN", help="A web page that may ask.")
]
WatchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--watch",
        metavar="KIND=ACTION",
        help="loop, repetition, intent, arithmetic, echo or markup; flag, close (thinking) or stop. Or off.",
    ),
]
CertOption = Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="With --tls-key: HTTPS.")]
TlsKeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's key.")
]


def serve(
    model: ModelOption = "mini",
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    keys: KeysOption = None,
    store: StoreOption = None,
    retention_days: RetentionOption = 30,
    thinking: ThinkingOption = "show",
    tool: ServedToolOption = None,
    mcp: ServedMcpOption = None,
    name: NameOption = None,
    max_batch: BatchOption = 8,
    max_queue: QueueOption = 256,
    kv_memory: KvOption = None,
    cors: CorsOption = None,
    watch: WatchOption = None,
    tls_cert: CertOption = None,
    tls_key: TlsKeyOption = None,
    precision: PrecisionOption = "int8",
    threads: ThreadsOption = None,
) -> None:
    """A page to chat on, Responses and Chat Completions over HTTP, until Ctrl-C."""
    from motet.server.host import host_of
    from motet.server.serve import serve as run
    from motet.server.settings import Settings

    settings = Settings(
        host=host, port=port, keys=keys, store=store, retention_days=retention_days or None, thinking=thinking,
        tools=tuple(tool or ()), mcp=tuple(mcp or ()), names=tuple(name or ()), cors=tuple(cors or ()), watch=tuple(watch or ()),
        tls_cert=tls_cert, tls_key=tls_key,
    )  # fmt: skip
    options = {"max_batch": max_batch, "max_queue": max_queue, "record_routes": "off" not in settings.watch}
    if kv_memory is not None:
        options["kv_memory"] = int(kv_memory * 2**30)
    ready = host_of(model, precision, threads, settings, options)
    run(
        ready,
        on_ready=lambda url: show.note(
            f"{ready.name} answers at {url}/v1, and on the page {url} (Ctrl-C ends it)", dim=False
        ),
    )


def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file of keys; made if it is not there.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    thinking: Annotated[
        Thinking | None, typer.Option("--thinking", help="What its caller sees of it.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", metavar="N", min=1, help="Requests at once.")
    ] = None,
    per_minute: Annotated[
        int | None, typer.Option("--per-minute", metavar="N", min=1, help="Requests a minute.")
    ] = None,
    per_day: Annotated[
        int | None, typer.Option("--tokens-per-day", metavar="N", min=1, help="Tokens a day.")
    ] = None,
) -> None:
    """Make a key for 'motet serve --keys FILE'; it is printed once, the file keeps its hash."""
    from motet.server.auth import add

    bounds = {"concurrency": concurrency, "requests_per_minute": per_minute, "tokens_per_day": per_day}
    print(add(file, name, thinking=thinking, **bounds))


def forget(
    store: StoreOption = None,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", min=0, help="Conversations nobody has gone on with."),
    ] = None,
    of_key: Annotated[
        str | None, typer.Option("--key", metavar="NAME", help="Of this key; '' is nobody's.")
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="This response; again for more.")
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All of it.")] = False,
    json: JsonOption = False,
) -> None:
    """Delete stored responses that fit everything given; without a condition, say what is stored. The server may run."""
    from motet.server.store import Store, url_of

    url = url_of(store)
    if url in (None, "sqlite://"):
        raise UsageError("There is nothing kept under this name; give --store a file or a URL.")
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise UserError("There is no store yet; 'motet serve' makes it, or give another with --store.")
    kept = Store(url, serving=False)
    try:
        done = None
        if everything or older_than is not None or of_key is not None or ids:
            age = None if older_than is None else older_than * 86_400
            done = kept.forget(older_than_s=age, owner=of_key, ids=ids or None)
        left = kept.totals()
    finally:
        kept.close()
    if json:
        show.emit({"forgotten": done, **left})
        return
    if done is not None:
        print(f"{done} response{'' if done == 1 else 's'} forgotten")
    print(f"{left['responses']} responses in {left['conversations']} conversations of {left['owners']} keys")


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    for command in (serve, key, forget):
        app.command(rich_help_panel="Serve")(command)
