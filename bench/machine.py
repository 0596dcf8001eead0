"""How fast the machine is just now.

A virtual core may be much slower for seconds at a time, and some programs suffer more from that than others.
Rounds of such a time say little.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import cpu

T = TypeVar("T")

# Work of some 12 ms that needs caches as a server does: an interpreter, a heap of small objects, text.
TEXT = json.dumps([{"id": n, "name": f"name-{n}", "values": [n, 2 * n, str(n)]} for n in range(400)])
TURNS = 25

SLOW = 1.2  # times as long as it can be done
TRIES = 4  # of a round
FIRST = 50  # tries, to know how long it takes at best
PAUSE = 0.1  # seconds between two looks whether the machine is fast again


def time_of_some_work() -> float:
    """Seconds, on Envoy's core."""
    with cpu.on_envoys_core():
        began = time.perf_counter()
        for _ in range(TURNS):
            json.dumps(sorted(json.loads(TEXT), key=lambda one: one["name"]))
        return time.perf_counter() - began


@dataclass
class Machine:
    """Lets rounds begin while the machine is fast, and does those again that it spoilt, whoever's they are.
    Both take `patience` seconds at most, to which each part of a run adds its `share`."""

    patience: float = 0.0
    share: float = 0.0
    rounds: int = 0
    repeated: int = 0
    slow: int = 0  # that count nevertheless
    waited: float = 0.0  # seconds
    best: float = field(default_factory=lambda: min(time_of_some_work() for _ in range(FIRST)))

    def begin_part(self) -> None:
        self.patience += self.share

    def measure(self, one_round: Callable[[], T]) -> T:
        """What the round says that was done while the machine was fast, or the least slow of some."""
        self.rounds += 1
        tried: list[tuple[float, T]] = []
        while True:
            before, began = self._wait(), time.monotonic()
            result = one_round()
            tried.append((max(before, self._slowness()), result))
            if tried[-1][0] <= SLOW:
                return result
            if len(tried) == TRIES or self.patience <= 0:
                self.slow += 1
                return min(tried, key=lambda one: one[0])[1]
            self.repeated += 1
            self.patience -= time.monotonic() - began

    def _wait(self) -> float:
        """Returns how slow the machine is when it is fast, or patience ends."""
        began = time.monotonic()
        while (slowness := self._slowness()) > SLOW and time.monotonic() - began < self.patience:
            time.sleep(PAUSE)
        waited = time.monotonic() - began
        self.waited += waited
        self.patience -= waited
        return slowness

    def _slowness(self) -> float:
        took = time_of_some_work()
        self.best = min(self.best, took)
        return took / self.best

    def figures(self) -> dict[str, int]:
        """As in bench/results.json."""
        return {
            "rounds": self.rounds,
            "repeated": self.repeated,
            "slow_nevertheless": self.slow,
            "seconds_waited": round(self.waited),
        }
