"""Speaks Upstash REST in front of a real Redis: a stand-in for the gateway, not for Redis.

It follows Upstash's public description where the filter depends on it: `POST /pipeline` with a bearer token,
200 with one result or error per command, 400 when the request as a whole is none, 401 without the token.
With `upstash-encoding: base64` every string of a result is base64, but not the status `OK`. Like
serverless-redis-http it accepts no other content type than `application/json`, and answers 500 without Redis.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import redis

from stack import certificate


class BadRequest(Exception):
    """The request as a whole cannot be carried out."""


def commands_of(body: bytes) -> list[list[str]]:
    """The commands of a pipeline. Numbers are as good as their digits."""
    try:
        pipeline = json.loads(body)
    except ValueError:
        raise BadRequest("ERR failed to parse pipeline request") from None
    if not isinstance(pipeline, list) or not pipeline:
        raise BadRequest("ERR empty pipeline request")
    for command in pipeline:
        if not isinstance(command, list) or not command:
            raise BadRequest("ERR empty pipeline command")
        if not all(isinstance(word, str | int) and not isinstance(word, bool) for word in command):
            raise BadRequest("ERR failed to parse pipeline request")
    return [[str(word) for word in command] for command in pipeline]


def encoded(result: object, as_base64: bool) -> object:
    """A result of Redis as JSON has it."""
    if isinstance(result, list):
        return [encoded(element, as_base64) for element in result]
    if isinstance(result, redis.ResponseError):
        return str(result)
    if not isinstance(result, bytes):
        return result
    if as_base64 and result != b"OK":
        return base64.b64encode(result).decode()
    return result.decode(errors="replace")


class Gateway(ThreadingHTTPServer):
    """The HTTP server, with its connections to Redis."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", args.port or 0), Handler, bind_and_activate=args.listen_fd is None)
        if args.listen_fd is not None:
            self.socket.close()
            self.socket = socket.socket(fileno=args.listen_fd)
            self.server_address = self.socket.getsockname()
            self.server_activate()
        if args.certificate:
            # The handshake belongs to the connection's own thread.
            context = certificate.server_context(args.certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.authorization = f"Bearer {args.token_file.read_text().strip()}".encode()
        # RESP2, as the gateways speak it: maps are lists and there is no boolean.
        self.pool = redis.ConnectionPool(
            host="127.0.0.1",
            port=args.redis_port,
            username=args.user,
            password=args.password_file.read_text().strip(),
            protocol=2,
        )

    def run(self, command: list[str], as_base64: bool) -> dict[str, object]:
        """Carries a command out as it is: `Redis.execute_command` would interpret the reply."""
        connection = self.pool.get_connection()
        try:
            connection.send_command(*command)
            return {"result": encoded(connection.read_response(), as_base64)}
        except redis.ResponseError as error:
            return {"error": str(error)}
        finally:
            self.pool.release(connection)


class Handler(BaseHTTPRequestHandler):
    """A connection of a client, kept alive."""

    server: Gateway
    protocol_version = "HTTP/1.1"
    # Head and body in one packet.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        # Read even when it is refused: the next request follows on the same connection.
        length = self.headers.get("content-length", "")
        if not length.isdecimal():
            self.close_connection = True
            self.answer(411, {"error": "ERR a content-length is needed"})
            return
        body = self.rfile.read(int(length))
        authorization = self.headers.get("authorization", "").encode()
        if not hmac.compare_digest(authorization, self.server.authorization):
            self.answer(401, {"error": "WRONGPASS invalid or missing auth token"})
        elif self.path != "/pipeline":
            self.answer(404, {"error": "ERR this stand-in knows /pipeline only"})
        elif self.headers.get("content-type") != "application/json":
            self.answer(400, {"error": "Invalid content type. Expected application/json."})
        else:
            self.pipeline(body)

    def pipeline(self, body: bytes) -> None:
        as_base64 = self.headers.get("upstash-encoding") == "base64"
        try:
            answer = [self.server.run(command, as_base64) for command in commands_of(body)]
        except BadRequest as error:
            self.answer(400, {"error": str(error)})
        except (redis.ConnectionError, redis.TimeoutError):
            self.answer(500, {"error": "Redis is not available"})
        else:
            self.answer(200, answer)

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: they carry payloads."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listen = parser.add_mutually_exclusive_group(required=True)
    listen.add_argument("--listen-fd", type=int, help="an inherited listening socket")
    listen.add_argument("--port", type=int, help="a port of the loopback interface")
    parser.add_argument("--certificate", type=Path, help="speak TLS; a key and its certificate in one file")
    parser.add_argument("--redis-port", type=int, required=True)
    parser.add_argument("--user", required=True)
    # Files, because every local user can read the arguments of a process.
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--token-file", type=Path, required=True, help="with the bearer token")
    Gateway(parser.parse_args()).serve_forever()


if __name__ == "__main__":
    main()
