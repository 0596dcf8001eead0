"""How close the filter comes to Envoy's own limit: one run, one machine, one Envoy worker.

Subjects take turns for several rounds, so that a noisy machine disturbs all of them alike; what counts are
ratios of medians. Writes into bench/results.json.
"""

from __future__ import annotations

import argparse
import copy
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
from random import Random
from typing import Any

import yaml
from results import write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "integration"))

from edge import get  # noqa: E402
from processes import StackError  # noqa: E402
from settings import Settings, free_port  # noqa: E402
from stack import Stack, definitions_key  # noqa: E402
from writers import put_definitions_django  # noqa: E402

# Above any load here, so that each request spends and none is refused.
ALL_ON = {"rate_limit": {"full": "1000000/second", "conditional": "60000/second"}}
ALL_OFF = {"rate_limit": {"enabled": False}, "quota": {"enabled": False}, "usage": {"enabled": False}}
LARGE = 1_500_000  # bytes of JSON text, the largest payload seen at PostHog
PATH = "/flags/definitions?token=phc_sample_team_one"
AUTHORIZATION = "Authorization: Bearer phs_sample_team_one_secret"
CONNECTIONS = 64


@dataclass(frozen=True)
class Subject:
    name: str
    path: str
    status: int
    headers: list[str] = field(default_factory=list)
    plain: bool = False  # asks the listener without limits


class BenchStack(Stack):
    """The local stack with Envoy's own answer beside the filter, on the same listener and worker, and a
    second listener whose filter has limits, quota and usage off."""

    plain_port = 0

    def write_listeners(self, config: Any) -> None:
        super().write_listeners(config)
        path = self.settings.run_dir / "listeners.yaml"
        document = yaml.safe_load(path.read_text())
        edge = next(listener for listener in document["resources"] if listener["name"] == "edge")
        routes = http(edge)["route_config"]["virtual_hosts"][0]["routes"]
        bare = {"match": {"path": "/bench/direct_response_304"}, "direct_response": {"status": 304}}
        routes.insert(len(routes) - 1, bare)
        plain = copy.deepcopy(edge) | {"name": "plain"}
        self.plain_port = free_port()
        plain["address"]["socket_address"]["port_value"] = self.plain_port
        http(plain)["stat_prefix"] = "plain"
        wasm = http(plain)["http_filters"][0]["typed_config"]["config"]
        wasm["configuration"]["value"] = json.dumps(ALL_OFF)
        document["resources"].append(plain)
        self._write("listeners.yaml", yaml.safe_dump(document))


def http(listener: dict[str, Any]) -> dict[str, Any]:
    """The connection manager of a listener."""
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def wrk(stack: BenchStack, subject: Subject, seconds: int) -> float:
    """Requests per second of one round. Fails when an answer has another status than it should."""
    before = stack.stats()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    for header in subject.headers:
        command += ["-H", header]
    base = f"http://127.0.0.1:{stack.plain_port}" if subject.plain else stack.edge_url
    output = subprocess.run(
        [*command, base + subject.path],
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=True,
    ).stdout
    done = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if not done or not rate:
        raise StackError(f"wrk said something else than usual:\n{output}")
    prefix = "plain" if subject.plain else "edge"
    counter = f"http.{prefix}.downstream_rq_{subject.status // 100}xx"
    after = stack.stats()
    if after[counter] - before[counter] < int(done[1]):
        raise StackError(f"{subject.name}: not every answer was a {subject.status}:\n{output}")
    return float(rate[1])


def decode_times(requests: int) -> list[int]:
    """Microseconds of one callback that reads, decodes and answers a payload of 1.5 MB, pickled and
    compressed with zstd by Django's own cache; the first one runs in a fresh VM."""
    flag = json.loads((ROOT / "envoy/samples/definitions/1.json").read_text())["flags"][0]
    random = Random(1)  # names and values that differ, as in real life: they compress about six times
    size = len(json.dumps(flag)) + 200
    flags = [
        flag | {"id": number, "key": f"flag-{random.randbytes(8).hex()}", "name": random.randbytes(80).hex()}
        for number in range(LARGE // size)
    ]
    text = json.dumps({"cohorts": {}, "flags": flags, "group_type_mapping": {}}, sort_keys=True)
    with Stack(Settings.on_free_ports(callout_timeout=None, concurrency=1, log_level="debug")) as stack:
        put_definitions_django(stack, 1, text)
        for _ in range(requests):
            answer = get(stack)
            if answer.status_code != 200 or answer.text != text:
                raise StackError(f"the large payload was answered with {answer.status_code}")
        stack.wait_until(lambda: len(answered(stack)) >= requests)
        return answered(stack)


def answered(stack: Stack) -> list[int]:
    times = re.findall(r"a reply of (\d+) bytes was read and answered in (\d+) us", stack.log("envoy"))
    return [int(micros) for _, micros in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each subject (5)")
    parser.add_argument("--seconds", type=int, default=4, help="seconds of each round (4)")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is not installed; run: make bench")

    decoded = decode_times(40)
    first, usual = decoded[0] / 1000, statistics.median(decoded[1:]) / 1000
    print(f"1.5 MB zstd+pickle, one callback: {usual:.1f} ms; the first of a VM: {first:.1f} ms", flush=True)

    settings = Settings.on_free_ports(callout_timeout=None, concurrency=1, log_level="error", config=ALL_ON)
    with BenchStack(settings) as stack:
        etag = stack.redis.get(definitions_key(1) + ":etag").decode()
        conditional = [AUTHORIZATION, f'If-None-Match: W/"{etag}"']
        subjects = [
            Subject("direct_response_304", "/bench/direct_response_304", 304),
            Subject("confirmed_304", PATH, 304, conditional),
            Subject("confirmed_304_no_limits", PATH, 304, conditional, plain=True),
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
        "ratios": {
            "304_of_bare": round(medians["confirmed_304"] / medians["direct_response_304"], 3),
            "304_of_no_limits": round(medians["confirmed_304"] / medians["confirmed_304_no_limits"], 3),
        },
        "milliseconds": {"decode_1500_kb": round(usual, 2), "decode_1500_kb_first_of_vm": round(first, 2)},
    }
    print(json.dumps(results["ratios"] | results["milliseconds"], indent=2))
    write(results)


if __name__ == "__main__":
    main()
