"""Credential references: where a channel's secrets are, and what they are now.

    file:ios.p8               a file inside the credentials directory
    env:PUSHFAN_SECRET_JPUSH  an environment variable with that prefix

A reference is all that the database holds. Files are read again when they change, so that rotation needs no
restart.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

SECRET_PREFIX = "PUSHFAN_SECRET_"


class CredentialError(Exception):
    """A credential cannot be read: says which reference, why, and what to do."""


class CredentialStore:
    """Resolves references. Holds no secret itself."""

    def __init__(self, directory: Path, environ: Mapping[str, str] | None = None) -> None:
        self._directory = directory
        self._environ = os.environ if environ is None else environ

    def resolve(self, references: Mapping[str, str]) -> dict[str, bytes]:
        """Read the secret behind each reference, by role. Raises `CredentialError` that names all problems."""
        secrets: dict[str, bytes] = {}
        problems: list[str] = []
        for role, reference in references.items():
            try:
                secrets[role] = self.read(reference)
            except CredentialError as error:
                problems.append(f"{role}: {error}")
        if problems:
            raise CredentialError("\n".join(problems))
        return secrets

    def read(self, reference: str) -> bytes:
        """Read one secret. Raises `CredentialError`."""
        kind, separator, name = reference.partition(":")
        if separator and kind == "file":
            return self._read_file(name)
        if separator and kind == "env":
            return self._read_variable(name)
        raise CredentialError(
            f"{_shown(reference)} is no reference: write file:NAME or env:{SECRET_PREFIX}NAME"
        )

    def _read_file(self, name: str) -> bytes:
        directory = self._directory.resolve()
        path = (directory / name).resolve()
        if not path.is_relative_to(directory):
            raise CredentialError(f"file:{name} lies outside the credentials directory {self._directory}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CredentialError(f"cannot read {path}: {error.strerror}; put the file there") from error
        if not content.strip():
            raise CredentialError(f"{path} is empty")
        return content

    def _read_variable(self, name: str) -> bytes:
        if not name.startswith(SECRET_PREFIX):
            raise CredentialError(f"env:{name} does not begin with {SECRET_PREFIX}, as credentials must")
        value = self._environ.get(name, "")
        if not value:
            raise CredentialError(f"the environment variable {name} is not set")
        return value.encode()


def fingerprint(secrets: Mapping[str, bytes]) -> str:
    """Tell one set of secrets from another without revealing any."""
    digest = hashlib.sha256()
    for role in sorted(secrets):
        digest.update(role.encode() + b"\0" + hashlib.sha256(secrets[role]).digest())
    return digest.hexdigest()[:32]


def _shown(reference: str) -> str:
    """Show what was given only if it cannot be a secret pasted by mistake."""
    return (
        repr(reference)
        if len(reference) <= 16 and reference.isascii() and ":" in reference
        else "what was given"
    )
