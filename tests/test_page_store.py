"""The page on a server that keeps conversations: listed, opened, gone on with, deleted; answers that outlive a reload and an outage."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import Reader, chromium
from motet.server.settings import Settings
from serving import Script, serving

FINAL = "<|channel|>final<|message|>"
LIST = "[...document.querySelectorAll('#conversations a')].map((a) => a.textContent)"
KEPT = Settings(port=0, store="memory")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


def echo(prompt: str) -> str:
    """Answers with the last question."""
    return f"{FINAL}You said {prompt.rsplit('<|message|>', 1)[1].split('<|end|>')[0]}.<|return|>"


def numbers(last: int, pause_s: float) -> Script:
    """An engine that counts."""
    return Script(FINAL + " ".join(map(str, range(last + 1))) + "<|return|>", pause_s=pause_s)


def says(turn: Any) -> str:
    """The answer of a turn."""
    return turn.locator(".flow").inner_text()


def line(reader: Reader, title: str) -> Any:
    """A conversation in the list."""
    return reader.locator(f"#conversations li:has(> a[title='{title}'])")


def do(reader: Reader, what: str, title: str) -> None:
    """Renames or deletes it."""
    line(reader, title).hover()
    line(reader, title).get_by_label(what).click()


def test_conversations_are_listed_opened_gone_on_with_and_deleted(browser: Any) -> None:
    engine = Script(echo)
    with serving(engine, KEPT) as served, Reader(browser, served.url) as reader:
        for question in ("one", "two"):
            reader.click("#new")
            reader.ask(question)
            reader.answered()
        reader.until(f"{LIST}.join() === 'two,one'")
        line(reader, "one").locator("a").click()
        reader.until("document.querySelector('.said').textContent === 'one'")
        assert reader.get_attribute("#conversations [aria-current]", "title") == "one"
        assert reader.title() == "one · motet"
        reader.reload()
        assert says(reader.answered()) == "You said one."
        reader.ask("more")
        assert says(reader.answered(2)) == "You said more."
        prompt = served.host.encoding.decode(engine.prompts[-1])
        assert prompt.count("You said one.") == 1 and prompt.count("<|start|>user<|message|>") == 2
        reader.until(f"{LIST}.join() === 'one,two'")  # latest activity first
        do(reader, "Delete", "one")
        reader.get_by_role("button", name="Keep it").click()
        assert reader.locator(".turn").count() == 2
        do(reader, "Delete", "one")
        reader.get_by_role("button", name="Delete", exact=True).click()
        reader.until(f"{LIST}.join() === 'two'")
        assert reader.locator(".turn").count() == 0 and reader.is_visible("#empty")
        line(reader, "two").locator("a").click()
        assert says(reader.answered()) == "You said two."
        reader.go_back()
        reader.wait_for_selector("#empty")


def test_a_conversation_can_be_renamed(browser: Any) -> None:
    with serving(Script(echo), KEPT) as served, Reader(browser, served.url) as reader:
        reader.ask("one")
        reader.answered()
        do(reader, "Rename", "one")
        reader.keyboard.type("another name")
        reader.keyboard.press("Escape")
        reader.until(f"{LIST}.join() === 'one'")
        do(reader, "Rename", "one")
        reader.keyboard.type("<b>First</b>")
        reader.keyboard.press("Enter")
        reader.until(f"{LIST}.join() === '<b>First</b>'")
        assert reader.inner_text("#title") == "<b>First</b>" and reader.title() == "<b>First</b> · motet"
        reader.ask("more")
        reader.answered(2)
        reader.reload()
        reader.answered(2)
        assert reader.inner_text("#title") == "<b>First</b>"


def test_an_answer_outlives_a_reload(browser: Any) -> None:
    with serving(numbers(150, 0.01), KEPT) as served, Reader(browser, served.url) as reader:
        reader.ask("count")
        reader.until("document.querySelector('.flow')?.textContent.includes('7')")
        reader.reload()
        assert reader.input_value("#say") == ""  # the server has it
        turn = reader.answered()
        assert says(turn) == " ".join(map(str, range(151)))
        assert "tokens/s" not in turn.locator(".stats").inner_text()  # not seen from the beginning
        assert len(served.host.engine.prompts) == 1


def test_an_answer_that_is_stopped_is_kept_and_gone_on_with(browser: Any) -> None:
    engine = numbers(900, 0.01)
    with serving(engine, KEPT) as served, Reader(browser, served.url) as reader:
        reader.ask("count")
        reader.until("document.querySelector('.flow')?.textContent.includes('7')")
        reader.click("#send")
        turn = reader.answered()
        shown = says(turn)
        assert turn.locator(".state p").inner_text() == "Stopped." and "900" not in shown
        assert not served.host.turns
        reader.reload()
        turn = reader.answered()
        assert says(turn) == shown and turn.locator(".state p").inner_text() == "Stopped."
        engine.pause_s = 0
        reader.ask("go on")
        turn = reader.answered(2)
        assert says(turn).endswith("900"), turn.inner_text()
        assert shown in served.host.encoding.decode(engine.prompts[1])


def test_wordings_of_the_first_question_are_conversations(browser: Any) -> None:
    with serving(Script(echo), KEPT) as served, Reader(browser, served.url) as reader:
        reader.ask("one")
        first = reader.answered()
        first.hover()
        first.get_by_label("Edit the question").click()
        reader.fill(".editing textarea", "one or two")
        reader.press(".editing textarea", "Enter")
        reader.until(f"{LIST}.join() === 'one or two,one'")
        assert reader.get_attribute("#conversations [aria-current]", "title") == "one or two"
        first.hover()
        first.get_by_label("Previous wording").click()
        assert reader.get_attribute("#conversations [aria-current]", "title") == "one"
        line(reader, "one or two").locator("a").click()
        reader.until("document.querySelector('.said').textContent === 'one or two'")
        do(reader, "Delete", "one or two")
        reader.get_by_role("button", name="Delete", exact=True).click()
        reader.until(f"{LIST}.join() === 'one'")
        line(reader, "one").locator("a").click()
        reader.until("document.querySelector('.said').textContent === 'one'")
        assert reader.locator(".switcher").count() == 0


@pytest.mark.parametrize("slow", ["**/motet/page", "**/motet/conversations/resp_*"])
def test_what_is_sent_before_the_page_is_ready_goes_out_in_its_conversation(browser: Any, slow: str) -> None:
    with serving(Script(echo), KEPT) as served, Reader(browser, served.url) as reader:
        reader.ask("one")
        reader.answered()
        asked = list[Any]()
        reader.route(slow, lambda route: asked.append(route))
        reader.reload()
        reader.ask("two")
        assert reader.input_value("#say") == "two" and len(served.host.engine.prompts) == 1
        while not asked:
            reader.wait_for_timeout(20)
        asked[0].continue_()
        assert says(reader.answered(2)) == "You said two." and reader.input_value("#say") == ""


def test_what_the_server_has_lost_is_sent_again(browser: Any) -> None:
    engine = Script(echo)
    with serving(engine, KEPT) as served, Reader(browser, served.url) as reader:
        reader.ask("one")
        reader.answered()
        reader.until("location.hash")
        served.client().responses.delete(reader.evaluate("location.hash.slice(1)"))
        reader.ask("two")
        reader.until("document.querySelectorAll('.flow')[1]?.textContent === 'You said two.'")
        assert "You said one." in served.host.encoding.decode(engine.prompts[-1])
        reader.evaluate("location.hash = 'resp_unknown'")
        reader.until("document.getElementById('notice').textContent.includes('not here any more')")


def test_an_answer_is_taken_up_again_after_an_outage(browser: Any) -> None:
    """The connection breaks; the server goes on, and the page reads on where it stopped."""
    with serving(numbers(150, 0.01), KEPT) as served, Reader(browser, served.url) as reader:
        reader.ask("count")
        reader.until("document.querySelector('.flow')?.textContent.includes('7')")
        reader.context.set_offline(True)
        reader.wait_for_selector("#notice:not([hidden])")
        reader.context.set_offline(False)
        turn = reader.answered()
        assert says(turn) == " ".join(map(str, range(151)))
        # A request that was begun without a connection may fail after the answer is there; then the page looks once more.
        reader.wait_for_selector("#notice", state="hidden")


def test_conversations_are_found_by_words(browser: Any) -> None:
    with serving(Script(echo), KEPT) as served, Reader(browser, served.url) as reader:
        assert not reader.is_visible("#find")
        for question in ("of owls", "of <b>tides</b>", "of OWLS again"):
            reader.click("#new")
            reader.ask(question)
            reader.answered()
        reader.fill("#find", "owls")
        reader.until(f"{LIST}.join() === 'of OWLS again,of owls'")
        reader.fill("#find", "you said of <B>")
        reader.until(f"{LIST}.join() === 'of <b>tides</b>'")
        line(reader, "of <b>tides</b>").locator("a").click()
        reader.until("document.querySelector('.said').textContent === 'of <b>tides</b>'")
        reader.fill("#find", "nobody said this")
        reader.until(
            "document.getElementById('nothing').textContent === 'No conversation holds these words.'"
        )
        reader.fill("#find", "")
        reader.until(f"{LIST}.length === 3")


def test_a_conversation_can_be_saved(browser: Any) -> None:
    said = (
        "<|channel|>analysis<|message|>hm\nhm<|end|><|start|>assistant"
        + FINAL
        + "# Title\n```\nx\n```<|return|>"
    )
    with serving(Script(said), KEPT) as served, Reader(browser, served.url) as reader:
        assert not reader.is_visible("#export")
        reader.ask('What/is "this"?')
        reader.answered()
        with reader.expect_download() as saved:
            reader.get_by_role("button", name="Save this conversation").click()
        assert saved.value.suggested_filename == "What-is-this.md"
        assert Path(saved.value.path()).read_text() == (
            '# What/is "this"?\n\nModel: scripted\n\n## You\n\nWhat/is "this"?\n\n## Answer\n\n> hm\n> hm\n\n# Title\n```\nx\n```\n'
        )


def test_an_answer_that_was_cut_off_goes_on_with_one_click(browser: Any) -> None:
    engine = Script([FINAL + "one two three", FINAL + "four.<|return|>"])
    with serving(engine, KEPT) as served, Reader(browser, served.url) as reader:
        reader.ask("count")
        turn = reader.answered()
        assert turn.locator(".state p").inner_text() == "Cut off: the limit of tokens was reached."
        turn.get_by_role("button", name="Go on").click()
        assert says(reader.answered(2)) == "four."
        assert "one two three" in served.host.encoding.decode(engine.prompts[1])


SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
from motet.server.host import Host
from motet.server.serve import serve
from motet.server.settings import Settings
from serving import E
from test_page_store import numbers
serve(Host(numbers(900, 0.02), E, "scripted", Settings(port=int(sys.argv[2]), store=sys.argv[3])), lambda url: print(url, flush=True))
"""


