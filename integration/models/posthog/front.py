"""Stacks in front of an unchanged PostHog."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.posthog import writers
from models.posthog.endpoint import State
from stack.edge import health, trap_count
from stack.launcher import Stack, kept_for_a_look
from stack.settings import Settings


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
