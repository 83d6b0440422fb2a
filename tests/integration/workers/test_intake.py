"""The door that broker messages come through: what is valid is taken in, everything else is kept for a person."""

from typing import Any

import pytest

from events import DirectPush, encode
from registry import notifications
from registry.database import Database
from registry.errors import Busy
from registry.ledger import FinalOutcome
from tests.integration.ledger.scene import HELLO, Scene, news
from tests.integration.workers.floor import Floor
from workers import intake, plan


def direct(**more: Any) -> dict[str, Any]:
    """Write a direct push in wire form."""
    return encode(DirectPush(**{"app": "shop", "users": ["a"], "message": HELLO, **more}))


def take_in(floor: Floor, body: object, message_id: str = "message-1") -> dict[str, int]:
    """Take in what one broker message carries."""
    return intake.take_in_message(floor.door(), body, message_id=message_id)


def letters(scene: Scene) -> list[tuple[str, str]]:
    """List (kind, error) of dead letters."""
    rows = scene.run("SELECT kind, error FROM pushfan.dead_letter ORDER BY id")
    return [(row["kind"], row["error"]) for row in rows]


def test_taken_in_planned_and_announced(floor: Floor, scene: Scene) -> None:
    """One message leads to notifications, chunks and their announcement, at once."""
    scene.install(["a"])
    counts = take_in(floor, [direct(), direct()])
    assert counts == {"taken_in": 2}
    (task,) = floor.notes.kwargs("pushfan.deliver")
    assert floor.deliver(task["chunk"]) == {"accepted": 2}
    scene.assert_conserved()


def test_repeated_message_changes_nothing(floor: Floor, scene: Scene) -> None:
    """A broker that delivers a message twice, or five times, pushes once."""
    scene.install(["a"])
    wire = direct(id="order-1")
    for _ in range(5):
        take_in(floor, [wire])
    floor.deliver_all()
    assert len(floor.vendor.received) == 1
    assert letters(scene) == []


def test_event_without_an_id_is_known_by_its_message(floor: Floor, scene: Scene) -> None:
    """A producer that names no id is not pushed twice for a message that is seen again."""
    scene.install(["a"])
    wire = direct()
    del wire["id"]
    assert take_in(floor, [wire, wire]) == {"taken_in": 2}
    assert take_in(floor, [wire, wire]) == {"repeated": 2}
    assert take_in(floor, [wire], "message-2") == {"taken_in": 1}


def test_invalid_event_becomes_a_dead_letter_and_its_neighbours_go_on(floor: Floor, scene: Scene) -> None:
    """Every problem of the event is named; the valid ones of the same message are taken in."""
    broken = direct() | {"users": [], "surprise": 1}
    assert take_in(floor, [direct(), broken, direct()]) == {"invalid": 1, "taken_in": 2}
    ((kind, error),) = letters(scene)
    assert kind == "invalid"
    assert "users" in error
    assert "surprise" in error


def test_event_that_a_dialect_refuses_becomes_a_dead_letter(floor: Floor, scene: Scene) -> None:
    """Addressing everybody through a vendor's section is refused at this door too."""
    wire = direct() | {"message": {"title": "hello", "jpush": {"audience": "all"}}}
    assert take_in(floor, [wire]) == {"invalid": 1}
    ((_, error),) = letters(scene)
    assert "audience" in error


def test_conflict_becomes_a_dead_letter(floor: Floor, scene: Scene) -> None:
    """An id that was used for something else is kept for a person, the first event stays."""
    take_in(floor, [direct(id="x")])
    assert take_in(floor, [direct(id="x", users=["b"])]) == {"conflict": 1}
    ((kind, error),) = letters(scene)
    assert kind == "conflict"
    assert "x" in error


def test_unknown_app_becomes_a_dead_letter(floor: Floor, scene: Scene) -> None:
    """An app that is not there is named, with what to do."""
    assert take_in(floor, [direct(app="nowhere")]) == {"unknown_app": 1}
    ((kind, error),) = letters(scene)
    assert kind == "invalid"
    assert "pushfan app add nowhere" in error


