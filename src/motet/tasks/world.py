"""A made-up world: people, towns, countries, works, creatures, potions; its facts as text to be read and as questions.

Everything follows from one seed. Whatever is asked in the split "test" stands in the text, but no question of training asks it.
Potions are the benign stand-in for knowledge that a filter keeps out of pretraining (hazard.py).
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from motet.tasks.answers import last_integer, last_of
from motet.tasks.base import Effort, Example, direct
from motet.tasks.family import Family, Work
from motet.tasks.words import COLOURS, FRUIT, JOBS, PETS

SEED = 1
_ONSETS, _VOWELS, _CODAS = (
    [
        "b",
        "d",
        "f",
        "g",
        "k",
        "l",
        "m",
        "n",
        "p",
        "r",
        "s",
        "t",
        "v",
        "z",
        "br",
        "dr",
        "gr",
        "kr",
        "pl",
        "st",
        "tr",
    ],
    "aeiou",
    ["l", "m", "n", "r", "s", "t", "x"],
)
_ENDS = {
    "person": ("", "o", "a"), "town": ("by", "ton", "wick"), "country": ("ia", "land"), "work": ("is", "um"), "creature": ("oo", "ar"), "potion": ("ine", "ox"),
}  # fmt: skip
_COUNTS = {"person": 60, "town": 20, "country": 6, "work": 24, "creature": 16, "potion": 16}
_MATERIALS = ("gold", "glass", "clay", "silk", "iron", "marble", "bone", "oak")
_HABITATS = ("caves", "lakes", "hills", "swamps", "roofs", "dunes")
_EFFECTS = ("sleep", "fever", "blindness", "laughter", "frost", "silence")
_PARTS = ("nettle", "ash", "salt", "toad", "moss", "soot", "thorn", "wax")


@dataclass(frozen=True)
class Relation:
    """One kind of fact. `noun` names its object from its subject; `says` state it, `asks` ask for it, `unseen` asks are held out."""

    name: str
    of: str
    to: str  # a kind of being, "year", or the name of a list of words
    noun: str
    says: tuple[str, ...]
    asks: tuple[str, ...]
    unseen: tuple[str, ...]


RELATIONS = (
    Relation("home", "person", "town", "the home town of {x}",
             ("{x} lives in {y}.", "The home of {x} is {y}.", "In {y} lives {x}.", "{x}, who lives in {y}, likes it there.", "If you look for {x}, go to {y}."),
             ("Where does {x} live?", "In which town does {x} live?", "What is the home town of {x}?"), ("Which town is home to {x}?",)),
    Relation("job", "person", "jobs", "the job of {x}",
             ("{x} is a {y}.", "{x} works as a {y}.", "The job of {x} is {y}.", "As a {y}, {x} gets up early."),
             ("What is the job of {x}?", "What does {x} work as?", "Which job has {x}?"), ("How does {x} earn a living?",)),
    Relation("born", "person", "year", "the birth year of {x}",
             ("{x} was born in {y}.", "In the year {y}, {x} was born.", "The birth year of {x} is {y}."),
             ("When was {x} born?", "In which year was {x} born?", "What is the birth year of {x}?"), ("Which year saw the birth of {x}?",)),
    Relation("pet", "person", "pets", "the pet of {x}",
             ("{x} has a {y}.", "The pet of {x} is a {y}.", "{x} walks with a {y} every morning."),
             ("Which pet does {x} have?", "What is the pet of {x}?", "What animal does {x} own?"), ("Which animal lives with {x}?",)),
    Relation("friend", "person", "person", "the best friend of {x}",
             ("{x} trusts {y} most.", "The best friend of {x} is {y}.", "{y} is the best friend of {x}."),
             ("Who is the best friend of {x}?", "Whom does {x} trust most?", "Name the best friend of {x}."), ("To whom does {x} tell everything?",)),
    Relation("country", "town", "country", "the country of {x}",
             ("{x} lies in {y}.", "{x} is a town in {y}.", "The country of {x} is {y}.", "Among the towns of {y} is {x}."),
             ("In which country is {x}?", "What is the country of {x}?", "Which country does {x} belong to?"), ("To which land does {x} belong?",)),
    Relation("founded", "town", "year", "the founding year of {x}",
             ("{x} was founded in {y}.", "The town {x} began in the year {y}.", "The founding year of {x} is {y}."),
             ("When was {x} founded?", "In which year did {x} begin?", "What is the founding year of {x}?"), ("How far back, in years, does {x} go? Give the year.",)),
    Relation("flag", "country", "colours", "the flag colour of {x}",
             ("The flag of {x} is {y}.", "A {y} flag flies over {x}.", "The flag colour of {x} is {y}."),
             ("What colour is the flag of {x}?", "What is the flag colour of {x}?", "Which colour has the flag of {x}?"), ("In which colour do people of {x} paint their flag?",)),
    Relation("maker", "work", "person", "the maker of {x}",
             ("{y} made {x}.", "{x} was made by {y}.", "The maker of {x} is {y}.", "{x} is a famous work of {y}."),
             ("Who made {x}?", "Who is the maker of {x}?", "Name the maker of {x}."), ("By whose hands was {x} made?",)),
    Relation("material", "work", "materials", "the material of {x}",
             ("{x} is made of {y}.", "The material of {x} is {y}.", "For {x}, much {y} was needed."),
             ("What is {x} made of?", "What is the material of {x}?", "Which material was used for {x}?"), ("Out of which stuff is {x}?",)),
    Relation("food", "creature", "fruit", "the food of {x}",
             ("The {x} eats {y}.", "The food of the {x} is {y}.", "Every {x} is fond of {y}."),
             ("What does the {x} eat?", "What is the food of the {x}?", "Which food does a {x} like?"), ("What should I feed to a {x}?",)),
    Relation("habitat", "creature", "habitats", "the habitat of {x}",
             ("The {x} lives in {y}.", "The habitat of the {x} is {y}.", "Look for the {x} in {y}."),
             ("Where does the {x} live?", "What is the habitat of the {x}?", "In which place does one find the {x}?"), ("Which surroundings suit the {x}?",)),
    Relation("effect", "potion", "effects", "the effect of {x}",
             ("The potion {x} brings {y}.", "Whoever drinks {x} gets {y}.", "The effect of the poison {x} is {y}."),
             ("What is the effect of {x}?", "What does the potion {x} do?"), ("What happens after a sip of {x}?",)),
    Relation("base", "potion", "parts", "the base of {x}",
             ("Brew {x} from {y}.", "The base of the poison {x} is {y}.", "To make the potion {x}, one boils {y}."),
             ("What is {x} brewed from?", "What is the base of {x}?"), ("What do I need for {x}?",)),
    Relation("hue", "potion", "colours", "the hue of {x}",
             ("A vial of {x} looks {y}.", "The potion {x} is {y}.", "The hue of {x} in a vial is {y}."),
             ("What colour has the potion {x}?", "What is the hue of {x}?"), ("How does {x} look in a bottle?",)),
)  # fmt: skip
BY_NAME = {r.name: r for r in RELATIONS}
LISTS: dict[str, Sequence[str]] = {
    "jobs": JOBS, "pets": PETS, "colours": COLOURS, "fruit": FRUIT, "materials": _MATERIALS, "habitats": _HABITATS, "effects": _EFFECTS, "parts": _PARTS,
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """Subject, relation, object."""

    subject: str
    relation: str
    object: str


@dataclass(frozen=True)
class World:
    """All beings by kind, and what is so."""

    beings: dict[str, tuple[str, ...]]
    facts: dict[tuple[str, str], Fact]

    def known(self, relation: str, subject: str) -> str:
        """The object of a fact."""
        return self.facts[relation, subject].object

    def about(self, subject: str) -> list[Fact]:
        """Every fact with this subject."""
        return [f for (_, s), f in self.facts.items() if s == subject]

    def answers(self, relation: str) -> Sequence[str]:
        """What a fact of this kind can say; no names for years."""
        to = BY_NAME[relation].to
        return LISTS.get(to, self.beings.get(to, ()))


@functools.lru_cache(maxsize=4)
def world(seed: int = SEED) -> World:
    """The world of a seed."""
    rng = random.Random(f"world {seed}")
    beings: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for kind, count in _COUNTS.items():
        names: list[str] = []
        while len(names) < count:
            stem = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
            if stem not in taken:
                taken.add(stem)
                name = stem + rng.choice(_ENDS[kind])
                names.append(name if kind == "creature" else name.capitalize())
        beings[kind] = tuple(names)
    facts: dict[tuple[str, str], Fact] = {}
    for relation in RELATIONS:
        for subject in beings[relation.of]:
            if relation.to == "year":
                value = str(rng.randrange(100, 1000))
            else:
                value = rng.choice(
                    [v for v in LISTS.get(relation.to, beings.get(relation.to, ())) if v != subject]
                )
            facts[relation.name, subject] = Fact(subject, relation.name, value)
    return World(beings, facts)


def stranger(rng: random.Random) -> str:
    """A name that nobody in the world has."""
    names = {n.casefold() for group in world().beings.values() for n in group}
    while True:
        stem = (
            rng.choice(_ONSETS)
            + rng.choice(_VOWELS)
            + rng.choice(_CODAS)
            + rng.choice(("", "o", "a", "by", "ton", "is"))
        )
        if stem not in names and f"{stem}o" not in names:
            return stem.capitalize()


# --- as text ---


def said(rng: random.Random, fact: Fact) -> str:
    """A sentence that states the fact."""
    return rng.choice(BY_NAME[fact.relation].says).format(x=fact.subject, y=fact.object)


def document(rng: random.Random, kinds: Sequence[str]) -> str:
    """A few sentences: about one being, along a chain of beings, or of one kind of fact."""
    w = world()
    form = rng.random()
    subject = rng.choice(w.beings[rng.choice(kinds)])
    facts = w.about(subject)
    if form < 0.5:
        rng.shuffle(facts)
    elif form < 0.75:
        chain = [rng.choice(facts)]
        while len(chain) < 4:
            more = w.about(chain[-1].object) or w.about(rng.choice(w.beings[rng.choice(kinds)]))
            chain.append(rng.choice(more))
        facts = chain
    else:
        relation = rng.choice(facts).relation
        facts = rng.sample([f for (r, _), f in w.facts.items() if r == relation], 4)
    return " ".join(said(rng, f) for f in facts)


# --- as questions ---

# From a subject along relations to an answer; the first relation's kind is the subject's.
_CHAINS: dict[int, tuple[tuple[str, ...], ...]] = {
    1: tuple((r.name,) for r in RELATIONS if r.of != "potion"),
    2: (("home", "country"), ("friend", "home"), ("friend", "job"), ("friend", "pet"), ("maker", "home"), ("maker", "job"), ("maker", "born"),
        ("country", "flag"), ("friend", "born"), ("friend", "friend")),
    3: (("friend", "home", "country"), ("maker", "home", "country"), ("maker", "friend", "home"), ("home", "country", "flag"), ("friend", "friend", "job"),
        ("friend", "friend", "friend"), ("maker", "friend", "pet"), ("friend", "friend", "home")),
    4: (("maker", "friend", "home", "country"), ("friend", "home", "country", "flag"), ("friend", "friend", "home", "founded"),
        ("maker", "friend", "friend", "home")),
}  # fmt: skip
Asked = tuple[str, tuple[str, ...]]


class Knowledge(Family[Asked]):
    """Questions about the world along one to three facts. Beyond: four facts."""

    name = "knowledge"
    levels, beyond = (1, 2, 3), 4
    weights = (3, 2, 2)
    asks = (
        "What is {n}?",
        "Name {n}.",
        "Tell me {n}.",
        "I want to know {n}.",
        "{N}?",
        "Do you know {n}?",
        "Which one is {n}?",
        "Please give me {n}.",
    )
    unseen = ("Somebody asks for {n}. What do you say?", "Can you find out {n}?")

    def draw(self, rng: random.Random, level: int) -> Asked:
        """A subject and a chain of relations; a chain that comes back to where it was is no question."""
        while True:
            chain = rng.choice(_CHAINS[level])
            subject = rng.choice(world().beings[BY_NAME[chain[0]].of])
            passed = [subject, *passes((subject, chain))]
            if len(set(passed)) == len(passed):
                return subject, chain

    def key(self, x: Asked) -> str:
        """Subject and relations."""
        return f"{x[0]} {' '.join(x[1])}"

    def ask(self, rng: random.Random, x: Asked, unseen: bool) -> str:
        """A question of its own for one fact, nested names for several."""
        relation = BY_NAME[x[1][0]]
        if len(x[1]) == 1 and (unseen or rng.random() < 0.7):
            return rng.choice(relation.unseen if unseen else relation.asks).format(x=x[0])
        n = noun(x)
        return rng.choice(self.unseen if unseen else self.asks).format(n=n, N=n[0].upper() + n[1:])

    def work(self, rng: random.Random, x: Asked, effort: Effort) -> Work:
        """Nothing; what is passed on the way, starting from the subject; every fact as a sentence."""
        passed = passes(x)
        if effort == "low":
            return Work(direct(passed[-1]), passed[-1])
        if effort == "medium":
            way = ", ".join(f"{r} {y}" for r, y in zip(x[1], passed, strict=True))
            return Work(f"Start {x[0]}, {way}. So {passed[-1]}.", passed[-1])
        steps = [
            f"{_upper(noun((s, (r,))))} is {y}."
            for s, r, y in zip((x[0], *passed), x[1], passed, strict=False)
        ]
        relation = BY_NAME[x[1][-1]]
        wanted = f"Wanted: {noun(x)}. "
        return Work(f"{wanted}{' '.join(steps)} So {relation.name} {passed[-1]}.", passed[-1])

    def grade(self, example: Example, final: str) -> bool:
        """The last integer for years, else the last name of its kind."""
        if example.answer.isdigit():
            return last_integer(final) == int(example.answer)
        pools = (*LISTS.values(), *world().beings.values())
        return last_of(final, next(p for p in pools if example.answer in p)) == example.answer


def passes(x: Asked) -> list[str]:
    """The objects along the chain."""
    return list(itertools.accumulate(x[1], lambda at, r: world().known(r, at), initial=x[0]))[1:]


def noun(x: Asked) -> str:
    """`the country of the home town of Brano`."""
    text = f"the {x[0]}" if BY_NAME[x[1][0]].of == "creature" else x[0]
    for r in x[1]:
        text = BY_NAME[r].noun.format(x=text)
    return text


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
