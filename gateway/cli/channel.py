"""`pushfan channel`: an app's ways to FCM, APNs and JPush."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.context import Context

from . import access
from .circuit import story, what_to_do
from .command import Group, app_option, json_option, pass_context
from .errors import ExitCode, NotThere, Refused
from .output import note, plural, print_record, print_rows, record_of, warn

if TYPE_CHECKING:
    from registry.channels import Access, Channel

_ENVIRONMENTS: Final = ("production", "sandbox")
_EXAMPLE: Final = """
pushfan channel add android --app shop --provider fcm --service-account sa.json
pushfan channel add ios --app shop --provider apns --apns-topic com.example.shop \\
    --key-file AuthKey.p8 --key-id K --team-id T
pushfan channel add china --app shop --provider jpush \\
    --app-key env:PUSHFAN_SECRET_KEY --master-secret env:PUSHFAN_SECRET_JPUSH
"""


@click.group("channel", cls=Group, example="pushfan channel check")
def group() -> None:
    """Channels: an app's ways to FCM, APNs and JPush.

    A channel has credentials, an environment, limits, and a circuit that stops it when something is wrong.
    """


@group.command("add", example=_EXAMPLE)
@click.argument("name")
@app_option()
@click.option("--provider", type=click.Choice(tuple(access.WAYS)), required=True, help="Whose service it is.")
@click.option(
    "--environment", type=click.Choice(_ENVIRONMENTS), default="production", show_default=True, help="APNs."
)
@click.option(
    "--slots",
    type=click.IntRange(1, 1000),
    default=32,
    show_default=True,
    help="Chunks out at a time, by lane.",
)
@click.option(
    "--rate", type=click.IntRange(1, 2**31 - 1), default=10_000, show_default=True, help="Pushes a second."
)
@access.access_options
@json_option
@pass_context
def add(
    context: Context,
    name: str,
    *,
    app: str,
    provider: str,
    environment: str,
    slots: int,
    rate: int,
    as_json: bool,
    **options: str | None,
) -> None:
    """Add the channel NAME to an app.

    Credentials given as paths are copied, readable by you alone, into the credentials directory; the database
    keeps references, never secrets. A reference (REF) is file:NAME in that directory, or
    env:PUSHFAN_SECRET_NAME.
    Everything that can be checked without asking the provider is checked; `pushfan channel check` asks.
    """
    from registry import apps, channels

    given = {option: value for option, value in options.items() if value}
    problems = [
        *_name_problems(name),
        *access.check_needs(provider, given),
        *access.check_address(context.settings, given),
    ]
    directory = context.settings.credentials_directory
    secrets, unread = access.collect(given, context.store, directory, prefix=f"{app}-{name}")
    _refuse(name, problems + unread)

    def work(connection: Any) -> tuple[Channel, list[Any]]:
        app_id = apps.get(connection, app).id
        way = access.build_access(given, secrets, environment=environment)
        channel = channels.add(
            connection, app_id, name=name, provider=provider, access=way, slots=slots, rate_per_second=rate
        )
        access.validate(context.settings, channel, {role: secret.content for role, secret in secrets.items()})
        return channel, access.store_copies(secrets, directory)

    channel, copies = context.run(work)
    _tell(channel, app, copies, as_json=as_json)


@group.command("set", example="pushfan channel set ios --app shop --key-file AuthKey_NEW.p8 --key-id NEW")
@click.argument("name")
@app_option(required=False)
@click.option("--environment", type=click.Choice(_ENVIRONMENTS), help="APNs.")
@access.access_options
@json_option
@pass_context
def set_access(
    context: Context,
    name: str,
    *,
    app: str | None,
    environment: str | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Rotate the credentials of the channel NAME, or change its addresses.

    What is not named stays as it is; an address set to '' returns to the provider's own. Workers change over
    within seconds. A circuit that opened for credentials or for a mass invalidation closes, and doubts about
    tokens are forgotten.
    """
    given = {option: value for option, value in options.items() if value is not None}
    if not given and environment is None:
        raise click.UsageError("nothing to set: name at least one option")
    app_name, channel = find(context, name, app)
    settings = context.settings
    whole = _merged(channel, given)
    problems = [*access.check_needs(channel.provider, whole), *access.check_address(settings, given)]
    directory = settings.credentials_directory
    secrets, unread = access.collect(whole, context.store, directory, prefix=f"{app_name}-{name}")
    _refuse(name, problems + unread)
    way = access.build_access(whole, secrets, environment=environment or channel.access.environment)
    changed, copies = context.run(lambda connection: _change(context, connection, channel, way, secrets))
    _tell(changed, app_name, copies, as_json=as_json)


