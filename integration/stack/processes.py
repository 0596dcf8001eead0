"""Processes of the stack: started in sessions of their own, stopped by pid and never by name."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

TERMINATE = signal.SIGTERM  # `Process` has a method of the name `signal`


class StackError(Exception):
    """What went wrong, in words for the person at the terminal."""


def end_on_signals() -> None:
    """SIGTERM and SIGINT raise KeyboardInterrupt, so that everything started is stopped. A second signal, as
    `timeout` and a terminal send to a whole group, does not end the end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


@dataclass(frozen=True)
class Process:
    """A pid with the moment its process began: a pid alone may belong to somebody else by now."""

    name: str
    pid: int
    started: str
    log: str

    def alive(self) -> bool:
        return self.pid > 0 and start_time(self.pid) == self.started

    def signal(self, number: int) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def stop(self, timeout: float = 10.0, first: int = TERMINATE) -> None:
        """The `first` signal, then SIGKILL when it is still there after `timeout` seconds. Idempotent."""
        self.signal(first)
        self.signal(signal.SIGCONT)  # a stopped process sees no other signal
        if not self._gone_within(timeout):
            self.kill()

    def kill(self) -> None:
        """SIGKILL and wait: what a crash looks like to the others."""
        self.signal(signal.SIGKILL)
        self._gone_within(30.0)

    def last_lines(self, count: int = 15) -> str:
        return tail(Path(self.log), count)

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def start_time(pid: int) -> str | None:
    """Field 22 of /proc/<pid>/stat (clock ticks since boot), or None for a dead process or a zombie."""
    ends = False
    with contextlib.suppress(OSError):
        # Reap it if it is our child. A zombie that cannot be reaped has threads that have not ended, and may
        # still hold its ports.
        ends = os.waitpid(pid, os.WNOHANG) == (0, 0)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name is in brackets and may contain anything, brackets and blanks included.
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] in "ZX" and not ends else fields[19]


def start(
    name: str,
    command: Sequence[object],
    directory: Path,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Starts a program in `directory`. `environment` comes on top of this process's own. What is empty there
    counts as not set: Make exports variables that nobody set."""
    variables = os.environ | (environment or {})
    log = directory / f"{name}.log"
    with log.open("ab") as out:
        child = subprocess.Popen(
            [str(word) for word in command],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal must reach the launcher alone, which then stops the rest in order.
            start_new_session=True,
            pass_fds=pass_fds,
            env={variable: value for variable, value in variables.items() if value},
        )
    # Popen would warn about a child it did not reap; `start_time` reaps it.
    child.returncode = 0
    return Process(name, child.pid, start_time(child.pid) or "", str(log))


def tail(path: Path, count: int) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return ""
    return "\n".join(line[:500] for line in lines)


def save(path: Path, processes: Sequence[Process]) -> None:
    replace(path, json.dumps([asdict(process) for process in processes], indent=1))


def load(path: Path) -> list[Process]:
    try:
        return [Process(**entry) for entry in json.loads(path.read_text())]
    except FileNotFoundError:
        return []


def replace(path: Path, text: str) -> None:
    """Writes beside and renames: a reader (Envoy watches for the move) never sees half a file."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    beside.replace(path)
