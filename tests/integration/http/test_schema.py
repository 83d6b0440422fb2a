"""The running server against its own OpenAPI document; and what the document says of events."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from events import BucketWrite, DirectPush, Message, TopicMessage
from gateway.http import event_schema
from tests.integration.http.house import House
from tests.integration.http.server import Server

# `make cases` looks harder: so many cases for each call, beside those that the document's limits give.
USUAL = 2
CASES = int(os.environ.get("PUSHFAN_TEST_SCHEMA_CASES", str(USUAL)))
SEED = os.environ.get("PUSHFAN_TEST_SCHEMA_SEED", "20261126")
ROOT = Path(__file__).parents[3]
GENERATED = re.compile(r"^ +(\d+) generated", re.MULTILINE)
# 20,000 cases take minutes.
TIMEOUT_SECONDS = 600 + 60 * CASES


def test_document_names_every_field_of_events_and_messages() -> None:
    """The schema is written by hand; what `events` gains must be told."""
    assert list(event_schema.MESSAGE_FIELDS) == [field.name for field in fields(Message)]
    for kind in (DirectPush, TopicMessage, BucketWrite):
        named = {*event_schema.KIND_FIELDS[kind.kind], "app", "id", "ttl_seconds", "expires_at", "lane"}
        named.add("environment")
        assert named == {field.name for field in fields(kind)}


@pytest.fixture
def server(house: House, tmp_path: Path) -> Iterator[Server]:
    """Give a real server on the house's database, to which no number of requests is too many."""
    credentials = house.settings.credentials_directory
    (credentials / "key").write_text("0123456789abcdef01234567")
    (credentials / "master").write_text("abcdef0123456789abcdef01")
    for app in ("shop", "other"):
        house.secrets[f"{app} all"] = house.key(app, roles=("publish", "register", "admin"), name="all")
        # An app for which something waits cannot be removed: whatever else is called afterwards finds it.
        house.put("/v1/users/busy/devices/busy", by=app, json={"channel": "android", "token": "busy"})
        assert house.post("/v1/users/busy/messages", by=app, json={"message": {"title": "x"}}).is_success
    more = {"PUSHFAN_API_RATE": "1000000", "PUSHFAN_API_BACKLOG": "1000000000"}
    with Server(house.database.url, tmp_path, **more) as server:
        yield server


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_answers_to_an_apps_keys_are_as_documented(house: House, server: Server, tmp_path: Path) -> None:
    """No 5xx, no undocumented answer, no nonsense taken, no sense refused, and nothing of another app told."""
    keys = [
        {"name": app, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {house.secrets[key]}"}]}
        for app, key in (("shop", "shop all"), ("other", "other all"))
    ]
    (tmp_path / "keys.json").write_text(json.dumps({"auth": keys}))
    auth = f'[auth.wfc]\npath = "{tmp_path / "keys.json"}"\nuser = "shop"\npeers = ["shop", "other"]\n'
    _look(server, tmp_path, auth)


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_answers_to_an_operator_are_as_documented(house: House, server: Server, tmp_path: Path) -> None:
    """The same for the key of all apps, by default in the calls of administration alone."""
    name = f'[parameters]\n"query.app" = "shop"\n[headers]\nAuthorization = "Bearer {house.secrets["operator"]}"\n'
    tags = ("--include-tag", "apps", "--include-tag", "channels", "--include-tag", "keys")
    _look(server, tmp_path, name, *(tags if CASES == USUAL else ()))


def _look(server: Server, directory: Path, configuration: str, *more: str) -> None:
    """Run schemathesis with all its checks; tell what it found, and how many cases there were."""
    (directory / "schemathesis.toml").write_text(f"[cache]\nenabled = false\n{configuration}")
    schemathesis = str(Path(sys.executable).with_name("schemathesis"))
    command = [schemathesis, f"--config-file={directory / 'schemathesis.toml'}", "run"]
    command += [
        f"{server.url}/openapi.json",
        "--checks=all",
        f"--max-examples={CASES}",
        f"--seed={SEED}",
        "--generation-database=none",
    ]
    command += ["--continue-on-failure", "--no-color", "--request-timeout=60", *more]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.integration.http.schema_hooks"}
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | hooks, capture_output=True, text=True, check=False
    )
    (directory / "schemathesis.txt").write_text(ended.stdout)
    found = GENERATED.search(ended.stdout)
    print(f"{found[1] if found else 'no'} cases, seed {SEED}")  # noqa: T201  `pytest -s` shows it
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert found
    assert int(found[1]) > 100
