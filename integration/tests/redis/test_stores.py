"""Two Redis: definitions in a dedicated one, everything else in the shared one, with the cluster of
envoy/dedicated-redis.yaml and filter-config/examples/two-redis.json. What is away costs its own part only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from models.posthog import bodies, writers
from models.posthog.endpoint import PersonalKey, State, Team, etag_of, stored_text
from stack import clusters
from stack.edge import get, health, trap_count, wait_until_all
from stack.launcher import Stack
from stack.settings import Settings

TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
OTHER = stored_text({"flags": [{"key": "b"}], "cohorts": {}, "group_type_mapping": {}})
ETAG = f'W/"{etag_of(TEXT)}"'
ONE, EMPTY, LIMITED, CACHED, BILLED = (
    Team(9200 + n, f"phc_stores_{n}", None, f"phs_stores_{n}") for n in range(1, 6)
)
PUBLISHED = State(teams=[ONE, EMPTY, LIMITED, BILLED])  # CACHED is in PostHog's own cache only
DEDICATED = "flag_definitions_redis_dedicated"


@dataclass
class Stores:
    """Envoy's stack with the shared Redis, and the dedicated Redis with its webdis."""

    shared: Stack
    dedicated: Stack

    def ask(self, team: Team, etag: str | None = None, secret: str | None = None) -> requests.Response:
        return get(self.shared, team.token, secret or team.secret, etag)

    def callouts(self, cluster: str) -> int:
        return self.shared.stats()[f"cluster.{cluster}.upstream_rq_total"]


@contextmanager
def two_redis(dedicated_is_for: str = "definitions") -> Iterator[Stores]:
    """Starts both. `dedicated_is_for` is the store that is on the dedicated Redis; all others are shared."""
    dedicated = Stack(Settings.on_free_ports(snapshot=None))
    with dedicated.all_or_nothing():
        dedicated.start_redis()
        dedicated.start_webdis()
    example = clusters.plugin_config("two-redis")
    cluster = example["redis"].pop("definitions")
    config: dict[str, Any] = example | {
        "redis": example["redis"] | {dedicated_is_for: cluster},
        "read_through": {"enabled": True},
        "quota": {"interval": "1s"},
        "usage": {"flush_interval": "1s"},
    }
    own = (clusters.dedicated_redis(dedicated.settings.webdis_port),)
    shared = Stack(Settings.on_free_ports(snapshot=None, config=config, clusters=own))
    passed = False
    try:
        with shared.all_or_nothing():
            shared.start_redis()
            shared.start_webdis()
            stores = Stores(shared, dedicated)
            fill(stores, dedicated_is_for)
            shared.start_envoy()
            # With read-through Envoy is ready before.
            shared.wait_until(lambda: health(shared)["generation"] is not None)
        yield stores
        assert trap_count(shared) == 0, "the filter trapped"
        passed = True
    finally:
        for stack in (shared, dedicated):
            stack.stop()
            if passed:  # after a failure the logs are wanted
                shutil.rmtree(stack.settings.run_dir, ignore_errors=True)


def fill(stores: Stores, dedicated_is_for: str) -> None:
    """Writes each thing where it belongs; what is in the wrong Redis would give other answers."""

    def place(store: str) -> Stack:
        return stores.dedicated if store == dedicated_is_for else stores.shared

    document = PUBLISHED.source_document()
    place("snapshot").publish(document)
    for team in (ONE, LIMITED, CACHED, BILLED):
        writers.put_definitions_django(place("definitions"), team.id, TEXT)
    writers.put_team(place("identity"), CACHED)
    writers.put_credential(place("identity"), CACHED.secret, writers.team_secret_entry(CACHED))
    writers.limit_quota(place("quota"), [LIMITED.token])


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with two_redis() as stores:
        # In the wrong place: nobody may look at it.
        for team in (ONE, EMPTY, CACHED):
            writers.put_definitions_django(stores.shared, team.id, OTHER)
        writers.limit_quota(stores.dedicated, [ONE.token])
        nobody = PersonalKey("phx_stores_elsewhere")
        writers.put_credential(stores.dedicated, nobody.key, writers.personal_key_entry(nobody))
        wait_until_all(stores.shared, lambda: stores.ask(LIMITED).status_code == 402)
        yield stores


