"""What the programs of the stack find in their environment."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from stack import processes


def test_a_variable_that_is_empty_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make up` exports DATABASE_URL and FLAGSMITH_CONFIG whether they are set or not."""
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("FLAGSMITH_CONFIG", "edge.json")
    code = "import os; print(os.environ.get('DATABASE_URL'), os.environ.get('FLAGSMITH_CONFIG'))"
    process = processes.start("program", [sys.executable, "-c", code], tmp_path, environment={"CONFIG": ""})
    deadline = time.monotonic() + 10
    while process.alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (tmp_path / "program.log").read_text() == "None edge.json\n"
