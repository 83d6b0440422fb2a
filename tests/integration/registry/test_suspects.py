"""The pass over suspects, window by window, on PostgreSQL."""

from datetime import timedelta

import pytest

from registry import channels, devices, suspects
from registry.channels import Access, Circuit, CircuitReason
from registry.suspects import Thresholds, Verdict
from tests.integration.registry.shop import Shop

AT_ONCE = Thresholds(age=timedelta(0))


def doubt(shop: Shop, count: int, *, first: int = 0) -> list[int]:
    """Install devices that a vendor then doubts, counted as the ledger counts answers."""
    calls = [shop.call(f"u{n}", f"key-{n}", f"token-{n}") for n in range(first, first + count)]
    ids = [done.device_id for done in devices.install_many(shop.connection, calls)]
    generation = shop.channel().circuit_generation
    answers = [shop.answer(device_id, "BadDeviceToken") for device_id in ids]
    devices.mark_suspect(shop.connection, shop.ios.id, answers, generation=generation)
    answered(shop, doubted=count)
    return ids


def answered(shop: Shop, *, accepted: int = 0, doubted: int = 0) -> None:
    """Count answers of the channel."""
    shop.connection.execute(
        "UPDATE pushfan.channel SET accepted = accepted + %s, doubted = doubted + %s WHERE id = %s",
        [accepted, doubted, shop.ios.id],
    )


def judge(shop: Shop, thresholds: Thresholds = AT_ONCE) -> Verdict:
    """Run the pass over the channel; give what was decided."""
    judgement = suspects.judge(shop.connection, shop.ios.id, thresholds)
    assert judgement is not None
    return judgement.verdict


def test_suspect_is_retired_on_later_acceptances(shop: Shop) -> None:
    """A doubt is believed when the channel went on to be accepted after it, and not before."""
    answered(shop, accepted=5_000)
    [device_id] = doubt(shop, 1)
    assert judge(shop) is Verdict.BEGIN
    assert judge(shop) is Verdict.WAIT
    answered(shop, accepted=20)
    assert judge(shop) is Verdict.RETIRE
    assert shop.state(device_id) == ("retired", "suspect: BadDeviceToken")
    assert shop.feedback() == [("u0", "retired", "suspect: BadDeviceToken")]
    assert suspects.to_judge(shop.connection) == []


def test_young_suspect_is_not_retired(shop: Shop) -> None:
    """A vendor that errs for minutes takes nothing: acceptances may still come."""
    [device_id] = doubt(shop, 1)
    judge(shop)
    answered(shop, accepted=1_000)
    assert judge(shop, Thresholds()) is Verdict.WAIT
    assert shop.state(device_id) == ("suspect", "BadDeviceToken")


def test_wrong_environment_stops_the_channel_and_retires_nobody(shop: Shop) -> None:
    """A broadcast with sandbox tokens on a production channel opens the circuit and tells the operator."""
    ids = doubt(shop, 50)
    assert judge(shop) is Verdict.OPEN
    channel = shop.channel()
    assert (channel.circuit, channel.circuit_reason) == (Circuit.OPEN, CircuitReason.MASS_INVALIDATION)
    assert channel.circuit_detail is not None
    assert "sandbox tokens on a production channel" in channel.circuit_detail
    assert {shop.state(device_id)[0] for device_id in ids} == {"suspect"}
    assert shop.feedback() == []
    assert suspects.judge(shop.connection, shop.ios.id, AT_ONCE) is None


def test_wrong_environment_is_met_through_single_pushes_too(shop: Shop) -> None:
    """Direct pushes to one device after the other, with a pass after each, never retire one."""
    verdicts = []
    for number in range(15):
        doubt(shop, 1, first=number)
        verdicts.append(judge(shop))
        if verdicts[-1] is Verdict.OPEN:
            break
    assert verdicts[0] is Verdict.BEGIN
    assert set(verdicts[1:-1]) == {Verdict.WAIT}
    assert verdicts[-1] is Verdict.OPEN
    assert shop.feedback() == []


def test_vendor_that_errs_after_a_healthy_day_retires_nobody(shop: Shop) -> None:
    """A million acceptances of yesterday do not make today's doubts believable."""
    answered(shop, accepted=1_000_000)
    doubt(shop, 100)
    assert judge(shop) is Verdict.BEGIN
    doubt(shop, 100, first=100)
    assert judge(shop) is Verdict.OPEN
    assert shop.feedback() == []


def test_corrected_channel_has_no_suspects(shop: Shop) -> None:
    """After the right credentials nothing is left to judge, and late answers under the old ones change nothing."""
    ids = doubt(shop, 50)
    judge(shop)
    late = [shop.answer(device_id, "BadDeviceToken") for device_id in ids]
    channels.set_credentials(shop.connection, shop.ios.id, Access(secrets={"key": "file:right"}))
    devices.mark_suspect(shop.connection, shop.ios.id, late, generation=0)
    assert suspects.to_judge(shop.connection) == []
    assert {shop.state(device_id) for device_id in ids} == {("active", None)}


def test_suspects_that_became_so_in_this_window_wait_for_the_next(shop: Shop) -> None:
    """Only those who were suspects before the acceptances are retired by them."""
    [old] = doubt(shop, 1)
    judge(shop)
    answered(shop, accepted=100)
    [new] = doubt(shop, 1, first=1)
    assert judge(shop) is Verdict.RETIRE
    assert shop.state(old)[0] == "retired"
    assert shop.state(new)[0] == "suspect"
    assert (shop.channel().accepted, shop.channel().doubted) == (0, 0)
    answered(shop, accepted=100)
    assert judge(shop) is Verdict.RETIRE
    assert shop.state(new)[0] == "retired"


def test_many_suspects_are_retired_some_at_a_time(shop: Shop) -> None:
    """A pass is short, and the window stays until all of them are retired."""
    doubt(shop, 1_500)
    answered(shop, accepted=100_000)
    assert judge(shop) is Verdict.BEGIN
    answered(shop, accepted=9_000)
    retired = []
    while suspects.to_judge(shop.connection):
        judgement = suspects.judge(shop.connection, shop.ios.id, AT_ONCE)
        assert judgement is not None
        retired.append(judgement.retired)
    assert retired == [1_000, 500]
    assert len(shop.feedback()) == 1_500


def test_operator_may_retire_suspects(shop: Shop) -> None:
    """When the tokens are bad indeed, an operator says so and resumes the channel."""
    doubt(shop, 30)
    judge(shop)
    assert [suspects.retire_all(shop.connection, shop.ios.id, limit=20) for _ in range(3)] == [20, 10, 0]
    assert channels.resume(shop.connection, shop.ios.id)
    assert shop.tokens() == {}


@pytest.mark.parametrize("reason", [CircuitReason.OPERATOR, CircuitReason.OUTAGE, CircuitReason.CREDENTIALS])
def test_stopped_channel_is_not_judged(shop: Shop, reason: CircuitReason) -> None:
    """Nothing new is learned while nothing is sent."""
    doubt(shop, 1)
    channels.open_circuit(shop.connection, shop.ios.id, reason=reason, detail="", generation=0)
    assert suspects.to_judge(shop.connection) == []
    assert suspects.judge(shop.connection, shop.ios.id, AT_ONCE) is None
