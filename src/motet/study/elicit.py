"""How much can be got out of a model: by effort, by many tries and a verifier, by votes, by trying again once told, by a tool.

What the model card asks and cannot answer: is a score what the model can do, or what one way of asking it gave? Every figure
here is a lower bound. Knows questions, replies and ways to ask; the verifier is the grader of the task, which no user has.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from motet.errors import UsageError
from motet.harmony import Conversation
from motet.study import minisuite, plots
from motet.study.questions import chosen, held_out, taught
from motet.study.report import Check, Plot, Report, Table
from motet.study.stats import Interval, at_least_one, clustered_mean, grouped, permutation_test
from motet.study.subject import Ask, Native, Progress, Said, Subject, collect, identity_of
from motet.tasks import EFFORTS, TASKS, Effort, Example
from motet.tasks.snippets import CODED

SIGNIFICANT = 0.05
SATURATED = 0.032  # points that a doubling of thinking buys gpt-oss (card, figure 3): a doubling of tries that buys less is not worth it
ALIKE = 0.9  # questions whose tries are all the same text; more, and tries are no tries
STUBBORN = 0.95  # of answers given again, word for word, after the word that they are wrong
DRAWS = 64  # votes of k drawn from all replies
WRONG = "That is not right. Think again and answer anew."


@dataclass(frozen=True)
class Plan:
    """What to ask. `samples` at each effort, of which the best of `tries` are told (empty: of powers of two)."""

    tasks: tuple[str, ...] = ()
    efforts: tuple[Effort, ...] = EFFORTS
    questions: int = 20
    samples: int = 8
    tries: tuple[int, ...] = ()
    retries: int = 3
    budgets: tuple[int, ...] = ()
    seed: int = 0
    max_tokens: int = 2048
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """UsageError for more tries than there are samples: what was not drawn is not known."""
        beyond = [k for k in self.tries if not 1 <= k <= self.samples]
        if beyond:
            raise UsageError(
                f"The best of {beyond[0]} cannot be told from {self.samples} samples; take --samples {max(self.samples, *beyond)} "
                "or fewer tries."
            )  # fmt: skip

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of tries: as asked for, or powers of two up to the samples."""
        return self.tries or tuple(2**i for i in range(self.samples.bit_length()) if 2**i <= self.samples)


@dataclass(frozen=True)
class Result:
    """One question put one way: how far it was solved (0 to 1) and at how many tokens. `claimed` is what was handed in where one
    text was chosen, `said` what the model said, `told` what the way of asking told it beyond the question."""

    way: str
    tries: int
    example: Example
    solved: float
    tokens: float
    said: tuple[str, ...] = ()
    claimed: str | None = None
    told: tuple[str, ...] = ()


@dataclass
class Bench:
    """What a way of asking works with. `replies` are those of the samples, by (effort, question)."""

    subject: Subject
    plan: Plan
    progress: Progress
    stop: threading.Event
    asks: list[Ask] = field(default_factory=list)
    replies: dict[tuple[str, str], list[Said]] = field(default_factory=dict)

    def ask(self, asks: Sequence[Ask]) -> list[Said | None]:
        """Replies in order; None for what was not asked any more."""
        self.asks += asks
        return collect(self.subject, asks, self.progress, self.stop)

    def one(self, example: Example, seed: int, budget: int | None = None) -> Ask:
        """A question asked plainly at its effort."""
        return self.turns([{"role": "user", "content": example.prompt}], example, seed, budget)

    def turns(
        self, messages: list[dict[str, Any]], example: Example, seed: int, budget: int | None = None
    ) -> Ask:
        """A conversation at a question's effort."""
        said = Conversation.from_chat(messages, effort=example.effort)
        return Ask(said, self.plan.seed * 7919 + seed, self.plan.max_tokens, budget, self.plan.temperature)


Way = Callable[[Bench, Sequence[Example]], list[Result]]


def right(example: Example, said: Said) -> bool:
    """Whether a reply that ended by itself answers the question."""
    return said.finish == "stop" and TASKS[example.task].grade(example, said.final)


