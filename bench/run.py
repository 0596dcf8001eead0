"""How close the filter comes to Envoy's own limit: one run, one machine, one Envoy worker.

Subjects take turns for several rounds, so that a noisy machine disturbs all of them alike; what counts are
ratios of medians. Writes bench/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "integration"))

from processes import StackError  # noqa: E402
from settings import Settings  # noqa: E402
from stack import Stack, definitions_key  # noqa: E402

RESULTS = ROOT / "bench/results.json"
PATH = "/flags/definitions?token=phc_sample_team_one"
AUTHORIZATION = "Authorization: Bearer phs_sample_team_one_secret"
CONNECTIONS = 64


@dataclass(frozen=True)
class Subject:
    name: str
    path: str
    status: int
    headers: list[str] = field(default_factory=list)


class BenchStack(Stack):
    """The local stack with Envoy's own answer beside the filter, on the same listener and worker."""

    def write_listeners(self, config: Any) -> None:
        super().write_listeners(config)
        path = self.settings.run_dir / "listeners.yaml"
        anchor = "            # Everything else"
        routes = (
            "            - match: { path: /bench/direct_response_304 }\n"
            "              direct_response: { status: 304 }\n"
        )
        text = path.read_text()
        if anchor not in text:
            raise StackError(f"envoy/listeners.yaml has no line {anchor.strip()!r} to put the routes before")
        self._write("listeners.yaml", text.replace(anchor, routes + anchor))


def wrk(stack: Stack, subject: Subject, seconds: int) -> float:
    """Requests per second of one round. Fails when an answer has another status than it should."""
    before = stack.stats()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    for header in subject.headers:
        command += ["-H", header]
    output = subprocess.run(
        [*command, stack.edge_url + subject.path],
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=True,
    ).stdout
    done = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if not done or not rate:
        raise StackError(f"wrk said something else than usual:\n{output}")
    counter = f"http.edge.downstream_rq_{subject.status // 100}xx"
    after = stack.stats()
    if after[counter] - before[counter] < int(done[1]):
        raise StackError(f"{subject.name}: not every answer was a {subject.status}:\n{output}")
    return float(rate[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each subject (5)")
    parser.add_argument("--seconds", type=int, default=4, help="seconds of each round (4)")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is not installed; run: make bench")

    with BenchStack(Settings.on_free_ports(concurrency=1, log_level="error")) as stack:
        etag = stack.redis.get(definitions_key(1) + ":etag").decode()
        subjects = [
            Subject("direct_response_304", "/bench/direct_response_304", 304),
            Subject("confirmed_304", PATH, 304, [AUTHORIZATION, f'If-None-Match: W/"{etag}"']),
        ]
        rates: dict[str, list[float]] = {subject.name: [] for subject in subjects}
        for subject in subjects:
            wrk(stack, subject, 1)  # warm-up
        for round_number in range(options.rounds):
            # Every other round the other way round: whoever comes second is not always the same.
            for subject in subjects[:: -1 if round_number % 2 else 1]:
                rate = wrk(stack, subject, options.seconds)
                rates[subject.name].append(rate)
                print(
                    f"round {round_number + 1}/{options.rounds}  {subject.name:22} {rate:9.0f}/s", flush=True
                )

    medians = {name: statistics.median(values) for name, values in rates.items()}
    results = {
        "environment": {
            "command": "make bench",
            "connections": CONNECTIONS,
            "cores": os.cpu_count(),
            "envoy_workers": 1,
            "machine": platform.machine(),
            "rounds": options.rounds,
            "seconds_per_round": options.seconds,
        },
        "rates": {name: round(rate) for name, rate in medians.items()},
        "ratios": {"304_of_bare": round(medians["confirmed_304"] / medians["direct_response_304"], 3)},
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results["ratios"], indent=2))
    print(f"written to {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
