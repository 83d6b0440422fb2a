"""What the pass over suspects decides, as a table."""

from datetime import UTC, datetime

import pytest

from registry.suspects import Health, Thresholds, Verdict, decide, explain

THRESHOLDS = Thresholds()


def health(accepted: int, doubted: int, suspects: int, before: int = 0, ripe: int = 0) -> Health:
    """Make a window."""
    return Health(accepted=accepted, doubted=doubted, suspects=suspects, before=before, ripe=ripe)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        # Doubts begin: evidence must come after them.
        (health(5_000, 40, suspects=40), Verdict.BEGIN),
        (health(0, 1, suspects=1), Verdict.BEGIN),
        # Healthy since, few doubts.
        (health(5_000, 40, suspects=80, before=40, ripe=40), Verdict.RETIRE),
        (health(20, 0, suspects=1, before=1, ripe=1), Verdict.RETIRE),
        # Healthy since, but the doubt is young.
        (health(5_000, 40, suspects=40, before=40, ripe=0), Verdict.WAIT),
        # Not enough acceptances to say anything.
        (health(19, 0, suspects=1, before=1, ripe=1), Verdict.WAIT),
        # The wrong environment, met by a broadcast.
        (health(0, 900, suspects=900), Verdict.OPEN),
        # The same, met through single direct pushes, each to another device.
        (health(0, 10, suspects=10, before=1, ripe=1), Verdict.OPEN),
        (health(0, 9, suspects=10, before=1, ripe=1), Verdict.WAIT),
        # A vendor errs after a healthy hour: the window of this minute shows it.
        (health(30, 5_000, suspects=5_000, before=100, ripe=100), Verdict.OPEN),
        # A fifth is still small, more is not.
        (health(80, 20, suspects=20, before=20, ripe=20), Verdict.RETIRE),
        (health(79, 20, suspects=20, before=20, ripe=20), Verdict.OPEN),
        # A small app: one good phone and one broken one, both pushed to all the time.
        (health(20, 20, suspects=1, before=1, ripe=1), Verdict.RETIRE),
        # A developer's own three installs are all broken: nothing is known about the channel.
        (health(0, 60, suspects=3, before=3, ripe=3), Verdict.WAIT),
        # A few acceptances do not condemn nearly as many suspects.
        (health(20, 9, suspects=9, before=9, ripe=9), Verdict.WAIT),
        # Old doubts that nobody repeats do not stop a channel.
        (health(100, 0, suspects=500, before=500, ripe=0), Verdict.WAIT),
        # A full window ends, so that the next shows what is new.
        (health(10_000, 0, suspects=0), Verdict.BEGIN),
        (health(9_990, 10, suspects=10, before=10, ripe=0), Verdict.BEGIN),
    ],
)
def test_verdict(window: Health, expected: Verdict) -> None:
    """Suspects are retired on later acceptances, a channel is stopped by many doubts, all else waits."""
    assert decide(window, THRESHOLDS) is expected


@pytest.mark.parametrize("accepted", [0, 1, 19])
@pytest.mark.parametrize("doubted", range(0, 400, 7))
def test_nobody_is_retired_without_acceptances(accepted: int, doubted: int) -> None:
    """Whatever a vendor says, and however often: a channel that is not accepted never costs a token."""
    for suspects in (1, 5, 50, 500):
        window = health(accepted, doubted, suspects=suspects, before=suspects, ripe=suspects)
        assert decide(window, THRESHOLDS) is not Verdict.RETIRE


def test_detail_tells_the_operator_what_is_probably_wrong() -> None:
    """The circuit's detail has the counts, the vendor's words and the likely mistake."""
    detail = explain(
        health(3, 900, suspects=900),
        since=datetime(2026, 1, 31, 12, tzinfo=UTC),
        reasons={"BadDeviceToken": 890, "DeviceTokenNotForTopic": 10},
        environment="production",
    )
    assert "900 of 903 answers since 2026-01-31 12:00" in detail
    assert "BadDeviceToken 890" in detail
    assert "sandbox tokens on a production channel" in detail
