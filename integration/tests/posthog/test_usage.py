"""Usage: billed is what customers received, whatever happens to Redis, the gateway and Envoy."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from models.posthog import writers
from models.posthog.customers import SDKS, TWO_MINUTES, Customers, Receipt
from models.posthog.endpoint import etag_of, stored_text
from models.posthog.usage import (
    BILLED,
    FLUSH,
    PREFIX,
    SEQUENCES,
    ask,
    counted,
    fields_by_key,
    plans_of,
    site,
    state_of,
    sum_by_team,
    team,
    usage_metric,
)
from stack.edge import TRAP, get, trap_count, wait_until_all
from stack.launcher import Stack
from stack.paths import FAULTS_WASM
from stack.processes import StackError
from stack.settings import Settings

# What a killed Envoy may lose: an interval, and on a busy machine a callout and its second try.
LAST_SECONDS = 3.5
SLOT_COUNT = 1_024
LARGE = stored_text({"flags": [{"key": f"flag-{n}", "filters": {"n": "x" * 200}} for n in range(600)]})
TARGETING = stored_text({"flags": [{"key": "survey-targeting-a"}, {"key": "product-tour-targeting-b"}]})
NO_FLAGS = stored_text({"flags": [], "cohorts": {}})


# === Exactly once ===


def assert_fields(redis: Any, receipts: list[Receipt]) -> None:
    """Each count is in the field of the time of its request; near a boundary either is right."""
    certain: Counter[tuple[int, int]] = Counter()
    possible: Counter[tuple[int, int]] = Counter()
    for receipt in receipts:
        first, last = (int(at // TWO_MINUTES) for at in (receipt.asked_at, receipt.received_at))
        certain[(receipt.team_id, first)] += first == last
        for field in range(first, last + 1):
            possible[(receipt.team_id, field)] += 1
    seen = {
        (int(key.removeprefix(PREFIX)), field): count
        for key, fields in fields_by_key(redis).items()
        if ":sdk:" not in key
        for field, count in fields.items()
    }
    for field in seen.keys() | possible.keys():
        assert certain[field] <= seen.get(field, 0) <= possible[field], field


@pytest.mark.timeout(400)
def test_20_000_requests_are_billed_exactly_once_whatever_breaks() -> None:
    texts = {number: BILLED for number in range(1, 13)}
    # Two teams with one slot, and team ids of the full range.
    texts |= {5 + SLOT_COUNT: BILLED, 2**31 - 1: BILLED, 14: LARGE, 15: TARGETING, 16: NO_FLAGS}
    missing, limited = 17, 18
    state = state_of(texts | {missing: "", limited: BILLED, 19: LARGE})
    del state.texts[missing]
    state.quota_limited = {team(limited).token}
    plans = plans_of(state)
    assert len(plans) == 20
    chance = random.Random(7)

    settings = {"wasm": FAULTS_WASM, "drain_seconds": 4}
    with site(state, settings=settings) as here, Customers(here.stack, plans) as customers:
        stack = here.stack

        def hold(what: str) -> None:
            with here.link.holding(what):
                time.sleep(0.8)  # longer than a callout may take

        def cut() -> None:
            lost = here.link.lost
            with here.link.cutting(), contextlib.suppress(StackError):
                time.sleep(0.8)
                stack.wait_until(lambda: here.link.lost > lost, timeout=10)

        def unplug() -> None:
            with here.link.unplugged():
                time.sleep(0.8)

        def pause(name: str) -> None:
            stack.pause(name)
            time.sleep(0.6)
            stack.resume(name)

        def kill(name: str) -> None:
            stack.processes[name].kill()
            time.sleep(0.3)
            stack.restart(name)

        def configure() -> None:
            here.change(
                usage={"flush_interval": chance.choice(["200ms", "300ms", "400ms"])},
                snapshot={"etag_max_age": chance.choice(["0s", "1s", "2s"])},
            )

        def trap() -> None:
            with contextlib.suppress(requests.RequestException):
                get(stack, headers=TRAP)

        mishaps: list[tuple[str, Callable[[], object]]] = [
            ("replies late", lambda: hold("replies")),
            ("commands late", lambda: hold("requests")),
            ("replies lost", cut),
            ("configuration changed", configure),
            ("webdis frozen", lambda: pause("webdis")),
            ("worker trapped", trap),
            ("Redis frozen", lambda: pause("redis")),
            ("Redis killed", lambda: kill("redis")),
            ("configuration changed", configure),
            ("gateway gone", unplug),
            ("Redis restarted", lambda: stack.restart("redis")),
            ("worker trapped", trap),
            ("webdis killed", lambda: kill("webdis")),
            ("webdis restarted", lambda: stack.restart("webdis")),
        ]
        began = time.monotonic()
        happened: Counter[str] = Counter()
        while happened.total() < len(mishaps) or customers.asked < 20_000:
            assert time.monotonic() - began < 240, (customers.asked, happened)
            name, mishap = mishaps[happened.total() % len(mishaps)]
            mishap()
            happened[name] += 1
            time.sleep(chance.uniform(0.2, 1.2))
        customers.stop()
        took = time.monotonic() - began
        here.settle(lambda counts: counts == customers.billed())

        billed, seen = customers.billed(), here.counted()
        states = {
            name: usage_metric(stack, name) for name in ("counted", "sent", "resent", "refused", "dropped")
        }
        print(f"{customers.asked} requests in {took:.0f} s: {dict(customers.statuses)}")
        print(f"mishaps: {dict(happened)}; replies cut off: {here.link.lost}; traps: {trap_count(stack)}")
        print(f"received {billed.total()}, in Redis {seen.total()}; metrics {states}")
        print(f"unanswered, by team: {dict(customers.unanswered)}")
        assert not customers.foreign
        assert seen == billed, {
            key: (seen[key], billed[key]) for key in seen | billed if seen[key] != billed[key]
        }
        assert_fields(here.redis, customers.receipts)
        # It was a test: there was something to count, to break, and to send again.
        assert billed.total() > 2_000
        assert len(billed) >= 16 * len(SDKS)
        assert trap_count(stack) > 0 and here.link.lost > 0 and states["resent"] > 0
        assert states["dropped"] == states["refused"] == 0


# === A killed Envoy ===


def test_a_killed_envoy_loses_what_was_not_sent_and_nothing_is_double() -> None:
    with site(state_of({1: BILLED, 2: BILLED, 3: BILLED})) as here:
        stack = here.stack
        ask(stack, 1, 5)
        here.settle(lambda counts: counts.total() == 5)
        with here.link.holding("replies"):  # what comes now is carried out, and Envoy never hears of it
            ask(stack, 2, 7)
            # Of these the first batch, again and again: the next one waits until it is acknowledged.
            stack.wait_until(lambda: here.counted().total() > 5)
            time.sleep(2 * FLUSH)
            stack.processes["envoy"].kill()
        first = here.what_arrived()[(2, "posthog-python")]
        assert 1 <= first <= 7
        stack.restart("envoy")
        ask(stack, 2, 1)
        here.settle(lambda counts: counts.total() == 5 + first + 1)
        assert sum_by_team(here.counted()) == {1: 5, 2: first + 1}

        with here.link.unplugged():  # what comes now never arrives
            ask(stack, 3, 4)
            time.sleep(2 * FLUSH)
            stack.processes["envoy"].kill()
        stack.restart("envoy")
        ask(stack, 3, 2)
        here.settle(lambda counts: counts.total() == 5 + first + 1 + 2)
        assert sum_by_team(here.counted()) == {1: 5, 2: first + 1, 3: 2}


def test_under_load_a_killed_envoy_loses_less_than_its_last_seconds() -> None:
    threads = 4
    state = state_of({number: BILLED for number in range(1, 9)})
    with site(state) as here, Customers(here.stack, plans_of(state), threads) as customers:
        # There is something that is older than the last seconds.
        here.stack.wait_until(lambda: customers.billed(until=time.time() - LAST_SECONDS - 1).total() > 300)
        acknowledged = usage_metric(here.stack, "sent")
        killed_at = time.time()
        here.stack.processes["envoy"].kill()
        customers.stop()
        counts, billed = here.what_arrived(), customers.billed()
        lost = billed.total() - counts.total()
        print(f"received {billed.total()}, in Redis {counts.total()}: {lost} lost")
        assert acknowledged <= counts.total() <= billed.total() + threads
        older = customers.billed(until=killed_at - LAST_SECONDS)
        assert older.total() > 100
        assert older <= counts

        here.stack.restart("envoy")
        ask(here.stack, 1, 3)
        here.settle(lambda now: now.total() == counts.total() + 3)
        assert here.counted().total() == counts.total() + 3


# === A drain ===


def test_a_drain_loses_nothing() -> None:
    state = state_of({number: BILLED for number in range(1, 9)})
    settings = {"drain_seconds": 2}
    with site(state, settings=settings) as here, Customers(here.stack, plans_of(state), 4) as customers:
        stack = here.stack
        stack.wait_until(lambda: customers.billed().total() > 500, timeout=60)
        answer = requests.post(f"{stack.admin_url}/drain_listeners?graceful&inboundonly", timeout=15)
        assert answer.status_code == 200
        # Gone is gone: whoever asks after the listener was closed is not answered.
        stack.wait_until(lambda: customers.unanswered.total() > 0)
        customers.stop()
        # Two intervals, but for a machine that gives Redis no turn.
        here.settle(lambda counts: counts == customers.billed(), timeout=10)
        stack.stop_part("envoy")
        counts, billed = here.counted(), customers.billed()
        print(f"received {billed.total()}, in Redis {counts.total()}, {dict(customers.statuses)}")
        assert counts == billed
        stack.start_envoy()


# === What is not counted ===


def test_what_is_not_billed_writes_nothing() -> None:
    limited, targeting, no_flags, missing, current, slow = range(1, 7)
    texts = {
        limited: BILLED,
        targeting: TARGETING,
        no_flags: NO_FLAGS,
        missing: "",
        current: BILLED,
        slow: BILLED,
    }
    state = state_of(texts)
    del state.texts[missing]
    state.quota_limited = {team(limited).token}
    rates = {"enabled": True, "overrides": {str(slow): "1/day"}}
    with site(state, rate_limit=rates) as here:

        def status(number: int, **more: Any) -> int:
            secret = more.pop("secret", team(number).secret)
            return get(here.stack, team(number).token, secret, **more).status_code

        matching = f'W/"{etag_of(BILLED)}"'
        # Until a worker has read the set its answer is 304, which is free, too.
        wait_until_all(here.stack, lambda: status(limited, etag=matching) == 402)
        assert status(slow, etag=matching) == 304
        for _ in range(3):
            assert status(targeting) == status(no_flags) == 200
            assert status(missing) == 503
            assert status(limited) == status(limited, etag=matching) == 402
            assert status(current, etag=matching) == 304
            for method, expected in {"HEAD": 200, "OPTIONS": 200, "POST": 405}.items():
                assert status(current, method=method) == expected
            assert status(current, secret=None) == status(current, secret="phs_wrong") == 401
        here.stack.pause("webdis")
        assert status(current) == 503
        here.stack.resume("webdis")
        time.sleep(2 * FLUSH + 1)
        assert usage_metric(here.stack, "counted") == 0
        assert [*here.redis.scan_iter(PREFIX + "*"), *here.redis.scan_iter(SEQUENCES)] == []
        # Those are the places where it would be.
        ask(here.stack, slow)
        assert status(slow) == 429
        here.settle(lambda counts: counts.total() == 1)
        assert here.counted() == {(slow, "posthog-python"): 1}
        assert len(list(here.redis.scan_iter(SEQUENCES))) == 1


def test_usage_that_is_off_writes_nothing_and_what_was_counted_before_arrives() -> None:
    off = {"enabled": False, "flush_interval": "300ms"}
    with site(state_of({1: BILLED}), usage=off) as here:
        ask(here.stack, 1, 5)
        time.sleep(2 * FLUSH + 1)
        assert usage_metric(here.stack, "counted") == 0
        assert [*here.redis.scan_iter(PREFIX + "*"), *here.redis.scan_iter(SEQUENCES)] == []

        # A change is for connections that come after it.
        here.change(usage=off | {"enabled": True})
        with here.link.holding("requests"):
            ask(here.stack, 1, 3)
            here.stack.wait_until(lambda: usage_metric(here.stack, "counted") == 3)
            here.change(usage=off)
            ask(here.stack, 1, 4)
        here.settle(lambda counts: counts.total() == 3)
        assert here.counted() == {(1, "posthog-python"): 3}
        assert usage_metric(here.stack, "counted") == 3


# === What others see ===


def test_what_was_counted_was_sent_and_redis_refuses_only_what_it_cannot_count() -> None:
    with site(state_of({1: BILLED, 2: BILLED})) as here:
        stack = here.stack
        ask(stack, 1, 20)
        here.settle(lambda counts: counts.total() == 20)
        here.redis.set(PREFIX + "2", "not a hash")
        ask(stack, 1, 2)
        ask(stack, 2, 3)
        expected = {"counted": 25, "sent": 25, "resent": 0, "refused": 3, "dropped": 0}

        def seen() -> dict[str, float]:
            return {state: usage_metric(stack, state) for state in expected}

        with contextlib.suppress(StackError):
            stack.wait_until(lambda: seen() == expected)
        assert seen() == expected
        assert sum(writers.usage_by_sdk(stack, 2)["posthog-python"].values()) == 3, "the other hash has them"
        assert sum(writers.usage(stack, 1).values()) == 22


def test_a_report_that_reads_and_deletes_meanwhile_gets_everything() -> None:
    """As PostHog's: every bucket but the newest is read and deleted."""
    state = state_of({1: BILLED, 2: BILLED})
    with site(state) as here, Customers(here.stack, plans_of(state), 2) as customers:
        old = int(time.time() // TWO_MINUTES) - 3
        reported: Counter[int] = Counter()
        for number in (1, 2):
            here.redis.hset(f"{PREFIX}{number}", mapping={str(old): 1_000, str(old + 1): 100})

        def report() -> None:
            for number in (1, 2):
                fields = sorted(int(field) for field in here.redis.hkeys(f"{PREFIX}{number}"))
                for field in fields[:-1]:
                    with here.redis.pipeline(transaction=True) as pipeline:
                        pipeline.hget(f"{PREFIX}{number}", str(field))
                        pipeline.hdel(f"{PREFIX}{number}", str(field))
                        reported[number] += int(pipeline.execute()[0])

        here.stack.wait_until(lambda: report() or customers.billed().total() > 300, timeout=60)
        customers.stop()
        billed = sum_by_team(customers.billed())

        def remaining() -> Counter[int]:
            return Counter({number: sum(writers.usage(here.stack, number).values()) for number in (1, 2)})

        expected = billed + Counter({1: 1_100, 2: 1_100})
        with contextlib.suppress(StackError):
            here.stack.wait_until(lambda: remaining() + reported == expected)
        time.sleep(2 * FLUSH)
        assert remaining() + reported == expected


# === A Redis of its own ===


def test_a_usage_redis_that_is_away_delays_counts_and_no_answer() -> None:
    state = state_of({number: BILLED for number in range(1, 9)})
    own = Stack(Settings.on_free_ports(snapshot=None, durable=True))
    with ExitStack() as exits:
        exits.push(own.__exit__)
        own.start_redis()
        own.start_webdis()
        here = exits.enter_context(site(state, usage_gateway=own))
        customers = exits.enter_context(Customers(here.stack, plans_of(state), 4))
        here.stack.wait_until(lambda: counted(own.redis).total() > 100, timeout=60)
        own.processes["redis"].kill()
        before = customers.billed().total()
        here.stack.wait_until(lambda: customers.billed().total() > before + 1_000, timeout=60)
        time.sleep(1)
        own.restart("redis")
        own.stop_part("webdis")
        time.sleep(1)
        own.start_webdis()
        customers.stop()
        here.stack.wait_until(lambda: counted(own.redis) == customers.billed())
        time.sleep(2 * FLUSH)
        print(f"received {customers.billed().total()}: {dict(customers.statuses)}")
        assert counted(own.redis) == customers.billed()
        assert set(customers.statuses) <= {"GET 200", "GET 304", "HEAD 200"}
        assert not here.counted(), "nothing went to the other Redis"
