"""When one process's view of a provider's answers stops a channel."""

from datetime import timedelta

import pytest

from providers.outcome import (
    Accepted,
    AnswerUnknown,
    NotSent,
    Outcome,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from registry.channels import CircuitReason
from workers.breaker import Breaker, Probe, Trip

DOWN = Unavailable(reason="INTERNAL", delay=timedelta(seconds=10))
DOUBT = Rejected(reason="BadDeviceToken", suspects_token=True)
SLOWER = Throttled(reason="QUOTA", delay=timedelta(seconds=90), is_vendor_delay=True)


class Clock:
    """Time that goes on when told to."""

    now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def failures(breaker: Breaker, count: int, outcome: Outcome | SendError = DOWN) -> list[Trip]:
    """Let so many devices fail, one request each."""
    return [trip for n in range(count) if (trip := breaker.note(n, n, outcome))]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (DOWN, CircuitReason.OUTAGE),
        (NotSent("refused"), CircuitReason.OUTAGE),
        (AnswerUnknown("timeout"), CircuitReason.OUTAGE),
        (SLOWER, CircuitReason.THROTTLED),
        (DOUBT, CircuitReason.MASS_INVALIDATION),
    ],
)
def test_twenty_devices_in_a_row_stop_the_channel(
    outcome: Outcome | SendError, reason: CircuitReason
) -> None:
    """For what they failed of; nineteen are not enough."""
    breaker = Breaker(Clock())
    assert failures(breaker, 19, outcome) == []
    (trip,) = failures(breaker, 20, outcome)
    assert trip.reason is reason
    assert "20 devices" in trip.detail


@pytest.mark.parametrize(
    "answered",
    [Accepted(), Unregistered(reason="gone"), Rejected(reason="TooBig")],
    ids=lambda it: type(it).__name__,
)
def test_any_answer_about_a_delivery_ends_the_row(answered: Outcome) -> None:
    """A provider that answers at all is there, even if it says no."""
    breaker = Breaker(Clock())
    for _ in range(5):
        assert failures(breaker, 19) == []
        assert breaker.note(99, 99, answered) is None


def test_message_at_fault_stops_no_channel() -> None:
    """A doubt that the message may have earned as well is no sign of a wrong channel, however often it comes."""
    doubt = Rejected(reason="1003 InvalidValue", suspects_token=True, needs_proof=True)
    assert failures(Breaker(Clock()), 100, doubt) == []


def test_another_kind_of_failure_begins_another_row() -> None:
    """Throttled and unavailable in turn are neither an outage nor a throttle."""
    breaker = Breaker(Clock())
    assert [
        trip for _ in range(5) for outcome in (DOWN, SLOWER) for trip in failures(breaker, 10, outcome)
    ] == []


def test_one_request_with_many_devices_is_no_outage() -> None:
    """A vendor's batch that fails once is one failure; three of them are a row."""
    breaker = Breaker(Clock())
    assert [breaker.note(n, "a", DOWN) for n in range(1000)] == [None] * 1000
    assert breaker.note(1, "b", DOWN) is None
    assert breaker.note(2, "c", DOWN) is not None


def test_one_device_that_fails_for_ever_is_no_outage() -> None:
    """It may be throttled on its own account."""
    clock = Clock()
    breaker = Breaker(clock)
    for number in range(100):
        clock.now = number * 60.0
        assert breaker.note(7, number, SLOWER) is None


def test_few_devices_are_enough_over_some_time() -> None:
    """Where little is sent, five devices over ten seconds are a row."""
    clock = Clock()
    breaker = Breaker(clock)
    assert failures(breaker, 5) == []
    clock.now = 10.0
    assert breaker.note(4, 5, DOWN) is not None


def test_row_begins_anew_after_a_stop() -> None:
    """The answers that were still out when the channel stopped do not stop the probe that follows."""
    breaker = Breaker(Clock())
    assert len(failures(breaker, 39)) == 1


def test_longest_wait_that_was_asked_for_is_the_floor() -> None:
    """What the provider says goes over our own rest, which `scale` shortens."""
    (trip,) = failures(Breaker(Clock()), 20, SLOWER)
    rest = trip.rest(0.1)
    assert (rest.first, rest.floor) == (timedelta(seconds=0.5), timedelta(seconds=90))


def test_doubts_are_probed_more_seldom_than_an_outage() -> None:
    """Each probe may doubt good tokens."""
    (doubt,) = failures(Breaker(Clock()), 20, DOUBT)
    (outage,) = failures(Breaker(Clock()), 20, DOWN)
    assert doubt.rest(1.0).first >= 10 * outage.rest(1.0).first


def test_doubts_stop_no_channel_that_accepts() -> None:
    """Bad tokens side by side among good ones are no wrong environment; under other credentials they may be."""
    breaker = Breaker(Clock())
    breaker.begin(1)
    breaker.note(99, 99, Accepted())
    breaker.begin(1)
    assert failures(breaker, 100, DOUBT) == []
    breaker.begin(2)
    assert len(failures(breaker, 20, DOUBT)) == 1


def test_silence_stops_only_when_much_is_out_for_long() -> None:
    """One slow answer is no outage, nor is a moment."""
    breaker, patience = Breaker(Clock()), timedelta(seconds=7.5)
    assert breaker.note_silence(19, 100, patience) is None
    assert breaker.note_silence(300, 7.4, patience) is None
    trip = breaker.note_silence(300, 7.5, patience)
    assert trip is not None
    assert trip.reason is CircuitReason.OUTAGE


@pytest.mark.parametrize(
    ("outcomes", "opened_for", "expected"),
    [
        ([Accepted()] * 5, CircuitReason.OUTAGE, None),
        ([DOWN] * 5, CircuitReason.OUTAGE, CircuitReason.OUTAGE),
        ([DOWN, DOWN, Accepted()], CircuitReason.OUTAGE, CircuitReason.OUTAGE),
        ([DOWN, Accepted()], CircuitReason.OUTAGE, None),
        ([DOUBT] * 5, CircuitReason.OUTAGE, None),
        ([DOUBT] * 5, CircuitReason.MASS_INVALIDATION, CircuitReason.MASS_INVALIDATION),
        ([DOUBT, Accepted()], CircuitReason.MASS_INVALIDATION, None),
        ([DOWN, SLOWER], CircuitReason.OUTAGE, CircuitReason.THROTTLED),
    ],
)
def test_probe_closes_when_half_of_it_is_answered(
    outcomes: list[Outcome], opened_for: CircuitReason, expected: CircuitReason | None
) -> None:
    """A doubted token answers the question after an outage, and not the one after a mass invalidation."""
    probe = Probe(opened_for)
    assert not probe.has_answers
    for outcome in outcomes:
        probe.note(outcome)
    assert (probe.trip and probe.trip.reason) is expected
