"""What producers say to Pushfan: events, their wire form, the names they are sent by, and a publisher.

Needs only the standard library; publishing over a broker also needs kombu, which is imported when it is used.
"""

from __future__ import annotations

from .event import BucketWrite, Change, DirectPush, Environment, Event, TopicMessage
from .http_publisher import HttpPublisher, Refused
from .message import InterruptionLevel, Message, OnUnknown, Priority
from .names import Lane
from .outbox import outbox_sql
from .publisher import (
    Conflict,
    InOutbox,
    NotInstalled,
    Publisher,
    PublishError,
    PublishFailed,
    Queued,
    TakenIn,
    UnknownApp,
)
from .validation import InvalidEvent, Problem
from .webhook import InvalidWebhook, verify_webhook
from .wire import decode, encode

__all__ = [
    "BucketWrite",
    "Change",
    "Conflict",
    "DirectPush",
    "Environment",
    "Event",
    "HttpPublisher",
    "InOutbox",
    "InterruptionLevel",
    "InvalidEvent",
    "InvalidWebhook",
    "Lane",
    "Message",
    "NotInstalled",
    "OnUnknown",
    "Priority",
    "Problem",
    "PublishError",
    "PublishFailed",
    "Publisher",
    "Queued",
    "Refused",
    "TakenIn",
    "TopicMessage",
    "UnknownApp",
    "decode",
    "encode",
    "outbox_sql",
    "verify_webhook",
]
