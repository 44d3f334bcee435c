"""Weights on disk: synth, pack, models, pull. Knows what to print; the work is done by synth, pack, library and the hub."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from motet.cli import show
from motet.cli.options import JsonOption, PrecisionOption
from motet.errors import UsageError, UserError

if TYPE_CHECKING:
    from motet.checkpoint import Checkpoint

WEIGHTS_PATTERNS = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "*.jinja",
                    "generation_config.json", "special_tokens_map.json", "LICENSE*", "USAGE_POLICY*", "README.md"]  # fmt: skip


def synth(
    shape: Annotated[
        str, typer.Argument(metavar="SHAPE", help="20b, 120b, 120b-N-layers, 20b-N-layers or tiny.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    layout: Annotated[
        Literal["hf", "openai"], typer.Option("--layout", help="Which published layout.")
    ] = "hf",
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Same seed, same bytes.")] = 0,
    experts: Annotated[
        Literal["mxfp4", "bfloat16", "float32"], typer.Option("--experts", help="How the experts are stored.")
    ] = "mxfp4",
    json: JsonOption = False,
) -> None:
    """Write a checkpoint of published shapes with seeded random weights."""
    from motet.synth import synth as make

    began = time.perf_counter()
    with show.bar(f"synth {shape}") as progress:
        path = make(shape, folder, layout=layout, seed=seed, experts=experts, progress=progress)
    seconds = time.perf_counter() - began
    total = _bytes(path)
    show.note(f"{show.size(total)} in {seconds:.1f} s at {path}")
    if json:
        show.emit({"shape": shape, "folder": str(path), "layout": layout, "seed": seed, "experts": experts,
                   "bytes": total, "seconds": round(seconds, 3)})  # fmt: skip


def pack(
    model: Annotated[str, typer.Argument(metavar="M", help="A name from 'motet models', or a folder.")],
    precision: PrecisionOption = "int8",
    quantize: Annotated[
        bool,
        typer.Option(
            "--quantize", help="First write a copy whose plain experts are MXFP4: smaller, less exact."
        ),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir", metavar="DIR", help="Where --quantize puts the copy; the default is M-mxfp4 beside M."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make the kernel-ready weights now, instead of at the first run."""
    from motet.library import find
    from motet.pack import ensure_pack

    if folder and not quantize:
        raise UsageError("--dir names the folder of a quantised copy; add --quantize, or leave it out.")
    began = time.perf_counter()
    source = find(model)
    if quantize:
        source = _quantized(source, folder)
    with show.bar(f"packing for {precision}") as progress:
        path = ensure_pack(source, precision, progress)
    seconds = time.perf_counter() - began
    total = _bytes(path)
    show.note(f"{show.size(total)} in {seconds:.1f} s at {path}")
    if json:
        show.emit({"model": model, "folder": str(source), "precision": precision, "quantize": quantize,
                   "path": str(path), "bytes": total, "seconds": round(seconds, 3)})  # fmt: skip


def _quantized(source: Path, folder: Path | None) -> Path:
    """A copy of the checkpoint with MXFP4 experts; its folder."""
    from motet.pack import quantize_checkpoint

    target = folder or source.resolve().with_name(f"{source.resolve().name}-mxfp4")
    with show.bar("quantising experts") as progress:
        quantize_checkpoint(source, target, progress)
    show.note(f"quantised copy at {target}")
    return target


def models(json: JsonOption = False) -> None:
    """List the models on this machine, with sizes and what is packed."""
    from motet.library import entries, models_directory

    rows = [_describe(e.name, e.folder) for e in entries()]
    if json:
        show.emit({"directory": str(models_directory()), "models": rows})
        return
    head = ["name", "parameters", "active", "on disk", "layout", "experts", "packed", "folder"]
    cells = [
        [r["name"], _count(r.get("parameters")), _count(r.get("active")), show.size(r["bytes"]), r.get("layout") or "-",
         r.get("experts") or "-", ", ".join(r.get("packed", [])) or "no", r.get("error") or r["folder"]]
        for r in rows
    ]  # fmt: skip
    show.table(cells, head, right={1, 2, 3})
    show.note(f"models directory: {models_directory()}")


def _describe(name: str, folder: Path) -> dict[str, Any]:
    """One model as a row; what cannot be opened is listed with its error instead of ending the list."""
    from motet.checkpoint import open_checkpoint

    row: dict[str, Any] = {"name": name, "folder": str(folder), "bytes": _bytes(folder)}
    try:
        checkpoint: Checkpoint = open_checkpoint(folder)
    except (UserError, OSError) as e:
        return {**row, "error": str(e)}
    counts = checkpoint.config.counts()
    return {**row, "parameters": counts.total, "active": counts.active, "layout": checkpoint.layout,
            "experts": checkpoint.experts, "packed": _packs(folder)}  # fmt: skip


def _packs(folder: Path) -> list[str]:
    """The precisions already packed, whole and up to date."""
    from motet.pack import PRECISIONS, pack_path, read_header

    return [p for p in PRECISIONS if read_header(pack_path(folder, p)) is not None]


