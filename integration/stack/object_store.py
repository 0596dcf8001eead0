"""A stand-in for S3: it answers GETs of objects, and checks what Envoy signs (Signature Version 4).

It is no S3: one region, one key, path-style names, and of the answers only those that the filter tells apart.
A request without a right signature gets 403, as from S3, and is noted.
"""

from __future__ import annotations

import hashlib
import hmac
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stack import certificate

HOST = "s3.eu-central-1.amazonaws.com"
REGION = "eu-central-1"
KEY_ID = "AKIDSTANDINFORTESTS0"
SECRET = "stand-in/secret+of+the+object+store00000"
SESSION_TOKEN = "stand-in-session-token"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": SESSION_TOKEN,
}


@dataclass
class Answer:
    """What is answered instead of the object; `delay` in seconds, `coding` as `content-encoding`."""

    status: int
    body: bytes = b"<Error/>"
    delay: float = 0.0
    coding: str | None = None


@dataclass
class ObjectStore:
    certificate: Path
    port: int = 0
    objects: dict[str, bytes] = field(default_factory=dict)  # by path
    answers: dict[str, Answer] = field(default_factory=dict)  # by path, before objects
    asked: list[str] = field(default_factory=list)  # paths, in order
    wrong: list[str] = field(default_factory=list)  # what was wrong with a signature

    def answer(self, path: str) -> Answer:
        if path in self.answers:
            return self.answers[path]
        if path in self.objects:
            return Answer(200, self.objects[path])
        return Answer(404)


def problem(method: str, path: str, headers: dict[str, str]) -> str | None:
    """What is wrong with a request's signature; none: it is right."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if scheme != "AWS4-HMAC-SHA256" or fields.keys() != {"Credential", "SignedHeaders", "Signature"}:
        return "the request is not signed"
    moment = headers.get("x-amz-date", "")
    scope = f"{moment[:8]}/{REGION}/s3/aws4_request"
    if fields["Credential"] != f"{KEY_ID}/{scope}":
        return "wrong credential scope"
    if headers.get("host") != HOST or headers.get("x-amz-security-token") != SESSION_TOKEN:
        return "wrong host or session token"
    body = headers.get("x-amz-content-sha256", "")
    if body not in ("UNSIGNED-PAYLOAD", hashlib.sha256(b"").hexdigest()):
        return "wrong hash of the body"
    signed = fields["SignedHeaders"].split(";")
    if not {"host", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"} <= set(signed):
        return "a header is not signed"
    # The canonical request. S3's path is signed as it was sent, encoded once.
    canonical = [
        method,
        path,
        "",
        *(f"{name}:{headers[name]}" for name in signed),
        "",
        ";".join(signed),
        body,
    ]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    key = f"AWS4{SECRET}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.new(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), "sha256")
    if not hmac.compare_digest(signature.hexdigest(), fields["Signature"]):
        return "wrong signature"
    return None


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    with tempfile.TemporaryDirectory() as directory:
        store = ObjectStore(certificate.create(Path(directory)))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet

            def do_GET(self) -> None:
                headers = {name.lower(): value.strip() for name, value in self.headers.items()}
                if wrong := problem("GET", self.path, headers):
                    store.wrong.append(wrong)
                    answer = Answer(403)
                else:
                    store.asked.append(self.path)
                    answer = store.answer(self.path)
                time.sleep(answer.delay)
                self.send_response(answer.status)
                self.send_header("content-type", "application/json")
                if answer.coding is not None:
                    self.send_header("content-encoding", answer.coding)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Envoy leaves when it has waited long enough."""

        server = Server(("127.0.0.1", 0), Handler)
        context = certificate.server_context(store.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        store.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield store
        finally:
            server.shutdown()
            server.server_close()
