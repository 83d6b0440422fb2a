"""The HTTP API of `pushfan up`: on the loopback, with secrets for user tokens and webhooks, made if there are none."""

from __future__ import annotations

import os
import secrets
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.settings import Settings

from .local.errors import PortTaken
from .local.ports import find_free_port, is_port_free

_READY_SECONDS: Final = 2.0
_FILE: Final = "file:"
# No proxy from the environment: it is on this machine.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Where the HTTP API listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}"

    @property
    def words(self) -> list[str]:
        """The words of its command line."""
        return ["api", "--host", self.host, "--port", str(self.port)]

    def is_ready(self) -> bool:
        """Tell whether it answers, with the database behind it."""
        try:
            with _OPENER.open(f"{self.url}/readyz", timeout=_READY_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def choose_api(settings: Settings) -> Api:
    """Choose a port, that of PUSHFAN_API_PORT or a free one, and have its secrets. Raises `PortTaken`."""
    port = settings.api_port or find_free_port()
    if not is_port_free(port):
        raise PortTaken(port)
    for reference in (settings.user_token_secret, settings.webhook_secret):
        _have_secret(settings, reference)
    return Api(host=settings.api_host, port=port)


def _have_secret(settings: Settings, reference: str) -> None:
    """Make the file that a reference means, readable by this user alone, unless there is one or none is meant."""
    kind, _, name = reference.partition(":")
    directory = settings.credentials_directory
    path = (directory / name).resolve()
    if f"{kind}:" != _FILE or path.exists() or not path.is_relative_to(directory.resolve()):
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(path, secrets.token_urlsafe(48))


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{text}\n")
