"""`pushfan dead-letter`: what will not move by itself any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from gateway.context import Context

from .command import Group, app_option, json_option, pass_context
from .output import note, print_record, print_rows, record_of

if TYPE_CHECKING:
    from registry.dead_letters import Letter

_KINDS: Final = ("undecodable", "invalid", "conflict", "poison", "exhausted")


@click.group("dead-letter", cls=Group, example="pushfan dead-letter list --kind exhausted")
def group() -> None:
    """Dead letters: what needs a person."""


@group.command("list", example="pushfan dead-letter list --app shop --kind invalid")
@app_option(required=False)
@click.option("--kind", type=click.Choice(_KINDS), help="Only these.")
@click.option("--notification", metavar="NOTIFICATION|EVENT-ID", help="Only of this one.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only older than this one.")
@json_option
@pass_context
def list_page(
    context: Context,
    *,
    app: str | None,
    kind: str | None,
    notification: str | None,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """List dead letters, the newest first."""
    from registry import apps, dead_letters, notifications

    def work(connection: Any) -> list[Letter]:
        if app is not None:
            apps.get(connection, app)
        wanted = None if notification is None else notifications.find(connection, notification, app=app).id
        return dead_letters.list_page(
            connection,
            app=app,
            kind=None if kind is None else dead_letters.Kind(kind),
            notification_id=wanted,
            before=before,
            limit=limit,
        )

    found = context.run(work)
    columns = ["dead_letter", "app", "kind", "notification", "error", "at"]
    print_rows(
        [describe(letter) for letter in found], columns=columns, as_json=as_json, empty="no dead letters"
    )
    if len(found) == limit and not as_json:
        note(f"Go on with --before {found[-1].id}")


@group.command("show", example="pushfan dead-letter show 17")
@click.argument("letter", type=click.IntRange(1, 2**63 - 1), metavar="ID")
@json_option
@pass_context
def show(context: Context, letter: int, *, as_json: bool) -> None:
    """Show one dead letter with what came in."""
    from registry import dead_letters

    found = context.run(lambda connection: dead_letters.find(connection, letter))
    print_record({**describe(found), "body": found.body}, as_json=as_json)


def describe(letter: Letter) -> dict[str, Any]:
    """Return what is told about a dead letter in a list."""
    return {
        "dead_letter": letter.id,
        **record_of(letter, "app"),
        "kind": letter.kind.value,
        "notification": None if letter.notification_id is None else str(letter.notification_id),
        "device": letter.device_id,
        **record_of(letter, "error", "at"),
        "replayed_as": None if letter.replayed_as is None else str(letter.replayed_as),
    }
