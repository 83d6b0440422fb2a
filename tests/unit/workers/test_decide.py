"""What one attempt's outcome leads to: every outcome, at every edge of attempts and time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.outcome import (
    AnswerUnknown,
    CredentialsRejected,
    NotSent,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from registry.ledger import FinalOutcome
from workers.decide import (
    CREDENTIALS_REST,
    Attempt,
    Complete,
    DeadLetter,
    Decision,
    Expire,
    Failure,
    Retire,
    RetryAt,
    RetryPolicy,
    Snooze,
    decide,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
POLICY = RetryPolicy(max_attempts=10, base=timedelta(seconds=10), cap=timedelta(hours=1))
MINUTE = timedelta(minutes=1)


def most(ceiling: float) -> float:
    """Draw the largest jitter."""
    return ceiling


def least(_ceiling: float) -> float:
    """Draw the smallest jitter."""
    return 0.0


def attempt(number: int = 1, *, left: timedelta = timedelta(days=20), **more: bool) -> Attempt:
    """Describe a try with so much time left."""
    return Attempt(number=number, now=NOW, expires_at=NOW + left, **more)


def test_unregistered_retires() -> None:
    """The vendor's time of invalidation goes along."""
    outcome = Unregistered(reason="UNREGISTERED", invalidated_at=NOW)
    assert decide(outcome, attempt(), POLICY, most) == Retire(reason="UNREGISTERED", invalidated_at=NOW)


@pytest.mark.parametrize("doubts", [(True, False), (True, True), (False, False)])
def test_rejected_ends_and_may_doubt_the_token(doubts: tuple[bool, bool]) -> None:
    """A refusal for good is final whatever it says about the token."""
    suspects_token, needs_proof = doubts
    outcome = Rejected(reason="TooBig", suspects_token=suspects_token, needs_proof=needs_proof)
    assert decide(outcome, attempt(), POLICY, most) == Complete(
        outcome=FinalOutcome.REJECTED, reason="TooBig", suspects_token=suspects_token, needs_proof=needs_proof
    )


def test_throttled_snoozes_and_spends_no_attempt() -> None:
    """Even the last attempt is not spent by "slower"."""
    outcome = Throttled(reason="QUOTA", delay=MINUTE)
    decision = decide(outcome, attempt(number=10), POLICY, least)
    assert decision == Snooze(delay=MINUTE, reason="QUOTA")


def test_unavailable_backs_off_from_its_floor() -> None:
    """The documented delay is a floor; full jitter below an exponential ceiling comes on top."""
    outcome = Unavailable(reason="INTERNAL", delay=MINUTE)
    assert decide(outcome, attempt(3), POLICY, least) == RetryAt(delay=MINUTE, reason="INTERNAL")
    assert decide(outcome, attempt(3), POLICY, most) == RetryAt(
        delay=MINUTE + timedelta(seconds=40), reason="INTERNAL"
    )


@pytest.mark.parametrize("error", [NotSent("refused"), AnswerUnknown("timeout")])
def test_no_answer_is_tried_again(error: SendError) -> None:
    """Without an answer the backoff begins at nothing."""
    assert decide(error, attempt(1), POLICY, most) == RetryAt(
        delay=timedelta(seconds=10), reason=error.reason
    )


def test_unknown_answer_is_dropped_if_the_message_says_so() -> None:
    """`on_unknown: drop` ends what may have been accepted, and only that."""
    once = attempt(is_repeatable=False)
    assert decide(AnswerUnknown("timeout"), once, POLICY, most) == Complete(
        outcome=FinalOutcome.UNKNOWN, reason="timeout"
    )
    assert isinstance(decide(NotSent("refused"), once, POLICY, most), RetryAt)


def test_push_that_may_be_out_is_dropped_if_the_message_says_so() -> None:
    """A vendor's "internal error" is no proof that it sent nothing; a clear refusal is, and is tried again."""
    once = attempt(is_repeatable=False)
    unsure = Unavailable(reason="INTERNAL", delay=MINUTE, is_unsure=True)
    assert decide(unsure, once, POLICY, most) == Complete(outcome=FinalOutcome.UNKNOWN, reason="INTERNAL")
    assert isinstance(decide(unsure, attempt(), POLICY, most), RetryAt)
    assert isinstance(decide(Unavailable(reason="Shutdown", delay=MINUTE), once, POLICY, most), RetryAt)


@pytest.mark.parametrize("number", [1, 10, 1000])
def test_rejected_credentials_spend_no_attempt(number: int) -> None:
    """What is our fault is not charged to the delivery."""
    error = CredentialsRejected("InvalidProviderToken")
    assert decide(error, attempt(number), POLICY, most) == Snooze(
        delay=CREDENTIALS_REST, reason="InvalidProviderToken"
    )


@pytest.mark.parametrize(
    "outcome",
    [Unavailable(reason="r", delay=MINUTE), NotSent("r"), AnswerUnknown("r")],
    ids=lambda outcome: type(outcome).__name__,
)
def test_last_attempt_ends_in_a_dead_letter(outcome: Failure) -> None:
    """The attempt limit includes the first."""
    assert isinstance(decide(outcome, attempt(9), POLICY, least), RetryAt)
    assert decide(outcome, attempt(10), POLICY, least) == DeadLetter(reason="r")


