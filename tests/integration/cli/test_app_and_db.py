from __future__ import annotations

import psycopg
import pytest

from gateway.cli.errors import ExitCode
from registry import schema
from tests.conftest import Server, database_at
from tests.integration.cli.terminal import Terminal


@pytest.fixture
def empty(postgres_server: Server, pushfan: Terminal) -> Terminal:
    """Give a terminal on the server's own database, without a schema."""
    with psycopg.connect(postgres_server.url, autocommit=True) as server:
        server.execute("DROP DATABASE IF EXISTS empty_one")
        server.execute("CREATE DATABASE empty_one")
    pushfan.environ["PUSHFAN_DATABASE_URL"] = database_at(postgres_server, "empty_one")
    return pushfan


def test_apps_are_added_and_listed(pushfan: Terminal) -> None:
    """An app that was added is in the list, as an object on a line and in a table."""
    assert pushfan.ok("app", "add", "shop", "--json").json["name"] == "shop"
    pushfan.ok("app", "add", "bank")
    assert [app["name"] for app in pushfan.ok("app", "list", "--json").lines] == ["bank", "shop"]
    assert pushfan.ok("app", "list").out.splitlines()[1].startswith("bank ")


def test_app_that_cannot_be_is_refused(pushfan: Terminal) -> None:
    """A name that is none, and a name that is taken, are refused."""
    pushfan.ok("app", "add", "shop")
    ended = pushfan("app", "add", "no app!", "--json")
    assert (ended.code, ended.paths) == (ExitCode.REFUSED, ["name"])
    ended = pushfan("app", "add", "shop", "--json")
    assert (ended.code, ended.error["code"]) == (ExitCode.REFUSED, "already_exists")


def test_schema_is_applied_once(empty: Terminal) -> None:
    """Applying makes the database ready; applying again changes nothing."""
    ended = empty("db", "check", "--json")
    assert (ended.code, ended.error["code"]) == (ExitCode.REFUSED, "schema")
    assert empty.ok("db", "apply", "--json").json["changed"] is True
    assert empty.ok("db", "apply", "--json").json["changed"] is False
    assert empty.ok("db", "check", "--json").json["version"] == schema.VERSION


def test_command_on_an_empty_database_says_what_to_do(empty: Terminal) -> None:
    """Without the schema every command names the command that makes it."""
    ended = empty("app", "list")
    assert (ended.code, "pushfan db apply" in ended.err) == (ExitCode.REFUSED, True)


def test_newer_schema_is_left_alone(pushfan: Terminal, connection: psycopg.Connection) -> None:
    """A database of a newer version is neither read nor changed."""
    connection.execute("INSERT INTO pushfan.schema_version (version) VALUES (99)")
    for command in (("db", "check"), ("db", "apply"), ("app", "list")):
        ended = pushfan(*command, "--json")
        assert (ended.code, "newer" in ended.error["message"]) == (ExitCode.REFUSED, True)
