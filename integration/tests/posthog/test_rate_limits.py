"""The limits of a team hold for all workers of an Envoy together."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from models.posthog import bodies, writers
from models.posthog.endpoint import State, Team, etag_of, stored_text
from stack.edge import Client, Tally, get, wait_until_all
from stack.launcher import Stack

TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
ETAG = f'W/"{etag_of(TEXT)}"'


def team(team_id: int) -> Team:
    return Team(team_id, f"phc_rates_{team_id}", None, f"phs_rates_{team_id}")


TEAMS = [team(n) for n in range(9001, 9011)]
STATE = State(teams=TEAMS, texts={team.id: TEXT for team in TEAMS})


@dataclass
class Burst:
    """What many connections at once got."""

    seen: Counter[int]
    seconds: float

    def refilled(self, per_second: float) -> float:
        return self.seconds * per_second


def burst(
    stack: Stack,
    team_id: int,
    requests: int,
    etag: str | None = None,
    connections: int = 16,
    threads: int = 4,
) -> Burst:
    """`threads` clients send at once; their connections are spread over the workers."""
    own = team(team_id)

    def one(_: int) -> Counter[int]:
        client = Client(stack, connections // threads)
        asked = range(requests // threads)
        seen = Counter(client.get(own.token, own.secret or "", etag).status for _ in asked)
        client.close()
        return seen

    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        seen: Counter[int] = sum(pool.map(one, range(threads)), Counter())
    return Burst(seen, time.monotonic() - began)


def workers_used(stack: Stack) -> int:
    """How many workers have had connections to the edge."""
    stats = stack.stats()
    names = [
        f"listener.127.0.0.1_{stack.settings.edge_port}.worker_{n}.downstream_cx_total" for n in range(2)
    ]
    return sum(stats[name] > 0 for name in names)


@pytest.mark.parametrize(
    ("budget", "etag", "status"),
    [("full", None, 200), ("conditional", ETAG, 304)],
    ids=["full", "conditional"],
)
def test_two_workers_let_one_burst_through_and_then_the_rate(
    budget: str, etag: str | None, status: int
) -> None:
    # The other budget would end it, too, were it spent.
    other = {"full": "conditional", "conditional": "full"}[budget]
    limits = {budget: "600/minute", other: "1/day"}
    with writers.stack_with(STATE, rate_limit=limits) as stack:
        got = burst(stack, 9001, 1_200, etag)
        ended = time.monotonic()
        assert workers_used(stack) == 2, "the test proves nothing"
        assert got.seen[status] + got.seen[429] == 1_200
        print(f"{got.seen[status]} passed in {got.seconds:.2f} s")
        assert 594 <= got.seen[status] <= 606 + got.refilled(10) + 1
        # From now on ten a second.
        more = burst(stack, 9001, 400, etag)
        began, ended = ended, time.monotonic()
        assert more.seen[status] <= (ended - began) * 10 + 7
        time.sleep(1)
        more = burst(stack, 9001, 40, etag)
        assert 9 <= more.seen[status] <= (time.monotonic() - ended) * 10 + 7
        other_team = burst(stack, 9002, 20, etag)
        assert other_team.seen == {status: 20}


def test_what_is_only_counted_passes_and_so_do_allowed_teams() -> None:
    limits = {"full": "100/day", "allow_teams": [9001], "overrides": {"9003": "150/day"}}
    with writers.stack_with(STATE, rate_limit=limits) as stack:
        tally = Tally(stack)
        assert burst(stack, 9001, 400).seen == {200: 400}
        enforced = burst(stack, 9002, 400).seen
        assert enforced == {200: 100, 429: 300}
        assert burst(stack, 9003, 400).seen == {200: 150, 429: 250}
        tally.after(1_200)
        assert tally.count("rate_limited", budget="full", mode="bypassed") == 300
        assert tally.count("rate_limited", budget="full", mode="enforced") == 550
        assert stack.change_config({"rate_limit": limits | {"log_only": True}})
        wait_until_all(stack, lambda: get(stack, team(9002).token, team(9002).secret).status_code == 200)
        tally = Tally(stack)
        assert burst(stack, 9002, 400).seen == {200: 400}
        assert burst(stack, 9004, 400).seen == {200: 400}
        assert burst(stack, 9001, 40).seen == {200: 40}
        tally.after(840)
        assert tally.count("rate_limited", budget="full", mode="log_only") == 700
        assert tally.count("rate_limited", budget="full", mode="bypassed") == 40
        assert tally.count("answers", status="429") == 0


def test_an_override_that_cannot_be_read_is_logged_and_the_team_keeps_the_default() -> None:
    overrides = {"9001": "5/fortnight", "9002": "0/day", "9003": 7, "team": "5/day", "9004": "7/day"}
    with writers.stack_with(STATE, rate_limit={"full": "40/day", "overrides": overrides}) as stack:
        for team_id in (9001, 9002, 9003):
            assert burst(stack, team_id, 60).seen == {200: 40, 429: 20}
        assert burst(stack, 9004, 60).seen == {200: 7, 429: 53}
        log = stack.log("envoy")
        for text in (
            'rate_limit.overrides.9001: "5/fortnight": unknown period, use second, minute, hour or day; '
            "the team keeps the default",
            'rate_limit.overrides.9002: "0/day": the count must be above 0; the team keeps the default',
            'rate_limit.overrides.9003: must be a text such as "600/minute"; the team keeps the default',
            'rate_limit.overrides: "team" is not a team id; ignored',
        ):
            assert text in log
        assert "rate_limit.overrides.9004" not in log


def test_a_stale_etag_spends_from_both_budgets_and_a_304_from_one() -> None:
    limits = {"full": "40/day", "conditional": "100/day"}
    with writers.stack_with(STATE, rate_limit=limits) as stack:
        tally = Tally(stack)
        assert burst(stack, 9001, 60, ETAG).seen == {304: 60}
        assert burst(stack, 9001, 20).seen == {200: 20}
        # 40 of the conditional budget and 20 of the full one are left.
        assert burst(stack, 9001, 32, 'W/"0000000000000000"').seen == {200: 20, 429: 12}
        assert burst(stack, 9001, 16, ETAG).seen == {304: 8, 429: 8}
        assert burst(stack, 9001, 4).seen == {429: 4}
        tally.after(132)
        assert tally.count("rate_limited", budget="full", mode="enforced") == 16
        assert tally.count("rate_limited", budget="conditional", mode="enforced") == 8


@pytest.mark.parametrize(
    ("rate", "low", "high"), [("20/minute", 1, 3), ("20/hour", 150, 180), ("1/day", 86_000, 86_400)]
)
def test_a_limited_client_is_told_when_to_come_back(rate: str, low: int, high: int) -> None:
    with writers.stack_with(STATE, rate_limit={"full": rate}) as stack:
        burst(stack, 9001, 40)
        # A slow machine may have let some of a minute's twenty come back.
        for _ in range(40):
            answer = get(stack, team(9001).token, team(9001).secret)
            if answer.status_code != 200:
                break
        assert (answer.status_code, answer.text) == (429, bodies.RATE_LIMITED)
        wait = answer.headers["retry-after"]
        assert wait.isdigit() and low <= int(wait) <= high
        if high < 10:
            time.sleep(int(wait))
            assert get(stack, team(9001).token, team(9001).secret).status_code == 200


def test_failing_authentication_costs_nothing() -> None:
    with writers.stack_with(STATE, rate_limit={"full": "20/day", "conditional": "20/day"}) as stack:
        own = team(9001)
        for token, secret in (
            (own.token, "phs_wrong"),
            (own.token, "phx_wrong"),
            (own.token, team(9002).secret),
            ("phc_wrong", own.secret),
        ):
            client = Client(stack, 4)
            for etag in (None, ETAG):
                assert {client.get(token, secret or "", etag).status for _ in range(40)} == {401}
        assert burst(stack, 9001, 40).seen == {200: 20, 429: 20}
        assert burst(stack, 9001, 40, ETAG).seen == {304: 20, 429: 20}


def test_what_was_spent_survives_changes_of_the_plugin_configuration() -> None:
    limits = {"full": "100/day"}
    with writers.stack_with(STATE, rate_limit=limits) as stack:
        assert burst(stack, 9001, 60).seen == {200: 60}
        for witness in (9002, 9003):
            assert stack.change_config({"rate_limit": limits | {"overrides": {str(witness): "4/day"}}})
            # The new configuration is in force, and counts on from what the old one has spent.
            assert burst(stack, witness, 12).seen == {200: 4, 429: 8}
            assert burst(stack, 9001, 20).seen == {200: 20}
        assert burst(stack, 9001, 40).seen == {429: 40}
