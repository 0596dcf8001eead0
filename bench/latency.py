"""Latency at a fixed rate: half of what a subject reaches."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench_stack import BenchStack
from load import Latency, oha
from rounds import in_turn
from subjects import Subject

# Seconds of a round: longer than the 5 s between two flushes of Envoy's statistics, by the main thread on the
# worker's core. In a shorter round a stall of 20 ms touches no request, or more than one in a hundred.
SECONDS = 6

# Each at half of its own peak rate.
OWN_RATE = ["direct_response_304", "reply_only_304", "confirmed_304", "cached_200_24k", "service_304"]
# Envoy's own answer at the rate of the confirmed 304: the same load for both.
SAME_RATE = "direct_response_304_at_same_rate"
NEEDED = {*OWN_RATE}


@dataclass(frozen=True)
class Point:
    name: str
    subject: Subject
    rate: float


def latencies(
    stack: BenchStack, subjects: Sequence[Subject], peaks: dict[str, float], rounds: int
) -> dict[str, list[Latency]]:
    """Of each round, by name."""
    by_name = {subject.name: subject for subject in subjects}
    points = [Point(name, by_name[name], peaks[name] / 2) for name in OWN_RATE]
    # Right before the confirmed 304, which it is compared with.
    same = Point(SAME_RATE, by_name["direct_response_304"], peaks["confirmed_304"] / 2)
    points.insert(OWN_RATE.index("confirmed_304"), same)
    seen: dict[str, list[Latency]] = {point.name: [] for point in points}
    for turn, point in in_turn(points, rounds):
        subject = point.subject
        one = oha(stack.url(subject.listener), subject.requests[0], point.rate, SECONDS, subject.status)
        seen[point.name].append(one)
        shown = f"p50 {one.p50:.2f}  p99 {one.p99:.2f}  p99.9 {one.p999:.2f} ms"
        print(f"{turn}  {point.name:32} at {one.rate:6.0f}/s of {point.rate:6.0f}/s: {shown}", flush=True)
    return seen


def median(of: list[Latency]) -> Latency:
    return Latency(*(statistics.median(getattr(one, name) for one in of) for name in vars(of[0])))
