from pathlib import Path

import pytest

from bench import results, table
from bench.figures import percentile, rounded, shown
from bench.measurement import Measured


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    """The share of the values that do not exceed it is at least the one asked for."""
    assert percentile(list(range(100, 0, -1)), share) == value


def test_ending_of_a_name_is_its_unit() -> None:
    """A rate, a time and a ratio are shown as such."""
    names = ("at_100_per_second", "worker_cpu_us", "cost_ratio")
    assert [shown(name, 1234.567) for name in names] == ["1,235 /s", "1,234.6 µs", "1,234.57 x"]


def test_rounding_keeps_four_digits() -> None:
    """Figures that cannot be repeated to the fifth digit do not pretend to."""
    assert rounded({"a": 0.123456, "b": 9876.54, "c": 123456.7}) == {"a": 0.1235, "b": 9877, "c": 123457}


def test_missed_target_is_said() -> None:
    """The table says what a figure should have reached."""
    lines = list(table.lines("growth", Measured(figures={"cost_ratio": 1.3, "memory_ratio": 1.0})))
    assert [line.endswith("missed") for line in lines] == [True, False]


def test_results_keep_sections_that_were_not_measured(tmp_path: Path) -> None:
    """A run of one measurement replaces its own section and leaves the others as they are."""
    path = tmp_path / "RESULTS.md"
    before = {
        "broadcast": Measured(figures={"worker_cpu_us": 1}),
        "direct": Measured(figures={"idle_p50_ms": 5}),
    }
    results.write(path, before, {"system": "old"}, "full")
    results.write(path, {"direct": Measured(figures={"idle_p50_ms": 7})}, {"system": "new"}, "full")
    text = path.read_text()
    assert (
        text.index("## broadcast")
        < text.index("system: old")
        < text.index("## direct")
        < text.index("system: new")
    )
    assert "5.0 ms" not in text
    assert "7.0 ms" in text
