"""flagd's definitions of 5 MB with 10 000 flags through two workers: how soon a change is served by both, and
how long the turns of their event loops are while they compile, evaluate all flags, and read contexts of 1 MB.

A change counts from the moment at which the file is replaced. Writes "ofrep_definitions" and
"ofrep_change_seconds" into bench/results.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import cpu
import ofrep_subjects
import results
from command import measuring, positive
from models.ofrep.evaluated import configured, write
from models.ofrep.recorded import FLAGS
from models.posthog.watching import percentile
from stack.processes import StackError
from stack.settings import Settings
from turns import WORKERS, TimedStack, one_to_each_worker

FLAGS_OF_DOCUMENT = 10_000
MARK = "mark"  # the flag that tells versions apart
LONG_BODY = 990_000  # bytes, below max_body_bytes
VALUES = 49_000  # of a context: a body may have 50 000
ASKED = 20  # times by each worker's client, of each kind
PAUSE = 0.15  # seconds between two questions: a worker hands over 32 MiB of long answers in one
PUBLISHED = 120.0  # seconds

Connection = http.client.HTTPConnection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--changes", type=positive, default=100, help="timed (100)")
    parser.add_argument(
        "--quick", action="store_true", help="whether it works, with 3 changes; written to .run/bench"
    )
    options = parser.parse_args()
    changes = 3 if options.quick else options.changes
    text = document("at first")
    figures: dict[str, Any] = {
        "environment": {
            "command": "make bench-long-definitions",
            "cores": os.cpu_count(),
            "envoy_workers": WORKERS,
            "machine": platform.machine(),
            "flags": FLAGS_OF_DOCUMENT,
            "bytes_of_the_document": len(text.encode()),
        }
    }
    with measuring() as directory, stack_of(text, directory) as stack:
        connections = one_to_each_worker(stack)
        served(connections, "at first")
        for name, one in kinds().items():
            figures[name] = asked(stack, connections, one)
            print(f"{name}: {figures[name]}", flush=True)
        before, delays, spent = stack.turns(), [], cpu_seconds(stack)
        for number in range(changes):
            delays.append(change_seconds(directory, connections, f"after {number}"))
            time.sleep(Random(number).random())
        figures["changing"] = stack.turns().since(before)
        figures["cpu_seconds_of_a_change"] = {
            name: round((seconds - spent[name]) / changes, 3) for name, seconds in cpu_seconds(stack).items()
        }
        for connection in connections:
            connection.close()
    told = {"p50": percentile(delays, 50), "p99": percentile(delays, 99), "changes": len(delays)}
    print(f"changing: {figures['changing']}, {figures['cpu_seconds_of_a_change']} CPU seconds each")
    print(f"a change is served by every worker after {told['p50']:.2f} s (p50), {told['p99']:.2f} s (p99)")
    results.write({"ofrep_definitions": figures, "ofrep_change_seconds": told}, proves=not options.quick)


def document(mark: str) -> str:
    """A document of 5 MB: names and descriptions differ, as in real life."""
    made = ofrep_subjects.document(FLAGS_OF_DOCUMENT)
    random = Random(1)
    for flag in made["flags"].values():
        flag["metadata"] = {"description": random.randbytes(140).hex()}
    made["flags"][MARK] = {"state": "ENABLED", "variants": {"on": mark}, "defaultVariant": "on"}
    return json.dumps(made)


@contextmanager
def stack_of(text: str, directory: Path) -> Iterator[TimedStack]:
    write(directory / "flags.json", text)
    settings = Settings.on_free_ports(
        concurrency=WORKERS, log_level="error", snapshot=None, flagd_uri=f"file:{directory / 'flags.json'}"
    )
    settings = replace(settings, config=configured(settings) | {"posthog": {"enabled": False}})
    with TimedStack(settings) as stack:
        stack.wait_until(lambda: any(stack.redis.scan_iter("flag_definitions:ofrep:*")), PUBLISHED)
        yield stack


def post(connection: Connection, key: str, body: str, **fields: str) -> tuple[int, bytes]:
    path = f"{FLAGS}/{key}" if key else FLAGS
    names = {name.replace("_", "-"): value for name, value in fields.items()}
    connection.request("POST", path, body, {"Accept-Encoding": "identity"} | names)
    answer = connection.getresponse()
    text = answer.read()
    is_gzip = answer.getheader("content-encoding") == "gzip"
    return answer.status, zlib.decompress(text, zlib.MAX_WBITS | 16) if is_gzip else text


# === Long turns ===


def kinds() -> dict[str, Callable[[Connection, int], None]]:
    """What each worker is asked for, by name. Each fails when the answer is another one."""

    def all_flags(**fields: str) -> Callable[[Connection, int], None]:
        def ask(connection: Connection, number: int) -> None:
            body = json.dumps({"context": ofrep_subjects.CONTEXT | {"targetingKey": f"user-{number}"}})
            status, text = post(connection, "", body, **fields)
            if status != 200 or len(json.loads(text)["flags"]) != FLAGS_OF_DOCUMENT + 1:
                raise StackError(f"all flags were answered with {status}, {len(text)} bytes")

        return ask

    def context(made: Callable[[int], Any]) -> Callable[[Connection, int], None]:
        bodies = [json.dumps({"context": made(number)}) for number in range(ASKED)]

        def ask(connection: Connection, number: int) -> None:
            status, text = post(connection, MARK, bodies[number % ASKED])
            if status != 200 or json.loads(text)["variant"] != "on":
                raise StackError(f"a long context was answered with {status} {text!r}")

        return ask

    return {
        "all_flags": all_flags(),
        "all_flags_gzip": all_flags(accept_encoding="gzip"),
        "context_of_one_text": context(lambda number: {"text": f"{number} " + "x" * LONG_BODY}),
        "context_of_members": context(
            # In no order.
            lambda number: {f"k{place * 7_919 % 999_983}": place + number for place in range(VALUES)}
        ),
        "context_of_numbers": context(
            lambda number: {"list": [place + number / 7 for place in range(VALUES)]}
        ),
    }


def asked(
    stack: TimedStack, connections: list[Connection], ask: Callable[[Connection, int], None]
) -> dict[str, float]:
    """Turns while each worker is asked, once to warm up and then again and again."""

    def ask_all(place: int) -> list[float]:
        took = []
        for number in range(ASKED):
            began = time.monotonic()
            ask(connections[place], place * ASKED + number)
            took.append((time.monotonic() - began) * 1_000)
            time.sleep(PAUSE)
        return took

    before = stack.turns()
    with ThreadPoolExecutor(len(connections)) as pool:
        took = [one for took in pool.map(ask_all, range(len(connections))) for one in took]
    told = {"p50_ms": percentile(took, 50), "longest_ms": max(took)}
    return {name: round(value, 1) for name, value in told.items()} | stack.turns().since(before)


# === Changes ===


def change_seconds(directory: Path, connections: list[Connection], mark: str) -> float:
    """From when the file is replaced to when the last worker answers with it."""
    text = document(mark)
    began = time.monotonic()
    write(directory / "flags.json", text)
    served(connections, mark)
    return time.monotonic() - began


def cpu_seconds(stack: TimedStack) -> dict[str, float]:
    return {name: cpu.seconds([stack.processes[name].pid]) for name in ("publisher", "envoy")}


def served(connections: list[Connection], mark: str) -> None:
    """Returns when every worker answers with this mark. Fails when one does not answer."""
    deadline = time.monotonic() + 30
    for connection in connections:
        while True:
            status, text = post(connection, MARK, "{}")
            if status != 200:
                raise StackError(f"the mark was answered with {status} {text!r}")
            if json.loads(text)["value"] == mark:
                break
            if time.monotonic() > deadline:
                raise StackError("a change was not served")
            time.sleep(0.005)


if __name__ == "__main__":
    main()
