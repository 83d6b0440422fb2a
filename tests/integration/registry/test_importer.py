"""Bulk import on PostgreSQL: results, interruptions, what is refused."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from registry import devices, importer
from registry.database import Connection, Database
from registry.errors import InvalidRegistration, RegistryError
from registry.import_rows import LONGEST_LINE
from registry.importer import Imported, Progress
from tests.integration.registry.shop import Shop, open_shop

ROOT = Path(__file__).parents[3]
HEADER = "user,device_key,channel,token,locale"


def write_devices(path: Path, rows: int, *, seed: int = 7) -> None:
    """Write rows over few names, so that batches refresh, replace and move what earlier ones made; some are bad."""
    chance = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        file.write(HEADER + "\n")
        for number in range(rows):
            names = chance.randrange(rows // 3), chance.randrange(rows // 3)
            channel = "ipad" if number % 97 == 50 else chance.choice(["ios", "android"])
            file.write(f"u{chance.randrange(5)},key-{names[0]},{channel},token-{names[1]},pt-BR\n")


def stored(shop: Shop) -> tuple[list[Any], list[Any]]:
    """Read an app's devices and feedback, without the instants and with devices numbered from 0."""
    statement = "SELECT * FROM pushfan.device WHERE app_id = %s ORDER BY id"
    rows = shop.connection.execute(statement, [shop.app_id]).fetchall()
    numbers = {row["id"]: number for number, row in enumerate(rows)}
    told = shop.connection.execute(
        "SELECT * FROM pushfan.feedback WHERE app_id = %s ORDER BY xid, id", [shop.app_id]
    ).fetchall()
    fields = ("user_id", "device_key", "token", "locale", "state", "state_reason")
    return (
        [tuple(row[field] for field in fields) for row in rows],
        [(numbers[row["device_id"]], row["kind"], row["reason"], row["token_hash"]) for row in told],
    )


def counts(imported: Imported) -> dict[str, int]:
    """Give an import's counts."""
    return {
        name: getattr(imported, name)
        for name in ("created", "refreshed", "replaced", "moved", "kept", "rejected")
    }


def files_beside(path: Path) -> list[str]:
    """List what an import left beside its file."""
    return sorted(found.name.removeprefix(path.name) for found in path.parent.glob(f"{path.name}?*"))


def import_and_die(
    database: Database, shop: Shop, path: Path, *, after_batches: int, rows_at_once: int
) -> None:
    """Import in another process that is gone at once after some batches."""
    program = f"""
import os, sys
from pathlib import Path
from registry.database import Database
from registry.importer import import_devices
done = []
def on_progress(progress):
    done.append(progress)
    if len(done) == {after_batches}:
        os._exit(9)
import_devices(Database(sys.argv[1]), {shop.app_id}, Path(sys.argv[2]), on_progress=on_progress,
               rows_at_once={rows_at_once})
"""
    ended = subprocess.run([sys.executable, "-c", program, database.url, str(path)], cwd=ROOT, check=False)
    assert ended.returncode == 9


def test_rows_become_devices(shop: Shop, database: Database, tmp_path: Path) -> None:
    """Each row is an install, with what it says."""
    path = tmp_path / "devices.csv"
    path.write_text(
        "user,device_key,channel,token,locale,time_zone,app_version,registered_at,address_kind\n"
        "ann,phone,ios,t1,pt-BR,Europe/Lisbon,1.0,2026-01-31T12:00:00+01:00,token\n"
        "bob,tablet,android,t2,,,,,installation_id\n"
    )
    imported = importer.import_devices(database, shop.app_id, path)
    assert counts(imported) == {
        "created": 2,
        "refreshed": 0,
        "replaced": 0,
        "moved": 0,
        "kept": 0,
        "rejected": 0,
    }
    [ann] = devices.list_by_user(shop.connection, shop.app_id, "ann")
    [bob] = devices.list_by_user(shop.connection, shop.app_id, "bob")
    assert (ann.token, ann.channel, ann.locale, ann.time_zone, ann.app_version) == (
        "t1", "ios", "pt-BR", "Europe/Lisbon", "1.0",
    )  # fmt: skip
    assert ann.registered_at.isoformat() == "2026-01-31T11:00:00+00:00"
    assert (bob.channel, bob.address_kind.value, bob.locale) == ("android", "installation_id", None)
    assert files_beside(path) == []


