"""Redis fails over by name: webdis stays with the former primary, which refuses every write until webdis
restarts. The filter tells, the probe of the manifests notices, and where a publisher watches the edge does
not believe it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.posthog import writers
from models.posthog.endpoint import PersonalKey, State, Team, etag_of, stored_text
from models.posthog.watching import (
    DEFINITIONS,
    ETAG_MAX_AGE,
    REFUSE_MAX_AGE,
    Ask,
    all_say,
    definitions_callouts,
    give_definitions,
    lock_holder,
    wait_until_published,
    watch_answers,
    watched,
    with_key,
    with_secret,
)
from models.posthog.whole import look
from postgres import Server
from posthog_db import database
from stack.edge import get, health, trap_count
from stack.failover import Name, Probe, named_redis
from stack.launcher import Stack

ALIVE = (0, "")
PROBE_KEY = "flag_definitions:usage:probe"


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe.of_webdis(tmp_path)


@pytest.fixture
def name() -> Iterator[Name]:
    with named_redis() as name:
        yield name


def restarts(probe: Probe, stack: Stack) -> bool:
    code, output = probe.run(stack.settings)
    assert (code == 0) == (output == ""), output
    assert code == 0 or output.startswith("-READONLY")
    return code != 0


# === The probe ===


def test_the_probe_writes_a_key_of_its_own_that_expires(redis_and_webdis: Stack, probe: Probe) -> None:
    stack = redis_and_webdis
    before = set(stack.redis.keys())
    assert probe.run(stack.settings) == ALIVE
    assert set(stack.redis.keys()) - before == {PROBE_KEY.encode()}
    assert 0 < stack.redis.pttl(PROBE_KEY) <= 60_000


def test_the_probe_restarts_webdis_for_readonly_alone(redis_and_webdis: Stack, probe: Probe) -> None:
    stack = redis_and_webdis
    admin = stack.redis
    admin.replicaof("127.0.0.1", 1)
    assert restarts(probe, stack)
    admin.replicaof("NO", "ONE")
    assert not restarts(probe, stack)

    admin.config_set("min-replicas-to-write", 1)
    assert not restarts(probe, stack), "NOREPLICAS"
    admin.config_set("min-replicas-to-write", 0)
    admin.acl_setuser("flag_definitions_filter", enabled=True, commands=["-eval"])
    assert not restarts(probe, stack), "NOPERM"
    admin.acl_setuser("flag_definitions_filter", enabled=False)
    admin.client_kill_filter(user="flag_definitions_filter")
    assert not restarts(probe, stack), "the login is refused"
    admin.acl_setuser("flag_definitions_filter", enabled=True, commands=["+eval"])

    for part in ("redis", "webdis"):
        stack.pause(part)
        assert not restarts(probe, stack), f"{part} hangs"
        stack.resume(part)
        stack.stop_part(part)
        assert not restarts(probe, stack), f"{part} is away"
        stack.restart(part)
    stack.wait_until(lambda: not restarts(probe, stack) and stack.redis.exists(PROBE_KEY) == 1)


# === The filter ===

USAGE, NO_PAYLOAD, LIMITED = (Team(n, f"phc_{n}", None, f"phs_{n}") for n in (1, 2, 3))
FLUSH = 0.5  # seconds
READONLY = "Redis takes no writes, it is a replica (READONLY)"


def test_the_filter_tells_and_after_a_restart_of_webdis_everything_arrives_once(
    name: Name, probe: Probe
) -> None:
    state = State([USAGE, NO_PAYLOAD, LIMITED], texts={1: stored_text(DEFINITIONS)})
    config = {
        "usage": {"flush_interval": f"{FLUSH * 1000:.0f}ms"},
        "quota": {"interval": "1s"},
        "rebuild": {"kind": "sorted_set", "repeat_after": "1s"},
    }
    with writers.stack_with(state, settings=name.settings, **config) as stack:
        name.start_replica(stack)
        assert get(stack, USAGE.token, USAGE.secret).status_code == 200
        stack.wait_until(lambda: stack.metric("flag_definitions_usage_total", state="sent") == 1)
        assert readonly(stack) == 0

        name.fail_over(stack, isolated=False)
        writers.limit_quota(stack, [LIMITED.token])
        for _ in range(4):
            assert get(stack, USAGE.token, USAGE.secret).status_code == 200, "reads go on"
        assert get(stack, NO_PAYLOAD.token, NO_PAYLOAD.secret).status_code == 503
        for store in ("usage", "quota", "rebuild"):
            stack.wait_until(lambda store=store: readonly(stack, store) > 0)
        stack.wait_until(lambda: readonly(stack, "usage") >= 3 and readonly(stack, "quota") >= 3)
        assert stack.metric("flag_definitions_callouts_total", outcome="refused") == 0
        log = stack.log("envoy")
        for line in ("usage is not taken: ", "reading the quota set: latch_failed: "):
            assert log.count(line + READONLY) == 1, line
        assert f"its rebuild could not be asked for: {READONLY}" in log
        assert restarts(probe, stack)

        stack.restart("webdis")
        assert not restarts(probe, stack)
        stack.wait_until(lambda: stack.metric("flag_definitions_usage_total", state="sent") == 5)
        told = readonly(stack)
        time.sleep(4 * FLUSH)
        assert sum(writers.usage(stack, USAGE.id).values()) == 5
        assert get(stack, NO_PAYLOAD.token, NO_PAYLOAD.secret).status_code == 503
        stack.wait_until(lambda: NO_PAYLOAD.id in writers.rebuild_requests(stack))
        assert readonly(stack) == told


def readonly(stack: Stack, store: str | None = None) -> float:
    labels = {"store": store} if store else {}
    return stack.metric("flag_definitions_callouts_total", outcome="readonly", **labels)


# === Where a publisher watches ===

ORGANIZATION = "0190d6f1-0000-7000-8000-000000000001"
TEAMS = [Team(n, f"phc_{n}", ORGANIZATION, f"phs_{n}") for n in range(1, 6)]
ETAG = f'W/"{etag_of(stored_text(DEFINITIONS))}"'
HOLDS_OLD = with_secret(TEAMS[1], ETAG)
UNKNOWN = [Ask(TEAMS[0], "phs_unknown"), Ask(TEAMS[1], "phx_unknown"), Ask(Team(9, "phc_unknown"), "phs_1")]
HEALED_WITHIN = 40.0


def test_a_former_primary_is_known_by_a_watermark_that_stands_still(
    postgres: Server, name: Name, probe: Probe
) -> None:
    with database(postgres) as people:
        people.put(State(TEAMS))
        with watched(people, ["--diff-interval", "1s"], **name.settings) as stack:
            give_definitions(stack, TEAMS)
            all_say(stack, {HOLDS_OLD: 304} | {ask: 401 for ask in UNKNOWN})
            name.start_replica(stack)
            before = look(stack)

            name.fail_over(stack, isolated=True)
            failed_over = time.monotonic()
            # The publisher goes on with the new primary, by itself; the filter knows nothing of that.
            late = PersonalKey("phx_late", (ORGANIZATION,))
            people.add_personal_key(late)
            changed = writers.put_definitions_django(stack, TEAMS[1].id, {"flags": [], "cohorts": {}})
            wait_until_published(stack, people)
            assert lock_holder(stack) and look(stack, before).fence > before.fence
            new, added = with_secret(TEAMS[1], f'"{changed}"'), with_key(TEAMS[0], late)

            time.sleep(max(0.0, failed_over + REFUSE_MAX_AGE + 2.0 - time.monotonic()))
            asked = definitions_callouts(stack)
            seen = watch_answers(stack, [HOLDS_OLD, added, *UNKNOWN], 3 * ETAG_MAX_AGE)
            # Nobody is refused who may have been added meanwhile; each ETag is asked for, and the former
            # primary answers what it has.
            for ask in (added, *UNKNOWN):
                assert set(seen[ask]) == {503}, ask.team.id
            assert set(seen[HOLDS_OLD]) == {304}
            stack.wait_until(lambda: definitions_callouts(stack) - asked >= 2)
            # The alert.
            assert stack.metric("flag_definitions_watermark_age_seconds") > 5
            assert stack.metric("flag_definitions_snapshot_age_seconds") < 5
            assert health(stack)["stale"] is True
            assert restarts(probe, stack)

            stack.restart("webdis")
            refused = {ask: 401 for ask in UNKNOWN}
            all_say(stack, {added: 200, new: 304, HOLDS_OLD: 200} | refused, HEALED_WITHIN)
            assert not restarts(probe, stack)
            assert health(stack)["stale"] is False
            assert trap_count(stack) == 0
