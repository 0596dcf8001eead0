"""What the benchmarks' commands share: numbers that make sense, an end that stops everything and says why."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paths  # noqa: F401  # lets the next be found
from stack.processes import StackError, end_on_signals


def positive(text: str) -> int:
    """A whole number above 0."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def need(target: str, *tools: str) -> None:
    """Ends the process when a tool is missing that `make` installs for this target."""
    for tool in tools:
        if shutil.which(tool) is None:
            sys.exit(f"error: {tool} is not installed; run: make {target}")


@contextmanager
def measuring() -> Iterator[Path]:
    """A directory for what is measured in it. Ends the process when that fails, or is interrupted."""
    end_on_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            yield Path(directory)
    except StackError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was written")
