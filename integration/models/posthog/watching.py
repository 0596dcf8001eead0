"""Stacks whose publisher watches a database, and how long it takes until the edge knows what happened."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from models.posthog import whole
from models.posthog.endpoint import PersonalKey, Team
from models.posthog.whole import Published
from models.posthog.writers import put_definitions_django
from posthog_db import Database
from stack.edge import UNLIMITED, Client, callouts, get, health, trap_count
from stack.launcher import Stack, kept_for_a_look
from stack.settings import KEYSPACE_EVENTS, Settings

# The filter's defaults, in seconds.
ETAG_MAX_AGE, REFUSE_MAX_AGE = 2.0, 5.0
LOCK_TTL = 5.0  # after which another publisher takes over, in seconds
# Enough for both workers to be asked but for one time in 2^7.
CONNECTIONS = 8
DEFINITIONS = {"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}}


@contextmanager
def watched(
    database: Database,
    options: Sequence[str] = (),
    config: dict[str, Any] | None = None,
    keyspace_events: bool = True,
    **settings: Any,
) -> Iterator[Stack]:
    """A stack whose publisher watches this database. Rates are not limited."""
    settings |= {
        "watch": True,
        "database_url": database.url,
        "watch_options": tuple(options),
        "snapshot": None,
    }
    settings["config"] = UNLIMITED | (config or {})
    settings["notify_keyspace_events"] = KEYSPACE_EVENTS if keyspace_events else ""
    stack = Stack(Settings.on_free_ports(**settings))
    with kept_for_a_look(stack):
        stack.start()
        yield stack
        assert trap_count(stack) == 0, "the filter trapped"
        tells_no_secret(stack, database)


def tells_no_secret(stack: Stack, database: Database) -> None:
    """Neither log nor health endpoint shows a credential or a password."""
    shown = "".join(stack.log(name) for name in ("publisher", "publisher-2", "envoy")) + str(health(stack))
    password = database.url.split("@")[0].rsplit(":", 1)[1]
    for secret in ("phc_", "phs_", "phx_", password, stack.publisher_url.split("@")[0]):
        assert secret not in shown, "a log shows a secret"


# === Who asks, and what is answered ===


@dataclass(frozen=True)
class Ask:
    """A request for a team's definitions."""

    team: Team
    secret: str
    etag: str | None = None

    def status(self, stack: Stack) -> int:
        return get(stack, self.team.token, self.secret, self.etag).status_code

    def through(self, client: Client) -> int:
        return client.get(self.team.token, self.secret, self.etag).status


def with_key(team: Team, key: PersonalKey) -> Ask:
    return Ask(team, key.key)


def with_secret(team: Team, etag: str | None = None) -> Ask:
    assert team.secret
    return Ask(team, team.secret, etag)


@contextmanager
def connections(stack: Stack, count: int = CONNECTIONS) -> Iterator[Client]:
    client = Client(stack, count)
    try:
        yield client
    finally:
        client.close()


def give_definitions(stack: Stack, teams: Iterable[Team]) -> None:
    for team in teams:
        put_definitions_django(stack, team.id, DEFINITIONS)


def all_say(stack: Stack, expected: dict[Ask, int], timeout: float = 40.0) -> None:
    """Waits until each request gets its status on every connection."""
    deadline = time.monotonic() + timeout
    with connections(stack) as client:
        while wrong := {
            ask: answers
            for ask, status in expected.items()
            if (answers := {ask.through(client) for _ in client.connections}) != {status}
        }:
            if time.monotonic() > deadline:
                told = [(ask.team.id, answers, expected[ask]) for ask, answers in wrong.items()]
                raise AssertionError(f"(team, answers, expected): {told[:5]}, {len(told)} in all")
            time.sleep(0.05)


def watch_answers(stack: Stack, asks: Collection[Ask], seconds: float) -> dict[Ask, Counter[int]]:
    """All statuses that these requests got within so many seconds."""
    seen: dict[Ask, Counter[int]] = {ask: Counter() for ask in asks}
    until = time.monotonic() + seconds
    with connections(stack) as client:
        while time.monotonic() < until:
            for ask in asks:
                seen[ask][ask.through(client)] += 1
            time.sleep(0.005)
    return seen


# === How long it takes ===


@dataclass(frozen=True)
class Change:
    """Something that happens to the database, and who gets another answer then."""

    act: Callable[[], object]
    ask: Ask
    becomes: int
    kind: str = "change"


def delays(stack: Stack, changes: Sequence[Change], pause: float = 0.13, limit: float = 40.0) -> list[float]:
    """Lets one change after the other happen. Seconds from each until all connections get the new answer."""
    began: dict[int, float] = {}
    found: dict[int, float] = {}
    next_at = time.monotonic()
    with connections(stack) as client:
        while len(found) < len(changes):
            if len(began) < len(changes) and time.monotonic() >= next_at:
                changes[len(began)].act()
                began[len(began)] = time.monotonic()
                next_at = time.monotonic() + pause
            for number in began.keys() - found.keys():
                change, asked = changes[number], time.monotonic()
                if all(change.ask.through(client) == change.becomes for _ in client.connections):
                    found[number] = asked - began[number]
                elif asked - began[number] > limit:
                    raise AssertionError(f"{change.kind} was not known at the edge after {limit} s")
            time.sleep(0.005)
        for change in changes:
            assert change.ask.through(client) == change.becomes, f"{change.kind}: the answer changed back"
    return [found[number] for number in range(len(changes))]


def percentile(values: Iterable[float], rank: float) -> float:
    """Nearest rank: of 20 values the 99th percentile is the largest."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(rank / 100 * len(ordered)) - 1)]


def summary(values: Sequence[float]) -> str:
    p50, p99 = percentile(values, 50), percentile(values, 99)
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(values):.2f} s of {len(values)}"


# === What it costs ===


def definitions_callouts(stack: Stack) -> float:
    """As workers told, which they do about once a second."""
    return stack.metric("flag_definitions_callouts_total", store="definitions")


def callouts_per_second(stacks: Sequence[Stack], seconds: float) -> list[float]:
    """Envoy's own count of each."""
    began, before = time.monotonic(), [callouts(stack) for stack in stacks]
    time.sleep(seconds)
    took = time.monotonic() - began
    return [(callouts(stack) - count) / took for stack, count in zip(stacks, before, strict=True)]


# === The publisher ===


def lock_holder(stack: Stack) -> bytes | None:
    return stack.redis.get(whole.PREFIX + "lock")


def expire_lock(stack: Stack) -> None:
    """What the lock's own expiry does a few seconds after a publisher was killed."""
    stack.redis.delete(whole.PREFIX + "lock")


def wait_until_published(stack: Stack, database: Database, timeout: float = 40.0) -> Published:
    """Until what is published is whole, and teams and credentials are those of the database."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            published = whole.look(stack)
            expected = whole.records_of(database)
            differing = dict(published.credentials.items() ^ expected.items())
            kinds = Counter(record[0] for record in differing.values())
            assert not differing, f"hashes that differ after {timeout} s, by kind: {kinds}"
            return published
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
