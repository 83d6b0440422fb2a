"""`pushfan db`: the schema."""

from __future__ import annotations

import click

from gateway.context import Context

from .command import Group, json_option, pass_context
from .output import print_record


@click.group("db", cls=Group, example="pushfan db apply")
def group() -> None:
    """Database: make it ready, tell whether it is."""


@group.command("apply", example="PUSHFAN_DATABASE_URL=postgresql://localhost/pushfan pushfan db apply")
@json_option
@pass_context
def apply(context: Context, *, as_json: bool) -> None:
    """Make the database ready, whatever of the schema exists already. Applying twice changes nothing."""
    from registry import schema

    database = context.unchecked_database
    before = schema.version(database)
    after = schema.apply(database)
    record = {"database": database.address, "version": after, "changed": before != after}
    print_record(record, as_json=as_json)


@group.command("check", example="pushfan db check --json")
@json_option
@pass_context
def check(context: Context, *, as_json: bool) -> None:
    """Tell whether the database holds the schema that this version needs. Exits with 1 if it does not."""
    from registry import schema

    database = context.database
    print_record({"database": database.address, "version": schema.version(database)}, as_json=as_json)
