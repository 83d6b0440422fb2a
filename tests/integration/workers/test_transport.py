"""The connection for remote control must not keep the main loop: kombu would wait on it without end."""

import time
from collections.abc import Iterator

import pytest
from kombu import Connection, Exchange, Queue

from workers.transport import Channel


@pytest.fixture
def channel(broker_url: str) -> Iterator[Channel]:
    """Give a channel that has subscribed, and read the confirmation."""
    with Connection(broker_url, transport="workers.transport:Transport") as connection:
        channel = connection.channel()
        queue = Queue("control", Exchange("control", type="fanout"))(channel)
        queue.declare()
        channel.basic_consume("control", no_ack=True, callback=lambda _: None, consumer_tag="it")
        # As kombu's poller does.
        channel.subclient.connection = channel.subclient.connection_pool.get_connection()
        channel._subscribe()
        channel._receive()
        yield channel


@pytest.mark.timeout(30)
def test_subscription_without_news_is_read_for_a_moment_only(channel: Channel) -> None:
    """Whatever said that there was something to read, the worker goes on."""
    began = time.monotonic()
    assert not channel._receive()
    assert time.monotonic() - began < 10


@pytest.mark.timeout(30)
def test_subscription_that_is_opened_anew_hears_again(channel: Channel, broker_url: str) -> None:
    """The poller finds it without a socket and unsubscribed, and sees to both; what is published then arrives."""
    listener = channel.subclient.connection
    listener.disconnect()
    channel._receive()
    assert (listener._sock, channel._in_listen) == (None, None)
    channel._subscribe()
    channel._receive()
    with (
        Connection(broker_url, transport="workers.transport:Transport") as other,
        other.Producer() as producer,
    ):
        control = Exchange("control", type="fanout")
        producer.publish({"hello": 1}, exchange=control, declare=[control])
    deadline = time.monotonic() + 10
    while not channel._receive():
        assert time.monotonic() < deadline


def test_channel_keeps_its_client_as_long_as_its_pool(channel: Channel) -> None:
    """A client is not made for each operation, and after a fork it is not the parent's."""
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
    channel._disconnect_pools()
    with channel.conn_or_acquire() as anew:
        assert anew is not first
        assert anew.ping()
