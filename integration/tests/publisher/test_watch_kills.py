"""A publisher killed at any moment, again and again: what is in Redis is always whole, and ends right."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from models.posthog import writers
from models.posthog.endpoint import PersonalKey, Team
from models.posthog.watching import (
    Ask,
    all_say,
    expire_lock,
    give_definitions,
    wait_until_published,
    watched,
    with_key,
    with_secret,
)
from models.posthog.whole import PREFIX, Published, leftovers, look
from postgres import Server
from posthog_db import Database, database
from stack.edge import get
from stack.launcher import Stack

KILLS = 50
LONGEST_LIFE = 0.9  # seconds from start to kill
# Enough for several pages, so that a kill can come between two of them.
FILLED_TEAMS, FILLED_KEYS = 2_000, 3_000
ORGANIZATION = "0190d6f1-0000-7000-8000-000000000001"
TEAMS = [Team(n, f"phc_{n}", ORGANIZATION, f"phs_{n}") for n in range(1, 21)]
STEADY, STEADY_KEY = TEAMS[0], PersonalKey("phx_steady", (ORGANIZATION,))


@pytest.fixture(scope="module")
def restless(postgres: Server) -> Iterator[Database]:
    with database(postgres, triggers=False) as restless:
        restless.fill(FILLED_TEAMS, FILLED_KEYS)
        restless.install_triggers()
        for team in TEAMS:
            restless.add_team(team)
        restless.add_personal_key(STEADY_KEY)
        yield restless


class Restlessness:
    """Changes rows and ETags all the time, over a connection of its own. Knows who should be let in."""

    def __init__(self, stack: Stack, db: Database, seed: int) -> None:
        self.stack, self.db, self.chance = stack, Database(db.server, db.name), random.Random(seed)
        self.live: dict[str, Team] = {}
        self.revoked: dict[str, Team] = {}
        self.changes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Restlessness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self.db.disconnect()

    def _run(self) -> None:
        while not self._stop.wait(self.chance.uniform(0.0, 0.06)):
            self.changes += 1
            team = self.chance.choice(TEAMS[1:])
            roll = self.chance.random()
            if roll < 0.4 or not self.live:
                key = f"phx_restless_{self.changes}"
                self.db.add_personal_key(PersonalKey(key, (ORGANIZATION,)))
                self.live[key] = team
            elif roll < 0.8:
                key = self.chance.choice(list(self.live))
                self.db.delete_personal_key(key)
                self.revoked[key] = self.live.pop(key)
            else:
                document = {"flags": [{"key": f"n{self.changes}"}], "cohorts": {}, "group_type_mapping": {}}
                writers.put_definitions_django(self.stack, team.id, document)


def test_fifty_kills_leave_a_whole_snapshot_each_time(restless: Database) -> None:
    chance = random.Random(50)
    options = ["--snapshot-interval", "1s", "--diff-interval", "1s"]
    lineages, generations, seen = set(), set(), Counter()
    without_manifest = with_unfinished_pages = 0
    with watched(restless, options) as stack:
        give_definitions(stack, TEAMS)
        all_say(stack, {with_secret(STEADY): 200, with_key(STEADY, STEADY_KEY): 200})
        published: Published | None = look(stack)
        with Restlessness(stack, restless, seed=1) as changing:
            for number in range(KILLS):
                expire_lock(stack)
                lost = number % 5 == 4
                if lost:  # so that a whole new lineage is on its way when the kill comes
                    stack.redis.delete(PREFIX + "snapshot")
                if number:
                    stack.start_publisher(wait=False)
                until = time.monotonic() + chance.uniform(0.0, LONGEST_LIFE)
                while time.monotonic() < until:
                    seen[get(stack, STEADY.token, STEADY_KEY.key).status_code] += 1
                stack.processes.pop("publisher").kill()
                now = look(stack, published, may_be_missing=True)
                without_manifest += now is None
                with_unfinished_pages += pages_under_way(stack, published)
                if now:
                    published = now
                    lineages.add(now.lineage)
                    generations.add(now.generation)
        expire_lock(stack)
        stack.start_publisher()
        end = wait_until_published(stack, restless)
        assert set(seen) == {200}, seen
        expected = {Ask(team, key): 200 for key, team in changing.live.items()}
        expected |= {Ask(team, key): 401 for key, team in changing.revoked.items()}
        all_say(stack, {with_secret(STEADY): 200} | expected)
        etags = {team.id: get(stack, team.token, team.secret).headers["etag"][3:-1] for team in TEAMS}
        stack.wait_until(lambda: {n: look(stack).etag(n) for n in etags} == etags)
        print(f"\n{KILLS} kills, {changing.changes} changes, {seen.total()} requests meanwhile")
        print(
            f"{len(generations)} generations of {len(lineages)} lineages seen, the last is {end.generation}"
        )
        print(
            f"killed without a manifest {without_manifest}, while writing pages {with_unfinished_pages} times"
        )
        # A snapshot that is being written has pages before its manifest.
        stack.wait_until(lambda: not leftovers(stack))


def pages_under_way(stack: Stack, published: Published) -> bool:
    """Whether a snapshot was begun that no manifest names yet."""
    generation = int(stack.redis.get(PREFIX + "generation"))
    return generation > published.generation and bool(stack.redis.exists(f"{PREFIX}snapshot:{generation}:0"))
