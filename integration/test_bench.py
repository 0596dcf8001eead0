"""Which rounds of the benchmark count."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from settings import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import machine  # noqa: E402


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the work takes each time, from now on."""
    times: list[float] = []
    monkeypatch.setattr(machine, "time_of_some_work", lambda: times.pop(0))
    return times


def rounds() -> Iterator[int]:
    return iter(range(1, 100))


def test_a_round_counts_when_the_machine_was_fast_before_and_after_it(takes: list[float]) -> None:
    takes += [1.0, 1.2]
    one = machine.Machine(repeats=10, best=1.0)
    assert one.measure(rounds().__next__) == 1
    assert one.figures() == {"rounds": 1, "repeated": 0, "slow_nevertheless": 0}


@pytest.mark.parametrize("slow", [(2.0, 1.0), (1.0, 2.0)])
def test_a_round_of_a_slow_moment_is_done_again(takes: list[float], slow: tuple[float, float]) -> None:
    takes += [*slow, 1.0, 1.0]
    one = machine.Machine(repeats=10, best=1.0)
    assert one.measure(rounds().__next__) == 2
    assert one.figures() == {"rounds": 1, "repeated": 1, "slow_nevertheless": 0}


def test_of_a_machine_that_stays_slow_the_least_slow_round_counts(takes: list[float]) -> None:
    takes += [3.0, 3.0, 1.5, 1.5, 2.0, 2.0, 4.0, 4.0]
    one = machine.Machine(repeats=10, best=1.0)
    assert one.measure(rounds().__next__) == 2
    assert one.figures() == {"rounds": 1, "repeated": 3, "slow_nevertheless": 1}


def test_a_run_repeats_so_many_rounds_and_no_more(takes: list[float]) -> None:
    takes += [2.0] * 6
    one = machine.Machine(repeats=1, best=1.0)
    numbers = rounds()
    assert [one.measure(numbers.__next__) for _ in range(2)] == [1, 3]
    assert one.figures() == {"rounds": 2, "repeated": 1, "slow_nevertheless": 2}


def test_the_machine_may_turn_out_faster_than_it_was_thought_to_be(takes: list[float]) -> None:
    takes += [1.0, 1.0, 1.4, 1.4, 1.0, 1.0]
    one = machine.Machine(repeats=10, best=1.4)
    numbers = rounds()
    assert [one.measure(numbers.__next__) for _ in range(2)] == [1, 3]
