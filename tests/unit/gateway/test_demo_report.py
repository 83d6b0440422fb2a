from dataclasses import replace

import pytest

from gateway.demo.kill import Kill
from gateway.demo.report import Report
from gateway.demo.world import Counts
from registry.ledger import FinalOutcome
from registry.overview import Lease

COUNTS = Counts(retried=3, retired=2, replaced=1, moved=1)
OUTCOMES = {outcome.value: 0 for outcome in FinalOutcome} | {"accepted": 98, "withdrawn": 2}
GOOD = Report(
    events=["bucket", "direct", "topic"],
    providers=["fcm", "apns", "jpush"],
    users=40,
    devices=80,
    outcomes=OUTCOMES,
    measured=COUNTS,
    planned=COUNTS,
    lost=0,
    duplicates=0,
    duplicates_bound=0,
    seconds=0.5,
    latencies_ms={"p50": 12.5, "p99": 80.0},
    worker_cpu_seconds=0.01,
    kill=None,
    findings=[],
)


def test_json_has_the_documented_keys() -> None:
    """One object, whose outcomes add up to its deliveries."""
    document = GOOD.as_json()
    assert list(document) == [
        "events", "providers", "users", "devices", "deliveries", "outcomes", "retried", "retired", "replaced",
        "moved", "planned", "lost", "duplicates", "duplicates_bound", "seconds", "deliveries_per_second",
        "latency_ms",
    ]  # fmt: skip
    assert sum(document["outcomes"].values()) == document["deliveries"] == 100
    assert document["planned"] == {"retried": 3, "retired": 2, "replaced": 1, "moved": 1}
    assert document["deliveries_per_second"] == 200


def test_demo_in_which_everything_went_as_planned_is_good() -> None:
    """Repeats within the bound of a kill are no fault."""
    assert GOOD.is_good
    assert replace(GOOD, duplicates=4, duplicates_bound=4).is_good


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(replace(GOOD, lost=1), id="lost"),
        pytest.param(replace(GOOD, duplicates=1), id="repeated"),
        pytest.param(replace(GOOD, duplicates=5, duplicates_bound=4), id="repeated beyond the bound"),
        pytest.param(replace(GOOD, measured=replace(COUNTS, retried=4)), id="retried unplanned"),
        pytest.param(replace(GOOD, measured=replace(COUNTS, retired=1)), id="not all retired"),
        pytest.param(replace(GOOD, measured=replace(COUNTS, replaced=0)), id="not all replaced"),
        pytest.param(replace(GOOD, measured=replace(COUNTS, moved=2)), id="moved unplanned"),
        pytest.param(replace(GOOD, is_consistent=False), id="counters disagree"),
    ],
)
def test_demo_in_which_anything_went_wrong_is_not_good(report: Report) -> None:
    """Each of these ends the command with another exit code than 0, and says so."""
    assert not report.is_good
    assert "DO NOT AGREE" in "\n".join(report.as_lines())


def test_kill_says_who_what_and_for_how_long() -> None:
    """Which process, what it held, who took it over and when."""
    lease = Lease(
        chunk_id=5, channel_id=1, lane="bulk", notification_id=9, owner="vm/1/42-7", fence=1, positions=500,
        issued=300, unrecorded=120,
    )  # fmt: skip
    kill = Kill(pid=42, lease=lease, heir_pid=43, seconds=0.25)
    assert str(kill) == (
        "killed worker process 42 with chunk 5 (500 positions, 120 issued and not recorded); "
        "process 43 took it over after 0.25 s"
    )
    assert replace(GOOD, kill=kill).as_json()["killed"]["unrecorded"] == 120