def _count(n: int | None) -> str:
    """Parameters for people: 4.9M, 20.9B."""
    if n is None:
        return "-"
    return f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.1f}M" if n >= 1e6 else f"{n / 1e3:.0f}k"


def _bytes(path: Path) -> int:
    from motet.library import n_bytes

    return n_bytes(path) if path.is_dir() else path.stat().st_size


def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="For instance openai/gpt-oss-20b.")],
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Where to put it; the default is the models directory."),
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="A branch, tag or commit.")] = None,
    original: Annotated[
        bool,
        typer.Option(
            "--original", help="The folder 'original/' (OpenAI layout) instead of the Hugging Face one."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Download a checkpoint from the Hugging Face hub; an interrupted download resumes."""
    from motet.library import models_directory

    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UsageError(f"'{repository}' is not OWNER/NAME; for instance: motet pull openai/gpt-oss-20b.")
    target = folder or models_directory() / repository
    began = time.perf_counter()
    with _hub_errors(repository, revision):
        _download(repository, target, revision, original)
    seconds = time.perf_counter() - began
    total = _bytes(target)
    name = str(target) if folder else repository
    if original:
        name = str(target / "original")
    show.note(f'{show.size(total)} in {seconds:.0f} s at {target}; try: motet run --model {name} "hello"')
    if json:
        show.emit(
            {"repository": repository, "folder": str(target), "bytes": total, "seconds": round(seconds, 3)}
        )


def _download(repository: str, target: Path, revision: str | None, original: bool) -> None:
    """Asks for the sizes first, so that a full disk is said before hours of download, then fetches the missing files."""
    from fnmatch import fnmatch

    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    patterns = ["original/*"] if original else WEIGHTS_PATTERNS
    wanted = [s for s in info.siblings or [] if any(fnmatch(s.rfilename, p) for p in patterns)]
    wanted = wanted if original else [s for s in wanted if "/" not in s.rfilename]
    if not any(s.rfilename.endswith("config.json") for s in wanted):
        raise UserError(
            f"'{repository}' holds no {'original/' if original else ''}config.json; check the name."
        )
    missing = [s for s in wanted if not _have(target / s.rfilename, s.size)]
    need = sum(s.size or 0 for s in missing)
    target.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target).free
    if need > free:
        raise UserError(f"{show.size(need)} are needed at {target} and {show.size(free)} are free; "
                        "free some space or choose another folder with --dir.")  # fmt: skip
    show.note(f"{repository}: {len(missing)} of {len(wanted)} files to fetch, {show.size(need)}", dim=False)
    for n, file in enumerate(missing, 1):
        show.note(f"[{n}/{len(missing)}] {file.rfilename} {show.size(file.size or 0)}", dim=False)
        # the commit, not the branch: files of one checkpoint must belong together
        hf_hub_download(repository, file.rfilename, revision=info.sha, local_dir=target)


def _have(path: Path, n_bytes: int | None) -> bool:
    return path.is_file() and n_bytes is not None and path.stat().st_size == n_bytes


@contextmanager
def _hub_errors(repository: str, revision: str | None) -> Iterator[None]:
    """What the hub's client raises, as one sentence that names the fix."""
    from huggingface_hub import errors as hub

    endpoint = os.environ.get("HF_ENDPOINT", "the Hugging Face hub")
    try:
        yield
    except hub.RevisionNotFoundError:
        raise UserError(
            f"'{repository}' has no revision '{revision}'; leave --revision out for the newest."
        ) from None
    except hub.GatedRepoError:
        raise UserError(
            f"'{repository}' asks for consent; accept its terms on its page, then set HF_TOKEN."
        ) from None
    except hub.RepositoryNotFoundError:
        raise UserError(
            f"{endpoint} has no model '{repository}'; check the name, or set HF_TOKEN if it is private."
        ) from None
    except hub.HFValidationError:
        raise UsageError(
            f"'{repository}' is not a name the hub can have; for instance: motet pull openai/gpt-oss-20b."
        ) from None
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError) as e:
        raise _unreachable(endpoint, e) from None
    except Exception as e:
        response = getattr(e, "response", None)
        if isinstance(e, hub.HfHubHTTPError) or (_of_http_client(e) and response is not None):
            code = response.status_code if response is not None else "an error"
            raise UserError(f"{endpoint} answered {code} for '{repository}'; try again later.") from None
        if _of_http_client(e):
            raise _unreachable(endpoint, e) from None
        raise


def _of_http_client(error: Exception) -> bool:
    """Whether the hub's HTTP client raised this. It is httpx or httpx2, by the version; neither is imported for it."""
    return type(error).__module__.partition(".")[0].startswith("httpx")


def _unreachable(endpoint: str, error: Exception) -> UserError:
    return UserError(
        f"{endpoint} cannot be reached ({type(error).__name__}); check the network, set HF_ENDPOINT to a "
        "mirror, or copy the files into a folder and pass that folder."
    )


def add_to(app: typer.Typer) -> None:
    """Registers this file's commands."""
    for command in (pull, models, pack, synth):
        app.command(rich_help_panel="Weights")(command)
