"""Quota: who gets 402, until when, and how SDKs get their flags back."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from models.posthog import bodies, writers
from models.posthog.endpoint import State, Team, etag_of, stored_text
from models.posthog.front import unchanged_posthog
from stack.edge import PATH, Client, get, in_background, soon_enough, wait_until_all
from stack.launcher import Stack
from stack.second_envoy import another_envoy

TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
CHANGED = stored_text({"flags": [{"key": "b"}], "cohorts": {}, "group_type_mapping": {}})
PLAIN = f'W/"{etag_of(TEXT)}"'
# The set is read once a second, and each worker copies it about once a second.
INTERVAL, COPIED = 1.0, 1.2
# For how long after a limit was lifted some Envoy may still answer 402.
GRACE = 2 * INTERVAL + 2
FAST = {"quota": {"interval": "1s"}, "rate_limit": {"enabled": False}}


def team(team_id: int) -> Team:
    return Team(team_id, f"phc_quota_{team_id}", None, f"phs_quota_{team_id}")


TEAMS = [team(n) for n in range(10_001, 10_041)]
STATE = State(teams=TEAMS, texts={team.id: TEXT for team in TEAMS[:-1]})
NO_PAYLOAD = TEAMS[-1].id
# For tests that may have to look more than once.
spare = itertools.count(10_011)


def ask(stack: Stack, team_id: int, etag: str | None = None) -> int:
    return get(stack, team(team_id).token, team(team_id).secret, etag).status_code


def etag_now(stack: Stack, team_id: int) -> str | None:
    """None while the end of a quota period lies ahead."""
    answer = get(stack, team(team_id).token, team(team_id).secret)
    assert answer.status_code == 200
    return answer.headers.get("etag")


def freed_etag(stack: Stack, team_id: int) -> str:
    """The ETag after a limit. Until it is there who kept the old one gets the payload and no ETag."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = get(stack, team(team_id).token, team(team_id).secret, PLAIN)
        assert (answer.status_code, answer.text) == (200, TEXT), answer.status_code
        if etag := answer.headers.get("etag"):
            assert etag.startswith(f'W/"{etag_of(TEXT)}-'), etag
            return etag
        time.sleep(0.02)
    raise AssertionError("there is no ETag")


def etags(stack: Stack, team_ids: Iterable[int]) -> dict[int, str | None]:
    return {team_id: etag_now(stack, team_id) for team_id in team_ids}


def limit(stack: Stack, team_id: int, seconds: float) -> float:
    """Limits the team; the Unix time at which that ends."""
    until = int(time.time() + seconds)
    stack.redis.zadd(writers.QUOTA_KEY, {team(team_id).token: until})
    return until


def lift(stack: Stack, team_id: int) -> None:
    stack.redis.zrem(writers.QUOTA_KEY, team(team_id).token)


def all_say(stack: Stack, team_id: int, status: int) -> None:
    wait_until_all(stack, lambda: ask(stack, team_id) == status)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with writers.stack_with(STATE, **FAST) as stack:
        yield stack


# === Who ===


@pytest.mark.parametrize("held", [None, PLAIN, 'W/"0000000000000000"', "*"])
def test_a_limited_team_gets_402_within_an_interval_whatever_it_holds(stack: Stack, held: str | None) -> None:
    def measure() -> float:
        nonlocal team_id
        team_id = next(spare)
        assert ask(stack, team_id, held) in (200, 304)
        limit(stack, team_id, 3_600)
        began = time.monotonic()
        stack.wait_until(lambda: ask(stack, team_id, held) == 402)
        return time.monotonic() - began

    team_id = 0
    soon_enough(measure, INTERVAL + COPIED + 1)
    all_say(stack, team_id, 402)
    answer = get(stack, team(team_id).token, team(team_id).secret, held)
    assert (answer.status_code, answer.text) == (402, bodies.QUOTA_LIMITED)
    assert "etag" not in answer.headers
    # With the secret alone, too: then the team's id is known and its token is not.
    assert get(stack, None, team(team_id).secret).status_code == 402


def test_402_comes_before_the_payload_is_read(stack: Stack) -> None:
    limit(stack, NO_PAYLOAD, 3_600)
    limit(stack, 10_010, 3_600)
    all_say(stack, 10_010, 402)
    assert {ask(stack, NO_PAYLOAD) for _ in range(10)} == {402}
    time.sleep(1)
    assert NO_PAYLOAD not in writers.rebuild_requests(stack)


