"""What the tests send to Envoy, and what comes back."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import selectors
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

from stack.launcher import Stack
from stack.processes import StackError

PATH = "/flags/definitions"
PATHS = [PATH, PATH + "/", "/api/feature_flag/local_evaluation", "/api/feature_flag/local_evaluation/"]
TOKEN = "phc_sample_team_one"
SECRET = "phs_sample_team_one_secret"
# For tests that ask more often than a team may.
UNLIMITED = {"rate_limit": {"enabled": False}}
NEGATIVE_TTL = 1.1  # seconds: the default, and a little more
TRAP = {"x-flag-definitions-trap": "1"}  # works in the faults build alone

MISS = (
    "A service dependency is temporarily unavailable. This is likely a temporary issue. "
    "Please try again later."
)
TIMEOUT = "The request timed out. This could be due to high load or network issues. Please try again later."


def get(
    stack: Stack,
    token: str | None = TOKEN,
    secret: str | None = SECRET,
    etag: str | None = None,
    *,
    method: str = "GET",
    path: str = PATH,
    headers: dict[str, str] | None = None,
    data: bytes | None = None,
    timeout: float = 30.0,
) -> requests.Response:
    """One request the way an SDK sends it. `etag` is the whole If-None-Match field."""
    sent = {"Accept-Encoding": "identity", "User-Agent": "posthog-python/7.91.1"} | (headers or {})
    if secret is not None:
        sent["Authorization"] = f"Bearer {secret}"
    if etag is not None:
        sent["If-None-Match"] = etag
    params = {} if token is None else {"token": token}
    url = stack.edge_url + path
    return requests.request(method, url, params=params, headers=sent, data=data, timeout=timeout)


def in_background(*calls: Any) -> list[Future]:
    """Starts all calls at once, a thread each."""
    pool = ThreadPoolExecutor(len(calls))
    futures = [pool.submit(call) for call in calls]
    pool.shutdown(wait=False)
    return futures


class Crowd:
    """Many connections that send the same request at once, without a thread each."""

    def __init__(self, stack: Stack, size: int, request: bytes) -> None:
        address = ("127.0.0.1", stack.settings.edge_port)
        self.connections = [socket.create_connection(address, timeout=60) for _ in range(size)]
        for connection in self.connections:
            connection.sendall(request)

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def statuses(self) -> Counter[int | None]:
        """The status that each one got; `None` for a connection that ended without one."""
        seen: Counter[int | None] = Counter()
        for connection in self.connections:
            answer = b""
            with connection, contextlib.suppress(ConnectionError, TimeoutError):
                while b"\r\n" not in answer and (chunk := connection.recv(4096)):
                    answer += chunk
            match = re.match(rb"HTTP/1\.1 (\d{3})", answer)
            seen[int(match[1]) if match else None] += 1
        return seen

    def answers(self, timeout: float = 60.0) -> Counter[tuple[int | None, int]]:
        """Reads all answers to their end, side by side: status, and CRC-32 of what came of the body."""
        seen: Counter[tuple[int | None, int]] = Counter()
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for connection in self.connections:
                selector.register(connection, selectors.EVENT_READ, Answer())
            while selector.get_map() and time.monotonic() < deadline:
                for key, _ in selector.select(timeout=1):
                    if key.data.read(key.fileobj):
                        selector.unregister(key.fileobj)
                        seen[key.data.status, key.data.checksum] += 1
            for key in selector.get_map().values():
                seen[None, key.data.checksum] += 1
        self.close()
        return seen


class Answer:
    """An answer on its way: the status, and the CRC-32 of what came of the body."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.checksum = 0
        self.head = b""
        self.left = 0  # bytes of the body

    def read(self, connection: socket.socket, most: int = 1 << 18) -> bool:
        """Takes what is there; `True` at the end, or when the connection ended before."""
        try:
            chunk = connection.recv(most)
        except ConnectionError:
            chunk = b""
        if not chunk:
            self.status = None
            return True
        if self.status is None:
            self.head += chunk
            head, end, chunk = self.head.partition(b"\r\n\r\n")
            if not end:
                return False
            self.status = int(head[9:12])
            length = re.search(rb"\r\ncontent-length: (\d+)", head)
            self.left = int(length[1]) if length else 0
        self.checksum = zlib.crc32(chunk, self.checksum)
        self.left -= len(chunk)
        return self.left <= 0


def raw(stack: Stack, data: bytes, timeout: float = 20.0) -> int | None:
    """Sends bytes as they are. The status of the first answer; None when the connection ends without
    one, or nothing comes within `timeout`."""
    with socket.create_connection(("127.0.0.1", stack.settings.edge_port), timeout=timeout) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.sendall(data)
            # Not until the end: Envoy keeps a connection that it closes for another second.
            while b"\r\n" not in answer and (chunk := connection.recv(65536)):
                answer += chunk
        match = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
        return int(match[1]) if match else None


def raw_get(target: bytes = b"/flags/definitions?token=" + TOKEN.encode(), *headers: bytes) -> bytes:
    lines = [b"GET " + target + b" HTTP/1.1", b"host: edge", b"connection: close", *headers, b"", b""]
    return b"\r\n".join(lines)


