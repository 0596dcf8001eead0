"""Real SDKs, with one face: what they were answered, and which flags they have."""

from __future__ import annotations

import http.client
import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import posthog

from stack.launcher import Stack
from stack.lines import end
from stack.paths import INTEGRATION
from stack.processes import StackError
from stack.programs import tool

DEFINITIONS = "/flags/definitions"
ALIAS = "/api/feature_flag/local_evaluation"


@dataclass(frozen=True)
class Poll:
    """One request for the definitions, and what the SDK had after its answer."""

    status: int
    sent: str | None  # If-None-Match
    flags: dict[str, Any] | None  # None: no definitions were ever loaded
    asked: float = field(default=0.0, compare=False)  # Unix time


class Sdk(Protocol):
    def poll(self, wanted: Callable[[Poll], bool] = lambda _: True, timeout: float = 40.0) -> Poll:
        """Polls until an answer is like that, and returns it."""
        ...


def kind_of(secret: str) -> str:
    return "secret" if secret.startswith("phs_") else "personal"


# === Python ===


class PythonSdk:
    """Polls when it is told to. Behind a small proxy: this release no longer asks for the older path."""

    def __init__(self, proxy: Proxy, token: str, secret: str) -> None:
        option = {"secret": "secret_key", "personal": "personal_api_key"}[kind_of(secret)]
        self.proxy = proxy
        self.client = posthog.Posthog(token, host=proxy.url, poll_interval=3600, **{option: secret})

    def poll(self, wanted: Callable[[Poll], bool] = lambda _: True, timeout: float = 40.0) -> Poll:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            # Not `load_feature_flags`, which also starts a poller that asks at once.
            asked = time.time()
            self.client._load_feature_flags()
            status, sent = self.proxy.seen[-1]
            poll = Poll(status, sent, self.flags(), asked)
            if wanted(poll):
                return poll
            time.sleep(0.1)
        raise StackError(
            f"the Python SDK never saw that within {timeout} s; statuses: {self.proxy.statuses()}"
        )

    def flags(self) -> dict[str, Any] | None:
        if self.client.feature_flags is None:
            return None
        return dict(sorted((self.client.get_all_flags("user-1", only_evaluate_locally=True) or {}).items()))


class Proxy:
    """Passes requests on to a stack, under another path if wanted, and remembers status and validators."""

    def __init__(self, stack: Stack, path: str) -> None:
        self.stack, self.path = stack, path
        self.seen: list[tuple[int, str | None]] = []
        self.url = ""

    @property
    def edge_url(self) -> str:
        """For an SDK, as that of a stack. Another stack may take its place."""
        return self.url

    def statuses(self) -> list[int]:
        return [status for status, _ in self.seen]

    def pass_on(self, target: str, headers: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
        edge = http.client.HTTPConnection("127.0.0.1", self.stack.settings.edge_port, timeout=30)
        edge.request("GET", target.replace(DEFINITIONS, self.path), headers=headers)
        response = edge.getresponse()
        body = response.read()
        edge.close()
        self.seen.append((response.status, headers.get("If-None-Match")))
        return response.status, response.getheaders(), body


@contextmanager
def proxy(stack: Stack, path: str) -> Iterator[Proxy]:
    behind = Proxy(stack, path)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = behind.pass_on(self.path, dict(self.headers.items()))
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    behind.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield behind
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def python_sdk(stack: Stack, token: str, secret: str, path: str = DEFINITIONS) -> Iterator[PythonSdk]:
    with proxy(stack, path) as behind:
        sdk = PythonSdk(behind, token, secret)
        try:
            yield sdk
        finally:
            sdk.client.shutdown()


# === Node ===


class NodeSdk:
    """posthog-node in a program of its own, which polls ten times a second."""

    INTERVAL_MS = 100  # the least that it takes

    def __init__(self, stack: Stack | Proxy, token: str, secret: str, path: str) -> None:
        option = {"secret": "secretKey", "personal": "personalApiKey"}[kind_of(secret)]
        command = [tool("node"), str(INTEGRATION / "node/client.mjs"), stack.edge_url, token]
        command += [option, secret, str(self.INTERVAL_MS), path, "240"]  # seconds, should nobody stop it
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.statuses: list[int] = []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def poll(self, wanted: Callable[[Poll], bool] = lambda _: True, timeout: float = 40.0) -> Poll:
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self.lines.get(timeout=left)
            except queue.Empty:
                break
            if line["event"] != "poll":
                continue
            self.statuses.append(line["status"])
            poll = Poll(line["status"], line["sent"], line["flags"], line["asked"])
            if wanted(poll):
                return poll
        raise StackError(f"the Node SDK never saw that within {timeout} s; statuses: {self.statuses}")

    def stop(self) -> None:
        end(self.process)
        self.reader.join(timeout=5)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


@contextmanager
def node_sdk(stack: Stack | Proxy, token: str, secret: str, path: str = DEFINITIONS) -> Iterator[NodeSdk]:
    sdk = NodeSdk(stack, token, secret, path)
    try:
        yield sdk
    finally:
        sdk.stop()


SDKS = {"python": python_sdk, "node": node_sdk}


@contextmanager
def asleep(*sdks: Sdk) -> Iterator[None]:
    """None of them polls meanwhile. One that polls when it is told to need not be held."""
    processes = [sdk.process for sdk in sdks if isinstance(sdk, NodeSdk)]
    with ExitStack() as awake:
        for process in processes:
            awake.callback(process.send_signal, signal.SIGCONT)
            process.send_signal(signal.SIGSTOP)
        yield
