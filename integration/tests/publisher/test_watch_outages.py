"""What a watching publisher depends on goes away, or loses what was written: the edge never refuses whom it
knows, never pins a client to old flags, and is right again by itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from models.posthog import writers
from models.posthog.endpoint import PersonalKey, State, Team, etag_of, stored_text
from models.posthog.watching import (
    DEFINITIONS,
    ETAG_MAX_AGE,
    LOCK_TTL,
    REFUSE_MAX_AGE,
    Ask,
    Change,
    all_say,
    connections,
    definitions_callouts,
    delays,
    expire_lock,
    give_definitions,
    lock_holder,
    wait_until_published,
    watch_answers,
    watched,
    with_key,
    with_secret,
)
from models.posthog.whole import PREFIX, leftovers, look
from postgres import Server
from posthog_db import Database, database
from stack.edge import health
from stack.launcher import Stack

ORGANIZATION = "0190d6f1-0000-7000-8000-000000000001"
TEAMS = [Team(n, f"phc_{n}", ORGANIZATION, f"phs_{n}") for n in range(1, 40)]
KEY = PersonalKey("phx_known", (ORGANIZATION,))
STATE = State(TEAMS, [], [KEY])
PAST = PersonalKey("phx_revoked_long_ago", (ORGANIZATION,))
ETAG = f'W/"{etag_of(stored_text(DEFINITIONS))}"'

KNOWN = [with_secret(TEAMS[0]), with_secret(TEAMS[1], ETAG), with_key(TEAMS[2], KEY)]
UNKNOWN = [Ask(TEAMS[0], "phs_unknown"), Ask(TEAMS[1], "phx_unknown"), Ask(Team(9, "phc_unknown"), "phs_1")]
REVOKED = with_key(TEAMS[0], PAST)
HEALTHY = {KNOWN[0]: 200, KNOWN[1]: 304, KNOWN[2]: 200, REVOKED: 401} | {ask: 401 for ask in UNKNOWN}
DIFF_INTERVAL = 1  # seconds
# How long healing may take: a takeover, a sweep, a new load with its random delay.
HEALED_WITHIN = 40.0


@pytest.fixture(scope="module")
def people(postgres: Server) -> Iterator[Database]:
    with database(postgres) as people:
        people.put(STATE)
        people.add_personal_key(PAST)
        yield people


@pytest.fixture(scope="module")
def shared(people: Database) -> Iterator[Stack]:
    with watched(people, ["--diff-interval", f"{DIFF_INTERVAL}s"]) as stack:
        give_definitions(stack, TEAMS)
        all_say(stack, {REVOKED: 200})
        people.delete_personal_key(PAST.key)
        healthy(stack, people)
        yield stack


@pytest.fixture
def stack(shared: Stack, people: Database) -> Iterator[Stack]:
    """As it should be, and it has to be so afterwards."""
    yield shared
    if "publisher" not in shared.processes:
        shared.start_publisher()
    began = time.monotonic()
    healthy(shared, people)
    print(f"healthy after {time.monotonic() - began:.1f} s")


def healthy(stack: Stack, people: Database) -> None:
    wait_until_published(stack, people, HEALED_WITHIN)
    all_say(stack, HEALTHY, HEALED_WITHIN)
    stack.wait_until(lambda: (health(stack)["watermark_age_ms"] or 9_999) < 2_000, HEALED_WITHIN)


def asks_nothing(stack: Stack) -> bool:
    before = definitions_callouts(stack)
    answers = watch_answers(stack, [KNOWN[1]], 0.5)[KNOWN[1]]
    time.sleep(1.2)
    return set(answers) == {304} and definitions_callouts(stack) == before


def kill(stack: Stack, name: str = "publisher") -> None:
    stack.processes.pop(name).kill()


def never_wrong(seen: dict[Ask, Counter[int]], payloads_are_there: bool = True) -> None:
    """Those who may read are never refused, those who may not never get anything."""
    for ask in KNOWN:
        answers = set(seen[ask]) - {200, 304}
        assert answers <= (set() if payloads_are_there else {503}), (ask.team.id, seen[ask])
    for ask in (*UNKNOWN, REVOKED):
        assert set(seen.get(ask, ())) <= {401, 503}, (ask.team.id, seen[ask])


# === The publisher ===


def test_a_dead_publisher_pins_nobody_to_old_flags_and_refuses_nobody(stack: Stack, people: Database) -> None:
    kill(stack)
    died = time.monotonic()
    seen = watch_answers(stack, [*KNOWN, *UNKNOWN, REVOKED], ETAG_MAX_AGE + 0.5)
    never_wrong(seen)
    # Nothing confirms ETags any more: they are asked, and a callout confirms for as long as a watermark.
    time.sleep(1.2)
    asked = definitions_callouts(stack)
    stale = {"flags": [{"key": "new"}], "cohorts": {}, "group_type_mapping": {}}
    all_say(stack, {KNOWN[1]: 304})
    writers.put_definitions_django(stack, TEAMS[1].id, stale)
    written = time.monotonic()
    last = written
    with connections(stack) as client:
        while time.monotonic() - written < ETAG_MAX_AGE + 2.0:
            began = time.monotonic()
            if KNOWN[1].through(client) == 304:
                last = began
    print(f"\na new document without a publisher: {last - written:.2f} s")
    assert last - written <= ETAG_MAX_AGE + 1.0
    all_say(stack, {KNOWN[1]: 200})
    watch_answers(stack, [with_secret(TEAMS[2], ETAG)], 2 * ETAG_MAX_AGE)
    stack.wait_until(lambda: definitions_callouts(stack) - asked >= 3)
    # Nobody is refused whose credential may have been added meanwhile.
    until_refusals_end = REFUSE_MAX_AGE + 2.0 - (time.monotonic() - died)
    if until_refusals_end > 0:
        watch_answers(stack, KNOWN, until_refusals_end)
    late = PersonalKey(f"phx_late_{time.time_ns()}", (ORGANIZATION,))
    people.add_personal_key(late)
    seen = watch_answers(stack, [*KNOWN, *UNKNOWN, with_key(TEAMS[0], late)], 2.0)
    never_wrong(seen)
    for ask in (*UNKNOWN, with_key(TEAMS[0], late)):
        assert set(seen[ask]) == {503}, (ask.team.id, seen[ask])
    give_definitions(stack, [TEAMS[1]])
    stack.start_publisher()
    all_say(stack, {with_key(TEAMS[0], late): 200}, HEALED_WITHIN)
    people.delete_personal_key(late.key)
    stack.wait_until(lambda: asks_nothing(stack), HEALED_WITHIN)


def test_a_publisher_that_is_told_to_stop_makes_way(stack: Stack) -> None:
    stack.start_publisher("publisher-2")
    holder = lock_holder(stack)
    began = time.monotonic()
    stack.stop_part("publisher")
    stopped = time.monotonic() - began
    stack.wait_until(lambda: lock_holder(stack) not in (None, holder))
    print(f"\nstopped after {stopped:.2f} s, followed after {time.monotonic() - began:.2f} s")
    assert stopped < 9, "it had to be killed"
    stack.processes["publisher"] = stack.processes.pop("publisher-2")


def test_of_two_publishers_one_writes_and_a_frozen_one_cannot_come_back(
    stack: Stack, people: Database
) -> None:
    stack.start_publisher("publisher-2")
    first = lock_holder(stack)
    time.sleep(1.5)
    assert lock_holder(stack) == first, "two publishers changed places without need"
    let_happen = some_changes(stack, people)
    stack.pause("publisher")
    began = time.monotonic()
    before = look(stack)
    stack.wait_until(lambda: lock_holder(stack) not in (None, first), LOCK_TTL + 25)
    second = lock_holder(stack)
    print(f"\ntaken over after {time.monotonic() - began:.2f} s")
    took = let_happen()
    print(f"changes after that: at most {max(took):.2f} s")
    meanwhile = look(stack, before)
    assert meanwhile.fence > before.fence
    stack.resume("publisher")
    after = meanwhile
    until = time.monotonic() + 3.0
    changes = iter(range(100))
    while time.monotonic() < until:
        people.rotate_secret(TEAMS[30].id, f"phs_turn_{next(changes)}_{time.time_ns()}")
        time.sleep(0.3)
        after = look(stack, after)
        assert after.fence == meanwhile.fence, "the one that was frozen wrote"
        assert lock_holder(stack) == second
    wait_until_published(stack, people)
    # And it is ready to follow in turn.
    kill(stack, "publisher-2")
    expire_lock(stack)
    stack.wait_until(lambda: lock_holder(stack) not in (None, second), LOCK_TTL + 25)
    stack.wait_until(lambda: wait_until_published(stack, people).fence > meanwhile.fence)


def some_changes(stack: Stack, people: Database) -> Callable[[], list[float]]:
    """Prepares changes of each kind; called, it lets them happen and tells how soon the edge knew each."""
    name = time.time_ns()
    old, new = (PersonalKey(f"phx_{kind}_{name}", (ORGANIZATION,)) for kind in ("old", "new"))
    people.add_personal_key(old)
    all_say(stack, {with_key(TEAMS[3], old): 200}, HEALED_WITHIN)
    secret = f"phs_rotated_{name}"
    changes = [
        Change(lambda: people.add_personal_key(new), with_key(TEAMS[3], new), 200, "add"),
        Change(lambda: people.rotate_secret(TEAMS[4].id, secret), Ask(TEAMS[4], secret), 200, "rotate"),
        Change(lambda: people.delete_personal_key(old.key), with_key(TEAMS[3], old), 401, "revoke"),
    ]
    return lambda: delays(stack, changes, limit=HEALED_WITHIN)


# === The database ===


def test_a_database_that_hangs_or_ends_leaves_what_is_known(stack: Stack, people: Database) -> None:
    """ETags do not depend on it: they stay confirmed."""
    people.disconnect()
    people.server.pause()
    try:
        seen = watch_answers(stack, [*KNOWN, *UNKNOWN, REVOKED], REFUSE_MAX_AGE + 8)
        never_wrong(seen)
        settled = watch_answers(stack, UNKNOWN, 1.0)
        assert {status for answers in settled.values() for status in answers} == {503}
        stack.wait_until(lambda: asks_nothing(stack))
        changed = writers.put_definitions_django(stack, TEAMS[1].id, {"flags": [], "cohorts": {}})
        all_say(stack, {with_secret(TEAMS[1], f'"{changed}"'): 304, KNOWN[1]: 200})
        assert "publisher" in stack.processes and stack.processes["publisher"].alive()
    finally:
        people.server.resume()
    give_definitions(stack, [TEAMS[1]])
    all_say(stack, HEALTHY, HEALED_WITHIN)
    people.server.stop()
    never_wrong(watch_answers(stack, [*KNOWN, *UNKNOWN, REVOKED], 3))
    people.server.start()
    began = time.monotonic()
    stack.wait_until(lambda: health(stack)["stale"] is False, HEALED_WITHIN)
    all_say(stack, HEALTHY, HEALED_WITHIN)
    print(f"\nright again {time.monotonic() - began:.1f} s after the database")
    took = some_changes(stack, people)()
    print(f"changes after a restart of the database: {', '.join(f'{seconds:.2f}' for seconds in took)} s")


# === Redis ===


def flush(stack: Stack) -> None:
    stack.redis.flushall()
    give_definitions(stack, TEAMS)


def lose_the_newest_entry(stack: Stack) -> None:
    ((newest, _),) = stack.redis.xrevrange(PREFIX + "changes", count=1)
    stack.redis.xdel(PREFIX + "changes", newest)


def lose_an_older_entry(stack: Stack) -> None:
    entries = stack.redis.xrevrange(PREFIX + "changes", count=3)
    stack.redis.xdel(PREFIX + "changes", entries[-1][0])


def lose_a_page(stack: Stack) -> None:
    published = look(stack)
    assert stack.redis.delete(f"{PREFIX}snapshot:{published.generation}:0")


def damage_a_page(stack: Stack) -> None:
    """What a filter that starts now would refuse. A publisher that starts sees it; one that runs need not."""
    published = look(stack)
    stack.redis.setrange(f"{PREFIX}snapshot:{published.generation}:0", 10, b"\xff\xff\xff")
    stack.restart("publisher")


def restart_redis(stack: Stack) -> None:
    stack.restart("redis")
    give_definitions(stack, TEAMS)


LOSSES: dict[str, Callable[[Stack], object]] = {
    "flushed": flush,
    "restarted empty": restart_redis,
    "the manifest is gone": lambda stack: stack.redis.delete(PREFIX + "snapshot"),
    "a page is gone": lose_a_page,
    "a page is damaged": damage_a_page,
    "the stream is trimmed": lambda stack: stack.redis.xtrim(PREFIX + "changes", maxlen=0, approximate=False),
    "the stream is gone": lambda stack: stack.redis.delete(PREFIX + "changes"),
    "the newest entry is gone": lose_the_newest_entry,
    "an older entry is gone": lose_an_older_entry,
    "the fence is gone": lambda stack: stack.redis.delete(PREFIX + "fence"),
    "the generation is gone": lambda stack: stack.redis.delete(PREFIX + "generation"),
    "the lock is taken away": lambda stack: stack.redis.delete(PREFIX + "lock"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_redis_lost_is_published_again(stack: Stack, people: Database, loss: str) -> None:
    """What happens in the database at that moment is known soon, and nobody is refused who may read."""
    key = PersonalKey(f"phx_{time.time_ns()}", (ORGANIZATION,))
    people.add_personal_key(key)
    all_say(stack, {with_key(TEAMS[5], key): 200})
    people.delete_personal_key(key.key)
    LOSSES[loss](stack)
    lost = time.monotonic()
    seen = watch_answers(stack, [*KNOWN, *UNKNOWN, REVOKED], 1.5)
    never_wrong(seen, payloads_are_there=loss not in ("flushed", "restarted empty"))
    all_say(stack, {with_key(TEAMS[5], key): 401} | HEALTHY, HEALED_WITHIN)
    wait_until_published(stack, people, HEALED_WITHIN)
    print(f"\n{loss}: right again after {time.monotonic() - lost:.1f} s at most")


def test_changes_lost_before_any_envoy_read_them(stack: Stack, people: Database) -> None:
    """Entries are deleted as soon as they are written, for three seconds."""
    keys = [PersonalKey(f"phx_{time.time_ns()}_{n}", (ORGANIZATION,)) for n in range(6)]
    for key in keys:
        people.add_personal_key(key)
    all_say(stack, {with_key(TEAMS[6], key): 200 for key in keys})
    for key in keys:
        people.delete_personal_key(key.key)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            for name, _ in stack.redis.xrange(PREFIX + "changes"):
                stack.redis.xdel(PREFIX + "changes", name)
    all_say(stack, {with_key(TEAMS[6], key): 401 for key in keys}, HEALED_WITHIN)


def test_a_redis_that_hangs_for_a_while(stack: Stack, people: Database) -> None:
    """Longer than the lock lives, and than anybody may be refused."""
    let_happen = some_changes(stack, people)
    stack.pause("redis")
    try:
        seen = watch_answers(stack, [KNOWN[1], *UNKNOWN], LOCK_TTL + 3)
        assert set(seen[KNOWN[1]]) <= {304, 503}
        for ask in UNKNOWN:
            assert set(seen[ask]) <= {401, 503}
    finally:
        stack.resume("redis")
    took = let_happen()
    print(f"\nchanges after Redis hung: {', '.join(f'{seconds:.2f}' for seconds in took)} s")


def test_no_page_stays_that_nobody_needs(stack: Stack) -> None:
    """After all of the above."""
    stack.wait_until(lambda: not leftovers(stack))
