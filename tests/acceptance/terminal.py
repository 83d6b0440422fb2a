"""A user's terminal: Pushfan's commands as processes, with an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gateway.context import Running, find_running

_COMMAND = [sys.executable, "-c", "from gateway.cli import main; main()"]
T = TypeVar("T")
_ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """Runs commands with one PUSHFAN_HOME. `variables` are the only PUSHFAN_* ones beside it."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PUSHFAN_")}
        self.environ = {**ours, "PUSHFAN_HOME": str(home), "PYTHONPATH": str(_ROOT), **variables}

    def run(self, *words: str, seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*_COMMAND, *words],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def ask(self, *words: str, seconds: float = 90) -> dict[str, Any]:
        """Run a command that must succeed, and return the JSON object that it prints last."""
        done = self.run(*words, "--json", seconds=seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(found, dict)
        return found

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command that stays; what it says goes to `output`."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.output.open("wb") as output:
            return subprocess.Popen([*_COMMAND, *words], env=self.environ, stdout=output, stderr=output)

    @property
    def output(self) -> Path:
        """What the command that was started last has said."""
        return self.home / "terminal.txt"

    def await_up(self, process: subprocess.Popen[bytes]) -> Running:
        """Wait until the `pushfan up` that was started is there."""
        state = wait_for(lambda: process.poll() is not None or find_running(self.home), what="pushfan up")
        assert isinstance(state, Running), self.output.read_text()
        return state


def wait_for(look: Callable[[], T], *, what: str, seconds: float = 45) -> T:
    """Look until there is something, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


def processes_with(text: str) -> list[int]:
    """List the processes whose command line, environment or working directory names something."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            facts = entry.joinpath("cmdline").read_bytes() + entry.joinpath("environ").read_bytes()
            facts += os.fsencode(entry.joinpath("cwd").readlink())
        except OSError:
            continue
        if text.encode() in facts and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found
