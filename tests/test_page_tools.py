"""Tools of the server on the page: a real sandbox with its output and plot, a real folder with its sources; nothing they say is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import Reader, chromium
from motet.server.settings import Settings
from motet.tools import sandbox
from serving import Script, serving

FINAL = "<|channel|>final<|message|>"
PLOT = """import matplotlib.pyplot as plt
plt.plot([1, 4, 9])
plt.show()
open("/mnt/data/<b>t.csv", "w").write("a,b")
print("<img src=x onerror='window.ran=1'>", 6 * 7)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


def says(turn: Any) -> str:
    """What is said in the end."""
    return str(turn.locator(".flow > .prose").last.inner_text())


def test_python_runs_in_its_sandbox_and_the_plot_is_on_the_page(browser: Any) -> None:
    """The switch sends the tool; code, output and plot are shown, also from the store; output is text."""
    try:
        sandbox.choose(None)
    except Exception:
        pytest.skip("nothing here can confine a process; install bubblewrap")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    think = "<|channel|>analysis<|message|>A plot.<|end|><|start|>assistant"
    call = f"{think}<|channel|>analysis to=python code<|message|>{PLOT}<|call|>"
    engine = Script(lambda prompt: FINAL + "Here it is.<|return|>" if " 42" in prompt else call)
    settings = Settings(port=0, store="memory", tools=("python",))
    with serving(engine, settings) as served, Reader(browser, served.url) as reader:
        reader.context.set_default_timeout(60_000)  # a first plot takes its time
        reader.get_by_role("checkbox", name="Python").check()
        reader.ask("Plot it.")
        for _ in ("streamed", "from the store"):
            turn = reader.answered()
            picture = turn.locator(".call img")
            picture.wait_for()
            assert says(turn) == "Here it is."
            summary = turn.locator(".call summary")
            assert summary.inner_text() == "Ran Python, 5 lines"
            summary.click()
            assert turn.locator(".code code").inner_text() == PLOT
            assert "<img src=x onerror='window.ran=1'> 42" in turn.locator(".output").inner_text()
            assert picture.get_attribute("alt") == "Picture 1 made by the code"
            reader.until("document.querySelector('.call img').naturalWidth > 300")
            files = turn.locator(".files button")
            plot, table = files.all_inner_texts()
            assert plot.startswith("plot-1.png\n") and table == "<b>t.csv\n3 bytes"
            with reader.expect_download() as saved:
                files.last.click()
            assert saved.value.suggested_filename.endswith("t.csv")
            assert Path(saved.value.path()).read_bytes() == b"a,b"
            assert reader.evaluate("window.ran") is None and turn.locator("img").count() == 1
            assert [v["id"] for v in axe.run(reader.page).response["violations"]] == []
            reader.reload()
        reader.answered()
        assert reader.locator("#tools input").is_checked()
        reader.ask("Again.")  # the call and its result are in the history
        assert says(reader.answered(2)) == "Here it is."
        assert PLOT in served.host.encoding.decode(engine.prompts[-1])


def test_what_was_read_is_listed_with_links(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "tides.md").write_text("# Tides\n\nThe moon pulls the sea.\n")
    calls = [
        '<|channel|>analysis to=browser.search code<|message|>{"query": "moon"}<|call|>',
        '<|channel|>analysis to=browser.open code<|message|>{"id": 0}<|call|>',
        FINAL + "The moon does\u30101\u2020L2\u3011.<|return|>",
    ]
    settings = Settings(port=0, store="memory", tools=(f"browser:{tmp_path}",))
    with serving(Script(calls), settings) as served, Reader(browser, served.url) as reader:
        reader.get_by_role("checkbox", name="Browser").check()
        reader.ask("Why are there tides?")
        turn = reader.answered()
        searched, opened = turn.locator(".call summary").all_inner_texts()
        assert searched == "Searched moon" and opened.startswith("Opened ") and "tides.md" in opened
        file = f"{tmp_path.name}/tides.md"  # a page of the server's own, which no link leads to
        assert says(turn).startswith(f"The moon does ({file})")
        assert turn.locator(".sources li").all_inner_texts() == [file]
