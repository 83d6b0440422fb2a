"""Flower, the view on Celery: on the loopback, behind a password that is made at each start."""

from __future__ import annotations

import base64
import os
import secrets
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .local.errors import PortTaken
from .local.ports import LOOPBACK, find_free_port, is_port_free

_USER: Final = "pushfan"
_READY_SECONDS: Final = 2.0
# No proxy from the environment: Flower is on the loopback.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flower:
    """Where Flower listens, and who may look."""

    port: int
    user: str = _USER
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """Its address, without the password."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def command(self) -> list[str]:
        """The command line: what is secret comes through the environment."""
        return [sys.executable, "-m", "celery", "-A", "workers.celery_app", "--quiet", "flower"]

    def environment(self) -> dict[str, str]:
        """Flower's own variables."""
        return {
            "FLOWER_ADDRESS": LOOPBACK,
            "FLOWER_PORT": str(self.port),
            "FLOWER_BASIC_AUTH": f"{self.user}:{self.password}",
            "FLOWER_LOGGING": "warning",
        }

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        word = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310  the address is our own
            f"{self.url}/healthcheck", headers={"authorization": f"Basic {word}"}
        )
        try:
            with _OPENER.open(request, timeout=_READY_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def choose_flower(environ: Mapping[str, str] = os.environ) -> Flower:
    """Choose a port, that of FLOWER_PORT or a free one, and a password. Raises `PortTaken`."""
    wanted = environ.get("FLOWER_PORT", "")
    port = int(wanted) if wanted.isdecimal() else find_free_port()
    if not is_port_free(port):
        raise PortTaken(port)
    return Flower(port=port, password=secrets.token_urlsafe(18))
