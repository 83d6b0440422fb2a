"""A RabbitMQ node of our own, where the system has RabbitMQ installed: the broker of scenarios that want it.

    with start_rabbit(directory) as rabbit:
        use(rabbit.url)

Everything is its own: ports, name, cookie, data, logs, and the port mapper that Erlang would else leave running. As
root it runs as the user `rabbitmq`. Nothing of a node that the system runs is touched.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import kombu
from kombu.exceptions import OperationalError

from gateway.local.ports import LOOPBACK, find_free_port
from workers.app import QUEUES

PROGRAMS: Final = Path("/usr/lib/rabbitmq/bin")
_ACCOUNT: Final = "rabbitmq"
_READY_SECONDS: Final = 240.0
_CONTROL_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.1


class RabbitFailed(Exception):
    """The node did not start, or did not do what it was told; its last lines are in the message."""


def is_installed() -> bool:
    """Tell whether this machine has RabbitMQ."""
    return (PROGRAMS / "rabbitmq-server").exists() and shutil.which("epmd") is not None


def start_rabbit(directory: Path) -> RabbitServer:
    """Start a node with its files in `directory`, and wait until it is ready. Raises `RabbitFailed`."""
    return RabbitServer(directory)


class RabbitServer:
    """A running node; use `start_rabbit`. It can be killed and started again on the same port. Not thread safe."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.port = find_free_port()
        self._identity: dict[str, Any] = {}
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            account = pwd.getpwnam(_ACCOUNT)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
            self._identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._node: subprocess.Popen[bytes] | None = None
        self._environ = _environment(self.directory, self.port)
        mapper = ["epmd", "-port", self._environ["ERL_EPMD_PORT"], "-address", LOOPBACK]
        self._mapper = self._spawn(mapper)
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The default virtual host, as the default user, who may only come from this machine."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}//"

    @property
    def pid(self) -> int:
        """The number of the node's process group."""
        assert self._node is not None
        return self._node.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def is_running(self) -> bool:
        """Tell whether the node still lives."""
        return self._node is not None and self._node.poll() is None

    def kill(self) -> None:
        """Crash: SIGKILL to all of the node."""
        if self._node is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._node.pid, signal.SIGKILL)
            self._node.wait()

    def stop(self) -> None:
        """Stop the node and its port mapper. Harmless when stopped already."""
        if self._node is not None and self.is_running():
            os.killpg(self._node.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._node.wait(_STOP_SECONDS)
            self.kill()
        self._mapper.kill()
        self._mapper.wait()

    def restart(self, *, wipe: bool = False) -> None:
        """Start again on the same port; `wipe` forgets everything, the queues too."""
        self.kill()
        if wipe:
            shutil.rmtree(self.directory / "data", ignore_errors=True)
        self._launch()

    def purge(self) -> int:
        """Empty our queues. Returns how many messages were thrown away."""
        count = 0
        with self._connection() as connection:
            for name in QUEUES:
                with contextlib.suppress(connection.channel_errors), connection.channel() as channel:
                    count += channel.queue_purge(name) or 0
        return count

    def limit_memory(self, *, has_memory: bool) -> None:
        """Raise the memory alarm, under which publishers are blocked, or end it."""
        amount = ("0.6",) if has_memory else ("absolute", "1")
        self._control("set_vm_memory_high_watermark", *amount)

    def _connection(self) -> Any:
        return kombu.Connection(self.url, connect_timeout=2)

    def _launch(self) -> None:
        self._node = node = self._spawn([str(PROGRAMS / "rabbitmq-server")])
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if node.poll() is not None or time.monotonic() > deadline:
                raise RabbitFailed(f"the node did not start; it said:\n{self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def _answers(self) -> bool:
        try:
            with self._connection() as connection:
                connection.ensure_connection(max_retries=1, timeout=1)
        except (OperationalError, OSError):
            return False
        return True

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.directory / "output").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._identity,
            )

    def _control(self, *words: str) -> None:
        done = subprocess.run(
            [PROGRAMS / "rabbitmqctl", "--node", self._environ["RABBITMQ_NODENAME"], *words],
            cwd=self.directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CONTROL_SECONDS,
            **self._identity,
        )
        if done.returncode:
            raise RabbitFailed(f"rabbitmqctl {words[0]} failed:\n{done.stdout}{done.stderr}")

    def _last_words(self) -> str:
        return (self.directory / "output").read_text(errors="replace")[-2000:]


def _environment(directory: Path, port: int) -> Mapping[str, str]:
    host = socket.gethostname().partition(".")[0]
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        "HOME": str(directory),  # the cookie lies there
        "RABBITMQ_NODENAME": f"pushfan{secrets.token_hex(4)}@{host}",
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(find_free_port()),
        "ERL_EPMD_PORT": str(find_free_port()),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
    }
