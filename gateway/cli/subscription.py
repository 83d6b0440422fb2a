"""`pushfan subscribe`, `unsubscribe`, `topic` and `bucket`: who receives what a bucket or a topic says."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import click

from gateway.context import Context

from .command import Command, Group, app_option, json_option, pass_context
from .output import print_record, print_rows

if TYPE_CHECKING:
    from registry.subscriptions import Target, TargetKind

F = TypeVar("F", bound=Callable[..., Any])
_PAGE: Final = 1000


def target_options(function: F) -> F:
    """Add the options that name a bucket or a topic, and users."""
    for option in reversed(
        (
            app_option(),
            click.option("--topic", metavar="NAME", help="The topic."),
            click.option("--bucket", metavar="NAME", help="The bucket, instead of a topic."),
            click.option(
                "--scope", default="app", show_default=True, help="Whose: app, group:ID, user:ID or thing:ID."
            ),
            click.option("--user", "users", multiple=True, metavar="ID", help="Who. Can be repeated."),
            users_from_option(),
            json_option,
        )
    ):
        function = option(function)
    return function


def rule_options(function: F) -> F:
    """Add the options of `topic set` and `bucket set`."""
    for option in reversed(
        (
            app_option(),
            click.option(
                "--scope", default="app", show_default=True, help="Whose: app, group:ID, user:ID or thing:ID."
            ),
            click.option("--admits", metavar="RULE", help="Who may subscribe itself."),
            click.option("--senders", metavar="RULE", help="In whose name may be sent."),
            json_option,
        )
    ):
        function = option(function)
    return function


def users_from_option() -> Callable[[F], F]:
    """Add `--users-from`."""
    return click.option(
        "--users-from",
        type=click.File("r", encoding="utf-8"),
        metavar="FILE",
        help="A user's id on each line; - is standard input.",
    )


def read_users(users: tuple[str, ...], users_from: IO[str] | None) -> list[str]:
    """Return the users named by options and file, in order, each once."""
    lines = [line.strip() for line in users_from] if users_from else []
    return list(dict.fromkeys([*users, *filter(None, lines)]))


@click.command("subscribe", cls=Command, example="pushfan subscribe --app shop --topic news --user u7")
@target_options
@pass_context
def subscribe(
    context: Context,
    *,
    app: str,
    topic: str | None,
    bucket: str | None,
    scope: str,
    users: tuple[str, ...],
    users_from: IO[str] | None,
    as_json: bool,
) -> None:
    """Subscribe users to a topic or a bucket.

    Either begins with its first subscription.
    """
    from registry import apps, subscriptions

    target = _target(topic, bucket, scope)
    everyone = everyone_named(users, users_from)

    def work(connection: Any) -> int:
        app_id = apps.get(connection, app).id
        return subscriptions.subscribe_many(connection, app_id, [(target, user) for user in everyone])

    new = context.run(work)
    _tell(app, target, {"subscribed": new, "unchanged": len(everyone) - new}, as_json=as_json)


@click.command("unsubscribe", cls=Command, example="pushfan unsubscribe --app shop --bucket orders --user u7")
@target_options
@pass_context
def unsubscribe(
    context: Context,
    *,
    app: str,
    topic: str | None,
    bucket: str | None,
    scope: str,
    users: tuple[str, ...],
    users_from: IO[str] | None,
    as_json: bool,
) -> None:
    """End users' subscriptions to a topic or a bucket."""
    from registry import apps, subscriptions

    target = _target(topic, bucket, scope)
    everyone = everyone_named(users, users_from)

    def work(connection: Any) -> int:
        app_id = apps.get(connection, app).id
        return sum(subscriptions.unsubscribe(connection, app_id, target, user) for user in everyone)

    gone = context.run(work)
    _tell(app, target, {"unsubscribed": gone, "unchanged": len(everyone) - gone}, as_json=as_json)


@click.group("topic", cls=Group, example="pushfan topic list --app shop")
def topic_group() -> None:
    """Topics: what users subscribe to for messages."""


@topic_group.command("list", example="pushfan topic list --app shop")
@app_option()
@json_option
@pass_context
def list_topics(context: Context, *, app: str, as_json: bool) -> None:
    """List an app's topics and how many users each has."""
    from registry.subscriptions import TargetKind

    _list(context, app, TargetKind.TOPIC, as_json=as_json)


