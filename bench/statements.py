"""The named statements of `bench/queries/*.sql`, in the form that the registry's have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from registry.statements import parse

_QUERIES = Path(__file__).parent / "queries"


def load(name: str) -> Mapping[str, bytes]:
    """Read `queries/<name>.sql` as {name: SQL}."""
    return parse((_QUERIES / f"{name}.sql").read_text(encoding="utf-8"))
