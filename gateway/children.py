"""Child processes of ours: each in a session of its own, its output in a file, gone when we are gone.

Ctrl-C therefore reaches this process alone, which ends the others in order. If it cannot, since it was killed, the
tether does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import tether

_LAST_WORDS_BYTES = 3_000
_LAST_LINES = 12
_STRAGGLERS_SECONDS = 1.0


class ChildFailed(Exception):
    """A process that we started ended at once, or was not ready in time; its last lines are in the message."""


class Tether:
    """Ends what it holds when this process is gone, and removes `leftovers` then and at an orderly end."""

    def __init__(self, leftovers: Sequence[Path] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", tether.__file__, *map(str, leftovers)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def hold(self, group: int) -> None:
        """End this process group with us."""
        self._say(f"+{group}\n")

    def let_go(self, group: int) -> None:
        """Leave a group alone that has ended: its number may soon be a stranger's."""
        self._say(f"-{group}\n")

    def close(self) -> None:
        """Remove the leftovers and end."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it was killed: then nothing holds, and nothing depends on it
            os.write(self._process.stdin.fileno(), line.encode())


class Child:
    """One running child. Owned by whoever made it, who must `stop` it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        directory: Path,
        log: Path,
        tether: Tether,
    ) -> None:
        """Start `command` inside `directory`; its output is appended to `log`."""
        self.name = name
        self.log = log
        self.started_at = time.monotonic()
        self._tether = tether
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            self._log_start = output.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        tether.hold(self._process.pid)

    @property
    def pid(self) -> int:
        """The number of the process and of its group."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, `None` while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """Return the end of what it said, for an error message."""
        with self.log.open("rb") as file:
            file.seek(max(self._log_start, file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-_LAST_LINES:])

    def failed(self, what: str) -> ChildFailed:
        """Make the error that shows its last lines."""
        return ChildFailed(
            f"{self.name} {what}; it said:\n{self.last_words() or 'nothing'}\n(all of it: {self.log})"
        )

    def terminate(self) -> None:
        """Ask it to end."""
        if self.status is None:
            self._process.terminate()

    def stop(self, grace_seconds: float) -> bool:
        """Wait until it ends after `terminate`, then end what is left of its group. Tells whether it obeyed."""
        self.terminate()
        try:
            self._process.wait(grace_seconds)
            has_obeyed = True
        except subprocess.TimeoutExpired:
            has_obeyed = False
        self.clear()
        return has_obeyed

    def clear(self) -> None:
        """End whatever is left of its group: a killed worker leaves its own children behind."""
        deadline = time.monotonic() + _STRAGGLERS_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while True:
                os.killpg(self.pid, signal.SIGKILL)
                self._process.poll()
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
        self._process.wait()
        self._tether.let_go(self.pid)


def python_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which a child finds our packages, whatever lies in its working directory.

    The floors have everyday names: without the safe path a directory `workers` beside us would be taken for ours.
    """
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def parent_of(pid: int) -> int | None:
    """Return the parent of a process; `None` when there is no such process, or no /proc to look at."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def session_cpu_seconds(session: int) -> float:
    """Add up what the processes of a session have spent, and those that they have waited for. 0 without /proc."""
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields and int(fields[3]) == session:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Read the fields after the command's name, which may itself contain spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
