"""What JPush's report API says later about each registration id of a message.

https://docs.jiguang.cn/jpush/server/push/rest_api_v3_report
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .clock import Clock

DELIVERED, NOT_DELIVERED, NOT_OF_THIS_APP, NOT_A_TARGET = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class _Report:
    """Who received a message: hashes of the ids, because a long run sends millions."""

    targets: array[int]
    unknown: frozenset[str]
    other: Mapping[str, int]
    known_at: float


class Reports:
    """The statuses of all messages. Until `delay_seconds` have passed, everybody is "not delivered" yet."""

    def __init__(self, clock: Clock, delay_seconds: float) -> None:
        self.delay_seconds = delay_seconds
        self._clock = clock
        self._reports: dict[str, _Report] = {}

    def add(
        self, message_id: str, targets: Sequence[str], unknown: Sequence[str], other: Mapping[str, int]
    ) -> None:
        """Keep who a message went to, who was dropped, and who has a status of its own."""
        hashes = array("q", map(hash, targets))
        self._reports[message_id] = _Report(
            hashes, frozenset(unknown), other, self._clock.now() + self.delay_seconds
        )

    def statuses(
        self, message_id: str, tokens: Sequence[str], is_of_this_app: Callable[[str], bool]
    ) -> dict[str, int] | None:
        """Return the status of each id, or `None` when the message is unknown."""
        report = self._reports.get(message_id)
        if report is None:
            return None
        if self._clock.now() < report.known_at:
            return dict.fromkeys(tokens, NOT_DELIVERED)
        targets = set(report.targets)
        return {token: _status(token, report, targets, is_of_this_app) for token in tokens}


def _status(token: str, report: _Report, targets: set[int], is_of_this_app: Callable[[str], bool]) -> int:
    if token in report.unknown or not is_of_this_app(token):
        return NOT_OF_THIS_APP
    if token in report.other:
        return report.other[token]
    return DELIVERED if hash(token) in targets else NOT_A_TARGET
