"""The shapes of registrations, scopes, cursors, and the words of a forgotten user."""

import json

import pytest

from registry.checks import LONGEST_TOKEN, Problems
from registry.devices import Install, check, token_hash
from registry.errors import InvalidRegistration
from registry.feedback import Cursor
from registry.subscriptions import Scope, ScopeKind
from registry.users import scrub


def found(**changes: str) -> list[str]:
    """Name the fields that an install call with these values is refused for."""
    values = {"user_id": "ann", "device_key": "phone", "token": "t1", **changes}
    problems = Problems()
    check(Install(channel_id=1, **values), problems)  # type: ignore[arg-type]  # wrong values are the point
    return [problem.path for problem in problems.found]


@pytest.mark.parametrize(
    "token",
    ["", " ", "a b", "a\nb", "a\tb", "caf\xe9", "a\x00b", "\u200b", "x" * (LONGEST_TOKEN + 1), None, 7],
)
def test_token_of_another_shape_is_refused(token: str) -> None:
    """A token is printable ASCII without spaces and fits into an index entry."""
    assert found(token=token) == ["token"]


@pytest.mark.parametrize("token", ["x", "a:b-c_d/e+f=", "x" * LONGEST_TOKEN])
def test_token_of_any_vendor_is_taken(token: str) -> None:
    """No vendor's alphabet is excluded."""
    assert found(token=token) == []


def test_all_problems_are_named_at_once() -> None:
    """One refusal names everything that is wrong."""
    assert found(user_id="", device_key="a\nb", token=" ", locale="?", time_zone="?", app_version="") == [
        "user", "device_key", "token", "locale", "time_zone", "app_version",
    ]  # fmt: skip


def test_problems_do_not_repeat_the_token() -> None:
    """A refusal may be logged; a token may not."""
    problems = Problems()
    check(Install(channel_id=1, user_id="ann", device_key="phone", token="se cret"), problems)
    assert "cret" not in str(problems.found)
    assert "se cret" not in repr(Install(channel_id=1, user_id="ann", device_key="phone", token="se cret"))


def test_token_hash_is_the_beginning_of_sha256() -> None:
    """Logs, feedback and traces call a token by the same 12 digits."""
    assert token_hash("abc") == "ba7816bf8f01"


@pytest.mark.parametrize(
    ("text", "kind", "owner"),
    [
        ("app", ScopeKind.APP, ""),
        ("group:42", ScopeKind.GROUP, "42"),
        ("user:a:b", ScopeKind.USER, "a:b"),
        ("thing:x", ScopeKind.THING, "x"),
    ],
)
def test_scope_round_trips(text: str, kind: ScopeKind, owner: str) -> None:
    """A scope is read and written in the form that events use."""
    scope = Scope.parse(text)
    assert (scope.kind, scope.id, str(scope)) == (kind, owner, text)


@pytest.mark.parametrize(
    "text", ["", "App", "app:", "app:1", "group", "group:", "team:1", "user: ", "user:a\nb"]
)
def test_scope_of_another_form_is_refused(text: str) -> None:
    """Nothing is taken for a scope that is none."""
    with pytest.raises(InvalidRegistration, match=r"^scope: "):
        Scope.parse(text)


def test_cursor_round_trips() -> None:
    """A reader's place survives a URL."""
    assert Cursor.parse(str(Cursor(xid=2**40, id=3))) == Cursor(xid=2**40, id=3)


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "g-1", "1-2-3", "f" * 16 + "-1", "1 -2", "1-2\n"])
def test_cursor_of_another_form_is_refused(text: str) -> None:
    """A made-up cursor is an error and not the beginning."""
    with pytest.raises(InvalidRegistration):
        Cursor.parse(text)


def test_scrubbed_json_stays_json() -> None:
    """A dead letter without the user can still be read, and other users are still in it."""
    body = json.dumps({"users": ["u7", "u77", "x-u7"], "scope": "user:u7", "u7": 7, "data": {"n": "u7"}})
    assert json.loads(scrub(body, "u7")) == {
        "users": ["forgotten", "u77", "x-u7"],
        "scope": "user:forgotten",
        "forgotten": 7,
        "data": {"n": "forgotten"},
    }


@pytest.mark.parametrize("user", ["u7", "a.b*c@example.com", "j\xf6rg", 'a"b', "a b"])
def test_scrubbed_text_does_not_name_the_user(user: str) -> None:
    """In JSON, in its ASCII form and in plain text, the id is gone."""
    for text in (json.dumps([user]), json.dumps([user], ensure_ascii=False), f"user {user}: unknown"):
        scrubbed = scrub(text, user)
        assert user not in scrubbed
        assert json.dumps(user)[1:-1] not in scrubbed


def test_text_that_does_not_name_the_user_stays_as_it_is() -> None:
    """Byte for byte, so that a body can still be compared."""
    assert scrub('{"users":  ["u77"]}', "u7") == '{"users":  ["u77"]}'