def cost(said: Said) -> int:
    """Tokens that were sampled for it."""
    return said.n_analysis + said.n_final


def _name(example: Example) -> str:
    return f"{example.task} {example.key}"


def samples(bench: Bench, examples: Sequence[Example]) -> list[Result]:
    """The best of k by the verifier (without bias), and the vote of k, from the same replies."""
    n = bench.plan.samples
    # Tries outermost: what is stopped early is still balanced.
    replies = bench.ask([bench.one(e, i) for i in range(n) for e in examples])
    for at, example in enumerate(examples):
        got = [s for i in range(n) if (s := replies[i * len(examples) + at]) is not None]
        if len(got) == n:
            bench.replies[example.effort, _name(example)] = got
    out = []
    for example in examples:
        got = bench.replies.get((example.effort, _name(example)), [])
        marks = [right(example, s) for s in got]
        each = sum(map(cost, got)) / max(1, len(got))
        for k in bench.plan.counts if got else ():
            best = at_least_one(n, sum(marks), k)
            out.append(Result(f"{example.effort}, best of", k, example, best, k * each))
            if k > 2:
                share = vote(got, marks, k, random.Random(f"{bench.plan.seed} {_name(example)} {k}"))
                out.append(Result(f"{example.effort}, vote of", k, example, share, k * each))
    return out


def vote(replies: Sequence[Said], marks: Sequence[bool], k: int, rng: random.Random) -> float:
    """How often the commonest of k answers is right; equally common ones are drawn from. Replies without an answer do not vote."""
    total = 0.0
    for _ in range(DRAWS):
        picked = [i for i in rng.sample(range(len(replies)), k) if replies[i].final.strip()]
        counts = Counter(_ballot(replies[i].final) for i in picked)
        if counts:
            top = max(counts.values())
            leaders = {text for text, n in counts.items() if n == top}
            marked = {_ballot(replies[i].final): marks[i] for i in picked}
            total += sum(marked[t] for t in leaders) / len(leaders)
    return total / DRAWS


def _ballot(final: str) -> str:
    return " ".join(final.split()).casefold().rstrip(".")


def retried(bench: Bench, examples: Sequence[Example]) -> list[Result]:
    """One conversation: asked, and told that it is wrong as long as it is. The verifier says no more than that."""
    talks = {_name(e): [{"role": "user", "content": e.prompt}] for e in examples}
    spent = dict.fromkeys(talks, 0)
    finals: dict[str, list[str]] = {name: [] for name in talks}
    solved: set[str] = set()
    out: list[Result] = []
    left = list(examples)
    for attempt in range(1 + bench.plan.retries):
        replies = bench.ask([bench.turns(talks[_name(e)], e, 1_000 + attempt) for e in left])
        for example, said in zip(left, replies, strict=True):
            if said is None:
                return out
            name = _name(example)
            spent[name] += cost(said)
            finals[name].append(said.final)
            if right(example, said):
                solved.add(name)
            talks[name] += [{"role": "assistant", "content": said.final or "?"}, {"role": "user", "content": WRONG}]  # fmt: skip
        out += [
            Result(f"{e.effort}, told when wrong", attempt + 1, e, float(_name(e) in solved), spent[_name(e)], tuple(finals[_name(e)]),
                   finals[_name(e)][-1], (WRONG,) * attempt)
            for e in examples
        ]  # fmt: skip
        left = [e for e in left if _name(e) not in solved]
        if not left:
            break
    return out


def budgeted(bench: Bench, examples: Sequence[Example]) -> list[Result]:
    """Thinking ended after so many tokens, and the answer asked for."""
    out = []
    for budget in bench.plan.budgets:
        replies = bench.ask([bench.one(e, 2_000, budget) for e in examples])
        out += [
            Result(f"{e.effort}, thinking at most", budget, e, float(right(e, s)), cost(s), (s.final,), s.final)
            for e, s in zip(examples, replies, strict=True) if s is not None
        ]  # fmt: skip
    return out


