"""`pushfan outbox` and `pushfan relay`: events from the databases that backends have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gateway.context import Context

from .command import Command, Group, json_option, pass_context
from .output import note, print_json, print_record, print_rows, span

if TYPE_CHECKING:
    from workers.settings import Settings


@click.group("outbox", cls=Group, example="pushfan outbox install --url postgresql://localhost/shop")
def group() -> None:
    """Outbox: lets a producer's own PostgreSQL publish."""


@group.command("install", example="pushfan outbox install --url postgresql://localhost/shop")
@click.option("--url", metavar="URL", help="The database; PUSHFAN_OUTBOX_URL or Pushfan's own without it.")
@json_option
@pass_context
def install(context: Context, *, url: str | None, as_json: bool) -> None:
    """Make the outbox in a database, or bring it to this version. Installing twice changes nothing."""
    from gateway.relay import source_of
    from registry import outbox

    source = source_of(_with_url(context, url))
    try:
        name = outbox.install(source)
    finally:
        source.close()
    record = {"database": source.address, "version": outbox.VERSION, "installation": name}
    print_record(record, as_json=as_json)
    if not as_json:
        note("Next, what moves it into Pushfan: pushfan relay --help")


@group.command("sql", example="pushfan outbox sql > migrations/0017_pushfan_outbox.sql")
def sql() -> None:
    """Print the statements of the outbox, for psql or for migrations of your own."""
    from events import outbox_sql

    click.echo(outbox_sql(), nl=False)


@click.command(
    "relay",
    cls=Command,
    example="""
    pushfan relay --outbox-url postgresql://localhost/shop --app shop
    pushfan relay --status --json
    """,
)
@click.option(
    "--outbox-url",
    metavar="URL",
    help="The database with the outbox; PUSHFAN_OUTBOX_URL, which keeps a password from lists of processes, "
    "or Pushfan's own without it.",
)
@click.option("--app", "apps", multiple=True, metavar="NAME", help="Only this app's; can be repeated.")
@click.option("--status", is_flag=True, help="Tell what waits and who moves it, and end.")
@json_option
@pass_context
def relay(
    context: Context, *, outbox_url: str | None, apps: tuple[str, ...], status: bool, as_json: bool
) -> int:
    """Move events from an outbox into Pushfan, until SIGTERM.

    Each event is taken in once, those of an app in order. Any number of copies may run.
    """
    from gateway import relay as one

    settings = _with_url(context, outbox_url)
    if not status:
        return one.run(context, settings, apps=apps)
    found = one.status(settings, apps=apps)
    if as_json:
        print_json(found)
        return 0
    print_record(
        {**found, "oldest": span(found["oldest_seconds"])}, as_json=False, only=("outbox", "rows", "oldest")
    )
    columns = ["name", "apps", "seen_at", "moved", "trouble"]
    print_rows(found["relays"], columns=columns, as_json=False, empty="no relay runs: pushfan relay")
    return 0


def _with_url(context: Context, url: str | None) -> Settings:
    """Give the settings, with another outbox if one was named."""
    from gateway.context import check_url

    settings = context.settings
    if url is not None:
        settings = settings.model_copy(update={"outbox_url": url})
    if settings.outbox_url is not None:
        check_url(settings.outbox_url, "the outbox's URL")
    return settings
