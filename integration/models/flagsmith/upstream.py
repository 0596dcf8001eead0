"""A stand-in for Flagsmith, which cannot be had here: it has documents of environments and a proxy key's
list, and takes reports of usage."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
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
        keys = [{"key": server, "active": True, "expires_at": None} for server in self.listed]
        clients = self.listed.values()
        return [
            {"client_side_key": client, "server_side_keys": [key]}
            for client, key in zip(clients, keys, strict=True)
        ]

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
            time.sleep(upstream.slow.get(key, 0))
            path, _, query = self.path.partition("?")
            if path == "/api/v1/proxy/config/" and self.headers.get("x-proxy-key") == PROXY_KEY:
                self.answer(200, json.dumps(upstream.proxy_config).encode())
            elif path != "/api/v1/environment-document/":
                self.answer(404, b"")
            elif key in upstream.failing:
                self.answer(500, b"")
            elif (document := upstream.documents.get(key)) is None:
                self.answer(403, b"")
            else:
                begin = int(query.removeprefix("page_id=") or 0)
                self.answer(200, *page_of(document, begin, upstream.page))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/api/v1/proxy/usage/"
            names = ("x-proxy-key", "idempotency-key")
            proxy_key, report_id = (self.headers.get(name) for name in names)
            report = Report(proxy_key, report_id, body, upstream.report_status)
            upstream.reports.append(report)
            self.answer(report.status, b"")

        def answer(self, status: int, body: bytes, following: str = "") -> None:
            self.send_response(status)
            if following:
                self.send_header("link", f'<{self.path.partition("?")[0]}?{following}>; rel="next"')
            self.send_header("content-type", "application/json")
            self.send_header("date", formatdate(usegmt=True))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

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
