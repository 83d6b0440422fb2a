"""The configuration of every Pushfan process: `PUSHFAN_*` variables, read once, checked all at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from providers.reach import Network, parse_networks

PREFIX = "PUSHFAN_"
# Variables that are not settings: secrets that channels refer to, and what the tests read.
_OTHER_PREFIXES = ("PUSHFAN_SECRET_", "PUSHFAN_TEST_")


class SettingsError(Exception):
    """The configuration cannot be used: the message names every problem, one in a line."""


class Settings(BaseModel):
    """All settings, each `PUSHFAN_<NAME>` in the environment. Durations are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: str | None = Field(
        default=None, description="PostgreSQL, as postgresql://user:password@host:port/database"
    )
    outbox_url: str | None = Field(
        default=None,
        description="The PostgreSQL whose outbox `pushfan relay` moves; Pushfan's own if not set",
    )
    broker_url: str | None = Field(
        default=None, description="The broker: redis:// (Redis or Valkey), amqp:// (RabbitMQ) or memory://"
    )
    broker_ca_file: Path | None = Field(
        default=None,
        description="Certificate authorities for rediss:// and amqps://; the system's if not set",
    )
    home: Path = Field(
        default=Path(".pushfan"), description="State of `pushfan up`, by which other commands find it"
    )
    credentials_dir: Path | None = Field(
        default=None, description="Where `file:` credentials lie; `credentials` in the home if not set"
    )
    allowed_hosts: str = Field(
        default="",
        description="Host names that a channel's endpoint may name, by comma; loopback is always allowed",
    )
    allowed_networks: str = Field(
        default="",
        description="Networks, by comma, that webhooks and channels' own endpoints may reach beside public addresses, "
        "as 10.0.0.0/8; with 127.0.0.0/8 a webhook may be http to loopback",
    )
    webhook_hosts: str = Field(
        default="*",
        description="Host names that webhooks may name, by comma; *.example.com is all below one, * is any",
    )
    webhook_secret: str = Field(
        default="file:webhook-secret",
        pattern="^(file|env):.+",
        description="Reference of the secret that webhooks' secrets derive from; `pushfan up` makes the file",
    )
    webhook_ca_file: Path | None = Field(
        default=None, description="Certificate authorities of webhooks' receivers; public ones if not set"
    )
    webhook_timeout_seconds: float = Field(
        default=10, ge=0.1, le=60, description="How long a webhook's receiver may take to answer"
    )
    webhook_patience_hours: float = Field(
        default=72, gt=0, le=720, description="After failing for so long a webhook is disabled"
    )
    api_host: str = Field(
        default="127.0.0.1", min_length=1, description="Where the HTTP API listens; elsewhere give it TLS"
    )
    api_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="The HTTP API's port; if not set 8480, in `pushfan up` a free one",
    )
    api_threads: int = Field(
        default=8, ge=1, le=256, description="Database connections of an API process, beside two for events"
    )
    api_body_bytes: int = Field(
        default=4_194_304, ge=1024, description="The largest body that the HTTP API reads"
    )
    api_rate: int = Field(
        default=5_000, ge=1, description="Requests a second of one key or user token, at one API process"
    )
    api_backlog: int = Field(
        default=5_000_000,
        ge=1,
        description="With so many deliveries of an app waiting, its events are answered 429 until fewer wait",
    )
    user_token_secret: str = Field(
        default="file:user-token-secret",
        pattern="^(file|env):.+",
        description="Reference of the secret that signs user tokens; `pushfan up` makes the file",
    )
    chunk_size: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Deliveries that one Celery task carries; 1 is a task for each device",
    )
    page_size: int = Field(
        default=2_000,
        ge=1,
        le=50_000,
        description="Users planned in one statement; a fan-out to as many or more is bulk",
    )
    lease_seconds: float = Field(
        default=10, ge=1, le=300, description="How long a silent worker keeps its chunk"
    )
    provider_timeout_seconds: float = Field(
        default=15,
        ge=0.1,
        le=120,
        description="How long to wait for one answer of a provider; FCM asks for 10 at least",
    )
    task_soft_limit_seconds: float = Field(default=60, gt=0, description="After this a chunk is given back")
    task_hard_limit_seconds: float = Field(
        default=90, gt=0, description="After this a worker process is killed"
    )
    visibility_timeout_seconds: float = Field(
        default=300, gt=0, description="When Redis hands an unacknowledged message to someone else"
    )
    max_attempts: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Attempts of one delivery, the first included; snoozes are free",
    )
    backoff_seconds: float = Field(
        default=10, gt=0, description="The first retry's largest jitter; doubles each time"
    )
    backoff_cap_seconds: float = Field(default=3600, gt=0, description="The largest jitter")
    delay_scale: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Shortens the providers' documented delays and the backoff; for simulators only",
    )
    receipt_delay_seconds: float = Field(
        default=60, ge=0, description="When to ask JPush which tokens of an accepted request it really knew"
    )
    tick_seconds: float = Field(
        default=0.5, ge=0.01, le=5, description="The dispatcher's rest when nothing is due"
    )
    suspect_pass_seconds: float = Field(default=30, ge=0.1, description="How often doubted tokens are judged")
    suspect_age_seconds: float = Field(
        default=3600,
        ge=0,
        description="How long a doubted token is given the chance to be accepted after all",
    )
    content_hours: float = Field(
        default=24, ge=0, description="How long after its end a notification's content is kept"
    )
    key_days: float = Field(default=7, ge=1, description="How long idempotency keys are remembered")
    retention_days: int = Field(
        default=35,
        ge=29,
        description="How long notifications and deliveries are kept; longer than any can last",
    )
    log_format: str = Field(default="json", pattern="^(json|plain)$", description="`json` or `plain`")
    log_level: str = Field(
        default="info",
        pattern="^(debug|info|warning|error)$",
        description="`debug`, `info`, `warning` or `error`",
    )

    @field_validator("allowed_networks")
    @classmethod
    def _check_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        """Timers nest: provider time-out < soft < hard < visibility, and three renewals fit in a lease."""
        steps = [
            ("provider_timeout_seconds", self.provider_timeout_seconds),
            ("task_soft_limit_seconds", self.task_soft_limit_seconds),
            ("task_hard_limit_seconds", self.task_hard_limit_seconds),
            ("visibility_timeout_seconds", self.visibility_timeout_seconds),
        ]
        problems = [
            f"{PREFIX}{name.upper()} ({value:g}) must be less than {PREFIX}{next_name.upper()} ({limit:g})"
            for (name, value), (next_name, limit) in pairwise(steps)
            if value >= limit
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts without renewal."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def provider_timeout(self) -> timedelta:
        """How long one answer may take."""
        return timedelta(seconds=self.provider_timeout_seconds)

    @property
    def credentials_directory(self) -> Path:
        """Where `file:` references are looked up."""
        return self.credentials_dir or self.home / "credentials"

    @property
    def hosts(self) -> frozenset[str]:
        """Host names that endpoints may name, beside loopback."""
        return frozenset(host.strip().lower() for host in self.allowed_hosts.split(",") if host.strip())

    @property
    def networks(self) -> tuple[Network, ...]:
        """Networks that may be reached beside the public internet."""
        return parse_networks(self.allowed_networks)

    @property
    def webhook_host_names(self) -> tuple[str, ...]:
        """Host names and patterns that webhooks may name."""
        return tuple(host.strip().lower() for host in self.webhook_hosts.split(",") if host.strip())

    def require_database_url(self) -> str:
        """Give the database's URL, or raise `SettingsError` with what to do."""
        if self.database_url is None:
            raise SettingsError(
                "PUSHFAN_DATABASE_URL is not set and no `pushfan up` runs here: "
                "start one, or set it to a postgresql:// URL"
            )
        return self.database_url

    def require_broker_url(self) -> str:
        """Give the broker's URL, or raise `SettingsError` with what to do."""
        if self.broker_url is None:
            raise SettingsError(
                "PUSHFAN_BROKER_URL is not set and no `pushfan up` runs here: "
                "start one, or set it to a redis:// or amqp:// URL"
            )
        return self.broker_url


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read the settings from the environment. Raises `SettingsError` that names every problem, unknown names too."""
    environ = os.environ if environ is None else environ
    problems = _unknown_names(environ)
    values = _values(environ) | overrides
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [_problem(detail["loc"], detail["msg"]) for detail in error.errors()]
        raise SettingsError("\n".join(problems)) from None
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def as_environ(settings: Settings) -> dict[str, str]:
    """Write settings as the environment of a process that shall have the same."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {PREFIX + name.upper(): str(value) for name, value in values.items() if str(value)}


def _values(environ: Mapping[str, str]) -> dict[str, object]:
    names = {PREFIX + name.upper(): name for name in Settings.model_fields}
    return {names[key]: value for key, value in environ.items() if key in names and value != ""}


def _unknown_names(environ: Mapping[str, str]) -> list[str]:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    unknown = [
        key
        for key in sorted(environ)
        if key.startswith(PREFIX) and not key.startswith(_OTHER_PREFIXES) and key not in known
    ]
    return [f"{key} is not a setting{_hint(key, known)}" for key in unknown]


def _hint(key: str, known: list[str]) -> str:
    # Without the prefix, which would make everything look alike.
    names = [name.removeprefix(PREFIX) for name in known]
    close = difflib.get_close_matches(key.removeprefix(PREFIX), names, n=1)
    return f"; did you mean {PREFIX}{close[0]}?" if close else ""


def _problem(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"{PREFIX}{str(location[0]).upper()}: {text}" if location else text
