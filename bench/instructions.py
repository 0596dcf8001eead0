"""How many instructions Envoy takes for a request, and for the work of a tick, counted by valgrind.

All outside the kernel, with the VMs' code as V8 compiled it, while one client asks again and again. How fast
the machine is does not show in them, and neither do caches. Of a large body each byte that is copied counts,
so of the answers with one there are the gzip form and the callout. Adds to bench/results.json.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench_stack
import flagsmith_subjects
import ofrep_subjects
import results
import ticks
from command import measuring, need, positive
from counted import CountedStack
from stack.paths import WASM
from stack.processes import StackError
from subjects import (
    Subject,
    callout_of_a_module,
    callout_of_this_filter,
    fill,
    of_a_module,
    send,
    stack_for,
    subjects,
    wait_until_it_answers,
)

SUBJECTS = [
    "direct_response_304",
    "no_op_304",
    "reply_only_304",
    "host_calls_304",
    "confirmed_304_no_limits",
    "confirmed_304",
    "untouched_path",
    "rejected_401",
    "reply_only_200_24k_gzip",
    "host_calls_200_24k_gzip",
    "cached_200_24k_gzip",
    "callout_200_24k",
]
OF_FLAGSMITH = [
    "reply_only_flags_gzip",
    "host_calls_flags_gzip",
    "flagsmith_flags_gzip",
    "flagsmith_flags_304",
    "flagsmith_identity",
    "flagsmith_document_gzip",
]
OF_OFREP = ["reply_only_ofrep_304", "host_calls_ofrep_304", "ofrep_304", "ofrep_bulk"]
# As in the names of ratios.
NAMES = {"direct_response_304": "bare"}
# Each VM takes 10 GB of addresses, and valgrind has some 100.
NEEDED = {
    "no_limits",
    "untouched_path",
    "direct_response_304",
    "no_op_304",
    "callout",
}  # beside those of subjects()

WARM = 3_000  # requests, after which V8 has compiled what they need
# Callouts time out while valgrind translates what it has not seen yet.
TRIES = 40
SAMPLES = 20


@dataclass
class CountedFlagsmith(CountedStack, flagsmith_subjects.FlagsmithStack):
    """The stack of Flagsmith's subjects, with an Envoy whose instructions are counted."""


@dataclass
class CountedOfrep(CountedStack, ofrep_subjects.OfrepStack):
    """The same of OFREP's."""


# Subjects of each surface that evaluates flags, and names of those that are counted.
OF_SURFACES: list[tuple[Any, type[CountedStack], list[str]]] = [
    (flagsmith_subjects, CountedFlagsmith, OF_FLAGSMITH),
    (ofrep_subjects, CountedOfrep, OF_OFREP),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=positive, default=100, help="counted at a time (100)")
    parser.add_argument(
        "--quick", action="store_true", help="whether it works, with fewer; written to .run/bench"
    )
    parser.add_argument(
        "--against",
        type=module,
        metavar="FILE.wasm",
        help="another build of the filter in the same Envoy, counted in turn with this one:\n"
        "prints both and their ratio, and writes nothing",
    )
    options = parser.parse_args()
    if options.quick:
        options.requests = 50
    need("bench-instructions", "valgrind", "callgrind_control")
    counts: dict[str, int] = {}
    with measuring() as directory:
        if options.against:
            print(f"{'instructions':26} {'ours':>8} {'other':>8}  ratio")
            for name, ours, other in compared(directory, options):
                print(f"{name:26} {ours:8} {other:8}  {ours / other:.4f}", flush=True)
            return
        for name, counts[name] in counted(directory, options):
            print(f"{name:26} {counts[name]:8} instructions", flush=True)
    results.write({"instructions": counts}, proves=not options.quick)


def module(text: str) -> Path:
    """A file that is a WebAssembly module."""
    path = Path(text).resolve()
    if not path.is_file() or not path.read_bytes().startswith(b"\0asm"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a file with a WebAssembly module")
    return path


def counted(directory: Path, options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """By the name in bench/results.json."""
    callout = callout_of_this_filter()
    stack = stack_for(directory, CountedStack)
    stack.listeners = {name: change for name, change in stack.listeners.items() if name in NEEDED}
    with stack:
        every = {subject.name: subject for subject in subjects(stack, callout)}
        for name in SUBJECTS:
            (taken,) = count(stack, [every[name]], options.requests)
            yield NAMES.get(name, name), taken
    for surface, kind, names in OF_SURFACES:
        with surface.stack_for(directory, kind) as stack:
            every = {subject.name: subject for subject in surface.subjects(stack)}
            for name in names:
                (taken,) = count(stack, [every[name]], options.requests)
                yield name, taken
    yield from ticks.counted(directory, quick=options.quick)


def compared(directory: Path, options: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """What this build takes, and what the other one takes: in one Envoy, but for ticks."""
    stack = stack_for(directory, CountedStack)
    other = bench_stack.other_module(options.against)
    uncached = stack.listeners["callout"]

    def other_uncached(listener: bench_stack.Document) -> None:
        uncached(listener)
        other(listener)

    stack.listeners = {"other": other, "callout": uncached, "other_callout": other_uncached}
    with stack:
        etag = fill(stack)
        ours = [*of_a_module("edge", etag), callout_of_a_module("callout")]
        others = [*of_a_module("other", etag), callout_of_a_module("other_callout")]
        for pair in zip(ours, others, strict=True):
            yield pair[0].name, *count(stack, pair, options.requests)
    for surface, kind, names in OF_SURFACES:
        # A build of before a surface takes no configuration with it.
        if surface.SECTION.encode() not in options.against.read_bytes():
            continue
        with surface.stack_for(directory, kind, {"other": other}) as stack:
            for one in (one for one in surface.of_this_filter(stack) if one.name in names):
                pair = [one, replace(one, listener="other")]
                wait_until_it_answers(stack, pair[1])
                yield one.name, *count(stack, pair, options.requests)
    both = [ticks.counted(directory, wasm, options.quick) for wasm in (WASM, options.against)]
    for (name, mine), (_, its) in zip(*map(list, both), strict=True):
        yield name, mine, its


def count(stack: CountedStack, subjects: Sequence[Subject], requests: int) -> list[int]:
    """The least of some samples of each, taken in turn: in most of them is work of a tick, the more of it the
    slower the machine."""
    for subject in subjects:
        ask(stack, subject, WARM)
    stack.control("--instr=on")
    for subject in subjects:
        if all(ask(stack, subject, requests) for _ in range(TRIES)):
            raise StackError(f"{subject.name} is not answered with {subject.status} by an Envoy this slow")
    stack.counted()
    samples: list[list[float]] = [[] for _ in subjects]
    for _ in range(SAMPLES):
        for subject, taken in zip(subjects, samples, strict=True):
            if ask(stack, subject, requests):
                raise StackError(f"not every answer of {subject.name} was a {subject.status}")
            taken.append(stack.counted() / requests)
    stack.control("--instr=off")
    return [round(min(taken)) for taken in samples]


def ask(stack: CountedStack, subject: Subject, times: int) -> int:
    """How many answers had another status."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.ports[subject.listener], timeout=60)
    others = 0
    try:
        for request in itertools.islice(itertools.cycle(subject.requests), times):
            answer = send(connection, request)
            answer.read()
            others += answer.status != subject.status
    finally:
        connection.close()
    return others


if __name__ == "__main__":
    main()
