"""Ports on the loopback interface for servers that we start."""

import secrets
import socket
from collections.abc import Callable
from typing import TypeVar

from gateway.local.errors import PortTaken, ServerFailed

Launched = TypeVar("Launched")

LOOPBACK = "127.0.0.1"
# Below the ranges that Linux (32768 up) and macOS (49152 up) hand to outgoing connections: while a server is
# down for a restart, no client can be given its port by accident.
FIRST, COUNT = 20_000, 12_000
TRIES = 50
LAUNCHES = 5


def find_free_port() -> int:
    """Return a port that nobody listens on at this moment; another program may still take it first."""
    for _ in range(TRIES):
        port = FIRST + secrets.randbelow(COUNT)
        if is_port_free(port):
            return port
    msg = f"no free port found on {LOOPBACK} between {FIRST} and {FIRST + COUNT} in {TRIES} tries"
    raise ServerFailed(msg)


def is_port_free(port: int) -> bool:
    """Tell whether a server could listen on the port; closing connections of an earlier one do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def launch_on(port: int | None, launch: Callable[[int], Launched]) -> tuple[int, Launched]:
    """Launch a server on the port, or on a free one; try again when another program was faster."""
    if port is not None:
        return port, launch(port)
    for _ in range(LAUNCHES):
        candidate = find_free_port()
        try:
            return candidate, launch(candidate)
        except PortTaken:
            continue
    msg = f"{LAUNCHES} ports that were free were taken by others before the server could listen"
    raise ServerFailed(msg)