@pytest.mark.parametrize("kept", [True, False])
def test_a_server_that_is_killed_in_the_middle(browser: Any, tmp_path: Path, kept: bool) -> None:
    """The page says so in a sentence, keeps what has arrived, and goes on when there is a server again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = str(tmp_path / "r.sqlite") if kept else "none"

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SERVER, str(Path(__file__).parent), str(port), store]
        p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert p.stdout is not None and p.stdout.readline().startswith("http")
        return p

    p = begin()
    try:
        with Reader(browser, f"http://127.0.0.1:{port}") as reader:
            reader.ask("count")
            reader.until("document.querySelector('.flow')?.textContent.includes('12')")
            p.kill()
            p.wait()
            reader.wait_for_selector("#notice:not([hidden])")
            assert reader.inner_text("#notice").startswith("Waiting for the server")
            shown = says(reader.locator(".turn"))
            assert shown.startswith("0 1 2 3")
            if not kept:
                assert reader.answered().locator(".state p").inner_text() == "The connection broke off."
            p = begin()
            reader.wait_for_selector("#notice", state="hidden")
            turn = reader.answered()
            if kept:
                said = "The server ended before this response was complete; ask again."
                assert turn.locator(".state p").inner_text() == said
            assert says(turn) == shown
            turn.get_by_role("button", name="Go on").click()
            reader.until("document.querySelectorAll('.flow')[1]?.textContent.includes('12')")
            reader.click("#send")
            reader.answered(2)
    finally:
        p.kill()
        p.wait()


def test_a_question_that_was_refused_does_not_hide_the_next(browser: Any) -> None:
    with serving(Script(echo), KEPT) as served, Reader(browser, served.url) as reader:
        served.host.draining.set()
        reader.ask("refused")
        reader.answered()
        served.host.draining.clear()
        reader.ask("taken")
        reader.answered(2)
        reader.until(f"{LIST}.join() === 'taken'")
        assert reader.get_attribute("#conversations [aria-current]", "title") == "taken"
        reader.reload()
        assert says(reader.answered()) == "You said taken."
        assert reader.input_value("#say") == "refused"
