"""Where models live: the embedded one, folders in the models directory, folders anywhere. Turns a name into a folder.

Knows names, paths and sizes; reads no tensors and no config. The models directory is MOTET_MODELS, or the user's data
folder (`motet models` prints it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from motet.errors import UserError

EMBEDDED = "mini"


class UnknownModel(UserError):
    """No folder stands behind this name."""


@dataclass(frozen=True)
class Entry:
    """One model on this machine: the name to pass to --model, and its folder."""

    name: str
    folder: Path


def embedded_folder() -> Path:
    """The folder of the model that ships in the package."""
    return Path(__file__).resolve().parent / "models" / EMBEDDED


def models_directory() -> Path:
    """Where `motet pull` puts models and where short names are looked up; it need not exist."""
    if os.environ.get("MOTET_MODELS"):
        return Path(os.environ["MOTET_MODELS"]).expanduser()
    from platformdirs import user_data_path

    return user_data_path("motet") / "models"


def _is_model(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except OSError:
        return False


def entries() -> Iterator[Entry]:
    """The embedded model, then every folder with a config.json in the models directory, one or two levels deep."""
    if _is_model(embedded_folder()):
        yield Entry(EMBEDDED, embedded_folder())
    root = models_directory()
    if not root.is_dir():
        return
    for first in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if _is_model(first):
            yield Entry(first.name, first)
            continue
        for second in sorted(p for p in first.iterdir() if p.is_dir() and not p.name.startswith(".")):
            if _is_model(second):
                yield Entry(f"{first.name}/{second.name}", second)


def find(name: str | os.PathLike[str]) -> Path:
    """The folder of a model: `mini`, a name `motet models` lists, or a path. UnknownModel names what exists."""
    text = os.fspath(name)
    if text == EMBEDDED:
        return embedded_folder()
    looks_like_path = text.startswith((".", "/", "~")) or os.path.exists(os.path.expanduser(text))
    if looks_like_path:
        folder = Path(text).expanduser()
        if not folder.exists():
            raise UnknownModel(f"The folder '{text}' does not exist; {_known()}.")
        if not folder.is_dir():
            raise UnknownModel(f"'{text}' is a file; give the folder that holds config.json and the tensors.")
        return folder
    for entry in entries():
        if text in (entry.name, entry.name.rpartition("/")[2]):
            return entry.folder
    fetch = f", or fetch it with 'motet pull {text}'" if text.count("/") == 1 else ""
    raise UnknownModel(f"There is no model or folder named '{text}'; {_known()}{fetch}.")


def _known() -> str:
    names = ", ".join(e.name for e in entries())
    return (
        f"here are: {names} (in {models_directory()}), or give a folder"
        if names
        else "give the folder of a checkpoint"
    )


def n_bytes(folder: Path) -> int:
    """Bytes of the files in a folder, one level of sub-folders included."""
    return sum(p.stat().st_size for pattern in ("*", "*/*") for p in folder.glob(pattern) if p.is_file())
