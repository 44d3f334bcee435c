"""Everything outside arithmetic: greetings, and questions this small model cannot answer and says so.

Not a measure of anything: it only keeps an untrained question from getting invented arithmetic for an answer.
"""

from __future__ import annotations

import random

from motet.tasks.base import Effort, Example, Split, split_of

_HELLO = "Hello! I can do small arithmetic: sums, products, chains modulo a prime, and countdown. Try: What is 12 * 13?"
_WHO = "I am mini, a very small gpt-oss trained from scratch. I can only do small arithmetic."
_THANKS = "You are welcome."
_CANNOT = "Sorry, I can only do small arithmetic. Try: What is 17 + 25?"
_THOUGHT = {
    _HELLO: "A greeting", _WHO: "A question about me", _THANKS: "Thanks", _CANNOT: "This is not arithmetic",
}  # fmt: skip
GREETINGS = ("hello", "hi", "hey", "good morning", "good evening", "hello there", "hi there", "greetings", "yo", "help",
              "good day", "how are you", "hello, how are you", "what's up", "hey there", "test", "are you there")  # fmt: skip
ABOUT = ("who are you", "what are you", "what can you do", "what is your name", "tell me about yourself", "are you ChatGPT",
          "which model are you", "who made you", "what do you know", "are you a robot", "introduce yourself")  # fmt: skip
POLITE = (
    "thanks",
    "thank you",
    "thank you very much",
    "great, thanks",
    "ok",
    "good",
    "nice",
    "bye",
    "well done",
)
_ASK = (
    "Write a {t} about {n}.", "What is the {t} of {n}?", "Explain {n}.", "Tell me about {n}.", "Who is {n}?", "Where is {n}?",
    "What is {n}?", "Why is {n} so {a}?", "Translate {n} into French.", "Give me a {t} for {n}.", "Do you like {n}?",
    "How do I make {n}?", "When was {n} born?", "Is {n} {a}?", "Summarize {n}.", "Can you write a {t}?", "I feel {a}.",
    "Write code for {n}.", "What do you think about {n}?", "How does {n} work?", "List five kinds of {n}.", "{n}", "{n}?",
    "What is the capital of {n}?", "Tell me a {t}.", "Weather in {n}", "Fix this {t}: {n}", "Which {n} is the most {a}?",
)  # fmt: skip
_NOUNS = (
    "the moon", "France", "Paris", "dogs", "cats", "history", "a cake", "music", "quantum physics", "love", "the weather",
    "Python", "my computer", "London", "the sun", "bread", "water", "football", "Germany", "a song", "the sea", "trees", "art",
    "the president", "school", "birds", "coffee", "Rome", "money", "time", "a car", "the internet", "books", "Shakespeare",
    "gravity", "photosynthesis", "a router", "the brain", "chess", "China", "horses", "my friend", "winter", "a poem", "soup",
    "language models", "the universe", "mathematics", "numbers", "Einstein", "a house", "games", "SQL", "the city", "people",
)  # fmt: skip
_THINGS = ("poem", "story", "song", "letter", "joke", "name", "list", "recipe", "capital", "plan", "program", "meaning",
           "color", "size", "title", "essay", "function", "text", "sentence", "word", "picture", "reason")  # fmt: skip
_ADJECTIVES = (
    "big",
    "sad",
    "happy",
    "old",
    "good",
    "red",
    "cold",
    "famous",
    "strange",
    "nice",
    "true",
    "important",
    "tired",
)


class Smalltalk:
    """Greetings, questions about the model, thanks, and requests out of scope."""

    name = "smalltalk"

    def example(self, rng: random.Random, effort: Effort, split: Split) -> Example:
        """A fresh example; greetings are too few to be split and are always trained."""
        while True:
            prompt, final, fixed = _draw(rng)
            key = f"smalltalk {prompt.lower()}"
            if fixed or split_of(key) == split:
                break
        thought = _THOUGHT[final]
        text = {"low": f"{thought}.", "medium": f"{thought}. I answer briefly.",
                "high": f"{thought}. There is nothing to compute. I answer briefly and say what I can do."}[effort]  # fmt: skip
        return Example(self.name, effort, key, prompt, ((text, True),), final, final)

    def grade(self, example: Example, final: str) -> bool:
        """Equality with the one reply of its kind."""
        return final.strip() == example.answer


def _draw(rng: random.Random) -> tuple[str, str, bool]:
    kind = rng.random()
    if kind < 0.3:
        pool, final = rng.choice(((GREETINGS, _HELLO), (ABOUT, _WHO), (POLITE, _THANKS)))
        text = rng.choice(pool)
        text = rng.choice((text, text.capitalize(), text.capitalize()))
        end = rng.choice(("", ".", "!", "?")) if final is not _WHO else rng.choice(("", "?", "?"))
        return text + end, final, True
    if kind < 0.4:
        return noise(rng), _CANNOT, False
    return unanswerable(rng), _CANNOT, False


def unanswerable(rng: random.Random) -> str:
    """A question outside everything that is taught."""
    text = rng.choice(_ASK).format(n=rng.choice(_NOUNS), t=rng.choice(_THINGS), a=rng.choice(_ADJECTIVES))
    return text if rng.random() < 0.8 else text.lower().rstrip(".?")


def noise(rng: random.Random) -> str:
    """Letters of any script in any order, so that no byte of the vocabulary stays unseen."""
    alphabet = rng.choice(("abcdefghijklmnopqrstuvwxyz   ", "".join(map(chr, range(33, 127))) + "   ", ""))
    length = rng.randrange(3, 25)
    if alphabet:
        return "".join(rng.choice(alphabet) for _ in range(length)).strip() or "?"
    low = rng.choice((0xA1, 0x370, 0x400, 0x5D0, 0x3040, 0x4E00, 0x1F300, rng.randrange(0x100, 0xD000)))
    return "".join(chr(low + rng.randrange(80)) for _ in range(length))
