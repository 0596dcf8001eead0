"""Machines whose clocks differ by minutes: publisher, Envoy and Redis run with wall clocks that are wrong
(`stack/clock.c`). All ages are told by the clock of Redis, so nothing changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from models.posthog.endpoint import PersonalKey, State, Team, etag_of, stored_text
from models.posthog.watching import (
    DEFINITIONS,
    Ask,
    Change,
    all_say,
    delays,
    give_definitions,
    summary,
    wait_until_published,
    watch_answers,
    watched,
    with_key,
    with_secret,
)
from models.posthog.whole import look
from postgres import Server
from posthog_db import Database, database
from stack.edge import get, health, soon_enough
from stack.launcher import Stack

ORGANIZATION = "0190d6f1-0000-7000-8000-000000000001"
ONE = Team(1, "phc_1", ORGANIZATION, "phs_1")
ETAG = f'W/"{etag_of(stored_text(DEFINITIONS))}"'
MINUTE = 60
# Longer than a busy machine holds up the publisher, and far shorter than the clocks are apart.
PATIENT = {"snapshot": {"refuse_max_age": "12s"}}


@pytest.fixture(scope="module")
def people(postgres: Server) -> Iterator[Database]:
    with database(postgres) as people:
        people.put(State([ONE]))
        yield people


@pytest.mark.parametrize(
    "clocks",
    [{"publisher": MINUTE, "envoy": -MINUTE}, {"publisher": -MINUTE, "envoy": MINUTE}],
    ids=["publisher ahead, Envoy behind", "publisher behind, Envoy ahead"],
)
def test_a_clock_that_is_a_minute_off_changes_nothing(people: Database, clocks: dict[str, int]) -> None:
    with watched(people, config=PATIENT, clocks=clocks) as stack:
        wrong_clocks_are_in_force(stack, clocks)
        give_definitions(stack, [ONE])
        unknown, current = Ask(ONE, "phs_unknown"), with_secret(ONE, ETAG)
        all_say(stack, {with_secret(ONE): 200, current: 304, unknown: 401})

        def measure() -> float:
            keys = [PersonalKey(f"phx_{time.time_ns()}_{n}", (ORGANIZATION,)) for n in range(5)]
            added = delays(
                stack, [Change(lambda k=k: people.add_personal_key(k), with_key(ONE, k), 200) for k in keys]
            )
            revoked = delays(
                stack,
                [Change(lambda k=k: people.delete_personal_key(k.key), with_key(ONE, k), 401) for k in keys],
            )
            print(f"\nadded: {summary(added)}; revoked: {summary(revoked)}")
            return max(added + revoked)

        soon_enough(measure, 4.0)
        # The watermark is fresh: wrong credentials are refused.
        stack.wait_until(lambda: health(stack)["watermark_age_ms"] < 4_000)
        answers = watch_answers(stack, [unknown, current], 2)
        assert set(answers[unknown]) == {401} and set(answers[current]) == {304}
        wait_until_published(stack, people)
        # And it ages by the same clock: nobody is refused on what a dead publisher once knew.
        stack.processes.pop("publisher").kill()
        died = time.monotonic()
        all_say(stack, {unknown: 503, with_secret(ONE): 200}, MINUTE / 2)
        print(f"not refused {time.monotonic() - died:.1f} s after the publisher's end")


def wrong_clocks_are_in_force(stack: Stack, clocks: dict[str, int]) -> None:
    """With a right clock these tests would prove nothing."""
    for name in clocks:
        maps = Path(f"/proc/{stack.processes[name].pid}/maps").read_text()
        assert "clock.so" in maps, f"{name} runs with the true time"
    date = parsedate_to_datetime(get(stack, path="/other").headers["date"]).timestamp()
    assert abs(date - time.time() - clocks["envoy"]) < 5


def test_a_redis_whose_clock_goes_back(people: Database) -> None:
    """Ids of the stream go on upwards; ages are counted from what Redis says now."""
    with watched(people, clocks={"redis": 5 * MINUTE}, durable=True) as stack:
        assert stack.redis.time()[0] - time.time() > 4 * MINUTE
        give_definitions(stack, [ONE])
        all_say(stack, {with_secret(ONE): 200, Ask(ONE, "phs_unknown"): 401})
        before = look(stack)
        stack.stop_part("redis")
        stack.settings.clocks.clear()
        stack.start_redis()
        assert abs(stack.redis.time()[0] - time.time()) < 5

        def measure() -> float:
            key = PersonalKey(f"phx_{time.time_ns()}", (ORGANIZATION,))
            people.add_personal_key(key)
            all_say(stack, {with_key(ONE, key): 200, Ask(ONE, "phs_unknown"): 401})
            look(stack, before)
            revoke = Change(lambda: people.delete_personal_key(key.key), with_key(ONE, key), 401)
            (took,) = delays(stack, [revoke])
            print(f"\nrevoked after the clock of Redis went back: {took:.2f} s")
            return took

        soon_enough(measure, 4.0)
        wait_until_published(stack, people).follows(before)
