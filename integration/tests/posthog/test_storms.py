"""SDKs that have no definitions yet ask once per flag evaluation, hundreds of times a second."""

from __future__ import annotations

import time
import zlib
from collections import Counter

import pytest

from models.posthog import writers
from models.posthog.endpoint import State, Team, stored_text
from models.posthog.front import unchanged_posthog
from stack.edge import UNLIMITED, Client, Crowd, Tally, authenticated_get, soon_enough
from stack.launcher import Stack

TEAM = Team(7001, "phc_storm", None, "phs_storm")
NOBODY = Team(7002, "phc_nobody", None, "phs_nobody")
TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
SECONDS, RATE = 5, 200
ETAG_MAX_AGE = 2.1  # seconds: the filter's default, and a little more


def storm(stack: Stack, team: Team, connections: int) -> tuple[Counter[int], float]:
    """The statuses, and how long it took."""
    client = Client(stack, connections)
    seen: Counter[int] = Counter()
    began = time.monotonic()
    for n in range(SECONDS * RATE):
        time.sleep(max(0.0, began + n / RATE - time.monotonic()))
        seen[client.get(team.token, team.secret or "").status] += 1
    lasted = time.monotonic() - began
    client.close()
    return seen, lasted


def at_most(stack: Stack, lasted: float) -> float:
    """One read a second for each worker, and the one at the end."""
    return stack.settings.concurrency * (lasted + 1)


@pytest.mark.parametrize("connections", [1, 16])
def test_a_missing_payload_is_read_once_a_second_and_signalled_once(connections: int) -> None:
    # The time for which a signal is not repeated begins when it is sent: 60 s.
    with unchanged_posthog(State(teams=[TEAM])) as stack:
        tally = Tally(stack)
        seen, lasted = storm(stack, TEAM, connections)
        assert seen == {503: SECONDS * RATE}
        tally.after(SECONDS * RATE)
        assert 0 < tally.count("callouts", store="definitions") <= at_most(stack, lasted)
        assert tally.count("callouts", store="rebuild") == 1
        assert list(writers.rebuild_requests(stack)) == [TEAM.id]
        assert tally.lookups() <= stack.settings.concurrency
        print(f"{lasted:.1f} s, {tally.count('callouts', store='definitions'):.0f} reads")
        # What was rebuilt is answered within two seconds.
        soon_enough(lambda: rebuilt(stack), 2.0)


def rebuilt(stack: Stack) -> float:
    """How long a worker that knows of the miss goes on answering it."""
    writers.forget_definitions(stack, TEAM.id)
    with Client(stack) as client:

        def status() -> int:
            return client.get(TEAM.token, TEAM.secret or "").status

        assert status() == 503
        writers.put_definitions_django(stack, TEAM.id, TEXT)
        began = time.monotonic()
        stack.wait_until(lambda: status() == 200)
        return time.monotonic() - began


@pytest.mark.parametrize("connections", [1, 16])
def test_an_unknown_team_is_looked_up_once_a_second(connections: int) -> None:
    with unchanged_posthog(State(teams=[TEAM]), published=State()) as stack:
        tally = Tally(stack)
        seen, lasted = storm(stack, NOBODY, connections)
        assert seen == {401: SECONDS * RATE}
        assert 0 < tally.after(SECONDS * RATE).lookups() <= at_most(stack, lasted)
        print(f"{lasted:.1f} s, {tally.lookups():.0f} look-ups")


def test_a_redis_that_is_away_is_asked_once_a_second() -> None:
    with unchanged_posthog(State(teams=[TEAM])) as stack:
        stack.stop_part("webdis")
        tally = Tally(stack)
        seen, lasted = storm(stack, TEAM, 16)
        assert seen == {503: SECONDS * RATE}
        assert 0 < tally.after(SECONDS * RATE).lookups() <= at_most(stack, lasted)


def large(version: int) -> str:
    flags = [{"key": f"flag-{n}", "id": n, "version": version} for n in range(90_000)]
    text = stored_text({"flags": flags, "cohorts": {}, "group_type_mapping": {}})
    assert len(text) > 4_000_000
    return text


@pytest.mark.alone
def test_4_mb_reach_200_clients_at_once_with_the_default_timeout() -> None:
    ask = authenticated_get(f"?token={TEAM.token}".encode(), TEAM.secret or "")
    with writers.stack_with(State(teams=[TEAM]), settings={"callout_timeout": None}, **UNLIMITED) as stack:
        # As a cache without a compressor stores them, the callout transfers all 4 MB.
        for version, compressor in [(1, None), (2, "zstd"), (3, None)]:
            writers.put_definitions_django(stack, TEAM.id, large(version), compressor)
            time.sleep(ETAG_MAX_AGE)
            checksum = zlib.crc32(large(version).encode())
            assert Crowd(stack, 200, ask).answers() == {(200, checksum): 200}
        # And when the gateway is late, as on a busy machine.
        writers.put_definitions_django(stack, TEAM.id, large(4))
        time.sleep(ETAG_MAX_AGE)
        stack.pause("webdis")
        crowd = Crowd(stack, 200, ask)
        time.sleep(0.3)
        stack.resume("webdis")
        assert crowd.answers() == {(200, zlib.crc32(large(4).encode())): 200}
