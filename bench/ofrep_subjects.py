"""OFREP's surface, and what it is compared with: filters that only reply, and flagd's engine behind Envoy.

Publisher and engine follow one file with 50 flags, half of which have rules. No figure counts where filter
and engine do not say the same. The engine is a program in Go (integration/peers/flagd): where it is not
built, its subjects are left out by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench_stack
import surface_subjects
from bench_stack import BenchStack
from load import UNIQUE, Request
from models.ofrep.evaluated import configured
from models.ofrep.recorded import FLAGS
from paths import FLAGD
from stack.ports import accepts_connections, free_port
from stack.processes import StackError
from stack.settings import Settings
from subjects import Subject, ask, wait_until_it_answers
from surface_subjects import plain

SECTION = "ofrep"  # of the plugin configuration
SERVICE = "flagd"
NAMES = {
    "reply_only_ofrep_304",
    "host_calls_ofrep_304",
    "ofrep_304",
    "ofrep_bulk",
    "flagd_poll",
    "flagd_bulk",
}
COMPARED = 50  # contexts for which filter and engine have to say the same
FLAGS_OF_DOCUMENT = 50

SHARE = {
    "fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}, ["on", 30], ["off", 70]]
}
# Each kind of rule that flagd's documents show.
RULES: list[Any] = [
    {"if": [{"in": ["@example.com", {"var": "email"}]}, "on", "off"]},
    SHARE,
    {"if": [{"and": [{"==": [{"var": "plan"}, "pro"]}, {">=": [{"var": "age"}, 18]}]}, "on", None]},
    {"if": [{"sem_ver": [{"var": "appVersion"}, ">=", "2.3.0"]}, "on", "off"]},
    {"if": [{"starts_with": [{"var": "region"}, "eu-"]}, "on", SHARE]},
]
VARIANTS: list[dict[str, Any]] = [
    {"on": True, "off": False},
    {"on": "#1f6feb", "off": "#0b0f14"},
    {"on": 250, "off": 25},
    {"on": {"title": "New checkout", "steps": 3}, "off": {"title": "Checkout", "steps": 5}},
]
# Each request of a full evaluation is for somebody that nobody asked for before.
CONTEXT = {
    "targetingKey": f"user-{UNIQUE}",
    "email": "ann@example.com",
    "plan": "pro",
    "age": 42,
    "appVersion": "2.10.1",
    "region": "eu-central-1",
    "os": "ios",
    "language": "de",
    "beta": True,
    "sessions": 17.5,
}


def document(flags: int = FLAGS_OF_DOCUMENT, description: str = "") -> dict[str, Any]:
    """A document of flagd's with so many flags: every other one has a rule."""

    def flag(number: int) -> dict[str, Any]:
        own: dict[str, Any] = {
            "state": "ENABLED",
            "variants": VARIANTS[number // 2 % len(VARIANTS)],
            "defaultVariant": "off",
        }
        if description:
            own["metadata"] = {"description": f"{description} {number}"}
        return own | ({"targeting": RULES[number // 2 % len(RULES)]} if number % 2 else {})

    return {"flags": {f"flag-{number:05}": flag(number) for number in range(flags)}}


@dataclass
class OfrepStack(BenchStack):
    """A stack that follows `flags`, with flagd's engine behind its Envoy that follows it as well."""

    flags: Path = Path()

    def _start_behind(self, name: str, port: int) -> None:
        self._start(name, [FLAGD, "serve", "--port", port, "--file", self.flags])
        self._wait_for(name, lambda: accepts_connections(port))


@contextmanager
def stack_for(
    directory: Path,
    kind: type[OfrepStack] = OfrepStack,
    listeners: dict[str, Callable[[bench_stack.Document], None]] | None = None,
) -> Iterator[OfrepStack]:
    """A stack that is up, with these further listeners. Its files are put into `directory`."""
    flags = directory / "flags.json"
    flags.write_text(json.dumps(document()))
    settings = Settings.on_free_ports(
        callout_timeout=None, concurrency=1, log_level="error", snapshot=None, flagd_uri=f"file:{flags}"
    )
    settings = replace(settings, config=configured(settings) | {"posthog": {"enabled": False}})
    has_flagd = FLAGD.exists()
    with kind(
        settings,
        listeners=({SERVICE: bench_stack.cluster(SERVICE)} if has_flagd else {}) | (listeners or {}),
        behind={SERVICE: free_port()} if has_flagd else {},
        flags=flags,
    ) as stack:
        yield stack


def question(user: str | None = None, *headers: str) -> Request:
    """Asks for all flags: for this user, or each time for a new one."""
    context = CONTEXT if user is None else CONTEXT | {"targetingKey": user}
    body = json.dumps({"context": context})
    return Request(FLAGS, ("Content-Type: application/json", *headers), "POST", body)


def of_this_filter(stack: BenchStack) -> list[Subject]:
    """What the filter answers, once it does."""
    bulk = Subject("ofrep_bulk", "edge", 200, (question(),), b'"TARGETING_MATCH"')
    wait_until_it_answers(stack, bulk)
    etag = dict(ask(stack, "edge", question("ann")).headers)["etag"]
    unchanged = question("ann", f"If-None-Match: {etag}")
    return [Subject("ofrep_304", "edge", 304, (unchanged,)), bulk]


def subjects(stack: BenchStack) -> list[Subject]:
    """Has the filters that only reply say what this filter says, and fails where flagd's engine says
    otherwise."""
    unchanged, bulk = of_this_filter(stack)
    stand_ins = surface_subjects.stand_ins(stack, {"ofrep_304": unchanged}, awaits_body=True)
    found = [*stand_ins, unchanged, bulk]
    if SERVICE not in stack.processes:
        return found
    compare(stack)
    # flagd 0.16.1 has no tags: it answers a poll with all flags.
    polled = replace(unchanged, name="flagd_poll", listener=SERVICE, status=200, body=bulk.body)
    return [*found, polled, replace(bulk, name="flagd_bulk", listener=SERVICE)]


def compare(stack: BenchStack) -> None:
    """Fails where filter and engine do not say the same, but for the order of flags, which is random
    there."""
    for number in range(COMPARED):
        asked = question(f"user-{number}")
        ours, theirs = (ask(stack, listener, asked) for listener in ("edge", SERVICE))
        said = [json.loads(plain(answer)) for answer in (ours, theirs)]
        for one in said:
            one["flags"].sort(key=lambda flag: flag["key"])
        if (ours.status, theirs.status) != (200, 200) or said[0] != said[1]:
            raise StackError(f"filter and flagd's engine differ for user-{number}: {ours}\n{theirs}")


def prove_evaluated(stack: BenchStack, directory: Path) -> dict[str, Any]:
    """That nothing is evaluated for a 304, and each time for a new user."""
    unchanged, bulk = of_this_filter(stack)
    proven = surface_subjects.prove(stack, SECTION, unchanged, "not_modified", directory)
    return proven | surface_subjects.prove(stack, SECTION, bulk, "evaluated", directory)
