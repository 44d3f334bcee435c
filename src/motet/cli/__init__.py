"""The command line. One file per kind of work: talk (run, chat, demo), weights, text, measure; app holds the errors."""

from __future__ import annotations

from motet.cli.app import main

__all__ = ["main"]
