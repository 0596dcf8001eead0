"""Which rounds of the benchmark count."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

import machine


class Clock:
    """Time that passes when somebody sleeps."""

    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(machine, "time", clock)
    return clock


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """How long the work takes each time, from now on."""
    times: list[float] = []
    monkeypatch.setattr(machine, "time_of_some_work", lambda: times.pop(0))
    return times


def rounds(clock: Clock) -> Callable[[], int]:
    """Numbers the rounds, each of which takes a second."""
    numbers = count(1)

    def one_round() -> int:
        clock.sleep(1.0)
        return next(numbers)

    return one_round


def test_a_round_counts_when_the_machine_was_fast_before_and_after_it(
    takes: list[float], clock: Clock
) -> None:
    takes += [1.0, 1.2]
    one = machine.Machine(patience=10, best=1.0)
    assert one.measure(rounds(clock)) == 1
    assert (one.rounds, one.repeated, one.slow, one.waited, one.patience) == (1, 0, 0, 0, 10)


def test_a_round_begins_when_the_machine_is_fast_again(takes: list[float], clock: Clock) -> None:
    takes += [2.0, 1.5, 1.0, 1.0]
    one = machine.Machine(patience=10, best=1.0)
    assert one.measure(rounds(clock)) == 1
    assert (one.repeated, one.slow, one.waited) == (0, 0, 2 * machine.PAUSE)
    assert one.patience == 10 - 2 * machine.PAUSE


def test_a_round_that_a_slow_machine_spoilt_is_done_again(takes: list[float], clock: Clock) -> None:
    takes += [1.0, 2.0, 1.0, 1.0]
    one = machine.Machine(patience=10, best=1.0)
    assert one.measure(rounds(clock)) == 2
    assert (one.rounds, one.repeated, one.slow, one.patience) == (1, 1, 0, 9)


def test_of_rounds_that_were_all_spoilt_the_least_slow_counts(takes: list[float], clock: Clock) -> None:
    takes += [1.0, 3.0, 1.0, 1.5, 1.0, 2.0, 1.0, 4.0]
    one = machine.Machine(patience=10, best=1.0)
    assert one.measure(rounds(clock)) == 2
    assert (one.repeated, one.slow, takes) == (3, 1, [])


def test_patience_ends(takes: list[float], clock: Clock) -> None:
    takes += [2.0] * 100
    one = machine.Machine(patience=1, best=1.0)
    measure = rounds(clock)
    assert [one.measure(measure) for _ in range(2)] == [1, 2]
    assert (one.rounds, one.repeated, one.slow) == (2, 0, 2)
    assert 1 <= one.waited < 1 + 2 * machine.PAUSE
    assert clock.now < 4


def test_the_machine_may_turn_out_faster_than_it_was_thought_to_be(takes: list[float], clock: Clock) -> None:
    takes += [1.0, 1.0, 1.0, 1.4, 1.0, 1.0]
    one = machine.Machine(patience=10, best=1.4)
    measure = rounds(clock)
    assert [one.measure(measure) for _ in range(2)] == [1, 3]