@topic_group.command("set", example="pushfan topic set news --app shop --admits users")
@click.argument("name")
@rule_options
@pass_context
def set_topic(context: Context, name: str, **options: Any) -> None:
    """Make the topic NAME, or change who may subscribe itself and in whose name may be sent.

    A rule is backend, members (of the scope), users or group:ID; what is left out is members, but the backend
    sends to the app's own topics.
    """
    _set(context, _target(name, None, options["scope"]), options)


@click.group("bucket", cls=Group, example="pushfan bucket list --app shop")
def bucket_group() -> None:
    """Buckets: what users subscribe to for changes of objects."""


@bucket_group.command("list", example="pushfan bucket list --app shop")
@app_option()
@json_option
@pass_context
def list_buckets(context: Context, *, app: str, as_json: bool) -> None:
    """List an app's buckets and how many users each has."""
    from registry.subscriptions import TargetKind

    _list(context, app, TargetKind.BUCKET, as_json=as_json)


@bucket_group.command("set", example="pushfan bucket set photos --app shop --scope group:g1")
@click.argument("name")
@rule_options
@pass_context
def set_bucket(context: Context, name: str, **options: Any) -> None:
    """Make the bucket NAME, or change who may subscribe itself and in whose name writes may be told.

    A rule is backend, members (of the scope), users or group:ID; what is left out is members, but the backend
    tells of writes.
    """
    _set(context, _target(None, name, options["scope"]), options)


def _set(context: Context, target: Target, options: dict[str, Any]) -> None:
    from registry import apps, rules, subscriptions
    from registry.checks import Problems, refuse
    from registry.subscriptions import Rules

    wanted = Rules(
        admits=options["admits"] or rules.default_admits(target),
        senders=options["senders"] or rules.default_senders(target),
    )
    problems = Problems()
    rules.check(wanted.admits, "admits", problems)
    rules.check(wanted.senders, "senders", problems)
    refuse(problems)

    def work(connection: Any) -> bool:
        return subscriptions.put_target(connection, apps.get(connection, options["app"]).id, target, wanted)

    is_new = context.run(work)
    record = {"app": options["app"], target.kind.value: target.name, "scope": str(target.scope)}
    told = {"admits": wanted.admits, "senders": wanted.senders, "is_new": is_new}
    print_record(record | told, as_json=options["as_json"])


def _list(context: Context, app: str, kind: TargetKind, *, as_json: bool) -> None:
    from registry import apps, subscriptions

    def work(connection: Any) -> list[dict[str, Any]]:
        app_id = apps.get(connection, app).id
        rows: list[dict[str, Any]] = []
        last: Target | None = None
        while page := subscriptions.list_targets(connection, app_id, kind=kind, after=last, limit=_PAGE):
            rows += [
                {
                    "app": app,
                    kind.value: found.target.name,
                    "scope": str(found.target.scope),
                    "users": found.users,
                    "admits": found.rules.admits,
                    "senders": found.rules.senders,
                    "created_at": found.created_at,
                }
                for found in page
            ]
            last = page[-1].target
        return rows

    rows = context.run(work)
    empty = f"no {kind.value}s yet: one begins with its first pushfan subscribe"
    print_rows(
        rows,
        columns=[kind.value, "scope", "users", "admits", "senders", "created_at"],
        as_json=as_json,
        empty=empty,
    )


def _target(topic: str | None, bucket: str | None, scope: str) -> Target:
    from registry.subscriptions import Scope, Target, TargetKind

    if (topic is None) == (bucket is None):
        raise click.UsageError("name either --topic or --bucket")
    kind = TargetKind.BUCKET if topic is None else TargetKind.TOPIC
    return Target(kind=kind, name=topic or bucket or "", scope=Scope.parse(scope))


def everyone_named(users: tuple[str, ...], users_from: IO[str] | None) -> list[str]:
    """Return the users named by options and file, of whom there must be some."""
    everyone = read_users(users, users_from)
    if not everyone:
        raise click.UsageError("name at least one --user, or --users-from a file that has some")
    return everyone


def _tell(app: str, target: Target, counts: dict[str, int], *, as_json: bool) -> None:
    record = {"app": app, target.kind.value: target.name, "scope": str(target.scope), **counts}
    print_record(record, as_json=as_json)