def test_import_does_what_the_installs_would(
    shop: Shop, connection: Connection, database: Database, tmp_path: Path
) -> None:
    """Rows that meet each other, within a batch and across batches, follow the rules in the file's order."""
    path = tmp_path / "devices.csv"
    write_devices(path, 600)
    imported = importer.import_devices(database, shop.app_id, path, rows_at_once=100)
    one_by_one = open_shop(connection, "one-by-one")
    changes: list[str] = []
    for line in path.read_text().splitlines()[1:]:
        user, key, channel, token, locale = line.split(",")
        if channel == "ipad":
            continue
        channel_id = {"ios": one_by_one.ios.id, "android": one_by_one.android.id}[channel]
        call = devices.Install(
            channel_id=channel_id, user_id=user, device_key=key, token=token, locale=locale
        )
        changes.append(devices.install(connection, call).change.value)
    assert stored(shop) == stored(one_by_one)
    assert counts(imported) == {
        **{change: changes.count(change) for change in ("created", "refreshed", "replaced", "moved", "kept")},
        "rejected": 6,
    }
    assert changes.count("moved") > 50


@pytest.mark.parametrize("after_batches", [1, 3, 6])
def test_killed_import_goes_on_as_if_nothing_had_happened(
    shop: Shop, connection: Connection, database: Database, tmp_path: Path, after_batches: int
) -> None:
    """Killed after a commit, an import resumes behind it: no row is lost, none is applied twice."""
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    for path in (whole, killed):
        write_devices(path, 600)
    other = open_shop(connection, "other")
    expected = importer.import_devices(database, shop.app_id, whole, rows_at_once=100)
    import_and_die(database, other, killed, after_batches=after_batches, rows_at_once=100)
    assert ".import.json" in files_beside(killed)
    resumed = importer.import_devices(database, other.app_id, killed, rows_at_once=100)
    assert resumed.rows_before == after_batches * 100
    assert counts(resumed) == counts(expected)
    assert stored(other) == stored(shop)
    assert expected.rejected_file is not None
    assert resumed.rejected_file is not None
    assert resumed.rejected_file.read_text() == expected.rejected_file.read_text()
    assert files_beside(killed) == [".rejected.csv"]