# === Until when ===


def when_402_ended(stack: Stack, team_id: int, until: float) -> tuple[float, float, int]:
    """Unix times at which the last 402 was asked for and at which the next answer was there, and its status;
    asks until `until`, and until there is another answer."""
    last, over, after = 0.0, 0.0, 0
    while time.time() < until or not after:
        assert time.time() < until + 30
        asked, status = time.time(), ask(stack, team_id)
        if status == 402:
            last, after = asked, 0
        elif not after:
            over, after = time.time(), status
        time.sleep(0.01)
    return last, over, after


def test_a_limit_ends_at_its_score_also_while_redis_is_away(stack: Stack) -> None:
    end = limit(stack, 10_005, 12)
    all_say(stack, 10_005, 402)
    stack.pause("webdis")
    try:
        last, over, after = when_402_ended(stack, 10_005, end + 1.5)
    finally:
        stack.resume("webdis")
    assert last <= end, "never after its score"
    assert over > end - 1.5, "and not before it by more than an answer"
    assert after == 503, "Redis is still away"
    stack.wait_until(lambda: ask(stack, 10_005) == 200)


def test_a_limit_outlives_an_outage_and_is_taken_up_again_after_it(stack: Stack) -> None:
    limit(stack, 10_006, 3_600)
    all_say(stack, 10_006, 402)
    stack.stop_part("webdis")
    limit(stack, 10_007, 3_600)
    time.sleep(3)
    assert ask(stack, 10_006) == 402
    assert ask(stack, 10_007) == 503, "what Redis says now is not known"
    stack.restart("webdis")
    all_say(stack, 10_007, 402)
    assert ask(stack, 10_006) == 402


def test_a_redis_that_lost_everything_limits_nobody() -> None:
    with writers.stack_with(STATE, **FAST) as stack:
        limit(stack, 10_001, 3_600)
        all_say(stack, 10_001, 402)
        stack.stop_part("redis")
        assert ask(stack, 10_001) == 402
        stack.restart("redis")
        writers.write_definitions(stack, STATE)
        all_say(stack, 10_001, 200)


@contextmanager
def held_up(stack: Stack, until: float) -> Iterator[None]:
    """Most questions get to Redis most of a second late, as on a busy machine."""

    def pauses() -> None:
        while time.time() < until:
            stack.pause("webdis")
            time.sleep(0.9)
            stack.resume("webdis")
            time.sleep(0.35)

    (done,) = in_background(pauses)
    try:
        yield
    finally:
        done.result()


def test_a_limit_that_ends_early_because_its_reading_was_held_up_confirms_no_etag(stack: Stack) -> None:
    """Whoever was told 402 may have dropped the flags and kept the ETag, so a 304 would leave it without."""
    seen: Counter[tuple[int, str | None]] = Counter()
    for _ in range(3):
        team_id = next(spare)
        wait_until_all(stack, lambda team_id=team_id: ask(stack, team_id, PLAIN) == 304)
        end = limit(stack, team_id, 8)
        wait_until_all(stack, lambda team_id=team_id: ask(stack, team_id, PLAIN) == 402)
        with held_up(stack, end - 1), Client(stack, 8) as client:
            while (now := time.time()) < end + 2:
                answer = client.get(team(team_id).token, team(team_id).secret, PLAIN)
                seen[answer.status, answer.headers["etag"] if now < end else "later"] += 1
                assert answer.status in (402, 200), (end - now, seen)
                time.sleep(0.002)
        if seen[200, None] > 5:
            return
    raise AssertionError(f"none ended early: {seen}")


# === The ETag after a limit ===


def base36(seconds: float) -> str:
    digits, number = "", int(seconds)
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


def test_after_a_limit_the_etag_is_another_one_until_the_document_changes(stack: Stack) -> None:
    end = limit(stack, 10_008, 12)
    all_say(stack, 10_008, 402)
    stack.wait_until(lambda: ask(stack, 10_008) == 200)
    freed = f'W/"{etag_of(TEXT)}-{base36(end)}"'
    # Redis' clock decides on the ETag; Envoy, which heard of it a moment later, may be that much ahead.
    stack.wait_until(lambda: etag_now(stack, 10_008) == freed)
    assert ask(stack, 10_008, PLAIN) == 200, "who dropped the flags and kept the ETag gets them back"
    assert ask(stack, 10_008, freed) == 304
    time.sleep(2.5)
    assert ask(stack, 10_008, freed) == 304
    assert ask(stack, 10_008, PLAIN) == 200
    writers.put_definitions_django(stack, 10_008, CHANGED)
    changed = f'W/"{etag_of(CHANGED)}"'
    stack.wait_until(lambda: etag_now(stack, 10_008) == changed)
    wait_until_all(stack, lambda: ask(stack, 10_008, freed) == 200)
    # Another document has no suffix, so for three intervals a worker does not know that the period is over.
    stack.wait_until(lambda: ask(stack, 10_008, changed) == 304)


