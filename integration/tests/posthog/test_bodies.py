"""Bodies that workers keep: a 200 costs no callout while its ETag is known to be current, in the coding that
the client asks for; what is not known to be current is never answered."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from models.posthog import bodies, writers
from models.posthog.endpoint import VARY, State, Team, etag_of, stored_text
from models.posthog.kept_bodies import (
    ETAG_MAX_AGE,
    FLUSH,
    STATE,
    TEAMS,
    compressed,
    connected,
    flags,
    put,
    text_of,
)
from models.posthog.sdks import SDKS, Poll
from stack.edge import (
    UNLIMITED,
    Crowd,
    Tally,
    authenticated_get,
    get,
    in_background,
    trap_count,
    wait_until_all,
)
from stack.launcher import Stack

NEGATIVE_TTL = 1.0
CROWD = 2_000


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with writers.stack_with(STATE, **UNLIMITED, **FLUSH) as stack:
        yield stack


# === What it costs ===


def test_a_kept_body_costs_no_callout(stack: Stack) -> None:
    own = TEAMS[0]
    with connected(stack, own) as connection:
        tally = Tally(stack)
        began = time.monotonic()
        for n in range(50):
            answer = connection.get("0" * 16 if n % 2 else None)
            assert (answer.status, text_of(answer)) == (200, flags(0))
            assert answer.headers["etag"] == f'W/"{etag_of(flags(0))}"'
            assert answer.headers["content-length"] == str(len(flags(0)))
        assert connection.get(etag_of(flags(0))).status == 304
        took = time.monotonic() - began
        tally.after(51)
    assert tally.count("callouts", store="definitions") <= 1 + took / ETAG_MAX_AGE
    assert tally.count("etag", result="none") == tally.count("etag", result="miss") == 25
    assert tally.count("cache", result="hit") == 50


def test_without_a_cache_each_200_is_read() -> None:
    state = State(teams=TEAMS[:1], texts={TEAMS[0].id: flags(0)})
    off = {"definitions": {"body_cache_bytes": 0}}
    with writers.stack_with(state, **UNLIMITED, **off) as stack, connected(stack, TEAMS[0]) as connection:
        tally = Tally(stack)
        for _ in range(50):
            answer = connection.get(None, "gzip")
            assert (answer.status, answer.sent.decode()) == (200, flags(0))
            assert answer.headers["vary"] == VARY
        assert tally.after(50).count("callouts", store="definitions") == 50


def test_a_stampede_after_a_change_costs_a_callout_a_worker_and_all_get_the_new_version(stack: Stack) -> None:
    own = TEAMS[1]
    for _ in range(20):  # both workers have the old one
        assert get(stack, own.token, own.secret).status_code == 200
    # Whatever they hold, they are of one team.
    held = [b"", b'"0000000000000000"', f'W/"{etag_of(flags(0))}"'.encode(), b'"1"']
    asks = [
        authenticated_get(f"?token={own.token}".encode(), own.secret or "").replace(
            b"\r\n\r\n", b"\r\nif-none-match: " + tag + b"\r\n\r\n" if tag else b"\r\n\r\n"
        )
        for tag in held
    ]
    new = put(stack, own, flags(1))
    time.sleep(ETAG_MAX_AGE + 0.1)
    tally = Tally(stack)
    began = time.monotonic()
    crowds = [Crowd(stack, CROWD // len(asks), ask) for ask in asks]
    seen = sum((crowd.statuses() for crowd in crowds), Counter())
    took = time.monotonic() - began
    assert seen == {200: CROWD}
    tally.after(CROWD)
    asked = tally.count("callouts", store="definitions")
    print(f"{CROWD} requests in {took:.1f} s, {asked:.0f} callouts")
    # What is known grows old on the way, if that takes long.
    assert asked <= stack.settings.concurrency * (1 + took // ETAG_MAX_AGE)
    answer = get(stack, own.token, own.secret)
    assert (answer.headers["etag"], answer.text) == (f'W/"{new}"', flags(1))


# === What is current ===


def test_a_change_is_seen_within_etag_max_age_and_a_new_etag_has_its_own_body(stack: Stack) -> None:
    own = TEAMS[2]
    versions = {etag_of(flags(n)): flags(n) for n in range(8)}
    wrong: list[str] = []
    seen: list[tuple[float, str]] = []
    unavailable: list[float] = []
    stop = threading.Event()

    def hammer(number: int) -> None:
        with connected(stack, own) as connection:
            held = None
            while not stop.is_set():
                asked_at = time.monotonic()
                answer = connection.get(held if number % 2 else None, "gzip" if number % 3 else "identity")
                if answer.status == 503:  # a busy machine: Redis did not answer in time
                    unavailable.append(asked_at)
                    time.sleep(0.05)
                    continue
                etag = answer.headers["etag"].removeprefix('W/"').rstrip('"')
                if answer.status == 200 and text_of(answer) != versions[etag]:
                    wrong.append(etag)
                if answer.status == 304 and etag != held:
                    wrong.append(f"304 {etag} for {held}")
                held = etag
                seen.append((asked_at, etag))

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    changed: list[tuple[float, str]] = []
    for number in range(1, 8):
        time.sleep(0.7 + 0.3 * number)
        etag = put(stack, own, flags(number))
        changed.append((time.monotonic(), etag))
    time.sleep(ETAG_MAX_AGE + 1)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    order = [etag_of(flags(n)) for n in range(8)]
    slack = 0.6  # a callout under way
    for asked_at, etag in seen:
        current = [e for at, e in changed if at <= asked_at - ETAG_MAX_AGE - slack]
        if current:
            assert order.index(etag) >= order.index(current[-1]), f"{etag} {asked_at} {changed}"
    assert {etag for _, etag in seen} >= set(order[-1:])
    print(f"{len(seen)} answers, {len(unavailable)} of 503")
    assert len(unavailable) < len(seen) / 20


@pytest.mark.parametrize("part", ["webdis", "redis"])
def test_without_redis_a_body_is_answered_while_it_is_confirmed(part: str) -> None:
    own = TEAMS[3]
    state = State(teams=[own], texts={own.id: flags(0)})
    with writers.stack_with(state, **UNLIMITED) as stack, connected(stack, own) as connection:
        assert connection.get().status == 200
        stack.pause(part)
        paused = time.monotonic()
        seen: list[tuple[float, int]] = []
        while time.monotonic() - paused < ETAG_MAX_AGE + 3:
            began = time.monotonic() - paused
            answer = connection.get()
            seen.append((began, answer.status))
            if answer.status == 200:
                assert text_of(answer) == flags(0)
            else:
                assert answer.sent.decode() in (bodies.MISS, bodies.TIMEOUT)
            time.sleep(0.02)
        stack.resume(part)
        early = {status for at, status in seen if at < ETAG_MAX_AGE / 2}
        late = {status for at, status in seen if at > ETAG_MAX_AGE}
        assert (early, late) == ({200}, {503})
        time.sleep(NEGATIVE_TTL + 0.1)
        stack.wait_until(lambda: get(stack, own.token, own.secret).status_code == 200)


def test_the_end_of_a_quota_period_makes_another_version() -> None:
    own = TEAMS[4]
    state = State(teams=[own], texts={own.id: flags(0)})
    plain = etag_of(flags(0))
    with writers.stack_with(state, **UNLIMITED, quota={"interval": "1s"}) as stack:
        assert get(stack, own.token, own.secret).headers["etag"] == f'W/"{plain}"'
        writers.limit_quota(stack, [own.token], seconds=8)
        # A 200 after one 402 could be of a worker that has not heard of the limit yet.
        wait_until_all(stack, lambda: get(stack, own.token, own.secret).status_code == 402)
        stack.wait_until(lambda: get(stack, own.token, own.secret).status_code == 200, timeout=15)
        with connected(stack, own) as connection:
            for _ in range(20):
                answer = connection.get(plain)
                assert (answer.status, text_of(answer)) == (200, flags(0))
                assert answer.headers["etag"].startswith(f'W/"{plain}-')


# === Bounds ===


def test_a_small_cache_serves_more_teams_than_it_holds() -> None:
    """Whoever gives way is read again; nobody gets another team's body."""
    teams = TEAMS[:12]
    state = State(teams=teams, texts={own.id: flags(own.id, 400) for own in teams})
    config = {"definitions": {"body_cache_bytes": 65_536}} | UNLIMITED
    with writers.stack_with(state, **config) as stack:

        def ask(own: Team) -> None:
            with connected(stack, own) as connection:
                for n in range(60):
                    answer = connection.get("0" * 16 if n % 3 else None, "gzip" if n % 2 else "identity")
                    assert (answer.status, text_of(answer)) == (200, state.texts[own.id])

        for asked in in_background(*[lambda own=own: ask(own) for own in teams]):
            asked.result(timeout=60)
        assert trap_count(stack) == 0


