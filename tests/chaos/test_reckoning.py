from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from events import Message, TopicMessage
from registry.channels import Provider
from tests.chaos.findings import Findings
from tests.chaos.load import Life, Load, Owner, Published
from tests.chaos.reckoning import Reckoning
from tests.chaos.stage import Stage
from tests.chaos.world import Phone, Publication, Way, World

NOTIFICATION, DEVICE, TOKEN = 70, 7, "t" * 64
FINISHED_AT = datetime.fromtimestamp(11, UTC)


@dataclass
class Played:
    """A load that is over."""

    published: dict[tuple[str, str], Published]
    lives: dict[int, Life]


@dataclass
class Witness:
    """A simulator that is over: what it received."""

    lines: list[dict[str, Any]]
    cut_off: int = 0

    def receipts(self) -> list[dict[str, Any]]:
        return self.lines

    def stats(self) -> dict[str, Any]:
        return {"answers": {"answer_cut_off": self.cut_off}}


def receipt(at: float = 10.0, *, is_answered: bool = True) -> dict[str, Any]:
    """Make a line of a simulator's log."""
    return {"notification": str(NOTIFICATION), "token": TOKEN, "at": at, "answered": is_answered}


@dataclass
class Scene:
    """One event for user u1, who has one phone: published at 5, planned at 6, received at 10, all as it should be."""

    directory: Path
    receipts: list[dict[str, Any]] = field(default_factory=lambda: [receipt()])
    owners: list[Owner] = field(default_factory=lambda: [Owner(user="u1", began=(1.0, 2.0))])
    outcomes: list[tuple[int, str, int]] = field(default_factory=lambda: [(DEVICE, "accepted", 1)])
    rows: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"id": DEVICE, "device_key": "phone-0", "user_id": "u1", "token": TOKEN, "state": "active",
             "state_reason": None}
        ]
    )  # fmt: skip
    finished_at: datetime | None = FINISHED_AT
    chunks: int = 0

    @property
    def failpoints(self) -> Path:
        return self.directory

    @property
    def simulators(self) -> Mapping[str, Mapping[Provider, Witness]]:
        return {"shop": {Provider.APNS: Witness(self.receipts)}}

    def run(self, statement: str) -> Sequence[Mapping[str, Any]]:
        if "FROM pushfan.notification" in statement:
            return [
                {"app": "shop", "key": "e1", "id": NOTIFICATION, "planned_at": datetime.fromtimestamp(6, UTC),
                 "finished_at": self.finished_at, "devices": len(self.outcomes), "unsure": 0,
                 "ended": len(self.outcomes)}
            ]  # fmt: skip
        if "FROM pushfan.delivery" in statement:
            return [
                {
                    "notification_id": NOTIFICATION,
                    "device_id": device,
                    "outcome": outcome,
                    "attempts": attempts,
                }
                for device, outcome, attempts in self.outcomes
            ]
        if "FROM pushfan.device" in statement:
            return self.rows
        return [{"chunks": self.chunks, "retries": 0}]

    def reckon(self) -> Findings:
        event = TopicMessage(app="shop", id="e1", topic="t", message=Message(title="x"))
        publication = Publication(at=0, event=event, way=Way.BROKER, users=frozenset({"u1"}))
        phone = Phone(number=0, app="shop", provider=Provider.APNS, user="u1", token=TOKEN)
        world = World(
            seed=0, users={"shop": ["u1", "u2"]}, phones=[phone], subscribers={}, publications=[], happenings=[]
        )  # fmt: skip

        load = Played(
            published={("shop", "e1"): Published(publication=publication, began_at=5.0, tried_at=5.0)},
            lives={0: Life(owners=self.owners, tokens=[TOKEN])},
        )
        findings = Findings(seed=0, scenarios=[], decisions="", devices=1)
        Reckoning(
            cast("Stage", self), world, cast("Load", load), findings, also=(), longest_send_seconds=20
        ).reckon()
        return findings


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Give a scene in which nothing is wrong."""
    return Scene(tmp_path)


def move(scene: Scene, at: float) -> None:
    """Let the phone have another user from an instant on."""
    scene.owners[0].ended = (at, at)
    scene.owners.append(Owner(user="u2", began=(at, at)))
    scene.rows[0] |= {"state": "retired", "state_reason": "other_user"}
    scene.rows.append({**scene.rows[0], "id": 8, "user_id": "u2", "state": "active", "state_reason": None})


def test_what_came_once_is_all_right(scene: Scene) -> None:
    """Nothing is found where nothing is wrong."""
    findings = scene.reckon()
    assert findings.failures == []
    assert (findings.deliveries, findings.receipts, findings.duplicates) == (1, 1, 0)


def test_accepted_and_not_received_is_lost(scene: Scene) -> None:
    """The ledger's word does not count against the receipts."""
    scene.receipts.clear()
    assert scene.reckon().lost == 1


