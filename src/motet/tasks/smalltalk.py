"""What people say that asks for no work: greetings, thanks, questions about the model, and questions nobody taught it to answer."""

from __future__ import annotations

import random

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
