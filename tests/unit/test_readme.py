"""The README says about settings what the code says."""

import re
from pathlib import Path

from workers.settings import PREFIX, Settings

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(PUSHFAN_[A-Z_]+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


def test_configuration_table_has_every_setting_with_its_default_and_meaning() -> None:
    """A row for each setting, in the code's order, and no other row."""
    rows = [(name, default.strip("`"), meaning) for name, default, meaning in ROW.findall(README)]
    assert rows == [
        (PREFIX + name.upper(), "" if field.default is None else str(field.default), field.description)
        for name, field in Settings.model_fields.items()
    ]