def test_batch_that_did_not_commit_is_imported_again(
    shop: Shop, connection: Connection, database: Database, tmp_path: Path
) -> None:
    """An import that failed in its COMMIT has written where it would stand, and does not believe it."""
    whole, failed = tmp_path / "whole.csv", tmp_path / "failed.csv"
    for path in (whole, failed):
        write_devices(path, 300)
    other = open_shop(connection, "other")
    expected = importer.import_devices(database, other.app_id, whole, rows_at_once=100)
    # A hundred devices at most are made by the first batch.
    row = connection.execute("SELECT last_value + 100 AS bound FROM pushfan.device_id_seq").fetchone()
    assert row is not None
    connection.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON pushfan.device DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.id > {row["bound"]}) EXECUTE FUNCTION refuse();
    """)
    with pytest.raises(psycopg.errors.RaiseException, match="not today"):
        importer.import_devices(database, shop.app_id, failed, rows_at_once=100)
    state = json.loads((tmp_path / "failed.csv.import.json").read_text())
    assert state["place"]["rejected_bytes"] > 0
    assert state["pending"] is not None
    connection.execute("DROP TRIGGER refuse ON pushfan.device")
    resumed = importer.import_devices(database, shop.app_id, failed, rows_at_once=100)
    assert counts(resumed) == counts(expected)
    assert stored(shop) == stored(other)
    assert expected.rejected_file is not None
    assert resumed.rejected_file is not None
    assert resumed.rejected_file.read_text() == expected.rejected_file.read_text()


def test_connection_that_breaks_between_batches_is_reopened(
    shop: Shop, connection: Connection, database: Database, database_url: str, tmp_path: Path
) -> None:
    """A server that cuts connections delays an import and changes nothing of it."""
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    for path in (whole, cut):
        write_devices(path, 600)
    other = open_shop(connection, "other")
    expected = importer.import_devices(database, other.app_id, whole, rows_at_once=100)
    with psycopg.connect(database_url, autocommit=True) as admin:
        mine = Database(database_url, application_name="the-import")

        def cut_connection(_: Progress) -> None:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'the-import'"
            )

        imported = importer.import_devices(
            mine, shop.app_id, cut, rows_at_once=100, on_progress=cut_connection
        )
        mine.close()
    assert counts(imported) == counts(expected)
    assert stored(shop) == stored(other)


def test_bad_rows_are_named_in_a_file_and_the_others_imported(
    shop: Shop, database: Database, tmp_path: Path
) -> None:
    """Whatever a file holds, each bad line is there with its number and every reason, readable by its owner only."""
    path = tmp_path / "devices.csv"
    path.write_bytes(
        b"\xef\xbb\xbf" + HEADER.encode() + b"\r\n"
        b"ann,phone,ios,t1,\r\n"
        b",phone,ipad,a b,\r\n"
        b"j\xf6rg,phone,ios,t2,\r\n"
        b"\r\n" + b"x" * (LONGEST_LINE + 1) + b"\r\n"
        b'"bob,phone,ios,t3,\r\n'
        b"bob,tablet,ios,t4,\r\n"
    )
    imported = importer.import_devices(database, shop.app_id, path)
    assert (imported.created, imported.rejected) == (2, 4)
    assert shop.tokens() == {"t1": "ann", "t4": "bob"}
    file = imported.rejected_file
    assert file is not None
    assert file.name == "devices.csv.rejected.csv"
    assert file.stat().st_mode & 0o777 == 0o600
    lines = file.read_text().splitlines()
    assert lines[0] == "line,problems,user,device_key,channel,token,locale"
    assert lines[1] == (
        "3,\"channel: is none of the app's channels (android, ios); user: must not be empty; "
        'token: must be printable ASCII without spaces",,phone,ipad,a b,'
    )
    assert [line.partition(",")[0] for line in lines] == ["line", "3", "4", "6", "7"]


def test_rejected_rows_of_the_last_import_are_replaced(
    shop: Shop, database: Database, tmp_path: Path
) -> None:
    """A corrected file leaves no file of rejected rows behind."""
    path = tmp_path / "devices.csv"
    path.write_text(f"{HEADER}\nann,phone,ipad,t1,\n")
    assert importer.import_devices(database, shop.app_id, path).rejected == 1
    path.write_text(f"{HEADER}\nann,phone,ios,t1,\n")
    assert importer.import_devices(database, shop.app_id, path).rejected_file is None
    assert files_beside(path) == []


def test_json_lines_are_imported(shop: Shop, database: Database, tmp_path: Path) -> None:
    """The kind of file is told by what it holds, and bad rows are JSON lines too."""
    path = tmp_path / "devices.txt"
    good = {"user": "ann", "device_key": "phone", "channel": "ios", "token": "t1"}
    path.write_text("\n".join(json.dumps(row) for row in (good, {**good, "token": 7})))
    imported = importer.import_devices(database, shop.app_id, path)
    assert (imported.created, imported.rejected) == (1, 1)
    assert imported.rejected_file is not None
    assert imported.rejected_file.name == "devices.txt.rejected.jsonl"
    assert json.loads(imported.rejected_file.read_text()) == {
        "line": 2, "problems": ["token: must be a string"], **good, "token": 7,
    }  # fmt: skip


def test_second_import_of_a_file_refreshes(shop: Shop, database: Database, tmp_path: Path) -> None:
    """Importing what is there changes no row's token, user or id."""
    path = tmp_path / "devices.csv"
    path.write_text(HEADER + "\n" + "".join(f"u{n},k{n},ios,t{n},\n" for n in range(50)))
    importer.import_devices(database, shop.app_id, path)
    before = stored(shop)
    assert importer.import_devices(database, shop.app_id, path).refreshed == 50
    assert stored(shop) == before


def test_older_rows_do_not_replace_newer_registrations(
    shop: Shop, database: Database, tmp_path: Path
) -> None:
    """A dump of last year does not take a phone from who logged in today."""
    shop.install("ann", "phone", "t-new")
    path = tmp_path / "devices.csv"
    path.write_text("user,device_key,channel,token,registered_at\nbob,phone,ios,t-old,2020-01-01T00:00:00Z\n")
    assert importer.import_devices(database, shop.app_id, path).kept == 1
    assert shop.tokens() == {"t-new": "ann"}