def authenticated_get(query: bytes = b"?token=" + TOKEN.encode(), secret: str = SECRET) -> bytes:
    """A request of its own as bytes, on a connection that stays open."""
    request = raw_get(PATH.encode() + query, b"authorization: Bearer " + secret.encode())
    return request.replace(b"connection: close\r\n", b"")


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def team(team_id: int, token: str, *secrets: str) -> dict[str, Any]:
    """A team of a source document."""
    return {"id": team_id, "api_token": token, "secret_token_sha256": [sha256(s) for s in secrets]}


def document(*teams: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"format": 1, "teams": list(teams)} | more


def trap_count(stack: Stack) -> int:
    """How often a VM trapped. Envoy's counters miss one on the main thread, which is never reloaded; its
    log has them all."""
    in_log = len(re.findall(r"Function: \w+ failed", stack.log("envoy")))
    reloads = sum(
        value for name, value in stack.stats().items() if name.startswith("wasm.flag_definitions.vm_reload")
    )
    return max(in_log, reloads)


def health(stack: Stack) -> dict[str, Any]:
    return requests.get(f"{stack.health_url}/health", timeout=15).json()


def publish(stack: Stack, content: dict) -> None:
    """Publishes and waits until it is live."""
    stack.publish(content)
    generation = json.loads(stack.redis.get("flag_definitions:snapshot"))["generation"]
    stack.wait_until(lambda: health(stack)["generation"] == generation)


def callouts(stack: Stack) -> int:
    return stack.stats()["cluster.flag_definitions_redis.upstream_rq_total"]


def wait_until_all(stack: Stack, true: Callable[[], bool], timeout: float = 30.0) -> None:
    """Until it was true for 1.5 s, and twenty times: workers bring their copies of shared state up to date
    once a second, and a new connection is given to any of them."""
    deadline = time.monotonic() + timeout
    since, times = time.monotonic(), 0
    while time.monotonic() - since < 1.5 or times < 20:
        times += 1
        if not true():
            since, times = time.monotonic(), 0
        assert time.monotonic() < deadline, f"not true for all workers within {timeout} s"
        time.sleep(0.05)


def wait_until_active(stack: Stack, count: int) -> None:
    """Until so many requests are under way at the edge."""

    def active() -> int:
        return stack.stats()["http.edge.downstream_rq_active"]

    with contextlib.suppress(StackError):
        stack.wait_until(lambda: active() == count)
    assert (found := active()) == count, f"{found} requests are under way, not {count}"


def soon_enough(measure: Callable[[], float], limit: float, times: int = 3) -> None:
    """One of up to so many measurements is within the limit, in seconds. A busy machine may hold up the
    others; what takes too long by itself does so each time."""
    took: list[float] = []
    while len(took) < times:
        took.append(measure())
        if took[-1] <= limit:
            return
    raise AssertionError(f"each took more than {limit} s: {took}")


class Tally:
    """What the filter has counted since this was made. Only requests to its own paths may be sent, and
    each has to be answered."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.before: dict[str, float] = {}
        self._wait_until_told()
        self.before = self._series()

    def after(self, requests: int) -> Tally:
        """Waits until workers have told of all requests; so many must have been answered or forwarded."""
        self._wait_until_told()
        assert self.decided() == requests
        return self

    def decided(self) -> float:
        return self.count("answers") + self.count("forwarded")

    def _wait_until_told(self) -> None:
        """Workers tell their counts about once a second: an answer's together with what led to it."""
        before, self.before = self.before, {}
        try:
            self.stack.wait_until(
                lambda: self.decided() == self.stack.stats()["http.edge.downstream_rq_total"]
            )
        finally:
            self.before = before

    def lookups(self) -> float:
        return self.count("callouts", store="identity")

    def count(self, name: str, **labels: str) -> float:
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value - self.before.get(series, 0)
            for series, value in self._series().items()
            if series.startswith(f"flag_definitions_{name}_total{{") and all(w in series for w in wanted)
        )

    def _series(self) -> dict[str, float]:
        lines = (line.rpartition(" ") for line in self.stack.prometheus().splitlines())
        return {name: float(value) for name, _, value in lines if name.startswith("flag_definitions_")}


class Client:
    """Sends GETs over connections that it keeps, one after the other."""

    def __init__(self, stack: Stack, connections: int = 1) -> None:
        port = stack.settings.edge_port
        each = range(connections)
        self.connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in each]
        self.sent = 0

    def get(self, token: str, secret: str, etag: str | None = None) -> http.client.HTTPResponse:
        """The answer; its body was read."""
        connection = self.connections[self.sent % len(self.connections)]
        self.sent += 1
        headers = {"Authorization": f"Bearer {secret}"} | ({"If-None-Match": etag} if etag else {})
        connection.request("GET", f"{PATH}?token={token}", headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Upstream:
    """A small HTTP service behind the filter. It answers with what it was asked, or with `answer`."""

    port: int
    requests: list[dict[str, Any]] = field(default_factory=list)
    answer: tuple[int, dict[str, str], bytes] | None = None  # status, headers, body
    on_request: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def upstream() -> Iterator[Upstream]:
    seen = Upstream(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = [(name.lower(), value) for name, value in self.headers.items()]
            seen.requests.append(
                {"method": self.command, "path": self.path, "headers": headers, "body": body}
            )
            seen.on_request()
            status, more, body = seen.answer or (299, {"x-upstream": "yes"}, body)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
