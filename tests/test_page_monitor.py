"""The monitor's panel on the page, in a real browser: alarms and the load of the experts as they are, and no text of anybody's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from browsing import Reader, chromium
from motet.engine import Engine
from motet.model import load
from motet.server.settings import Settings
from serving import Script, serving

LOOPS = f"<|channel|>analysis<|message|>{'wait no ' * 60}<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


def test_alarms_are_told_by_kind_and_place_while_one_looks(browser: Any) -> None:
    settings = Settings(port=0, store="none", watch=("loop=stop",))
    with serving(Script(LOOPS, free=True), settings) as served, Reader(browser, served.url) as reader:
        reader.click("#monitor")
        reader.until("document.querySelector('#alarms td') !== null")
        assert "0 turns" in reader.inner_text("#watched") and "No choice of experts" in reader.inner_text(
            "#routed"
        )
        served.client().responses.create(model="scripted", input="round and round")
        reader.until(
            "document.querySelector('#alarms tbody td:nth-child(4)').textContent === '1'"
        )  # without opening it again
        row = reader.locator("#alarms tbody tr").first.locator("td").all_inner_texts()
        assert row[0] == "loop" and row[2] == "stop" and row[4].startswith("analysis, token ")
        assert "wait no" not in reader.inner_text("#watch") and "round" not in reader.inner_text("#watched")
        reader.keyboard.press("Escape")
        reader.until("!document.getElementById('watch').open && document.activeElement.id === 'monitor'")


def test_the_experts_are_shown_by_layer_and_channel(browser: Any) -> None:
    model = load("mini", threads=1)
    with (
        Engine(model, record_routes=True) as engine,
        serving(engine, name="mini", encoding=model.encoding) as served,
        Reader(browser, served.url) as reader,
    ):
        reader.ask("What is 12 + 7?")
        reader.answered()
        reader.click("#monitor")
        reader.until("document.querySelector('#experts svg') !== null")
        c = model.config
        assert reader.locator("#experts rect").count() == c.num_hidden_layers * c.num_experts
        layers, channels = reader.locator("#experts table").all()
        assert layers.locator("tbody tr").count() == c.num_hidden_layers
        names = channels.locator("tbody td:first-child").all_inner_texts()
        assert {"prompt", "analysis", "final", "all"} <= set(names)
        shown = float(channels.locator("tbody tr", has_text="all").locator("td").nth(4).inner_text())
        held = served.host.monitor.state()["router"]["channels"]["all"]["effective"]
        assert shown == pytest.approx(held, rel=0.01) and 1 < shown <= c.num_experts


def test_a_server_that_watches_nothing_says_so(browser: Any) -> None:
    with (
        serving(Script("x"), Settings(port=0, store="none", watch=("off",))) as served,
        Reader(browser, served.url) as reader,
    ):
        reader.click("#monitor")
        reader.until("document.getElementById('watched').textContent.includes('--watch off')")
