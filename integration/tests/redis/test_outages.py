"""Each dependency away: what is known goes on, then 503. Never 401 or 402."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from stack import clusters
from stack.edge import (
    MISS,
    TIMEOUT,
    UNLIMITED,
    Crowd,
    authenticated_get,
    callouts,
    document,
    get,
    health,
    in_background,
    publish,
    soon_enough,
    team,
    trap_count,
    wait_until_active,
)
from stack.launcher import Stack
from stack.running import definitions_key
from stack.settings import Settings

PENDING = "cluster.flag_definitions_redis.upstream_rq_pending_active"

OUTAGES: dict[str, Callable[[Stack], None]] = {
    "redis stopped": lambda stack: stack.stop_part("redis"),
    "redis hangs": lambda stack: stack.pause("redis"),
    "webdis stopped": lambda stack: stack.stop_part("webdis"),
    "webdis hangs": lambda stack: stack.pause("webdis"),
}

RECOVERIES: dict[str, Callable[[Stack], None]] = {
    "redis stopped": lambda stack: repopulate(stack),
    "redis hangs": lambda stack: stack.resume("redis"),
    "webdis stopped": lambda stack: stack.restart("webdis"),
    "webdis hangs": lambda stack: stack.resume("webdis"),
}


def repopulate(stack: Stack) -> None:
    stack.restart("redis")
    stack.publish(stack.settings.snapshot)
    stack.seed_samples()


@pytest.mark.parametrize("outage", OUTAGES)
def test_known_state_is_served_then_503_and_it_recovers(outage: str) -> None:
    # The default for callouts. An ETag stays confirmed for longer than it takes to stop a part.
    config = {"snapshot": {"etag_max_age": "4s"}}
    with Stack(Settings.on_free_ports(callout_timeout=None, config=config)) as stack:
        etag = stack.redis.get(definitions_key(1) + ":etag").decode()
        stack.wait_until(lambda: health(stack)["snapshot_age_ms"] < 500)
        began = time.monotonic()
        stack.wait_until(lambda: get(stack, etag=f'W/"{etag}"').status_code == 304)
        OUTAGES[outage](stack)
        away = time.monotonic()
        seen = [get(stack, etag=f'W/"{etag}"').status_code]
        while time.monotonic() - away < 9:
            conditional = get(stack, etag=f'W/"{etag}"').status_code
            seen.append(conditional)
            # Wrong credentials are refused while knowledge is fresh, and never once it is not.
            asked = time.monotonic()
            wrong = get(stack, secret="phs_wrong").status_code
            answered = time.monotonic()
            assert wrong in {401, 503}
            assert wrong == 401 or answered - began > 3, answered - began
            assert wrong == 503 or asked - away < 7, asked - away
            time.sleep(0.1)
        assert seen[0] == 304, "confirmed a moment ago"
        assert seen[-1] == 503
        assert set(seen) == {304, 503}
        assert get(stack).status_code == 503
        assert stack.ready(), "readiness stays: taking this Envoy out would not bring Redis back"
        if "hangs" in outage:

            def hanging() -> float:
                answer = get(stack)
                assert answer.text == TIMEOUT
                return answer.elapsed.total_seconds()

            soon_enough(hanging, 2)
        RECOVERIES[outage](stack)
        stack.wait_until(lambda: get(stack).status_code == 200)
        stack.wait_until(lambda: get(stack, secret="phs_wrong").status_code == 401)
        assert trap_count(stack) == 0


def test_a_slow_redis_does_not_hold_up_other_paths() -> None:
    with Stack(Settings.on_free_ports(callout_timeout="20s", idle_timeout="20s")) as stack:
        stack.pause("redis")
        waiting = in_background(*[lambda: get(stack)] * 4)
        wait_until_active(stack, 4)
        began = time.monotonic()
        assert {get(stack, path="/other").status_code for _ in range(8)} == {404}
        assert time.monotonic() - began < 10
        stack.resume("redis")
        assert {answer.result(timeout=60).status_code for answer in waiting} == {200}


def test_more_needs_than_callouts_are_answered_and_nothing_traps() -> None:
    """Each team needs a callout of its own: the circuit breaker opens."""
    # A slow client, too, has them all under way at once.
    with Stack(Settings.on_free_ports(concurrency=1, callout_timeout="5s", idle_timeout="30s")) as stack:
        teams = [team(n, f"phc_{n}", f"phs_{n}") for n in range(1, 501)]
        publish(stack, document(*teams))
        stack.pause("redis")
        asks = [authenticated_get(f"?token=phc_{n}".encode(), secret=f"phs_{n}") for n in range(1, 501)]
        crowds = [Crowd(stack, 1, ask) for ask in asks]
        statuses = sum((crowd.statuses() for crowd in crowds), Counter())
        overflow = stack.stats()["cluster.flag_definitions_redis.upstream_rq_pending_overflow"]
        stack.resume("redis")
        assert statuses == {503: 500}
        assert overflow > 0, "the circuit breaker did not open: the test proves nothing"
        assert trap_count(stack) == 0
        stack.wait_until(lambda: get(stack, "phc_1", "phs_1").status_code != 401)


def test_one_team_with_many_etags_does_not_take_all_callouts() -> None:
    with Stack(Settings.on_free_ports(concurrency=1, config=UNLIMITED)) as stack:
        stack.pause("redis")
        answers = in_background(*[lambda n=n: get(stack, etag=f'"{n}"') for n in range(300)])
        assert {answer.result(timeout=60).status_code for answer in answers} == {503}
        stats = stack.stats()
        stack.resume("redis")
        assert stats["cluster.flag_definitions_redis.upstream_rq_pending_overflow"] == 0


def test_followers_are_answered_although_all_leaders_leave_and_the_circuit_breaker_is_full() -> None:
    """The leaders' callouts are still under way when they are sent again for the others."""
    patient = {"callout_timeout": "30s", "idle_timeout": "30s"}
    teams, followers = 180, 3
    with Stack(Settings.on_free_ports(concurrency=1, config=UNLIMITED, **patient)) as stack:
        publish(stack, document(*[team(n, f"phc_{n}", f"phs_{n}") for n in range(1, teams + 1)]))
        definitions = json.loads(stack.redis.get(definitions_key(1)))
        asks = []
        for n in range(1, teams + 1):
            stack.put_definitions(n, definitions)
            asks.append(authenticated_get(f"?token=phc_{n}".encode(), secret=f"phs_{n}"))
        stack.pause("redis")
        # Not faster than Envoy connects: what waits for a connection counts, too, and the breaker would
        # refuse some of the leaders.
        leaders = []
        for ask in asks:
            leaders.append(Crowd(stack, 1, ask))
            if len(leaders) in (20, 40, 60):
                stack.wait_until(lambda: stack.stats()[PENDING] == 0)
        wait_until_active(stack, teams)
        waiting = [Crowd(stack, followers, ask) for ask in asks]
        wait_until_active(stack, teams * (1 + followers))
        for leader in leaders:
            leader.close()
        wait_until_active(stack, teams * followers)
        time.sleep(0.5)  # for a tick, which sends the callouts again
        stack.resume("redis")
        statuses = sum((crowd.statuses() for crowd in waiting), Counter())
        overflow = stack.stats()["cluster.flag_definitions_redis.upstream_rq_pending_overflow"]
        assert statuses == {200: teams * followers}
        print(f"{overflow} callouts that Envoy did not take at first")
        assert trap_count(stack) == 0


