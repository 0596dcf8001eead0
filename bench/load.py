"""Load: wrk as fast as it goes, oha at a fixed rate."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paths import OHA, ROOT
from stack.processes import StackError
from stack.programs import require, tool

CONNECTIONS = 64
# In a request: digits that no other request has.
UNIQUE = "{sixteen_digits}"


@dataclass(frozen=True)
class Request:
    path: str
    headers: tuple[str, ...] = ()
    method: str = "GET"
    body: str = ""


@dataclass(frozen=True)
class Latency:
    """Milliseconds, from the moment at which the request was due."""

    rate: float  # requests per second that were answered
    p50: float
    p99: float
    p999: float

    def figures(self) -> dict[str, float]:
        """As in bench/results.json."""
        shown = {"rate": self.rate, "p50": self.p50, "p99": self.p99, "p99.9": self.p999}
        return {name: round(value, 3) for name, value in shown.items()}


def wrk_command(
    url: str, requests: Sequence[Request], seconds: int, directory: Path, connections: int = CONNECTIONS
) -> list[str]:
    """A single GET is sent without a script, which costs wrk less. `directory` takes what several need."""
    command = [tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s"]
    first = requests[0]
    if len(requests) == 1 and first.method == "GET":
        return [*command, *_headers(first), url + first.path]
    path = directory / "requests.txt"
    lines = ("\t".join((one.method, one.path, one.body, *one.headers)) for one in requests)
    path.write_text("\n".join(lines) + "\n")
    return [*command, "-s", str(ROOT / "bench/requests.lua"), url, "--", str(path)]


def wrk(
    url: str, requests: Sequence[Request], seconds: int, directory: Path, **more: int
) -> tuple[int, float]:
    """How many requests were answered, whatever the answer, and how many per second."""
    command = wrk_command(url, requests, seconds, directory, **more)
    output = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True).stdout
    done = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if not done or not rate:
        raise StackError(f"wrk said something else than usual:\n{output}")
    # A timeout is an answer that took more than two seconds; on a busy machine that may be nobody's fault.
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout", output)
    if errors and any(map(int, errors.groups())):
        raise StackError(f"connections failed:\n{output}")
    return int(done[1]), float(rate[1])


def oha(url: str, request: Request, rate: float, seconds: int, status: int) -> Latency:
    """Latency at this rate. Requests are due at their times, however long those before them take; what waits
    for a connection meanwhile counts. oha's clock ticks once a millisecond, so they come in small bursts."""
    command = [
        str(require(OHA, "make bench")),
        "--no-tui",
        "--output-format",
        "json",
        "--worker-threads",
        "1",
    ]
    command += ["--latency-correction", "-q", f"{rate:.0f}", "-c", str(CONNECTIONS), "-z", f"{seconds}s"]
    # Else it asks for compressed answers.
    command += ["--disable-compression", *_headers(request), url + request.path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True)
    report = json.loads(result.stdout)
    statuses = report["statusCodeDistribution"]
    if set(statuses) != {str(status)}:
        raise StackError(f"not every answer was a {status}: {statuses}")
    percentiles = [report["latencyPercentiles"][name] * 1000 for name in ("p50", "p99", "p99.9")]
    return Latency(statuses[str(status)] / seconds, *percentiles)


def _headers(request: Request) -> list[str]:
    return [word for header in request.headers for word in ("-H", header)]
