"""A bug in the filter, forced in a test build: what it costs, and what it does not."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
import requests

from stack.edge import (
    TIMEOUT,
    TRAP,
    authenticated_get,
    document,
    get,
    in_background,
    team,
    trap_count,
    wait_until_active,
)
from stack.launcher import Stack
from stack.paths import FAULTS_WASM
from stack.settings import Settings


@pytest.mark.parametrize("concurrency", [1, 2])
def test_requests_that_wait_when_the_vm_traps_are_answered(concurrency: int) -> None:
    config = {"redis": {"default": {"timeout": "20s"}}}
    settings = Settings.on_free_ports(wasm=FAULTS_WASM, config=config, concurrency=concurrency)
    with Stack(settings) as stack:
        stack.pause("redis")
        waiting = in_background(*[lambda: get(stack)] * 3)
        wait_until_active(stack, 3)
        # On as many connections as it takes to hit the worker of each.
        for _ in range(8 * concurrency):
            with contextlib.suppress(requests.RequestException):
                get(stack, headers=TRAP)
        for future in waiting:
            answer = future.result(timeout=60)
            assert answer.status_code == 503
            assert answer.text in ("", TIMEOUT)
            assert answer.elapsed.total_seconds() < 10, "the route's limit is 4 s, the callout's is 20 s"
        stack.resume("redis")
        # Service comes back by itself, on all workers.
        stack.wait_until(lambda: {get(stack).status_code for _ in range(10)} == {200})
        assert get(stack, path="/other").status_code == 404


def test_other_paths_do_not_notice_a_trap(faults: Stack) -> None:
    assert trap_count(faults) == 0
    assert get(faults, headers=TRAP).status_code == 503
    assert {get(faults, path="/other").status_code for _ in range(20)} == {404}
    # What all other tests rely on being 0 does count traps.
    faults.wait_until(lambda: (get(faults).status_code, trap_count(faults) > 0) == (200, True))


def test_a_client_that_leaves_does_not_strand_those_who_wait_with_it() -> None:
    """The leader's callout dies with its stream; the others' is sent again and answered."""
    config = {"redis": {"default": {"timeout": "20s"}}}
    settings = Settings.on_free_ports(config=config, concurrency=1, idle_timeout="20s")
    with Stack(settings) as stack:
        stack.pause("redis")
        leader = socket.create_connection(("127.0.0.1", stack.settings.edge_port))
        leader.sendall(authenticated_get())
        wait_until_active(stack, 1)
        waiting = in_background(*[lambda: get(stack)] * 5)
        wait_until_active(stack, 6)
        leader.close()
        wait_until_active(stack, 5)
        time.sleep(0.3)  # for a tick, which sends the callout again
        stack.resume("redis")
        for future in waiting:
            assert future.result(timeout=60).status_code == 200


def test_a_record_that_traps_leaves_the_last_good_snapshot(faults: Stack) -> None:
    good = team(1, "phc_good", "phs_good")
    faults.publish(document(good))
    faults.wait_until(lambda: get(faults, "phc_good", "phs_good").status_code == 200)
    faults.publish(document(good, team(2, "trap_on_load")))
    # Owner after owner vanishes at the record; then the snapshot is marked, and Envoy serves on.
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        status = get(faults, "phc_good", "phs_good").status_code
        assert status in (200, 503)
        health = requests.get(f"{faults.health_url}/health", timeout=15)
        if health.status_code == 200 and health.json()["loader"]["state"] == "bad_snapshot":
            break
        time.sleep(0.2)
    else:
        pytest.fail("the snapshot was not marked bad")
    for _ in range(40):
        assert get(faults, "phc_good", "phs_good").status_code == 200
        time.sleep(0.1)
    # The next one is taken.
    faults.publish(document(good, team(3, "phc_next", "phs_next")))
    faults.wait_until(lambda: get(faults, "phc_next", "phs_next").status_code in (200, 503))
    faults.wait_until(lambda: get(faults, "phc_next", "phs_wrong").status_code == 401)
