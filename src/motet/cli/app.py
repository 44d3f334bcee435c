"""The command `motet`: its options, its errors in one sentence, its exit codes (0 done, 1 failed, 2 bad usage, 130 stopped).

Knows how a command ends, not what it does. Everything heavier than typer is imported inside the commands, so that
`motet --help` answers in under 0.3 s.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from motet.cli import demo, measure, serve, study, talk, text, tools, train, weights
from motet.cli import eval as evaluation
from motet.errors import UsageError, UserError


class _Sections(TyperGroup):
    """`motet --help` with the commands grouped by kind of work, in plain text: rich's boxes would double its time."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            panel = str(getattr(command, "rich_help_panel", None) or "Commands")
            sections.setdefault(panel, []).append((name, (command.help or "").split(".")[0]))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_max=8)


app = typer.Typer(
    name="motet",
    cls=_Sections,
    rich_markup_mode=None,
    help="gpt-oss on this machine: run it, look inside it, measure it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _section in (talk, demo, serve, tools, weights, text, measure, study, evaluation, train):
    _section.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        from motet import __version__

        print(f"motet {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of one sentence.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and ends the process with its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in words or bool(os.environ.get("MOTET_DEBUG"))
    # --debug may stand anywhere: the one who adds it has just seen an error and types it at the end.
    arguments = [a for a in words if a != "--debug"] + arguments[len(words) :]
    try:
        code = run(arguments)
        sys.stdout.flush()
    except BaseException as error:
        if debug and not isinstance(error, typer.TyperException | typer.Exit | typer.Abort):
            raise
        error = _alone(error)
        code, sentence = explain(error)
        if sentence:
            print(f"motet: {sentence}", file=sys.stderr)
        if isinstance(error, BrokenPipeError):
            # Python would complain once more when it flushes stdout at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs one command in this process and returns its exit code; errors propagate."""
    result = typer.main.get_command(app).main(list(arguments), prog_name="motet", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _alone(error: BaseException) -> BaseException:
    """What a group of one error holds: task groups wrap whatever ends them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def explain(error: BaseException) -> tuple[int, str]:
    """(exit code, sentence) for whatever ended a command; an empty sentence is printed as nothing."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1, ""
    if isinstance(error, typer.Exit):
        return error.exit_code, ""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return 130, ""
    if isinstance(error, BrokenPipeError):
        return 141, ""
    if isinstance(error, typer.TyperException):
        where = getattr(getattr(error, "ctx", None), "command_path", "motet")
        return (
            error.exit_code,
            f"{_sentence(error.format_message().replace('Value error, ', ''))} Try '{where} --help'.",
        )
    if isinstance(error, UsageError):
        return 2, _sentence(str(error))
    if isinstance(error, UserError):
        return 1, _sentence(str(error))
    if isinstance(error, MemoryError):
        return 1, "There is not enough memory; close other programs, or choose a smaller model or batch."
    if isinstance(error, OSError) and error.errno is not None:
        return 1, _os_sentence(error)
    return (
        1,
        f"Something broke that should not ({type(error).__name__}: {error}); please report it with the output of --debug.",
    )


def _sentence(text: str) -> str:
    """On one line, with an end."""
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?")) else line + "."


def _os_sentence(error: OSError) -> str:
    where = f" '{error.filename}'" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full{' at' + where if where else ''}; free some space, or name a folder on another disk."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"There is no permission to use{where or ' a file'}; choose another folder or change its rights."
        )
    if error.errno == errno.ENOENT:
        return f"The file{where} does not exist; check the path."
    return f"The system refused{where}: {error.strerror}."
