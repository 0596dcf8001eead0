"""Programs that a stack runs: where they are, and under which clock."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from stack.paths import INTEGRATION
from stack.processes import StackError


def clock_ahead(seconds: int, directory: Path) -> dict[str, str]:
    """The environment in which a program's wall clock is so many seconds ahead, or behind when negative."""
    library = directory / "clock.so"
    if not library.exists():
        command = [tool("cc"), "-shared", "-fPIC", "-O2", "-o", library, INTEGRATION / "stack/clock.c"]
        subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(seconds)}


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise StackError(f"{name} is not installed; run: make setup")
    return path


def require(path: Path, remedy: str = "make build") -> Path:
    if not path.exists():
        raise StackError(f"{path} is missing; run: {remedy}")
    return path.resolve()
