"""What is measured: the ways to answer, and the requests that they are sent."""

from __future__ import annotations

import http.client
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import bench_stack
from bench_stack import BenchStack
from documents import definitions_of_size, secret, token, write_document
from load import UNIQUE, Request
from models.posthog.endpoint import Team, etag_of
from models.posthog.writers import put_credential, put_definitions_django, put_team, team_secret_entry
from stack.edge import get, upstream
from stack.launcher import Stack
from stack.processes import StackError
from stack.running import definitions_key
from stack.settings import Settings

# Above any load here, so that each request spends and none is refused.
ALL_ON = {"rate_limit": {"full": "1000000/second", "conditional": "60000/second"}}
ALL_OFF = {"rate_limit": {"enabled": False}, "quota": {"enabled": False}, "usage": {"enabled": False}}
# A machine that stalls for longer than the default must not end the run.
NO_BODY_CACHE = ALL_ON | {"definitions": {"body_cache_bytes": 0}, "redis": {"default": {"timeout": "2s"}}}

TEAM, LARGE_TEAM = 1, 2  # of 24 KB and 200 KB
SMALL, LARGE = 24_000, 200_000  # bytes of JSON text
# Requests of a worker that need the same share one callout. So many teams in turn share none.
CALLOUT_TEAMS = range(3, 515)
USER_AGENT = "User-Agent: posthog-python/7.91.1"
ACCEPT_GZIP = "Accept-Encoding: gzip"

WARM = 10.0  # seconds until a subject must answer as it should

Benched = TypeVar("Benched", bound=BenchStack)


