"""`pushfan user`: what is stored about a person, forgetting it, and installs without a login."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from gateway.context import Context

from .command import Group, app_option, json_option, pass_context
from .output import print_json, print_record, warn


@click.group("user", cls=Group, example="pushfan user export u7 --app shop")
def group() -> None:
    """Users: export what is stored about one, forget it, promote pseudo users."""


@group.command("export", example="pushfan user export u7 --app shop > u7.json")
@click.argument("user")
@app_option()
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=10_000, show_default=True, help="Rows of each kind."
)
@json_option
@pass_context
def export(context: Context, user: str, *, app: str, limit: int, as_json: bool) -> None:
    """Print everything that is stored about USER, as JSON. Tokens appear as their short hash."""
    from registry import apps, users

    def work(connection: Any) -> dict[str, Any]:
        return {"app": app, **users.export(connection, apps.get(connection, app).id, user, limit=limit)}

    found = context.run(work)
    # As everywhere, ids of notifications are text: they exceed what JSON's numbers hold exactly.
    found["deliveries"] = [
        {**row, "notification_id": str(row["notification_id"])} for row in found["deliveries"]
    ]
    if as_json:
        print_json(found)
    else:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    if not found["is_complete"]:
        warn("there is more than the limit: raise --limit", as_json=as_json)


@group.command("forget", example="pushfan user forget u7 --app shop --yes")
@click.argument("user")
@app_option()
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_context
def forget(context: Context, user: str, *, app: str, yes: bool, as_json: bool) -> None:
    """Forget USER: devices, subscriptions, pending work and history. There is no way back.

    Make sure before that the app no longer registers this user.
    """
    from registry import apps, users

    app_id = context.run(lambda connection: apps.get(connection, app).id)
    if not yes:
        click.confirm(f"Forget user {user} of app {app}? There is no way back.", abort=True, err=True)
    done = users.forget(context.database, app_id, user)
    print_record({"app": app, "user": user, **asdict(done)}, as_json=as_json)


@group.command("pseudo", example="pushfan user pseudo")
@json_option
def make_pseudo(*, as_json: bool) -> None:
    """Make an id for an install without login: a pseudo user. It is stored with its first device."""
    from registry import pseudo

    print_record({"user": pseudo.new_id()}, as_json=as_json)


@group.command("promote", example="pushfan user promote pseudo:4f0a6c u7 --app shop")
@click.argument("pseudo_user", metavar="PSEUDO")
@click.argument("user")
@app_option()
@json_option
@pass_context
def promote(context: Context, pseudo_user: str, user: str, *, app: str, as_json: bool) -> None:
    """Make the pseudo user PSEUDO the user USER that has logged in.

    Devices, subscriptions and memberships move at once, and what is on its way to the devices arrives.
    """
    from registry import apps, pseudo

    def work(connection: Any) -> pseudo.Promotion:
        return pseudo.promote(connection, apps.get(connection, app).id, pseudo_user, user)

    done = context.run(work)
    print_record({"app": app, "pseudo": pseudo_user, "user": user, **asdict(done)}, as_json=as_json)
