"""Teams whose bodies workers keep, and a connection to one worker that asks for them."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import time
from collections.abc import Iterator
from typing import Any

from models.posthog import writers
from models.posthog.endpoint import State, Team, stored_text
from stack.edge import PATH
from stack.launcher import Stack

ETAG_MAX_AGE = 2.0  # the filter's default, in seconds
FLUSH = {"usage": {"flush_interval": "300ms"}}


def flags(version: int, count: int = 40) -> str:
    flags = [{"key": f"flag-{n}", "id": n * 7919 % 10_007, "active": True} for n in range(count)]
    return stored_text({"flags": flags, "cohorts": {}, "group_type_mapping": {}, "version": version})


def team(number: int) -> Team:
    return Team(number, f"phc_bodies_{number}", None, f"phs_bodies_{number}")


TEAMS = [team(n) for n in range(11_001, 11_021)]
STATE = State(teams=TEAMS, texts={team.id: flags(0) for team in TEAMS})


class Connection:
    """Sends requests of one team over one connection, so to one worker."""

    def __init__(self, stack: Stack, team: Team) -> None:
        self.team = team
        self.connection = http.client.HTTPConnection("127.0.0.1", stack.settings.edge_port, timeout=20)

    def get(
        self, etag: str | None = None, *accepted: str, method: str = "GET", agent: str = "posthog-python/7"
    ) -> http.client.HTTPResponse:
        """The answer; its body as it came is `answer.sent`."""
        target = f"{PATH}?token={self.team.token}"
        self.connection.putrequest(method, target, skip_accept_encoding=True)
        self.connection.putheader("Authorization", f"Bearer {self.team.secret}")
        self.connection.putheader("User-Agent", agent)
        for field in accepted:
            self.connection.putheader("Accept-Encoding", field)
        if etag is not None:
            self.connection.putheader("If-None-Match", f'W/"{etag}"')
        self.connection.endheaders()
        answer = self.connection.getresponse()
        answer.sent = answer.read()  # type: ignore[attr-defined]
        return answer

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def connected(stack: Stack, team: Team) -> Iterator[Connection]:
    connection = Connection(stack, team)
    try:
        yield connection
    finally:
        connection.close()


def text_of(answer: Any) -> str:
    packed = answer.headers.get("content-encoding") == "gzip"
    return (gzip.decompress(answer.sent) if packed else answer.sent).decode()


def put(stack: Stack, team: Team, text: str) -> str:
    return writers.put_definitions_django(stack, team.id, text)


def compressed(connection: Connection, timeout: float = 10.0) -> Any:
    """The first answer in gzip form; until it is made the text comes as it is."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        answer = connection.get(None, "gzip")
        assert answer.status == 200
        if answer.headers.get("content-encoding"):
            return answer
        time.sleep(0.01)
    raise AssertionError("never in gzip form")
