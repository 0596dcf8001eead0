"""More than one Envoy on one Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stack.edge import trap_count
from stack.launcher import Stack, kept_for_a_look
from stack.settings import Settings


@contextmanager
def another_envoy(stack: Stack, wait_ready: bool = True, **settings: Any) -> Iterator[Stack]:
    """A second Envoy with the same plugin configuration, on the same webdis and Redis."""
    own = stack.settings
    settings = {"redis_port": own.redis_port, "webdis_port": own.webdis_port} | settings
    other = Stack(Settings.on_free_ports(snapshot=None, config=own.config, **settings))
    with kept_for_a_look(other):
        other.settings.run_dir.mkdir(parents=True)
        theirs = {name: process for name, process in stack.processes.items() if name != "envoy"}
        other.processes |= theirs
        try:
            other.start_envoy(wait_ready)
            yield other
        finally:
            for name in theirs:
                other.processes.pop(name)
        assert trap_count(other) == 0, "the filter trapped"
