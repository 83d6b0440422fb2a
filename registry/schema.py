"""Bring a database to this version's schema, and tell whether it is there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import psycopg

from .database import Database
from .errors import SchemaMismatch
from .statements import load

VERSION = 1
_SQL = load("schema")


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
        connection.execute(schema_sql().encode())
    return VERSION


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
