"""The real command in real processes: what each subcommand prints, and how each kind of bad input is answered.

Every process gets its own cache and models directory; the embedded model and a synthetic tiny one are packed once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

PYTHON = [sys.executable, "-m", "motet"]
QUESTION = "What is 12 + 30?"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def environment(home: Path) -> dict[str, str]:
    own = {"MOTET_CACHE": str(home / "cache"), "MOTET_MODELS": str(home / "models"), "MOTET_THREADS": "1",
           "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "100"}  # fmt: skip
    return {**os.environ, **own}


class Command:
    """`motet` with its own folders; called with arguments, gives the finished process."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(
        self, *arguments: object, stdin: str = "", program: str | None = None, code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """`program` is Python that runs first, in the same process. The exit code must be `code`, if that is given."""
        result = subprocess.run(
            command_line(*arguments, program=program), input=stdin, capture_output=True, text=True, timeout=120,
            env=environment(self.home), check=False,
        )  # fmt: skip
        assert code is None or result.returncode == code, (
            f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
        )
        return result

    def json(self, *arguments: object, stdin: str = "", code: int = 0) -> Any:
        """The JSON object, which must be the last line of stdout."""
        return json.loads(self(*arguments, "--json", stdin=stdin, code=code).stdout.splitlines()[-1])


def command_line(*arguments: object, program: str | None = None) -> list[str]:
    words = [str(a) for a in arguments]
    if program is None:
        return [*PYTHON, *words]
    return [sys.executable, "-c", f"{program}\nfrom motet.cli import main\nmain({words!r})"]


@pytest.fixture(scope="module")
def motet(home: Path) -> Command:
    return Command(home)


@pytest.fixture(scope="module")
def tiny(home: Path, motet: Command) -> Path:
    folder = home / "models" / "tiny"
    motet("synth", "tiny", folder)
    return folder


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def one_sentence(result: subprocess.CompletedProcess[str]) -> str:
    """What the command says went wrong: one line on stderr that begins with its name, and no traceback anywhere."""
    assert "Traceback" not in result.stderr + result.stdout, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("motet: ")]
    assert len(lines) == 1 and result.stderr.rstrip().endswith(lines[0]), result.stderr
    assert lines[0].endswith("."), lines[0]
    assert "should not" not in lines[0], lines[0]  # the answer to what nobody foresaw
    return lines[0]


# --- help and usage ----------------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_imports_nothing_heavy(motet: Command) -> None:
    program = (
        "import atexit, sys\n"
        "heavy = ('numpy', 'torch', 'rich', 'tokenizers', 'tiktoken', 'transformers', 'motet.model', 'motet.engine')\n"
        "atexit.register(lambda: print('LOADED', [m for m in heavy if m in sys.modules]))"
    )
    out = motet("--help", program=program).stdout
    for name in (
        "run",
        "chat",
        "demo",
        "synth",
        "pack",
        "models",
        "pull",
        "tokens",
        "render",
        "parse",
        "bench",
        "doctor",
    ):
        assert re.search(rf"^  {name} ", out, re.M), name
    assert out.rstrip().endswith("LOADED []")
    # The watch itself works: a command that needs numpy is seen to load it.
    assert "LOADED ['numpy'" in motet("models", program=program).stdout


