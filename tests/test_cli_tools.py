"""The commands about tools, in real processes: what they print, what they keep, how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def motet(*words: object, folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "MOTET_THREADS": "1", "MOTET_CACHE": str(folder / "cache")}
    ran = subprocess.run(
        [sys.executable, "-m", "motet", *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == code, f"exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran


def test_the_demo_computes_plots_and_cites(tmp_path: Path) -> None:
    ran = motet("demo-tools", "--save", "plots", folder=tmp_path)
    assert "The sum is 24133." in ran.stdout
    assert "17760 grams ([valley](local://valley/owls.md))" in ran.stdout
    assert (tmp_path / "plots" / "squares.png").read_bytes().startswith(b"\x89PNG")
    motet("demo-tools", "--save", "plots", folder=tmp_path)
    assert (tmp_path / "plots" / "squares-2.png").exists()  # nothing is written over


def test_the_embedded_model_with_tools_at_hand(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\nSomething.\n")
    words = ["run", "What is 12 + 30?", "--tool", "python", "--tool", f"browser:{tmp_path}", "--json"]
    report = json.loads(motet(*words, folder=tmp_path).stdout.splitlines()[-1])
    assert report["files"] == [] and report["citations"] == [] and report["finish"]


def test_an_index(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n")
    (tmp_path / "b.pdf").write_text("no")
    ran = motet("index", tmp_path, "--json", folder=tmp_path)
    assert json.loads(ran.stdout)["pages"] == 1
    assert "left out b.pdf" in ran.stderr


def test_a_planted_defect_fails_the_study(tmp_path: Path) -> None:
    assert json.loads(motet("study", "tools", "--only", "plain", "--json", folder=tmp_path).stdout)["passed"]
    ran = motet("study", "tools", "--defect", "no answer", "--json", folder=tmp_path, code=1)
    report = json.loads(ran.stdout)
    assert report["data"]["scenarios"]["plain"]["faults"] == {"no_final": 1}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "x", "--tool", "pythn"], 2, "There is no tool 'pythn'; use python"),
        (["run", "x", "--tool", "browser:/nowhere"], 1, "There is no folder '/nowhere'"),
        (["run", "x", "--tool", "python:/nowhere.csv"], 1, "There is no file '/nowhere.csv'"),
        (["run", "x", "--mcp", "no-such-server"], 1, "'no-such-server' of an MCP server is not there"),
        (["index", "/nowhere"], 1, "There is no folder '/nowhere' to index"),
        (["mcp", "--tool", "apply_patch:."], 2, "is not offered over MCP"),
        (["study", "tools", "--defect", "x"], 2, "There is no defect 'x'"),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    ran = motet(*words, folder=tmp_path, code=code)
    assert said in ran.stderr and ran.stdout == ""
    assert len(ran.stderr.strip().splitlines()) == 1


def test_without_bubblewrap_nothing_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "NO_COLOR": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "motet", "run", "x", "--tool", "python"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1 and "The python tool is refused" in ran.stderr and ran.stdout == ""


def test_a_client_of_mcp_that_goes_away_is_no_accident() -> None:
    """It closes its end of stdout, then asks once more: the command ends as by a broken pipe, without a word."""
    client = {"name": "brief", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    lines = ({"id": 1, "method": "initialize", "params": hello}, {"method": "notifications/initialized"}, {"id": 2, "method": "tools/list"})  # fmt: skip
    first, *more = (json.dumps({"jsonrpc": "2.0", **line}).encode() + b"\n" for line in lines)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "motet", "mcp"], stdin=pipe, stdout=pipe, stderr=pipe
    ) as ours:
        assert ours.stdin and ours.stdout and ours.stderr
        ours.stdin.write(first)
        ours.stdin.flush()
        assert b"protocolVersion" in ours.stdout.readline()
        ours.stdout.close()
        ours.stdin.write(b"".join(more))
        ours.stdin.close()
        assert ours.stderr.read() == b"" and ours.wait(120) == 141
