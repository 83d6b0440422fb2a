"""The Celery application: its configuration, its queues, its tasks, and what each worker process sets up."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, signals
from kombu import Exchange, Queue

from events.broker import tls_options
from events.names import (
    QUEUE_FEEDBACK,
    QUEUE_INTAKE,
    QUEUE_PLAN,
    QUORUM_QUEUE_ARGUMENTS,
    Lane,
    deliver_queue,
)
from providers import create_client
from providers.client import Client
from providers.outcome import ChannelConfig

from .logs import configure_logs
from .runtime import Runtime
from .settings import Settings
from .supervision import Supervision
from .tasks import register_tasks

QUEUES = (QUEUE_INTAKE, QUEUE_PLAN, QUEUE_FEEDBACK, *(deliver_queue(lane) for lane in Lane))


def create_app(settings: Settings, create: Callable[[ChannelConfig], Client] = create_client) -> Celery:
    """Build the application for one set of settings. Nothing is opened before it is used.

    `create` makes the clients of channels; tests put a recording one in its place.
    """
    app = create_bare_app(settings)
    runtime = Runtime(app, settings, create)
    register_tasks(app, runtime)
    app.steps["worker"].add(Supervision)
    _connect_signals(app, runtime)
    return app


def create_bare_app(settings: Settings) -> Celery:
    """Build an application that can only announce tasks, for processes that run none."""
    broker_url = settings.require_broker_url()
    app = Celery("pushfan", broker=broker_url, set_as_current=False)
    app.conf.update(_configuration(settings))
    app.conf.update(_transport(broker_url, settings))
    return app


def runtime_of(app: Celery) -> Runtime:
    """Find the runtime that belongs to an application."""
    runtime = app.pushfan
    assert isinstance(runtime, Runtime)
    return runtime


def _configuration(settings: Settings) -> dict[str, Any]:
    return {
        # A message is acknowledged when its work is recorded; what a dead process had goes back. The database
        # knows what is done, so a repeat does nothing.
        "task_acks_late": True,
        "task_acks_on_timeout": False,
        "task_acks_on_failure": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "worker_eta_task_limit": 100,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        # A backstop: the send loop has its own, shorter time.
        "task_soft_time_limit": settings.task_soft_limit_seconds,
        "task_time_limit": settings.task_hard_limit_seconds,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_create_missing_queues": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A broker that refuses (out of memory, a replica that is not yet promoted) recovers as one that is away.
        "broker_channel_error_retry": True,
        "broker_connection_timeout": 5,
        "broker_pool_acquire_timeout": 5,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_max_tasks_per_child": 5000,
        "worker_max_memory_per_child": 400_000,
        # Tasks are chunks, so events are few; Flower lives on them.
        "worker_send_task_events": True,
        "worker_consumer": "workers.consumer:Consumer",
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


# How many objects come into being before the collector looks at them: some 500 pushes.
_YOUNG_OBJECTS: Final = 20_000


def _transport(broker_url: str, settings: Settings) -> dict[str, Any]:
    """Choose what only one kind of broker knows."""
    kind = broker_url.partition("://")[0]
    ca_file = str(settings.broker_ca_file) if settings.broker_ca_file else None
    if kind in ("redis", "rediss"):
        return {
            "broker_transport": "workers.transport:Transport",
            "broker_transport_options": _redis_options(settings),
            "broker_use_ssl": tls_options(kind, ca_file),
            "task_queues": _queues({}),
        }
    if kind in ("amqp", "amqps"):
        return {
            "broker_use_ssl": tls_options(kind, ca_file),
            "broker_transport_options": {"confirm_publish": True, "write_timeout": 10},
            # A dead way is noticed after two to three of these: within a minute, with all the rest.
            "broker_heartbeat": 15,
            "task_default_queue_type": "quorum",
            "task_queues": _queues(dict(QUORUM_QUEUE_ARGUMENTS)),
        }
    return {"broker_transport_options": {"polling_interval": 0.01}, "task_queues": _queues({})}


def _redis_options(settings: Settings) -> dict[str, Any]:
    return {
        "visibility_timeout": settings.visibility_timeout_seconds,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 500,
        "unacked_mutex_expire": 30,
        "priority_steps": [0],
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "retry_on_timeout": False,
    }


def _queues(arguments: dict[str, Any]) -> tuple[Queue, ...]:
    """Each queue on an exchange of its own name, as a producer that only names the queue would make it."""
    return tuple(
        Queue(name, Exchange(name, type="direct"), routing_key=name, queue_arguments=arguments)
        for name in QUEUES
    )


def _connect_signals(app: Celery, runtime: Runtime) -> None:
    """Set up each process. The handlers are kept by the application, since signals hold them weakly."""

    def begin_process(**_: object) -> None:
        runtime.stop.begin_child()
        # What a process begins with stays; of what a push leaves behind, little is in cycles.
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS)

    def end_process(**_: object) -> None:
        runtime.close()

    def set_up_logs(**_: object) -> None:
        configure_logs(runtime.settings)

    app.pushfan = runtime
    app.pushfan_handlers = (begin_process, end_process, set_up_logs)
    signals.worker_process_init.connect(begin_process)
    signals.worker_process_shutdown.connect(end_process)
    signals.setup_logging.connect(set_up_logs)
