from pathlib import Path

from tests.chaos.failpoints import Point, arm, disarm


def test_point_that_nobody_came_by_is_disarmed(tmp_path: Path) -> None:
    """One point leaves the others armed, and it is known whether somebody was caught meanwhile."""
    arm(tmp_path, Point.ASLEEP)
    arm(tmp_path, Point.CLAIMED)
    assert disarm(tmp_path, Point.ASLEEP)
    assert not disarm(tmp_path, Point.ASLEEP)
    assert disarm(tmp_path)
    assert list((tmp_path / "armed").iterdir()) == []
