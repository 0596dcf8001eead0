"""Rounds in which subjects take turns, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import cpu
from bench_stack import BenchStack
from load import Request, wrk
from subjects import Subject, wait_until_it_answers

from processes import StackError
from stack import Stack

T = TypeVar("T")


def in_turn(subjects: Sequence[T], rounds: int) -> Iterator[tuple[str, T]]:
    """Every other round the other way round: whoever comes second is not always the same."""
    for number in range(rounds):
        for subject in subjects[:: -1 if number % 2 else 1]:
            yield f"round {number + 1}/{rounds}", subject


@dataclass
class Measured:
    """One entry for each round."""

    rates: list[float] = field(default_factory=list)  # requests per second
    cpu_seconds: list[float] = field(default_factory=list)  # per million requests

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpu_seconds)


def throughput(
    stack: BenchStack, subjects: Sequence[Subject], rounds: int, seconds: int, directory: Path
) -> tuple[dict[str, Measured], float]:
    """By name; and how many callouts each request of `callout_200_24k` cost."""
    for subject in subjects:
        wait_until_it_answers(stack, subject)
        _round(stack, subject, 1, directory)
    measured = {subject.name: Measured() for subject in subjects}
    callouts = requests = 0
    for turn, subject in in_turn(subjects, rounds):
        before = stack.stats()
        done, rate, spent = _round(stack, subject, seconds, directory)
        if subject.name == "callout_200_24k":
            name = "cluster.flag_definitions_redis.upstream_rq_total"
            callouts += stack.stats()[name] - before[name]
            requests += done
        of = measured[subject.name]
        of.rates.append(rate)
        of.cpu_seconds.append(spent / done * 1e6)
        print(f"{turn}  {subject.name:26} {rate:9.0f}/s {of.cpu_seconds[-1]:7.1f} CPU s/million", flush=True)
    return measured, callouts / requests if requests else 0.0


def _round(stack: BenchStack, subject: Subject, seconds: int, directory: Path) -> tuple[int, float, float]:
    """Requests, requests per second, CPU seconds. Fails when an answer has another status than it should."""
    pids = stack.pids()
    spent = cpu.seconds(pids)
    done, rate = answered(
        stack,
        subject.listener,
        stack.url(subject.listener),
        subject.status,
        subject.requests,
        seconds,
        directory,
    )
    return done, rate, cpu.seconds(pids) - spent


def answered(
    stack: Stack,
    stat_prefix: str,
    url: str,
    status: int,
    requests: Sequence[Request],
    seconds: int,
    directory: Path,
) -> tuple[int, float]:
    """Requests, and requests per second. Fails when an answer is of another class of status than `status`."""
    before = stack.stats()
    done, rate = wrk(url, requests, seconds, directory)
    counters = {f"http.{stat_prefix}.downstream_rq_{kind}xx": kind for kind in (1, 2, 3, 4, 5)}
    after = stack.stats()
    others = {
        name: after[name] - before.get(name, 0)
        for name, kind in counters.items()
        if kind != status // 100 and after.get(name, 0) > before.get(name, 0)
    }
    if others:
        raise StackError(f"not every answer was a {status}: {others}")
    return done, rate
