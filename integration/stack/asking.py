"""Requests that are sent as they are."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
    """The answer to a request that is sent as it is: no path is put in order, nothing is added but Host."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value.encode())
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        # Who is refused before all of a body was sent gets the answer all the same.
        with contextlib.suppress(ConnectionError):
            connection.endheaders(body)
        reply = connection.getresponse()
        content = reply.read()
    finally:
        connection.close()
    fields = {name.lower(): value for name, value in reply.getheaders()}
    if fields.get("content-encoding") == "gzip" and content:
        content = gzip.decompress(content)
    return Answer(reply.status, fields, content)
