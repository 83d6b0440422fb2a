"""The proxy's faults, on a real Valkey and a real PostgreSQL: each is what a client sees when it really happens."""

import socket
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from tests.chaos.proxy import Proxy
from tests.conftest import Server

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="packets are dropped by a filter of Linux")


@pytest.fixture
def broker(valkey: Server) -> Iterator[Proxy]:
    """Give a proxy before the Valkey."""
    with Proxy(valkey.url, seed=1) as proxy:
        yield proxy


@pytest.fixture
def database(database_url: str) -> Iterator[Proxy]:
    """Give a proxy before this test's database, which has one table."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE written (number int)")
    with Proxy(database_url, seed=1) as proxy:
        yield proxy


@pytest.fixture
def client(broker: Proxy) -> Iterator[redis.Redis]:
    """Give a client behind the proxy that never tries again by itself."""
    with redis.Redis.from_url(broker.url, socket_timeout=1, retry=None) as client:
        client.ping()
        yield client


def written(database_url: str) -> list[int]:
    """Read what was committed, past the proxy."""
    with psycopg.connect(database_url) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM written ORDER BY 1")]


def test_proxy_passes_both_servers(client: redis.Redis, database: Proxy) -> None:
    """Long values come through whole, in both directions and protocols."""
    client.set("long", "x" * 3_000_000)
    assert client.strlen("long") == len(client.get("long") or "") == 3_000_000
    with psycopg.connect(database.url) as connection:
        row = connection.execute("SELECT repeat(%s, 10)", ["y" * 300_000]).fetchone()
        assert row == ("y" * 3_000_000,)


def test_refused_port_is_closed_until_healed(broker: Proxy, client: redis.Redis) -> None:
    """What is open is cut, a new connection is refused, and after healing it passes."""
    assert broker.refuse() == 1
    with pytest.raises(redis.ConnectionError):
        client.ping()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", broker.port))
    broker.heal()
    assert client.ping()


@only_linux
def test_black_hole_acknowledges_nothing(broker: Proxy, client: redis.Redis) -> None:
    """Neither an answer nor a connection is had, and the kernel sees no acknowledgement."""
    sock = socket.create_connection(("127.0.0.1", broker.port), timeout=5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    sock.sendall(b"PING\r\n")
    assert sock.recv(10) == b"+PONG\r\n"
    broker.black_hole()
    sock.sendall(b"PING\r\n")
    with pytest.raises(TimeoutError, match=r"Errno 110"):  # the kernel's, not Python's
        sock.recv(10)
    sock.close()
    with pytest.raises(redis.TimeoutError):
        client.ping()
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", broker.port), timeout=0.3)


def test_half_open_connection_stays_so_when_new_ones_pass(broker: Proxy) -> None:
    """Healing brings back the way, not what a firewall has forgotten."""
    sock = socket.create_connection(("127.0.0.1", broker.port), timeout=0.3)
    sock.sendall(b"PING\r\n")
    assert sock.recv(10) == b"+PONG\r\n"
    broker.black_hole()
    broker.heal()
    sock.sendall(b"PING\r\n")
    with sock, pytest.raises(TimeoutError):
        sock.recv(10)
    with redis.Redis.from_url(broker.url) as client:
        assert client.ping()


def test_delay_holds_each_way_and_keeps_the_order(broker: Proxy, client: redis.Redis) -> None:
    """An answer takes the delay twice, also while the delay is being lifted."""
    broker.delay(0.1)
    began = time.monotonic()
    assert client.ping()
    assert time.monotonic() - began >= 0.2
    with client.pipeline(transaction=False) as pipeline:
        for number in range(2000):
            pipeline.rpush("numbers", f"{number:0100}")
        broker.heal()
        pipeline.execute()
    assert [int(number) for number in client.lrange("numbers", 0, -1)] == list(range(2000))


def test_cut_resets(broker: Proxy, client: redis.Redis) -> None:
    """A client in the middle of waiting sees a reset at once, not an end."""
    sock = socket.create_connection(("127.0.0.1", broker.port), timeout=5)
    sock.sendall(b"PING\r\n")
    sock.recv(10)
    assert broker.cut() == 2
    with sock, pytest.raises(ConnectionResetError):
        sock.recv(10)
    assert broker.connections() == 0


def test_reply_of_a_pop_is_lost_with_its_element(broker: Proxy, client: redis.Redis, valkey: Server) -> None:
    """An empty pop passes; one that took an element is cut, and the element is on no list."""
    broker.drop_pops()
    assert client.brpop(["queue"], timeout=0.05) is None
    with redis.Redis.from_url(valkey.url) as other:
        other.lpush("queue", "element")
        with pytest.raises(redis.ConnectionError):
            client.brpop(["queue"])
        assert other.exists("queue") == 0
        other.lpush("queue", "next")
    assert broker.struck == {"pop": 1}
    broker.heal()
    assert client.brpop(["queue"]) == (b"queue", b"next")


@pytest.mark.parametrize("is_pipelined", [False, True], ids=["query", "pipeline"])
def test_commit_is_done_when_its_reply_is_lost(
    database: Proxy, database_url: str, *, is_pipelined: bool
) -> None:
    """Psycopg loses the connection inside `COMMIT`, however it sends it, and the row is there."""
    connection = psycopg.connect(database.url, autocommit=True)
    database.cut_commits()
    with pytest.raises(psycopg.OperationalError):
        _write(connection, 7, is_pipelined=is_pipelined)
    assert connection.closed
    assert written(database_url) == [7]
    assert database.struck == {"commit": 1}


def _write(connection: psycopg.Connection, number: int, *, is_pipelined: bool) -> None:
    if is_pipelined:
        with connection.pipeline(), connection.transaction():
            connection.execute("INSERT INTO written VALUES (%s)", [number])
    else:
        with connection.transaction():
            connection.execute("INSERT INTO written VALUES (%s)", [number])


def test_statement_by_itself_is_a_commit(database: Proxy, database_url: str) -> None:
    """It is done, and its reply is lost with the connection."""
    connection = psycopg.connect(database.url, autocommit=True)
    database.cut_commits()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("INSERT INTO written VALUES (%s)", [7])
    assert written(database_url) == [7]
    assert database.struck == {"commit": 1}


def test_nothing_is_cut_within_a_transaction(database: Proxy, database_url: str) -> None:
    """Statements before its end pass, also one with a text that says so."""
    with psycopg.connect(database.url, autocommit=True) as connection, connection.transaction():
        database.cut_commits()
        connection.execute("INSERT INTO written VALUES (1)")
        connection.execute("SELECT %s", ["COMMIT"])
        assert not database.struck
        database.cut_commits(0)
    assert written(database_url) == [1]


def test_seed_chooses_which_replies_are_lost(valkey: Server) -> None:
    """The same seed loses the same ones, another loses others."""

    def lost(seed: int) -> list[int]:
        with Proxy(valkey.url, seed=seed) as proxy, redis.Redis.from_url(proxy.url, retry=None) as client:
            proxy.drop_pops(0.5)
            return [number for number in range(20) if _is_pop_lost(client)]

    assert lost(1) == lost(1) != lost(2)


def _is_pop_lost(client: redis.Redis) -> bool:
    client.lpush("queue", "element")
    try:
        client.brpop(["queue"])
    except redis.ConnectionError:
        return True
    return False


def test_server_that_is_down_is_seen_as_down() -> None:
    """A client's connection is cut, for nobody listens behind the proxy; closing twice does no harm."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with Proxy(f"redis://127.0.0.1:{port}/0") as proxy, redis.Redis.from_url(proxy.url, retry=None) as client:
        with pytest.raises(redis.ConnectionError):
            client.ping()
        proxy.close()


def test_address_keeps_everything_but_host_and_port(valkey: Server) -> None:
    """User, password, path and options are the server's."""
    port = urlsplit(valkey.url).port
    with Proxy(f"redis://me:secret@127.0.0.1:{port}/3?a=b") as proxy:
        assert proxy.url == f"redis://me:secret@127.0.0.1:{proxy.port}/3?a=b"
