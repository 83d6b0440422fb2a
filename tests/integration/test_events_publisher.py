"""The publisher against fakeredis, a real Valkey, RabbitMQ where there is one, and broken brokers."""

import base64
import json
import os
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fakeredis
import kombu
import pytest
import redis
import trustme
from celery import Celery
from celery.contrib.testing.worker import start_worker

from events import DirectPush, Message, Publisher, PublishFailed
from events.testing import drain, events_in_redis

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FAILURE_SECONDS = 10


def push(event_id: str = "e1") -> DirectPush:
    """Build a direct push."""
    return DirectPush(app="shop", id=event_id, users=["u7"], message=Message(title="Hi"))


@pytest.fixture
def fake_redis() -> Iterator[fakeredis.TcpFakeServer]:
    """Give a fakeredis that kombu can publish to."""
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["redis", "amqp"])
def every_broker_url(request: pytest.FixtureRequest) -> str:
    """Give the URL of an empty broker of each kind; RabbitMQ only where there is one."""
    if request.param == "redis":
        return str(request.getfixturevalue("broker_url"))
    return str(request.getfixturevalue("amqp_url"))


@pytest.fixture
def amqp_url() -> str:
    """Give the URL of a RabbitMQ whose intake queue is there and empty."""
    if (url := os.environ.get("PUSHFAN_TEST_AMQP_URL")) is None:
        pytest.skip("PUSHFAN_TEST_AMQP_URL names no RabbitMQ")
    with Publisher(url) as publisher:
        publisher.publish(push("leftover"))
    drain(url)
    return url


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Give a port that takes connections and never answers, like a broker behind a broken network."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsDoor:
    """A port on which a broker is reached through TLS, and the authority that signed its certificate."""

    port: int
    ca_file: str


class TlsForwarder(socketserver.ThreadingTCPServer):
    """Take TLS connections and forward their bytes to a broker that speaks none itself."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, broker: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), TlsForwarder.Handler)
        self.context = context
        self.broker = broker

    class Handler(socketserver.BaseRequestHandler):
        """One connection."""

        server: "TlsForwarder"

        def handle(self) -> None:
            """Copy bytes both ways until either side ends."""
            with suppress(OSError), ExitStack() as stack:  # a client that refuses the certificate hangs up
                client = stack.enter_context(self.server.context.wrap_socket(self.request, server_side=True))
                broker = stack.enter_context(socket.create_connection(self.server.broker))
                threading.Thread(target=self.forward, args=(broker, client), daemon=True).start()
                self.forward(client, broker)

        @staticmethod
        def forward(source: socket.socket, target: socket.socket) -> None:
            """Copy bytes until the source has no more."""
            with suppress(OSError):
                while data := source.recv(65536):
                    target.sendall(data)


@pytest.fixture
def tls_door(broker_url: str, tmp_path: Path) -> Iterator[TlsDoor]:
    """Give the broker behind TLS, with a certificate of an authority that no system trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    broker = urlsplit(broker_url)
    with TlsForwarder(context, (broker.hostname or "", broker.port or 0)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield TlsDoor(port=server.server_address[1], ca_file=str(tmp_path / "ca.pem"))
        server.shutdown()
        thread.join()


def url_of(server: fakeredis.TcpFakeServer) -> str:
    """Return the broker's URL of a fakeredis server."""
    return f"redis://127.0.0.1:{server.server_address[1]}/0"


def test_bytes_on_the_wire_to_redis(fake_redis: fakeredis.TcpFakeServer) -> None:
    """The key, the envelope and the body, as a Celery worker in any language pops them."""
    with Publisher(url_of(fake_redis), app="shop") as publisher:
        publisher.publish(push())
    client = fakeredis.FakeRedis(server=fake_redis.fake_server)
    assert client.keys() == [b"pushfan.intake"]
    (raw,) = client.lrange("pushfan.intake", 0, -1)
    message = json.loads(raw)
    task_id = "dae4f88e-2549-5419-b7de-55774f69c134"
    tag = message["properties"].pop("delivery_tag")
    assert message == {
        "body": base64.b64encode(
            b'[[], {"events": [{"version": 1, "kind": "direct", "app": "shop", "id": "e1", "users": ["u7"],'
            b' "message": {"title": "Hi"}}]},'
            b' {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
        ).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": "pushfan.intake", "id": task_id, "root_id": task_id, "parent_id": None,
            "argsrepr": "()", "kwargsrepr": "1 event, app shop: e1", "origin": "pushfan-events",
            "ignore_result": True, "retries": 0, "timelimit": [None, None], "eta": None, "expires": None,
            "group": None, "group_index": None, "shadow": None, "replaced_task_nesting": 0,
            "stamped_headers": None, "stamps": {},
        },
        "properties": {
            "correlation_id": task_id, "reply_to": "", "delivery_mode": 2, "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": "pushfan.intake"}, "body_encoding": "base64",
        },
    }  # fmt: skip
    assert tag


