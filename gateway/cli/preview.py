"""`pushfan send --dry-run`: what the providers would get, and how many devices each would reach."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.context import Context

from .output import clean, note, plural, print_json, warn

if TYPE_CHECKING:
    from events import Event
    from providers.outcome import Content
    from providers.provider import Provider
    from registry.channels import Channel

# Stands for the device's address; of a form that every vendor's tokens may have.
_TOKEN: Final = "deadbeef" * 8
_SHOWN: Final = "<device token>"
_DELIVERY: Final = "00000000-0000-0000-0000-000000000000"


def preview(context: Context, event: Event, *, as_json: bool) -> bool:
    """Print what would be sent, and send nothing. `False` if a channel could not send it."""
    from events import encode

    requests = list(_requests(context, event))
    devices = sum(request["devices"] for request in requests if not request["problem"])
    if as_json:
        print_json({"dry_run": True, "event": encode(event), "devices": devices, "requests": requests})
    else:
        _print(requests, devices)
    return all(request["problem"] is None or request["is_left_out"] for request in requests)


def _requests(context: Context, event: Event) -> Iterator[dict[str, Any]]:
    from events import encode
    from providers.outcome import Content
    from registry import apps, channels, notifications

    def work(connection: Any) -> tuple[dict[int, Channel], list[dict[str, Any]]]:
        app_id = apps.get(connection, event.app).id
        known = {channel.id: channel for channel in channels.list_all(connection, app_id)}
        return known, notifications.preview(connection, encode(event))

    known, rows = context.run(work)
    content = Content(notification_id=0, event=event, expires_at=event.expiry(datetime.now(UTC)))
    for (channel_id, locale), members in _by_translation(event, rows).items():
        yield _request(context, known[channel_id], content, locale, members)


def _by_translation(
    event: Event, rows: Sequence[Mapping[str, Any]]
) -> dict[tuple[int, str | None], list[Mapping[str, Any]]]:
    """Put devices together that read the same words."""
    from providers.dialect import choose_locale

    groups: dict[tuple[int, str | None], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        chosen = choose_locale(event.message.translations, row["locale"])
        groups[row["channel_id"], chosen].append(row)
    return groups


def _request(
    context: Context,
    channel: Channel,
    content: Content,
    locale: str | None,
    members: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    from providers import create_provider
    from providers.outcome import SendError
    from workers.clients import build_config
    from workers.credentials import CredentialError

    about: dict[str, Any] = {
        "channel": channel.name,
        "provider": channel.provider.value,
        "translation": locale,
    }
    about |= {"devices": sum(row["devices"] for row in members), "problem": None, "is_left_out": False}
    try:
        config = build_config(context.settings, channel, context.store.resolve(channel.access.secrets))
        provider = create_provider(config, now=lambda: datetime.now(UTC))
        return about | _render(provider, content, members[0]["locale"])
    except (SendError, CredentialError, ValueError) as error:
        return about | {"problem": str(error)}


def _render(provider: Provider, content: Content, locale: str | None) -> dict[str, Any]:
    from providers.outcome import Push

    push = Push(position=0, token=_TOKEN, content=content, delivery_id=_DELIVERY, locale=locale)
    prepared = provider.prepare([push])
    if prepared.answers:
        reason = str(getattr(prepared.answers[0].outcome, "reason", prepared.answers[0].outcome))
        return {"problem": reason, "is_left_out": reason == "DisabledForProvider"}
    (batch,) = prepared.batches
    return {
        "url": batch.url.replace(_TOKEN, _SHOWN),
        "headers": dict(line.split(": ", 1) for line in batch.headers),
        "body": json.loads(batch.body.decode().replace(_TOKEN, _SHOWN)),
    }


def _print(requests: Sequence[Mapping[str, Any]], devices: int) -> None:
    note(f"Dry run, nothing is sent: {plural(devices, 'device')} would get this now.")
    for request in requests:
        words = f", in the words for {request['translation']}" if request["translation"] else ""
        title = f"{request['channel']} ({request['provider']}): {plural(request['devices'], 'device')}{words}"
        if request["is_left_out"]:
            note(f"{title}, left out by the message")
        elif request["problem"]:
            warn(f"{title}, cannot be sent to: {request['problem']}")
        else:
            click.secho(clean(title), bold=True)
            click.echo(clean(f"POST {request['url']}"))
            for name, value in request["headers"].items():
                click.echo(clean(f"{name}: {value}"))
            click.echo(json.dumps(request["body"], indent=2, ensure_ascii=False))
