"""Rounds in which subjects take turns, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import cpu
from bench_stack import BenchStack
from load import Request, wrk
from machine import Machine
from stack.launcher import Stack
from stack.processes import StackError
from subjects import Subject, wait_until_it_answers

T = TypeVar("T")
R = TypeVar("R")

# Where code and data of a filter happen to lie in memory makes it up to a tenth faster or slower for as long
# as that Envoy lives. An even number, for every other round goes backwards.
ROUNDS_OF_AN_ENVOY = 2


def in_turn(
    subjects: Sequence[T],
    rounds: int,
    measure: Callable[[T], R],
    machine: Machine,
    renew: Callable[[], None],
    rounds_of_an_envoy: int = ROUNDS_OF_AN_ENVOY,
) -> Iterator[tuple[str, T, R]]:
    """What `measure` says of each. Every other round the other way round: whoever comes second is not always
    the same. `renew` puts another Envoy, warmed up, in the place of the one that is there."""
    for number in range(rounds):
        if number and number % rounds_of_an_envoy == 0:
            renew()
        for subject in subjects[:: -1 if number % 2 else 1]:
            yield f"round {number + 1}/{rounds}", subject, machine.measure(partial(measure, subject))


@dataclass(frozen=True)
class Round:
    requests: int
    rate: float  # requests per second
    cpu_seconds: float  # of all processes of the stack
    callouts: int

    @property
    def cpu(self) -> float:
        """CPU seconds per million requests."""
        return self.cpu_seconds / self.requests * 1e6


@dataclass
class Measured:
    rounds: list[Round] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(one.rate for one in self.rounds)

    @property
    def cpu(self) -> float:
        """CPU seconds per million requests."""
        return statistics.median(one.cpu for one in self.rounds)

    @property
    def callouts(self) -> float:
        """Per request; those of the filter's jobs are in it."""
        return sum(one.callouts for one in self.rounds) / sum(one.requests for one in self.rounds)

    def figures(self) -> dict[str, list[float]]:
        """Of each round, as in bench/results.json."""
        return {
            "rate": [round(one.rate) for one in self.rounds],
            "cpu_seconds_per_million": [round(one.cpu, 2) for one in self.rounds],
        }


def throughput(
    stack: BenchStack,
    subjects: Sequence[Subject],
    rounds: int,
    seconds: int,
    directory: Path,
    machine: Machine,
) -> dict[str, Measured]:
    """By name."""

    def measure(subject: Subject, seconds: int = seconds) -> Round:
        url, requests = stack.url(subject.listener), subject.requests
        return measure_round(stack, subject.listener, url, subject.status, requests, seconds, directory)

    def warm() -> None:
        for subject in subjects:
            wait_until_it_answers(stack, subject)
            measure(subject, 1)

    def renew() -> None:
        stack.restart("envoy")
        warm()

    measured = {subject.name: Measured() for subject in subjects}
    warm()
    for turn, subject, one in in_turn(subjects, rounds, measure, machine, renew):
        measured[subject.name].rounds.append(one)
        print(f"{turn}  {subject.name:26} {one.rate:9.0f}/s {one.cpu:7.1f} CPU s/million", flush=True)
    return measured


def measure_round(
    stack: Stack,
    stat_prefix: str,
    url: str,
    status: int,
    requests: Sequence[Request],
    seconds: int,
    directory: Path,
) -> Round:
    """Fails when an answer is of another class of status than `status`."""
    pids = [process.pid for process in stack.processes.values()]
    before, spent = stack.stats(), cpu.seconds(pids)
    done, rate = wrk(url, requests, seconds, directory)
    spent = cpu.seconds(pids) - spent
    after = stack.stats()

    def counted(name: str) -> int:
        return after.get(name, 0) - before.get(name, 0)

    others = {kind: counted(f"http.{stat_prefix}.downstream_rq_{kind}xx") for kind in (1, 2, 3, 4, 5)}
    del others[status // 100]
    if any(others.values()):
        raise StackError(f"not every answer was a {status}: {others}")
    return Round(done, rate, spent, counted("cluster.flag_definitions_redis.upstream_rq_total"))
