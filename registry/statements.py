"""The named statements of `queries/*.sql`.

A statement begins with `-- name: take_in`, followed by lines of prose (comments) and the SQL itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def load(room: str) -> Mapping[str, bytes]:
    """Read `queries/<room>.sql` as {name: SQL}. Bytes, since psycopg takes those as trusted text."""
    return parse(files(__package__).joinpath("queries", f"{room}.sql").read_text(encoding="utf-8"))


def parse(text: str) -> Mapping[str, bytes]:
    """Find the statements in a text of this form."""
    parts = _NAME.split(text)[1:]
    return {name: _without_prose(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _without_prose(body: str) -> bytes:
    lines = (line.strip() for line in body.splitlines())
    return " ".join(line for line in lines if line and not line.startswith("--")).encode()
