"""The python tool's tests again, as a user without rights, when root runs them. A file of its own, to run beside the others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests import unprivileged


@pytest.mark.skipif(os.geteuid() != 0, reason="already a normal user")
@pytest.mark.parametrize("module", ["test_tools_python.py", "test_tools_python_hostile.py"])
def test_the_sandbox_holds_for_a_normal_user(module: str) -> None:
    if shutil.which("bwrap") is None:
        pytest.fail("bubblewrap is missing; install it (Debian: apt-get install bubblewrap).")
    unprivileged.rerun(str(Path(__file__).with_name(module)))
