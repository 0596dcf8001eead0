"""The clusters that Envoy may have beside those of envoy/bootstrap.yaml, and what is filled in for each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.paths import ROOT


@dataclass(frozen=True)
class Cluster:
    """One of the examples in envoy/, with values for its placeholders."""

    example: str
    values: dict[str, object]


def plugin_config(example: str) -> dict[str, Any]:
    """The plugin configuration that goes with a cluster's example, as it is in filter-config/examples/."""
    return json.loads((ROOT / f"filter-config/examples/{example}.json").read_text())


def object_store(port: int, trusted_ca: Path) -> Cluster:
    """An S3 on loopback whose certificate is its own CA."""
    address = {"OBJECT_STORE_ADDRESS": "127.0.0.1", "OBJECT_STORE_PORT": port}
    return Cluster("envoy/object-store.yaml", address | {"TRUSTED_CA": trusted_ca})


def upstash(port: int, trusted_ca: Path, secret: Path) -> Cluster:
    """An Upstash gateway on loopback whose certificate is its own CA."""
    address = {"UPSTASH_ADDRESS": "127.0.0.1", "UPSTASH_PORT": port}
    return Cluster("envoy/upstash.yaml", address | {"TRUSTED_CA": trusted_ca, "UPSTASH_SECRET": secret})


def dedicated_redis(webdis_port: int) -> Cluster:
    """A second Redis behind a webdis of its own."""
    return Cluster("envoy/dedicated-redis.yaml", {"DEDICATED_WEBDIS_PORT": webdis_port})
