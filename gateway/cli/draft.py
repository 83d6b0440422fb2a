"""Make an event of options, or of a file in wire form. Either is refused with every problem at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import click

from .command import Duration, Pair, SectionOption
from .errors import Refused
from .subscription import read_users

if TYPE_CHECKING:
    from events import Event

F = TypeVar("F", bound=Callable[..., Any])

# (option, type, help): what a message says, in the order of the help. Every field of `Message` is here.
_TEXTS: Final = (
    ("--title", "What is shown."),
    ("--body", "What is shown."),
    ("--subtitle", "What is shown (iOS)."),
    ("--image", "Address of a picture."),
    ("--icon", "Name of an icon."),
    ("--color", "Of the icon, such as #00aaff."),
    ("--sound", "Name of a sound, or default."),
    ("--url", "Opened on a tap."),
    ("--category", "Which actions it offers (iOS)."),
    ("--thread-id", "Groups notifications (iOS)."),
    ("--channel-id", "Notification channel (Android)."),
    ("--tag", "Replaces one with the same tag (Android)."),
    ("--collapse-key", "Replaces an earlier one, up to 64 bytes."),
    ("--title-loc-key", "Key of the title in the app's own texts."),
    ("--body-loc-key", "Key of the body in the app's own texts."),
    ("--analytics-label", "For the provider's reports (FCM)."),
)
_LISTS: Final = {"title_loc_arg": "title_loc_args", "body_loc_arg": "body_loc_args"}
_SECTIONS: Final = ("fcm", "apns", "jpush")
_RECIPIENTS: Final = ("topic", "bucket", "object", "change", "scope", "actor")
# What may be said beside --file: it replaces what the file says.
_BESIDE_FILE: Final = ("app", "id", "lane", "expires_at", "environment")


class JsonObject(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """A JSON object, typed or in a file: `@section.json`."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Read the object."""
        try:
            text = click.open_file(value[1:], encoding="utf-8").read() if value.startswith("@") else value
            found = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            self.fail(f"is not JSON, nor @ and the name of a file with it: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail("must be a JSON object", param, ctx)
        return found


class Translation(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """`LOCALE.FIELD=TEXT`, such as `de.title=Hallo`."""

    name = "locale.field=text"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str, str]:
        """Part locale, field and text."""
        place, separator, text = value.partition("=")
        locale, dot, field = place.rpartition(".")
        if not (separator and dot and locale and field):
            self.fail(f"{value!r} is not LOCALE.FIELD=TEXT, such as de.title=Hallo", param, ctx)
        return locale, field, text


def event_options(function: F) -> F:
    """Add every option that says to whom, how long and what."""
    for option in reversed((*_event(), *_message())):
        function = option(function)
    return function


def _event() -> list[Callable[[F], F]]:
    to = "To whom"
    return [
        _option("--app", to, metavar="NAME", help="The app."),
        _option(
            "--user", "users", to, multiple=True, metavar="ID", help="A user, directly. Can be repeated."
        ),
        _option(
            "--users-from",
            to,
            type=click.File("r", encoding="utf-8"),
            metavar="FILE",
            help="Users, one a line.",
        ),
        _option("--topic", to, metavar="NAME", help="The users subscribed to a topic."),
        _option(
            "--bucket",
            to,
            metavar="NAME",
            help="The users subscribed to a bucket; with --object and --change.",
        ),
        _option("--object", to, metavar="ID", help="What changed in the bucket."),
        _option("--change", to, metavar="CHANGE", help="created, updated, deleted, …"),
        _option("--scope", to, help="Whose topic or bucket: app, group:ID, user:ID, thing:ID."),
        _option("--actor", to, metavar="ID", help="Who caused it, and needs no push."),
        _option(
            "--file",
            to,
            type=click.File("r", encoding="utf-8"),
            help="The whole event in wire form; - is standard input.",
        ),
        *_manner(),
    ]


def _manner() -> list[Callable[[F], F]]:
    how = "How"
    return [
        _option("--id", how, metavar="KEY", help="Idempotency key: the same event again changes nothing."),
        _option("--ttl", how, type=Duration(), help="How long it is worth delivering: 90s, 15m, 1h, 2d."),
        _option("--expires-at", how, metavar="INSTANT", help="Instead of --ttl: 2026-01-31T12:00:00Z."),
        _option("--lane", how, metavar="LANE", help="urgent, normal or bulk; by kind and size without it."),
        _option(
            "--environment",
            how,
            metavar="NAME",
            help="production or sandbox: only devices on such channels.",
        ),
        _option("--priority", how, metavar="PRIORITY", help="normal or high."),
        _option(
            "--on-unknown", how, metavar="POLICY", help="retry or drop, when a provider's answer is lost."
        ),
    ]


def _message() -> list[Callable[[F], F]]:
    what = "What"
    return [
        *(_option(name, what, metavar="TEXT", help=text) for name, text in _TEXTS),
        _option(
            "--title-loc-arg", what, multiple=True, metavar="TEXT", help="Fills the title's text. Repeatable."
        ),
        _option(
            "--body-loc-arg", what, multiple=True, metavar="TEXT", help="Fills the body's text. Repeatable."
        ),
        _option("--badge", what, type=int, help="Number on the icon; 0 clears it."),
        _option("--relevance-score", what, type=float, help="0 to 1, for iOS' summary."),
        _option(
            "--interruption-level",
            what,
            metavar="LEVEL",
            help="passive, active, time-sensitive, critical (iOS).",
        ),
        _option("--data", what, type=Pair(), multiple=True, help="For the app. Can be repeated."),
        _option(
            "--translation",
            what,
            type=Translation(),
            multiple=True,
            help="Words for a locale. Can be repeated.",
        ),
        _option("--silent", what, is_flag=True, help="Wakes the app and shows nothing."),
        _option("--mutable-content", what, is_flag=True, help="An extension of the app changes it (iOS)."),
        *(
            _option(f"--{name}", what, type=JsonObject(), help=f"Merged over the body for {name.upper()}.")
            for name in _SECTIONS
        ),
    ]


def _option(*names: str, **attributes: Any) -> Callable[[F], F]:
    *options, section = names
    return click.option(*options, cls=SectionOption, section=section, **attributes)


def read_event(options: Mapping[str, Any]) -> Event:
    """Build the event. Raises `InvalidEvent` with every problem, or `click.UsageError`."""
    from events import decode

    return decode(_from_file(options) if options["file"] else _from_options(options))


def _from_file(options: Mapping[str, Any]) -> object:
    beside = {*_BESIDE_FILE, "ttl", "file"}
    others = [
        name for name, value in options.items() if value not in (None, (), False) and name not in beside
    ]
    if others:
        spelled = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise click.UsageError(f"the file says what is sent: {spelled} cannot be given beside --file")
    wire = _read_json(options["file"])
    return {**wire, **_envelope(options)} if isinstance(wire, dict) else wire


def _read_json(file: IO[str]) -> object:
    try:
        return json.load(file)
    except json.JSONDecodeError as error:
        raise Refused(f"{file.name} is not JSON: {error}") from error
    except RecursionError as error:
        raise Refused(f"{file.name} is nested too deep") from error


def _from_options(options: Mapping[str, Any]) -> dict[str, object]:
    users = read_users(options["users"], options["users_from"])
    kinds = {"direct": users or None, "topic": options["topic"], "bucket": options["bucket"]}
    chosen = [kind for kind, value in kinds.items() if value is not None]
    if len(chosen) != 1:
        raise click.UsageError(
            "say to whom by one of --user, --topic and --bucket, or give the event by --file"
        )
    if options["app"] is None:
        raise click.UsageError("name the app: --app")
    wire: dict[str, object] = {"version": 1, "kind": chosen[0], **_envelope(options)}
    wire |= {name: options[name] for name in _RECIPIENTS if options[name] is not None}
    wire |= {"users": users} if users else {}
    message = _message_of(options)
    return wire | ({"message": message} if message or chosen != ["bucket"] else {})


def _envelope(options: Mapping[str, Any]) -> dict[str, object]:
    said = {name: options[name] for name in _BESIDE_FILE if options[name] is not None}
    if options["ttl"] is not None:
        said["ttl_seconds"] = int(options["ttl"].total_seconds())
    return said


def _message_of(options: Mapping[str, Any]) -> dict[str, object]:
    names = [name.removeprefix("--").replace("-", "_") for name, _ in _TEXTS]
    names += ["badge", "relevance_score", "interruption_level", "priority", "on_unknown", *_SECTIONS]
    message: dict[str, object] = {name: options[name] for name in names if options[name] is not None}
    message |= {name: True for name in ("silent", "mutable_content") if options[name]}
    message |= {field: list(options[name]) for name, field in _LISTS.items() if options[name]}
    if options["data"]:
        message["data"] = _distinct(options["data"])
    translations: dict[str, dict[str, str]] = {}
    for locale, field, text in options["translation"]:
        translations.setdefault(locale, {})[field] = text
    return message | ({"translations": translations} if translations else {})


def _distinct(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    data = dict(pairs)
    if len(data) < len(pairs):
        repeated = sorted({key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1})
        raise click.UsageError(f"--data has {', '.join(repeated)} more than once")
    return data
