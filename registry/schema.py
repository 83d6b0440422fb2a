"""Bring a database to this version's schema, and tell whether it is there.

An empty database gets `schema.sql`, which is the whole. An older one first gets the numbered files of `migrations/`
that it lacks, and then `schema.sql` too, which makes nothing that is there. Both ways end equal. The outbox, which
has a version of its own, comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import psycopg

from events import outbox_sql

from .database import Connection, Database
from .errors import SchemaMismatch
from .statements import load

_SQL = load("schema")


def migrations() -> Mapping[int, str]:
    """Read what leads from each version to the next, by the version it leads to: `0002_what.sql` leads to 2."""
    found = (
        file for file in files(__package__).joinpath("migrations").iterdir() if file.name.endswith(".sql")
    )
    texts = {int(file.name.partition("_")[0]): file.read_text(encoding="utf-8") for file in found}
    return dict(sorted(texts.items()))


VERSION = max(migrations(), default=1)


def schema_sql() -> str:
    """Read `schema.sql`: beside this package in an installed wheel, at the top of the tree otherwise."""
    packaged = files(__package__).joinpath("schema.sql")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parent.parent / "schema.sql").read_text(encoding="utf-8")


def apply(database: Database) -> int:
    """Make the database ready, whatever of it exists already. Returns the schema's version.

    Raises `SchemaMismatch` and changes nothing when the database is of a newer version.
    """
    found = version(database)
    if found is not None and found > VERSION:
        raise SchemaMismatch(_newer(found, database))
    connection = database.connection()
    with connection.transaction():
        connection.execute(_SQL["serialize_apply"])
        connection.execute(_SQL["quiet"])
        # Read again: another process may have applied while this one waited for its turn.
        _migrate(connection, version(database))
        connection.execute(schema_sql().encode())
        connection.execute(outbox_sql().encode())
    return VERSION


def _migrate(connection: Connection, found: int | None) -> None:
    for number, text in migrations().items():
        if found is not None and number > found:
            connection.execute(text.encode())
            connection.execute(_SQL["record"], {"version": number})


def check(database: Database) -> None:
    """Raise `SchemaMismatch`, with what to do, unless the database is of exactly this version."""
    found = version(database)
    if found is None:
        raise SchemaMismatch(f"no Pushfan schema in {database.address}: run `pushfan db apply`")
    if found > VERSION:
        raise SchemaMismatch(_newer(found, database))
    if found < VERSION:
        raise SchemaMismatch(
            f"the schema in {database.address} is version {found}, this is for {VERSION}: run `pushfan db apply`"
        )


def version(database: Database) -> int | None:
    """Read the version of the database's schema, `None` when there is none."""
    try:
        row = database.run(lambda connection: connection.execute(_SQL["version"]).fetchone())
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    return None if row is None else row["version"]


def _newer(found: int, database: Database) -> str:
    return (
        f"the schema in {database.address} is version {found}, newer than this Pushfan knows ({VERSION}): "
        "upgrade Pushfan here, or point it at another database"
    )
