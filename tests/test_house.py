"""Manners that a machine can check: sizes of files and functions, first lines, the promised files, no machine paths."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src" / "motet").rglob("*.py"))
MAX_FILE, MAX_FUNCTION = 600, 60

# path -> why it may be longer. A reason is a sentence, not a shrug.
LONG_FILES: dict[str, str] = {}
# path::function -> why it may be longer.
LONG_FUNCTIONS: dict[str, str] = {}


def tracked() -> list[Path]:
    """Files git would put in a commit; in an unpacked archive without git, all that are not built."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode == 0 and listed.stdout:
        return [
            ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()
        ]
    skip = {".venv", "build", "__pycache__", ".git"}
    return [p for p in ROOT.rglob("*") if p.is_file() and not skip & set(p.relative_to(ROOT).parts)]


def functions(tree: ast.AST, prefix: str = "") -> list[tuple[str, int]]:
    """(qualified name, lines) of every function, nested ones too."""
    out: list[tuple[str, int]] = []
    for node in ast.iter_child_nodes(tree):
        name = prefix
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{prefix}{node.name}."
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            out.append((name[:-1], (node.end_lineno or node.lineno) - node.lineno + 1))
        out += functions(node, name)
    return out


def test_files_stay_short() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in SOURCES
        if (n := len(p.read_text("utf-8").splitlines())) > MAX_FILE
    }
    assert set(long) <= set(LONG_FILES), f"over {MAX_FILE} lines, with no reason given in LONG_FILES: {long}"


def test_functions_stay_short() -> None:
    long = {
        f"{p.relative_to(ROOT)}::{name}": n
        for p in SOURCES
        for name, n in functions(ast.parse(p.read_text("utf-8")))
        if n > MAX_FUNCTION
    }
    assert set(long) <= set(LONG_FUNCTIONS), f"over {MAX_FUNCTION} lines, no reason in LONG_FUNCTIONS: {long}"


@pytest.mark.parametrize("allowed", [LONG_FILES, LONG_FUNCTIONS])
def test_an_exception_gives_its_reason_and_still_exists(allowed: dict[str, str]) -> None:
    for key, reason in allowed.items():
        assert len(reason.split()) >= 5, f"{key}: say why"
        path, _, name = key.partition("::")
        assert (ROOT / path).exists(), f"{key}: gone, remove it"
        if name:
            assert name in dict(functions(ast.parse((ROOT / path).read_text("utf-8")))), (
                f"{key}: gone, remove it"
            )


def test_the_measure_of_functions_sees_nested_ones() -> None:
    body = "\n".join(f"        x{i} = {i}" for i in range(70))
    found = dict(functions(ast.parse(f"class A:\n    def f(self):\n{body}\n        def g(): pass\n")))
    assert found == {"A.f": 72, "A.f.g": 1}


def test_every_file_says_what_it_does() -> None:
    silent = [
        str(p.relative_to(ROOT))
        for p in SOURCES
        if p.read_text("utf-8").strip()
        and not (ast.get_docstring(ast.parse(p.read_text("utf-8"))) or "").strip()
    ]
    assert not silent, f"no docstring in the first lines: {silent}"


def test_no_machine_paths_or_registry_hosts() -> None:
    # Built from pieces, so that this file does not report itself.
    bad = re.compile(
        "|".join(
            [
                r"(?<![\w./-])/" + "work/", r"/ho" + r"me/[a-z]", r"/ro" + "ot/", r"/opt/(?:wheels|pypi)", r"\.\./" + "shared",
                "pypi" + r"\.org", "files.python" + "hosted", "registry.npm" + "js", "deb.debian" + r"\.org",
            ]
        )
    )  # fmt: skip
    found: list[str] = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data[:4096]:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            if bad.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_the_promised_files_are_there() -> None:
    for name in (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "Makefile",
        ".ci/run",
        "docs/decisions.md",
        "docs/log.md",
    ):
        assert (ROOT / name).is_file(), name
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_one_version() -> None:
    import motet

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == motet.__version__
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_make_target_has_a_description_and_a_recipe() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in ("run", "chat", "test", "lint", "fuzz", "bench", "oracle", "train-mini", "clean", "help"):
        assert re.search(rf"^{target}:.* ## .+\n\t", text, re.M), target


def test_public_names_are_the_contract() -> None:
    import motet

    assert set(motet.__all__) == {
        "load", "Engine", "SamplingParams", "Conversation", "Message", "reply", "harmony", "Model", "ModelConfig",
    }  # fmt: skip
    for name in motet.__all__:
        assert getattr(motet, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        motet.nonsense  # noqa: B018


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, broken
