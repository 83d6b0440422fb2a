"""schema.sql on real databases: applied once, applied again, and met by a Pushfan of another version."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import schema
from registry.database import Connection, Database
from registry.errors import SchemaMismatch

# Everything that makes up a schema, by name and definition.
CATALOG = b"""
SELECT 'column' AS kind, c.table_name || '.' || c.column_name AS name,
       concat_ws(' ', c.data_type, c.is_nullable, c.column_default, c.collation_name, c.is_identity) AS definition
FROM information_schema.columns c WHERE c.table_schema = 'pushfan'
UNION ALL
SELECT 'constraint', o.conrelid::regclass || '.' || o.conname, pg_get_constraintdef(o.oid)
FROM pg_constraint o WHERE o.connamespace = 'pushfan'::regnamespace
UNION ALL
SELECT 'index', i.indexname, i.indexdef FROM pg_indexes i WHERE i.schemaname = 'pushfan'
UNION ALL
SELECT 'relation', r.relname, concat_ws(' ', r.relkind, r.reloptions::text, pg_get_expr(r.relpartbound, r.oid))
FROM pg_class r WHERE r.relnamespace = 'pushfan'::regnamespace
UNION ALL
SELECT 'function', p.proname, pg_get_functiondef(p.oid)
FROM pg_proc p WHERE p.pronamespace = 'pushfan'::regnamespace
UNION ALL
SELECT 'trigger', t.tgname, pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class r ON r.oid = t.tgrelid
WHERE r.relnamespace = 'pushfan'::regnamespace AND NOT t.tgisinternal
UNION ALL
SELECT 'enum', t.typname, e.enumsortorder || ' ' || e.enumlabel
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid WHERE t.typnamespace = 'pushfan'::regnamespace
UNION ALL
SELECT 'version', 'schema', v.version || ' ' || v.applied_at FROM pushfan.schema_version v
ORDER BY 1, 2, 3
"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Give a database that has the schema."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def empty(database: Database) -> Database:
    """Give a database without the schema."""
    database.connection().execute("DROP SCHEMA pushfan CASCADE")
    return database


def catalog(connection: Connection) -> list[tuple[str, str, str]]:
    """Read everything that makes up the schema."""
    return [(row["kind"], row["name"], row["definition"]) for row in connection.execute(CATALOG)]


def test_applying_again_changes_nothing(database: Database) -> None:
    """schema.sql is safe to apply to a database that has it, and to its data."""
    connection = database.connection()
    connection.execute("INSERT INTO pushfan.app (name) VALUES ('shop')")
    before = catalog(connection)
    assert {kind for kind, _, _ in before} == {
        "column",
        "constraint",
        "index",
        "relation",
        "function",
        "enum",
        "trigger",
        "version",
    }
    for _ in range(2):
        assert schema.apply(database) == schema.VERSION
    assert catalog(connection) == before
    assert connection.execute("SELECT name FROM pushfan.app").fetchall() == [{"name": "shop"}]


def test_empty_database_is_made_ready(empty: Database) -> None:
    """Applying to an empty database leads to exactly this version."""
    with pytest.raises(SchemaMismatch, match="pushfan db apply"):
        schema.check(empty)
    assert schema.version(empty) is None
    schema.apply(empty)
    schema.check(empty)
    assert schema.version(empty) == schema.VERSION


def test_migrated_database_equals_a_new_one(database: Database) -> None:
    """The first version's database, with its data, becomes by the numbered files what an empty one becomes at once."""
    connection = database.connection()
    new = catalog(connection)
    connection.execute("DROP SCHEMA pushfan CASCADE")
    connection.execute((Path(__file__).parent / "data/schema-1.sql").read_bytes())
    connection.execute("INSERT INTO pushfan.app (name) VALUES ('shop')")
    assert schema.version(database) == 1
    schema.apply(database)
    schema.check(database)
    assert _without_versions(catalog(connection)) == _without_versions(new)
    assert connection.execute("SELECT name FROM pushfan.app").fetchall() == [{"name": "shop"}]


def test_whole_schema_says_the_version_of_the_last_change() -> None:
    """What psql makes of an empty database has the number of the newest file."""
    said = re.search(r"schema_version \(version\)\nSELECT (\d+)", schema.schema_sql())
    assert said is not None
    assert int(said[1]) == schema.VERSION
    assert list(schema.migrations()) == list(range(2, schema.VERSION + 1))


def _without_versions(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return [row for row in rows if row[0] != "version"]


def test_newer_schema_is_refused_and_left_alone(database: Database) -> None:
    """An old Pushfan does not touch the database of a newer one, and says what to do."""
    connection = database.connection()
    connection.execute("INSERT INTO pushfan.schema_version (version) VALUES (%s)", [schema.VERSION + 1])
    before = catalog(connection)
    with pytest.raises(SchemaMismatch, match=r"newer than this Pushfan.*upgrade"):
        schema.check(database)
    with pytest.raises(SchemaMismatch, match="newer"):
        schema.apply(database)
    assert catalog(connection) == before


def test_delivery_outside_all_days_still_has_a_place(database: Database) -> None:
    """A missing partition is no error: the default one takes what no day's partition does."""
    connection = database.connection()
    connection.execute(
        "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts)"
        " VALUES (1, 1, 'accepted', 1), (pushfan.notification_id_at(now()), 1, 'accepted', 1)"
    )
    rows = connection.execute(
        "SELECT tableoid::regclass::text AS part FROM pushfan.delivery ORDER BY notification_id"
    ).fetchall()
    assert rows[0]["part"] == "pushfan.delivery_default"
    assert rows[1]["part"] != "pushfan.delivery_default"


def test_schema_needs_no_extension(database: Database) -> None:
    """Plain PostgreSQL is enough."""
    rows = database.connection().execute("SELECT extname FROM pg_extension").fetchall()
    assert rows == [{"extname": "plpgsql"}]