def tooled(bench: Bench, examples: Sequence[Example]) -> list[Result]:
    """With the python tool declared, of the families that code can work; only where the engine is at hand."""
    subject = bench.subject
    generate = getattr(getattr(subject, "engine", None), "generate", None)
    coded = [e for e in examples if e.task in CODED]
    if not isinstance(subject, Native) or generate is None or bench.stop.is_set():
        return []
    plan = minisuite.Plan(
        seed=bench.plan.seed, temperature=bench.plan.temperature, max_tokens=bench.plan.max_tokens
    )
    given = [minisuite.with_python(e) for e in coded]
    with ThreadPoolExecutor(subject.width) as pool:
        replies = minisuite.asked(subject.engine, subject.encoding, plan, pool, given)  # type: ignore[arg-type]
    return [
        Result(f"{e.effort}, python tool", 1, e, float(r.right), r.sampled)
        for e, r in zip(coded, replies, strict=True)
    ]


WAYS: tuple[Way, ...] = (samples, retried, budgeted, tooled)


def elicit(
    subject: Subject, plan: Plan, progress: Progress = lambda done, total: None, stop: threading.Event | None = None,
    ways: Sequence[Way] = WAYS,
) -> Report:  # fmt: skip
    """Asks in every way and judges. Stopped early, the report covers what was answered."""
    bench = Bench(subject, plan, progress, stop or threading.Event())
    results: list[Result] = []
    tasks = chosen(plan.tasks, taught(subject))
    for effort in plan.efforts:
        examples = [e for t in tasks for e in held_out(t, effort, plan.questions, plan.seed)]
        for way in ways:
            if not bench.stop.is_set():
                results += way(bench, examples)
    report = Report(
        "elicit", "How much can be got out of it? Every figure is a lower bound: another way of asking may find more.",
        identity_of(subject, bench.asks), vars(plan) | {"tasks": tasks}, complete=not bench.stop.is_set(),
    )  # fmt: skip
    if results:
        judge(results, bench, report)
    return report


def judge(results: Sequence[Result], bench: Bench, report: Report) -> None:
    """Fills the report."""
    rows = [row_of(group) for group in grouped(results, lambda r: (r.way, r.tries)).values()]
    edge = envelope(rows)
    report.tables += [
        Table("Ways of asking", rows, "Tokens: sampled for a question, all tries together. 'Best of' needs a verifier; a vote does not."),
        Table("The envelope", edge, "What the most is for the tokens; a lower bound. Per point: tokens for each further point of accuracy."),
        Table("Where more tries stop paying", saturation(rows), f"The last doubling of tries; saturated below {100 * SATURATED:.1f} points."),
    ]  # fmt: skip
    report.checks += [uncontaminated(results), differing(bench), *_helped(results), _listens(results)]
    curves = [
        plots.Series(way, [max(0.5, r["tokens"]) for r in mine], [r["solved"] for r in mine], [str(r["tries"]) for r in mine])
        for way, mine in grouped(rows, lambda r: str(r["way"])).items()
    ]  # fmt: skip
    report.plots.append(
        Plot("Solved against tokens", plots.curve(curves, "tokens sampled for a question", "share solved", log_x=True, unit=True),
             "Numbers at the points are tries (tokens of thinking, where that is what was limited).")
    )  # fmt: skip


def row_of(group: Sequence[Result]) -> dict[str, Any]:
    """The questions put one way with one number of tries."""
    first = group[0]
    solved = clustered_mean([r.solved for r in group], [_name(r.example) for r in group])
    tokens = sum(r.tokens for r in group) / len(group)
    return {
        "way": first.way, "tries": first.tries, "questions": len(group), "solved": solved, "tokens": tokens,
        "tokens per solved": tokens / solved.value if solved.value else float("inf"),
    }  # fmt: skip