def test_no_command_prints_help_and_version_prints_the_version(motet: Command) -> None:
    from motet import __version__

    assert motet().stdout == motet("--help").stdout
    assert motet("--version").stdout == f"motet {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "hi", "--effort", "extreme"], "low|'low'"),
        (["run", "hi", "--temperature", "-1"], "temperature"),
        (["run", "hi", "--temperature", "nan"], "temperature"),
        (["run", "hi", "--top-p", "1.5"], "top_p|top-p"),
        (["run", "hi", "--top-k", "-3"], "top_k|top-k"),
        (["run", "hi", "--max-tokens", "-1"], "max_tokens|max-tokens"),
        (["run", "hi", "--precision", "fp4"], "int8"),
        (["run", "hi", "--threads", "0"], "threads"),
        (["run", "hi", "--kv-memory", "much"], "512M"),
        (["run", "hi", "--kv-memory", "1K"], "give at least"),
        (["run", "-"], "empty"),
        (["sing"], "sing"),
        (["run", "hi", "--sing"], "--sing"),
        (["bench", "mini", "--depth", "0,many"], "depth"),
        (["bench", "mini", "--batch", "0"], "batch"),
        (["pull", "gpt-oss-20b"], "OWNER/NAME"),
        (["pack", "mini", "--dir", "there"], "--quantize"),
        (["synth", "21b", "there"], "20b"),
        (["synth", "tiny", "there", "--layout", "gguf"], "openai"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_usage_is_one_sentence_and_exit_2(
    motet: Command, tmp_path: Path, arguments: list[str], says: str
) -> None:
    arguments = [str(tmp_path / a) if a == "there" else a for a in arguments]
    assert re.search(says, one_sentence(motet(*arguments, code=2)))
    assert not list(tmp_path.iterdir())


# --- talking -----------------------------------------------------------------------------------------------------------


def test_run_prints_the_answer_alone_on_stdout(motet: Command) -> None:
    result = motet("run", QUESTION, "--temperature", 0, "--analysis")
    report = motet.json("run", QUESTION, "--temperature", 0)
    assert report["final"] and result.stdout.rstrip("\n") == report["final"]
    assert "analysis:" in result.stderr and "tokens" in result.stderr
    assert "analysis:" not in motet("run", QUESTION, "--temperature", 0).stderr
    assert "\x1b" not in result.stdout + result.stderr


def test_run_json_is_the_fold_with_counts_and_speeds(motet: Command) -> None:
    report = motet.json("run", QUESTION, "--effort", "high", "--temperature", 0, "--analysis")
    assert (
        report["effort"] == "high" and report["analysis"] and report["final"] and report["finish"] == "stop"
    )
    tokens, speeds = report["tokens"], report["tokens_per_second"]
    assert tokens["sampled"] > tokens["analysis"] + tokens["final"] > 0 < tokens["prompt"]
    assert speeds["prefill"] > 0 and speeds["decode"] > 0 and report["threads"] == 1


def test_the_answer_depends_on_the_question(motet: Command) -> None:
    answers = {motet.json("run", f"What is {n} + 30?", "--temperature", 0)["final"] for n in (11, 24, 57)}
    assert len(answers) == 3


def test_effort_reaches_the_model(motet: Command) -> None:
    thoughts = {
        e: motet.json("run", QUESTION, "-e", e, "--temperature", 0, "--analysis")["analysis"]
        for e in ("low", "high")
    }
    assert len(thoughts["low"]) < len(thoughts["high"])


def test_same_seed_same_words(motet: Command, tiny: Path) -> None:
    more = ("--max-tokens", 24, "--analysis")
    ask = lambda seed: motet.json("run", "hello", "-m", tiny, "--seed", seed, *more)  # noqa: E731
    keep = lambda r: (r["analysis"], r["final"], r["quarantined"], r["tokens"])  # noqa: E731
    first = keep(ask(5))
    assert keep(ask(5)) == first != keep(ask(6))


def test_a_random_model_is_survived(motet: Command, tiny: Path) -> None:
    """Random weights say nothing well-formed; every sampled token is accounted for, and the command ends well."""
    report = motet.json("run", "hello", "--model", tiny, "--max-tokens", 16, "--seed", 1)
    assert report["finish"] in ("length", "stop") and 1 <= report["tokens"]["sampled"] <= 16
    assert motet("run", "hello", "--model", "tiny", "--max-tokens", 4, "--seed", 1).stderr


def test_run_reads_the_prompt_from_a_pipe(motet: Command) -> None:
    piped = motet("run", "-", "--temperature", 0, stdin=QUESTION + "\n").stdout
    assert piped == motet("run", QUESTION, "--temperature", 0).stdout


def test_chat_by_pipe_remembers_until_new(motet: Command) -> None:
    lines = [QUESTION, "/effort low", QUESTION, "/new", QUESTION, "/dance", "/quit", "never asked"]
    result = motet("chat", "--temperature", 0, stdin="\n".join(lines) + "\n")
    computed = [int(n) for n in re.findall(r"(\d+) prompt tokens", result.stderr)]
    cached = [(int(n), int(of)) for n, of in re.findall(r"cached (\d+) of (\d+) tokens", result.stderr)]
    assert len(computed) == 3 and len(cached) == 2  # the first turn finds nothing
    (held, second), (again, third) = cached
    assert computed[0] < second and third < second
    assert held + computed[1] == second and again + computed[2] == third
    assert held > 0
    assert "(effort low)" in result.stderr and result.stderr.count("/quit") >= 1
    assert len(result.stdout.splitlines()) >= 3


def test_demo_shows_three_efforts_a_tool_and_a_rule(motet: Command) -> None:
    report = motet.json("demo")
    assert [r["effort"] for r in report["replies"]] == ["low", "medium", "high"]
    assert all(r["final"] and r["finish"] == "stop" for r in report["replies"])
    assert report["answer"] in report["replies"][-1]["final"]
    assert "unavailable" in report["tool"] or report["answer"] in report["tool"]["final"]
    assert report["rule"]["kept"] and report["rule"]["final"]
    assert motet.json("demo", "--seed", 1)["prompt"] != report["prompt"]
    own = motet.json("demo", "What is 2 + 2?")
    assert own["answer"] is None and len(own["replies"]) == 3 and "tool" not in own


# --- weights -----------------------------------------------------------------------------------------------------------


def test_synth_is_the_same_bytes_for_the_same_seed(motet: Command, tmp_path: Path) -> None:
    def tensors(name: str, *options: object) -> bytes:
        folder = Path(motet.json("synth", "tiny", tmp_path / name, *options)["folder"])
        return b"".join(p.read_bytes() for p in sorted(folder.glob("*.safetensors")))

    first = tensors("a", "--seed", 3)
    assert tensors("b", "--seed", 3) == first != tensors("c", "--seed", 4)
    assert tensors("d", "--seed", 3, "--layout", "openai") != first


def test_layouts_give_the_same_words(motet: Command, tmp_path: Path) -> None:
    replies = []
    for layout in ("hf", "openai"):
        motet("synth", "tiny", tmp_path / layout, "--layout", layout, "--seed", 9)
        report = motet.json(
            "run", "hi", "-m", tmp_path / layout, "--max-tokens", 12, "--seed", 2, "--analysis"
        )
        replies.append((report["analysis"], report["final"], report["quarantined"], report["tokens"]))
    assert replies[0] == replies[1]


@pytest.mark.usefixtures("no_packs")
def test_pack_is_made_once(motet: Command, copy: Path) -> None:
    first = motet.json("pack", copy, "--precision", "bf16")
    path = Path(first["path"])
    made = path.stat().st_mtime_ns
    assert path.stat().st_size == first["bytes"]
    assert (
        motet.json("pack", copy, "--precision", "bf16")["path"] == str(path)
        and path.stat().st_mtime_ns == made
    )


def test_pack_quantize_writes_a_copy_with_mxfp4_experts(motet: Command, tmp_path: Path) -> None:
    motet("synth", "tiny", tmp_path / "plain", "--experts", "bfloat16")
    report = motet.json("pack", tmp_path / "plain", "--quantize", "--dir", tmp_path / "small")
    assert report["folder"] == str(tmp_path / "small")
    size = lambda name: sum(p.stat().st_size for p in (tmp_path / name).glob("*.safetensors"))  # noqa: E731
    assert size("small") < size("plain")
    one_sentence(motet("pack", tmp_path / "small", "--quantize", "--dir", tmp_path / "again", code=1))


def test_models_lists_what_can_be_named(motet: Command, tiny: Path) -> None:
    motet("pack", "tiny")
    rows = {row["name"]: row for row in motet.json("models")["models"]}
    assert set(rows) >= {"mini", "tiny"} and "int8" in rows["tiny"]["packed"]
    assert rows["mini"]["parameters"] > rows["mini"]["active"] > 0
    broken = motet.home / "models" / "broken"
    broken.mkdir()
    try:
        (broken / "config.json").write_text("{}")
        rows = {row["name"]: row for row in motet.json("models")["models"]}
        assert rows["broken"]["error"] and "tiny" in rows
        assert "broken" in motet("models").stdout
    finally:
        shutil.rmtree(broken)


@pytest.mark.parametrize("status", [None, 404, 500, 401])
def test_pull_from_a_hub_that_does_not_answer_well(
    motet: Command, tmp_path: Path, status: int | None
) -> None:
    """A port where nobody listens (None), or a server that answers everything with one status."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status or 0)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        if status is None:
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        program = f"import os; os.environ['HF_ENDPOINT'] = {address!r}"
        said = one_sentence(motet("pull", "some/model", "--dir", tmp_path / "new", program=program, code=1))
        if status is not None:
            server.shutdown()
    assert address in said and {None: "cannot be reached", 500: "500"}.get(status, "some/model") in said
    assert not (tmp_path / "new").exists()


# --- text and tokens ---------------------------------------------------------------------------------------------------


def test_tokens_there_and_back(motet: Command) -> None:
    text = "Größe 東京 🙂 <|start|>"
    there = motet.json("tokens", text)
    assert there["n"] == len(there["ids"]) == len(there["pieces"]) and there["text"] == text
    assert max(there["ids"]) < 199_998  # no control token comes from text
    assert motet("tokens", "--decode", json.dumps(there["ids"])).stdout == text + "\n"
    assert 200_006 in motet.json("tokens", "--special", text)["ids"]
    assert "Größe"[:2] in motet("tokens", text).stdout
    assert motet.json("tokens", "7 + 8", "--model", "mini")["ids"] != motet.json("tokens", "7 + 8")["ids"]


def test_render_then_parse(motet: Command, tmp_path: Path) -> None:
    file = tmp_path / "conv.json"
    file.write_text(json.dumps([{"role": "user", "content": "2 + 2"}]))
    rendered = motet.json("render", file, "--effort", "low")
    assert "Reasoning: low" in rendered["text"] and rendered["text"].endswith("<|start|>assistant")
    assert motet("render", file, "--effort", "low", "--text").stdout == rendered["text"] + "\n"
    assert (
        motet("render", "-", "--effort", "low", "--text", stdin=file.read_text()).stdout
        == rendered["text"] + "\n"
    )

    sampled = "<|channel|>analysis<|message|>two and two<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"
    ids = motet.json("tokens", "--special", sampled)["ids"]
    parsed = motet.json("parse", "-", stdin=json.dumps(ids))
    assert (parsed["analysis"], parsed["final"]) == ("two and two", "4")
    kinds = [e["event"] for e in parsed["events"]]
    assert kinds.count("MessageStart") == kinds.count("MessageEnd") == 2 and "Delta" in kinds
    shown = motet("parse", "-", stdin=json.dumps(ids)).stdout
    assert "--- assistant, channel analysis\n" in shown and re.search(
        r"^\* 200008 +<\|message\|>$", shown, re.M
    )


WEATHER = {
    "name": "f",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "minLength": 1}}},
}
CHAT = {
    "messages": [
        {"role": "user", "content": "<|start|> é"},
        {"role": "assistant", "reasoning": "hm", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
    ],
    "tools": [{"type": "function", "function": WEATHER}],
}  # fmt: skip
ITEMS = {
    "input": [
        {"role": "user", "content": "<|start|> é"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
    ],
    "tools": [{"type": "function", **WEATHER}],
}  # fmt: skip


def test_render_reads_three_formats_and_a_pipe_leads_back(motet: Command) -> None:
    chat, items = (motet.json("render", "-", stdin=json.dumps(v)) for v in (CHAT, ITEMS))
    assert chat == items and chat["lost"] == ["f: minLength"]
    assert motet.json("render", "-", stdin=json.dumps(ITEMS["input"][:1]))["n"] < chat["n"]
    parsed = motet.json("parse", "-", stdin=json.dumps(chat))
    assert motet.json("render", "-", stdin=json.dumps(parsed))["ids"] == chat["ids"]
    assert motet.json("render", "-", stdin=json.dumps(parsed["conversation"]))["ids"] == chat["ids"]
    rows = motet("render", "-", stdin=json.dumps(CHAT)).stdout.splitlines()
    assert motet("parse", "-", stdin=json.dumps(chat)).stdout.splitlines() == rows
    titles = [r for r in rows if r.startswith("---")]
    assert titles[2:] == ["--- user", "--- assistant, channel analysis", "--- assistant, channel commentary, to functions.f, json",
                          "--- tool functions.f, channel commentary, to assistant", "--- the model goes on here"]  # fmt: skip
    # every id is there, in order; what the user spelled is ordinary ids in an unmarked row
    ids = [int(i) for r in rows if not r.startswith("---") for i in r[2:48].split() if i.isdecimal()]
    assert ids == chat["ids"]
    assert any(r.startswith("  ") and "<|start|> é" in r for r in rows)


@pytest.mark.parametrize(
    ("command", "stdin", "says"),
    [
        ("render", "{", "JSON"),
        ("render", "[]{}", "JSON"),
        ("render", '{"messages": 3}', "messages"),
        ("render", '[{"role": "wizard", "content": "x"}]', "wizard"),
        ("render", '["hello"]', "role"),
        ("parse", "[1, -5]", "-5"),
        ("parse", "[1, 99999999]", "99999999"),
        ("parse", '["a"]', "whole number"),
        ("parse", "{}", "ids"),
        ("parse", "[[", "JSON"),
    ],
)
def test_bad_json_is_one_sentence(motet: Command, command: str, stdin: str, says: str) -> None:
    result = motet(command, "-", stdin=stdin, code=None)
    assert says in one_sentence(result)
    assert result.returncode == (2 if says in ("wizard", "role") else 1)


def test_a_file_that_is_not_there(motet: Command, tmp_path: Path) -> None:
    assert "absent.json" in one_sentence(motet("render", tmp_path / "absent.json", code=1))
    assert "folder" in one_sentence(motet("render", tmp_path, code=1))


# --- measuring and checking --------------------------------------------------------------------------------------------


def test_bench_names_ceilings_and_shares(motet: Command, tiny: Path) -> None:
    options = ["--prompt", "40,17", "--gen", 4, "--depth", "0,20", "--batch", "1,3", "--repeats", 2]
    result = motet("bench", tiny, *options, "--json")
    assert re.match(r".+\nceilings: ", result.stderr), "ceilings come before any figure"
    assert len([line for line in result.stderr.splitlines() if not line.startswith("packing")]) == 10
    report = json.loads(result.stdout)
    assert [row["prompt"] for row in report["prefill"]] == [40, 17]
    assert [(r["depth"], r["batch"]) for r in report["decode"]] == [(0, 1), (0, 3), (20, 1), (20, 3)]
    for row in [*report["prefill"], *report["decode"]]:
        assert row["passes"] == 2 and row["best"] >= row["tokens_per_s"] >= row["worst"] > 0
        assert row["share"] == pytest.approx(row["tokens_per_s"] / row["ceiling"], rel=1e-2, abs=1e-3)
    assert all(
        report["ceilings"][name] > 1e8 for name in ("read_bytes_per_s", "int8_ops_per_s", "bf16_ops_per_s")
    )


def test_bench_counts_the_bytes_of_a_step() -> None:
    """20b by hand: int8 dense matrices are read whole, 4 of 32 experts, 128 or all held positions."""
    from motet.bench import Work

    cost = Work(
        dense_bytes=1000, expert_bytes=10.0, layer_weights=1, experts=32, chosen=4, kv_row=2, windows=(128, 0)
    )
    assert cost.step_bytes(0, 1) == 1000 + 4 * 10
    assert cost.step_bytes(500, 1) == 1000 + 40 + 2 * (128 + 500)
    two = 32 * (1 - (28 / 32) ** 2)
    assert cost.step_bytes(100, 2) == pytest.approx(1000 + two * 10 + 2 * 2 * 200)


def test_bench_beyond_the_context(motet: Command, tiny: Path) -> None:
    assert "context" in one_sentence(motet("bench", tiny, "--prompt", 10**7, code=2))
    assert "context" in one_sentence(motet("bench", tiny, "--depth", 10**7, code=2))


def test_doctor_finds_nothing_wrong(motet: Command) -> None:
    report = motet.json("doctor")
    states = {c["name"]: c["state"] for c in report["checks"]}
    assert report["ok"] and "FAIL" not in states.values()
    for name in (
        "instruction set",
        "vocabulary",
        "ops and their twins",
        "model",
        "reference logits",
        "packages",
    ):
        assert states[name] == "ok", report
    assert "KL" in next(c["detail"] for c in report["checks"] if c["name"] == "reference logits")


@pytest.mark.parametrize(
    ("check", "program"),
    [
        ("vocabulary", "import motet.tokenizer as t; t.O200K_SHA256 = 'not this'"),
        ("packages", "from importlib import metadata as m; m.version = lambda name: '0.0.1'"),
        (
            "reference logits",
            "import motet.model as m; f = m.Model.logits; m.Model.logits = lambda s, ids: f(s, ids) * 1.001",
        ),
    ],
)
def test_doctor_finds_what_is_wrong(motet: Command, check: str, program: str) -> None:
    result = motet("doctor", "--json", program=program, code=1)
    report = json.loads(result.stdout.splitlines()[-1])
    failed = [c["name"] for c in report["checks"] if c["state"] == "FAIL"]
    assert check in failed and not report["ok"]


def test_doctor_with_a_missing_model_ends_with_its_name(motet: Command, tmp_path: Path) -> None:
    result = motet("doctor", "--model", tmp_path / "none", code=1)
    assert "Traceback" not in result.stderr and "none" in result.stdout and "FAIL" in result.stdout


# --- bad checkpoints ---------------------------------------------------------------------------------------------------


def test_a_missing_folder(motet: Command, tmp_path: Path) -> None:
    for command in (["run", "hi", "--model"], ["pack"], ["bench"], ["tokens", "hi", "--model"]):
        assert "absent" in one_sentence(motet(*command, tmp_path / "absent", code=1))
    said = one_sentence(motet("run", "hi", "--model", "openai/gpt-oss-20b", code=1))
    assert "motet pull openai/gpt-oss-20b" in said
    assert "mini" in one_sentence(motet("run", "hi", "--model", "no-such-model", code=1))


def test_an_empty_folder_and_a_file(motet: Command, tmp_path: Path) -> None:
    assert "config.json" in one_sentence(motet("run", "hi", "--model", tmp_path, code=1))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert "file" in one_sentence(motet("run", "hi", "--model", file, code=1))


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.9999])
def test_a_half_written_shard(motet: Command, copy: Path, share: float) -> None:
    shard = next(copy.glob("*.safetensors"))
    os.truncate(shard, int(shard.stat().st_size * share))
    for command in (["run", "hi", "--model"], ["pack"]):
        assert shard.name in one_sentence(motet(*command, copy, code=1))


def test_a_config_of_another_architecture(motet: Command, copy: Path) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
              "vocab_size": 320, "num_attention_heads": 8, "intermediate_size": 96}  # fmt: skip
    (copy / "config.json").write_text(json.dumps(config))
    assert "llama" in one_sentence(motet("run", "hi", "--model", copy, code=1)).lower()
    (copy / "config.json").write_text('{"model_type": ')
    assert "config.json" in one_sentence(motet("run", "hi", "--model", copy, code=1))


def test_a_prompt_longer_than_the_context(motet: Command, tiny: Path) -> None:
    context = json.loads((tiny / "config.json").read_text())["max_position_embeddings"]
    said = one_sentence(motet("run", "-", "--model", tiny, stdin="7 " * 2 * context, code=1))
    assert "context" in said and str(context) in said


# --- packing that fails ------------------------------------------------------------------------------------------------


def packs(motet: Command) -> list[Path]:
    """Everything in the cache that belongs to a folder named 'copy'."""
    return sorted((motet.home / "cache").rglob("copy-*"))


@pytest.fixture
def no_packs(motet: Command) -> Iterator[None]:
    yield
    for path in packs(motet):
        path.unlink()


@pytest.mark.usefixtures("no_packs")
def test_no_disk_space_for_the_pack(motet: Command, copy: Path) -> None:
    full = "import shutil; f = shutil.disk_usage; shutil.disk_usage = lambda p: f(p)._replace(free=1000)"
    for command in (["pack", copy], ["run", "hi", "--model", copy]):
        said = one_sentence(motet(*command, program=full, code=1))
        assert "free" in said and "MOTET_CACHE" in said
        assert packs(motet) == []
    assert "free" in one_sentence(motet("synth", "tiny", copy.parent / "more", program=full, code=1))
    assert not list(copy.parent.glob("more/*.safetensors"))


@pytest.mark.usefixtures("no_packs")
def test_a_disk_that_fills_up_while_packing(motet: Command, copy: Path) -> None:
    """The kernel refuses the write in the middle, as a full disk does: here by a limit on the size of a file."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))"
    one_sentence(motet("pack", copy, program=limit, code=1))
    assert packs(motet) == []
    motet("pack", copy)


@pytest.mark.usefixtures("no_packs")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_while_packing(motet: Command, copy: Path, how: signal.Signals) -> None:
    """Stopped before the last step, the pack leaves nothing that a later start would trust."""
    # Packing the tiny model takes milliseconds; syncing to disk is made slow, so that the signal arrives within it.
    slow = "import os, time; os.fsync = lambda fd: time.sleep(60)"
    process = subprocess.Popen(
        command_line("pack", copy, program=slow), env=environment(motet.home), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not packs(motet) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert packs(motet), "it never began to write"
    time.sleep(0.2)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    if how == signal.SIGINT:
        assert process.returncode == 130 and packs(motet) == []
    done = Path(motet.json("pack", copy)["path"])
    assert packs(motet) == [done], "what the killed process left is gone"
    motet("run", "hi", "--model", copy, "--max-tokens", 2)


@pytest.mark.usefixtures("no_packs")
def test_a_damaged_pack_is_made_again(motet: Command, copy: Path) -> None:
    path = Path(motet.json("pack", copy)["path"])
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"x" * len(whole)):
        path.write_bytes(damage)
        motet("run", "hi", "--model", copy, "--max-tokens", 1)
        assert path.read_bytes() == whole


# --- debug -------------------------------------------------------------------------------------------------------------


def test_debug_shows_the_traceback(motet: Command, tmp_path: Path) -> None:
    for arguments in (["--debug", "pack", tmp_path / "absent"], ["pack", tmp_path / "absent", "--debug"]):
        result = motet(*arguments, code=1)
        assert "Traceback" in result.stderr and "UnknownModel" in result.stderr


def test_an_answer_is_held_to_the_schema_in_a_file(motet: Command, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"enum": ["yes", "no"]}')
    (tmp_path / "bad.json").write_text('{"properties": {"a": {"not": {}}}}')
    (tmp_path / "broken.json").write_text("{")
    held = motet.json(
        "run", "q", "-m", tiny, "--seed", 1, "--max-tokens", 200, "--json-schema", tmp_path / "s.json"
    )
    assert held["final"] in ('"yes"', '"no"')
    for file, words in (
        ("bad.json", "'not' at #/properties/a"),
        ("broken.json", "is not JSON"),
        ("none.json", "cannot be read"),
    ):
        failed = motet("run", "q", "-m", tiny, "--json-schema", tmp_path / file, code=2)
        assert words in failed.stderr and len(failed.stderr.splitlines()) == 1
    for options, words in (
        (["--tool-choice", "required"], "no tool is declared"),
        (["--tool-choice", "f"], "'f', which is not declared"),
        (["--grammar", "off", "--max-reasoning-tokens", "3"], "turn the grammar on"),
    ):
        failed = motet("run", "q", "-m", tiny, *options, code=2)
        assert words in failed.stderr and len(failed.stderr.splitlines()) == 1
    thought = motet.json("run", QUESTION, "--effort", "high", "--max-reasoning-tokens", 3, "--temperature", 0)
    assert thought["tokens"]["analysis"] == 3 and thought["final"]