def test_a_limit_that_is_lifted_early_ends_at_once_and_changes_the_etag_after_a_grace(stack: Stack) -> None:
    def measure() -> float:
        nonlocal lifted, team_id
        team_id = next(spare)
        limit(stack, team_id, 3_600)
        all_say(stack, team_id, 402)
        lifted = time.time()
        lift(stack, team_id)
        stack.wait_until(lambda: ask(stack, team_id) == 200)
        return time.time() - lifted

    lifted, team_id = 0.0, 0
    soon_enough(measure, INTERVAL + COPIED + 1)
    all_say(stack, team_id, 200)
    etag = freed_etag(stack, team_id)
    changed = time.time()
    suffix = etag.rpartition("-")[2].strip('"')
    assert stack.metric("flag_definitions_answers_total", status="200", reason="quota_end_pending") > 0
    assert lifted + GRACE - 1 < int(suffix, 36) <= changed
    wait_until_all(stack, lambda: ask(stack, team_id, PLAIN) == 200)


def test_all_envoys_agree_on_the_etag_and_a_new_one_learns_it() -> None:
    with writers.stack_with(STATE, **FAST) as one, another_envoy(one) as two:
        limit(one, 10_002, 3_600)
        limit(one, 10_001, 15)
        limited = (10_001, 10_002)
        wait_until_all(one, lambda: {ask(stack, n) for stack in (one, two) for n in limited} == {402})
        lift(one, 10_002)
        for team_id in (10_001, 10_002):
            for stack in (one, two):
                stack.wait_until(lambda stack=stack, team_id=team_id: ask(stack, team_id, PLAIN) == 200)
        freed = {team_id: freed_etag(one, team_id) for team_id in (10_001, 10_002)}
        for stack in (one, two):  # each worker remembers for a moment that there was none
            stack.wait_until(lambda stack=stack: etags(stack, freed) == freed)
        assert freed == {team_id: etag_now(two, team_id) for team_id in freed}
        one.restart("envoy")
        time.sleep(2 * INTERVAL)
        for stack in (one, two):
            assert freed == etags(stack, freed)
            assert [ask(stack, team_id, etag) for team_id, etag in freed.items()] == [304, 304]


def test_a_lift_that_no_envoy_lives_to_see_is_known_to_the_next_one() -> None:
    with writers.stack_with(STATE, **FAST) as stack:
        limit(stack, 10_001, 3_600)
        all_say(stack, 10_001, 402)
        stack.stop_part("envoy")
        lift(stack, 10_001)
        stack.restart("envoy")
        began = time.time()
        etag = freed_etag(stack, 10_001)
        # Not at the end that the limit once had.
        assert began < int(etag.rpartition("-")[2].strip('"'), 36) < began + GRACE + 6
        wait_until_all(stack, lambda: ask(stack, 10_001, etag) == 304)


def test_without_a_snapshot_teams_are_limited_and_get_their_flags_back() -> None:
    """The quota list has tokens. Whose they are is known from the requests that named them."""
    with unchanged_posthog(
        STATE, quota={"interval": "1s"}, read_through={"enabled": True, "ttl": "2s"}
    ) as stack:
        assert ask(stack, 10_001) == 200
        end = limit(stack, 10_001, 15)
        all_say(stack, 10_001, 402)
        assert get(stack, None, team(10_001).secret).status_code == 402
        # Nobody asks for longer than what was looked up is kept.
        time.sleep(max(0.0, end - 2 - time.time()))
        assert ask(stack, 10_001) == 402
        stack.wait_until(lambda: ask(stack, 10_001) == 200)
        freed = f'W/"{etag_of(TEXT)}-{base36(end)}"'
        stack.wait_until(lambda: etag_now(stack, 10_001) == freed)
        assert ask(stack, 10_001, PLAIN) == 200
        assert get(stack, None, team(10_001).secret, path=PATH + "/").status_code == 200
