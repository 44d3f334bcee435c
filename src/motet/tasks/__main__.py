"""`python -m motet.tasks`: prints lessons, so that a person can read what is taught. `>` marks what the assistant learns to say."""

from __future__ import annotations

import argparse
import sys

from motet.errors import UsageError
from motet.tasks import EFFORTS, TASKS
from motet.tasks.show import TEXT, sample


def main(arguments: list[str] | None = None) -> int:
    """The command; 2 for an unknown task."""
    parser = argparse.ArgumentParser(
        prog="python -m motet.tasks", description="Prints lessons as they are taught."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"tasks, or {TEXT!r} for what pretraining reads (default: all)",
    )
    parser.add_argument("--effort", choices=EFFORTS, help="one effort alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="of the split that is never trained")
    given = parser.parse_args(arguments)
    efforts = (given.effort,) if given.effort else EFFORTS
    try:
        for text in sample(
            given.names or (TEXT, *TASKS), efforts, given.seed, "test" if given.test else "train"
        ):
            print(text)
    except UsageError as e:
        print(e, file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
