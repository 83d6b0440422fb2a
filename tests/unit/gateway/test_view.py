from gateway.view import Meter, Snapshot, describe
from registry.overview import Backlog

BACKLOG = Backlog(channel_id=1, lane="bulk", chunks=3, positions=1_200, leased=500, waiting=34)


def test_rate_is_measured_over_the_last_seconds() -> None:
    """Not since the beginning: a broadcast that is over is over."""
    meter = Meter()
    rates = [meter.rate(float(second), 100 * second) for second in range(10)]
    assert rates[0] == 0
    assert rates[5:] == [100] * 5
    assert [meter.rate(float(second), 900) for second in range(10, 16)][-1] == 0


def test_rate_begins_anew_when_the_server_counts_anew() -> None:
    """A restarted PostgreSQL does not make it negative."""
    meter = Meter()
    meter.rate(0.0, 5_000)
    meter.rate(1.0, 6_000)
    assert meter.rate(2.0, 10) == 0
    assert meter.rate(3.0, 110) == 100


def test_line_says_rate_and_what_waits() -> None:
    """Positions planned and deliveries that wait for another try are both not ended."""
    snapshot = Snapshot(app_names={}, channels=[], backlogs=[BACKLOG], workers=[], ended=9)
    assert describe(snapshot, 1234.5) == "1,234 deliveries a second, 1,234 waiting"
