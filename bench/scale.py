"""The filter with very many credentials beside the filter with ten: throughput and memory."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cpu
from bench_stack import PlainStack
from documents import HOT_TEAMS, definitions_of_size, hot_team_of, personal_key, token, write_document
from load import Request
from machine import Machine
from models.posthog.endpoint import etag_of
from rounds import in_turn, measure_round
from stack.edge import health
from stack.launcher import kept_for_a_look
from stack.running import definitions_key
from stack.settings import Settings
from subjects import ALL_ON, USER_AGENT, definitions_request

TEAMS_SHARE = 10  # one credential in so many is the secret of a team, the others are personal keys
LOAD_TIMEOUT = 300.0  # seconds
PUBLISH_TIMEOUT = 120.0
ROUNDS_OF_AN_ENVOY = 4  # which loads for half a minute
# Times as many as of other subjects: a difference that is not there takes more to be seen than one that is.
MORE_ROUNDS = 3


@dataclass
class Case:
    """Requests to one of the two stacks, in turn with the same number of credentials."""

    name: str
    stack: PlainStack
    requests: list[Request]
    rates: list[float] = field(default_factory=list)


def measure(credentials: int, rounds: int, seconds: int, directory: Path, machine: Machine) -> dict[str, Any]:
    """Everybody asks for one of ten teams, whose ETags are confirmed all the time."""
    text = definitions_of_size(24_000)
    etag = etag_of(text)
    spread = credentials // TEAMS_SHARE
    large = directory / "many.json"
    began = time.monotonic()
    write_document(large, spread, credentials - spread, keys_of_hot_teams=spread)
    print(f"a document of {credentials} credentials: {time.monotonic() - began:.1f} s", flush=True)
    small = directory / "ten.json"
    write_document(small, HOT_TEAMS)

    with contextlib.ExitStack() as both:
        few = both.enter_context(_stack(small, text))
        many = both.enter_context(_stack(large, text))
        ten = [definitions_request(team, etag) for team in range(1, HOT_TEAMS + 1)]
        everybody = [_request_with_key(number, etag) for number in range(spread)]
        cases = [
            Case("10_credentials", few, ten),
            Case("many_credentials", many, ten),
            Case("many_credentials_spread", many, everybody),
        ]

        def rate(case: Case, seconds: int = seconds) -> float:
            url = case.stack.edge_url
            return measure_round(case.stack, "edge", url, 304, case.requests, seconds, directory).rate

        def warm() -> None:
            for case in cases:
                rate(case, 1)

        def renew() -> None:
            for stack in (few, many):
                stack.restart("envoy")
                _wait_until_loaded(stack)
            warm()

        warm()
        memory = [cpu.rss_bytes(stack.processes["envoy"].pid) for stack in (few, many)]
        slice_us = health(many)["loader"]["longest_slice_us"]
        turns = in_turn(cases, MORE_ROUNDS * rounds, rate, machine, renew, ROUNDS_OF_AN_ENVOY)
        for turn, case, one in turns:
            case.rates.append(one)
            print(f"{turn}  {case.name:26} {one:9.0f}/s", flush=True)
    return {
        "credentials": credentials,
        "spread_over": spread,
        "load_longest_slice_us": slice_us,
        "rates": {f"confirmed_304_{case.name}": round(statistics.median(case.rates)) for case in cases},
        "rounds": {
            f"confirmed_304_{case.name}": {"rate": [round(rate) for rate in case.rates]} for case in cases
        },
        "rss_bytes": memory,
        "bytes_per_credential": (memory[1] - memory[0]) / (credentials - HOT_TEAMS),
    }


def _request_with_key(number: int, etag: str) -> Request:
    headers = (f"Authorization: Bearer {personal_key(number)}", USER_AGENT, f'If-None-Match: W/"{etag}"')
    return Request(f"/flags/definitions?token={token(hot_team_of(number))}", headers)


@contextlib.contextmanager
def _stack(document: Path, text: str) -> Iterator[PlainStack]:
    """Returns when Envoy has all of the document."""
    settings = Settings.on_free_ports(
        callout_timeout=None, concurrency=1, log_level="error", config=ALL_ON, snapshot=None
    )
    with kept_for_a_look(PlainStack(settings)) as stack:
        stack.start_redis()
        stack.start_gateway()
        began = time.monotonic()
        stack.publish(document, timeout=PUBLISH_TIMEOUT)
        print(f"publishing {document.name}: {time.monotonic() - began:.1f} s", flush=True)
        for team in range(1, HOT_TEAMS + 1):
            key = definitions_key(team)
            stack.redis.mset({key: text, f"{key}:etag": etag_of(text)})
        stack.start_envoy(wait_ready=False)
        began = time.monotonic()
        _wait_until_loaded(stack)
        print(f"loading {document.name}: {time.monotonic() - began:.1f} s", flush=True)
        yield stack


def _wait_until_loaded(stack: PlainStack) -> None:
    generation = json.loads(stack.redis.get("flag_definitions:snapshot"))["generation"]
    stack.wait_until(lambda: _generation(stack) == generation, timeout=LOAD_TIMEOUT)


def _generation(stack: PlainStack) -> str | None:
    """Of what Envoy has loaded, once its listener is there."""
    status, body = stack.http(f"{stack.health_url}/health")
    return json.loads(body)["generation"] if status == 200 else None
