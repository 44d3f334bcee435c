"""The page in a real browser on a real server: asking, reading, stopping, asking again, keys, colours, phones, keyboards, outages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import Reader, chromium
from motet.engine import Engine, QueueFull
from motet.model import ContextError, load
from motet.server import auth
from motet.server.page import FOLDER
from motet.server.settings import Limits, Settings
from serving import E, Script, Served, serving

THINK = "<|channel|>analysis<|message|>canary thought<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


@pytest.fixture(scope="module")
def mini() -> Iterator[Served]:
    model = load("mini")
    with Engine(model) as engine, serving(engine, name="mini", encoding=model.encoding) as served:
        yield served


@pytest.fixture
def reader(browser: Any, mini: Served) -> Iterator[Reader]:
    with Reader(browser, mini.url) as reader:
        yield reader


def says(turn: Any) -> str:
    """The answer of a turn, without its thinking."""
    return turn.locator(".flow").inner_text()


def slow(pause_s: float = 0.01) -> Script:
    """An engine that counts, a number a token or two."""
    return Script(THINK + FINAL + " ".join(map(str, range(1000))) + "<|return|>", pause_s=pause_s)


# --- asking and reading ---


def test_the_embedded_model_answers(reader: Reader) -> None:
    reader.wait_for_selector("#ideas button")
    reader.click("#ideas button")
    turn = reader.answered()
    assert re.search(r"\d", says(turn))
    assert turn.locator(".said").inner_text() in reader.title()
    assert re.match(r"\d+ tokens\n", turn.locator(".stats").inner_text())


def test_thinking_is_folded_under_its_number_of_tokens(browser: Any) -> None:
    with (
        serving(Script(THINK + FINAL + "It is **five**.<|return|>")) as served,
        Reader(browser, served.url) as reader,
    ):
        reader.ask("hi")
        turn = reader.answered()
        thinking = turn.locator("details.thinking")
        assert says(turn) == "It is five." and turn.locator("strong").inner_text() == "five"
        assert not thinking.locator(".thought").is_visible()
        n_thought = len(E.encode("canary thought"))
        assert re.fullmatch(
            rf"Thought( for \d+ s)?, {n_thought} tokens", thinking.locator("summary").inner_text()
        )
        thinking.locator("summary").click()
        assert thinking.locator(".thought").inner_text() == "canary thought"
        n = len(served.host.engine.prompts[0])  # the script says that half of it was known
        assert f"{round(100 * (n // 2) / n)} % cached" in turn.locator(".stats").inner_text()


def test_it_remembers_what_was_said(browser: Any) -> None:
    engine = Script(
        ["<|channel|>final<|message|>One.<|return|>", "<|channel|>final<|message|>Two.<|return|>"]
    )
    with serving(engine) as served, Reader(browser, served.url) as reader:
        reader.ask("first question")
        reader.answered()
        reader.ask("second question")
        assert says(reader.answered(2)) == "Two."
        prompt = served.host.encoding.decode(engine.prompts[1])
    assert "first question" in prompt and "One." in prompt and prompt.count("second question") == 1


def test_the_answer_comes_as_it_is_written_and_can_be_stopped(browser: Any) -> None:
    with serving(slow()) as served, Reader(browser, served.url) as reader:
        reader.ask("count")
        reader.until("document.querySelector('.flow')?.textContent.includes('7')")
        assert reader.get_attribute(".answer", "aria-busy") == "true"
        assert reader.get_attribute("#send", "aria-label") == "Stop"
        reader.click("#send")
        turn = reader.answered()
        assert turn.locator(".state p").inner_text() == "Stopped."
        shown = says(turn)
        reader.wait_for_timeout(200)
        assert says(turn) == shown and "999" not in shown
        assert not served.host.turns  # the server has stopped too
        assert served.host.engine.ended == 1


def test_ask_again_edit_and_go_back(browser: Any) -> None:
    n = iter(range(1, 9))
    with (
        serving(Script(lambda _: f"{FINAL}answer {next(n)}<|return|>")) as served,
        Reader(browser, served.url) as reader,
    ):
        reader.ask("one")
        reader.answered()
        reader.ask("two")
        reader.answered(2).get_by_label("Ask again").click()
        reader.until("document.querySelectorAll('.flow')[1]?.textContent === 'answer 3'")
        reader.answered(2).get_by_label("Previous answer").click()
        assert says(reader.answered(2)) == "answer 2"
        first = reader.answered(1)
        first.hover()
        first.get_by_label("Edit the question").click()
        reader.fill(".editing textarea", "one, but otherwise")
        reader.press(".editing textarea", "Enter")
        reader.until(
            "document.querySelectorAll('.turn').length === 1 && document.querySelector('.flow').textContent === 'answer 4'"
        )
        assert reader.inner_text(".said") == "one, but otherwise"
        first.hover()
        first.get_by_label("Previous wording").click()
        reader.until("document.querySelectorAll('.turn').length === 2")
        assert [reader.answered(k).locator(".said").inner_text() for k in (1, 2)] == ["one", "two"]
    prompts = [served.host.encoding.decode(p) for p in served.host.engine.prompts]
    assert (
        "answer 1" in prompts[2] and "answer 2" not in prompts[2]
    )  # asked again: without the answer there was
    assert "one, but otherwise" in prompts[3] and "answer 1" not in prompts[3]


def test_effort_is_sent_and_kept(browser: Any) -> None:
    engine = Script(FINAL + "x<|return|>")
    with serving(engine) as served, Reader(browser, served.url) as reader:
        reader.check('[name="effort"][value="high"]')
        reader.reload()
        assert reader.is_checked('[name="effort"][value="high"]')
        reader.ask("hi")
        reader.answered()
        assert "Reasoning: high" in served.host.encoding.decode(engine.prompts[0])


def test_settings_are_sent_kept_and_reset(browser: Any) -> None:
    engine = Script(FINAL + "x<|return|>")
    with serving(engine) as served, Reader(browser, served.url) as reader:
        reader.click("#settings")
        reader.fill('[name="instructions"]', "Answer in verse.")
        reader.fill('[name="temperature"]', "0.5")
        reader.fill('[name="seed"]', "7")
        reader.get_by_role("button", name="Done").click()
        reader.reload()
        assert reader.get_attribute("#settings", "aria-label") == "Settings, 3 changed"
        reader.ask("hi")
        reader.answered()
        assert "Answer in verse." in served.host.encoding.decode(engine.prompts[0])
        assert (engine.params[0].temperature, engine.params[0].seed) == (0.5, 7)
        reader.click("#settings")
        reader.get_by_role("button", name="Back to usual").click()
        reader.get_by_role("button", name="Done").click()
        reader.ask("ho")
        reader.answered(2)
        assert "Answer in verse." not in served.host.encoding.decode(engine.prompts[1])
        assert engine.params[1].temperature == 1.0


def test_what_hostile_output_does_to_the_whole_page(browser: Any) -> None:
    """Nothing: through the real server, streamed token by token, with thinking that is hostile as well."""
    nasty = '<img src=x onerror="window.ran=1"><script>window.ran=1</script>[x](javascript:window.ran=1) <|end|> \u202eevil ![p](https://evil.example/p.png)\n```\n<svg onload=window.ran=1>'
    text = f"<|channel|>analysis<|message|>{nasty.replace('<|end|>', '')}<|end|><|start|>assistant{FINAL}{nasty.replace('<|end|>', '')}<|return|>"
    with serving(Script(text, free=True)) as served, Reader(browser, served.url) as reader:
        reader.ask(nasty)  # what people paste is hostile as well
        turn = reader.answered()
        turn.locator("details.thinking summary").click()
        assert reader.evaluate("window.ran") is None
        assert (
            reader.evaluate(
                "document.querySelectorAll('.turn :is(img, script, iframe, object, style, svg:not(.icon))').length"
            )
            == 0
        )
        assert turn.locator(".said").inner_text() == nasty.replace("\u202e", "U+202E")
        assert "<script>window.ran=1</script>" in says(turn) and "U+202E" in says(turn)
        assert reader.title().startswith("<img src=x onerror")


def test_a_malformed_answer_is_shown_as_what_it_is(browser: Any) -> None:
    with (
        serving(Script("<|channel|>analysis<|message|>only thought<|return|>", free=True)) as served,
        Reader(browser, served.url) as reader,
    ):
        reader.ask("hi")
        assert "no answer that can be read" in reader.answered().locator(".refusal").inner_text()


# --- keys and policies ---


def test_a_key_is_asked_for_and_its_policy_holds(browser: Any, tmp_path: Path) -> None:
    secret = auth.add(tmp_path / "keys.json", "alice", thinking="hide")
    settings = Settings(port=0, store="none", keys=tmp_path / "keys.json")
    with (
        serving(Script(THINK + FINAL + "fine<|return|>"), settings) as served,
        Reader(browser, served.url) as reader,
    ):
        reader.wait_for_selector("#lock[open]")
        reader.fill("#secret", "sk-wrong")
        reader.press("#secret", "Enter")
        reader.wait_for_selector("#wrong:not([hidden])")
        assert reader.inner_text("#wrong") == "The API key is wrong."
        reader.fill("#secret", secret)
        reader.press("#secret", "Enter")
        reader.wait_for_selector("#key:not([hidden])")
        reader.ask("hi")
        turn = reader.answered()
        assert says(turn) == "fine"
        assert re.fullmatch(
            r"Thought( for \d+ s)?, \d+ tokens, not shown", turn.locator("p.thinking").inner_text()
        )
        assert "canary" not in reader.content()
        assert reader.evaluate("localStorage.getItem('motet.key')") is None  # only as long as the tab is open
        reader.reload()
        reader.wait_for_selector("#key:not([hidden])")
        reader.click("#key")
        reader.click("#forget")
        reader.wait_for_selector("#lock[open]")


# --- seeing, hearing, touching, typing ---


def test_colours(browser: Any, mini: Served) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with Reader(browser, mini.url, color_scheme="dark") as reader:
        dark = reader.evaluate(paper)
        reader.click("#theme")
        assert reader.get_attribute("#theme", "aria-label") == "Colours: light"
        light = reader.evaluate(paper)
        reader.reload()
        assert reader.evaluate(paper) == light != dark
        reader.click("#theme")
        assert reader.evaluate(paper) == dark


def test_a_phone(browser: Any, mini: Served) -> None:
    wide = "| " + " | ".join("a wide column" for _ in range(9)) + " |\n" + "|-" * 9 + "|\n"
    text = f"{FINAL}{wide}\n```\n{'x' * 300}\n```\n{'y' * 300}\n\n**x**<|return|>"
    with (
        serving(Script(text)) as served,
        Reader(browser, served.url, has_touch=True, is_mobile=True) as reader,
    ):
        reader.set_viewport_size({"width": 360, "height": 740})
        reader.ask("z" * 300)
        reader.press("#say", "Enter")
        reader.click("#send")
        reader.answered()
        reader.until("document.querySelector('.stats')")
        assert reader.evaluate("document.documentElement.scrollWidth") == 360
        assert reader.evaluate("document.getElementById('scroll').scrollWidth") == 360
        small = reader.evaluate(
            "[...document.querySelectorAll('button')].filter((b) => b.checkVisibility() && b.offsetHeight < 24).map((b) => b.outerHTML)"
        )
        assert small == []
        assert not reader.is_visible("#side")
        reader.click("#menu")
        reader.click("#new")
        reader.wait_for_selector("#empty:not([hidden])")
        reader.until("!document.getElementById('side').checkVisibility({visibilityProperty: true})")


def test_by_keyboard_alone(browser: Any) -> None:
    with serving(slow()) as served, Reader(browser, served.url) as reader:
        keyboard = reader.keyboard
        focus = "document.activeElement.getAttribute('aria-label') || document.activeElement.id || document.activeElement.value || document.activeElement.textContent"
        reader.wait_for_selector("#ideas button")
        assert reader.evaluate(focus) == "say"
        keyboard.type("first line")
        keyboard.press("Shift+Enter")
        keyboard.type("second line")
        keyboard.press("Enter")
        reader.until("document.querySelector('.flow')?.textContent.includes('3')")
        keyboard.press("Escape")
        reader.answered()
        assert reader.inner_text(".said") == "first line\nsecond line"
        keyboard.press("ArrowUp")  # nothing typed: the last question again
        assert reader.evaluate("document.activeElement.value") == "first line\nsecond line"
        keyboard.press("Escape")
        assert reader.evaluate(focus) == "Edit the question"
        seen = []
        for _ in range(12):
            keyboard.press("Tab")
            seen.append(reader.evaluate(focus))
        order = ["Copy the answer", "Ask again", "say"]
        assert [s for s in seen if s in order] == order
        reader.focus("details.thinking summary")
        keyboard.press("Enter")
        assert reader.locator(".thought").is_visible()
        assert reader.inner_text("#status") == "Stopped."


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_for_those_who_listen(browser: Any, scheme: str) -> None:
    """axe-core finds nothing, empty, with an answer of every kind, on a phone with the list open, with a dialog."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    text = (FOLDER / "index.html").read_text()[:200].replace("<|", "")
    kinds = f"{THINK}{FINAL}# A\n\n- [x] b\n- c\n\n> d\n\n| e | f |\n|-|-|\n| 1 | 2 |\n\n```py\nx\n```\n\n[g](https://g.example) `h` \u202e\n\n{text}<|return|>"

    def faults(reader: Reader) -> list[Any]:
        # in the dark only the contrasts can differ
        only = {"runOnly": ["color-contrast"]} if scheme == "dark" else None
        found = axe.run(reader.page, options=only).response["violations"]
        return [(v["id"], [n["html"][:100] for n in v["nodes"]]) for v in found]

    with (
        serving(Script(kinds)) as served,
        Reader(browser, served.url, color_scheme=scheme, reduced_motion="reduce") as reader,
    ):
        reader.wait_for_selector("#ideas button")
        assert faults(reader) == []
        reader.ask("hi")
        reader.answered().locator("summary").click()
        assert faults(reader) == []
        reader.set_viewport_size({"width": 360, "height": 740})
        reader.click("#menu")
        assert faults(reader) == []
        reader.click("#hide")
        for dialog in ("lock", "options", "sure"):
            reader.evaluate(
                f"document.querySelector('dialog[open]')?.close(); document.getElementById('{dialog}').showModal()"
            )
            assert faults(reader) == []


