"""`pushfan device`: app installs of users, and the tokens that reach them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.context import Context
from gateway.token_form import check_token

from . import channel as channel_command
from .command import Group, app_option, json_option, pass_context
from .errors import ExitCode, NotThere, Refused
from .output import note, plural, print_record, print_rows, progress, record_of, span

if TYPE_CHECKING:
    from registry.devices import Device
    from registry.importer import Imported

_LONGEST_TOKEN: Final = 10_000
_INSTALL_EXAMPLE: Final = (
    "pushfan device install --app shop --user u7 --device-key phone-1 --channel ios --token HEX"
)


@click.group("device", cls=Group, example="pushfan device list --app shop --user u7")
def group() -> None:
    """Devices: app installs of users. Tokens are shown by a short hash alone."""


@group.command(
    "install",
    example=_INSTALL_EXAMPLE,
)
@app_option()
@click.option("--user", required=True, metavar="ID", help="Who is logged in on it.")
@click.option(
    "--device-key", required=True, metavar="KEY", help="Stable for one install, across token changes."
)
@click.option("--channel", required=True, metavar="NAME", help="The way to it.")
@click.option("--token", required=True, help="What the provider calls it; - reads it from standard input.")
@click.option("--installation-id", is_flag=True, help="FCM: the token is an installation id.")
@click.option("--locale", help="Such as pt-BR: chooses translations.")
@click.option("--time-zone", help="Such as Europe/Berlin.")
@click.option("--app-version", help="The app's own.")
@json_option
@pass_context
def install(
    context: Context, *, app: str, channel: str, installation_id: bool, as_json: bool, **given: Any
) -> None:
    """Register a device as its app does at each start, give it a new token, or move it to another user.

    The last login owns the phone: a key or a token that another user had is theirs no more.
    """
    from registry import devices

    app_name, found = channel_command.find(context, channel, app)
    token = given.pop("token")
    token = sys.stdin.read(_LONGEST_TOKEN).strip() if token == "-" else token
    kind = devices.AddressKind.INSTALLATION_ID if installation_id else devices.AddressKind.TOKEN
    call = devices.Install(
        channel_id=found.id, user_id=given.pop("user"), token=token, address_kind=kind, **given
    )
    if complaint := check_token(found, token):
        raise Refused("the device is refused", [f"token: {complaint}"])

    def work(connection: Any) -> tuple[devices.Installed, devices.Device]:
        done = devices.install(connection, call)
        return done, devices.get(connection, found.app_id, done.device_id)

    done, device = context.run(work)
    print_record({"change": done.change.value, **describe(device, app_name)}, as_json=as_json)


@group.command("list", example="pushfan device list --app shop --user u7 --all")
@app_option()
@click.option("--user", required=True, metavar="ID", help="Whose.")
@click.option("--all", "with_retired", is_flag=True, help="Those that are no longer used, too.")
@json_option
@pass_context
def list_all(context: Context, *, app: str, user: str, with_retired: bool, as_json: bool) -> None:
    """List a user's devices."""
    from registry import apps, devices

    def work(connection: Any) -> list[Device]:
        app_id = apps.get(connection, app).id
        return devices.list_by_user(connection, app_id, user, with_retired=with_retired)

    rows = [describe(device, app) for device in context.run(work)]
    columns = [
        "device",
        "device_key",
        "channel",
        "state",
        "state_reason",
        "token_hash",
        "locale",
        "registered_at",
    ]
    print_rows(rows, columns=columns, as_json=as_json, empty=f"user {user} has no device in app {app}")


@group.command("uninstall", example="pushfan device uninstall --app shop --user u7 --device-key phone-1")
@app_option()
@click.option("--device-key", metavar="KEY", help="Which.")
@click.option("--token", help="Which, instead of its key.")
@click.option("--user", metavar="ID", help="Only if it is still this user's.")
@click.option("--channel", metavar="NAME", help="Only on this channel.")
@json_option
@pass_context
def uninstall(
    context: Context,
    *,
    app: str,
    device_key: str | None,
    token: str | None,
    user: str | None,
    channel: str | None,
    as_json: bool,
) -> None:
    """Stop using a device, as after a logout. What is planned for it ends withdrawn."""
    from registry import apps, devices

    if device_key is None and token is None:
        raise click.UsageError("name the device: --device-key, or --token")
    channel_id = None if channel is None else channel_command.find(context, channel, app)[1].id

    def work(connection: Any) -> list[int]:
        app_id = apps.get(connection, app).id
        return devices.uninstall(
            connection, app_id, device_key=device_key, token=token, user_id=user, channel_id=channel_id
        )

    ids = context.run(work)
    if not ids:
        raise NotThere("no device in use is named so")
    print_record({"app": app, "uninstalled": ids}, as_json=as_json)


@group.command("import", example="pushfan device import devices.csv --app shop")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@app_option()
@json_option
@pass_context
def import_file(context: Context, file: Path, *, app: str, as_json: bool) -> ExitCode:
    """Register the devices of FILE: CSV with a header, or a JSON object on each line.

    Columns: user, device_key, channel, token; and if known locale, time_zone, app_version, address_kind and
    registered_at. An import that was interrupted goes on where it was when it is started again. Rows that
    cannot be are named in FILE.rejected.csv (or .jsonl), to be corrected and imported in turn; then it exits
    with 1.
    """
    from registry import apps, importer

    app_id = context.run(lambda connection: apps.get(connection, app).id)
    with progress("importing", file.stat().st_size, is_shown=not as_json) as show:
        try:
            done = importer.import_devices(
                context.database,
                app_id,
                file,
                check_token=check_token,
                on_progress=lambda state: show(
                    state.bytes, f"{state.rows:,} rows, {state.rejected:,} rejected"
                ),
            )
        except KeyboardInterrupt:
            note(f"Interrupted. To go on: pushfan device import {file} --app {app}")
            raise
    _tell(done, app, file, as_json=as_json)
    return ExitCode.REFUSED if done.rejected else ExitCode.OK


def _tell(done: Imported, app: str, file: Path, *, as_json: bool) -> None:
    counts = record_of(done, "created", "refreshed", "replaced", "moved", "kept", "rejected")
    rows = sum(counts.values())
    record = {"app": app, "file": file, "rows": rows, **counts, "seconds": round(done.seconds, 3)}
    record |= {"rows_before": done.rows_before, "rejected_file": done.rejected_file}
    if as_json:
        print_record(record, as_json=True)
        return
    rate = (rows - done.rows_before) / max(done.seconds, 1e-6)
    print_record(record | {"seconds": f"{span(done.seconds)} ({rate:,.0f} rows a second)"}, as_json=False)
    if done.rejected_file:
        note(f"{plural(done.rejected, 'row')} cannot be imported: {done.rejected_file} says why.")


def describe(device: Device, app: str) -> dict[str, Any]:
    """Return what is told about a device: of its token a hash alone."""
    from registry.devices import token_hash

    return {
        "app": app,
        "device": device.id,
        "user": device.user_id,
        **record_of(device, "device_key", "channel", "provider", "address_kind"),
        "token_hash": token_hash(device.token),
        **record_of(
            device, "locale", "time_zone", "app_version", "state", "state_reason", "state_changed_at"
        ),
        **record_of(device, "registered_at", "seen_at"),
    }
