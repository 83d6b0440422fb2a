from dataclasses import replace

import pytest

from gateway.demo.attacks import Struck
from gateway.demo.columns import Account, Column
from gateway.demo.emptying import Emptying
from gateway.demo.kill import Kill
from gateway.demo.question import Answer
from gateway.demo.report import Latency, Report
from gateway.demo.revocation import Resumption, Revocation, Stop
from gateway.demo.world import Counts
from registry.channels import Provider
from registry.ledger import FinalOutcome
from registry.overview import Lease

COUNTS = Counts(retried=3, retired=2, replaced=1, moved=1)
OUTCOMES = {outcome.value: 0 for outcome in FinalOutcome} | {"accepted": 98, "withdrawn": 2}
ACCOUNTS = dict.fromkeys(Account, 0) | {Account.RECEIVED: 98, Account.WITHDRAWN: 2}
COLUMN = Column(ended=100, logged=98, accounts=ACCOUNTS)
EXCESS = Column(ended=101, logged=98, accounts=ACCOUNTS)
UNEXPLAINED = Column(ended=101, logged=98, accounts=ACCOUNTS | {Account.UNEXPLAINED: 1})
LEASE = Lease(
    chunk_id=5, channel_id=1, lane="bulk", notification_id=9, owner="vm/1/42-7", fence=1, positions=500,
    issued=300, unrecorded=120,
)  # fmt: skip
KILL = Kill(pid=42, lease=LEASE, heir_pid=43, seconds=0.25)
EMPTYING = Emptying(messages=8, announced=3, repeated=0, seconds=4.8)
REVOCATION = Revocation(
    provider=Provider.APNS,
    neighbour=Provider.FCM,
    neighbour_rate=900.0,
    stop=Stop(opened_after=0.2, failed_probes=2, waited=3_000, retired=0, neighbour_rate=950.0),
    resumption=Resumption(
        closed_after=1.5, drained_after=9.0, ramp=[210.0, 390.0, 800.0], neighbour_rate=910.0
    ),
)
STRUCK = Struck(kill=KILL, emptying=EMPTYING, revocation=REVOCATION)
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
    retired_wrongly=0,
    columns={Provider.FCM: COLUMN},
    seconds=0.5,
    latency=Latency(pushes=40, p50=12.5, p99=80.0),
    busy_latency=Latency(pushes=30, p50=13.5, p99=81.0),
    worker_cpu_seconds=0.01,
    struck=None,
    answer=None,
    findings=[],
)


def revoked(*, stop: Stop = REVOCATION.stop, resumption: Resumption = REVOCATION.resumption) -> Struck:
    """Attacks of which the revocation went otherwise."""
    return replace(STRUCK, revocation=replace(REVOCATION, stop=stop, resumption=resumption))


def test_json_has_the_documented_keys() -> None:
    """One object, whose outcomes add up to its deliveries."""
    document = GOOD.as_json()
    assert list(document) == [
        "events", "providers", "users", "devices", "deliveries", "outcomes", "retried", "retired", "replaced",
        "moved", "planned", "lost", "duplicates", "duplicates_bound", "retired_wrongly", "columns", "seconds",
        "deliveries_per_second", "latency_ms", "why_not", "findings",
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
        pytest.param(replace(GOOD, retired_wrongly=1), id="a good token retired"),
        pytest.param(replace(GOOD, columns={Provider.FCM: EXCESS}), id="columns do not add up"),
        pytest.param(replace(GOOD, columns={Provider.FCM: UNEXPLAINED}), id="not explained"),
        pytest.param(replace(GOOD, is_consistent=False), id="counters disagree"),
    ],
)
def test_demo_in_which_anything_went_wrong_is_not_good(report: Report) -> None:
    """Each of these ends the command with another exit code than 0, and says so."""
    assert not report.is_good
    assert "DO NOT AGREE" in "\n".join(report.as_lines())


def test_kill_says_who_what_and_for_how_long() -> None:
    """Which process, what it held, who took it over and when."""
    assert str(KILL) == (
        "killed worker process 42 with chunk 5 (500 positions, 120 issued and not recorded); "
        "process 43 took it over after 0.25 s"
    )


def test_each_attack_has_an_object() -> None:
    """With what it held, for how long it hurt, and what it cost; the kill's repeats beside their bound."""
    document = replace(GOOD, struck=STRUCK, duplicates=30, duplicates_bound=120).as_json()
    assert document["killed"]["unrecorded"] == 120
    assert (document["killed"]["repeated"], document["killed"]["repeated_at_most"]) == (30, 120)
    assert document["emptied"] == {
        "messages": 8, "announced": 3, "published_again": 0, "moving_after_seconds": 4.8,
    }  # fmt: skip
    assert document["revoked"]["neighbour_per_second"] == {"before": 900, "meanwhile": 950, "afterwards": 910}
    assert document["revoked"]["ramp_per_second"] == [210, 390, 800]


def test_attack_that_was_left_out_has_no_object_and_a_reason() -> None:
    """A broker that others may use is not emptied, and the report says so to both readers."""
    report = replace(GOOD, struck=replace(STRUCK, emptying=None, left_out="not ours"))
    assert "emptied" not in report.as_json()
    assert report.as_json()["left_out"] == "not ours"
    assert "not ours" in "\n".join(report.as_lines())


@pytest.mark.parametrize(
    "struck",
    [
        pytest.param(replace(STRUCK, kill=None), id="nobody was killed"),
        pytest.param(replace(STRUCK, kill=replace(KILL, heir_pid=None)), id="nobody took over"),
        pytest.param(replace(STRUCK, emptying=replace(EMPTYING, seconds=None)), id="stands still"),
        pytest.param(revoked(stop=replace(REVOCATION.stop, opened_after=None)), id="circuit stays closed"),
        pytest.param(revoked(stop=replace(REVOCATION.stop, retired=3)), id="tokens retired"),
        pytest.param(
            revoked(resumption=replace(REVOCATION.resumption, closed_after=None)), id="circuit stays open"
        ),
        pytest.param(
            revoked(resumption=replace(REVOCATION.resumption, drained_after=None)), id="never drains"
        ),
    ],
)
def test_attack_that_broke_something_says_what(struck: Struck) -> None:
    """In a sentence; one that went well has none."""
    assert not list(STRUCK.faults)
    assert len(list(struck.faults)) == 1


def test_page_fits_a_narrow_terminal() -> None:
    """No line of ours is wider than 80 columns."""
    answer = Answer(event="handover-0", user="u12", command="pushfan trace handover-0", lines=["withdrawn"])
    report = replace(GOOD, struck=STRUCK, answer=answer, duplicates=30, duplicates_bound=120)
    assert max(map(len, report.as_lines())) <= 80
    assert max(map(len, GOOD.as_lines())) <= 80
