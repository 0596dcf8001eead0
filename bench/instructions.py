"""How many instructions Envoy takes for a request, counted by valgrind.

All outside the kernel, with the VMs' code as V8 compiled it, while one client asks again and again. How fast
the machine is does not show in them, and neither do caches. Of a large body each byte that is copied counts,
so only answers without one are here. Adds to bench/results.json.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import bench_stack
import results
from bench_stack import BenchStack
from command import measuring, need, positive
from stack.processes import StackError
from subjects import Subject, callout_of_this_filter, fill, of_a_module, send, stack_for, subjects

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
class CountedStack(BenchStack):
    """With an Envoy whose instructions are counted on demand."""

    def _start(self, name: str, command: list[object], *more: object, **others: object) -> None:
        if name == "envoy":
            # Envoy's package has a launcher, hence the children; V8 writes code, which is to be read again.
            counter = ["valgrind", "--tool=callgrind", "--trace-children=yes", "--smc-check=all-non-file"]
            where = self.settings.run_dir / "callgrind.%p"
            command = [*counter, "--instr-atstart=no", f"--callgrind-out-file={where}", *command]
        super()._start(name, command, *more, **others)

    def control(self, *options: str) -> None:
        pid = str(self.processes["envoy"].pid)
        done = subprocess.run(["callgrind_control", *options, pid], capture_output=True, text=True)
        if done.returncode or "Error" in done.stdout:
            raise StackError(f"callgrind_control: {done.stdout}{done.stderr}")

    def counted(self) -> int:
        """Instructions since the last call, or since counting began."""
        self.control("--dump")
        pid = self.processes["envoy"].pid
        last = max(self.settings.run_dir.glob(f"callgrind.{pid}.*"), key=lambda dump: int(dump.suffix[1:]))
        summary = next(line for line in last.read_text().splitlines() if line.startswith("summary:"))
        last.unlink()
        return int(summary.split()[1])


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
            for name, ours, other in compared(directory, options.against, options.requests):
                print(
                    f"{name:26} {ours:8} of {other:8} instructions per request: {ours / other:.4f}",
                    flush=True,
                )
            return
        for name, counts[name] in counted(directory, options.requests):
            print(f"{name:26} {counts[name]:8} instructions per request", flush=True)
    results.write({"instructions_per_request": counts}, proves=not options.quick)


def module(text: str) -> Path:
    """A file that is a WebAssembly module."""
    path = Path(text).resolve()
    if not path.is_file() or not path.read_bytes().startswith(b"\0asm"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a file with a WebAssembly module")
    return path


def counted(directory: Path, requests: int) -> Iterator[tuple[str, int]]:
    """By the name of the subject."""
    callout = callout_of_this_filter()
    stack = stack_for(directory, CountedStack)
    stack.listeners = {name: change for name, change in stack.listeners.items() if name in NEEDED}
    with stack:
        every = {subject.name: subject for subject in subjects(stack, callout)}
        for name in SUBJECTS:
            (counted,) = count(stack, [every[name]], requests)
            yield name, counted


def compared(directory: Path, wasm: Path, requests: int) -> Iterator[tuple[str, int, int]]:
    """Of each kind of answer: what this build takes, and what the other one takes."""
    stack = stack_for(directory, CountedStack)
    stack.listeners = {"other": bench_stack.other_module(wasm)}
    with stack:
        etag = fill(stack)
        pairs = zip(of_a_module("edge", etag), of_a_module("other", etag), strict=True)
        for ours, other in pairs:
            yield ours.name, *count(stack, (ours, other), requests)


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