@dataclass(frozen=True)
class Answer:
    """What was answered, without what Envoy adds."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def gzipped(self) -> bool:
        return ("content-encoding", "gzip") in self.headers


@dataclass(frozen=True)
class Subject:
    """A way to answer, by the name that it has in bench/results.json."""

    name: str
    listener: str
    status: int
    requests: tuple[Request, ...]
    body: bytes = b""  # is in the answer, without its content encoding
    gzipped: bool = False

    def answers(self, stack: BenchStack) -> bool:
        answer = ask(stack, self.listener, self.requests[0])
        body = zlib.decompress(answer.body, zlib.MAX_WBITS | 16) if answer.gzipped else answer.body
        return answer.status == self.status and answer.gzipped == self.gzipped and self.body in body


def send(connection: http.client.HTTPConnection, request: Request) -> http.client.HTTPResponse:
    connection.putrequest(request.method, request.path, skip_accept_encoding=True)
    for header in request.headers:
        connection.putheader(*header.split(": ", 1))
    body = request.body.replace(UNIQUE, f"{time.time_ns() // 1000:016}").encode()
    if body:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    return connection.getresponse()


def ask(stack: BenchStack, listener: str, request: Request) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", stack.ports[listener], timeout=10)
    try:
        response = send(connection, request)
        added = {"content-length", "date", "server", "x-envoy-upstream-service-time"}
        headers = tuple((name, value) for name, value in response.getheaders() if name not in added)
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()


def wait_until_it_answers(stack: BenchStack, subject: Subject) -> None:
    """Bodies are cached, and compressed, after the first request for them."""
    deadline = time.monotonic() + WARM
    while not subject.answers(stack):
        if time.monotonic() > deadline:
            answer = ask(stack, subject.listener, subject.requests[0])
            raise StackError(
                f"{subject.name} is answered with {answer.status}, {len(answer.body)} bytes, {answer.headers}"
            )
        time.sleep(0.05)


def definitions_request(team: int, etag: str | None = None, *headers: str) -> Request:
    headers = (f"Authorization: Bearer {secret(team)}", USER_AGENT, *headers)
    if etag is not None:
        headers += (f'If-None-Match: W/"{etag}"',)
    return Request(f"/flags/definitions?token={token(team)}", headers)


def stack_for(directory: Path, kind: type[Benched] = BenchStack) -> Benched:
    """Its files are put into `directory`."""
    document = directory / "snapshot.json"
    write_document(document, teams=CALLOUT_TEAMS[-1])
    small, large = directory / "24k.json", directory / "200k.json"
    small.write_text(definitions_of_size(SMALL))
    large.write_text(definitions_of_size(LARGE))
    settings = Settings.on_free_ports(
        callout_timeout=None, concurrency=1, log_level="error", config=ALL_ON, snapshot=document
    )
    listeners: dict[str, Callable[[bench_stack.Document], None]] = {
        "no_limits": bench_stack.this_filter(ALL_OFF),
        "callout": bench_stack.this_filter(NO_BODY_CACHE),
        "untouched_path": bench_stack.untouched_path,
        "direct_response_304": bench_stack.direct_response(304),
        "direct_response_200_24k": bench_stack.direct_response(200, small),
        "direct_response_200_200k": bench_stack.direct_response(200, large),
        "no_op_304": bench_stack.no_op(304),
        "no_op_200_24k": bench_stack.no_op(200, small),
        "webdis_route": bench_stack.cluster(bench_stack.PLAIN_WEBDIS),
        **{name: bench_stack.cluster(name) for name in bench_stack.SERVICES},
    }
    return kind(settings, listeners=listeners)


def fill(stack: BenchStack) -> str:
    """Puts the definitions of all teams into Redis; returns the ETag of `TEAM`."""
    small = definitions_of_size(SMALL)
    etag = put_definitions_django(stack, TEAM, small)
    put_definitions_django(stack, LARGE_TEAM, definitions_of_size(LARGE))
    reader = Team(TEAM, token(TEAM), secret=secret(TEAM))
    put_team(stack, reader)
    put_credential(stack, secret(TEAM), team_secret_entry(reader))
    for team in CALLOUT_TEAMS:
        # As it is answered, so that callout and route move the same bytes.
        stack.redis.mset({definitions_key(team): small, definitions_key(team) + ":etag": etag_of(small)})
    return etag


def of_a_module(listener: str, etag: str) -> list[Subject]:
    """What a module answers on this listener, whose `TEAM` has this ETag."""
    conditional = definitions_request(TEAM, etag)
    full, gzip = definitions_request(TEAM), definitions_request(TEAM, None, ACCEPT_GZIP)
    wrong = Request(conditional.path, ("Authorization: Bearer phs_wrong", *conditional.headers[1:]))
    text = definitions_of_size(SMALL).encode()
    return [
        Subject("confirmed_304", listener, 304, (conditional,)),
        Subject("cached_200_24k", listener, 200, (full,), text),
        Subject("cached_200_24k_gzip", listener, 200, (gzip,), text, gzipped=True),
        Subject("rejected_401", listener, 401, (wrong,)),
    ]


def callout_of_a_module(listener: str) -> Subject:
    """What a module without a body cache answers on this listener."""
    text = definitions_of_size(SMALL).encode()
    return Subject(
        "callout_200_24k", listener, 200, tuple(definitions_request(team) for team in CALLOUT_TEAMS), text
    )


def subjects(stack: BenchStack, callout: str) -> list[Subject]:
    """Fills Redis, and has the filters that only reply say what this filter says. `callout` is what
    `callout_of_this_filter` returned."""
    confirmed, cached, cached_gzip, rejected = of_a_module("edge", fill(stack))
    conditional, full, gzip = confirmed.requests, cached.requests, cached_gzip.requests
    text, large_text = cached.body, definitions_of_size(LARGE).encode()

    reply_only = [
        Subject("reply_only_304", "reply_only_304", 304, conditional),
        Subject("reply_only_200_24k", "reply_only_200_24k", 200, full, text),
        Subject("reply_only_200_24k_gzip", "reply_only_200_24k_gzip", 200, gzip, text, gzipped=True),
    ]
    # What those answers cannot be given without, and nothing else.
    host_calls = [
        Subject("host_calls_304", "host_calls_304", 304, conditional),
        Subject("host_calls_200_24k", "host_calls_200_24k", 200, full, text),
        Subject("host_calls_200_24k_gzip", "host_calls_200_24k_gzip", 200, gzip, text, gzipped=True),
    ]
    models = (confirmed, cached, cached_gzip)
    for model in models:
        wait_until_it_answers(stack, model)
    said = [ask(stack, model.listener, model.requests[0]) for model in models]
    needed = ("request", "request_and_count", "request_and_count")
    stand_ins = [
        *zip(reply_only, said, ("none", "none", "none"), strict=True),
        *zip(host_calls, said, needed, strict=True),
    ]
    stack.add_listeners(
        {
            subject.listener: bench_stack.reply_only(answer.status, list(answer.headers), answer.body, needs)
            for subject, answer, needs in stand_ins
        }
    )
    # Team and webdis' reply are all that differs from the filter's own callout and answer.
    by_callout = callout_of_a_module("callout")
    callout_only = replace(by_callout, name="callout_only_200_24k", listener="callout_only")
    template = _of_team(callout, "{team}")
    headers = list(said[1].headers)
    stack.add_listeners({callout_only.listener: bench_stack.reply_only(200, headers, callout=template)})
    for subject, answer, _ in stand_ins:
        if ask(stack, subject.listener, subject.requests[0]) != answer:
            raise StackError(f"{subject.name} does not answer as this filter does")

    return [
        Subject("direct_response_304", "direct_response_304", 304, conditional),
        Subject("no_op_304", "no_op_304", 304, conditional),
        reply_only[0],
        host_calls[0],
        confirmed,
        Subject("confirmed_304_no_limits", "no_limits", 304, conditional),
        Subject("untouched_path", "untouched_path", 304, (Request("/other", conditional[0].headers),)),
        rejected,
        Subject("service_304", "service", 304, conditional),
        Subject("service_in_memory_304", "service_in_memory", 304, conditional),
        Subject("direct_response_200_24k", "direct_response_200_24k", 200, full, text),
        Subject("no_op_200_24k", "no_op_200_24k", 200, full, text),
        reply_only[1],
        host_calls[1],
        cached,
        reply_only[2],
        host_calls[2],
        cached_gzip,
        Subject(
            "webdis_route_24k", "webdis_route", 200, tuple(_webdis(callout, t) for t in CALLOUT_TEAMS), text
        ),
        callout_only,
        by_callout,
        Subject("service_200_24k", "service", 200, full, text),
        Subject("service_in_memory_200_24k", "service_in_memory", 200, full, text),
        Subject("direct_response_200_200k", "direct_response_200_200k", 200, full, large_text),
        Subject("cached_200_200k", "edge", 200, (definitions_request(LARGE_TEAM),), large_text),
    ]


# === The callout ===


def callout_of_this_filter() -> str:
    """The body with which this filter asks webdis for the definitions of team 1 of the samples."""
    config = {"redis": {"definitions": {"cluster": "flag_definitions_upstream"}}}
    with upstream() as recorder:
        settings = Settings.on_free_ports(
            concurrency=1, log_level="error", config=config, upstream=recorder.address
        )
        with Stack(settings) as stack:
            get(stack)
    body = recorder.requests[0]["body"].decode()
    if quote(definitions_key(1), safe="-._~") not in body:
        raise StackError(f"the filter asked webdis for something else: {body}")
    return body


def _webdis(callout: str, team: int) -> Request:
    """The same for another team."""
    return Request("/", ("content-type: text/plain",), "POST", _of_team(callout, str(team)))


def _of_team(callout: str, team: str) -> str:
    body = callout.replace("%2Fteams%2F1%2F", f"%2Fteams%2F{team}%2F")
    return body.replace("quota_end%3A1/", f"quota_end%3A{team}/")
