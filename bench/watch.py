"""The watching publisher with a million credentials and a hundred thousand teams: the first full publish,
what loading it costs an Envoy that serves meanwhile, and how soon new ETags and revoked keys are known then.

Writes "watch" into bench/results.json.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from command import positive
from models.posthog.endpoint import PersonalKey, etag_of, stored_text
from models.posthog.watching import Change, delays, percentile, with_key, with_secret
from postgres import Server
from posthog_db import Database, database, filled_organization, filled_team
from results import write
from stack.edge import UNLIMITED, Client, document, health, team
from stack.launcher import Stack
from stack.processes import StackError
from stack.running import definitions_key
from stack.settings import KEYSPACE_EVENTS, Settings

CHUNK = 10_000  # teams whose definitions are written by one command
DEFINITIONS = {"cohorts": {}, "flags": [], "group_type_mapping": {}}
LOADS = 5  # odd, so that a median is one of them
QUIET = 20.0  # seconds of requests after each load
PAUSE = 0.002  # seconds between two requests of the client that is watched


class Steps:
    """Says what is being done, and how long it took."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        print(f"{text} ...", end=" ", flush=True)
        began = time.monotonic()
        yield
        print(f"{time.monotonic() - began:.1f} s", flush=True)

    def note(self, name: str, value: float, unit: str) -> None:
        self.figures[name] = round(value, 3)
        print(f"  {name.replace('_', ' ')}: {value:.3g} {unit}", flush=True)


def fill_redis(stack: Stack, teams: int) -> None:
    """Definitions and ETag of every team, as PostHog's cache has them."""
    text = stored_text(DEFINITIONS)
    etag = etag_of(text)
    for first in range(1, teams + 1, CHUNK):
        keys = [definitions_key(filled_team(n).id) for n in range(first, min(first + CHUNK, teams + 1))]
        stack.redis.mset({key: text for key in keys} | {f"{key}:etag": etag for key in keys})


