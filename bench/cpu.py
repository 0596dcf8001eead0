"""CPU time, memory and cores of processes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))


def leave_a_core() -> None:
    """Takes the last core from this process, and from all that it starts from now on."""
    if len(CORES) > 1:
        os.sched_setaffinity(0, CORES[:-1])


def give_a_core(pid: int) -> None:
    """To a process and all of its threads. It is theirs alone where this process has left one."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), CORES[-1:])


def go_first(pid: int) -> None:
    """Before all others that want a core, with all of a process' threads. Raises PermissionError where the
    kernel does not let this user."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(1))


@contextlib.contextmanager
def on_envoys_core() -> Iterator[None]:
    """This thread runs where Envoy does meanwhile."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES[-1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


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
