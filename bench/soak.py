"""Very many requests at full speed on one Envoy worker: does memory stay, does anything trap?

Most are confirmed 304s; the others are cached 200s, 200s of definitions that somebody goes on changing, and
401s. Writes "soak" into bench/results.json, and a picture of memory into docs/.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import platform
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import charts
import cpu
import results
from bench_stack import PlainStack
from command import measuring, need, positive
from documents import definitions_of_size, write_document
from load import Request, wrk_command
from models.posthog.writers import put_definitions_django
from paths import PICTURES, SCRATCH
from stack.edge import trap_count
from stack.launcher import Stack
from stack.processes import StackError
from stack.settings import Settings
from subjects import ACCEPT_GZIP, ALL_ON, definitions_request

STEADY = range(1, 41)  # teams whose definitions stay
CHANGING = range(41, 61)  # teams of which one gets new definitions each second
SIZES = (2_000, 24_000, 100_000, 200_000)  # bytes of JSON text, in turn
# Of a hundred requests so many ask for a steady team with its ETag, without it, and with gzip; for a changing
# team with an ETag that was current once, and without it; and with a wrong secret.
SHARES = (84, 4, 4, 2, 4, 2)
EXPECTED = {"200", "304", "401"}
# Full while the filter warms up, so that bodies go out of it from then on.
CONFIG = ALL_ON | {"definitions": {"body_cache_bytes": 8 << 20}}
SAMPLE_INTERVAL = 5.0  # seconds
WARM = 0.1  # of all requests, before growth counts
FLAT = 0.02
QUICK_REQUESTS = 200_000
LONGER_THAN_ANY = 7 * 24 * 3600  # seconds; load is ended when there were enough requests


@dataclass
class Soak:
    """What was seen while it ran."""

    samples: list[tuple[int, int]] = field(default_factory=list)  # requests so far, bytes

    def growth(self, requests: int) -> tuple[int, int]:
        """Bytes when warm, and at the end."""
        warm = next((rss for done, rss in self.samples if done >= requests * WARM), self.samples[-1][1])
        return warm, self.samples[-1][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=positive, default=20_000_000, help="at least so many (20000000)")
    parser.add_argument(
        "--quick", action="store_true", help="whether it works, with 200000; written to .run/bench"
    )
    options = parser.parse_args()
    if options.quick:
        options.requests = QUICK_REQUESTS
    need("bench-soak", "wrk")
    cpu.leave_a_core()
    with measuring() as directory:
        figures, soak = run(options.requests, directory)
    folder = SCRATCH if options.quick else PICTURES
    samples = [(done / 1e6, rss / 1e6) for done, rss in soak.samples]
    charts.memory(folder / "soak.svg", samples, options.requests * WARM / 1e6)
    results.write({"soak": figures}, proves=not options.quick)


def run(requests: int, directory: Path) -> tuple[dict[str, Any], Soak]:
    document = directory / "snapshot.json"
    write_document(document, CHANGING[-1])
    settings = Settings.on_free_ports(
        callout_timeout=None, concurrency=1, log_level="error", config=CONFIG, snapshot=document
    )
    soak = Soak()
    with PlainStack(settings) as stack:
        texts = {size: definitions_of_size(size) for size in SIZES}
        sizes = itertools.cycle(SIZES)
        etags = {
            team: put_definitions_django(stack, team, texts[next(sizes)]) for team in (*STEADY, *CHANGING)
        }
        began = time.monotonic()
        with load(stack, mix(etags), directory) as alive:
            changes = watch(stack, soak, requests, alive)
        minutes = (time.monotonic() - began) / 60
        statuses = answers(stack)
        traps, total = trap_count(stack), requests_so_far(stack)
        unexpected = {status: count for status, count in statuses.items() if status not in EXPECTED}
    warm, end = soak.growth(requests)
    growth = end / warm - 1
    print(f"\n{total} requests in {minutes:.1f} minutes, {changes} changes; answers: {dict(statuses)}")
    print(f"memory when warm {warm / 1e6:.1f} MB, at the end {end / 1e6:.1f} MB: {growth:+.1%}", end=", ")
    print("flat" if growth <= FLAT else "NOT FLAT")
    print(f"traps: {traps}, answers of other statuses: {sum(unexpected.values())}")
    return {
        "environment": {
            "command": "make bench-soak",
            "cores": os.cpu_count(),
            "envoy_workers": 1,
            "machine": platform.machine(),
        },
        "requests": total,
        "minutes": round(minutes, 1),
        "changes": changes,
        "rss_warm_megabytes": round(warm / 1e6, 1),
        "rss_end_megabytes": round(end / 1e6, 1),
        "growth": round(growth, 4),
        "traps": traps,
        "statuses": dict(statuses),
        "unexpected_statuses": sum(unexpected.values()),
    }, soak


def mix(etags: dict[int, str]) -> list[Request]:
    """Requests that are sent in turn, over and over."""
    random = Random(1)
    sent: list[Request] = []
    for _ in range(20):
        steady, changing = random.choice(STEADY), random.choice(CHANGING)
        wrong = definitions_request(steady)
        kinds = (
            [definitions_request(team, etags[team]) for team in random.choices(STEADY, k=SHARES[0])],
            [definitions_request(steady)],
            [definitions_request(steady, None, ACCEPT_GZIP)],
            [definitions_request(changing, etags[changing])],
            [definitions_request(changing)],
            [Request(wrong.path, ("Authorization: Bearer phs_wrong", *wrong.headers[1:]))],
        )
        for requests, share in zip(kinds, SHARES, strict=True):
            sent += itertools.islice(itertools.cycle(requests), share)
    random.shuffle(sent)
    return sent


@contextlib.contextmanager
def load(stack: Stack, requests: list[Request], directory: Path) -> Iterator[subprocess.Popen[str]]:
    command = wrk_command(stack.edge_url, requests, LONGER_THAN_ANY, directory)
    # In a session of its own: Ctrl-C is for this program, which then ends it.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


def watch(stack: Stack, soak: Soak, requests: int, alive: subprocess.Popen[str]) -> int:
    """Changes definitions and takes samples until there were enough requests. Returns how often it did."""
    began = next_sample = time.monotonic()
    changing, sizes = itertools.cycle(CHANGING), itertools.cycle(SIZES)
    for change in itertools.count(1):
        text = definitions_of_size(next(sizes), seed=change + 1)
        put_definitions_django(stack, next(changing), text)
        time.sleep(1)
        done = requests_so_far(stack)
        if alive.poll() is not None:
            raise StackError(f"wrk ended with {alive.returncode}")
        if time.monotonic() >= next_sample or done >= requests:
            next_sample += SAMPLE_INTERVAL
            rss = cpu.rss_bytes(stack.processes["envoy"].pid)
            soak.samples.append((done, rss))
            took = time.monotonic() - began
            left = took / max(done, 1) * max(requests - done, 0)
            print(
                f"{done / 1e6:8.2f} of {requests / 1e6:g} million  {done / took:7.0f}/s  {rss / 1e6:7.1f} MB"
                f"  {left / 60:5.1f} minutes left",
                flush=True,
            )
        if done >= requests:
            return change
    raise AssertionError


def requests_so_far(stack: Stack) -> int:
    return stack.stats()["http.edge.downstream_rq_total"]


def answers(stack: Stack) -> Counter[str]:
    """As the filter has counted them: by status, and those that are not expected by their reason as well. A
    request that a trap ended is in Envoy's own count alone."""
    time.sleep(2)  # until the worker has told its counts
    counts: Counter[str] = Counter()
    for line in stack.prometheus().splitlines():
        series, _, value = line.rpartition(" ")
        if series.startswith("flag_definitions_forwarded_total{"):
            counts["forwarded"] += int(float(value))
        elif series.startswith("flag_definitions_answers_total{"):
            labels = dict(re.findall(r'(\w+)="(\w+)"', series))
            status = labels["status"]
            kind = status if status in EXPECTED else f"{status} {labels['reason']}"
            counts[kind] += int(float(value))
    failed = stack.stats()["http.edge.downstream_rq_5xx"]
    by_filter = sum(count for status, count in counts.items() if status.startswith("5"))
    counts["5xx of Envoy"] = failed - by_filter
    return +counts


if __name__ == "__main__":
    main()
