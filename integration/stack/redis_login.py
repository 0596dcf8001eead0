"""Logs in to Redis for a client that cannot: a loopback relay that sends `AUTH user password` first.

Debian 12 ships webdis 0.1.9, which knows passwords but no user names (the `["user", "password"]` form
of `redis_auth` came later and is silently ignored). Without this relay it would be Redis's `default`
user, and in the local stack that one may do everything. A webdis that can log in needs no relay.

It fails closed: no byte of the client reaches Redis before Redis said +OK.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from pathlib import Path


def auth_command(user: str, password: str) -> bytes:
    """`AUTH user password` as a RESP array, so any byte may be in the password."""
    words = [b"AUTH", user.encode(), password.encode()]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class Side(asyncio.Protocol):
    """One end of a relayed connection. It slows its peer down when its own end is slow."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.peer and self.peer.transport:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        if self.peer and self.peer.transport:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer and self.peer.transport:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer and self.peer.transport:
            self.peer.transport.close()


class RedisSide(Side):
    """Swallows the reply to AUTH, then relays."""

    def __init__(self, client: ClientSide, login: bytes) -> None:
        super().__init__()
        self.peer = client
        self.login = login
        self.reply: bytes | None = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        client = self.peer.transport if self.peer else None
        if client is None or client.is_closing():
            transport.close()  # the client left while we were connecting
            return
        self.peer.peer = self
        self.transport.write(self.login)

    def data_received(self, data: bytes) -> None:
        if self.reply is None:
            super().data_received(data)
            return
        self.reply += data
        if b"\r\n" not in self.reply:
            return
        line, rest = self.reply.split(b"\r\n", 1)
        if line != b"+OK":
            print(f"Redis refused the login: {line.decode(errors='replace')}", file=sys.stderr, flush=True)
            self.transport.close()
            return
        self.reply = None
        if rest:
            super().data_received(rest)
        self.peer.transport.resume_reading()


class ClientSide(Side):
    """A connection from webdis. Not read before the login has succeeded."""

    def __init__(self, redis_port: int, login: bytes) -> None:
        super().__init__()
        self.redis_port = redis_port
        self.login = login

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self.connecting = asyncio.ensure_future(self.connect())

    async def connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: RedisSide(self, self.login), "127.0.0.1", self.redis_port
            )
        except OSError:
            self.transport.abort()  # as if Redis itself had refused


async def serve(listen_fd: int, redis_port: int, login: bytes) -> None:
    loop = asyncio.get_running_loop()
    listener = socket.socket(fileno=listen_fd)
    server = await loop.create_server(lambda: ClientSide(redis_port, login), sock=listener)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen-fd", type=int, required=True, help="an inherited listening socket")
    parser.add_argument("--redis-port", type=int, required=True)
    parser.add_argument("--user", required=True)
    # A file, because every local user can read the arguments of a process.
    parser.add_argument("--password-file", type=Path, required=True)
    args = parser.parse_args()
    password = args.password_file.read_text().strip()
    asyncio.run(serve(args.listen_fd, args.redis_port, auth_command(args.user, password)))


if __name__ == "__main__":
    main()
