"""CPU time and memory of processes, from /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def seconds(pids: Iterable[int]) -> float:
    """CPU time that these processes have taken so far, all of their threads, in user and kernel mode."""
    return sum(map(_ticks, pids)) / TICKS


def rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    if not found:
        raise ValueError(f"process {pid} has ended")
    return int(found[1]) * 1024


def _ticks(pid: int) -> int:
    # The command name is in brackets and may contain anything, brackets and blanks included.
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
