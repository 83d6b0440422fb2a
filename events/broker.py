"""A connection to the broker that puts Celery messages (protocol 2) on the intake queue, or fails soon.

kombu is imported when the first message is sent, so that a program that only builds events does not need it.
"""

from __future__ import annotations

import importlib
import os
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from .names import QUEUE_INTAKE, QUORUM_QUEUE_ARGUMENTS, TASK_INTAKE

CONNECT_TIMEOUT_SECONDS: Final = 3
SOCKET_TIMEOUT_SECONDS: Final = 5
# An idle connection may have been cut meanwhile, which shows at once and only when it is used: then one new
# connection is worth a try. Later failures are the broker's own, and the caller has waited long enough.
_STALE_SHOWS_WITHIN_SECONDS: Final = 1.0
_MESSAGES_IN_A_PIPELINE: Final = 100

# https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/index.html
_DRIVER_OF_SCHEME: Final[Mapping[str, str]] = {
    "redis": "redis",
    "rediss": "redis",
    "redis+socket": "redis",
    "amqp": "amqp",
    "amqps": "amqp",
    "memory": "memory",
}
_TRANSPORT_OF_DRIVER: Final[Mapping[str, str]] = {"redis": f"{__package__}.redis_transport:Transport"}
# Redis: `retry_on_timeout` would repeat a push behind our back and forbids pipelines.
_TRANSPORT_OPTIONS: Final[Mapping[str, dict[str, Any]]] = {
    "redis": {
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "retry_on_timeout": False,
    },
    "amqp": {
        "confirm_publish": True,
        "read_timeout": SOCKET_TIMEOUT_SECONDS,
        "write_timeout": SOCKET_TIMEOUT_SECONDS,
    },
    "memory": {},
}


class BrokerFailed(Exception):
    """The broker did not confirm; `is_uncertain` tells whether it may have the messages all the same."""

    # Pickle makes it of its words and adds the rest.
    def __init__(self, reason: str, *, is_uncertain: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_uncertain = is_uncertain


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One Celery message to the intake queue; Flower and logs show `summary` in place of its arguments."""

    id: str
    kwargs: Mapping[str, Any]
    summary: str


class Broker:
    """Send tasks over connections that are opened when needed and kept for the next call.

    Safe for threads (each call has a connection for itself) and for forks (a child opens its own).
    """

    def __init__(self, url: str, *, ca_file: str | None = None) -> None:
        scheme = _check_url(url)
        self._url = url
        self._driver = _DRIVER_OF_SCHEME[scheme]
        self._tls = tls_options(scheme, ca_file)
        self._idle: list[_Line] = []
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self.name = without_secrets(url)

    def send(self, tasks: Sequence[Task]) -> None:
        """Put the tasks on the intake queue, in order.

        Raises `BrokerFailed`, in less than 10 seconds for each broker of the URL.
        """
        started = time.monotonic()
        if (line := self._take_idle()) is not None:
            try:
                line.send(tasks)
            except BrokerFailed:
                self.close()  # the other idle connections are no younger
                if time.monotonic() - started > _STALE_SHOWS_WITHIN_SECONDS:
                    raise
            else:
                self._keep(line)
                return
        self._send_on_new_line(tasks)

    def close(self) -> None:
        """Close all idle connections; the next `send` opens a new one."""
        while (line := self._take_idle()) is not None:
            line.close()

    def _send_on_new_line(self, tasks: Sequence[Task]) -> None:
        line = _connect(self._url, self._driver, self._tls)
        line.send(tasks)
        self._keep(line)

    def _take_idle(self) -> _Line | None:
        with self._lock:
            if self._process_id != os.getpid():  # forked: these sockets are the parent's, leave them alone
                self._process_id, self._idle = os.getpid(), []
            return self._idle.pop() if self._idle else None

    def _keep(self, line: _Line) -> None:
        with self._lock:
            self._idle.append(line)


class _Line:
    """One connection, used by one caller at a time and closed by its first failure.

    Also by a caller's own: once a time limit has interrupted it, the next caller would read its answer.
    """

    def __init__(self, connection: Any, producer: Any) -> None:
        self._connection = connection
        self._producer = producer

    def send(self, tasks: Sequence[Task]) -> None:
        """Publish the tasks; on Redis in pipelines."""
        batch = self._producer.batch(max_size=_MESSAGES_IN_A_PIPELINE)
        try:
            with _failures(self._connection, is_uncertain=True), batch:
                for task in tasks:
                    self._publish(task)
        except BaseException:
            self.close()
            raise

    def _publish(self, task: Task) -> None:
        self._producer.publish(
            ((), task.kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}),
            exchange="",
            routing_key=QUEUE_INTAKE,
            headers=_headers(task),
            correlation_id=task.id,
            reply_to="",
            delivery_mode="persistent",
            retry=False,
            timeout=SOCKET_TIMEOUT_SECONDS,
            confirm_timeout=SOCKET_TIMEOUT_SECONDS,
        )

    def close(self) -> None:
        """Let go of the connection without waiting for the broker's word."""
        self._connection.collect()


def _connect(url: str, driver: str, tls: dict[str, Any] | None) -> _Line:
    """Open a connection and, on RabbitMQ, declare the queue: without one a message is dropped silently."""
    kombu = _import_kombu()
    connection = kombu.Connection(
        url,
        ssl=tls,
        transport=_TRANSPORT_OF_DRIVER.get(driver),
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        transport_options=dict(_TRANSPORT_OPTIONS[driver]),
    )
    try:
        with _failures(connection, is_uncertain=False):
            # Each broker of the URL once; the default waits 2 s and tries again.
            connection.ensure_connection(max_retries=url.count(";"))
            channel = connection.channel()
            if driver == "amqp":
                arguments = dict(QUORUM_QUEUE_ARGUMENTS)
                kombu.Queue(QUEUE_INTAKE, queue_arguments=arguments)(channel).queue_declare()
    except BrokerFailed:
        connection.collect()
        raise
    return _Line(connection, kombu.Producer(channel, serializer="json", auto_declare=False))


def tls_options(scheme: str, ca_file: str | None) -> dict[str, Any] | None:
    """Ask for a certificate that is valid for the host: by itself kombu takes any from rediss://."""
    if scheme == "rediss":
        return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, "ssl_ca_certs": ca_file}
    if scheme == "amqps":  # no server_hostname here means the one of the URL
        return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None, "ca_certs": ca_file}
    return None


