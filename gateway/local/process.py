"""One running server: its lock on a directory, its log, its process, and the watcher that outlives us.

The lock is an flock on an open file that the server inherits, and its children from it. So the lock is held
exactly as long as any of them lives: a free lock proves that a pid file is stale, and taking the lock after
a kill waits for the last straggler.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from gateway.local import watcher
from gateway.local.errors import DirectoryInUse, DirectoryRefused, LocalServerError, ServerFailed
from gateway.local.privileges import Account, identity

POLL_SECONDS = 0.005
READY_SECONDS = 60.0
LOCK_SECONDS = 30.0
STOP_SECONDS = 15.0
LAST_WORDS_BYTES = 2_000


class LocalServer(Protocol):
    """A server on this machine that we started and shall stop."""

    @property
    def url(self) -> str:
        """Where clients connect."""

    @property
    def pid(self) -> int:
        """The number of the server's main process."""

    def is_running(self) -> bool:
        """Tell whether the server still lives."""

    def stop(self) -> None:
        """Stop in an orderly way; harmless when it is stopped already."""

    def restart(self) -> None:
        """Start again on the same port, with what data is kept."""


class DirectoryLock:
    """The right to run the one server of a directory.

    Take it with `locked`, pass `fd` to the server, then `close` it here: the server keeps it.
    """

    def __init__(self, directory: Path) -> None:
        """Take the lock, waiting for a server that is on its way out.

        A server is not on its way out, and the lock refused at once, while the starter that wrote its number
        into the file lives and has not disowned it.
        """
        self._path = directory / "lock"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            msg = f"cannot use {directory}: {error.strerror}"
            raise DirectoryRefused(msg) from error
        try:
            self._take(directory)
        except BaseException:
            self.close()
            raise

    def _take(self, directory: Path) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                starter = self._starter()
                if time.monotonic() > deadline or (starter and is_alive(starter)):
                    raise DirectoryInUse(directory, starter) from None
                time.sleep(POLL_SECONDS)
            else:
                break
        self.sign()

    def _starter(self) -> int | None:
        text = self._path.read_text()
        return int(text) if text.isdigit() else None

    def sign(self) -> None:
        """Write into the file that we are the starter."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, str(os.getpid()).encode(), 0)

    def disown(self) -> None:
        """Tell those who wait that the server has been stopped, and only its last processes remain."""
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self._path, 0)

    def close(self) -> None:
        """Forget our copy; the lock stays with the server that inherited it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[DirectoryLock]:
    """Hold the directory's lock while a server is started in it; operating system errors become ours."""
    try:
        lock = DirectoryLock(directory)
        try:
            yield lock
        finally:
            lock.close()
    except OSError as error:
        msg = f"cannot start a server in {directory}: {error}"
        raise LocalServerError(msg) from error


class ServerProcess:
    """A server process and its watcher.

    Not thread safe. A process forked from the starter must not stop it: the watcher obeys the starter alone.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        directory: Path,
        account: Account | None,
        lock: DirectoryLock,
        log: Path,
        stop_signals: Sequence[signal.Signals],
        leftovers: Sequence[Path] = (),
    ) -> None:
        """Start `command` inside `directory`; its output is appended to `log`.

        `stop_signals` are sent in turn until the server ends. The watcher removes `leftovers` if we cannot.
        """
        lock.sign()  # again, since an earlier try on a taken port disowned it
        self._lock = lock
        self._log = log
        self._stop_signals = tuple(stop_signals)
        with _open_log(log) as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=plain_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock.fd,),
                **identity(account),
            )
        try:
            self._watcher = _start_watcher(self._process.pid, self._stop_signals, leftovers)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        """The number of the process, also after its end."""
        return self._process.pid

    def is_running(self) -> bool:
        """Tell whether the process still lives."""
        return self._process.poll() is None

    def output(self) -> str:
        """Return what this process has logged so far."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait_until(self, is_ready: Callable[[], bool]) -> bool:
        """Wait until the server is ready; return False if it ended instead, and raise if it is too slow."""
        deadline = time.monotonic() + READY_SECONDS
        try:
            while not is_ready():
                if not self.is_running():
                    self._settle()
                    return False
                if time.monotonic() > deadline:
                    msg = f"the server was not ready in {READY_SECONDS:.0f} s; it said:\n{self.last_words()}"
                    raise ServerFailed(msg)
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.stop()
            raise
        return True

    def last_words(self) -> str:
        """Return the end of the log, for an error message."""
        return self.output()[-LAST_WORDS_BYTES:].strip()

    def stop(self) -> None:
        """Stop with ever stronger signals, wait for the end, and send the watcher home."""
        for number in (*self._stop_signals, signal.SIGKILL):
            if not self.is_running():
                break
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self._settle()

    def kill(self) -> None:
        """End the main process with SIGKILL, as a crash would."""
        self._process.kill()
        self._process.wait()
        self._settle()

    def _settle(self) -> None:
        """Send the watcher home and open the directory to the next server, now that this one has ended."""
        self._watcher.kill()
        self._watcher.wait()
        self._lock.disown()


def plain_environment() -> dict[str, str]:
    """Return the environment of a server: none of ours, which may hold secrets and PG* settings."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def is_alive(pid: int) -> bool:
    """Tell whether a process has this number, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(directories: Sequence[Path]) -> None:
    """Remove what a stopped server leaves behind."""
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _open_log(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def _start_watcher(
    pid: int, signals: Sequence[signal.Signals], leftovers: Sequence[Path]
) -> subprocess.Popen[bytes]:
    pidfd = _open_pidfd(pid)
    numbers = ",".join(str(int(number)) for number in (*signals, signal.SIGKILL))
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", watcher.__file__]
            + [str(argument) for argument in (os.getpid(), pidfd, pid, numbers, *leftovers)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=() if pidfd < 0 else (pidfd,),
        )
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _open_pidfd(pid: int) -> int:
    """Return a handle that is never another process; -1 where there is none (macOS, old kernels)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return -1
