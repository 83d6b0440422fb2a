"""`pushfan app`: the tenants."""

from __future__ import annotations

import click

from gateway.context import Context

from .command import Group, json_option, pass_context
from .output import note, print_record, print_rows, record_of


@click.group("app", cls=Group, example="pushfan app add shop")
def group() -> None:
    """Apps: the tenants. Channels, devices and events belong to one."""


@group.command("add", example="pushfan app add shop")
@click.argument("name")
@json_option
@pass_context
def add(context: Context, name: str, *, as_json: bool) -> None:
    """Add the app NAME."""
    from registry import apps

    app = context.run(lambda connection: apps.add(connection, name))
    print_record(record_of(app, "name", "created_at"), as_json=as_json)
    if not as_json:
        note(f"Next, a way to its devices: pushfan channel add --help, with --app {app.name}")


@group.command("list", example="pushfan app list --json")
@json_option
@pass_context
def list_all(context: Context, *, as_json: bool) -> None:
    """List the apps."""
    from registry import apps

    found = context.run(apps.list_all)
    print_rows(
        [record_of(app, "name", "created_at") for app in found],
        columns=["name", "created_at"],
        as_json=as_json,
        empty="no apps yet: pushfan app add NAME",
    )