# === What is billed ===


def test_every_200_is_billed_once_whatever_it_was_answered_from(stack: Stack) -> None:
    own = TEAMS[9]
    with connected(stack, own) as connection:
        compressed(connection)
    stack.wait_until(lambda: settled(stack, own), timeout=15)
    before = sum(writers.usage(stack, own.id).values())
    received = 0
    with contextlib.ExitStack() as exits:
        connections = [exits.enter_context(connected(stack, own)) for _ in range(6)]
        for n in range(300):
            held = [None, "0" * 16, etag_of(flags(0))][n % 3]
            coding = ["gzip", "identity"][n % 2]
            received += connections[n % 6].get(held, coding).status == 200
    assert received == 200
    stack.wait_until(lambda: sum(writers.usage(stack, own.id).values()) - before >= received)
    time.sleep(1)
    assert sum(writers.usage(stack, own.id).values()) - before == received


def settled(stack: Stack, own: Team) -> bool:
    before = writers.usage(stack, own.id)
    time.sleep(1)
    return writers.usage(stack, own.id) == before


# === Real clients ===


@pytest.mark.parametrize("name", SDKS)
def test_sdks_take_kept_bodies(stack: Stack, name: str) -> None:
    own = TEAMS[10]
    text = {
        "flags": [
            {
                "id": 1,
                "team_id": own.id,
                "name": "",
                "key": "kept",
                "filters": {"groups": [{"properties": [], "rollout_percentage": 100}]},
                "deleted": False,
                "active": True,
                "ensure_experience_continuity": False,
                "version": 1,
            }
        ],
        "cohorts": {},
        "group_type_mapping": {},
    }
    etag = put(stack, own, stored_text(text))
    time.sleep(ETAG_MAX_AGE + 0.1)
    with connected(stack, own) as connection:
        compressed(connection)
    for _ in range(3):
        with SDKS[name](stack, own.token, own.secret or "") as sdk:
            first: Poll = sdk.poll()
            assert first == Poll(200, None, {"kept": True})
            assert sdk.poll() == Poll(304, f'W/"{etag}"', {"kept": True})
