"""The command line, `pushfan`: a module for each noun, put together here.

Every command imports what it needs when it runs, so that help and completion are quick.
"""

from __future__ import annotations

import os
from typing import Final

import click

from gateway.context import Context

from . import (
    app,
    channel,
    db,
    dead_letter,
    device,
    doctor,
    group,
    key,
    notification,
    outbox,
    process,
    send,
    status,
    subscription,
    trace,
    user,
    webhook,
)
from .command import Root

__all__ = ["cli", "main"]

_SECTIONS: Final[dict[str, dict[str, click.Command]]] = {
    "Run": {
        "up": process.up,
        "demo": process.demo,
        "worker": process.worker,
        "api": process.api,
        "relay": outbox.relay,
        "simulate": process.simulate,
    },
    "Set up": {
        "db": db.group,
        "outbox": outbox.group,
        "app": app.group,
        "channel": channel.group,
        "key": key.group,
        "webhook": webhook.group,
    },
    "Register": {
        "device": device.group,
        "subscribe": subscription.subscribe,
        "unsubscribe": subscription.unsubscribe,
        "topic": subscription.topic_group,
        "bucket": subscription.bucket_group,
        "group": group.group,
        "user": user.group,
    },
    "Push": {"send": send.send, "notification": notification.group, "trace": trace.trace},
    "Look after it": {
        "status": status.status,
        "doctor": doctor.doctor,
        "dead-letter": dead_letter.group,
        "celery": process.celery,
    },
}


@click.group(
    "pushfan",
    cls=Root,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    example="""
    pushfan up --simulate
    pushfan send --app shop --user u7 --title Hello --wait
    pushfan trace --last
    """,
)
@click.version_option(package_name="pushfan", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Push notifications to every device of every recipient, through FCM, APNs and JPush.

    Configured by PUSHFAN_* variables. A running `pushfan up` is found by its state in PUSHFAN_HOME,
    which is .pushfan if not set.
    """
    ctx.obj = context = Context()
    ctx.call_on_close(context.close)
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Run the command line of this process."""
    cli.main()
