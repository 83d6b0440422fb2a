"""What anybody with write access can put on a Redis queue: no element of it ends the worker."""

import base64
import json
import time
import uuid
from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from events import DirectPush, Message, Publisher
from events.names import QUEUE_INTAKE
from registry import apps
from registry.database import Database
from workers.app import QUEUES, create_app
from workers.settings import load_settings


def element(body: object, *, encoding: str = "utf-8", body_encoding: str = "base64") -> str:
    """Write a message as kombu does, except for what the test makes of it."""
    tag = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-type": "application/json",
            "content-encoding": encoding,
            "headers": {"task": "pushfan.intake", "id": tag, "lang": "py"},
            "properties": {
                "delivery_tag": tag,
                "delivery_info": {"exchange": "", "routing_key": QUEUE_INTAKE},
                "body_encoding": body_encoding,
            },
        }
    )


GARBAGE = {
    "nothing": "",
    "bytes": "\x00garbage",
    "null": "null",
    "a text": '"x"',
    "a list": "[]",
    "no properties": '{"body": "x"}',
    "a body of null": json.dumps({**json.loads(element([])), "body": None}),
    "an unknown charset": element([[], {}, {}], encoding="klingon"),
    "an unknown encoding of the body": element([[], {}, {}], body_encoding="rot13"),
    "a time limit that is none": json.dumps(
        {**json.loads(element([[], {}, {}])), "headers": {"task": QUEUE_INTAKE, "id": "1", "timelimit": "zz"}}
    ),
    "a body that is no task's": element({"a": 1}),
    "arguments that are none": element([[], [1], {}]),
}


@pytest.fixture
def app(database_url: str, broker_url: str) -> Iterator[Celery]:
    """Give an application whose worker runs in a thread, on Valkey."""
    database = Database(database_url)
    apps.add(database.connection(), "shop")
    app = create_app(load_settings({}, database_url=database_url, broker_url=broker_url, tick_seconds=0.05))
    with start_worker(app, pool="solo", perform_ping_check=False, queues=list(QUEUES), shutdown_timeout=30):
        yield app
    database.close()


@pytest.mark.filterwarnings("ignore::celery.platforms.SecurityWarning")
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_becomes_a_dead_letter_and_the_queue_goes_on(
    app: Celery, database_url: str, broker_url: str, name: str
) -> None:
    """The event behind it is taken in, and the garbage is kept with its error."""
    with redis.Redis.from_url(broker_url) as client:
        client.lpush(QUEUE_INTAKE, GARBAGE[name])
    Publisher(broker_url).publish(DirectPush(app="shop", users=["a"], message=Message(title="hello")))
    database = Database(database_url)
    deadline = time.monotonic() + 20
    counts = None
    while counts != {"notifications": 1, "letters": 1} and time.monotonic() < deadline:
        counts = (
            database.connection()
            .execute(
                "SELECT (SELECT count(*) FROM pushfan.notification) AS notifications,"
                " (SELECT count(*) FROM pushfan.dead_letter) AS letters"
            )
            .fetchone()
        )
    database.close()
    assert counts == {"notifications": 1, "letters": 1}
