import io

import pytest
from rich.console import Console

from gateway.demo.board import Scene, circuit, describe, draw
from gateway.demo.pulse import Beat, Vital, rate
from registry.channels import Circuit, CircuitReason, Provider

STOPPED = Vital(
    circuit=Circuit.OPEN,
    reason=CircuitReason.MASS_INVALIDATION,
    failed_probes=1,
    received=1_234_567,
    rate=12_345.6,
    open=23_456,
    waiting=1_234,
)


def beat(at: float, received: int) -> Beat:
    """A moment at which FCM had taken so many."""
    return Beat(
        at=at,
        vitals={
            Provider.FCM: Vital(
                circuit=Circuit.CLOSED,
                reason=None,
                failed_probes=0,
                received=received,
                rate=0.0,
                open=0,
                waiting=0,
            )
        },
    )


def test_rate_is_that_between_two_moments() -> None:
    """What was before and after does not count."""
    beats = [beat(0, 0), beat(1, 5_000), beat(2, 5_100), beat(3, 5_200), beat(4, 9_999)]
    assert rate(beats, Provider.FCM, 1, 3) == 100
    assert rate(beats, Provider.FCM, 0.5, 3.9) == 100


@pytest.mark.parametrize(("since", "until"), [(1.5, 1.9), (0.9, 1.1), (5, 9)])
def test_rate_without_two_beats_is_nothing(since: float, until: float) -> None:
    """It is not guessed."""
    assert rate([beat(0, 0), beat(1, 5_000), beat(2, 5_100)], Provider.FCM, since, until) == 0


@pytest.mark.parametrize("width", [80, 120])
def test_board_fits_its_terminal(width: int) -> None:
    """Each provider is a line that is not wrapped or cut, with its circuit and why that is open."""
    vitals = dict.fromkeys(reversed(Provider), STOPPED)
    scene = Scene(sentence="what happens " * 10, seconds=61, vitals=vitals, latencies_ms=[123_456.0] * 30)
    stream = io.StringIO()
    Console(file=stream, width=width).print(draw(scene, width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    found = [line for line in lines if "open: mass invalidation" in line]
    assert [line.split()[1] for line in found] == [provider.value for provider in Provider]
    assert all("12,346" in line and "1,234,567" in line and "23,456" in line for line in found)
    assert sum("direct push" in line for line in lines) == 1


def test_latency_is_of_the_last_pushes() -> None:
    """An old one does not weigh for ever."""
    assert "none" in describe([])
    assert describe([9_000.0] * 30 + [20.0] * 20) == (
        "direct push: accepted after 20 ms; median of the last 20: 20 ms"
    )


def test_circuit_is_said_with_its_reason() -> None:
    """Closed has none."""
    assert circuit(STOPPED) == "open: mass invalidation"
    assert circuit(beat(0, 0).vitals[Provider.FCM]) == "closed"
