"""Publishing by hand: what is published is what the edge decides by."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from stack.edge import (
    UNLIMITED,
    Client,
    document,
    get,
    health,
    publish,
    sha256,
    soon_enough,
    team,
    trap_count,
)
from stack.launcher import Stack
from stack.processes import StackError
from stack.settings import Settings

ONE = team(1, "phc_one", "phs_one")
TWO = team(2, "phc_two", "phs_two")


@pytest.fixture(scope="module")
def stack() -> Stack:
    with Stack(Settings.on_free_ports(config=UNLIMITED)) as stack:
        yield stack
        assert trap_count(stack) == 0


def status(stack: Stack, token: str, secret: str) -> int:
    return get(stack, token, secret, method="GET").status_code


def test_a_new_generation_is_picked_up_within_three_seconds(stack: Stack) -> None:
    rounds = itertools.count()

    def measure() -> float:
        number = next(rounds)
        come, go = ("phc_odd", "phc_even") if number % 2 else ("phc_even", "phc_odd")
        began = time.monotonic()
        stack.publish(document(team(1, f"phc_keep{number}", "phs_keep"), team(2, come, "phs_come")))
        # Both workers: new connections land on either.
        with Client(stack, 8) as client:

            def all_say(token: str, expected: int) -> bool:
                return all(client.get(token, "phs_come").status == expected for _ in client.connections)

            stack.wait_until(lambda: all_say(come, 200) and all_say(go, 401))
        took = time.monotonic() - began
        print(f"picked up after {took:.2f} s")
        return took

    for _ in range(3):
        soon_enough(measure, 3.0)


def test_a_secret_that_moves_and_one_that_goes(stack: Stack) -> None:
    publish(stack, document(team(1, "phc_one", "phs_a"), team(2, "phc_two", "phs_b")))
    assert status(stack, "phc_one", "phs_a") == 200
    publish(stack, document(team(1, "phc_one", "phs_b"), team(2, "phc_two")))
    assert status(stack, "phc_one", "phs_b") == 200
    assert status(stack, "phc_one", "phs_a") == 401
    assert status(stack, "phc_two", "phs_b") == 401


def test_a_bad_document_changes_nothing(stack: Stack) -> None:
    publish(stack, document(ONE))
    assert status(stack, "phc_one", "phs_one") == 200
    before = stack.redis.get("flag_definitions:snapshot")
    with pytest.raises(StackError, match=r"teams\[1\]\.id"):
        stack.publish(document(ONE, team(1, "phc_two")))
    assert stack.redis.get("flag_definitions:snapshot") == before
    assert status(stack, "phc_one", "phs_one") == 200


def test_a_damaged_page_leaves_the_last_good_snapshot(stack: Stack) -> None:
    publish(stack, document(ONE))
    assert status(stack, "phc_one", "phs_one") == 200
    generation = health(stack)["generation"]
    mismatches = stack.metric("flag_definitions_loader_total", event="page_mismatch")
    publish_damaged(stack, document(TWO))
    stack.wait_until(
        lambda: stack.metric("flag_definitions_loader_total", event="page_mismatch") > mismatches
    )
    assert health(stack)["generation"] == generation
    assert status(stack, "phc_one", "phs_one") == 200
    stack.publish(document(TWO))
    stack.wait_until(lambda: status(stack, "phc_two", "phs_two") == 200)


def publish_damaged(stack: Stack, content: dict) -> None:
    """Publishes, and damages the page before the loader can have read it."""
    stack.pause("webdis")
    try:
        stack.publish(content)
        pages = [k for k in stack.redis.keys("flag_definitions:snapshot:*") if stack.redis.ttl(k) == -1]
        # The last one, so that all others are good.
        last = max(pages, key=lambda name: int(name.rsplit(b":", 1)[1]))
        stack.redis.setrange(last, 20, b"\xff\xff")
    finally:
        stack.resume("webdis")


def test_a_damaged_last_page_lets_nothing_of_the_first_ones_live(stack: Stack) -> None:
    publish(stack, document(ONE))
    teams = [team(n, f"phc_n{n}", f"phs_n{n}") for n in range(10, 5000)]
    mismatches = stack.metric("flag_definitions_loader_total", event="page_mismatch")
    publish_damaged(stack, document(team(1, "phc_one", "phs_other"), *teams))
    stack.wait_until(
        lambda: stack.metric("flag_definitions_loader_total", event="page_mismatch") > mismatches
    )
    for _ in range(20):
        assert status(stack, "phc_one", "phs_one") == 200
        assert status(stack, "phc_n10", "phs_n10") in (401, 503)
        time.sleep(0.1)


def test_who_may_read_before_and_after_a_publish_is_never_refused_in_between(stack: Stack) -> None:
    """A team and its key move to another organization in one publish, among many other records."""
    fill = [team(n, f"phc_f{n}", f"phs_f{n}") for n in range(10, 10_010)]

    def content(organization: int) -> dict:
        owner = f"00000000-0000-0000-0000-{organization:012}"
        key = {"sha256": sha256("phx_me"), "user_active": True, "organization_ids": [owner]}
        moved = team(1, "phc_one") | {"organization_id": owner}
        return document(moved, *fill, personal_keys=[key])

    publish(stack, content(1))
    seen: Counter[int] = Counter()
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            seen[status(stack, "phc_one", "phx_me")] += 1

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        for organization in (2, 1, 2):
            publish(stack, content(organization))
    finally:
        stop.set()
        poller.join()
    print(dict(seen))
    assert seen[200] > 100 and set(seen) <= {200, 503}


def test_a_flushed_redis_leaves_the_last_good_snapshot(stack: Stack) -> None:
    publish(stack, document(ONE))
    assert status(stack, "phc_one", "phs_one") == 200
    payload = stack.redis.get("posthog:1:cache/teams/1/feature_flags/flags_with_cohorts.json")
    stack.redis.flushall()
    stack.redis.set("posthog:1:cache/teams/1/feature_flags/flags_with_cohorts.json", payload)
    time.sleep(6)  # longer than refuse_max_age
    assert status(stack, "phc_one", "phs_one") == 200
    assert status(stack, "phc_unknown", "phs_one") == 503, "without a manifest nobody is refused"
    assert stack.ready() and health(stack)["stale"] is True
    stack.publish(document(ONE))
    stack.wait_until(lambda: status(stack, "phc_unknown", "phs_one") == 401)
    stack.wait_until(lambda: health(stack)["stale"] is False)
    stack.seed_samples()


def test_ten_thousand_records_never_hold_a_vm_for_long(stack: Stack) -> None:
    teams = [team(n, f"phc_{n}", f"phs_{n}") for n in range(1, 5001)]
    longest = []

    def measure() -> float:
        publish(stack, document(*teams))
        longest.append(health(stack)["loader"]["longest_slice_us"])
        return longest[-1] / 1e6

    # The machine may interrupt one of the slices of a load, and a busy one does so in most loads.
    soon_enough(measure, 0.005, times=12)
    assert status(stack, "phc_1", "phs_1") == 200
    assert status(stack, "phc_2", "phs_1") == 401
    records = health(stack)["records"]
    assert records["teams"] == 5000 and records["team_secrets"] == 5000
    print(f"10 000 records: longest slices {longest} us")


def test_a_credential_takes_at_most_200_bytes_of_an_envoy() -> None:
    credentials = 100_000
    organization = "00000000-0000-4000-8000-000000000001"
    teams = [team(n, f"phc_{n}", f"phs_{n}") for n in range(1, credentials // 10 + 1)]
    keys = [
        {"sha256": sha256(f"phx_{n}"), "user_active": True, "organization_ids": [organization]}
        for n in range(credentials - len(teams))
    ]
    with Stack(Settings.on_free_ports()) as stack:
        sizes = []
        for content in (document(ONE), document(*teams, personal_keys=keys)):
            stack.publish(content)
            generation = json.loads(stack.redis.get("flag_definitions:snapshot"))["generation"]
            stack.wait_until(lambda g=generation: health(stack)["generation"] == g, timeout=60)
            time.sleep(1)
            sizes.append(resident_bytes(stack.processes["envoy"].pid))
    each = (sizes[1] - sizes[0]) / credentials
    print(f"{each:.0f} bytes a credential")
    assert each <= 200


def resident_bytes(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def test_health_tells_and_hides(stack: Stack) -> None:
    publish(stack, document(ONE))
    assert status(stack, "phc_one", "phs_one") == 200
    text = requests.get(f"{stack.health_url}/health", timeout=15).text
    shown = requests.get(f"{stack.health_url}/health", timeout=15).json()
    fields = {"generation", "stream_id", "snapshot_age_ms", "watermark_age_ms", "records", "loader", "stale"}
    fields |= {"surfaces"}
    assert set(shown) == fields
    assert shown["snapshot_age_ms"] < 30_000 and shown["loader"]["state"] == "idle"
    for secret in ["phc_", "phs_", sha256("phs_one"), sha256("phc_one")]:
        assert secret not in text
    assert requests.get(f"{stack.health_url}/other", timeout=15).status_code == 404


def test_not_ready_before_the_first_snapshot() -> None:
    stack = Stack(Settings.on_free_ports(snapshot=None))
    with stack.all_or_nothing():
        stack.start_redis()
        stack.start_webdis()
        stack.start_envoy(wait_ready=False)
    try:
        assert stack.http(f"{stack.health_url}/ready")[0] == 503
        assert health(stack)["generation"] is None
        answer = get(stack, "phc_one", "phs_one")
        assert answer.status_code == 503, "what is not known yet is not refused"
        stack.publish(document(ONE))
        stack.wait_until(stack.ready)
        assert get(stack, "phc_unknown", "phs_one").status_code == 401
    finally:
        stack.stop()
