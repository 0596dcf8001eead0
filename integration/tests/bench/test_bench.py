"""Which rounds of the benchmark count, and what its figures are of."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

import environments
import flagsmith_subjects
import load
import long_definitions
import machine
import ofrep_subjects
import ratios
import subjects
import turns
from paths import ROOT


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


class Sent:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""

    def putrequest(self, *_: str, **__: bool) -> None:
        pass

    def putheader(self, name: str, value: str) -> None:
        self.headers[name] = value

    def endheaders(self, body: bytes) -> None:
        self.body = body

    def getresponse(self) -> None:
        pass


@pytest.mark.parametrize(
    ("asked", "who"),
    [
        (flagsmith_subjects.identity(), lambda body: body["identifier"]),
        (ofrep_subjects.question(), lambda body: body["context"]["targetingKey"]),
    ],
    ids=["flagsmith", "ofrep"],
)
def test_users_of_the_benchmark_are_none_that_was_asked_for_before(
    asked: load.Request, who: Callable[[Any], str]
) -> None:
    bodies = set()
    for _ in range(3):
        connection = Sent()
        subjects.send(connection, asked)
        assert connection.headers["content-length"] == str(len(connection.body))
        assert len(connection.body) == len(asked.body), "wrk's script leaves the content length as it is"
        bodies.add(who(json.loads(connection.body)))
        time.sleep(0.001)
    assert len(bodies) == 3
    script = (ROOT / "bench/requests.lua").read_text()
    assert script.count(load.UNIQUE) == 3 and f'"%0{len(load.UNIQUE)}d"' in script


def test_documents_of_the_benchmark_are_as_long_as_is_said_and_differ() -> None:
    texts = [environments.text(environments.document_of_size(20_000, seed)) for seed in (1, 2)]
    assert texts[0] != texts[1]
    for text in texts:
        assert 19_000 < len(text) <= 20_000
        document = json.loads(text)
        states = [state["feature"] for state in document["feature_states"]]
        for field in ("id", "name"):
            assert len({feature[field] for feature in states}) == len(states)
        ids = [segment["id"] for segment in document["project"]["segments"]]
        assert len(set(ids)) == len(ids)


def test_half_of_the_flags_of_the_benchmark_have_a_rule_and_contexts_have_ten_members() -> None:
    flags = ofrep_subjects.document()["flags"].values()
    rules = [flag["targeting"] for flag in flags if "targeting" in flag]
    assert (len(flags), len(rules), len(ofrep_subjects.CONTEXT)) == (50, 25, 10)
    assert all(rules.count(rule) == 5 for rule in ofrep_subjects.RULES)


def test_the_long_document_of_the_benchmark_has_five_megabytes_and_ten_thousand_flags() -> None:
    texts = [long_definitions.document(mark) for mark in ("a", "b")]
    assert 4_800_000 < len(texts[0]) < 5_200_000
    documents = [json.loads(text)["flags"] for text in texts]
    assert len(documents[0]) == long_definitions.FLAGS_OF_DOCUMENT + 1
    differ = [key for key, flag in documents[0].items() if documents[1][key] != flag]
    assert differ == [long_definitions.MARK]


def test_only_turns_above_five_milliseconds_count_as_long() -> None:
    before = turns.Turns(Counter({100.0: 3, 10_000.0: 1}))
    after = turns.Turns(Counter({100.0: 5, 5_000.0: 2, 10_000.0: 2}))
    assert after.since(before) == {"turns": 5, "turns_above_5_ms": 1, "longest_turn_below_ms": 10}


def test_targets_of_ofrep() -> None:
    wanted = {
        "ofrep_304_of_reply_only": 0.75,
        "ofrep_304_per_cpu_of_flagd": 12,
        "ofrep_bulk_per_cpu_of_flagd": 8,
    }
    assert {one.name: one.at_least for one in ratios.RATIOS if one.name in wanted} == wanted
    rounds = {
        "ofrep_304": {"rate": [90], "cpu_seconds_per_million": [50]},
        "reply_only_ofrep_304": {"rate": [100], "cpu_seconds_per_million": [45]},
        "flagd_poll": {"rate": [9], "cpu_seconds_per_million": [1_000]},
    }
    found = ratios.ratios({"rounds": rounds})
    assert found == {"ofrep_304_of_reply_only": 0.9, "ofrep_304_per_cpu_of_flagd": 20}


def test_targets_of_flagsmith() -> None:
    wanted = {
        "flagsmith_flags_of_reply_only": 0.8,
        "flagsmith_flags_of_host_calls": 0.95,
        "flagsmith_flags_per_cpu_of_service": 2.5,
        "flagsmith_identity_per_cpu_of_service": 2,
    }
    of_flagsmith = {one.name: one for one in ratios.RATIOS if one.name in wanted}
    assert {name: one.at_least for name, one in of_flagsmith.items()} == wanted
    # Twice the work for a request is half of the requests for a second of it.
    rounds = {
        "flagsmith_flags": {"rate": [90], "cpu_seconds_per_million": [50]},
        "reply_only_flags": {"rate": [100], "cpu_seconds_per_million": [45]},
        "edge_proxy_flags": {"rate": [30], "cpu_seconds_per_million": [100]},
    }
    found = ratios.ratios({"rounds": rounds})
    assert found["flagsmith_flags_of_reply_only"] == 0.9
    assert found["flagsmith_flags_per_cpu_of_service"] == 2