def test_without_an_outcome_is_lost(scene: Scene) -> None:
    """A phone that was there before and after planning must have a delivery."""
    scene.outcomes.clear()
    scene.receipts.clear()
    assert scene.reckon().lost == 1


def test_phone_that_came_while_planning_may_be_left_out(scene: Scene) -> None:
    """Whether it is planned for is open until its registration is over."""
    scene.owners[0].began = (4.0, 5.5)
    scene.outcomes.clear()
    scene.receipts.clear()
    assert scene.reckon().lost == 0


@pytest.mark.parametrize("outcome", ["unregistered", "rejected", "expired", "dead", "unknown", "withdrawn"])
def test_good_phone_that_ended_otherwise_is_lost(scene: Scene, outcome: str) -> None:
    """A phone that stays and whose token is good gets its push."""
    scene.outcomes = [(DEVICE, outcome, 1)]
    assert scene.reckon().lost == 1


def test_second_receipt_is_a_duplicate(scene: Scene) -> None:
    """Each receipt beyond the one of a delivery counts."""
    scene.receipts += [receipt(11), receipt(12)]
    assert scene.reckon().duplicates == 2


def test_withheld_answer_is_told_apart(scene: Scene) -> None:
    """What the provider took and did not answer may come again: it is counted, not judged."""
    scene.receipts.append(receipt(9, is_answered=False))
    findings = scene.reckon()
    assert (findings.duplicates, findings.ambiguous) == (1, 1)


def test_good_token_that_is_retired_is_found(scene: Scene) -> None:
    """Whatever the reason says: the world knows that the token is good."""
    scene.rows[0] |= {"state": "retired", "state_reason": "BadDeviceToken"}
    assert scene.reckon().retired_wrongly == 1


@pytest.mark.parametrize("what", ["finished_at", "chunks"])
def test_what_is_left_is_unfinished(scene: Scene, what: str) -> None:
    """A notification without an end, and work that nobody does."""
    setattr(scene, what, {"finished_at": None, "chunks": 1}[what])
    assert scene.reckon().unfinished == 1


def test_push_to_the_next_user_is_misdirected(scene: Scene) -> None:
    """Without a note that it was loaded before, there is no excuse."""
    move(scene, at=8.0)
    findings = scene.reckon()
    assert (findings.misdirected, findings.in_window) == (1, 0)


@pytest.mark.parametrize(
    ("since", "loaded", "is_excused"),
    [
        (7.0, 7.5, True),  # loaded before
        (7.5, 8.5, True),  # perhaps before
        (8.1, 8.5, False),  # certainly after
        (7.0, 10.5, False),  # a note of a later push excuses nothing
    ],
)
def test_only_what_was_loaded_before_the_move_is_excused(
    scene: Scene, since: float, loaded: float, *, is_excused: bool
) -> None:
    """The window is the one sub-batch that was on its way, by what its own process has noted."""
    move(scene, at=8.0)
    (scene.directory / "sent-1.log").write_text(f"{since} {loaded} {NOTIFICATION} {TOKEN[:16]} other\n")
    findings = scene.reckon()
    assert (findings.misdirected, findings.in_window) == (int(not is_excused), int(is_excused))