def envelope(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that nothing cheaper beats, by tokens. Ways that were put to other questions (a tool's) stay out."""
    most = max(r["questions"] for r in rows)
    out: list[dict[str, Any]] = []
    for r in sorted(
        (r for r in rows if r["questions"] == most), key=lambda r: (r["tokens"], -r["solved"].value)
    ):
        if not out or r["solved"].value > out[-1]["solved"].value:
            before: dict[str, Any] = out[-1] if out else {"tokens": 0.0, "solved": Interval(0.0, 0.0, 0.0)}
            gained = 100 * (r["solved"].value - before["solved"].value)
            per = (r["tokens"] - before["tokens"]) / gained if gained else float("inf")
            out.append({k: r[k] for k in ("way", "tries", "tokens", "solved")} | {"per point": per})
    return out


def saturation(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each way with several numbers of tries: what the last step brought, a doubling."""
    out = []
    for way, mine in grouped([r for r in rows if r["way"].endswith(("best of", "vote of"))], lambda r: str(r["way"])).items():  # fmt: skip
        if len(mine) > 1 and mine[-1]["tries"] == 2 * mine[-2]["tries"]:
            gain = mine[-1]["solved"].value - mine[-2]["solved"].value
            out.append({"way": way, "from": mine[-2]["tries"], "to": mine[-1]["tries"], "gain": gain, "saturated": gain < SATURATED})  # fmt: skip
    return out


def uncontaminated(results: Sequence[Result]) -> Check:
    """Whether a way of asking brought the answer in: in what it told the model, or by handing in what no reply said."""
    told = [r for r in results if any(_holds(t, r.example) for t in r.told)]
    foreign = [r for r in results if r.claimed is not None and r.claimed not in r.said]
    ways = sorted({r.way for r in (*told, *foreign)})
    return Check(
        "no way of asking brings the answer", not ways, f"{len(told)} told, {len(foreign)} handed in unsaid", "none", ", ".join(ways)
    )  # fmt: skip


def _holds(text: str, example: Example) -> bool:
    """Whether a text holds an answer of the example as words of its own."""
    answers = {_words(example.answer), _words(example.final)}
    return any(wanted.strip() and wanted in _words(text) for wanted in answers)


def _words(text: str) -> str:
    return f" {' '.join(text.replace(',', ' ').replace('.', ' ').split())} "


def differing(bench: Bench) -> Check:
    """Whether tries differ at all: a server that ignores seeds or temperature gives one reply many times."""
    several = [r for r in bench.replies.values() if len(r) > 1]
    alike = sum(len({(s.analysis, s.final, s.n_analysis) for s in r}) == 1 for r in several)
    share = alike / len(several) if several else 0.0
    sampled = bench.plan.temperature > 0 and several
    return Check("tries differ", share < ALIKE if sampled else None, f"{share:.2f} of the questions got one reply only", f"below {ALIKE}",
                 "" if sampled else "one try each, or temperature 0")  # fmt: skip


def _helped(results: Sequence[Result]) -> list[Check]:
    """Whether the most tries solve more than one, by effort; a model that is always right or always wrong leaves it open."""
    out = []
    best = [r for r in results if r.way.endswith("best of")]
    for way, mine in grouped(best, lambda r: r.way).items():
        most = max(r.tries for r in mine)
        one, all_ = ({_name(r.example): r.solved for r in mine if r.tries == k} for k in (1, most))
        gains = [all_[k] - one[k] for k in one if k in all_]
        p = permutation_test(gains)
        passed = True if p < SIGNIFICANT else None
        mean = sum(gains) / max(1, len(gains))
        out.append(
            Check(f"more tries solve more, {way.partition(',')[0]}", passed, f"{100 * mean:.1f} points from 1 to {most}, p {p:.3g}",
                  f"p < {SIGNIFICANT}", "" if passed else "nothing left to gain, too few questions, or the same answer each time")
        )  # fmt: skip
    return out


def _listens(results: Sequence[Result]) -> Check:
    """Whether a model that is told it is wrong says something else."""
    second = [r for r in results if r.way.endswith("told when wrong") and r.tries == len(r.said) > 1]
    same = sum(_ballot(r.said[-1]) == _ballot(r.said[-2]) for r in second)
    share = same / len(second) if second else 0.0
    return Check(
        "told that it is wrong, it answers anew", share < STUBBORN if len(second) >= 10 else None,
        f"{share:.2f} of {len(second)} answers were the ones before", f"below {STUBBORN}", "" if len(second) >= 10 else "hardly ever wrong",
    )  # fmt: skip
