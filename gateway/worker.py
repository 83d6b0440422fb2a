"""`pushfan worker`: one Celery worker for some lanes, with its dispatcher beside it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence

import structlog
from celery import platforms
from kombu.exceptions import OperationalError

from events.names import QUEUE_FEEDBACK, QUEUE_INTAKE, QUEUE_PLAN, Lane, deliver_queue
from providers import create_client
from providers.client import Client
from providers.outcome import ChannelConfig
from registry import schema
from registry.database import Database
from registry.errors import DatabaseUnavailable
from workers.app import create_app
from workers.logs import configure_logs
from workers.settings import Settings

log = structlog.get_logger()

_WAIT_SECONDS = 2.0
# Two providers that hang leave one process for each core.
# A process waits for the database about half of its time, and one channel may hold a third of them: with six for each
# core it can use the machine. Twelve are enough for that; beyond, memory and connections count for more.
_MOST_OF_A_CORE = 6
_ENOUGH_PROCESSES = 12
_LEAST_OF_A_CORE = 3


def run(
    settings: Settings,
    *,
    lanes: Sequence[str],
    processes: int | None = None,
    name: str | None = None,
    pool: str = "prefork",
    with_parent: bool = False,
    create: Callable[[ChannelConfig], Client] = create_client,
) -> int:
    """Work until told to stop; returns the exit code. Waits for a database or a broker that is not there yet.

    `with_parent`: stop gracefully when the process that started this one is gone. `create` makes channels' clients.
    Raises `SchemaMismatch`.
    """
    configure_logs(settings)
    app = create_app(settings, create)
    wait_for_schema(settings)
    warn_of_broker(settings)
    if with_parent:
        platforms.set_pdeathsig("SIGTERM")
    worker = app.Worker(
        hostname=f"{name or '-'.join(lanes)}.{os.getpid()}@{socket.gethostname()}",
        queues=queues_of(lanes),
        concurrency=processes or default_processes(),
        pool=pool,
        optimization="fair",
        without_gossip=True,
        without_mingle=True,
        task_events=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def default_processes() -> int:
    """Choose how many processes a worker has: six for each core up to twelve, but never less than three for each."""
    cores = os.cpu_count() or 1
    return max(_LEAST_OF_A_CORE * cores, min(_MOST_OF_A_CORE * cores, _ENOUGH_PROCESSES))


def warn_of_broker(settings: Settings) -> None:
    """Log what is wrong with how the broker is set up. One that is away is Celery's to wait for."""
    from .cli.broker import look_at
    from .cli.doctor import Status

    with contextlib.suppress(OperationalError):
        for finding in look_at(settings.require_broker_url()):
            if finding.status is not Status.OK:
                log.warning("broker_misconfigured", problem=finding.message, follows=finding.advice)


def queues_of(lanes: Sequence[str]) -> list[str]:
    """Choose queues. The urgent lane's workers take events in, planning and feedback keep away from them.

    The fewer processes take events off the queue, the more of them wait there to be taken in together: when all
    workers did it, an event that was published by itself cost twice as much.
    """
    chosen = [Lane(lane) for lane in lanes]
    queues = [deliver_queue(lane) for lane in chosen]
    if Lane.URGENT in chosen:
        queues += [QUEUE_INTAKE]
    if chosen != [Lane.URGENT]:
        queues += [QUEUE_PLAN, QUEUE_FEEDBACK]
    return queues


def wait_for_schema(settings: Settings) -> None:
    """Wait until the database answers. Raises `SchemaMismatch` when it does and is not of this version."""
    database = Database(settings.require_database_url())
    while True:
        try:
            schema.check(database)
            break
        except DatabaseUnavailable as error:
            log.warning("database_awaited", error=str(error))
            time.sleep(_WAIT_SECONDS)
    database.close()
