"""The running server against its own OpenAPI document; and what the document says of events."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from events import BucketWrite, DirectPush, Message, TopicMessage
from gateway.http import event_schema
from tests.integration.http.house import House
from tests.integration.http.server import Server

# `PUSHFAN_TEST_SCHEMA_CASES=250` looks harder: so many cases of each mode for each call.
CASES = int(os.environ.get("PUSHFAN_TEST_SCHEMA_CASES", "2"))
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
load_all_checks()


def test_document_names_every_field_of_events_and_messages() -> None:
    """The schema is written by hand; what `events` gains must be told."""
    assert list(event_schema.MESSAGE_FIELDS) == [field.name for field in fields(Message)]
    for kind in (DirectPush, TopicMessage, BucketWrite):
        named = {*event_schema.KIND_FIELDS[kind.kind], "app", "id", "ttl_seconds", "expires_at", "lane"}
        named.add("environment")
        assert named == {field.name for field in fields(kind)}


@pytest.fixture
def server(house: House, tmp_path: Path) -> Iterator[Server]:
    """Give a real server on the house's database."""
    with Server(house.database.url, tmp_path) as server:
        yield server


@pytest.mark.timeout(600)
@pytest.mark.parametrize("by", ["shop", "operator"])
def test_answers_are_as_documented(house: House, server: Server, by: str) -> None:
    """Whatever is sent, there is no 5xx, no answer that the document does not tell, and no nonsense taken."""
    document = house.get("/openapi.json", by=None).json()
    # The key is the test's to send: `test_isolation` leaves it out.
    del document["components"]["securitySchemes"]
    for call in (call for calls in document["paths"].values() for call in calls.values()):
        del call["security"]
    schema = schemathesis.openapi.from_dict(document)
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) > 35
    headers = {"authorization": f"Bearer {house.secrets[by]}"}
    checks = CHECKS.get_by_names(CHECKED)
    for operation in operations:
        for mode in GenerationMode:
            _look(operation, mode, {"base_url": server.url, "headers": headers}, checks)


def _look(operation: Any, mode: GenerationMode, to: dict[str, Any], checks: Any) -> None:
    @settings(max_examples=CASES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def look(case: Any) -> None:
        case.validate_response(case.call(**to), checks=checks)

    with suppress(Unsatisfiable):  # a call without parameters can be made in no wrong way
        look()
