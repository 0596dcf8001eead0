"""Ports of the loopback interface."""

from __future__ import annotations

import errno
import os
import random
import socket
from pathlib import Path

from stack.processes import StackError

EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given_out: set[int] = set()
# Which of how many processes runs tests, as pytest-xdist tells each: their ports are apart.
_OF = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PLACE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _OF


def free_port() -> int:
    """A port that nobody listens on, and that neither this process nor one beside it was given before.

    Below the ephemeral range: the kernel gives a port of that range to any outgoing connection, also
    between this look and the start of the process that is to listen.
    """
    end = int(EPHEMERAL_PORTS.read_text().split()[0]) if EPHEMERAL_PORTS.exists() else 32768
    end = end if end > 10_000 else 32768  # a range that leaves nothing below it
    ours = (port for port in range(end - 8_000, end) if port % _OF == _PLACE)
    ports = [port for port in ours if port not in _given_out]
    for port in random.sample(ports, k=len(ports)):
        _given_out.add(port)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise StackError(f"no free port below {end}")


def check_port_free(variable: str, port: int) -> None:
    # Without SO_REUSEPORT, which Envoy sets: two Envoys would silently share the port.
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise StackError(f"port {port} {reason}; choose another with {variable}=...") from None


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
