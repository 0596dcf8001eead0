"""What the benchmarks of surfaces that evaluate flags share: filters that only reply what such a surface
says, and proofs of how its answers were come by."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import bench_stack
from bench_stack import BenchStack
from load import wrk
from stack.processes import StackError
from subjects import Answer, Subject, ask

METRIC = "flag_definitions_evaluations_total"
RESULTS = ("evaluated", "kept", "not_modified")
TOLD = 2.0  # seconds after which a worker told of all that it counted


class Surface(Protocol):
    """A module that has the subjects of a surface."""

    SECTION: str
    NAMES: set[str]

    def stack_for(self, directory: Path) -> AbstractContextManager[BenchStack]: ...

    def subjects(self, stack: BenchStack) -> list[Subject]: ...

    def prove_evaluated(self, stack: BenchStack, directory: Path) -> dict[str, Any]: ...


def plain(answer: Answer) -> bytes:
    return zlib.decompress(answer.body, zlib.MAX_WBITS | 16) if answer.gzipped else answer.body


def stand_ins(stack: BenchStack, models: Mapping[str, Subject], awaits_body: bool = False) -> list[Subject]:
    """For each of these subjects two filters that say the same, called `reply_only_` and `host_calls_` with
    its key: the one reads nothing, the other makes the host calls that the answer needs, which are the
    request's header fields and the clock. With `awaits_body` they reply at its end; the other reads it."""
    found = [
        replace(model, name=f"{kind}_{name}", listener=f"{kind}_{name}")
        for name, model in models.items()
        for kind in ("reply_only", "host_calls")
    ]
    said = {stand_in.listener: ask(stack, "edge", stand_in.requests[0]) for stand_in in found}
    listeners = {}
    for name, answer in said.items():
        calls = "request" if name.startswith("host_calls") else "none"
        listeners[name] = bench_stack.reply_only(
            answer.status,
            list(answer.headers),
            answer.body,
            calls,
            shipped_routes=True,
            awaits_body=awaits_body,
        )
    stack.add_listeners(listeners)
    for stand_in in found:
        if ask(stack, stand_in.listener, stand_in.requests[0]) != said[stand_in.listener]:
            raise StackError(f"{stand_in.name} does not answer as this filter does")
    return found


def prove(stack: BenchStack, surface: str, subject: Subject, result: str, directory: Path) -> dict[str, Any]:
    """Asks for a second: how the flags of each answer were come by, by name. Fails when it was another way
    than `result`."""

    def counted() -> dict[str, float]:
        time.sleep(TOLD)
        return {result: stack.metric(METRIC, surface=surface, result=result) for result in RESULTS}

    before = counted()
    asked, _ = wrk(stack.url(subject.listener), subject.requests, 1, directory)
    found = {name: count - before[name] for name, count in counted().items()}
    # Those that were on their way at the end are counted as well, and not by the client.
    if found[result] < asked or any(count for name, count in found.items() if name != result):
        raise StackError(f"of {asked} requests of {subject.name} so many were {result}: {found}")
    return {subject.name: {name: round(count / asked, 3) for name, count in found.items()}}
