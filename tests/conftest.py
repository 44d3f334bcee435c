"""What several tests share: how long hypothesis looks, and the reference implementation of Harmony, offline."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from motet.tokenizer import O200K_FILE

_CALM = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("quick", max_examples=60, **_CALM)
settings.register_profile("full", max_examples=5000, **_CALM)
settings.load_profile("full" if os.environ.get("MOTET_FUZZ") == "full" else "quick")


@pytest.fixture(scope="session")
def oss_harmony_encoding(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """openai_harmony's HarmonyGptOss encoding, reading our copy of the vocabulary (it checks the hash itself)."""
    openai_harmony = pytest.importorskip("openai_harmony")
    folder = tmp_path_factory.mktemp("encodings")
    (folder / "o200k_base.tiktoken").write_bytes(gzip.decompress(O200K_FILE.read_bytes()))
    before = os.environ.get("TIKTOKEN_ENCODINGS_BASE")
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(folder)
    try:
        return openai_harmony.load_harmony_encoding(openai_harmony.HarmonyEncodingName.HARMONY_GPT_OSS)
    finally:
        if before is None:
            del os.environ["TIKTOKEN_ENCODINGS_BASE"]
        else:
            os.environ["TIKTOKEN_ENCODINGS_BASE"] = before


@pytest.fixture
def compared(record_property: Callable[[str, object], None]) -> Iterator[Callable[..., None]]:
    """`compared("conversations")` counts one, `compared("sequences", 5)` five; the run ends with the sums."""
    counts: Counter[str] = Counter()

    def count(what: str, n: int = 1) -> None:
        counts[what] += n

    yield count
    for what, n in counts.items():
        record_property("compared", f"{n:,} {what}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file of few tests that take minutes goes first: at the end the other cores would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_tools_python_user.py")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The counts of `compared`, one test a line."""
    lines = [
        f"{report.nodeid.split('::')[-1]}: {value}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for name, value in report.user_properties
        if name == "compared"
    ]
    if lines and os.environ.get("MOTET_FUZZ") == "full":
        terminalreporter.section("compared")
        for line in sorted(lines):
            terminalreporter.write_line(line)
