"""A wire between Envoy and a gateway to Redis that a test can hold or cut."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# For how long after its sender gave up a request is still brought to the gateway and carried out.
AFTERMATH = 5.0  # seconds


class Link:
    """Relays TCP. What is held arrives when it is let go, even if Envoy has given up waiting: so the gateway
    carries out commands late, and twice when they were sent again meanwhile."""

    def __init__(self, gateway_port: int) -> None:
        self.gateway_port = gateway_port
        self.port = 0
        self.lost = 0  # replies that were cut off
        self._loop = asyncio.new_event_loop()
        self._gates: dict[str, asyncio.Event] = {}
        self._cutting = False
        self._plugged = True
        self._tasks: set[asyncio.Task] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait(10)

    @contextmanager
    def holding(self, what: str) -> Iterator[None]:
        """Holds `requests` or `replies` while in the block."""
        self._call(self._gates[what].clear)
        try:
            yield
        finally:
            self._call(self._gates[what].set)

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """In the block, the connection ends where a reply should come: the command was carried out."""
        self._cutting = True
        try:
            yield
        finally:
            self._cutting = False

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """In the block there is no gateway, and no connection to one."""
        self._plugged = False
        self._call(lambda: [task.cancel() for task in self._tasks])
        try:
            yield
        finally:
            self._plugged = True

    def close(self) -> None:
        self._call(self._loop.stop)
        self._thread.join(10)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # === Inside ===

    def _call(self, function: object) -> None:
        self._loop.call_soon_threadsafe(function)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        for name in ("requests", "replies"):
            self._gates[name] = asyncio.Event()
            self._gates[name].set()
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    async def _accept(self, envoy: asyncio.StreamReader, to_envoy: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        to_gateway = None
        requests = replies = None
        try:
            if not self._plugged:
                return
            gateway, to_gateway = await asyncio.open_connection("127.0.0.1", self.gateway_port)
            requests = asyncio.ensure_future(self._requests(envoy, to_gateway))
            replies = asyncio.ensure_future(self._replies(gateway, to_envoy))
            await asyncio.wait([requests, replies], return_when=asyncio.FIRST_COMPLETED)
            if requests.done():  # Envoy left; what it asked for is on its way
                await asyncio.wait([replies], timeout=AFTERMATH)
        except (OSError, asyncio.CancelledError):
            pass  # no gateway, or unplugged: Envoy sees its connection end
        finally:
            for half in (requests, replies):
                if half:
                    half.cancel()
            for writer in (to_envoy, to_gateway):
                if writer:
                    writer.transport.abort()
            self._tasks.discard(task)

    async def _requests(self, envoy: asyncio.StreamReader, to_gateway: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await envoy.read(1 << 16):
                await self._gates["requests"].wait()
                to_gateway.write(data)
                await to_gateway.drain()

    async def _replies(self, gateway: asyncio.StreamReader, to_envoy: asyncio.StreamWriter) -> None:
        while data := await gateway.read(1 << 16):
            await self._gates["replies"].wait()
            if self._cutting:
                self.lost += 1
                return
            with contextlib.suppress(ConnectionError):  # Envoy may have left
                to_envoy.write(data)
                await to_envoy.drain()
