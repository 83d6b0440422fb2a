"""The SQL that lets any PostgreSQL publish: `outbox.sql`, which lies beside this module."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["outbox_sql"]


def outbox_sql() -> str:
    """Give the statements to apply to a producer's own database, for a migration of its own; safe to repeat."""
    return files(__package__).joinpath("outbox.sql").read_text(encoding="utf-8")