def _import_kombu() -> Any:  # its annotations do not cover what is used here
    try:
        return importlib.import_module("kombu")
    except ImportError as error:
        raise ImportError(
            "publishing over a broker needs kombu: pip install 'pushfan-events[redis]'"
        ) from error


@contextmanager
def _failures(connection: Any, *, is_uncertain: bool) -> Iterator[None]:
    """Map the errors of kombu and its drivers into `BrokerFailed`."""
    kombu = importlib.import_module("kombu.exceptions")
    wrapped = (kombu.OperationalError, kombu.BatchPublishError)
    try:
        yield
    except wrapped as error:
        raise BrokerFailed(_describe(error.__cause__ or error), is_uncertain=is_uncertain) from error
    except (OSError, *connection.connection_errors, *connection.channel_errors) as error:
        raise BrokerFailed(_describe(error), is_uncertain=is_uncertain) from error


def _headers(task: Task) -> dict[str, Any]:
    """Fill in https://docs.celeryq.dev/en/stable/internals/protocol.html#version-2, as Celery does."""
    return {
        "lang": "py",
        "task": TASK_INTAKE,
        "id": task.id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task.id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": task.summary,
        "origin": "pushfan-events",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _check_url(url: str) -> str:
    """Return the scheme of a URL that a connection can be made from."""
    parts = urlsplit(url.split(";", 1)[0])
    if parts.scheme not in _DRIVER_OF_SCHEME:
        known = ", ".join(f"{name}://" for name in _DRIVER_OF_SCHEME)
        raise ValueError(f"the broker's URL must begin with one of {known} (Valkey is redis://)")
    try:
        _ = parts.port
    except ValueError:  # its text quotes what stands before the wrong character: part of the password
        raise ValueError(
            "the broker's URL has no valid port; / ? # and @ in a password are written %2F %3F %23 and %40"
        ) from None
    return parts.scheme


def without_secrets(url: str) -> str:
    """Name the broker by scheme, host and path alone: user, password and options may be secret."""
    brokers = re.split(r";(?=[a-z+]+://)", url)  # kombu takes several
    return ";".join(map(_one_without_secrets, brokers))


def _one_without_secrets(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    address, *options = re.split("[?#]", rest, maxsplit=1)
    if options and "@" in options[0]:  # perhaps a password with a question mark: nothing can be told apart
        return f"{scheme}{separator}…"
    return f"{scheme}{separator}{address.rpartition('@')[2]}"


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
