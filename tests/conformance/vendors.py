"""What the one conformance suite must know about each vendor: its simulator, credentials and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from providers.outcome import (
    Accepted,
    ChannelConfig,
    CredentialsRejected,
    Outcome,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """One vendor as the suite sees it.

    `answers` gives for each of the suite's words the rule that makes the simulator answer so (a word that is
    missing is the simulator's own). `expected` says literally what a push must get for each word, and the
    suite tries all of them. `token` makes a well-formed token of a number. `accepted` tells whether an
    acceptance is complete.
    """

    name: str
    config: Callable[[Mapping[str, Any]], ChannelConfig]
    token: Callable[[int], str]
    answers: Mapping[str, Mapping[str, Any]]
    expected: Mapping[str, Outcome | type[SendError]]
    accepted: Callable[[Accepted], bool] = field(default=lambda accepted: bool(accepted.message_id))


def fcm_config(info: Mapping[str, Any]) -> ChannelConfig:
    """Use the simulator's own service account."""
    return ChannelConfig(
        provider="fcm",
        secrets={"service_account": Path(info["service_account_file"]).read_bytes()},
        endpoint=info["url"],
        ca_file=info["ca_file"],
        timeout=timedelta(seconds=10),
        max_streams=50,
        max_connections=1,
    )


FCM = Vendor(
    name="fcm",
    config=fcm_config,
    token=lambda number: f"fcm-token-{number:04d}:APA91b" + "x" * 100,
    answers={
        "unregistered": {"answer": "unregistered"},
        "throttled": {"answer": "throttled", "retry_after": 17},
        "throttled, no delay named": {"answer": "throttled"},
        "unavailable": {"answer": "unavailable", "retry_after": 31},
        "unavailable, no delay named": {"answer": "unavailable"},
        "credentials": {"answer": "permission_denied"},
    },
    expected={
        "unregistered": Unregistered(reason="UNREGISTERED"),
        "bad_token": Rejected(reason="INVALID_ARGUMENT message.token", suspects_token=True),
        "mismatch": Rejected(reason="SENDER_ID_MISMATCH", suspects_token=True),
        "payload": Rejected(reason="INVALID_ARGUMENT message.data"),
        "internal": Unavailable(reason="INTERNAL", delay=timedelta(seconds=10), is_unsure=True),
        "throttled": Throttled(reason="QUOTA_EXCEEDED", delay=timedelta(seconds=17), is_vendor_delay=True),
        "throttled, no delay named": Throttled(reason="QUOTA_EXCEEDED", delay=timedelta(seconds=60)),
        "unavailable": Unavailable(
            reason="UNAVAILABLE", delay=timedelta(seconds=31), is_vendor_delay=True, is_unsure=True
        ),
        "unavailable, no delay named": Unavailable(
            reason="UNAVAILABLE", delay=timedelta(seconds=10), is_unsure=True
        ),
        "credentials": CredentialsRejected,
    },
)


def apns_config(info: Mapping[str, Any]) -> ChannelConfig:
    """Use the simulated team's key."""
    return ChannelConfig(
        provider="apns",
        settings={name: info[name] for name in ("key_id", "team_id")} | {"apns_topic": info["topic"]},
        secrets={"key": Path(info["key_file"]).read_bytes()},
        endpoint=info["url"],
        ca_file=info["ca_file"],
        timeout=timedelta(seconds=10),
        max_streams=50,
        max_connections=1,
    )


APNS = Vendor(
    name="apns",
    config=apns_config,
    token=lambda number: f"{number:064x}",
    answers={
        "unregistered": {"answer": "unregistered", "invalidated_at": 1_700_000_000_250},
        "expired": {"answer": "expired", "invalidated_at": 1_700_000_000_000},
        "throttled": {"answer": "throttled", "retry_after": 17},
        "throttled, no delay named": {"answer": "throttled"},
        "unavailable": {"answer": "unavailable", "retry_after": 31},
        "unavailable, no delay named": {"answer": "unavailable"},
    },
    expected={
        "unregistered": Unregistered(
            reason="Unregistered", invalidated_at=datetime(2023, 11, 14, 22, 13, 20, 250_000, UTC)
        ),
        "expired": Unregistered(
            reason="ExpiredToken", invalidated_at=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
        ),
        "bad_token": Rejected(reason="BadDeviceToken", suspects_token=True),
        "mismatch": Rejected(reason="DeviceTokenNotForTopic", suspects_token=True),
        "payload": Rejected(reason="PayloadTooLarge"),
        "internal": Unavailable(reason="InternalServerError", delay=timedelta(minutes=15), is_unsure=True),
        "throttled": Throttled(reason="TooManyRequests", delay=timedelta(seconds=17), is_vendor_delay=True),
        "throttled, no delay named": Throttled(reason="TooManyRequests", delay=timedelta(seconds=60)),
        "unavailable": Unavailable(
            reason="ServiceUnavailable", delay=timedelta(seconds=31), is_vendor_delay=True
        ),
        "unavailable, no delay named": Unavailable(reason="ServiceUnavailable", delay=timedelta(minutes=15)),
        "credentials": CredentialsRejected,
    },
)


def jpush_config(info: Mapping[str, Any]) -> ChannelConfig:
    """Use the simulated app's key and secret."""
    return ChannelConfig(
        provider="jpush",
        secrets={name: info[name].encode() for name in ("app_key", "master_secret")},
        endpoint=info["url"],
        report_endpoint=info["report_url"],
        ca_file=info["ca_file"],
        timeout=timedelta(seconds=10),
        max_streams=50,
        max_connections=1,
    )


JPUSH = Vendor(
    name="jpush",
    config=jpush_config,
    token=lambda number: f"13065ffa4e{number:09d}",
    answers={
        "unavailable": {"answer": "unavailable", "retry_after": 31},
        "gateway": {"answer": "bad_gateway_html"},
    },
    expected={
        "unregistered": Rejected(reason="1011 NoTarget", suspects_token=True),
        "bad_token": Rejected(reason="1003 InvalidValue", suspects_token=True, needs_proof=True),
        "payload": Rejected(reason="1005 TooLarge"),
        "internal": Unavailable(reason="1000 InternalError", delay=timedelta(seconds=10), is_unsure=True),
        "unavailable": Unavailable(
            reason="1030 InternalTimeout", delay=timedelta(seconds=31), is_vendor_delay=True, is_unsure=True
        ),
        "gateway": Unavailable(reason="http 502", delay=timedelta(seconds=10), is_unsure=True),
        "credentials": CredentialsRejected,
        "blacklisted": CredentialsRejected,
    },
    accepted=lambda accepted: bool(accepted.message_id) and accepted.provisional,
)

VENDORS: Mapping[str, Vendor] = {vendor.name: vendor for vendor in (FCM, APNS, JPUSH)}
