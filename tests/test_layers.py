"""Imports point down the list of docs/decisions.md only, lazy ones too; no cycles; names on one line are strangers.

Reads source text with `ast` and imports nothing, so it also sees imports inside functions and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "motet"

# Top to bottom. A module may import names on lines below its own, never one beside or above it.
LINES = [
    "cli",
    "evals",
    "study train",
    "server doctor",
    "bench monitor tasks",
    "turn",
    "tools",
    "harmony",
    "engine",
    "model reference",
    "kvcache",
    "kernels pack checkpoint synth",
    "mxfp4 config library tokenizer",
    "_native errors",
]
RANK = {name: i for i, line in enumerate(LINES) for name in line.split()}
# Where one name simply contains the next: (the container, what it holds).
CONTAINS = {("pack", "checkpoint"), ("synth", "checkpoint"), ("pack", "kernels")}
# The package's own face: lazy names only, importable by `__main__` and, for the version, by anyone.
FACE = {"__init__", "__main__"}


def unit(path: Path, root: Path) -> str:
    """The name on the list a file belongs to: its top folder, or its stem."""
    parts = path.relative_to(root).with_suffix("").parts
    return parts[0]


def imported_units(path: Path, root: Path) -> list[tuple[str, int]]:
    """(unit, line) of every import of motet in the file, wherever it stands."""
    package = ("motet", *path.relative_to(root).parent.parts)
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"motet.{a.name}" for a in node.names] if module == "motet" else [module]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [str(node.args[0].value)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "motet":
                found.append((parts[1] if len(parts) > 1 else "__init__", node.lineno))
    return found


def faults(root: Path) -> list[str]:
    """Every import that does not point down, as `file:line: reason`."""
    out: list[str] = []
    for path in sorted(root.rglob("*.py")):
        own = unit(path, root)
        if own in FACE:
            continue
        if own not in RANK:
            out.append(f"{path.relative_to(root)}: '{own}' has no line in LINES; give it one")
            continue
        for other, line in imported_units(path, root):
            where = f"{path.relative_to(root)}:{line}: {own} imports {other}"
            if other == own or other.startswith("__"):
                continue
            if other not in RANK:
                out.append(f"{where}, which has no line in LINES")
            elif RANK[other] < RANK[own]:
                out.append(f"{where}, which stands above it")
            elif RANK[other] == RANK[own] and (own, other) not in CONTAINS:
                out.append(f"{where}, a stranger on the same line")
    return out


def module_graph(root: Path) -> dict[str, set[str]]:
    """module -> modules it imports at the top level of the file (lazy imports cannot make an import cycle)."""
    modules = {
        ".".join(("motet", *p.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): p
        for p in root.rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        edges: set[str] = set()
        for node in _eager(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                edges |= {a.name for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
                module = ".".join(x for x in (base, node.module) if x)
                edges.add(module)
                edges |= {f"{module}.{a.name}" for a in node.names}
        # importing a.b.c from inside a.b is not an edge to the package a.b itself, which is already being loaded
        graph[name] = {e for e in edges if e in modules and e != name and not name.startswith(e + ".")}
    return graph


def _eager(tree: ast.AST) -> list[ast.stmt]:
    """Statements that run when the module is imported; not function bodies, not `if TYPE_CHECKING`."""
    out: list[ast.stmt] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            out += [s for child in node.orelse for s in [child, *_eager(child)]]
            continue
        if isinstance(node, ast.stmt):
            out.append(node)
        out += _eager(node)
    return out


def test_imports_point_down() -> None:
    assert not faults(PACKAGE), "\n" + "\n".join(faults(PACKAGE))


def test_no_import_cycles() -> None:
    try:
        TopologicalSorter(module_graph(PACKAGE)).prepare()
    except CycleError as e:
        pytest.fail("import cycle: " + " -> ".join(e.args[1]))


def test_the_graph_is_not_empty() -> None:
    """The two tests above mean nothing if the reader of imports reads none."""
    graph = module_graph(PACKAGE)
    assert len(graph) > 10
    assert sum(map(len, graph.values())) > 10
    units = {other for p in PACKAGE.rglob("*.py") for other, _ in imported_units(p, PACKAGE)}
    assert "errors" in units


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        (
            "config.py",
            "def f():\n    from motet.engine import Engine\n",
            "config imports engine, which stands above",
        ),
        ("config.py", "from motet import tokenizer\n", "config imports tokenizer, a stranger"),
        ("engine/engine.py", "from ..harmony import render\n", "engine imports harmony, which stands above"),
        ("errors.py", "import motet.config\n", "errors imports config, which stands above"),
        ("mxfp4.py", "import importlib\nimportlib.import_module('motet.model')\n", "mxfp4 imports model"),
        ("surprise.py", "x = 1\n", "has no line in LINES"),
        ("cli/app.py", "from motet.wishes import x\n", "wishes, which has no line"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, reason: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    found = faults(tmp_path)
    assert len(found) == 1 and reason in found[0], found


def test_legal_imports_are_not_reported(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "a.py").write_text(
        "from motet.engine.b import c\nfrom . import b\nimport motet.model\n"
    )
    (tmp_path / "engine" / "b.py").write_text("from motet.errors import UserError\nimport numpy\n")
    (tmp_path / "pack.py").write_text("from motet.checkpoint import open_checkpoint\n")
    assert faults(tmp_path) == []


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("")
    (tmp_path / "engine" / "a.py").write_text("from motet.engine.b import x\n")
    (tmp_path / "engine" / "b.py").write_text("from motet.engine import a\n")
    with pytest.raises(CycleError):
        TopologicalSorter(module_graph(tmp_path)).prepare()
    (tmp_path / "engine" / "b.py").write_text("def f():\n    from motet.engine import a\n")
    TopologicalSorter(module_graph(tmp_path)).prepare()