@pytest.mark.parametrize("body", [None, "text", {"not": "a list"}, 7, [None], ["text"], [[]], [7]])
def test_body_of_any_form_becomes_a_dead_letter(floor: Floor, scene: Scene, body: object) -> None:
    """Whatever JSON a producer sends, nothing breaks and nothing disappears."""
    assert take_in(floor, body) == {"invalid": 1}
    assert len(letters(scene)) == 1


@pytest.mark.parametrize("character", ["\x00", "\ud800"])
def test_characters_that_postgresql_cannot_store_become_a_dead_letter(
    floor: Floor, scene: Scene, character: str
) -> None:
    """They are refused at the door, and their dead letter can be stored."""
    wire = direct() | {"message": {"title": f"a{character}b"}}
    keyed = direct() | {f"a{character}b": 1}
    named = direct() | {"app": f"a{character}b", "users": []}
    assert take_in(floor, [wire, direct(), keyed, named]) == {"invalid": 3, "taken_in": 1}
    assert [kind for kind, _ in letters(scene)] == ["invalid"] * 3


def test_message_that_is_too_large_for_a_vendor_is_refused(floor: Floor, scene: Scene) -> None:
    """Sizes are known at the door, not when half of the devices have been sent to."""
    wire = direct() | {"message": {"title": "hello", "data": {"blob": "x" * 5000}}}
    assert take_in(floor, [wire]) == {"invalid": 1}
    assert len(letters(scene)) == 1


def test_large_fan_out_is_planned_by_pages(scene: Scene, floor: Floor) -> None:
    """What does not fit in intake's one page is announced to planners, who finish it."""
    users = [f"u{n:02d}" for n in range(10)]
    scene.install(users)
    scene.subscribe(users)
    small = floor.settings.model_copy(update={"page_size": 3, "chunk_size": 2})
    floor.settings = small
    (taken,) = intake.take_in(floor.door(), [news()])
    assert floor.notes.kwargs("pushfan.plan") == [{"notification": taken.notification_id}]
    assert taken.notification_id is not None
    devices = plan.plan(floor.door(), taken.notification_id, is_stopping=lambda: False)
    assert devices == 7
    found = floor.deliver_to_the_end(taken.notification_id)
    assert found.outcomes[FinalOutcome.ACCEPTED] == 10
    assert set(floor.vendor.tokens.values()) == {1}


def test_stopping_planner_leaves_the_rest_to_others(scene: Scene, floor: Floor) -> None:
    """A planner gives way between pages, and the next one goes on."""
    users = [f"u{n:02d}" for n in range(10)]
    scene.install(users)
    scene.subscribe(users)
    floor.settings = floor.settings.model_copy(update={"page_size": 3})
    (taken,) = intake.take_in(floor.door(), [news()])
    assert taken.notification_id is not None
    answers = iter([False, True])
    assert plan.plan(floor.door(), taken.notification_id, is_stopping=lambda: next(answers)) == 3
    plan.plan(floor.door(), taken.notification_id, is_stopping=lambda: False)
    assert scene.find(taken.notification_id).devices == 10
    scene.assert_conserved()


def test_id_that_an_open_transaction_holds_does_not_keep_others_waiting(
    floor: Floor, scene: Scene, database_url: str
) -> None:
    """A producer may keep its transaction open: the message with the same id is seen again later, others go on."""
    scene.install(["a"])
    other = Database(database_url)
    with other.transaction() as connection:
        notifications.take_in(connection, [direct(id="held")])
        with pytest.raises(Busy):
            take_in(floor, [direct(id="held")])
        assert take_in(floor, [direct(id="free")]) == {"taken_in": 1}
    other.close()
    assert take_in(floor, [direct(id="held")]) == {"repeated": 1}