def _change(
    context: Context, connection: Any, channel: Channel, way: Access, secrets: Mapping[str, access.Secret]
) -> tuple[Channel, list[Any]]:
    from registry import channels

    changed = channels.set_credentials(connection, channel.id, way)
    access.validate(context.settings, changed, {role: secret.content for role, secret in secrets.items()})
    return changed, access.store_copies(secrets, context.settings.credentials_directory)


@group.command("list", example="pushfan channel list --app shop")
@app_option(required=False)
@json_option
@pass_context
def list_all(context: Context, *, app: str | None, as_json: bool) -> None:
    """List the channels: circuits, and the answers since the credentials last changed.

    A circuit is closed while all is well; open: nothing is sent, why, for how long and when it is probed;
    probing: a few pushes are let through.
    """
    found = find_all(context, app)
    now = datetime.now(UTC)
    rows = [{**describe(channel, app_name), "state": story(channel, now)} for app_name, channel in found]
    columns = ["app", "channel", "provider", "environment", "state", "accepted", "doubted"]
    if as_json:
        rows = [{name: row[name] for name in row if name != "state"} for row in rows]
    print_rows(rows, columns=columns, as_json=as_json, empty="no channels yet: pushfan channel add --help")
    if not as_json:
        for app_name, channel in found:
            _explain(channel, app_name)


def _explain(channel: Channel, app: str) -> None:
    """Say about a circuit that is not closed what was seen and what to do."""
    if channel.circuit != "closed":
        detail = f": {channel.circuit_detail}" if channel.circuit_detail else ""
        note(f"{app} {channel.name}{detail}\n  → {what_to_do(channel, app)}")


@group.command("check", example="pushfan channel check ios --app shop")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@app_option(required=False)
@json_option
@pass_context
def check(context: Context, names: tuple[str, ...], *, app: str | None, as_json: bool) -> ExitCode:
    """Ask the providers whether the credentials work, sending nothing to a device.

    Asks for all channels if none is named. Exits with 1 if any is refused or cannot be reached.
    """
    found = [find(context, name, app) for name in names] or find_all(context, app)
    rows = [{"app": app_name, **_check(context, channel)} for app_name, channel in found]
    columns = ["app", "channel", "provider", "status", "reason"]
    print_rows(rows, columns=columns, as_json=as_json, empty="no channels to check")
    return ExitCode.OK if all(row["status"] == "ok" for row in rows) else ExitCode.REFUSED


def _check(context: Context, channel: Channel) -> dict[str, Any]:
    from providers import create_client
    from providers.outcome import CredentialsRejected, SendError
    from workers.clients import build_config
    from workers.credentials import CredentialError

    status, reason = "ok", None
    try:
        secrets = context.store.resolve(channel.access.secrets)
        client = create_client(build_config(context.settings, channel, secrets))
        try:
            client.check()
        finally:
            client.close()
    except (CredentialsRejected, CredentialError, ValueError) as error:
        status, reason = "refused", str(error)
    except SendError as error:
        status, reason = "unreachable", str(error)
    return {"channel": channel.name, "provider": channel.provider.value, "status": status, "reason": reason}


@group.command("open", example="pushfan channel open ios --app shop --reason 'certificate change'")
@click.argument("name")
@app_option(required=False)
@click.option("--reason", help="What colleagues will read in `channel list`.")
@json_option
@pass_context
def open_(context: Context, name: str, *, app: str | None, reason: str | None, as_json: bool) -> None:
    """Open the circuit of the channel NAME: nothing is sent.

    What is planned for it waits until the circuit is closed, or expires. It is not probed by itself.
    """
    from registry import channels

    app_name, channel = find(context, name, app)
    context.run(lambda connection: channels.pause(connection, channel.id, reason))
    _show(context, name, app_name, as_json=as_json)


@group.command("close", example="pushfan channel close ios --app shop")
@click.argument("name")
@app_option(required=False)
@json_option
@pass_context
def close(context: Context, name: str, *, app: str | None, as_json: bool) -> None:
    """Close the circuit of the channel NAME: traffic flows again, whatever stopped it, and grows as it goes.

    Not sure that the reason is gone? `pushfan channel probe` tries it with a few pushes.
    """
    from registry import channels

    app_name, channel = find(context, name, app)
    if not context.run(lambda connection: channels.resume(connection, channel.id)):
        warn(f"the circuit of channel {name} was closed already", as_json=as_json)
    _show(context, name, app_name, as_json=as_json)


@group.command("probe", example="pushfan channel probe ios --app shop")
@click.argument("name")
@app_option(required=False)
@json_option
@pass_context
def probe(context: Context, name: str, *, app: str | None, as_json: bool) -> None:
    """Let a few pushes through the open circuit of the channel NAME now.

    If the provider answers them the circuit closes, else it opens again for a longer rest. Where nothing waits
    the next push is the probe. A circuit that an operator opened is probed, too.
    """
    from registry import channels

    app_name, channel = find(context, name, app)
    if not context.run(lambda connection: channels.probe(connection, channel.id)):
        warn(f"the circuit of channel {name} is not open", as_json=as_json)
    _show(context, name, app_name, as_json=as_json)


