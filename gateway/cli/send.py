"""`pushfan send`: take an event in at once, directly in PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.context import PATIENCE_SECONDS, Context

from .command import Command, Duration, json_option, pass_context
from .draft import event_options, read_event
from .errors import ExitCode, Refused
from .notification import describe
from .output import note, plural, print_record, status, warn

if TYPE_CHECKING:
    from registry.notifications import Notification, TakenIn

_POLL_SECONDS: Final = 0.2
_FIELDS: Final = (
    "status",
    "notification",
    "id",
    "app",
    "kind",
    "lane",
    "state",
    "users",
    "devices",
    "outcomes",
    "warning",
)
_EXAMPLE: Final = """
pushfan send --app shop --user u7 --title Shipped --data order=812 --ttl 1h --wait
pushfan send --app shop --topic news --title Sale --dry-run
pushfan send --app shop --bucket orders --object o1 --change updated
"""


@click.command("send", cls=Command, example=_EXAMPLE)
@event_options
@click.option("--wait", is_flag=True, help="Until it is finished. Exits with 1 if that takes too long.")
@click.option("--timeout", type=Duration(), default="60s", show_default=True, help="The longest wait.")
@click.option("--dry-run", is_flag=True, help="Print what the providers would get, and send nothing.")
@json_option
@pass_context
def send(
    context: Context, *, wait: bool, timeout: timedelta, dry_run: bool, as_json: bool, **options: Any
) -> ExitCode:
    """Push to users, or to the subscribers of a topic or bucket.

    The event is taken in when this returns: from then on nothing is lost, whatever dies.
    """
    from workers.intake import check, take_in

    event = read_event(options)
    check(context.door, event)
    if dry_run:
        from .preview import preview

        return ExitCode.OK if preview(context, event, as_json=as_json) else ExitCode.REFUSED
    quiet_logs(as_json=as_json)
    (answer,) = take_in(context.door, [event], patience_seconds=PATIENCE_SECONDS)
    notification_id = _taken_in(context, answer, event.app)
    if not as_json:
        # Said before anything else can go wrong: whoever repeats the command would push twice.
        note(f"Taken in. What becomes of it: pushfan trace {notification_id}")
    found = _find(context, notification_id)
    is_in_time = True
    if wait:
        found, is_in_time = _wait(context, found, timeout, as_json=as_json)
    print_record({"status": answer.status.value, **describe(found)}, as_json=as_json, only=_FIELDS)
    return ExitCode.OK if is_in_time else ExitCode.REFUSED


def _taken_in(context: Context, answer: TakenIn, app: str) -> int:
    from registry import apps
    from registry.notifications import Intake

    if answer.status is Intake.CONFLICT:
        raise Refused(
            f"the id {answer.event_id} was taken in before with other content, which stays: use another id",
        )
    if answer.notification_id is None:
        context.run(lambda connection: apps.get(connection, app))
        raise Refused(f"the app {app} was added in this very moment: send again")
    return answer.notification_id


def _find(context: Context, notification_id: int) -> Notification:
    from registry import notifications

    return context.run(lambda connection: notifications.find(connection, str(notification_id)))


def _wait(
    context: Context, found: Notification, timeout: timedelta, *, as_json: bool
) -> tuple[Notification, bool]:
    deadline = time.monotonic() + timeout.total_seconds()
    with status("waiting", is_shown=not as_json) as say:
        while found.finished_at is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            found = _find(context, found.id)
            say(f"{found.state}: {sum(found.outcomes.values()):,} of {plural(found.devices, 'device')}")
    if found.finished_at is not None:
        return found, True
    warn(_why_late(context, found, timeout), as_json=as_json)
    return found, False


def _why_late(context: Context, found: Notification, timeout: timedelta) -> str:
    from registry import doctor

    waited = f"not finished after {timeout.total_seconds():g} s"
    if not context.run(doctor.workers_alive):
        return f"{waited}: no worker has been seen lately; start one with pushfan worker"
    return f"{waited}: pushfan trace {found.id} says where it is"


def quiet_logs(*, as_json: bool) -> None:
    """Let what is logged come to a person as warnings: a broker that is away costs a moment, not the event."""
    import structlog

    def tell(_logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        if method in ("warning", "error"):
            details = ", ".join(f"{name} {value}" for name, value in event.items() if name != "event")
            warn(_WORDS.get(event["event"], str(event["event"])) + f" ({details})", as_json=as_json)
        raise structlog.DropEvent

    structlog.configure(processors=[tell], cache_logger_on_first_use=False)


_WORDS: Final = {
    "announcement_failed": "the broker is away: the event is taken in all the same, and workers find it"
}
