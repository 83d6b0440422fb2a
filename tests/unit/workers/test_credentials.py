"""Credential references: only where an operator put secrets, and nothing secret in what is said about them."""

from pathlib import Path

import pytest

from workers.credentials import CredentialError, CredentialStore, fingerprint


@pytest.fixture
def store(tmp_path: Path) -> CredentialStore:
    """Give a store with one file and one variable."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "ios.p8").write_bytes(b"the key")
    (tmp_path / "outside").write_text("not yours")
    return CredentialStore(
        tmp_path / "credentials",
        {"PUSHFAN_SECRET_JPUSH": "master", "PATH": "/bin", "PUSHFAN_SECRET_EMPTY": ""},
    )


def test_references_are_resolved_by_role(store: CredentialStore) -> None:
    """Files as they are, variables as bytes."""
    secrets = store.resolve({"key": "file:ios.p8", "master_secret": "env:PUSHFAN_SECRET_JPUSH"})
    assert secrets == {"key": b"the key", "master_secret": b"master"}


@pytest.mark.parametrize(
    ("reference", "word"),
    [
        ("file:../outside", "outside"),
        ("file:/etc/passwd", "outside"),
        ("file:missing.p8", "cannot read"),
        ("file:", "cannot read"),
        ("env:PATH", "PUSHFAN_SECRET_"),
        ("env:PUSHFAN_SECRET_NONE", "not set"),
        ("env:PUSHFAN_SECRET_EMPTY", "not set"),
        ("vault:x", "file:NAME or env:"),
        ("no-colon", "file:NAME or env:"),
    ],
)
def test_unusable_reference_is_refused(store: CredentialStore, reference: str, word: str) -> None:
    """Each says what is wrong with it."""
    with pytest.raises(CredentialError, match=word):
        store.read(reference)


def test_link_out_of_the_directory_is_refused(store: CredentialStore, tmp_path: Path) -> None:
    """A link does not lead where a path may not."""
    (tmp_path / "credentials" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(CredentialError, match="outside"):
        store.read("file:link")


def test_empty_file_is_refused(store: CredentialStore, tmp_path: Path) -> None:
    """A half-written secret is no secret."""
    (tmp_path / "credentials" / "ios.p8").write_text(" \n")
    with pytest.raises(CredentialError, match="empty"):
        store.read("file:ios.p8")


def test_all_problems_are_named(store: CredentialStore) -> None:
    """Both wrong references are in one message, by role."""
    with pytest.raises(CredentialError) as caught:
        store.resolve({"app_key": "env:PATH", "key": "file:ios.p8", "master_secret": "file:missing"})
    lines = str(caught.value).split("\n")
    assert [line.partition(":")[0] for line in lines] == ["app_key", "master_secret"]


def test_pasted_secret_is_not_repeated(store: CredentialStore) -> None:
    """Somebody will give the secret itself where its reference belongs."""
    secret = "AAAAB3NzaC1yc2E:averylongsecretvalue"
    with pytest.raises(CredentialError) as caught:
        store.read(secret)
    assert "averylong" not in str(caught.value)


def test_changed_file_is_read_again(store: CredentialStore, tmp_path: Path) -> None:
    """Rotation needs no restart."""
    before = store.resolve({"key": "file:ios.p8"})
    (tmp_path / "credentials" / "ios.p8").write_bytes(b"another key")
    assert fingerprint(store.resolve({"key": "file:ios.p8"})) != fingerprint(before)


def test_fingerprint_tells_sets_of_secrets_apart() -> None:
    """By role and by content, whatever their order, and without containing them."""
    one = fingerprint({"a": b"secret", "b": b"other"})
    assert one == fingerprint({"b": b"other", "a": b"secret"})
    assert one != fingerprint({"a": b"other", "b": b"secret"})
    assert one != fingerprint({"a": b"secretb", "": b"other"})
    assert "secret" not in one