@dataclass
class CrossingGateway:
    """Passes commands on to webdis and, when told to, gives each of two clients the other's reply."""

    webdis_port: int
    port: int = 0
    crossing: bool = False

    @contextmanager
    def running(self) -> Iterator[CrossingGateway]:
        gateway, lock = self, threading.Lock()
        waiting: list[tuple[bytes, queue.Queue[bytes]]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                command = self.rfile.read(int(self.headers["content-length"]))
                url = f"http://127.0.0.1:{gateway.webdis_port}/"
                reply = requests.post(url, command, timeout=30).content
                if gateway.crossing:
                    mine: queue.Queue[bytes] = queue.Queue()
                    with lock:
                        waiting.append((reply, mine))
                        if len(waiting) == 2:
                            (first, one), (second, other) = waiting
                            one.put(second)
                            other.put(first)
                            waiting.clear()
                    reply = mine.get(timeout=30)
                self.send_response(200)
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def test_nobody_gets_what_the_gateway_delivers_to_the_wrong_request() -> None:
    """As webdis 0.1.9 does with a late reply: whoever has that file descriptor by then gets it."""
    ports = Settings.on_free_ports()
    with CrossingGateway(ports.webdis_port).running() as gateway:
        own = {"cluster": "flag_definitions_redis_dedicated", "timeout": "20s"}
        config = {"redis": {"definitions": own}, "definitions": {"negative_ttl": "0s"}}
        crossing = (clusters.dedicated_redis(gateway.port),)
        with Stack(replace(ports, clusters=crossing, config=config, idle_timeout="20s")) as stack:
            publish(stack, document(*[team(n, f"phc_{n}", f"phs_{n}") for n in (1, 2)]))
            etags = [stack.put_definitions(n, {"flags": [{"key": f"of-team-{n}"}]}) for n in (1, 2)]

            def ask(etag: str | None = None) -> list[tuple[int, str]]:
                asks = [lambda n=n: get(stack, f"phc_{n}", f"phs_{n}", etag) for n in (1, 2)]
                answers = [answer.result(timeout=60) for answer in in_background(*asks)]
                return [(answer.status_code, answer.text) for answer in answers]

            gateway.crossing = True
            assert ask() == [(503, MISS)] * 2
            assert ask(f'"{etags[0]}"') == [(503, MISS)] * 2
            stack.wait_until(
                lambda: stack.metric("flag_definitions_callouts_total", outcome="misdirected") == 4
            )
            gateway.crossing = False
            for n, (status, text) in enumerate(ask(), start=1):
                assert (status, json.loads(text)) == (200, {"flags": [{"key": f"of-team-{n}"}]})


CROWD = 2_000


@pytest.mark.parametrize("redis_comes_back", [True, False], ids=["answered", "timed out"])
def test_a_crowd_that_waits_for_one_callout_is_answered_and_nothing_traps(redis_comes_back: bool) -> None:
    timeout = "30s" if redis_comes_back else "250ms"
    settings = Settings.on_free_ports(
        concurrency=1, config=UNLIMITED, callout_timeout=timeout, idle_timeout="30s"
    )
    with Stack(settings) as stack:
        before, began = callouts(stack), time.monotonic()
        stack.pause("redis")
        crowd = Crowd(stack, CROWD, authenticated_get())
        if redis_comes_back:
            wait_until_active(stack, CROWD)
            stack.resume("redis")
        assert crowd.statuses() == {200 if redis_comes_back else 503: CROWD}
        asked = callouts(stack) - before
        stack.resume("redis")
        assert trap_count(stack) == 0
        print(f"{CROWD} requests, {asked} callouts, the loader's polls among them")
        if redis_comes_back:
            assert asked < 10 + 2 * (time.monotonic() - began)
        stack.wait_until(lambda: get(stack).status_code == 200)
