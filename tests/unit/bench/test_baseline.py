import json
from pathlib import Path

import pytest

from bench import baseline
from bench.baseline import Bound, regressions
from bench.measurement import Measured
from bench.suite import SUITE

COST = Bound(recorded=2.0, is_cost=True, tolerance=0.25)
GAIN = Bound(recorded=8.0, is_cost=False, tolerance=1.0)


@pytest.mark.parametrize(
    ("bound", "value", "is_kept"),
    [
        (COST, 2.5, True),
        (COST, 2.6, False),
        (COST, 0.1, True),
        (GAIN, 4.0, True),
        (GAIN, 3.9, False),
        (GAIN, 90, True),
    ],
)
def test_only_the_worse_direction_is_a_regression(bound: Bound, value: float, *, is_kept: bool) -> None:
    """A cost may fall and a gain may rise as far as they like; the other way only as far as the tolerance."""
    assert bound.is_kept(value) is is_kept


def test_regression_is_named_with_value_and_limit() -> None:
    """The sentence says which ratio, what it is now and what it may be."""
    found = {"broadcast": Measured(figures={"worker_cost_ratio": 3.0})}
    (sentence,) = regressions(found, {"broadcast.worker_cost_ratio": COST})
    assert sentence == "broadcast.worker_cost_ratio is 3.00; recorded is 2.00, so at most 2.50"


def test_ratio_that_was_not_measured_is_a_regression() -> None:
    """A figure that is renamed or lost does not pass silently."""
    assert list(regressions({}, {"direct.gain_ratio": GAIN})) == ["direct.gain_ratio was not measured"]


def test_recording_keeps_directions_and_tolerances(tmp_path: Path) -> None:
    """Only the recorded value changes."""
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"a.b_ratio": {"recorded": 1.0, "is_cost": True, "tolerance": 0.3}}))
    baseline.record({"a": Measured(figures={"b_ratio": 1.5, "c_ratio": 9.0})}, path)
    assert baseline.read(path) == {"a.b_ratio": Bound(recorded=1.5, is_cost=True, tolerance=0.3)}


def test_every_recorded_ratio_is_checked() -> None:
    """The file names only measurements that a check runs."""
    names = {name.partition(".")[0] for name in baseline.read()}
    assert names <= set(baseline.CHECKED) <= SUITE.keys()
