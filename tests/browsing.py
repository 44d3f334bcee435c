"""Debian's Chromium for the tests of the page, and what they ask of it; where there is none they are skipped, saying so."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def chromium() -> Iterator[Any]:
    """A browser, for a fixture."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Reader:
    """Somebody who reads the page. What the browser complains of, or asks of other hosts, is noted in `wrong`."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.url = url
        self.wrong: list[str] = []
        self.context = browser.new_context(viewport={"width": 1100, "height": 800}, **context)
        self.context.set_default_timeout(40_000)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda e: self.wrong.append(f"error: {e}"))
        self.page.on("dialog", lambda d: (self.wrong.append(f"dialog: {d.message}"), d.dismiss()))
        self.page.on("request", self._request)
        self.page.goto(url)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "blob:")):
            self.wrong.append(f"asked {request.url}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert not self.wrong

    def ask(self, text: str) -> None:
        """Types a question and sends it."""
        self.fill("#say", text)
        self.press("#say", "Enter")

    def answered(self, turn: int = 1) -> Any:
        """The n-th turn, when its answer is over."""
        self.wait_for_selector(f".turn:nth-child({turn}) .answer[aria-busy=false]")
        return self.locator(f".turn:nth-child({turn})")

    def until(self, script: str) -> None:
        """Waits until an expression is true. By asking: Playwright's own way needs eval, which the page's policy forbids."""
        end = time.monotonic() + 40
        while not self.evaluate(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)
