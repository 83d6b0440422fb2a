"""Hand events to Pushfan over its HTTP API: when `publish` returns, the event is taken in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

from .api import Api, ApiFailed, ApiRefused
from .event import Event
from .publisher import Conflict, PublishError, PublishFailed, TakenIn, UnknownApp, check_events
from .wire import encode

_EVENTS_IN_A_REQUEST: Final = 1_000
_IDS_SHOWN: Final = 3
_PROBLEM: Final = "urn:pushfan:problem:"


class Refused(PublishError):
    """Pushfan refuses some or all of the events; publishing them again does not help unless `problem` says so.

    `problems` has the RFC 9457 document of each refused event by its id, or under "" that of the whole request.
    `taken_in` are the others.
    """

    def __init__(self, problems: Mapping[str, Mapping[str, Any]], taken_in: Sequence[TakenIn] = ()) -> None:
        super().__init__(problems, taken_in)
        self.problems = problems
        self.taken_in = tuple(taken_in)

    def __str__(self) -> str:
        shown = [_say(id_, problem) for id_, problem in list(self.problems.items())[:_IDS_SHOWN]]
        more = len(self.problems) - len(shown)
        return "; ".join(shown) + (f"; and {more} more" if more else "")


class HttpPublisher:
    """Publish events over HTTP. Make one and keep it: it is safe for threads and for forks.

    `url` is the API's, https:// or on the loopback http://; `key` a secret of `pushfan key create`, with the role
    publish. `app`, if given, is the only app whose events are published. `ca_file` replaces the system's
    certificate authorities. Nothing is opened before the first event. Needs nothing but the standard library.
    """

    def __init__(self, url: str, *, key: str, app: str | None = None, ca_file: str | None = None) -> None:
        self._api = Api(url, key=key, ca_file=ca_file)
        self._app = app

    def __repr__(self) -> str:
        return f"HttpPublisher({self._api.name!r}, app={self._app!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(self, event: Event) -> TakenIn:
        """Have one event taken in.

        Raises `PublishFailed` when no attempt was answered: repeat with the same id. Raises `Conflict`, `UnknownApp`
        and `Refused`.
        """
        try:
            (taken_in,) = self.publish_many([event])
        except Refused as error:
            raise _plain(error, event) from error
        return taken_in

    def publish_many(self, events: Iterable[Event]) -> list[TakenIn]:
        """Have events taken in, a thousand at a time. All are checked before any is sent.

        Raises `Refused` after all were sent if some are refused, and `PublishFailed`: then repeat them all.
        """
        checked = check_events(events, self._app)
        results = [result for group in _groups(checked) for result in self._send(group)]
        taken_in = [_taken_in(result) for result in results if "notification_id" in result]
        if len(taken_in) < len(results):
            problems = {
                event.id: result["problem"]
                for event, result in zip(checked, results, strict=True)
                if "notification_id" not in result
            }
            raise Refused(problems, taken_in)
        return taken_in

    def close(self) -> None:
        """Close the connections. The publisher can still be used."""
        self._api.close()

    def _send(self, group: Sequence[Event]) -> list[dict[str, Any]]:
        try:
            return self._api.send([encode(event) for event in group])
        except ApiFailed as error:
            raise PublishFailed(self._api.name, error.reason, is_uncertain=error.is_uncertain) from error
        except ApiRefused as error:
            raise Refused({"": error.problem or {"detail": f"HTTP {error.status}"}}) from error


def _groups(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    for start in range(0, len(events), _EVENTS_IN_A_REQUEST):
        yield events[start : start + _EVENTS_IN_A_REQUEST]


def _taken_in(result: Mapping[str, Any]) -> TakenIn:
    return TakenIn(
        id=result["id"],
        notification_id=int(result["notification_id"]),
        is_repeated=result["status"] == "repeated",
    )


def _plain(error: Refused, event: Event) -> PublishError:
    """Raise for one event what the other ways to publish raise."""
    kind = str(error.problems.get(event.id, {}).get("type", "")).removeprefix(_PROBLEM)
    if kind == "id-conflict":
        return Conflict(event.id)
    return UnknownApp(event.app) if kind == "not-found" else error


def _say(id_: str, problem: Mapping[str, Any]) -> str:
    """Say what is wrong with one event, all faults."""
    faults = "".join(
        f", {one.get('pointer', '')}: {one.get('detail', '')}" for one in problem.get("errors", ())
    )
    subject = f"event {id_}: " if id_ else ""
    return f"{subject}{problem.get('detail', 'refused')}{faults}"
