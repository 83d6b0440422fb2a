import io
from datetime import UTC, datetime, timedelta

from rich.console import Console

from gateway.view import Meter, Snapshot, describe, lanes, render
from registry.channels import Access, Channel, Circuit, CircuitReason, Provider
from registry.doctor import Worker
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


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
IOS = Channel(
    id=1,
    app_id=1,
    name="ios",
    provider=Provider.APNS,
    access=Access(secrets={}),
    slots=32,
    rate_per_second=100,
    circuit=Circuit.OPEN,
    circuit_reason=CircuitReason.OUTAGE,
    circuit_detail="503 \x1b[2J",
    circuit_generation=1,
    circuit_changed_at=NOW - timedelta(minutes=3),
    probe_at=NOW + timedelta(seconds=20),
    failed_probes=0,
    ramping_since=None,
    credential_fingerprint=None,
    health_since=NOW,
    accepted=7,
    doubted=0,
    created_at=NOW,
)


def worker(name: str, silent_seconds: float) -> Worker:
    """Make a worker for bulk."""
    times = {"started_at": NOW, "seen_at": NOW}
    return Worker(name=name, lanes=["bulk"], processes=4, version="0", silent_seconds=silent_seconds, **times)


SNAPSHOT = Snapshot(
    app_names={1: "shop"},
    channels=[IOS],
    backlogs=[BACKLOG],
    workers=[worker("alive", 1), worker("quiet", 90)],
    ended=9,
    dead_letters={"poison": 1},
    at=NOW,
)


def test_silent_worker_serves_no_lane() -> None:
    """It is listed, and its processes are not counted."""
    (bulk,) = (row for row in lanes(SNAPSHOT) if row["lane"] == "bulk")
    assert (bulk["workers"], bulk["processes"]) == (1, 4)


def test_live_view_shows_what_is_wrong_and_lets_nothing_speak_to_the_terminal() -> None:
    """Circuits with their story, silent workers, dead letters."""
    console = Console(file=io.StringIO(), width=160)
    console.print(render(SNAPSHOT, 12.0, ["a worker ended"]))
    assert isinstance(console.file, io.StringIO)
    seen = console.file.getvalue()
    for words in (
        "open: outage, for 3 min, probed in 20 s",
        "silent for 90 s",
        "1 dead letter: poison 1",
        "1,200",
    ):
        assert words in seen
    assert "a worker ended" in seen
    assert "\x1b" not in seen


def test_live_view_of_a_database_that_is_away_says_so() -> None:
    """Instead of old numbers."""
    console = Console(file=io.StringIO(), width=160)
    console.print(render(None, 0.0))
    assert isinstance(console.file, io.StringIO)
    assert "PostgreSQL does not answer" in console.file.getvalue()
