"""Publishing to the in-memory broker: what is on the queue, and what never gets there."""

import json
import re
import subprocess
import sys
import tomllib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery

import events
from events import DirectPush, Event, InvalidEvent, Message, Publisher, PublishFailed, TopicMessage, encode
from events.broker import Broker, BrokerFailed, Task, _Line
from events.testing import drain

ROOT = Path(__file__).resolve().parents[3]
MEMORY = "memory://"


def push(event_id: str = "e1", **fields: Any) -> DirectPush:
    """Build a direct push."""
    message = Message(title="Secret diagnosis", data={"password": "hunter2"})
    usual: dict[str, Any] = {"app": "shop", "id": event_id, "users": ["u7"], "message": message}
    return DirectPush(**(usual | fields))


def messages_on_the_queue() -> list[kombu.Message]:
    """Take all raw messages off the intake queue."""
    with kombu.Connection(MEMORY) as connection:
        queue = kombu.Queue("pushfan.intake")(connection.channel())
        return list(iter(lambda: queue.get(no_ack=True, accept=["json"]), None))


@pytest.fixture(autouse=True)
def empty_queue() -> None:
    """Take off what another test in this process left."""
    drain(MEMORY)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """Give a publisher to the in-memory broker."""
    with Publisher(MEMORY, app="shop") as publisher:
        yield publisher


def test_published_event_is_on_the_intake_queue(publisher: Publisher) -> None:
    """What was published comes out equal, and its id is returned."""
    event = push()
    assert publisher.publish(event).id == "e1"
    assert drain(MEMORY) == [event]


def test_message_is_what_celery_itself_would_send(publisher: Publisher) -> None:
    """Headers, properties and body of Celery's protocol 2, compared with Celery's own."""
    publisher.publish(push())
    (message,) = messages_on_the_queue()
    celery = Celery(set_as_current=False)
    headers, properties, body, _ = celery.amqp.as_task_v2(
        message.headers["id"], "pushfan.intake", kwargs=message.payload[1], ignore_result=True,
        origin=message.headers["origin"], argsrepr="()", kwargsrepr=message.headers["kwargsrepr"],
    )  # fmt: skip
    assert message.headers == headers
    assert message.payload == json.loads(json.dumps(body))
    assert properties.items() <= message.properties.items()
    assert message.properties["delivery_mode"] == 2
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")


def test_message_carries_the_wire_form(publisher: Publisher) -> None:
    """The body is the public contract, to the letter."""
    publisher.publish(push(message=Message(title="Hi")))
    (message,) = messages_on_the_queue()
    assert message.payload[:2] == [
        [],
        {"events": [
            {"version": 1, "kind": "direct", "app": "shop", "id": "e1", "users": ["u7"],
             "message": {"title": "Hi"}}
        ]},
    ]  # fmt: skip


def test_many_events_travel_in_few_messages_in_order(publisher: Publisher) -> None:
    """A hundred in a message, and none lost between two messages."""
    published = [push(f"e{n}") for n in range(250)]
    assert [queued.id for queued in publisher.publish_many(published)] == [event.id for event in published]
    messages = messages_on_the_queue()
    assert [len(message.payload[1]["events"]) for message in messages] == [100, 100, 50]
    ids = [wire["id"] for message in messages for wire in message.payload[1]["events"]]
    assert ids == [event.id for event in published]


def test_large_events_travel_in_more_messages(publisher: Publisher) -> None:
    """A message stays near 256 KiB, so that no worker chokes on one; an event is never cut."""
    users = [f"user-{n:020}" for n in range(10_000)]
    publisher.publish_many([push(f"e{n}", users=users) for n in range(5)])
    assert [len(message.payload[1]["events"]) for message in messages_on_the_queue()] == [1, 1, 1, 1, 1]


def test_no_events_are_no_messages(publisher: Publisher) -> None:
    """An empty list is not a mistake."""
    assert publisher.publish_many([]) == []
    assert messages_on_the_queue() == []


def test_repeated_message_has_the_same_task_id(publisher: Publisher) -> None:
    """Repeats are recognised in Flower and logs, other events are not taken for them."""
    for event in (push("a"), push("a"), push("b"), push("a", app="shop")):
        publisher.publish(event)
    first, repeated, other, again = [message.headers["id"] for message in messages_on_the_queue()]
    assert first == repeated == again == "f0d63f83-22f7-5faf-bb3b-9d519d05bd4a"
    assert first != other


def test_summary_says_whose_events_and_how_many_but_not_what(publisher: Publisher) -> None:
    """Flower and logs show argsrepr and kwargsrepr: ids are fit for them, content and users are not."""
    publisher.publish_many([push(f"order-{n}") for n in range(4)])
    publisher.publish(push("order-9"))
    many, one = messages_on_the_queue()
    assert many.headers["kwargsrepr"] == "4 events, app shop: order-0, order-1, order-2, …"
    assert one.headers["kwargsrepr"] == "1 event, app shop: order-9"
    assert many.headers["argsrepr"] == "()"


def test_events_of_another_app_are_refused_before_anything_is_sent(publisher: Publisher) -> None:
    """A service that was given one app cannot push as another by mistake."""
    with pytest.raises(InvalidEvent) as caught:
        publisher.publish_many([push("a"), push("b", app="bank"), push("c", app="clinic")])
    assert str(caught.value).splitlines() == [
        "1.app: must be shop, the publisher's app, not bank",
        "2.app: must be shop, the publisher's app, not clinic",
    ]
    assert drain(MEMORY) == []


