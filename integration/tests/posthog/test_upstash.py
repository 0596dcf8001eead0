"""The same answers when an Upstash gateway stands in front of Redis: the tables of the other files over the
stand-in stack/upstash.py, behind the cluster of envoy/upstash.yaml with filter-config/examples/upstash.json.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import test_wire_encodings as encodings
import test_wire_limits as limits
import test_wire_tables as tables
from models.posthog import bodies, writers
from models.posthog.endpoint import State
from stack import clusters
from stack.edge import document, get, health, publish, team, trap_count, wait_until_all
from stack.launcher import Stack
from stack.settings import UPSTASH_TOKEN, Settings

# These run here once more, with the fixtures of this file.
from test_wire_encodings import (  # noqa: F401
    test_credentials,
    test_payloads,
    test_payloads_that_cannot_be_read,
    test_team_metadata,
)
from test_wire_limits import (  # noqa: F401
    test_402_even_when_the_etag_matches,
    test_only_a_200_with_flags_of_its_own_is_billed,
    test_the_quota_period_ends_with_its_score,
)
from test_wire_tables import (  # noqa: F401
    no_definitions,
    test_a_miss_is_503_and_asks_for_a_rebuild_once,
    test_a_payload_whose_etag_is_gone,
    test_personal_keys,
    test_project_secret_keys,
    test_queries,
    test_rebuilt_definitions_are_answered,
    test_secret_tokens,
    test_the_sentinel_is_a_miss,
    test_validators,
    test_with_and_without_a_token,
)


def state() -> State:
    """What all of these tests want to be known."""
    first, count = encodings.FIRST_TEAM, len(encodings.ROWS)
    known = State(
        teams=[*tables.STATE.teams, *(limits.team(8201 + n) for n in range(60))],
        project_keys=tables.STATE.project_keys,
        personal_keys=[*tables.STATE.personal_keys, encodings.KEY],
        texts=tables.STATE.texts | {8201 + n: limits.TEXT for n in range(60)},
    )
    known.teams += [encodings.team(first + n) for n in range(count)]
    known.teams += [encodings.team(encodings.FIRST_BROKEN + n) for n in range(len(encodings.BROKEN))]
    known.teams += [encodings.team(7001 + n) for n in range(len(writers.ENCODINGS))]
    known.texts |= {7001 + n: encodings.TEXT for n in range(len(writers.ENCODINGS))}
    known.texts |= {limits.NO_FLAGS: limits.EMPTY, limits.TARGETING: limits.TARGETED}
    known.texts |= {limits.MIXED: limits.MIXTURE}
    del known.texts[limits.MISSING]
    return known


@contextmanager
def over_upstash(identities: str, **config: Any) -> Iterator[Stack]:
    config = clusters.plugin_config("upstash") | {"rate_limit": {"enabled": False}} | config
    config |= {"quota": {"interval": "1s"}, "usage": {"flush_interval": "1s"}}
    with writers.stack_with(state(), identities, settings={"gateway": "upstash"}, **config) as stack:
        yield stack
        assert "webdis" not in stack.processes


@pytest.fixture(scope="module")
def snapshot() -> Iterator[Stack]:
    with over_upstash("snapshot") as stack:
        yield stack


@pytest.fixture(scope="module")
def read_through() -> Iterator[Stack]:
    with over_upstash("read_through") as stack:
        yield stack


@pytest.fixture(scope="module")
def stack(snapshot: Stack) -> Stack:
    return snapshot


def test_a_new_snapshot_is_loaded() -> None:
    """Thousands of records, so that pages are read, too."""
    config = clusters.plugin_config("upstash")
    with Stack(Settings.on_free_ports(gateway="upstash", config=config)) as stack:
        teams = [team(n, f"phc_{n}", f"phs_{n}") for n in range(1, 5001)]
        publish(stack, document(*teams))
        assert health(stack)["records"]["teams"] == 5000
        assert get(stack, "phc_1", "phs_1").status_code == 200
        assert get(stack, "phc_5000", "phs_1").status_code == 401
        assert get(stack, "phc_5001", "phs_1").status_code == 401
        assert trap_count(stack) == 0


def test_a_wrong_token_is_503_and_a_right_one_heals() -> None:
    """The gateway's 401 is about Envoy: it must not become the client's, who would drop its flags."""
    config = clusters.plugin_config("upstash")
    with Stack(Settings.on_free_ports(gateway="upstash", config=config)) as stack:
        assert get(stack).status_code == 200
        refused = {"store": "definitions", "outcome": "refused"}
        stack.write_upstash_token("wrong")
        # Each worker is given it.
        wait_until_all(stack, lambda: get(stack).status_code == 503)
        answer = get(stack)
        assert (answer.status_code, answer.text) == (503, bodies.MISS)
        # Nothing new about credentials is known, so after a while nobody is refused.
        stack.wait_until(lambda: get(stack, secret="phs_wrong").status_code == 503)
        assert get(stack).status_code == 503
        stack.wait_until(lambda: stack.metric("flag_definitions_callouts_total", **refused) > 0)
        assert "the token that Envoy adds" in stack.log("envoy"), "an operator is told"
        stack.write_upstash_token(UPSTASH_TOKEN)
        stack.wait_until(lambda: get(stack).status_code == 200)
        stack.wait_until(lambda: get(stack, secret="phs_wrong").status_code == 401)
        shown = stack.log("envoy") + stack.prometheus()
        shown += stack.http(f"{stack.admin_url}/config_dump?include_eds")[1].decode()
        assert "[redacted]" in shown and UPSTASH_TOKEN not in shown


@pytest.mark.parametrize("part", ["upstash", "redis"])
def test_an_outage_is_503_and_no_miss(snapshot: Stack, part: str) -> None:
    table = tables.EMPTY
    snapshot.redis.delete(writers.REBUILD_KEY)
    time.sleep(1.1)  # a miss is remembered for negative_ttl
    snapshot.pause(part)
    try:
        answer = get(snapshot, table.token, table.secret)
        assert (answer.status_code, answer.text) == (503, bodies.TIMEOUT)
        assert get(snapshot, table.token, "phs_wrong").status_code in (401, 503)
    finally:
        snapshot.resume(part)
    assert writers.rebuild_requests(snapshot) == {}
    snapshot.wait_until(lambda: get(snapshot, tables.ONE.token, tables.ONE.secret).status_code == 200)
