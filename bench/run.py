"""How close the filter comes to Envoy's own limit: one run, one machine, one Envoy worker.

Envoy has a core of its own. Subjects take turns for several rounds, so that a noisy machine disturbs all of
them alike; rounds begin while it is fast, and are done again when it did not stay so. Rates are medians; what
counts are ratios, each the median of what the rounds say. Writes into bench/results.json, and pictures into
docs/.

Parts beside the subjects, for --only: decode, flagsmith and ofrep (all subjects of each), latency, memory,
scale. The figures of --only flagsmith and --only ofrep go into bench/results.json as well.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import charts
import cpu
import decoding
import flagsmith_subjects
import latency
import memory
import ofrep_subjects
import results
import scale
from command import measuring, need, positive
from load import CONNECTIONS
from machine import Machine
from paths import PICTURES, SCRATCH
from ratios import ratios, ratios_of_best, table
from rounds import ROUNDS_OF_AN_ENVOY, Measured, throughput
from stack.processes import StackError
from subjects import callout_of_this_filter, stack_for, subjects
from surface_subjects import Surface

SURFACES: dict[str, Surface] = {"flagsmith": flagsmith_subjects, "ofrep": ofrep_subjects}
OF_SURFACES = frozenset[str]().union(*(surface.NAMES for surface in SURFACES.values()))
PARTS = {"decode", "latency", "memory", "scale", *SURFACES}
OURS = ("cached_", "callout_200_", "confirmed_", "flagsmith_", "ofrep_", "rejected_", "untouched_")
QUICK_CREDENTIALS = 20_000


def main() -> None:
    options = arguments()
    cpu.leave_a_core()
    began = time.monotonic()
    with measuring() as directory:
        figures = measure(options, directory)
    print(f"\n{table(figures['ratios'], figures['ratios_of_best_rounds'])}")
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    # A part that is whole counts, beside what a run of all of them found.
    part = next((name for name, of in SURFACES.items() if options.only == {name, *of.NAMES}), None)
    is_part = part is not None
    if is_part:
        figures["environment"] = {part: figures["environment"]}
    else:
        draw(figures, SCRATCH if options.quick or options.only else PICTURES)
    results.write(figures, not options.quick and (is_part or not options.only), adds=is_part)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=10, help="rounds of each subject (10)")
    parser.add_argument("--seconds", type=positive, default=1, help="seconds of each round (1)")
    patience = "seconds for waiting while the machine is slow, and for rounds done again (600)"
    parser.add_argument("--patience", type=float, default=600.0, help=patience)
    parser.add_argument("--credentials", type=positive, default=1_000_000, help="of a snapshot (1000000)")
    parser.add_argument("--only", metavar="NAME,...", help="these subjects and parts; written to .run/bench")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="whether everything works, in rounds of 1 s and with fewer credentials; written to .run/bench",
    )
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.patience = ROUNDS_OF_AN_ENVOY + 1, 1, 0.0
        options.credentials = QUICK_CREDENTIALS
    options.only = set(options.only.split(",")) if options.only else set()
    for part, surface in SURFACES.items():
        if part in options.only:
            options.only |= surface.NAMES
    need("bench", "wrk")
    return options


def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    def wanted(part: str) -> bool:
        return not options.only or part in options.only

    figures: dict[str, Any] = {
        "environment": {
            "command": "make bench",
            "connections": CONNECTIONS,
            "cores": os.cpu_count(),
            "envoy_workers": 1,
            "patience_seconds": options.patience,
            "machine": platform.machine(),
            "rounds": options.rounds,
            "seconds_per_round": options.seconds,
        },
        "rates": {},
        "cpu_seconds_per_million": {},
        "rounds": {},
        "callouts_per_request": {},
    }
    surfaces = [one for one in SURFACES.values() if not options.only or options.only & one.NAMES]
    subjects_wanted = not options.only or bool(options.only - (PARTS - {"latency"}) - OF_SURFACES)
    parts = subjects_wanted + len(surfaces) + wanted("latency") + wanted("scale")
    # Each has a share of its own, and what those before it left: else a slow start takes all from the last.
    share = options.patience / max(1, parts)
    machine = Machine(share=share)
    if wanted("decode"):
        figures["milliseconds"] = decoding.milliseconds(10 if options.quick else 40)
    if subjects_wanted:
        measure_subjects(figures, options, directory, machine)
    for surface in surfaces:
        measure_surface(figures, surface, options, directory, machine)
    if wanted("memory"):
        figures["memory_megabytes"] = memory.megabytes(directory)
    if wanted("scale"):
        machine.begin_part()
        figures["scale"] = scale.measure(
            options.credentials, options.rounds, options.seconds, directory, machine
        )
        figures["rates"] |= figures["scale"].pop("rates")
        figures["rounds"] |= figures["scale"].pop("rounds")
    figures["environment"]["machine_was_slow"] = machine.figures()
    figures["ratios"] = ratios(figures)
    figures["ratios_of_best_rounds"] = ratios_of_best(figures)
    return figures


def measure_subjects(
    figures: dict[str, Any], options: argparse.Namespace, directory: Path, machine: Machine
) -> None:
    callout = callout_of_this_filter()
    with stack_for(directory) as stack:
        everything = subjects(stack, callout)
        chosen = {subject.name for subject in everything}
        if options.only:
            others = PARTS | OF_SURFACES
            if unknown := options.only - chosen - others:
                raise StackError(
                    f"--only {','.join(unknown)}: there are {', '.join(sorted(chosen | others))}"
                )
            chosen &= options.only | (latency.NEEDED if "latency" in options.only else set())
        some = [subject for subject in everything if subject.name in chosen]
        machine.begin_part()
        measured = throughput(stack, some, options.rounds, options.seconds, directory, machine)
        note(figures, measured)
        if not options.only or "latency" in options.only:
            machine.begin_part()
            found = latency.latencies(stack, some, options.rounds, directory, machine)
            figures["latency_milliseconds"] = {
                name: latency.median(of).figures() for name, of in found.items()
            }
            for name, of in found.items():
                figures["rounds"].setdefault(name, {})["p99"] = [one.figures()["p99"] for one in of]


def measure_surface(
    figures: dict[str, Any],
    surface: Surface,
    options: argparse.Namespace,
    directory: Path,
    machine: Machine,
) -> None:
    with surface.stack_for(directory) as stack:
        everything = surface.subjects(stack)
        wanted = surface.NAMES & options.only if options.only else surface.NAMES
        if lacking := wanted - {subject.name for subject in everything}:
            print(f"left out, for what answers them is not built here: {', '.join(sorted(lacking))}")
        some = [subject for subject in everything if subject.name in wanted]
        machine.begin_part()
        note(figures, throughput(stack, some, options.rounds, options.seconds, directory, machine))
        figures.setdefault("evaluations_per_request", {}).update(surface.prove_evaluated(stack, directory))


def note(figures: dict[str, Any], measured: dict[str, Measured]) -> None:
    figures["rates"] |= {name: round(of.rate) for name, of in measured.items()}
    figures["rounds"] |= {name: of.figures() for name, of in measured.items()}
    figures["cpu_seconds_per_million"] |= {name: round(of.cpu, 1) for name, of in measured.items()}
    figures["callouts_per_request"] |= {
        name: round(of.callouts, 3) for name, of in measured.items() if name.startswith(OURS)
    }


def draw(figures: dict[str, Any], folder: Path) -> None:
    if rates := figures["rates"]:
        ours = [name for name in rates if name.startswith(OURS)]
        charts.rates(folder / "rates.svg", rates, ours)
    if found := figures.get("latency_milliseconds"):
        charts.latencies(folder / "latency.svg", found)


if __name__ == "__main__":
    main()
