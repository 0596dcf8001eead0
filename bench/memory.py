"""What the filter costs an Envoy in memory, and each of its workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import cpu
from bench_stack import PlainStack, connection_manager, direct_response
from load import Request, wrk
from stack.edge import UNLIMITED
from stack.running import definitions_key
from stack.settings import Settings

WORKERS = 5  # of the larger Envoy
REQUEST = Request(
    "/flags/definitions?token=phc_sample_team_one", ("Authorization: Bearer phs_sample_team_one_secret",)
)
MEGABYTE = 1 << 20


@dataclass
class EnvoyStack(PlainStack):
    """With the filter, or with Envoy's own 304 in its place."""

    with_filter: bool = True

    def start_envoy(self, wait_ready: bool = True) -> None:
        super().start_envoy(wait_ready and self.with_filter)

    def write_listeners(self, config: Any) -> None:
        super().write_listeners(config)
        if self.with_filter:
            return
        document = yaml.safe_load((self.settings.run_dir / "listeners.yaml").read_text())
        edge = next(listener for listener in document["resources"] if listener["name"] == "edge")
        direct_response(304)(edge)
        connection_manager(edge)["stat_prefix"] = "edge"
        document["resources"] = [edge]
        self._write("listeners.yaml", yaml.safe_dump(document))


def megabytes(directory: Path) -> dict[str, float]:
    """Resident memory after 304s and 200s of one team."""
    rss = {}
    for workers in (1, WORKERS):
        for with_filter in (False, True):
            rss[workers, with_filter] = _rss(workers, with_filter, directory)
    with_filter, without = (rss[WORKERS, which] - rss[1, which] for which in (True, False))
    figures = {
        "envoy": rss[1, False] / MEGABYTE,
        "envoy_with_filter": rss[1, True] / MEGABYTE,
        "filter_per_further_worker": (with_filter - without) / (WORKERS - 1) / MEGABYTE,
    }
    for name, value in figures.items():
        print(f"memory: {name.replace('_', ' ')} {value:.1f} MB", flush=True)
    return {name: round(value, 1) for name, value in figures.items()}


def _rss(workers: int, with_filter: bool, directory: Path) -> int:
    settings = Settings.on_free_ports(
        callout_timeout=None, concurrency=workers, log_level="error", config=UNLIMITED
    )
    with EnvoyStack(settings, with_filter=with_filter) as stack:
        etag = stack.redis.get(definitions_key(1) + ":etag").decode()
        conditional = Request(REQUEST.path, (*REQUEST.headers, f'If-None-Match: W/"{etag}"'))
        for request in (conditional, REQUEST):
            wrk(stack.edge_url, [request], 2, directory)
        return cpu.rss_bytes(stack.processes["envoy"].pid)
