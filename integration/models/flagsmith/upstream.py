"""A stand-in for Flagsmith, which cannot be had here: it has documents of environments and a proxy key's
list, and takes reports of usage."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROXY_KEY = "pk.3xWz"


@dataclass(frozen=True)
class Report:
    """A report of usage as it came, and what it was answered with."""

    proxy_key: str | None
    id: str | None
    body: bytes
    status: int

    @property
    def rows(self) -> Counter[tuple[str, str]]:
        """Requests by client-side key and resource."""
        rows: Counter[tuple[str, str]] = Counter()
        for row in json.loads(self.body):
            assert row.keys() == {"client_side_key", "resource", "count"}
            rows[row["client_side_key"], row["resource"]] += row["count"]
        return rows


class Trouble(Enum):
    """What becomes of an answer."""

    NONE = "none"
    FAILED = "failed"  # 500
    SLOW = "slow"  # it comes after less than a second
    HANGING = "hanging"  # it comes after the publisher has given up
    CUT = "cut"  # the connection ends within it
    NO_JSON = "no JSON"
    UNFIT = "unfit"  # a document that no engine takes


DELAYS = {Trouble.SLOW: 0.4, Trouble.HANGING: 2.5}


@dataclass
class Upstream:
    """What it answers, by server-side key. May be changed while it runs."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)  # answered 500
    slow: dict[str, float] = field(default_factory=dict)  # seconds before an answer
    page: int = 0  # identity overrides on a page; 0: all of them
    asked: list[str] = field(default_factory=list)  # keys, in the order of the requests
    listed: dict[str, str] = field(
        default_factory=dict
    )  # client-side key by server-side key, for the proxy key
    expiring: dict[str, str] = field(default_factory=dict)  # when keys of the list expire
    trouble: Callable[[str], Trouble] = lambda path: Trouble.NONE  # of each answer to a GET
    knows_dates: bool = False  # 304 to who holds a document as of its date
    answered: Counter[str] = field(default_factory=Counter)  # how requests for documents ended
    told: list[tuple[float, set[str]]] = field(default_factory=list)  # lists that were answered, and when
    report_status: int = 202  # of reports
    reports: list[Report] = field(default_factory=list)
    port: int = 0

    @property
    def taken(self) -> Counter[tuple[str, str]]:
        """What Flagsmith counts: each report that was taken, once by its id."""
        by_id = {report.id: report.rows for report in self.reports if report.status == 202}
        return sum(by_id.values(), Counter())

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def proxy_config(self) -> list[dict[str, Any]]:
        """What the proxy key is answered with."""
        keys: dict[str, list[dict[str, Any]]] = {}
        for server, client in self.listed.items():
            expires_at = self.expiring.get(server)
            key = {"key": server, "active": True, "expires_at": expires_at}
            keys.setdefault(client, []).append(key)
        return [{"client_side_key": client, "server_side_keys": keys[client]} for client in keys]

    def configuration(self, pairs: dict[str, str], **fields: Any) -> dict[str, Any]:
        """An Edge Proxy configuration file. `pairs`: client-side key by server-side key."""
        environments = [{"server_side_key": s, "client_side_key": c} for s, c in pairs.items()]
        return {
            "environment_key_pairs": environments,
            "api_url": self.api_url,
            "api_poll_frequency_seconds": 1,
            "api_poll_timeout_seconds": 2,
        } | fields


@contextmanager
def running(upstream: Upstream) -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key = self.headers.get("x-environment-key", "")
            upstream.asked.append(key)
            path, _, query = self.path.partition("?")
            trouble = upstream.trouble(self.path)
            time.sleep(upstream.slow.get(key, DELAYS.get(trouble, 0)))
            if path == "/api/v1/proxy/config/" and self.headers.get("x-proxy-key") == PROXY_KEY:
                self.tell_keys(trouble)
            elif path != "/api/v1/environment-document/":
                self.answer(404, b"")
            elif key in upstream.failing:
                self.answer(500, b"")
            elif (document := upstream.documents.get(key)) is None:
                self.answer(403, b"")
            else:
                self.hand_out(document, int(query.removeprefix("page_id=") or 0), trouble)

        def tell_keys(self, trouble: Trouble) -> None:
            listed = upstream.proxy_config
            if trouble is Trouble.FAILED:
                return self.answer(500, b"")
            self.answer(200, b"[" if trouble is Trouble.NO_JSON else json.dumps(listed).encode())
            keys = {key["key"] for environment in listed for key in environment["server_side_keys"]}
            if trouble in (Trouble.NONE, Trouble.SLOW):
                upstream.told.append((time.monotonic(), keys))

        def hand_out(self, document: dict[str, Any], begin: int, trouble: Trouble) -> None:
            upstream.answered[trouble.value] += 1
            since = self.headers.get("if-modified-since")
            updated_at = datetime.fromisoformat(document["updated_at"]).replace(microsecond=0)
            if trouble is Trouble.FAILED:
                return self.answer(500, b"")
            if upstream.knows_dates and since and updated_at <= parsedate_to_datetime(since):
                upstream.answered["not modified"] += 1
                return self.answer(304, b"")
            if trouble is Trouble.UNFIT:
                document = document | {"feature_states": "none"}
            body, following = page_of(document, begin, upstream.page)
            if trouble is Trouble.NO_JSON:
                body = body[: len(body) // 2]
            self.close_connection = trouble is Trouble.CUT
            self.answer(200, body, following, cut=trouble is Trouble.CUT)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/api/v1/proxy/usage/"
            names = ("x-proxy-key", "idempotency-key")
            proxy_key, report_id = (self.headers.get(name) for name in names)
            report = Report(proxy_key, report_id, body, upstream.report_status)
            upstream.reports.append(report)
            self.answer(report.status, b"")

        def answer(self, status: int, body: bytes, following: str = "", cut: bool = False) -> None:
            self.send_response(status)
            if following:
                self.send_header("link", f'<{self.path.partition("?")[0]}?{following}>; rel="next"')
            self.send_header("content-type", "application/json")
            self.send_header("date", formatdate(usegmt=True))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    upstream.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def page_of(document: dict[str, Any], begin: int, size: int) -> tuple[bytes, str]:
    """The page that begins with this identity override, and the query of the next one, or nothing."""
    if not size:
        return json.dumps(document).encode(), ""
    overrides, end = document["identity_overrides"], begin + size
    page = document | {"identity_overrides": overrides[begin:end]}
    return json.dumps(page).encode(), f"page_id={end}" if end < len(overrides) else ""


def write_configuration(path: Path, configuration: dict[str, Any]) -> Path:
    path.write_text(json.dumps(configuration))
    return path
