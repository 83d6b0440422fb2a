"""The real server: `pushfan api` as a process of its own, which tests may kill and start again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import httpx

from gateway.children import python_environment
from gateway.local.ports import find_free_port

_COMMAND = [sys.executable, "-c", "from gateway.cli import main; main()"]
_SECONDS = 60


class Server:
    """One `pushfan api`, on one port for as long as the test wants."""

    def __init__(self, database_url: str, home: Path, **more: str) -> None:
        """`more` are settings, as the environment names them."""
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PUSHFAN_")}
        named = {"PUSHFAN_DATABASE_URL": database_url, "PUSHFAN_HOME": str(home), **more}
        self._environ = python_environment(ours | named)
        self._log = home / "api.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_COMMAND, "api", "--port", str(self.port)],
                env=self._environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it and its children, in the middle of whatever they do."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False