def peak_rss(pid: int) -> float:
    """MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def latencies(stack: Stack, until: Callable[[], bool], etag: str) -> list[float]:
    """Milliseconds of conditional requests, one after the other over four connections."""
    client, one, took = Client(stack, 4), filled_team(1), []
    next_look = time.monotonic()
    while True:
        began = time.monotonic()
        status = client.get(one.token, one.secret, etag).status
        took.append((time.monotonic() - began) * 1000)
        if status != 304:
            raise StackError(f"a request was answered with {status}")
        time.sleep(PAUSE)
        if time.monotonic() >= next_look:
            if until():
                client.close()
                return took
            next_look = time.monotonic() + 0.25


def etag_delays(stack: Stack, teams: int, count: int, chance: Random) -> list[float]:
    """Seconds until a client with the old ETag gets the new document, on all connections."""
    old = f'W/"{etag_of(stored_text(DEFINITIONS))}"'
    changes = []
    for n in chance.sample(range(2, teams), count):
        one = filled_team(n)
        changed = DEFINITIONS | {"flags": [{"key": f"{n}"}]}
        changes.append(
            Change(
                lambda one=one, changed=changed: stack.put_definitions(one.id, changed),
                with_secret(one, old),
                200,
                "a new ETag",
            )
        )
    took = delays(stack, changes)
    for change in changes:
        stack.put_definitions(change.ask.team.id, DEFINITIONS)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--teams", type=positive, default=100_000, help="each with a secret (100000)")
    parser.add_argument("--keys", type=positive, default=900_000, help="personal keys (900000)")
    parser.add_argument("--changes", type=positive, default=60, help="timed, of each kind (60)")
    options = parser.parse_args()
    steps = Steps()
    with Server() as server, database(server, triggers=False) as db:
        with steps.step(f"filling PostgreSQL with {options.teams} teams and {options.keys} keys"):
            db.fill(options.teams, options.keys)
            db.install_triggers()
        measure(db, options, steps)
    environment = {
        "command": "make bench-watch",
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "credentials": options.teams + options.keys,
        "teams": options.teams,
        "envoy_workers": 2,
    }
    write({"watch": {"environment": environment} | steps.figures})


def measure(db: Database, options: argparse.Namespace, steps: Steps) -> None:
    etag = f'W/"{etag_of(stored_text(DEFINITIONS))}"'
    settings = Settings.on_free_ports(
        callout_timeout=None,
        config=UNLIMITED,
        log_level="error",
        snapshot=None,
        database_url=db.url,
        # One full read: another one in between would take a core from whatever is measured.
        watch_options=("--diff-interval", "1h"),
        notify_keyspace_events=KEYSPACE_EVENTS,
    )
    stack = Stack(settings)
    with stack.all_or_nothing():
        stack.start_redis()
        stack.start_gateway()
        with steps.step("filling Redis with definitions"):
            fill_redis(stack, options.teams)
        one = filled_team(1)
        stack.publish(document(team(one.id, one.token, one.secret)))
        stack.start_envoy()
    try:
        small = health(stack)["generation"]
        manifest = stack.redis.get("flag_definitions:snapshot")
        with steps.step("first full publish"):
            began = time.monotonic()
            stack.start_publisher(wait=False)
            await_publication(stack, manifest)
            published = time.monotonic()
        steps.note("first_publish_seconds", published - began, "s")

        measure_loads(stack, steps, small, published, etag)

        chance = Random(1)
        with steps.step("new ETags, told of keys by Redis"):
            settle(stack)
            told = etag_delays(stack, options.teams, options.changes, chance)
        steps.note("etag_told_p50_seconds", percentile(told, 50), "s")
        steps.note("etag_told_p99_seconds", percentile(told, 99), "s")
        with steps.step("revocations"):
            revoked = revocation_delays(stack, db, options.changes)
        steps.note("revocation_p50_seconds", percentile(revoked, 50), "s")
        steps.note("revocation_p99_seconds", percentile(revoked, 99), "s")
        steps.note("publisher_peak_rss_mb", peak_rss(stack.processes["publisher"].pid), "MB")

        with steps.step("a restart, without being told of keys"):
            stack.redis.config_set("notify-keyspace-events", "")
            stack.restart("publisher")
            settle(stack)
        with steps.step("new ETags, found by the sweep"):
            swept = etag_delays(stack, options.teams, options.changes, chance)
        steps.note("etag_swept_p50_seconds", percentile(swept, 50), "s")
        steps.note("etag_swept_p99_seconds", percentile(swept, 99), "s")
        steps.note("restarted_publisher_peak_rss_mb", peak_rss(stack.processes["publisher"].pid), "MB")
    finally:
        stack.stop()


def measure_loads(stack: Stack, steps: Steps, small: int, published: float, etag: str) -> None:
    """What requests notice of a load: each is followed by requests while nothing changes.

    Medians count, for the machine may be busy with something else during any one of them.
    """
    generation, longest, pairs = small, [], []
    for number in range(LOADS):
        again = number > 0
        if again:
            # A new lineage: what was loaded counts for nothing.
            generation = health(stack)["generation"]
            manifest = stack.redis.getdel("flag_definitions:snapshot")
            with steps.step("publishing all of it again"):
                await_publication(stack, manifest)
        with steps.step("loading all of it again" if again else "loading it while serving"):
            # While the other generation is not there `generation` is the old one, or none.
            loading = latencies(stack, lambda old=generation: (health(stack)["generation"] or 0) > old, etag)
        longest.append(health(stack)["loader"]["longest_slice_us"])
        if not again:
            steps.note("load_seconds", time.monotonic() - published, "s")
        with steps.step("requests while nothing changes"):
            settle(stack)
            end = time.monotonic() + QUIET
            quiet = latencies(stack, lambda end=end: bool(health(stack)) and time.monotonic() > end, etag)
        pairs.append((percentile(loading, 99), percentile(quiet, 99)))
    # Only the first load creates the buckets, and has Envoy's map grow.
    steps.note("load_longest_slice_us", longest[0], "us")
    steps.note("later_loads_longest_slice_us", max(longest[1:]), "us")
    ratios = sorted(load / quiet for load, quiet in pairs)
    steps.note("quiet_p99_ms", median(quiet for _, quiet in pairs), "ms")
    steps.note("load_p99_ms", median(load for load, _ in pairs), "ms")
    steps.note("load_p99_of_quiet", median(ratios), "times")
    steps.note("load_p99_of_quiet_best", ratios[0], "times")
    steps.note("load_p99_of_quiet_worst", ratios[-1], "times")


def await_publication(stack: Stack, manifest: bytes | str) -> None:
    """Until there is another manifest."""
    deadline = time.monotonic() + 600
    while stack.redis.get("flag_definitions:snapshot") in (None, manifest):
        if not stack.processes["publisher"].alive() or time.monotonic() > deadline:
            lines = stack.processes["publisher"].last_lines()
            raise StackError(f"the publisher did not publish:\n{lines}")
        time.sleep(0.01)


def settle(stack: Stack) -> None:
    """Until the watermark is fresh: the publisher has compared everything."""

    def fresh() -> bool:
        age = health(stack)["watermark_age_ms"]
        return age is not None and age < 2_500

    stack.wait_until(fresh, timeout=120)
    time.sleep(3)


def revocation_delays(stack: Stack, db: Database, count: int) -> list[float]:
    one = replace(filled_team(1), organization=filled_organization(0))
    keys = [PersonalKey(f"phx_bench_{n}", (one.organization,)) for n in range(count)]
    delays(stack, [Change(lambda k=k: db.add_personal_key(k), with_key(one, k), 200) for k in keys], pause=0)
    return delays(
        stack, [Change(lambda k=k: db.delete_personal_key(k.key), with_key(one, k), 401) for k in keys]
    )


if __name__ == "__main__":
    main()
