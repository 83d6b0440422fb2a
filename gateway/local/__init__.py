"""Real servers from wheels, for machines that have none: PostgreSQL and Valkey on free loopback ports.

    with start_postgres(directory) as postgres, start_valkey(directory) as valkey:
        run(database=postgres.url, broker=valkey.url)

Each server runs in a session of its own, so that Ctrl-C reaches us and not it, and stops by itself when this
process ends in any way, SIGKILL included. As root it runs as an unprivileged user. Both trust every local
user: they are for development, demonstrations and tests, not for data that other users of the machine must
not read.
"""

from gateway.local.broker import ValkeyServer, start_valkey
from gateway.local.errors import (
    DirectoryInUse,
    DirectoryRefused,
    ExtraMissing,
    LocalServerError,
    PortTaken,
    ServerFailed,
)
from gateway.local.postgres import PostgresServer, start_postgres
from gateway.local.process import LocalServer

__all__ = [
    "DirectoryInUse",
    "DirectoryRefused",
    "ExtraMissing",
    "LocalServer",
    "LocalServerError",
    "PortTaken",
    "PostgresServer",
    "ServerFailed",
    "ValkeyServer",
    "start_postgres",
    "start_valkey",
]
