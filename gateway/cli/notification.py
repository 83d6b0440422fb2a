"""`pushfan notification`: events that were taken in, and what became of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.context import Context

from .command import Group, app_option, json_option, pass_context
from .errors import ExitCode, Refused
from .output import note, print_record, print_rows, record_of

if TYPE_CHECKING:
    from registry.notifications import Notification

COLUMNS: Final = ("notification", "id", "app", "kind", "lane", "state", "devices", "outcomes", "created_at")


@click.group("notification", cls=Group, example="pushfan notification list --app shop --unfinished")
def group() -> None:
    """Notifications: events taken in, and what became of them."""


@group.command("list", example="pushfan notification list --app shop --unfinished")
@app_option(required=False)
@click.option("--unfinished", is_flag=True, help="Only those that are not finished.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option(
    "--before", type=click.IntRange(1, 2**63 - 1), metavar="NOTIFICATION", help="Only older than this one."
)
@json_option
@pass_context
def list_page(
    context: Context, *, app: str | None, unfinished: bool, limit: int, before: int | None, as_json: bool
) -> None:
    """List notifications, the newest first."""
    from registry import apps, notifications

    def work(connection: Any) -> list[Notification]:
        if app is not None:
            apps.get(connection, app)
        return notifications.list_page(connection, app=app, before=before, unfinished=unfinished, limit=limit)

    found = context.run(work)
    print_rows([describe(one) for one in found], columns=COLUMNS, as_json=as_json, empty="no notifications")
    if len(found) == limit and not as_json:
        note(f"Go on with --before {found[-1].id}")


@group.command("show", example="pushfan notification show order-812-shipped")
@click.argument("name", metavar="NOTIFICATION|EVENT-ID")
@app_option(required=False)
@json_option
@pass_context
def show(context: Context, name: str, *, app: str | None, as_json: bool) -> None:
    """Show one notification: what it says, and how far it is. `pushfan trace` tells it by device."""
    from registry import notifications

    def work(connection: Any) -> dict[str, Any]:
        found = notifications.find(connection, name, app=app)
        progress = notifications.progress(connection, found.id)
        where = {"open": progress.open, "waiting": progress.waiting, "final": progress.final}
        return {**describe(found), "deliveries": where, "event": found.event}

    record = context.run(work)
    if not as_json and record["event"] is not None:
        record["event"] = json.dumps(record["event"], ensure_ascii=False)
    print_record(record, as_json=as_json)


@group.command("cancel", example="pushfan notification cancel order-812-shipped")
@click.argument("name", metavar="NOTIFICATION|EVENT-ID")
@app_option(required=False)
@json_option
@pass_context
def cancel(context: Context, name: str, *, app: str | None, as_json: bool) -> ExitCode:
    """Stop sending a notification. What is out already cannot be called back.

    Exits with 1 if it had finished before.
    """
    from registry import notifications

    found = context.run(lambda connection: notifications.find(connection, name, app=app))
    is_new = context.run(lambda connection: notifications.cancel(connection, found.id))
    if is_new:
        context.run(lambda connection: notifications.hurry(connection, found.id))
    after = context.run(lambda connection: notifications.find(connection, str(found.id)))
    if after.cancelled_at is None:
        raise Refused(f"notification {found.id} is finished already")
    print_record(describe(after), as_json=as_json)
    return ExitCode.OK


def describe(notification: Notification) -> dict[str, Any]:
    """Return what is told about a notification. Its id is text: JSON's numbers are exact to 53 bits."""
    outcomes: Mapping[str, int] = {outcome.value: count for outcome, count in notification.outcomes.items()}
    return {
        "notification": str(notification.id),
        "id": notification.key,
        **record_of(notification, "app", "kind", "lane", "state", "users", "devices"),
        "outcomes": dict(outcomes),
        **record_of(notification, "retries", "unsure", "warning", "created_at", "expires_at"),
        **record_of(notification, "planned_at", "cancelled_at", "finished_at"),
    }
