"""Latency at a fixed rate: half of what a subject reaches.

A round finds the peak and asks at half of it at once: at half of the peak of another moment, in which the
machine was faster, the worker may be busy all the time, and p99 is how long that goes on.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_stack import BenchStack
from load import Latency, oha, wrk
from machine import Machine
from rounds import in_turn
from subjects import Subject, wait_until_it_answers

SECONDS = 2  # of a round, after a second in which the peak is found

# Each at half of its own peak rate.
OWN_RATE = ["direct_response_304", "reply_only_304", "confirmed_304", "cached_200_24k", "service_304"]
# At the rate of the confirmed 304: the same load for all.
SAME_RATE = ["direct_response_304", "reply_only_304"]
NEEDED = {*OWN_RATE}


@dataclass(frozen=True)
class Point:
    name: str
    subject: Subject
    peak_of: Subject


def at_same_rate(name: str) -> str:
    return f"{name}_at_same_rate"


def latencies(
    stack: BenchStack, subjects: Sequence[Subject], rounds: int, directory: Path, machine: Machine
) -> dict[str, list[Latency]]:
    """Of each round, by name."""
    by_name = {subject.name: subject for subject in subjects}
    points = [Point(name, by_name[name], by_name[name]) for name in OWN_RATE]
    # Right before the confirmed 304, which they are compared with.
    at = OWN_RATE.index("confirmed_304")
    points[at:at] = [Point(at_same_rate(name), by_name[name], by_name["confirmed_304"]) for name in SAME_RATE]
    seen: dict[str, list[Latency]] = {point.name: [] for point in points}

    def peak(of: Subject) -> float:
        return wrk(stack.url(of.listener), of.requests, 1, directory)[1]

    def warm() -> None:
        for point in points:
            wait_until_it_answers(stack, point.subject)
            peak(point.subject)

    def renew() -> None:
        stack.restart("envoy")
        warm()

    def measure(point: Point) -> Latency:
        subject, rate = point.subject, peak(point.peak_of) / 2
        return oha(stack.url(subject.listener), subject.requests[0], rate, SECONDS, subject.status)

    warm()
    for turn, point, one in in_turn(points, rounds, measure, machine, renew):
        seen[point.name].append(one)
        shown = f"p50 {one.p50:.2f}  p99 {one.p99:.2f}  p99.9 {one.p999:.2f} ms"
        print(f"{turn}  {point.name:32} at {one.rate:6.0f}/s: {shown}", flush=True)
    return seen


def median(of: list[Latency]) -> Latency:
    return Latency(*(statistics.median(getattr(one, name) for one in of) for name in vars(of[0])))