def _show(context: Context, name: str, app: str, *, as_json: bool) -> None:
    _, channel = find(context, name, app)
    print_record(describe(channel, app), as_json=as_json)


@group.command("remove", example="pushfan channel remove china --app shop --yes")
@click.argument("name")
@app_option()
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_context
def remove(context: Context, name: str, *, app: str, yes: bool, as_json: bool) -> None:
    """Remove the channel NAME with all its devices. Credential files stay where they are."""
    from registry import channels

    _, channel = find(context, name, app)
    if not yes:
        click.confirm(f"Remove channel {name} of app {app} and all its devices?", abort=True, err=True)
    devices = channels.remove(context.database, channel.id)
    print_record({"app": app, "channel": name, "devices_removed": devices}, as_json=as_json)
    if not as_json:
        for reference in channel.access.secrets.values():
            note(f"Still there: {reference}")


def find_all(context: Context, app: str | None) -> list[tuple[str, Channel]]:
    """List channels with their apps' names, of one app or of all."""
    from registry import apps, channels

    def work(connection: Any) -> list[tuple[str, Channel]]:
        app_id = None if app is None else apps.get(connection, app).id
        names = {found.id: found.name for found in apps.list_all(connection)}
        return [(names[channel.app_id], channel) for channel in channels.list_all(connection, app_id)]

    return sorted(context.run(work), key=lambda pair: (pair[0], pair[1].name))


def find(context: Context, name: str, app: str | None) -> tuple[str, Channel]:
    """Find a channel by name. Without an app, the name must be the only one of its kind."""
    everything = find_all(context, app)
    found = [(app_name, channel) for app_name, channel in everything if channel.name == name]
    if len(found) > 1:
        raise click.UsageError(
            f"several apps have a channel {name}: add --app {' or --app '.join(a for a, _ in found)}"
        )
    if not found:
        known = ", ".join(channel.name if app else f"{a}/{channel.name}" for a, channel in everything)
        raise NotThere(f"there is no channel {name!r} (channels: {known or 'none yet: pushfan channel add'})")
    return found[0]


def describe(channel: Channel, app_name: str) -> dict[str, Any]:
    """Return what is told about a channel. Its secrets are references."""
    way = channel.access
    return {
        "app": app_name,
        "channel": channel.name,
        "provider": channel.provider.value,
        "environment": way.environment.value,
        "settings": dict(way.settings),
        "secrets": dict(way.secrets),
        "endpoint": way.endpoint,
        "report_endpoint": way.report_endpoint,
        "ca_file": way.ca_file,
        "circuit": channel.circuit.value,
        "circuit_reason": channel.circuit_reason.value if channel.circuit_reason else None,
        **record_of(
            channel, "circuit_detail", "circuit_changed_at", "probe_at", "failed_probes", "ramping_since"
        ),
        **record_of(channel, "slots", "rate_per_second"),
        **record_of(channel, "health_since", "accepted", "doubted", "created_at"),
    }


def _merged(channel: Channel, given: Mapping[str, str]) -> dict[str, str]:
    """Lay what was given over what the channel has, without what another way to authenticate needed."""
    way = channel.access
    addresses = {"endpoint": way.endpoint, "report_endpoint": way.report_endpoint, "ca_file": way.ca_file}
    now = {**way.secrets, **way.settings, **{name: value for name, value in addresses.items() if value}}
    fitting = access.fitting_way(channel.provider, given, present=now)
    kept = {name: value for name, value in now.items() if name in fitting or name in addresses}
    return {name: value for name, value in {**kept, **given}.items() if value}


def _name_problems(name: str) -> list[str]:
    from registry.checks import APP_NAME, Problems

    problems = Problems()
    APP_NAME(name, "NAME", problems)
    return [str(problem) for problem in problems.found]


def _refuse(name: str, problems: list[str]) -> None:
    if problems:
        raise Refused(f"channel {name} is refused: {plural(len(problems), 'problem')}", problems)


def _tell(channel: Channel, app_name: str, copies: list[Any], *, as_json: bool) -> None:
    print_record(describe(channel, app_name), as_json=as_json)
    if as_json:
        return
    for path in copies:
        note(f"Copied to {path.resolve()}, readable by you alone; the original is no longer needed.")
    if any(reference.startswith("env:") for reference in channel.access.secrets.values()):
        note("Workers read env: references from their own environment: set them there too.")
    note(f"Next, ask the provider: pushfan channel check {channel.name} --app {app_name}")