def test_progress_tells_rows_and_bytes(shop: Shop, database: Database, tmp_path: Path) -> None:
    """After each batch the caller hears how far the import is, up to the last byte."""
    path = tmp_path / "devices.csv"
    write_devices(path, 250)
    heard: list[Progress] = []
    importer.import_devices(database, shop.app_id, path, rows_at_once=100, on_progress=heard.append)
    assert [progress.rows for progress in heard] == [100, 200, 250]
    assert [progress.total_bytes for progress in heard] == [path.stat().st_size] * 3
    assert heard[-1].bytes == path.stat().st_size
    assert heard[-1].rejected == 3


def test_interrupted_import_of_another_file_is_not_continued(
    shop: Shop, database: Database, tmp_path: Path
) -> None:
    """A file that was changed since is not imported from the middle."""
    path = tmp_path / "devices.csv"
    write_devices(path, 300)
    import_and_die(database, shop, path, after_batches=1, rows_at_once=100)
    write_devices(path, 300, seed=8)
    with pytest.raises(RegistryError, match="another file, app or database"):
        importer.import_devices(database, shop.app_id, path)
    (tmp_path / "devices.csv.import.json").unlink()
    assert importer.import_devices(database, shop.app_id, path).rows_before == 0


def test_interrupted_import_into_another_app_is_not_continued(
    shop: Shop, connection: Connection, database: Database, tmp_path: Path
) -> None:
    """Half a file in one app and half in another would be nobody's wish."""
    path = tmp_path / "devices.csv"
    write_devices(path, 300)
    import_and_die(database, shop, path, after_batches=1, rows_at_once=100)
    with pytest.raises(RegistryError, match="another file, app or database"):
        importer.import_devices(database, open_shop(connection, "other").app_id, path)


def test_file_that_is_being_imported_is_refused(shop: Shop, database: Database, tmp_path: Path) -> None:
    """Two imports of one file at once would share one state."""
    path = tmp_path / "devices.csv"
    write_devices(path, 300)
    refused: list[str] = []

    def again(_: Progress) -> None:
        with pytest.raises(RegistryError) as caught:
            importer.import_devices(database, shop.app_id, path)
        refused.append(str(caught.value))

    importer.import_devices(database, shop.app_id, path, on_progress=again)
    assert refused == [f"{path} is being imported by another process"]


def test_damaged_state_is_refused(shop: Shop, database: Database, tmp_path: Path) -> None:
    """What cannot be understood is not guessed at."""
    path = tmp_path / "devices.csv"
    write_devices(path, 300)
    (tmp_path / "devices.csv.import.json").write_text("{")
    with pytest.raises(RegistryError, match="not the state of an import"):
        importer.import_devices(database, shop.app_id, path)


def test_file_without_a_usable_header_changes_nothing(shop: Shop, database: Database, tmp_path: Path) -> None:
    """Nothing is imported, nothing is left beside the file."""
    path = tmp_path / "devices.csv"
    path.write_text("user,token\nann,t1\n")
    with pytest.raises(InvalidRegistration, match="device_key is missing"):
        importer.import_devices(database, shop.app_id, path)
    assert files_beside(path) == []


@pytest.mark.parametrize("lines", [0, 1, 100, 101])
def test_last_line_may_end_without_a_line_end(
    shop: Shop, database: Database, tmp_path: Path, lines: int
) -> None:
    """Nothing is lost at the end of a file or of a batch."""
    path = tmp_path / "devices.csv"
    path.write_text("\n".join([HEADER, *(f"u{n},k{n},ios,t{n}," for n in range(lines))]))
    assert importer.import_devices(database, shop.app_id, path, rows_at_once=100).created == lines
    assert files_beside(path) == []


def test_memory_does_not_grow_with_the_file(shop: Shop, database: Database, tmp_path: Path) -> None:
    """A file of many megabytes without a single line end is one bad line."""
    path = tmp_path / "devices.csv"
    with path.open("wb") as file:
        file.write(HEADER.encode() + b"\n")
        for _ in range(64):
            file.write(b"x" * 1_000_000)
    program = f"""
import resource, sys
from pathlib import Path
from registry.database import Database
from registry.importer import import_devices
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert import_devices(Database(sys.argv[1]), {shop.app_id}, Path(sys.argv[2])).rejected == 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, database.url, str(path)], cwd=ROOT, check=True, capture_output=True
    )
    assert int(ended.stdout) < 30_000
