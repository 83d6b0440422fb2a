"""The reckoning: what providers received is the truth; world, ledger and registry are compared with it.

A device row belongs to one stay of one user with a phone, so the n-th row of a phone is its n-th owner's.

*Misdirected* is a push that a phone received while its user was none of the recipients, with one documented exception:
a sub-batch whose tokens were loaded before the phone changed hands and that was sent after. Worker processes note for
each sub-batch an interval within which its tokens were loaded (`worker.Notes`): from the last thing that they did
before, to the rendering. A receipt is excused exactly if there is such a note for this push, made before it, whose
interval reaches back into the time of an owner who is a recipient, and if it is not older than a send can last.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from registry.ledger import FinalOutcome

from .findings import Findings
from .load import Load, Owner, Published
from .stage import Stage
from .worker import TOKEN_LETTERS
from .world import Phone, World

_EXAMPLES: Final = 3
# Why a device row leaves when a phone does.
_LEFT: Final = frozenset({"other_user", "uninstalled", "other_install"})
_ACCEPTED: Final = FinalOutcome.ACCEPTED.value
_WITHDRAWN: Final = FinalOutcome.WITHDRAWN.value

_NOTIFICATIONS = """
SELECT a.name AS app, n.key, n.id, n.planned_at, n.finished_at, n.devices, n.unsure,
       n.accepted + n.unregistered + n.rejected + n.expired + n.cancelled + n.withdrawn + n.unknown + n.dead AS ended
