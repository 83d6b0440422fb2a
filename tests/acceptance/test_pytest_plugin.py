"""How a backend tests itself against the whole of Pushfan, in its own process and without any service.

The fixture `pushfan` comes from Pushfan's pytest plugin. `ship_order` and `write_object` stand for the backend.
"""

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from celery import Celery, current_app

from events import BucketWrite, Change, DirectPush, Message, Publisher, TopicMessage
from registry.ledger import FinalOutcome

if TYPE_CHECKING:
    from gateway.rehearsal import Pushfan

# What a project's start-up must not pay for.
HEAVY = ("celery", "kombu", "psycopg", "pydantic", "pycurl", "events", "registry", "workers", "providers")


def ship_order(order: str, publisher: Publisher) -> str:
    """Tell the buyer, as the backend under test does."""
    event = DirectPush(
        app="shop",
        id=f"order-{order}-shipped",
        users=["u7"],
        message=Message(title="Shipped", body=f"Order {order} is on its way", data={"order": order}),
    )
    return publisher.publish(event).id


def test_push_reaches_every_device_of_the_user(pushfan: "Pushfan") -> None:
    """A direct push goes to all of a user's devices, over all providers, and to nobody else's."""
    for provider in ("fcm", "apns", "jpush"):
        pushfan.install("u7", device=f"{provider}-phone", provider=provider)
    pushfan.install("u8")
    event_id = ship_order("812", pushfan.publisher)
    pushfan.wait()
    pushes = pushfan.received(user="u7")
    assert {push.provider for push in pushes} == {"fcm", "apns", "jpush"}
    assert {(push.title, push.data["order"]) for push in pushes} == {("Shipped", "812")}
    assert pushfan.received(user="u8") == []
    assert pushfan.notification(event_id).outcomes[FinalOutcome.ACCEPTED] == 3


def test_event_published_again_is_pushed_once(pushfan: "Pushfan") -> None:
    """A backend that repeats an event with its id does not disturb anybody twice."""
    token = pushfan.install("u7")
    for _ in range(3):
        ship_order("812", pushfan.publisher)
    pushfan.wait()
    assert len(pushfan.received(token=token)) == 1


def test_subscribers_of_topics_and_buckets(pushfan: "Pushfan") -> None:
    """Topic messages and bucket writes reach their subscribers, without the actor."""
    for user in ("a", "b", "c"):
        pushfan.install(user)
        pushfan.subscribe(user, topic="news")
        pushfan.subscribe(user, bucket="orders", scope="group:42")
    pushfan.unsubscribe("c", topic="news")
    pushfan.publisher.publish_many(
        [
            TopicMessage(app="shop", topic="news", message=Message(title="Sale")),
            BucketWrite(
                app="shop", bucket="orders", scope="group:42", object="o1", change=Change.UPDATED, actor="a"
            ),
        ]
    )
    pushfan.wait()
    assert {push.user for push in pushfan.received() if push.title == "Sale"} == {"a", "b"}
    assert {push.user for push in pushfan.received() if push.data.get("object") == "o1"} == {"b", "c"}


def test_dead_token_leaves_the_registry(pushfan: "Pushfan") -> None:
    """What the provider answers changes the registry as it does in production."""
    dead = pushfan.install("u7", device="old-phone")
    pushfan.install("u7", device="new-phone")
    pushfan.answer(dead, "unregistered")
    ship_order("812", pushfan.publisher)
    pushfan.wait()
    assert [device.device_key for device in pushfan.devices("u7")] == ["new-phone"]
    assert [push.device for push in pushfan.received(user="u7")] == ["new-phone"]


def test_temporary_failures_are_retried_at_once(pushfan: "Pushfan") -> None:
    """Retries really happen, and a test need not wait for them."""
    token = pushfan.install("u7")
    pushfan.answer(token, "unavailable", "unavailable", "accepted")
    event_id = ship_order("812", pushfan.publisher)
    pushfan.wait()
    assert len(pushfan.received(token=token)) == 1
    assert pushfan.notification(event_id).retries == 2


def test_lost_answer_may_be_pushed_twice(pushfan: "Pushfan") -> None:
    """A test can see what its app does with a duplicate."""
    token = pushfan.install("u7")
    pushfan.answer(token, "unknown")
    ship_order("812", pushfan.publisher)
    pushfan.wait()
    assert len(pushfan.received(token=token)) == 2


def test_event_that_cannot_be_taken_in_is_a_dead_letter(pushfan: "Pushfan") -> None:
    """A conflict is seen where an operator would see it."""
    ship_order("812", pushfan.publisher)
    pushfan.publisher.publish(
        DirectPush(app="shop", id="order-812-shipped", users=["u7"], message=Message(title="other"))
    )
    pushfan.wait()
    (error,) = pushfan.dead_letters()
    assert "order-812-shipped" in error


def test_waiting_for_what_does_not_end_says_so(pushfan: "Pushfan") -> None:
    """A test that waits in vain is told for what."""
    token = pushfan.install("u7")
    pushfan.answer(token, *["credentials"] * 10_000)
    event_id = ship_order("812", pushfan.publisher)
    with pytest.raises(TimeoutError, match=f"{event_id} is sending"):
        pushfan.wait(timeout_seconds=3)


def test_answers_that_do_not_exist_are_refused(pushfan: "Pushfan") -> None:
    """A misspelt answer fails where it is written, naming the ones that there are."""
    with pytest.raises(ValueError, match="unregistered"):
        pushfan.answer("token", "unregisterd")


@pytest.fixture
def own_handlers() -> list[logging.Handler]:
    """Give the handlers that the backend's logging has before Pushfan starts."""
    return list(logging.getLogger().handlers)


def test_own_celery_application_and_logging_stay(
    own_handlers: list[logging.Handler], pushfan: "Pushfan"
) -> None:
    """A backend's current application and its log handlers are its own while Pushfan runs beside it."""
    mine = Celery("mine", broker="memory://")
    assert current_app._get_current_object() is mine
    assert set(own_handlers) <= set(logging.getLogger().handlers)
    added = {type(handler) for handler in logging.getLogger().handlers if handler not in own_handlers}
    assert logging.StreamHandler not in added
    pushfan.install("u7")
    ship_order("812", pushfan.publisher)
    pushfan.wait()
    assert current_app._get_current_object() is mine
    mine.close()


def test_projects_that_do_not_use_it_do_not_pay_for_it() -> None:
    """Loading the plugin imports nothing but pytest itself."""
    code = (
        "import sys, pytest; before = set(sys.modules); import gateway.pytest_plugin;"
        f"print(*sorted({{name.partition('.')[0] for name in set(sys.modules) - before}} & {set(HEAVY)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