def test_events_can_be_read_back_from_fakeredis(fake_redis: fakeredis.TcpFakeServer) -> None:
    """A backend's test looks at its fakeredis and sees events, oldest first."""
    published = [push(f"e{n}") for n in range(150)]
    with Publisher(url_of(fake_redis), app="shop") as publisher:
        publisher.publish_many(published)
    client = fakeredis.FakeRedis(server=fake_redis.fake_server)
    assert events_in_redis(client) == published
    assert client.llen("pushfan.intake") == 2


def test_any_celery_worker_understands_the_message(broker_url: str) -> None:
    """A plain Celery application with a task of that name gets the events as keyword arguments."""
    received: list[Any] = []
    app = Celery(broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue="pushfan.intake", task_ignore_result=True, worker_hijack_root_logger=False
    )

    @app.task(name="pushfan.intake", bind=True, shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def intake(self: Any, *, events: list[dict[str, Any]]) -> None:
        received.append((self.request.id, self.request.kwargsrepr, events))

    with start_worker(app, perform_ping_check=False, shutdown_timeout=30), Publisher(broker_url) as publisher:
        publisher.publish(push())
        deadline = time.monotonic() + 30
        while not received and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [(summary, events) for _, summary, events in received] == [
        ("1 event, app shop: e1",
         [{"version": 1, "kind": "direct", "app": "shop", "id": "e1", "users": ["u7"],
           "message": {"title": "Hi"}}])
    ]  # fmt: skip


class PatientRedis(socketserver.ThreadingTCPServer):
    """A broker that answers pushes only once it has seen as many as it waits for."""

    daemon_threads = True
    awaited = 25

    class Handler(socketserver.StreamRequestHandler):
        """One connection."""

        def handle(self) -> None:
            """Answer as Redis does, the pushes last."""
            pushes = 0
            while command := self.read_command():
                if command[0].upper() == b"LPUSH":
                    pushes += 1
                    if pushes == PatientRedis.awaited:
                        self.wfile.write(b":1\r\n" * pushes)
                else:
                    self.wfile.write(
                        {b"PING": b"+PONG\r\n", b"HELLO": b"%1\r\n+proto\r\n:3\r\n"}.get(
                            command[0], b"+OK\r\n"
                        )
                    )

        def read_command(self) -> list[bytes]:
            """Read https://redis.io/docs/latest/develop/reference/protocol-spec/#sending-commands-to-a-redis-server."""
            count = self.rfile.readline()[1:]
            sizes_and_texts = [
                self.rfile.read(int(self.rfile.readline()[1:]) + 2) for _ in range(int(count or 0))
            ]
            return [text[:-2] for text in sizes_and_texts]


def test_many_messages_share_a_round_trip() -> None:
    """2,500 events are 25 messages, all sent before the broker has answered the first."""
    with PatientRedis(("127.0.0.1", 0), PatientRedis.Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Publisher(f"redis://127.0.0.1:{server.server_address[1]}/0") as publisher:
                queued = publisher.publish_many([push(f"e{n}") for n in range(100 * PatientRedis.awaited)])
        finally:
            server.shutdown()
            thread.join()
    assert len(queued) == 2_500


def test_threads_share_a_publisher(every_broker_url: str) -> None:
    """A web server's threads publish at the same time; nothing is lost or mixed up."""
    published = [push(f"e{n}") for n in range(400)]
    with Publisher(every_broker_url) as publisher, ThreadPoolExecutor(8) as threads:
        assert [queued.id for queued in threads.map(publisher.publish, published)] == [
            e.id for e in published
        ]
    assert sorted(event.id for event in drain(every_broker_url)) == sorted(event.id for event in published)


def test_forked_children_publish_over_connections_of_their_own(every_broker_url: str) -> None:
    """A preforking server makes its publisher, and uses it, before it forks."""
    code = f"""
import os
from events import DirectPush, Message, Publisher
publisher = Publisher({every_broker_url!r})
def publish(name):
    for n in range(50):
        event = DirectPush(app="shop", id=f"{{name}}-{{n}}", users=["u"], message=Message(title="Hi"))
        publisher.publish(event)
publish("before")
children = []
for name in ("a", "b"):
    if (child := os.fork()) == 0:
        publish(name)
        os._exit(0)
    children.append(child)
publish("after")
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    ids = [event.id for event in drain(every_broker_url)]
    assert sorted(ids) == sorted(f"{name}-{n}" for name in ("before", "after", "a", "b") for n in range(50))


def test_connection_that_was_cut_is_replaced(broker_url: str) -> None:
    """A broker that was restarted while nothing was published costs the caller nothing."""
    with redis.Redis.from_url(broker_url) as client, Publisher(broker_url) as publisher:
        publisher.publish(push("before"))
        for connection in client.client_list():
            if connection["id"] != str(client.client_id()):
                client.client_kill_filter(_id=connection["id"])
        publisher.publish_many([push("after")])
    assert [event.id for event in drain(broker_url)] == ["before", "after"]


def test_second_broker_is_used_while_the_first_is_down(broker_url: str) -> None:
    """A cluster is named by several URLs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Publisher(f"redis://127.0.0.1:{port}/0;{broker_url}") as publisher:
        publisher.publish(push())
    assert drain(broker_url) == [push()]


def test_interrupted_call_leaves_no_connection_for_the_next(broker_url: str) -> None:
    """A time limit strikes between a request and its answer: the next caller must not read that answer."""

    class TimeLimit(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise TimeLimit

    with redis.Redis.from_url(broker_url) as client, Publisher(broker_url) as publisher:
        publisher.publish(push("before"))
        client.client_pause(30_000, all=False)
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(TimeLimit):
                publisher.publish(push("interrupted"))
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            client.client_unpause()
        deadline = time.monotonic() + 10
        while len(client.client_list()) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(client.client_list()) == 1, "the interrupted connection is still open"
        publisher.publish(push("after"))
    assert [event.id for event in drain(broker_url)][-1] == "after"


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_broker_that_is_down_fails_with_its_name_and_without_its_password(scheme: str) -> None:
    """Nothing was sent, and the error says so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(PublishFailed) as caught:
        Publisher(f"{scheme}://user:hunter2@127.0.0.1:{port}/0").publish(push())
    assert time.monotonic() - started < LONGEST_FAILURE_SECONDS
    assert caught.value.broker == f"{scheme}://127.0.0.1:{port}/0"
    assert not caught.value.is_uncertain
    assert "hunter2" not in str(caught.value)


def test_certificate_of_the_broker_is_checked_against_the_given_authority(
    tls_door: TlsDoor, broker_url: str
) -> None:
    """Companies run brokers under an authority of their own."""
    with Publisher(f"rediss://127.0.0.1:{tls_door.port}/0", ca_file=tls_door.ca_file) as publisher:
        publisher.publish(push())
    assert drain(broker_url) == [push()]


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_untrusted_certificate_is_refused(tls_door: TlsDoor, broker_url: str, scheme: str) -> None:
    """Whoever stands between backend and broker reads no event and no password."""
    with pytest.raises(PublishFailed, match=r"(?i)certificate") as caught:
        Publisher(f"{scheme}://127.0.0.1:{tls_door.port}/0").publish(push())
    assert not caught.value.is_uncertain
    assert drain(broker_url) == []


def test_certificate_for_another_host_is_refused(tls_door: TlsDoor) -> None:
    """A trusted authority is not enough."""
    with pytest.raises(PublishFailed, match=r"(?i)certificate"):
        Publisher(f"rediss://localhost:{tls_door.port}/0", ca_file=tls_door.ca_file).publish(push())


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_broker_that_never_answers_fails_soon(scheme: str, silent_port: int) -> None:
    """A publisher does not hang with its caller's request."""
    started = time.monotonic()
    with pytest.raises(PublishFailed):
        Publisher(f"{scheme}://127.0.0.1:{silent_port}/0").publish(push())
    assert time.monotonic() - started < LONGEST_FAILURE_SECONDS


def test_broker_that_falls_silent_on_an_open_connection_fails_soon(broker_url: str) -> None:
    """The answer is unknown then, and the error says that repeating is safe."""
    with redis.Redis.from_url(broker_url) as client, Publisher(broker_url) as publisher:
        publisher.publish(push("before"))
        client.client_pause(30_000, all=False)  # writes alone: the test can still say unpause
        started = time.monotonic()
        try:
            with pytest.raises(PublishFailed, match="with the same ids is safe") as caught:
                publisher.publish_many([push("after")])
            took = time.monotonic() - started
        finally:
            client.client_unpause()
    assert took < LONGEST_FAILURE_SECONDS
    assert caught.value.is_uncertain


def test_broker_without_memory_refuses_and_recovers(broker_url: str) -> None:
    """The same publisher goes on when the broker does."""
    with redis.Redis.from_url(broker_url) as client, Publisher(broker_url) as publisher:
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(PublishFailed, match="OutOfMemory"):
                publisher.publish_many([push(f"e{n}") for n in range(300)])
        finally:
            client.config_set("maxmemory", "0")
        publisher.publish(push("after"))
    assert [event.id for event in drain(broker_url)] == ["after"]


def test_rabbitmq_keeps_events_in_a_durable_quorum_queue(amqp_url: str) -> None:
    """Confirmed one by one, in order, in a queue with exactly the arguments that workers declare."""
    published = [push(f"e{n}") for n in range(150)]
    with Publisher(amqp_url, app="shop") as publisher:
        publisher.publish_many(published)
    with kombu.Connection(amqp_url) as connection:
        queue = kombu.Queue("pushfan.intake", durable=True, queue_arguments={"x-queue-type": "quorum"})
        queue(connection.channel()).queue_declare()
    assert drain(amqp_url) == published


def test_connection_to_rabbitmq_that_was_cut_is_replaced(amqp_url: str) -> None:
    """A firewall dropped the idle connection: the first publish after that succeeds all the same."""
    with Publisher(amqp_url) as publisher:
        publisher.publish(push("before"))
        assert publisher._broker is not None
        (line,) = publisher._broker._idle
        line._connection.connection.sock.shutdown(socket.SHUT_RDWR)
        publisher.publish(push("after"))
    assert [event.id for event in drain(amqp_url)] == ["before", "after"]
