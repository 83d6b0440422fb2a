"""What a Celery worker runs beside its pool: the dispatcher, and a word to the children when it stops.

Under prefork the dispatcher is a process of its own: the parent forks children, and threads or connections that
it opened would corrupt them. It is started again when it ends. Under other pools it is a thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import structlog
from celery import bootsteps
from celery.concurrency import prefork

from events.names import Lane, deliver_queue

from .dispatcher import Dispatcher, Node
from .runtime import Runtime
from .settings import as_environ

log = structlog.get_logger()

_CHECK_SECONDS = 0.5
_STOP_SECONDS = 3.0


class Supervision(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Starts the dispatcher with the worker, keeps it running, and tells children to issue no more at the end."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._runtime: Runtime = worker.app.pushfan
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self, worker: Any) -> None:
        """Start the dispatcher."""
        self._node = _node_of(worker)
        self._stop.clear()
        self._runtime.stop.clear()
        if _is_prefork(worker):
            self._spawn()
            worker.timer.call_repeatedly(_CHECK_SECONDS, self._keep_running)
        else:
            dispatcher = Dispatcher(
                self._runtime.settings, self._runtime.database, self._runtime.announcer, self._node
            )
            self._thread = threading.Thread(target=dispatcher.run, args=[self._stop], daemon=True)
            self._thread.start()

    def close(self, worker: Any) -> None:
        """Tell the children to issue no more: they collect what is out and give the rest back."""
        self._stop.set()
        self._runtime.stop.set()
        # Celery names its children nowhere else; a cold shutdown may have taken the pool away already.
        pool = getattr(worker.pool, "_pool", None) if _is_prefork(worker) else None
        for child in list(getattr(pool, "_pool", ())):
            _signal(child.pid, signal.SIGUSR2)

    def stop(self, _worker: Any) -> None:
        """End the dispatcher."""
        self._stop.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)
            # A solo worker has worked in this very thread.
            self._runtime.close()

    terminate = stop

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "workers.dispatch",
                json.dumps(asdict(self._node)),
                str(os.getpid()),
            ],
            env=os.environ | as_environ(self._runtime.settings),
            stdin=subprocess.DEVNULL,
        )

    def _keep_running(self) -> None:
        process = self._process
        if process is not None and not self._stop.is_set() and process.poll() is not None:
            log.warning("dispatcher_ended", status=process.returncode, follows="started again")
            self._spawn()


def _is_prefork(worker: Any) -> bool:
    return issubclass(worker.pool_cls, prefork.TaskPool)


def _node_of(worker: Any) -> Node:
    """Describe the worker by what it consumes: a lane's queue makes it a worker of that lane."""
    consumed = worker.app.amqp.queues.consume_from
    return Node(
        name=worker.hostname,
        lanes=[lane.value for lane in Lane if deliver_queue(lane) in consumed],
        processes=worker.concurrency,
        version=version("pushfan"),
    )


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
