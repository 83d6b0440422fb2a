"""`pushfan webhook`: where apps are told of feedback and of finished notifications."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.context import Context

from .command import Duration, Group, app_option, json_option, pass_context
from .output import note, print_record, print_rows, record_of

if TYPE_CHECKING:
    from registry.webhooks import Webhook

_TOPICS: Final = ("feedback", "finished")


@click.group(
    "webhook", cls=Group, example="pushfan webhook add audit --app shop --url https://shop.example/push"
)
def group() -> None:
    """Webhooks: an app's receivers of feedback and of finished notifications.

    Workers tell them, in batches and in order, signed as Standard Webhooks say, again until the receiver answers 2xx.
    """


@group.command(
    "add", example="pushfan webhook add audit --app shop --url https://shop.example/push --event feedback"
)
@click.argument("name")
@app_option()
@click.option("--url", required=True, help="https://…, reached from the workers.")
@click.option(
    "--event", "events", multiple=True, type=click.Choice(_TOPICS), help="Can be repeated; all without it."
)
@json_option
@pass_context
def add(context: Context, name: str, *, app: str, url: str, events: tuple[str, ...], as_json: bool) -> None:
    """Make the webhook NAME, or change it and enable it again.

    A new one begins with what happens from now on. Its secret is shown once.
    """
    from registry import apps, webhooks
    from registry.errors import InvalidRegistration
    from workers.posting import Poster

    try:
        Poster.of(context.settings).check(url)
    except ValueError as error:
        raise InvalidRegistration(f"url: {error}") from error
    signer = _signer(context)
    signer.secret(bytes(16))  # nothing is stored while no secret can be told

    def work(connection: Any) -> tuple[Webhook, bool]:
        app_id = apps.get(connection, app).id
        return webhooks.put(connection, app_id, name=name, url=url, events=events or _TOPICS)

    webhook, is_new = context.run(work)
    if is_new:
        _tell(webhook, signer.secret(webhook.salt), as_json=as_json)
    else:
        print_record(describe(webhook), as_json=as_json)


@group.command("list", example="pushfan webhook list --app shop")
@app_option(required=False)
@json_option
@pass_context
def list_all(context: Context, *, app: str | None, as_json: bool) -> None:
    """List webhooks, with how they fare."""
    from registry import apps, webhooks

    def work(connection: Any) -> list[Webhook]:
        return webhooks.list_all(connection, None if app is None else apps.get(connection, app).id)

    columns = ["app", "webhook", "url", "events", "state", "failures", "last_error", "last_told_at"]
    rows = [describe(webhook) for webhook in context.run(work)]
    print_rows(rows, columns=columns, as_json=as_json, empty="no webhooks yet: pushfan webhook add --help")


@group.command("rotate", example="pushfan webhook rotate audit --app shop --grace 1d")
@click.argument("name")
@app_option()
@click.option(
    "--grace", type=Duration(), default=timedelta(days=1), help="How long the old secret signs too; 1d."
)
@json_option
@pass_context
def rotate(context: Context, name: str, *, app: str, grace: timedelta, as_json: bool) -> None:
    """Give the webhook NAME another secret. For a while messages are signed by both."""
    from registry import apps, webhooks

    signer = _signer(context)
    signer.secret(bytes(16))

    def work(connection: Any) -> Webhook:
        return webhooks.rotate(connection, apps.get(connection, app).id, name, grace=grace)

    webhook = context.run(work)
    _tell(webhook, signer.secret(webhook.salt), as_json=as_json)


@group.command("disable", example="pushfan webhook disable audit --app shop")
@click.argument("name")
@app_option()
@json_option
@pass_context
def disable(context: Context, name: str, *, app: str, as_json: bool) -> None:
    """Tell the webhook NAME nothing for now. `add` enables it, and it goes on where it stopped."""
    from registry import apps, webhooks

    def work(connection: Any) -> Webhook:
        found = webhooks.get(connection, apps.get(connection, app).id, name)
        return webhooks.put(
            connection,
            found.app_id,
            name=name,
            url=found.url,
            events=found.events,
            state=webhooks.State.DISABLED,
        )[0]

    print_record(describe(context.run(work)), as_json=as_json)


@group.command("remove", example="pushfan webhook remove audit --app shop")
@click.argument("name")
@app_option()
@json_option
@pass_context
def remove(context: Context, name: str, *, app: str, as_json: bool) -> None:
    """Remove the webhook NAME. What its receiver was not told it never is."""
    from registry import apps, webhooks

    context.run(lambda connection: webhooks.remove(connection, apps.get(connection, app).id, name))
    print_record({"app": app, "webhook": name, "removed": True}, as_json=as_json)


def describe(webhook: Webhook) -> dict[str, Any]:
    """Return what is told about a webhook."""
    return {
        "app": webhook.app,
        "webhook": webhook.name,
        "url": webhook.url,
        "events": [topic.value for topic in webhook.events],
        "told": str(webhook.told),
        **record_of(
            webhook,
            "state",
            "state_reason",
            "state_changed_at",
            "failures",
            "failing_since",
            "last_error",
            "last_told_at",
            "created_at",
        ),
        "previous_secret_until": webhook.previous_until and webhook.previous_until.isoformat(),
    }


def _signer(context: Context) -> Any:
    from workers.signing import Signer

    return Signer(context.store, context.settings.webhook_secret)


def _tell(webhook: Webhook, secret: str, *, as_json: bool) -> None:
    print_record({**describe(webhook), "secret": secret}, as_json=as_json)
    if not as_json:
        note("The secret is shown only now. The receiver verifies with it: verify_webhook of pushfan-events")
