"""The running application against its own OpenAPI document; and what the document says of events."""

from __future__ import annotations

from dataclasses import fields

import pytest

from events import BucketWrite, DirectPush, Message, TopicMessage
from gateway.http import event_schema


def test_document_names_every_field_of_events_and_messages() -> None:
    """The schema is written by hand; what `events` gains must be told."""
    assert list(event_schema.MESSAGE_FIELDS) == [field.name for field in fields(Message)]
    for kind in (DirectPush, TopicMessage, BucketWrite):
        named = {*event_schema.KIND_FIELDS[kind.kind], "app", "id", "ttl_seconds", "expires_at", "lane"}
        assert named == {field.name for field in fields(kind)}
