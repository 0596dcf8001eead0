"""How many instructions the work between requests takes: a tick, and each job that ticks do.

A tick cannot be told from the rest of an Envoy, so each figure is a difference of two phases with the same
requests. In the one the plugin configuration makes a job frequent, in the other one rare. What the one takes
more, divided by how much more often it does the job, is what one of them adds: callout, reply, and the ticks
beside the usual ones. Redis counts the jobs, by their commands. Ticks are counted in Envoy's trace log,
while instructions are not.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests

from counted import CountedStack
from documents import write_document
from load import Request
from stack.paths import WASM
from stack.processes import StackError
from stack.running import definitions_key
from subjects import ALL_ON, CALLOUT_TEAMS, TEAM, definitions_request, fill, send, stack_for

# Hardly anything is due: one tick a second in the worker's VM, and one in the main thread's.
REST: dict[str, Any] = ALL_ON | {
    "snapshot": {"poll_interval": "60s", "refuse_max_age": "2m"},
    "usage": {"enabled": False, "flush_interval": "60s"},
    "quota": {"interval": "10m"},
    "rebuild": {"kind": "off"},
    # Under valgrind a callout may take long.
    "redis": {"default": {"timeout": "5s"}},
}
# Ticks are no further apart than the flush interval, also where there is nothing to flush.
TICKING = REST | {"usage": {"enabled": False, "flush_interval": "100ms"}}
POLLING = TICKING | {"snapshot": {"poll_interval": "100ms", "refuse_max_age": "2m"}}
COUNTING = REST | {"usage": {"flush_interval": "60s"}}
FLUSHING = REST | {"usage": {"flush_interval": "100ms"}}
READING = REST | {"quota": {"interval": "1s"}}
REBUILDING = REST | {"rebuild": {"kind": "sorted_set", "repeat_after": "1s"}}
FOLLOWING = REST | {"snapshot": {"poll_interval": "1s", "refuse_max_age": "2m"}}

PACE = 0.1  # seconds from one request to the next
# So many that a team's turn comes after its signal may be repeated, and after its miss is forgotten.
WITHOUT_PAYLOAD = range(CALLOUT_TEAMS[0], CALLOUT_TEAMS[0] + 30)
LOADED = 5_000  # teams, with a secret each
LOAD_TIMEOUT = 300.0  # seconds


@dataclass(frozen=True, eq=False)
class Phase:
    """A plugin configuration, and what is asked while it is in force."""

    config: dict[str, Any]
    requests: tuple[Request, ...] = ()
    status: int = 0


@dataclass(frozen=True)
class Job:
    """What ticks do, by the name that it has in bench/results.json."""

    name: str
    often: Phase
    seldom: Phase
    command: str  # of Redis; each of them sends one


AT_REST, TICKS = Phase(REST), Phase(TICKING)
BILLED = (definitions_request(TEAM),)
MISSED = tuple(definitions_request(team) for team in WITHOUT_PAYLOAD)
JOBS = [
    Job("snapshot_poll", Phase(POLLING), TICKS, "eval_ro"),
    Job("usage_flush", Phase(FLUSHING, BILLED, 200), Phase(COUNTING, BILLED, 200), "eval"),
    Job("quota_read", Phase(READING), AT_REST, "zrangebyscore"),
    Job("rebuild_request", Phase(REBUILDING, MISSED, 503), Phase(REST, MISSED, 503), "zadd"),
]


@dataclass(frozen=True)
class Sample:
    """What happened in a second of a phase; commands by their names."""

    instructions: float
    commands: dict[str, float]


@dataclass
class Traced:
    """What the trace log says of a time."""

    seconds: float = 0.0
    ticks: int = 0


@dataclass
class Ticks:
    """Counts on a stack that has the filter's own listener alone."""

    stack: CountedStack
    seconds: float  # of a sample
    warm: float  # seconds until what a configuration needs is compiled, and the one before is gone

    def enter(self, phase: Phase) -> None:
        if not self.stack.change_config(phase.config, timeout=120):
            raise StackError("Envoy refused a configuration of bench/ticks.py")
        self.pass_time(phase, self.warm)

    def pass_time(self, phase: Phase, seconds: float) -> None:
        """Asks at a pace for so long."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.ports["edge"], timeout=60)
        for number in range(round(seconds / PACE)):
            time.sleep(max(0.0, began + number * PACE - time.monotonic()))
            if phase.requests:
                answer = send(connection, phase.requests[number % len(phase.requests)])
                answer.read()
                if answer.status != phase.status:
                    raise StackError(f"an Envoy this slow answers {answer.status} and not {phase.status}")
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        connection.close()

    def sample(self, phase: Phase) -> Sample:
        self.enter(phase)
        # What passes until the counter is read passes at both ends alike.
        before, began = self.commands(), time.monotonic()
        self.stack.counted()
        self.pass_time(phase, self.seconds)
        after, took = self.commands(), time.monotonic() - began
        instructions = self.stack.counted()
        return Sample(instructions / took, {name: (after[name] - before[name]) / took for name in after})

    def commands(self) -> dict[str, int]:
        """How often Redis was sent those that tell one of the jobs."""
        known = self.stack.redis.info("commandstats")
        return {job.command: known.get(f"cmdstat_{job.command}", {}).get("calls", 0) for job in JOBS}

    def per_second(self, phase: Phase) -> float:
        """How many ticks there are."""
        self.enter(phase)
        with self.traced() as found:
            time.sleep(self.seconds)
        return found.ticks / found.seconds

    @contextmanager
    def traced(self) -> Iterator[Traced]:
        """Ticks in the meantime, from the trace log."""
        self._log_level("trace")
        found, before, began = Traced(), len(self.stack.log("envoy")), time.monotonic()
        yield found
        found.seconds = time.monotonic() - began
        found.ticks = self.stack.log("envoy")[before:].count("[host->vm] proxy_on_tick(")
        self._log_level("info")

    def _log_level(self, level: str) -> None:
        url = f"{self.stack.admin_url}/logging?wasm={level}"
        requests.post(url, timeout=60).raise_for_status()


def counted(directory: Path, wasm: Path = WASM, quick: bool = False) -> Iterator[tuple[str, int]]:
    """Instructions, by the name of what takes them."""
    samples, seconds, warm = (1, 5.0, 3.0) if quick else (3, 10.0, 4.0)
    stack = stack_for(directory, CountedStack)
    stack.listeners = {}
    stack.settings = replace(stack.settings, wasm=wasm, config=REST, log_level="info", drain_seconds=1)
    with stack:
        fill(stack)
        stack.redis.delete(*map(definitions_key, WITHOUT_PAYLOAD))
        ticks = Ticks(stack, seconds, warm)
        phases = [AT_REST, TICKS, *(phase for job in JOBS for phase in (job.often, job.seldom))]
        found: dict[Phase, list[Sample]] = {phase: [] for phase in phases}
        for phase in found:
            ticks.enter(phase)
        more_ticks = ticks.per_second(TICKS) - ticks.per_second(AT_REST)
        loading = Loading(ticks, directory)
        stack.control("--instr=on")
        for _ in range(samples):
            for phase, taken in found.items():
                taken.append(ticks.sample(phase))

        def least(phase: Phase) -> Sample:
            """What comes on top now and then, as V8's compiling, is no job's."""
            return min(found[phase], key=lambda sample: sample.instructions)

        more = least(TICKS).instructions - least(AT_REST).instructions
        yield "idle_tick", round(more / more_ticks)
        for job in JOBS:
            often, seldom = least(job.often), least(job.seldom)
            times = often.commands[job.command] - seldom.commands[job.command]
            if times <= 0:
                raise StackError(f"{job.name} was not done more often")
            yield job.name, round((often.instructions - seldom.instructions) / times)
        yield "load_tick", round(min(loading.instructions_per_tick() for _ in range(samples)))
        stack.control("--instr=off")


class Loading:
    """Loads of one snapshot: as many ticks each time."""

    def __init__(self, ticks: Ticks, directory: Path) -> None:
        self.ticks, self.phase = ticks, Phase(FOLLOWING)
        self.document = directory / "loaded.json"
        write_document(self.document, teams=LOADED)
        usual = ticks.per_second(self.phase)
        with ticks.traced() as found:
            self.load()
        self.more_ticks = found.ticks - usual * found.seconds

    def load(self) -> None:
        """Publishes; returns when all of it is live, and what was before is swept away."""
        stack = self.ticks.stack

        def times() -> int:
            return stack.log("envoy").count(" loaded, as of ")

        before = times()
        stack.publish(self.document)
        stack.wait_until(lambda: times() > before, timeout=LOAD_TIMEOUT)
        time.sleep(1)

    def instructions_per_tick(self) -> float:
        """Of one that has a slice of the snapshot."""
        usual = self.ticks.sample(self.phase).instructions
        began = time.monotonic()
        self.ticks.stack.counted()
        self.load()
        took = time.monotonic() - began
        return (self.ticks.stack.counted() - usual * took) / self.more_ticks