@pytest.mark.parametrize(
    "outcome",
    [
        Throttled(reason="r", delay=timedelta(0)),
        Unavailable(reason="r", delay=timedelta(0)),
        NotSent("r"),
        AnswerUnknown("r"),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_time_to_live_of_zero_is_one_attempt(outcome: Failure) -> None:
    """An event that may not be kept is not tried again, for whatever reason."""
    assert decide(outcome, attempt(is_only=True), POLICY, least) == Expire(reason="r")


@pytest.mark.parametrize(
    "outcome",
    [
        Throttled(reason="r", delay=MINUTE),
        Unavailable(reason="r", delay=MINUTE),
        CredentialsRejected("r"),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_retry_after_the_deadline_is_none(outcome: Failure) -> None:
    """What would be due when it has expired ends now, and says why."""
    assert decide(outcome, attempt(left=timedelta(seconds=5)), POLICY, least) == Expire(reason="r")


def test_retry_before_the_deadline_is_made() -> None:
    """The deadline itself is too late, the instant before is not."""
    outcome = Unavailable(reason="r", delay=MINUTE)
    assert isinstance(decide(outcome, attempt(left=MINUTE), POLICY, least), Expire)
    just = attempt(left=MINUTE + timedelta(microseconds=1))
    assert isinstance(decide(outcome, just, POLICY, least), RetryAt)


def test_vendors_own_delay_is_never_shortened() -> None:
    """`Retry-After` is a floor, whatever the scale for simulators; documented defaults are scaled."""
    policy = RetryPolicy(max_attempts=10, base=timedelta(seconds=10), cap=timedelta(hours=1), scale=0.01)
    for kind in (Throttled, Unavailable):
        named = decide(kind(reason="r", delay=MINUTE, is_vendor_delay=True), attempt(), policy, least)
        documented = decide(kind(reason="r", delay=MINUTE), attempt(), policy, least)
        assert isinstance(named, (Snooze, RetryAt))
        assert isinstance(documented, (Snooze, RetryAt))
        assert named.delay == MINUTE
        assert documented.delay == MINUTE / 100


def test_attempt_one_thousand_does_not_overflow() -> None:
    """The exponent is clamped: the delay is the cap and no error."""
    policy = RetryPolicy(max_attempts=2000, base=timedelta(seconds=10), cap=timedelta(hours=1))
    decision = decide(NotSent("r"), attempt(1000), policy, most)
    assert decision == RetryAt(delay=timedelta(hours=1), reason="r")


@given(
    number=st.integers(1, 2000),
    floor=st.floats(0, 600),
    draw=st.floats(0, 1),
    base=st.floats(0.001, 1000),
    cap=st.floats(0.001, 100_000),
)
def test_backoff_lies_between_floor_and_ceiling(
    number: int, floor: float, draw: float, base: float, cap: float
) -> None:
    """Full jitter: anywhere from the floor to the floor plus the ceiling, which never passes the cap."""
    policy = RetryPolicy(max_attempts=5000, base=timedelta(seconds=base), cap=timedelta(seconds=cap))
    delay = policy.backoff(number, timedelta(seconds=floor), lambda ceiling: ceiling * draw)
    above = (delay - timedelta(seconds=floor)).total_seconds()
    assert -1e-5 <= above <= min(base * 2.0 ** min(number - 1, 60), cap) + 1e-5


OUTCOMES = st.one_of(
    st.builds(Unregistered, reason=st.just("r"), invalidated_at=st.none()),
    st.builds(Rejected, reason=st.just("r"), suspects_token=st.booleans()),
    st.builds(Throttled, reason=st.just("r"), delay=st.timedeltas(timedelta(0), timedelta(days=1))),
    st.builds(Unavailable, reason=st.just("r"), delay=st.timedeltas(timedelta(0), timedelta(days=1))),
    st.sampled_from([NotSent("r"), AnswerUnknown("r"), CredentialsRejected("r")]),
)


@given(
    outcome=OUTCOMES,
    number=st.integers(1, 2000),
    left=st.timedeltas(timedelta(days=-1), timedelta(days=28)),
    is_repeatable=st.booleans(),
    is_only=st.booleans(),
    draw=st.floats(0, 1),
)
def test_every_outcome_has_a_decision_that_comes_in_time(
    *,
    outcome: Failure,
    number: int,
    left: timedelta,
    is_repeatable: bool,
    is_only: bool,
    draw: float,
) -> None:
    """The function is total, and nothing is put off beyond its expiry."""
    circumstances = attempt(number, left=left, is_repeatable=is_repeatable, is_only=is_only)
    decision: Decision = decide(outcome, circumstances, POLICY, lambda ceiling: ceiling * draw)
    if isinstance(decision, (RetryAt, Snooze)):
        assert NOW + decision.delay < circumstances.expires_at
    if isinstance(decision, RetryAt):
        assert number < POLICY.max_attempts


def test_foreign_outcome_is_an_error() -> None:
    """A kind of error that nobody decided about is not taken for anything."""
    with pytest.raises(TypeError):
        decide(SendError("new"), attempt(), POLICY, least)


@pytest.mark.parametrize(
    "outcome",
    [Unavailable(reason="INTERNAL", delay=MINUTE), NotSent("refused")],
    ids=lambda it: type(it).__name__,
)
def test_probe_that_is_turned_away_costs_no_attempt(outcome: Failure) -> None:
    """The channel was tried, not the delivery; even the last attempt is not spent."""
    decided = decide(outcome, attempt(10, is_probe=True), POLICY, least)
    assert isinstance(decided, Snooze)
    assert decided.delay == (MINUTE if isinstance(outcome, Unavailable) else timedelta(0))


def test_probe_without_an_answer_was_an_attempt() -> None:
    """It may have been accepted."""
    assert isinstance(decide(AnswerUnknown("timeout"), attempt(1, is_probe=True), POLICY, least), RetryAt)
    assert isinstance(decide(AnswerUnknown("timeout"), attempt(10, is_probe=True), POLICY, least), DeadLetter)
