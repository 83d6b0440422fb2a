"""`pushfan key`: who may use the HTTP API."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.context import Context

from .command import Duration, Group, app_option, json_option, pass_context
from .output import note, print_record, print_rows, record_of

if TYPE_CHECKING:
    from registry.keys import Key

_ROLES: Final = ("publish", "register", "admin")
_LANES: Final = ("urgent", "normal", "bulk")


@click.group("key", cls=Group, example="pushfan key create backend --app shop --role publish --role register")
def group() -> None:
    """Keys of the HTTP API.

    A key's secret is shown once and stored as a hash. Its prefix is visible and names it. Keys are remembered by
    servers for 5 seconds: a revoked one opens nothing after that.
    """


@group.command(
    "create", example="pushfan key create backend --app shop --role publish --lane normal --lane bulk"
)
@click.argument("name")
@click.option("--app", metavar="NAME", help="The only app that it is for.")
@click.option("--all-apps", is_flag=True, help="An operator's key, for every app.")
@click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice(_ROLES), help="Can be repeated."
)
@click.option(
    "--lane", "lanes", multiple=True, type=click.Choice(_LANES), help="Can be repeated; all without it."
)
@json_option
@pass_context
def create(
    context: Context,
    name: str,
    *,
    app: str | None,
    all_apps: bool,
    roles: tuple[str, ...],
    lanes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make the key NAME.

    publish: events and what became of them. register: devices, subscriptions, user tokens, feedback, privacy.
    admin: all of this, and channels and keys, over TLS or from the machine itself.
    """
    from registry import keys

    def work(connection: Any) -> tuple[Key, str]:
        app_id = _app_id(connection, app, all_apps=all_apps)
        return keys.create(connection, name=name, app_id=app_id, roles=roles, lanes=lanes or _LANES)

    _tell(*context.run(work), as_json=as_json)


@group.command("list", example="pushfan key list --app shop")
@app_option(required=False)
@json_option
@pass_context
def list_all(context: Context, *, app: str | None, as_json: bool) -> None:
    """List keys, by app and name, with when they were used last."""
    from registry import apps, keys

    def work(connection: Any) -> list[Key]:
        return keys.list_all(connection, None if app is None else apps.get(connection, app).id)

    columns = ["app", "key", "prefix", "roles", "lanes", "created_at", "last_used_at", "revoked_at"]
    rows = [describe(key) for key in context.run(work)]
    print_rows(rows, columns=columns, as_json=as_json, empty="no keys yet: pushfan key create --help")


@group.command("rotate", example="pushfan key rotate backend --app shop --grace 1d")
@click.argument("name")
@click.option("--app", metavar="NAME", help="The app that it is for.")
@click.option("--all-apps", is_flag=True, help="It is an operator's key.")
@click.option(
    "--grace", type=Duration(), help="How long the old secret stays good; until revoked without it."
)
@json_option
@pass_context
def rotate(
    context: Context, name: str, *, app: str | None, all_apps: bool, grace: timedelta | None, as_json: bool
) -> None:
    """Give the key NAME a second secret, so that callers change over without a gap."""
    from registry import keys

    def work(connection: Any) -> tuple[Key, str]:
        app_id = _app_id(connection, app, all_apps=all_apps)
        return keys.rotate(connection, name=name, app_id=app_id, grace=grace)

    _tell(*context.run(work), as_json=as_json)


@group.command("revoke", example="pushfan key revoke pfk_4h9tz2ma")
@click.argument("prefix")
@json_option
@pass_context
def revoke(context: Context, prefix: str, *, as_json: bool) -> None:
    """End the key with this PREFIX. There is no way back."""
    from registry import keys

    key = context.run(lambda connection: keys.revoke(connection, prefix))
    print_record(describe(key), as_json=as_json)


def describe(key: Key) -> dict[str, Any]:
    """Return what is told about a key."""
    return {
        "app": key.app,
        "key": key.name,
        "prefix": key.prefix,
        "roles": [role for role in _ROLES if role in key.roles],
        "lanes": [lane for lane in _LANES if lane in key.lanes],
        **record_of(key, "created_at", "last_used_at", "revoked_at"),
    }


def _app_id(connection: Any, app: str | None, *, all_apps: bool) -> int | None:
    from registry import apps

    if (app is None) != all_apps:
        raise click.UsageError("name the app with --app, or say --all-apps")
    return None if app is None else apps.get(connection, app).id


def _tell(key: Key, secret: str, *, as_json: bool) -> None:
    print_record({**describe(key), "secret": secret}, as_json=as_json)
    if not as_json:
        note("The secret is shown only now. Send it as the header Authorization: Bearer SECRET")