# --- trouble ---


def test_an_error_is_a_sentence_and_the_question_stays(browser: Any) -> None:
    settings = Settings(port=0, store="none", limits=Limits(body_bytes=2000))
    with serving(Script(FINAL + "fine<|return|>"), settings) as served, Reader(browser, served.url) as reader:
        reader.ask("word " * 500)
        turn = reader.answered()
        assert "too large" in turn.locator(".state.wrong").inner_text()
        assert turn.locator(".said").inner_text().startswith("word word")
        served.host.draining.set()
        reader.ask("hi")
        assert "shutting down" in reader.answered(2).locator(".state").inner_text()
        served.host.draining.clear()
        reader.answered(2).get_by_role("button", name="Ask again").click()
        reader.until("document.querySelectorAll('.flow')[1]?.textContent === 'fine'")
        assert (
            reader.locator(".switcher").count() == 0
        )  # nothing came of the first try, so there is one answer


def test_a_server_that_is_away_is_waited_for(browser: Any, mini: Served) -> None:
    with Reader(browser, mini.url) as reader:
        reader.wait_for_selector("#ideas button")
        reader.context.set_offline(True)
        reader.ask("What is 12 * 13?")
        assert "cannot be reached" in reader.answered().locator(".state").inner_text()
        assert "Waiting for the server" in reader.inner_text("#notice")
        reader.context.set_offline(False)
        reader.wait_for_selector("#notice", state="hidden")
        reader.get_by_role("button", name="Ask again").click()
        reader.until("/[0-9]/.test(document.querySelector('.flow')?.textContent)")


