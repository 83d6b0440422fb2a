"""`pushfan group`: users who share topics and buckets."""

from __future__ import annotations

from dataclasses import asdict
from typing import IO, Any, Final

import click

from gateway.context import Context

from .command import Group, app_option, json_option, pass_context
from .output import print_record, print_rows
from .subscription import everyone_named, users_from_option

_PAGE: Final = 1000
_user_option = click.option("--user", "users", multiple=True, metavar="ID", help="Who. Can be repeated.")


@click.group("group", cls=Group, example="pushfan group join team-1 --app shop --user u7 --user u8")
def group() -> None:
    """Groups: users who share topics and buckets, which have the scope group:ID."""  # noqa: D401  a noun is what it is for


@group.command("add", example="pushfan group add team-1 --app shop")
@click.argument("name")
@app_option()
@json_option
@pass_context
def add(context: Context, name: str, *, app: str, as_json: bool) -> None:
    """Make the group NAME. One also begins with its first member."""
    from registry import apps, groups

    is_new = context.run(lambda connection: groups.put(connection, apps.get(connection, app).id, name))
    print_record({"app": app, "group": name, "is_new": is_new}, as_json=as_json)


@group.command("list", example="pushfan group list --app shop")
@app_option()
@click.option("--user", metavar="ID", help="Only those that this user belongs to.")
@json_option
@pass_context
def list_all(context: Context, *, app: str, user: str | None, as_json: bool) -> None:
    """List an app's groups and how many members each has."""
    from registry import apps, groups

    def work(connection: Any) -> list[dict[str, Any]]:
        app_id = apps.get(connection, app).id
        rows: list[dict[str, Any]] = []
        while page := (
            groups.list_all(connection, app_id, after=rows[-1]["id"] if rows else "", limit=_PAGE)
            if user is None
            else [
                groups.get(connection, app_id, name)
                for name in groups.list_by_user(
                    connection, app_id, user, after=rows[-1]["id"] if rows else "", limit=_PAGE
                )
            ]
        ):
            rows += [asdict(found) for found in page]
        return rows

    rows = [{"group": row.pop("id"), **row} for row in context.run(work)]
    print_rows(
        rows,
        columns=["group", "members", "created_at"],
        as_json=as_json,
        empty="no groups: pushfan group add NAME",
    )


@group.command("members", example="pushfan group members team-1 --app shop")
@click.argument("name")
@app_option()
@json_option
@pass_context
def members(context: Context, name: str, *, app: str, as_json: bool) -> None:
    """List who belongs to the group NAME."""
    from registry import apps, groups

    def work(connection: Any) -> list[str]:
        app_id = apps.get(connection, app).id
        groups.get(connection, app_id, name)
        users: list[str] = []
        while page := groups.list_members(
            connection, app_id, name, after=users[-1] if users else "", limit=_PAGE
        ):
            users += page
        return users

    print_rows([{"user": user} for user in context.run(work)], columns=["user"], as_json=as_json)


@group.command("join", example="pushfan group join team-1 --app shop --user u7")
@click.argument("name")
@app_option()
@_user_option
@users_from_option()
@json_option
@pass_context
def join(
    context: Context,
    name: str,
    *,
    app: str,
    users: tuple[str, ...],
    users_from: IO[str] | None,
    as_json: bool,
) -> None:
    """Add users to the group NAME. It subscribes them to nothing."""
    from registry import apps, groups

    everyone = everyone_named(users, users_from)

    def work(connection: Any) -> int:
        return groups.add_members(connection, apps.get(connection, app).id, name, everyone)

    new = context.run(work)
    print_record({"app": app, "group": name, "added": new, "unchanged": len(everyone) - new}, as_json=as_json)


@group.command("leave", example="pushfan group leave team-1 --app shop --user u7")
@click.argument("name")
@app_option()
@_user_option
@users_from_option()
@json_option
@pass_context
def leave(
    context: Context,
    name: str,
    *,
    app: str,
    users: tuple[str, ...],
    users_from: IO[str] | None,
    as_json: bool,
) -> None:
    """End memberships in the group NAME, and those users' subscriptions to what is the group's."""
    from registry import apps, groups

    everyone = everyone_named(users, users_from)

    def work(connection: Any) -> int:
        app_id = apps.get(connection, app).id
        return sum(groups.remove_member(connection, app_id, name, user) for user in everyone)

    gone = context.run(work)
    print_record(
        {"app": app, "group": name, "removed": gone, "unchanged": len(everyone) - gone}, as_json=as_json
    )


@group.command("remove", example="pushfan group remove team-1 --app shop --yes")
@click.argument("name")
@app_option()
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_context
def remove(context: Context, name: str, *, app: str, yes: bool, as_json: bool) -> None:
    """Remove the group NAME, its topics and buckets, and all subscriptions to them."""
    from registry import apps, groups

    def find(connection: Any) -> int:
        app_id = apps.get(connection, app).id
        groups.get(connection, app_id, name)
        return app_id

    app_id = context.run(find)
    if not yes:
        click.confirm(f"Remove the group {name} of app {app} with all that is its own?", abort=True, err=True)
    groups.remove(context.database, app_id, name)
    print_record({"app": app, "group": name, "removed": True}, as_json=as_json)