FROM pushfan.notification n JOIN pushfan.app a ON a.id = n.app_id
"""
_DELIVERIES = "SELECT d.notification_id, d.device_id, d.outcome::text, d.attempts FROM pushfan.delivery d"
_DEVICES = """
SELECT d.id, d.device_key, d.user_id, d.token, d.state, d.state_reason FROM pushfan.device d ORDER BY d.id
"""
_LEFT_OVER = """
SELECT (SELECT count(*) FROM pushfan.chunk) AS chunks, (SELECT count(*) FROM pushfan.retry) AS retries
"""

Key = tuple[int, int]  # a notification's id and a phone's number


@dataclass(frozen=True, slots=True)
class Receipt:
    """A push that a phone received."""

    notification: int
    phone: int
    token: str
    at: float
    is_answered: bool


@dataclass(slots=True, kw_only=True)
class Records:
    """Everything that was written down."""

    notifications: Mapping[tuple[str, str], Mapping[str, Any]]
    deliveries: Mapping[Key, tuple[str, int]]  # by notification and device
    rows: Mapping[int, list[Mapping[str, Any]]]  # a phone's device rows, in order
    receipts: Sequence[Receipt]
    strangers: int
    phone_of: Mapping[int, int] = field(default_factory=dict)


class Reckoning:
    """Compares, once. `also` are outcomes that may befall good phones; `poisoned` events may end dead."""

    def __init__(
        self,
        stage: Stage,
        world: World,
        load: Load,
        findings: Findings,
        *,
        also: Collection[FinalOutcome],
        longest_send_seconds: float,
    ) -> None:
        self._stage = stage
        self._world = world
        self._load = load
        self._findings = findings
        self._also = {outcome.value for outcome in also}
        self._longest_send_seconds = longest_send_seconds
        self._examples: dict[str, list[str]] = defaultdict(list)
        self._records = self._read()
        self._received = Counter((one.notification, one.phone) for one in self._records.receipts)
        self._events = {
            row["id"]: load.published.get(key) for key, row in self._records.notifications.items()
        }

    def reckon(self) -> None:
        """Fill in the findings."""
        findings, records = self._findings, self._records
        findings.events = len(self._load.published)
        findings.deliveries = len(records.deliveries)
        findings.outcomes = dict(Counter(outcome for outcome, _ in records.deliveries.values()))
        findings.receipts = len(records.receipts)
        findings.unsure = sum(row["unsure"] for row in records.notifications.values())
        findings.republished = sum(one.times - 1 for one in self._load.published.values())
        findings.ambiguous = self._ambiguous()
        findings.unfinished = self._count("unfinished", self._unfinished())
        findings.lost = self._count("lost", self._lost())
        findings.duplicates = sum(number for number, _ in self._repeated())
        findings.retired = sum(
            row["state"] == "retired" and row["state_reason"] not in _LEFT
            for rows in records.rows.values()
            for row in rows
        )
        findings.retired_wrongly = self._count("retired wrongly", self._retired_wrongly())
        findings.misdirected = self._count("misdirected", self._misdirected())
        if records.strangers:
            self._examples["misdirected"].append(f"{records.strangers} receipts of tokens that nobody had")
            findings.misdirected += records.strangers
        for what, sentences in self._examples.items():
            findings.failures += [f"{what}: {sentence}" for sentence in sentences[:_EXAMPLES]]

    def repeated_examples(self) -> list[str]:
        """Say of a few pushes that they came too often."""
        return [sentence for _, sentence in self._repeated()][:_EXAMPLES]

    def _count(self, what: str, sentences: Iterator[str]) -> int:
        found = list(sentences)
        self._examples[what] = found[:_EXAMPLES]
        return len(found)

    def _read(self) -> Records:
        stage = self._stage
        notifications = {(row["app"], row["key"]): row for row in stage.run(_NOTIFICATIONS)}
        rows: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        phone_of = {}
        for row in stage.run(_DEVICES):
            number = int(row["device_key"].removeprefix("phone-"))
            rows[number].append(row)
            phone_of[row["id"]] = number
        deliveries = {
            (row["notification_id"], row["device_id"]): (row["outcome"], row["attempts"])
            for row in stage.run(_DELIVERIES)
        }
        receipts, strangers = self._receipts()
        return Records(
            notifications=notifications, deliveries=deliveries, rows=rows, receipts=receipts,
            strangers=strangers, phone_of=phone_of,
        )  # fmt: skip

    def _receipts(self) -> tuple[list[Receipt], int]:
        numbers = {token: number for number, life in self._load.lives.items() for token in life.tokens}
        found, strangers = [], 0
        for some in self._stage.simulators.values():
            for simulator in some.values():
                for line in simulator.receipts():
                    phone = numbers.get(line["token"])
                    if phone is None:
                        strangers += 1
                        continue
                    found.append(
                        Receipt(
                            int(line["notification"] or 0), phone, line["token"], line["at"], line["answered"]
                        )
                    )
        return found, strangers

    def _ambiguous(self) -> int:
        """Count what providers took and, as they themselves say, did not answer so that it was read."""
        withheld = sum(not one.is_answered for one in self._records.receipts)
        cut = sum(
            int(simulator.stats()["answers"].get("answer_cut_off", 0))
            for some in self._stage.simulators.values()
            for simulator in some.values()
        )
        return withheld + cut

    def _unfinished(self) -> Iterator[str]:
        for key, one in self._load.published.items():
            row = self._records.notifications.get(key)
            if row is None:
                yield f"the event {key[1]} of {key[0]} was published {one.times} times and never taken in"
            elif row["finished_at"] is None:
                yield f"notification {row['id']} ({key[1]}): {row['ended']} of {row['devices']} ended"
            elif row["ended"] != row["devices"]:
                yield f"notification {row['id']} ({key[1]}) is finished with {row['ended']} of {row['devices']}"
        for key in self._records.notifications.keys() - self._load.published.keys():
            yield f"the event {key[1]} of {key[0]} was taken in and nobody published it"
        (left,) = self._stage.run(_LEFT_OVER)
        if left["chunks"] or left["retries"]:
            yield f"{left['chunks']} chunks and {left['retries']} retries are left"

    def _lost(self) -> Iterator[str]:
        yield from self._never_ended()
        accepted = Counter(
            (notification, self._records.phone_of[device])
            for (notification, device), (outcome, _) in self._records.deliveries.items()
            if outcome == _ACCEPTED
        )
        for key, number in accepted.items():
            phone = self._world.phones[key[1]]
            if self._received[key] < number and not phone.is_dead:
                yield f"notification {key[0]} to {phone.key} is accepted in the ledger and was not received"

    def _never_ended(self) -> Iterator[str]:
        """Yield deliveries that certainly were to be, and are not there or ended otherwise than they should."""
        stays = self._stays()
        for key, one in self._load.published.items():
            row = self._records.notifications.get(key)
            if row is None or row["planned_at"] is None:
                continue
            planned_at = row["planned_at"].timestamp()
            may_die = (one.publication.event.message.title or "").startswith("poison:")
            for user in self._users_of(one):
                for phone, place, owner in stays.get((key[0], user), ()):
                    if owner.began[1] < one.began_at and (owner.ended is None or owner.ended[0] > planned_at):
                        problem = self._problem(row["id"], phone, place, owner, may_die=may_die)
                        if problem:
                            yield f"notification {row['id']} ({key[1]}) to {phone.key} of {user} {problem}"

    def _problem(
        self, notification: int, phone: Phone, place: int, owner: Owner, *, may_die: bool
    ) -> str | None:
        rows = self._records.rows.get(phone.number, [])
        ended = self._records.deliveries.get((notification, rows[place]["id"])) if place < len(rows) else None
        if phone.is_dead:
            return None
        if ended is None:
            return "has no outcome"
        outcome = ended[0]
        if outcome == _ACCEPTED or outcome in self._also or (may_die and outcome == FinalOutcome.DEAD.value):
            return None
        if outcome == _WITHDRAWN and owner.ended is not None:
            return None
        return f"ended {outcome}"

    def _stays(self) -> Mapping[tuple[str, str], list[tuple[Phone, int, Owner]]]:
        found: dict[tuple[str, str], list[tuple[Phone, int, Owner]]] = defaultdict(list)
        for number, life in self._load.lives.items():
            phone = self._world.phones[number]
            for place, owner in enumerate(life.owners):
                found[phone.app, owner.user].append((phone, place, owner))
        return found

    def _users_of(self, one: Published) -> Collection[str]:
        users = one.publication.users
        return self._world.users[one.publication.event.app] if users is None else users

    def _repeated(self) -> Iterator[tuple[int, str]]:
        """Yield pushes that a phone received more often than deliveries to it were tried."""
        tried = Counter(
            (notification, self._records.phone_of[device])
            for (notification, device), (outcome, attempts) in self._records.deliveries.items()
            if outcome == _ACCEPTED or attempts > 0
        )
        for key, number in self._received.items():
            if number > max(1, tried[key]):
                times = f"{number} times, {tried[key]} of its deliveries were tried"
                yield (
                    number - max(1, tried[key]),
                    f"notification {key[0]} came to phone-{key[1]} {times}",
                )

    def _retired_wrongly(self) -> Iterator[str]:
        for number, rows in self._records.rows.items():
            phone, life = self._world.phones[number], self._load.lives[number]
            if phone.is_dead:
                continue
            for row in rows:
                if row["state"] == "retired" and row["state_reason"] not in _LEFT:
                    yield f"{phone.key} ({phone.provider.value}): its token is good, and {row['state_reason']}"
            if len(rows) != len(life.owners):
                yield f"{phone.key} had {len(life.owners)} owners and has {len(rows)} rows"
            elif life.owners[-1].ended is None and rows[-1]["token"] != life.tokens[-1]:
                yield f"{phone.key} has another token than it registered last"

    def _misdirected(self) -> Iterator[str]:
        doubtful = [one for one in self._records.receipts if not self._is_at_home(one)]
        notes = self._notes({(one.notification, one.token[:TOKEN_LETTERS]) for one in doubtful})
        for one in doubtful:
            if self._is_in_window(one, notes.get((one.notification, one.token[:TOKEN_LETTERS]), ())):
                self._findings.in_window += 1
            else:
                yield f"notification {one.notification} came to phone-{one.phone} when its user was no recipient"

    def _recipients(self, notification: int) -> Collection[str] | None:
        """Say who an event is for; `None` is everybody of the app."""
        published = self._events.get(notification)
        return frozenset() if published is None else published.publication.users

    def _is_at_home(self, one: Receipt) -> bool:
        users = self._recipients(one.notification)
        owners = self._load.lives[one.phone].owners
        return any(
            (users is None or owner.user in users)
            and owner.began[0] <= one.at
            and (owner.ended is None or one.at <= owner.ended[1])
            for owner in owners
        )

    def _is_in_window(self, one: Receipt, notes: Sequence[tuple[float, float]]) -> bool:
        users = self._recipients(one.notification)
        owners = [
            owner for owner in self._load.lives[one.phone].owners if users is None or owner.user in users
        ]
        return any(
            loaded[1] <= one.at <= loaded[1] + self._longest_send_seconds
            and owner.began[0] <= loaded[1]
            and (owner.ended is None or owner.ended[1] >= loaded[0])
            for loaded in notes
            for owner in owners
        )

    def _notes(
        self, wanted: Collection[tuple[int, str]]
    ) -> Mapping[tuple[int, str], list[tuple[float, float]]]:
        found: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
        if not wanted:
            return found
        for path in self._stage.failpoints.glob("sent-*.log"):
            for key, interval in _read_notes(path, wanted):
                found[key].append(interval)
        return found


def _read_notes(
    path: Path, wanted: Collection[tuple[int, str]]
) -> Iterator[tuple[tuple[int, str], tuple[float, float]]]:
    notifications = {str(notification) for notification, _ in wanted}
    with path.open() as file:
        for line in file:
            since, at, notification, tokens = line.split(" ", 3)
            if notification in notifications and line.endswith("\n"):
                for token in tokens.split():
                    key = (int(notification), token)
                    if key in wanted:
                        yield key, (float(since), float(at))