def test_each_thing_is_read_where_it_is(stores: Stores) -> None:
    assert stores.ask(ONE).text == TEXT
    assert stores.ask(ONE, ETAG).status_code == 304
    assert stores.ask(CACHED).text == TEXT, "identity from the shared one, payload from the dedicated one"
    assert stores.ask(LIMITED, ETAG).status_code == 402
    assert stores.ask(CACHED, secret="phx_stores_elsewhere").status_code == 401
    answer = stores.ask(EMPTY)
    assert (answer.status_code, answer.text) == (503, bodies.MISS)


def test_each_thing_is_written_where_it_belongs(stores: Stores) -> None:
    assert stores.ask(ONE).status_code == 200
    assert stores.ask(EMPTY).status_code == 503
    stores.shared.wait_until(lambda: bool(writers.usage(stores.shared, ONE.id)))
    assert writers.usage(stores.dedicated, ONE.id) == {}
    # The queue of rebuilds belongs to the payloads.
    stores.shared.wait_until(lambda: EMPTY.id in writers.rebuild_requests(stores.dedicated))
    assert writers.rebuild_requests(stores.shared) == {}
    # And so does the end of a quota period, which changes their ETags.
    ends = "flag_definitions:quota_end:*"
    stores.shared.wait_until(lambda: bool(stores.dedicated.redis.keys(ends)))
    assert stores.shared.redis.keys(ends) == []


def test_without_the_dedicated_redis_only_payloads_are_missing(stores: Stores) -> None:
    stores.dedicated.stop_part("webdis")
    try:
        # What was confirmed before is answered until that is too old.
        wait_until_all(stores.shared, lambda: stores.ask(ONE).status_code == 503)
        answer = stores.ask(ONE)
        assert (answer.status_code, answer.text) == (503, bodies.MISS)
        time.sleep(5.5)  # longer than refuse_max_age
        assert stores.ask(ONE, secret="phs_wrong").status_code == 401, "the snapshot is fresh"
        assert stores.ask(LIMITED).status_code == 402
        assert get(stores.shared, "phc_stores_unknown", ONE.secret).status_code == 401, "identities, too"
        assert stores.ask(ONE).status_code == 503
    finally:
        stores.dedicated.restart("webdis")
    stores.shared.wait_until(lambda: stores.ask(ONE).text == TEXT)
    assert writers.rebuild_requests(stores.dedicated).keys() <= {EMPTY.id}, "an outage is no miss"


def test_without_the_shared_redis_what_is_known_is_answered(stores: Stores) -> None:
    stores.shared.stop_part("webdis")
    try:
        time.sleep(5.5)
        for _ in range(3):
            assert stores.ask(BILLED).text == TEXT
        assert stores.ask(BILLED, ETAG).status_code == 304
        assert stores.ask(LIMITED).status_code == 402, "the last set of quotas stays"
        assert stores.ask(ONE, secret="phs_wrong").status_code == 503, "nobody is refused on old knowledge"
    finally:
        stores.shared.restart("webdis")
    stores.shared.wait_until(lambda: sum(writers.usage(stores.shared, BILLED.id).values()) == 3)
    stores.shared.wait_until(lambda: stores.ask(ONE, secret="phs_wrong").status_code == 401)


@pytest.mark.parametrize("store", ["identity", "usage", "quota", "snapshot"])
def test_each_store_can_be_on_its_own_redis(store: str) -> None:
    with two_redis(store) as stores:
        asked = stores.callouts(DEDICATED)
        assert stores.ask(ONE).text == TEXT
        assert stores.ask(CACHED).text == TEXT
        wait_until_all(stores.shared, lambda: stores.ask(LIMITED).status_code == 402)
        place = stores.dedicated if store == "usage" else stores.shared
        stores.shared.wait_until(lambda: bool(writers.usage(place, ONE.id)))
        stores.shared.wait_until(lambda: stores.callouts(DEDICATED) > asked or store == "identity")
        if store == "snapshot":
            generation = stores.dedicated.redis.get("flag_definitions:snapshot")
            assert generation and not stores.shared.redis.exists("flag_definitions:snapshot")
        # Only its own part is away.
        stores.dedicated.stop_part("webdis")
        assert stores.ask(ONE).text == TEXT
        assert stores.ask(LIMITED).status_code == 402
        unknown = get(stores.shared, "phc_stores_unknown", ONE.secret)
        assert unknown.status_code == (503 if store == "identity" else 401)
        if store == "snapshot":
            stores.shared.wait_until(lambda: stores.ask(ONE, secret="phs_wrong").status_code == 503)
            assert stores.ask(ONE).text == TEXT