def test_nothing_written_is_lost(browser: Any) -> None:
    """A draft, and a question that no server has taken, stand in the box after a reload; one that was taken does not."""
    with serving(Script(FINAL + "fine<|return|>")) as served, Reader(browser, served.url) as reader:
        reader.fill("#say", "half a question\nin two lines")
        reader.reload()
        assert reader.input_value("#say") == "half a question\nin two lines"
        served.host.draining.set()
        reader.press("#say", "Enter")
        reader.answered()
        reader.fill("#say", "and another")
        reader.reload()
        assert reader.input_value("#say") == "half a question\nin two lines\n\nand another"
        served.host.draining.clear()
        reader.until("!document.getElementById('send').disabled")
        reader.press("#say", "Enter")
        reader.answered()
        reader.reload()
        assert reader.input_value("#say") == ""


def test_a_conversation_that_is_too_long_has_a_way_out(browser: Any) -> None:
    engine = Script(FINAL + "fine<|return|>")
    with serving(engine) as served, Reader(browser, served.url) as reader:
        reader.ask("first")
        reader.answered()
        engine.refuse = ContextError("The prompt has 9 tokens and the context 8; shorten the prompt.")
        reader.ask("second")
        state = reader.answered(2).locator(".state.wrong")
        assert "The prompt has 9 tokens" in state.inner_text()
        state.get_by_role("button", name="Ask in a new conversation").click()
        assert reader.input_value("#say") == "second"
        assert reader.locator(".turn").count() == 0
        reader.press("#say", "Enter")
        reader.answered().get_by_role("button", name="Shorten the question").click()
        assert reader.input_value(".editing textarea") == "second"
        engine.refuse = QueueFull("full")
        reader.press(".editing textarea", "Enter")
        reader.until(
            "document.querySelector('.state.wrong')?.textContent.startsWith('Too many requests are waiting')"
        )
        engine.refuse = None
        reader.get_by_role("button", name="Ask again").click()
        reader.until("document.querySelector('.flow')?.textContent === 'fine'")
