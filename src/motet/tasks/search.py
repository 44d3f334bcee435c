"""Search: reach a target number, fill a small sudoku, find a shortest path, give change in few coins.

Low guesses, medium notes values and states only, high writes out how each comes about.
"""

from __future__ import annotations

import ast
import itertools
import operator
import random

from motet.tasks.answers import integers
from motet.tasks.base import Effort, Example
from motet.tasks.family import Family, Work

Goal = tuple[tuple[int, int, int], int]


class Target(Family[Goal]):
    """Reach a number from three others with + - *, each used once. Beyond: numbers from 16 to 25.

    The last operand is chosen first: what the other two can make is compared with what is needed. Medium compares
    their values alone, high writes out how each comes about.
    """

    name = "target"
    levels, beyond = (1, 2, 3), 4
    asks = ("Use {n} to make {t}.", "Make {t} from {n}.", "Countdown: numbers {n}, target {t}.", "Reach {t} with {n}.",
            "Using {n}, each exactly once, with + - *, reach {t}.", "Combine {n} to get {t}.", "How can you get {t} from {n}?",
        "Find {t} from {n}.", "{n}: make {t}.", "The target is {t}. The numbers are {n}.", "Can you get {t} out of {n}?", "With {n} I want {t}. How?", "Build {t} from {n}, each number once.")  # fmt: skip
    unseen = (
        "I have the numbers {n} and need {t}. Which calculation gives it?",
        "Write {t} as an expression of {n}.",
    )

    def draw(self, rng: random.Random, level: int) -> Goal:
        """Three different numbers up to 10, 12, 15, and a target from 10 to 99 (beyond: to 199) that can be reached."""
        low, top, high = ((1, 10, 99), (1, 12, 99), (1, 15, 99), (16, 25, 199))[level - 1]
        while True:
            a, b, c = rng.sample(range(low, top + 1), 3)
            values = {v for n in (a, b, c) for v, _ in _last((a, b, c), n)}
            goals = sorted(v for v in values if 10 <= v <= high and v not in (a, b, c))
            if goals:
                return (a, b, c), rng.choice(goals)

    def key(self, x: Goal) -> str:
        """The numbers by size, and the target."""
        return f"{' '.join(map(str, sorted(x[0])))} {x[1]}"

    def fields(self, rng: random.Random, x: Goal) -> dict[str, object]:
        """Numbers with commas, now and then an `and`."""
        a, b, c = x[0]
        return {"n": f"{a}, {b} and {c}" if rng.random() < 0.7 else f"{a}, {b}, {c}", "t": x[1]}

    def work(self, rng: random.Random, x: Goal, effort: Effort) -> Work:
        """Nothing; last operands until one fits, by values; the same written out, and the check."""
        numbers, target = x
        answers = {n: next((e for v, e in _last(numbers, n) if v == target), None) for n in numbers}
        expression = next(e for e in answers.values() if e)
        answer = f"{' '.join(map(str, sorted(numbers)))} {target}"
        final = f"{expression} = {target}"
        if effort == "low":
            return Work(f"Guess {expression}.", final, answer)
        tried = numbers[: next(i for i, n in enumerate(numbers) if answers[n]) + 1]
        if effort == "medium":
            looks = (f"{_tried(numbers, n, target)} {'yes' if answers[n] else 'no'}" for n in tried)
            return Work(f"{'; '.join(looks)}: {expression}.", final, answer)
        looks = (_written(numbers, n, target) for n in tried)
        return Work(f"{'; '.join(looks)}: {expression}. Check {_checked(expression)}.", final, answer)

    def grade(self, example: Example, final: str) -> bool:
        """An expression over exactly the given numbers that equals the target. Exact, no eval."""
        *numbers, target = map(int, example.answer.split())
        text, _, claim = final.replace("×", "*").replace("\u2212", "-").strip().rstrip(".").partition("=")
        if claim and integers(claim) != [target]:
            return False
        try:
            value, used = evaluate(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return value == target and sorted(used) == numbers


def _others(numbers: tuple[int, int, int], n: int) -> tuple[int, int]:
    """The other two, the larger first."""
    a, b = (m for m in numbers if m != n)
    return max(a, b), min(a, b)


def _last(numbers: tuple[int, int, int], n: int) -> list[tuple[int, str]]:
    """(value, expression) of everything of the form (two others) op n, and n - (two others)."""
    a, b = _others(numbers, n)
    out = []
    for op, m in (("+", a + b), ("-", a - b), ("*", a * b)):
        inner = f"{a} {op} {b}" if op == "*" else f"({a} {op} {b})"
        out += [(m + n, f"{inner} + {n}"), (m - n, f"{inner} - {n}"), (n - m, f"{n} - {inner}"), (m * n, f"{inner} * {n}")]  # fmt: skip
    return out


def _tried(numbers: tuple[int, int, int], n: int, target: int) -> str:
    """What the others make, and what is needed with `n` as the last operand."""
    a, b = _others(numbers, n)
    need = [str(target - n), str(target + n)] if target > n else [str(target + n), str(n - target)]
    if target % n == 0 and n > 1:
        need.append(str(target // n))
    return f"last {n}: {a},{b} make {a + b} {a - b} {a * b}, need {' '.join(need)}"


def _written(numbers: tuple[int, int, int], n: int, target: int) -> str:
    """What is needed, written out, then what the others make, each judged beside it, up to the first that fits."""
    a, b = _others(numbers, n)
    need = {f"{target}+{n}": target + n, f"{max(target, n)}-{min(target, n)}": abs(target - n)}
    if target % n == 0:
        need[f"{target}/{n}"] = target // n
    tried = []
    for op, m in (("+", a + b), ("-", a - b), ("*", a * b)):
        fits = m in need.values()
        tried.append(f"{a}{op}{b}={m} {'yes' if fits else 'no'}")
        if fits:
            break
    return f"last {n}: need {' '.join(f'{how}={value}' for how, value in need.items())}; {', '.join(tried)}"


def _checked(expression: str) -> str:
    """The two operations of an expression with their values."""
    text = expression.replace(" ", "")
    if "(" in text:
        inner = text[text.index("(") + 1 : text.index(")")]
        whole = f"({inner})"
    else:
        inner = whole = next(p for p in text.replace("-", "+").split("+") if "*" in p)
    m, _ = evaluate(ast.parse(inner, mode="eval").body)
    outer = text.replace(whole, str(m), 1)
    v, _ = evaluate(ast.parse(outer, mode="eval").body)
    return f"{inner}={m}, {outer}={v}"


def evaluate(node: ast.expr) -> tuple[int, list[int]]:
    """Value and numbers used. Raises ValueError on anything but integers, + - * and parentheses."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value, [node.value]
    if isinstance(node, ast.BinOp):
        left, used_left = evaluate(node.left)
        right, used_right = evaluate(node.right)
        for kind, apply in ((ast.Add, operator.add), (ast.Sub, operator.sub), (ast.Mult, operator.mul)):
            if isinstance(node.op, kind):
                return apply(left, right), used_left + used_right
    raise ValueError("not a sum, difference or product of integers")


Grid = tuple[tuple[int, ...], ...]
Puzzle = tuple[Grid, Grid]  # with blanks (0), and complete


class Sudoku(Family[Puzzle]):
    """A 4 x 4 sudoku whose blanks follow one by one from row, column and box. Levels are blanks; beyond: eight."""

    name = "sudoku"
    levels, beyond = (3, 4, 5, 6), 8
    asks = ("Fill this 4x4 sudoku:\n{g}", "Complete the sudoku, digits 1 to 4:\n{g}", "Solve this small sudoku.\n{g}",
            "{g}\nFill the blanks so that rows, columns and 2x2 boxes hold 1 to 4.", "Sudoku:\n{g}", "Which digits are missing?\n{g}",
        "Please fill in:\n{g}", "Here is a sudoku with digits 1 to 4:\n{g}\nSolve it.", "{g}\nSolve this sudoku.", "{g}\nFill in what is missing.", "Can you solve this one?\n{g}")  # fmt: skip
    unseen = ("Each row, column and box of four needs the digits 1 to 4. Which grid is it?\n{g}",
              "Replace every _ in this square by the right digit from 1 to 4.\n{g}")  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> Puzzle:
        """A complete grid and one with `level` blanks that naked singles solve."""
        while True:
            full = _shuffled(rng)
            holes = set(rng.sample(range(16), level))
            grid = tuple(tuple(0 if 4 * r + c in holes else full[r][c] for c in range(4)) for r in range(4))
            if _solve(grid) is not None:
                return grid, full

    def key(self, x: Puzzle) -> str:
        """The grid with blanks."""
        return "".join(str(d) for row in x[0] for d in row)

    def fields(self, rng: random.Random, x: Puzzle) -> dict[str, object]:
        """Rows as lines, blanks as _."""
        return {"g": "\n".join(" ".join(str(d) if d else "_" for d in row) for row in x[0])}

    def work(self, rng: random.Random, x: Puzzle, effort: Effort) -> Work:
        """Nothing; the blanks of the first half in the order they follow; every blank with what row, column and box hold."""
        grid, full = x
        steps = _solve(grid)
        assert steps is not None
        final = "\n".join(" ".join(map(str, row)) for row in full)
        if effort == "low":
            return Work(f"{len(steps)} blanks.", final)
        if effort == "medium":
            return Work(", ".join(f"r{r + 1}c{c + 1}={full[r][c]}" for r, c, _, _, _ in steps) + ".", final)
        lines = [
            f"r{r + 1}c{c + 1} row {row or '-'} column {col or '-'} box {box or '-'}: {full[r][c]}"
            for r, c, row, col, box in steps
        ]
        return Work("; ".join(lines) + ".", final)

    def grade(self, example: Example, final: str) -> bool:
        """The last sixteen digits are the grid."""
        found = [c for c in final if c.isdecimal()]
        return "".join(found[-16:]) == example.answer.replace(" ", "").replace("\n", "")


def _shuffled(rng: random.Random) -> Grid:
    """A random complete grid: one pattern, with rows and columns of a band swapped, bands swapped, digits renamed."""
    base = ((1, 2, 3, 4), (3, 4, 1, 2), (2, 1, 4, 3), (4, 3, 2, 1)) if rng.random() < 0.5 else ((1, 2, 3, 4), (3, 4, 1, 2), (2, 3, 4, 1), (4, 1, 2, 3))  # fmt: skip

    def order() -> list[int]:
        bands = [[0, 1], [2, 3]]
        rng.shuffle(bands)
        return [i for band in bands for i in rng.sample(band, 2)]

    rows, columns, digits = order(), order(), rng.sample((1, 2, 3, 4), 4)
    grid = tuple(tuple(digits[base[r][c] - 1] for c in columns) for r in rows)
    return grid if rng.random() < 0.5 else tuple(zip(*grid, strict=True))


def _solve(grid: Grid) -> list[tuple[int, int, str, str, str]] | None:
    """Blanks in an order in which each is forced, with what its row, column and box hold; None if that is not enough."""
    cells = [list(row) for row in grid]
    steps: list[tuple[int, int, str, str, str]] = []
    blanks = [(r, c) for r in range(4) for c in range(4) if not grid[r][c]]
    while blanks:
        for r, c in blanks:
            row = {d for d in cells[r] if d}
            col = {cells[i][c] for i in range(4)} - {0}
            box = {cells[i][j] for i in range(r // 2 * 2, r // 2 * 2 + 2) for j in range(c // 2 * 2, c // 2 * 2 + 2)} - {0}  # fmt: skip
            if len(row | col | box) == 3:
                steps.append((r, c, *("".join(map(str, sorted(s))) for s in (row, col, box))))  # type: ignore[arg-type]
                cells[r][c] = (10 - sum(row | col | box)) or 0
                blanks.remove((r, c))
                break
        else:
            return None
    return steps


Edges = tuple[tuple[str, str], ...]  # in the order and direction they are told
Graph = tuple[tuple[str, ...], Edges, str, str]


class Paths(Family[Graph]):
    """A shortest path between two nodes of a small graph. Levels are nodes; beyond: ten."""

    name = "paths"
    levels, beyond = (5, 6, 7, 8), 10
    asks = ("Roads: {e}. What is the shortest way from {a} to {b}?", "Edges: {e}. Give a shortest path from {a} to {b}.",
            "These places are connected: {e}. How do I get from {a} to {b} with the fewest steps?", "Graph {e}. Shortest path {a} to {b}?",
            "Find a shortest path from {a} to {b}: {e}.", "Between places run these roads: {e}. Shortest way from {a} to {b}?",
        "I am at {a} and go to {b}. Roads: {e}. Which way is shortest?", "{e}. From {a} to {b}, what is the shortest path?", "From {a} to {b} by the fewest edges: {e}.", "The edges are {e}. Go from {a} to {b}.", "Which path from {a} to {b} is shortest in {e}?")  # fmt: skip
    unseen = ("I stand at {a} and want to reach {b} quickly. Bridges: {e}. Which places do I pass?",
              "Name the stops of a quickest ride from {a} to {b} when the lines are {e}.")  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> Graph:
        """A connected graph with one or two edges more than a tree, and two nodes at least two steps apart."""
        while True:
            nodes = rng.sample("ABCDEFGHJKLMNPQRSTUVWXYZ", level)
            edges = {_edge(nodes[i], nodes[rng.randrange(max(0, i - 3), i)]) for i in range(1, level)}
            while len(edges) < level + rng.choice((0, 1)):
                edges.add(_edge(*rng.sample(nodes, 2)))
            told = tuple(rng.choice((e, e[::-1])) for e in rng.sample(sorted(edges), len(edges)))
            a, b = rng.sample(nodes, 2)
            if len(_way(told, a, b)[0]) >= (3 if level < 7 else 4):
                return tuple(sorted(nodes)), told, a, b

    def key(self, x: Graph) -> str:
        """The edges and the two ends."""
        return f"{_sorted(x[1])} {x[2]} {x[3]}"

    def fields(self, rng: random.Random, x: Graph) -> dict[str, object]:
        """The edges and the two ends."""
        return {"e": ", ".join("-".join(e) for e in x[1]), "a": x[2], "b": x[3]}

    def work(self, rng: random.Random, x: Graph, effort: Effort) -> Work:
        """Nothing; what each node on the way leads to; for each of them every edge, and the way back."""
        _, edges, a, b = x
        path, short, long = _way(edges, a, b)
        back = f"Back {' '.join(reversed(path))}"
        trace = {
            "low": f"{len(path) - 1} steps.",
            "medium": f"{'; '.join(short)}. {back}.",
            "high": f"{'; '.join(long)}. {back}.",
        }
        answer = f"{_sorted(edges)} {a} {b} {len(path)}"
        return Work(trace[effort], " ".join(path), answer)

    def grade(self, example: Example, final: str) -> bool:
        """Any path along the edges between the two ends that is as short as can be."""
        *edges, a, b, count = example.answer.split()
        found = [
            w.strip(".,;:>-<*") for w in final.replace("-", " ").replace("→", " ").replace(",", " ").split()
        ]
        path = [w for w in found if len(w) == 1 and w.isupper()]
        ends = bool(path) and path[0] == a and path[-1] == b and len(path) == int(count)
        return ends and all("".join(_edge(*pair)) in edges for pair in itertools.pairwise(path))


def _way(edges: Edges, a: str, b: str) -> tuple[list[str], list[str], list[str]]:
    """A shortest path, and the search until `b` is reached: what each node leads to, and the same with every edge looked at."""
    parents, short, long = {a: ""}, list[str](), list[str]()
    queue = [a]
    while b not in parents:
        node = queue.pop(0)
        new, looked = list[str](), list[str]()
        for edge in edges:
            other = edge[edge[0] == node] if node in edge else node
            reached = other not in parents
            looked.append("-".join(edge) + (f" {other}" if reached else ""))
            if reached:
                parents[other] = node
                new.append(other)
            if other == b:
                break
        short.append(f"{node}: {' '.join(new) or 'none'}")
        long.append(f"{node}: {', '.join(looked)}")
        queue += new
    path = [b]
    while parents[path[-1]]:
        path.append(parents[path[-1]])
    return path[::-1], short, long


def _edge(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


def _sorted(edges: Edges) -> str:
    """The edges in alphabetical order, the same however they are told."""
    return " ".join(sorted("".join(_edge(*e)) for e in edges))


Coins = tuple[tuple[int, ...], int]
SYSTEMS: tuple[tuple[int, ...], ...] = (
    (1, 2, 5, 10, 20, 50), (1, 5, 10, 25), (1, 5, 10, 25, 50), (1, 2, 5, 10, 20), (1, 3, 9, 27), (1, 2, 4, 8, 16, 32),
    (1, 4, 12, 36), (1, 2, 6, 24), (1, 5, 10, 20), (1, 3, 6, 12, 24), (1, 10, 25, 50), (1, 6, 12, 60), (1, 7, 14, 42),
    (1, 2, 5, 10, 50, 100), (1, 5, 15, 45),
)  # fmt: skip


class Change(Family[Coins]):
    """The fewest coins for an amount; in every system of coins used here the largest coin first is best. Beyond: to 600."""

    name = "change"
    asks = ("Pay {n} with as few coins as possible. Coins: {c}.", "Which coins make {n} with the fewest pieces? Coins: {c}.",
            "Give change of {n} from coins of {c}, using as few as possible.", "Coins of {c}. Make {n} with the fewest coins.",
            "What is the shortest way to pay {n} with coins of {c}?", "With coins of {c}, pay {n}; use few coins.",
        "I must pay {n}. There are coins of {c}. Use the fewest.", "{n} in the fewest coins of {c}?", "Make {n} from coins {c}, as few as you can.", "How do I pay {n} with the fewest coins, if there are {c}?", "Fewest coins for {n}, from {c}?")  # fmt: skip
    unseen = ("A machine holds coins of {c} and must return {n}. Which coins, if few are better?",
              "I owe {n} and own many coins of {c}; hand over the smallest number of them.")  # fmt: skip

    def draw(self, rng: random.Random, level: int) -> Coins:
        """Amounts up to 60, 120, 200, 300 that need two to nine coins (beyond: 300 to 600, up to fourteen)."""
        low, high = ((8, 60), (30, 120), (60, 200), (120, 300), (300, 600))[level - 1]
        while True:
            system = rng.choice(SYSTEMS)
            if rng.random() < 0.5:
                system = tuple(sorted({1, *rng.sample(system, len(system) - 1)}))
                if any(b % a and b < 3 * a for a, b in itertools.pairwise(system[1:])):
                    continue
            amount = rng.randrange(low, high)
            if 2 <= len(fewest(system, amount)) <= (9 if level < 5 else 14) and optimal(system, amount):
                return system, amount

    def key(self, x: Coins) -> str:
        """Coins and amount."""
        return f"{' '.join(map(str, x[0]))} for {x[1]}"

    def fields(self, rng: random.Random, x: Coins) -> dict[str, object]:
        """Coins from small to large or the other way."""
        return {"n": x[1], "c": ", ".join(map(str, x[0][:: rng.choice((1, -1))]))}

    def work(self, rng: random.Random, x: Coins, effort: Effort) -> Work:
        """Nothing; for each coin what is left; every coin taken, the coins so far and every comparison."""
        system, amount = x
        coins = fewest(system, amount)
        final, answer = "+".join(map(str, coins)), f"{' '.join(map(str, system))} {amount} {len(coins)}"
        if effort == "low":
            return Work(f"First {coins[0]}.", final, answer)
        short, long, left, taken = [], [], amount, list[str]()
        for c in reversed(system):
            rests = []
            while left >= c:
                taken.append(str(c))
                rests.append(str(left - c))
                long.append(f"{left}-{c}={left - c} {'+'.join(taken)}")
                left -= c
            if rests:
                short.append(f"{c}: {', '.join(rests)}")
            if left and c > 1:
                long.append(f"{left}<{c}")
        return Work("; ".join(short if effort == "medium" else long) + ".", final, answer)

    def grade(self, example: Example, final: str) -> bool:
        """Any coins of the system that make the amount, as few as can be."""
        *system, amount, count = map(int, example.answer.split())
        found = integers(final.split("=")[0].replace("-", " "))
        return len(found) == count and sum(found) == amount and all(c in system for c in found)


def fewest(system: tuple[int, ...], amount: int) -> list[int]:
    """The coins that taking the largest one first gives."""
    out: list[int] = []
    for c in reversed(system):
        out += [c] * (amount // c)
        amount %= c
    return out


def optimal(system: tuple[int, ...], amount: int) -> bool:
    """Whether no other choice needs fewer coins (dynamic programming over all amounts)."""
    need = [0] + [amount + 1] * amount
    for n in range(1, amount + 1):
        need[n] = 1 + min(need[n - c] for c in system if c <= n)
    return need[amount] == len(fewest(system, amount))
