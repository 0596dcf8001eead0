"""A stack whose usage goes over a link that can be held, and what of it Redis has."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from models.posthog import writers
from models.posthog.customers import Plan
from models.posthog.endpoint import State, Team, stored_text
from stack import clusters
from stack.edge import get
from stack.launcher import Stack
from stack.link import Link
from stack.processes import StackError
from stack.settings import Settings

FLUSH = 0.3  # seconds
PREFIX = "posthog:local_evaluation_requests:"
SEQUENCES = "flag_definitions:usage:*"

BILLED = stored_text({"flags": [{"key": "survey-targeting-a"}, {"key": "checkout"}], "cohorts": {}})


def team(number: int) -> Team:
    return Team(number, f"phc_usage_{number}", None, f"phs_usage_{number}")


def state_of(texts: dict[int, str]) -> State:
    return State(teams=[team(number) for number in texts], texts=dict(texts))


def plans_of(state: State) -> list[Plan]:
    return [Plan(team, state.texts.get(team.id)) for team in state.teams]


@dataclass
class Site:
    """A stack whose filter sends usage over a link of its own."""

    stack: Stack
    link: Link
    config: dict[str, Any]

    def change(self, **config: Any) -> None:
        """Changes sections of the plugin configuration while Envoy runs."""
        self.config |= config
        assert self.stack.change_config(self.config)

    @property
    def redis(self) -> Any:
        return self.stack.redis

    def counted(self) -> Counter[tuple[int, str]]:
        """What Redis has, by team and SDK."""
        return counted(self.redis)

    def settle(self, reached: Callable[[Counter[tuple[int, str]]], bool], timeout: float = 40.0) -> None:
        """Waits for the counts, and then for what must not come. That the counts are not reached is for the
        caller to tell, with all of its figures."""
        with contextlib.suppress(StackError):
            self.stack.wait_until(lambda: reached(self.counted()), timeout)
        time.sleep(2 * FLUSH)

    def what_arrived(self) -> Counter[tuple[int, str]]:
        """The counts when nothing is on its way any more: they did not change for a while."""
        counts, since = self.counted(), time.monotonic()
        while time.monotonic() - since < 3 * FLUSH:
            time.sleep(0.1)
            if (now := self.counted()) != counts:
                counts, since = now, time.monotonic()
        return counts


@contextmanager
def site(
    state: State, usage_gateway: Stack | None = None, settings: dict[str, Any] | None = None, **config: Any
) -> Iterator[Site]:
    free = Settings.on_free_ports()
    ports = {name: getattr(free, name) for name in Settings.PORTS}
    with ExitStack() as exits:
        gateway = usage_gateway.settings if usage_gateway else free
        link = exits.enter_context(Link(gateway.webdis_port))
        cluster = clusters.dedicated_redis(link.port)
        own = {"durable": True, "clusters": (cluster,)} | ports | (settings or {})
        config = {
            "redis": {"usage": {"cluster": "flag_definitions_redis_dedicated", "timeout": "250ms"}},
            "rate_limit": {"enabled": False},
            "quota": {"interval": "1s"},
            "usage": {"flush_interval": f"{FLUSH * 1000:.0f}ms"},
        } | config
        stack = exits.enter_context(writers.stack_with(state, settings=own, may_trap="wasm" in own, **config))
        yield Site(stack, link, config)


def counted(redis: Any) -> Counter[tuple[int, str]]:
    """Usage as PostHog's report reads it. What the two kinds of hashes say is the same."""
    by_sdk: Counter[tuple[int, str]] = Counter()
    by_team: Counter[int] = Counter()
    for key, fields in fields_by_key(redis).items():
        *_, team_id, sdk = key.split(":") if ":sdk:" in key else [*key.split(":"), ""]
        if sdk:
            by_sdk[(int(team_id), sdk)] += sum(fields.values())
        else:
            by_team[int(team_id)] += sum(fields.values())
    assert by_team == sum_by_team(by_sdk)
    return by_sdk


def fields_by_key(redis: Any) -> dict[str, dict[int, int]]:
    """All hashes at one moment: a batch arrives as a whole."""
    # One step: a batch may also be the first of its hash.
    script = """
    local all = {}
    for _, key in ipairs(redis.call('KEYS', ARGV[1])) do all[#all + 1] = {key, redis.call('HGETALL', key)} end
    return all
    """
    hashes = {key.decode(): list(map(int, flat)) for key, flat in redis.eval(script, 0, PREFIX + "*")}
    return {key: dict(zip(flat[::2], flat[1::2], strict=True)) for key, flat in hashes.items()}


def sum_by_team(by_sdk: Counter[tuple[int, str]]) -> Counter[int]:
    sums: Counter[int] = Counter()
    for (team_id, _), count in by_sdk.items():
        sums[team_id] += count
    return sums


def ask(stack: Stack, number: int, count: int = 1) -> None:
    for _ in range(count):
        assert get(stack, team(number).token, team(number).secret).status_code == 200


def usage_metric(stack: Stack, state: str) -> float:
    return stack.metric("flag_definitions_usage_total", state=state)
