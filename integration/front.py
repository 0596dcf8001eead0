"""Stacks in front of an unchanged PostHog, and more than one Envoy on one Redis."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import writers
from edge import health, trap_count
from model import State
from settings import Settings
from stack import Stack


@contextmanager
def unchanged_posthog(
    state: State,
    published: State | None = None,
    behind: str | None = None,
    concurrency: int = 2,
    idle_timeout: str | None = None,
    **config: Any,
) -> Iterator[Stack]:
    """Teams and credentials are in PostHog's own cache alone; only what is `published` is in a snapshot, and
    without that there is none. `behind` is the address of PostHog's service. Rates are not limited."""
    config = {"read_through": {"enabled": True}, "rate_limit": {"enabled": False}} | config
    settings = Settings.on_free_ports(
        snapshot=None, config=config, upstream=behind, concurrency=concurrency, idle_timeout=idle_timeout
    )
    with kept_for_a_look(Stack(settings)) as stack:
        stack.start_redis()
        stack.start_webdis()
        if published is not None:
            stack.publish(published.source_document())
        writers.write_identities(stack, state)
        writers.write_definitions(stack, state)
        stack.start_envoy()
        if published is not None:  # without it Envoy is ready, too
            stack.wait_until(lambda: health(stack)["generation"] is not None)
        yield stack
        assert trap_count(stack) == 0, "the filter trapped"


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


@contextmanager
def kept_for_a_look(stack: Stack) -> Iterator[Stack]:
    """Stops it in any case, and removes its logs when all went well."""
    passed = False
    try:
        yield stack
        passed = True
    finally:
        stack.stop()
        if passed:
            shutil.rmtree(stack.settings.run_dir, ignore_errors=True)
