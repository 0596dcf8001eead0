"""How long a callout takes that reads a large payload: what `redis.definitions.timeout` has to be above.

Each time the payload is a new one, and all clients ask at once while the workers keep the one before. Writes
"timeouts" into bench/results.json, in milliseconds: the longest callout of all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

import results
from bench_stack import PlainStack
from command import measuring, positive
from documents import definitions_of_size
from models.posthog.writers import Compressor, put_definitions_django
from stack.edge import UNLIMITED, Crowd, authenticated_get
from stack.launcher import Stack
from stack.processes import StackError
from stack.settings import Settings

SIZES = (1_000_000, 4_000_000, 8_000_000)  # bytes of JSON text
# As PostHog stores it now, and as a cache without a compressor does.
FORMS: dict[str, Compressor] = {"zstd": "zstd", "uncompressed": None}
CLIENTS = (1, 200)
WORKERS = 2
ETAG_MAX_AGE = 2.1  # seconds: the filter's default, and a little more
FLUSH = 5.5  # seconds in which Envoy tells what its histograms hold


@dataclass
class SharedStack(PlainStack):
    """All share all cores: a callout is slow when its Envoy is busy with answers."""

    def start_envoy(self, wait_ready: bool = True) -> None:
        Stack.start_envoy(self, wait_ready)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=3, help="of each (3)")
    parser.add_argument("--quick", action="store_true", help="one round; written to .run/bench")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    figures: dict[str, Any] = {
        "environment": {
            "command": "make bench-timeouts",
            "cores": os.cpu_count(),
            "envoy_workers": WORKERS,
            "machine": platform.machine(),
            "rounds": rounds,
        }
    }
    with measuring():
        for size in SIZES:
            for form, compressor in FORMS.items():
                for clients in CLIENTS:
                    name = f"{size // 1_000_000}_mb_{form}_{clients}_clients"
                    figures[name] = longest_callout(size, compressor, clients, rounds)
                    print(f"{name.replace('_', ' ')}: {figures[name]} ms", flush=True)
    results.write({"timeouts": figures}, proves=not options.quick)


def longest_callout(size: int, compressor: Compressor, clients: int, rounds: int) -> float:
    """Milliseconds."""
    settings = Settings.on_free_ports(
        callout_timeout="20s", idle_timeout="60s", concurrency=WORKERS, log_level="error", config=UNLIMITED
    )
    with SharedStack(settings) as stack:
        for number in range(rounds + 1):  # the first one fills what workers keep
            put_definitions_django(stack, 1, definitions_of_size(size, seed=number), compressor)
            time.sleep(ETAG_MAX_AGE)
            seen = Crowd(stack, clients, authenticated_get()).answers()
            if {status for status, _ in seen} != {200}:
                raise StackError(f"of {size} bytes for {clients} clients: {dict(seen)}")
        time.sleep(FLUSH)
        return longest(stack)


def longest(stack: Stack) -> float:
    """Milliseconds that the longest of all callouts took until its reply was there."""
    name = "cluster.flag_definitions_redis.upstream_rq_time"
    page = f"{stack.admin_url}/stats?format=json&histogram_buckets=summary&filter=^{name}$"
    with urllib.request.urlopen(page, timeout=15) as answer:
        found = json.loads(answer.read())["stats"]
    (histograms,) = [entry["histograms"] for entry in found if "histograms" in entry]
    place = histograms["supported_quantiles"].index(100)
    (histogram,) = [one for one in histograms["computed_quantiles"] if one["name"] == name]
    return round(histogram["values"][place]["cumulative"], 1)


if __name__ == "__main__":
    main()
