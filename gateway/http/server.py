"""`pushfan api`: granian, with our application in each of its processes."""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from workers.logs import configure_logs
from workers.settings import Settings, SettingsError, as_environ, load_settings

log = structlog.get_logger()

PORT: Final = 8480
_TARGET: Final = "gateway.http.server:application"
# The event loop shares the interpreter with the threads that take events in, and must not wait for them for long.
_SWITCH_SECONDS: Final = 0.001
# A request makes some hundred objects, and none in a circle.
_YOUNG_OBJECTS: Final = 20_000
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where and how the server listens."""

    host: str
    port: int
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    processes: int = 1

    @property
    def url(self) -> str:
        """Its address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_certificate else 'http'}://{host}:{self.port}"


def run(settings: Settings, listening: Listening) -> int:
    """Serve until a signal ends it; returns the exit code. Raises `SettingsError`."""
    try:
        from granian.constants import Interfaces, SSLProtocols
        from granian.server import Server
    except ModuleNotFoundError as error:
        raise SettingsError(f"{error.name} is missing: pip install 'pushfan[http]'") from error
    settings.require_database_url()
    configure_logs(settings)
    if listening.host not in _LOOPBACK and listening.tls_certificate is None:
        log.warning(
            "api_without_tls", host=listening.host, follows="keys travel in clear; admin calls are refused"
        )
    # granian's processes read the settings anew.
    os.environ.update(as_environ(settings))
    server = Server(
        _TARGET,
        address=listening.host,
        port=listening.port,
        interface=Interfaces.ASGI,
        factory=True,
        workers=listening.processes,
        websockets=False,
        log_enabled=False,
        respawn_failed_workers=True,
        ssl_cert=listening.tls_certificate,
        ssl_key=listening.tls_key,
        ssl_protocol_min=SSLProtocols.tls12,
        backpressure=2_000,
        backlog=2_048,
    )
    print(f"HTTP API at {listening.url}, docs at {listening.url}/docs", file=sys.stderr, flush=True)  # noqa: T201
    server.serve()
    return 0


def application() -> object:
    """Build the application in a process of granian's."""
    from .application import create_application

    settings = load_settings()
    configure_logs(settings)
    sys.setswitchinterval(_SWITCH_SECONDS)
    built = create_application(settings)
    # What is there now stays: a full collection would look at all routes and models while every request waits.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    return built