def test_invalid_event_among_many_stops_all_of_them(publisher: Publisher) -> None:
    """Events that are built while they are published are all built before the first is sent."""
    with pytest.raises(InvalidEvent):
        publisher.publish_many(push(f"e{n}", users=[] if n == 150 else ["u7"]) for n in range(200))
    assert drain(MEMORY) == []


def test_only_events_can_be_published(publisher: Publisher) -> None:
    """A dictionary has not been validated: decode it first."""
    with pytest.raises(TypeError, match="not a dict"):
        publisher.publish({"kind": "direct"})  # type: ignore[arg-type]  # the very mistake


def test_publisher_without_an_app_publishes_for_all() -> None:
    """A gateway for several apps names the app in each event."""
    published: list[Event] = [push("a", app="bank"), push("b")]
    Publisher(MEMORY).publish_many(published)
    assert drain(MEMORY) == published


def test_connection_that_was_cut_meanwhile_is_replaced() -> None:
    """An idle connection that fails at its first use costs the caller nothing."""

    class CutLine(_Line):
        def __init__(self) -> None:
            self.is_closed = False

        def send(self, tasks: Sequence[Task]) -> None:
            raise BrokerFailed("reset by peer", is_uncertain=True)

        def close(self) -> None:
            self.is_closed = True

    broker, lines = Broker(MEMORY), [CutLine(), CutLine()]
    for line in lines:
        broker._keep(line)
    broker.send([Task(id="t1", kwargs={"events": [encode(push())]}, summary="")])
    assert drain(MEMORY) == [push()]
    assert lines[0].is_closed, "the other idle connection is no younger"


def test_publisher_without_a_broker_says_so() -> None:
    """It was made for transactions."""
    with pytest.raises(ValueError, match="no broker"):
        Publisher(app="shop").publish(push())


@pytest.mark.parametrize("url", ["valkey://h", "http://h", "h:6379", "", "sqs://", "sentinel://h"])
def test_unknown_broker_is_refused_at_once(url: str) -> None:
    """A wrong URL is found when the service starts, with the schemes that exist."""
    with pytest.raises(ValueError, match=r"redis://.*amqp://.*Valkey is redis://"):
        Publisher(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2@broker:6379/0?password=hunter2", "redis://broker:6379/0"),
        ("amqps://me:hunter2@broker/vhost", "amqps://broker/vhost"),
        ("amqp://:hunter2@a:5672;amqp://:hunter2@b:5672", "amqp://a:5672;amqp://b:5672"),
        ("redis://:hunt@er2@broker:6379/0", "redis://broker:6379/0"),
        ("redis://:12?hunter2@broker:6379/0", "redis://…"),
        ("redis://:12#hunter2@broker:6379/0", "redis://…"),
    ],
)
def test_publisher_shows_no_password(url: str, shown: str) -> None:
    """It appears in logs and tracebacks."""
    assert repr(Publisher(url, app="shop")) == f"Publisher({shown!r}, app='shop')"
    assert "hunt" not in str(PublishFailed(shown, "refused", is_uncertain=False))


@pytest.mark.parametrize("character", "/?#;")
def test_password_that_breaks_the_url_is_refused_without_being_shown(character: str) -> None:
    """The library's own error would quote half of it."""
    url = "redis://:{}{}er2@broker:6379/0".format("hunt", character)
    with pytest.raises(ValueError, match="no valid port") as caught:
        Publisher(url)
    assert "hunt" not in "".join(traceback.format_exception(caught.value))


def test_importing_events_imports_nothing_else() -> None:
    """A backend that only builds or validates events needs no broker's library."""
    code = (
        "import sys; before = set(sys.modules); import events, events.testing;"
        "events.DirectPush(app='a', users=['u'], message=events.Message(title='t'));"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['events']"


def test_everything_exported_exists() -> None:
    """`from events import *` gives what the documentation names."""
    assert [name for name in events.__all__ if not hasattr(events, name)] == []
    assert {"BucketWrite", "TopicMessage", "DirectPush", "Message", "Publisher", "decode"} <= set(
        events.__all__
    )


def test_examples_of_the_readme_work() -> None:
    """What a backend's author copies first runs as it stands."""
    readme = (ROOT / "events" / "README.md").read_text()
    publishing, testing = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    exec(publishing.replace("pushfan_events", "events").replace("redis://broker:6379/0", MEMORY), {})
    assert [event.kind for event in drain(MEMORY)] == ["direct", "topic", "bucket"]
    names: dict[str, Any] = {}
    exec(testing.replace("pushfan_events", "events"), names)
    names["test_news_is_announced"]()


def test_both_distributions_have_the_same_version() -> None:
    """The wire contract is released once, under two names."""
    ours, client = (
        tomllib.loads((ROOT / path).read_text())["project"]
        for path in ("pyproject.toml", "events/pyproject.toml")
    )
    assert client["version"] == ours["version"]
    assert client["requires-python"] == ours["requires-python"]


def test_topic_and_bucket_events_are_published_alike(publisher: Publisher) -> None:
    """The broker sees no difference between the kinds."""
    topic = TopicMessage(app="shop", id="t", topic="news", message=Message(title="Sale"))
    bucket = events.BucketWrite(
        app="shop", id="b", bucket="orders", object="o1", change=events.Change.DELETED
    )
    publisher.publish_many([topic, bucket])
    assert drain(MEMORY) == [topic, bucket]
