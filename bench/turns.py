"""How long the turns of workers' event loops take, which Envoy itself times (enable_dispatcher_stats). A
callback cannot be longer than the turn that it is in."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass

import cpu
from bench_stack import PlainStack
from stack.launcher import Stack
from stack.processes import StackError

WORKERS = 2
FLUSH = 5.5  # seconds in which Envoy tells what its histograms hold
LONG = 5_000.0  # microseconds


class TimedStack(PlainStack):
    """Envoy times the turns of its event loops. It shares all cores, and goes first where the kernel lets it:
    what is timed are its callbacks, not how long they wait for a core."""

    def start_envoy(self, wait_ready: bool = True) -> None:
        Stack.start_envoy(self, wait_ready)
        with contextlib.suppress(PermissionError):
            cpu.go_first(self.processes["envoy"].pid)

    def _write(self, name: str, text: str) -> None:
        if name == "bootstrap.yaml":
            text += "\nenable_dispatcher_stats: true\n"
        super()._write(name, text)

    def turns(self) -> Turns:
        """Of the workers' event loops, since Envoy started."""
        time.sleep(FLUSH)
        query = "format=json&histogram_buckets=disjoint&filter=worker_.*dispatcher.loop_duration_us"
        with urllib.request.urlopen(f"{self.admin_url}/stats?{query}", timeout=15) as answer:
            (found,) = [
                one["histograms"] for one in json.loads(answer.read())["stats"] if "histograms" in one
            ]
        counted: Counter[float] = Counter()
        for bucket in (bucket for histogram in found for bucket in histogram["buckets"]):
            counted[bucket["upper_bound"]] += bucket["cumulative"]
        return Turns(counted)


@dataclass(frozen=True)
class Turns:
    """How many turns took so many microseconds at most, and longer than the next lower bound."""

    by_bound: Counter[float]

    def since(self, before: Turns) -> dict[str, float]:
        """As in bench/results.json."""
        taken = self.by_bound - before.by_bound
        return {
            "turns": sum(taken.values()),
            "turns_above_5_ms": sum(times for bound, times in taken.items() if bound > LONG),
            "longest_turn_below_ms": max(taken, default=0) / 1_000,
        }


def one_to_each_worker(stack: Stack) -> list[http.client.HTTPConnection]:
    """A connection to each worker. The kernel says which one gets a connection, so they are tried."""
    port = stack.settings.edge_port
    found: dict[str, http.client.HTTPConnection] = {}
    for _ in range(200):
        before = active(stack)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.connect()
        stack.wait_until(lambda before=before: sum(active(stack).values()) > sum(before.values()))
        now = active(stack)
        worker = next(name for name in now if now[name] > before.get(name, 0))
        if worker in found:
            connection.close()
            stack.wait_until(lambda: sum(active(stack).values()) == len(found))
            continue
        found[worker] = connection
        if len(found) == WORKERS:
            return list(found.values())
    raise StackError(f"no connection to each of {WORKERS} workers")


def active(stack: Stack) -> dict[str, int]:
    """Connections, by worker."""
    start = f"listener.127.0.0.1_{stack.settings.edge_port}.worker_"
    return {
        name: value
        for name, value in stack.stats().items()
        if name.startswith(start) and name.endswith("downstream_cx_active")
    }
