"""What a channel needs to reach its provider: which options for which provider, and where its secrets end up.

1. `check_needs` compares what was given with the table of ways to authenticate and names every problem.
2. `collect` reads each secret: a reference stays one, a file from elsewhere will be copied.
3. `validate` builds the provider from them, so that a broken key is refused while somebody looks.
4. `store_copies` writes the copies, mode 0600, under names that no other secret has.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .command import SectionOption
from .errors import Refused

if TYPE_CHECKING:
    from registry.channels import Access, Channel
    from workers.credentials import CredentialStore
    from workers.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

# The ways to authenticate: each needs all of its names.
WAYS: Final[Mapping[str, tuple[frozenset[str], ...]]] = {
    "fcm": (frozenset({"service_account"}),),
    "apns": (
        frozenset({"key", "key_id", "team_id", "apns_topic"}),
        frozenset({"certificate", "apns_topic"}),
    ),
    "jpush": (frozenset({"app_key", "master_secret"}),),
}
SECRETS: Final = frozenset({"service_account", "key", "certificate", "app_key", "master_secret"})
# Roles whose content is short enough to be typed by mistake.
TYPEABLE: Final = frozenset({"app_key", "master_secret"})
HAS_REPORT_ENDPOINT: Final = frozenset({"jpush"})
OPTIONS: Final[Mapping[str, str]] = {
    "service_account": "--service-account",
    "key": "--key-file",
    "key_id": "--key-id",
    "team_id": "--team-id",
    "apns_topic": "--apns-topic",
    "certificate": "--certificate",
    "app_key": "--app-key",
    "master_secret": "--master-secret",
}
_LARGEST_SECRET: Final = 1_000_000
_LONGEST_PATH_SHOWN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One secret: its reference, its content, and whether that must be copied to where the reference says."""

    reference: str
    content: bytes = field(repr=False)
    is_copied: bool = False


def access_options(function: F) -> F:
    """Add the options of `channel add` and `channel set` that say how the provider is reached."""
    apns, others, way = "APNs", "FCM and JPush", "Address"
    for option in reversed(
        (
            _option("--key-file", "key", "PATH|REF", apns, "The team's signing key, AuthKey_….p8."),
            _option("--key-id", "key_id", "ID", apns, "The key's id, ten letters and digits."),
            _option("--team-id", "team_id", "ID", apns, "The team's id."),
            _option(
                "--certificate",
                "certificate",
                "PATH|REF",
                apns,
                "PEM with its key, instead of a signing key.",
            ),
            _option("--apns-topic", "apns_topic", "BUNDLE-ID", apns, "The app's bundle id."),
            _option(
                "--service-account", "service_account", "PATH|REF", others, "FCM: JSON from Google's console."
            ),
            _option("--app-key", "app_key", "REF", others, "JPush: where the AppKey is."),
            _option("--master-secret", "master_secret", "REF", others, "JPush: where the Master Secret is."),
            _option("--endpoint", "endpoint", "URL", way, "Instead of the provider's own address."),
            _option(
                "--report-endpoint", "report_endpoint", "URL", way, "JPush: the same for its status API."
            ),
            _option("--ca-file", "ca_file", "PEM", way, "Certificate authorities for that address."),
        )
    ):
        function = option(function)
    return function


def _option(name: str, variable: str, metavar: str, section: str, text: str) -> Callable[[F], F]:
    return click.option(name, variable, metavar=metavar, help=text, cls=SectionOption, section=section)


def check_needs(provider: str, given: Mapping[str, str]) -> Iterator[str]:
    """Name what is missing, and what this provider has no use for."""
    ways = WAYS[provider]
    used = frozenset[str]().union(*ways)
    for name in sorted(given.keys() & OPTIONS.keys() - used):
        yield f"{OPTIONS[name]}: has no use for {provider}"
    if "report_endpoint" in given and provider not in HAS_REPORT_ENDPOINT:
        yield f"--report-endpoint: has no use for {provider}"
    chosen = given.keys() & used
    way = fitting_way(provider, chosen)
    for name in sorted(chosen - way):
        others = " and ".join(_spelled(chosen & way & _telling(ways)))
        yield f"{OPTIONS[name]}: cannot be combined with {others}"
    for name in _spelled(way - chosen):
        yield f"{name}: is required for {provider}{_or_another(ways)}"


def fitting_way(provider: str, given: Collection[str], present: Collection[str] = ()) -> frozenset[str]:
    """Choose the way that most of what was given speaks for, and next what is there already."""
    return max(
        WAYS[provider],
        key=lambda way: (len(way & set(given)), len(way & set(present)), -len(way - set(given))),
    )


def _telling(ways: tuple[frozenset[str], ...]) -> frozenset[str]:
    """Return the names that tell the ways apart."""
    return frozenset[str]().union(*ways) - frozenset.intersection(*ways)


def _spelled(names: frozenset[str] | set[str]) -> list[str]:
    return [OPTIONS[name] for name in OPTIONS if name in names]


def _or_another(ways: tuple[frozenset[str], ...]) -> str:
    if len(ways) == 1:
        return ""
    return f" (which takes {', or '.join(' '.join(_spelled(way)) for way in ways)})"


def check_address(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    """Name what is wrong with the addresses and their certificate authorities."""
    from providers.outcome import CredentialsRejected
    from workers.clients import check_endpoint

    for name in ("endpoint", "report_endpoint"):
        if address := given.get(name):
            try:
                check_endpoint(settings, address)
            except (CredentialsRejected, ValueError) as error:
                yield f"--{name.replace('_', '-')}: {error}"
    if path := given.get("ca_file"):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except ssl.SSLError:
            yield f"--ca-file: {path} holds no PEM certificate"
        except OSError as error:
            yield f"--ca-file: cannot read {path}: {error.strerror}"


def collect(
    given: Mapping[str, str], store: CredentialStore, directory: Path, *, prefix: str
) -> tuple[dict[str, Secret], list[str]]:
    """Read the secrets among what was given, by role. Returns them and every problem."""
    from workers.credentials import CredentialError

    secrets: dict[str, Secret] = {}
    problems: list[str] = []
    for role in (name for name in OPTIONS if name in SECRETS and given.get(name)):
        try:
            secrets[role] = _read(role, given[role], store, directory, prefix)
        except CredentialError as error:
            problems.append(f"{OPTIONS[role]}: {error}")
    return secrets, problems


def _read(role: str, value: str, store: CredentialStore, directory: Path, prefix: str) -> Secret:
    if value.startswith(("env:", "file:")):
        return Secret(reference=value, content=store.read(value))
    content = _read_file(role, value)
    path = Path(value).resolve()
    if path.is_relative_to(directory.resolve()):
        return Secret(reference=f"file:{path.relative_to(directory.resolve())}", content=content)
    name = f"{prefix}-{role.replace('_', '-')}"
    return Secret(
        reference=f"file:{_free_name(directory, name, path.suffix, content)}", content=content, is_copied=True
    )


def _read_file(role: str, value: str) -> bytes:
    from workers.credentials import SECRET_PREFIX, CredentialError

    shown = (
        value if role not in TYPEABLE and len(value) <= _LONGEST_PATH_SHOWN and value.isprintable() else "it"
    )
    try:
        with Path(value).open("rb") as file:
            content = file.read(_LARGEST_SECRET + 1)
    except (OSError, ValueError) as error:
        if role in TYPEABLE:
            raise CredentialError(
                f"give a reference, env:{SECRET_PREFIX}NAME or file:NAME, or the path of a file: "
                "the command line is no place for a secret"
            ) from None
        raise CredentialError(
            f"cannot read {shown}: {getattr(error, 'strerror', None) or 'no such file'}"
        ) from None
    if not content.strip():
        raise CredentialError(f"{shown} is empty")
    if len(content) > _LARGEST_SECRET:
        raise CredentialError(f"{shown} is too large for a credential")
    return content


def _free_name(directory: Path, name: str, suffix: str, content: bytes) -> str:
    """Find a name that is free or holds just this: what is in use is replaced by a new file with a new name."""
    plain = f"{name}{suffix}"
    for candidate in (plain, f"{name}-{hashlib.sha256(content).hexdigest()[:8]}{suffix}"):
        path = directory / candidate
        if not path.exists() or (path.is_file() and path.read_bytes() == content):
            return candidate
    raise Refused(f"{directory / plain} and its successor hold something else: move them away")


def validate(settings: Settings, channel: Channel, secrets: Mapping[str, bytes]) -> None:
    """Build the channel's provider, which refuses what cannot work without asking anybody. Raises `Refused`."""
    from providers import create_provider
    from providers.outcome import CredentialsRejected
    from workers.clients import build_config

    try:
        create_provider(build_config(settings, channel, dict(secrets)), now=lambda: datetime.now(UTC))
    except (CredentialsRejected, ValueError) as error:
        raise Refused(
            f"channel {channel.name} is refused: its credentials cannot be used", [str(error)]
        ) from error


def store_copies(secrets: Mapping[str, Secret], directory: Path) -> list[Path]:
    """Write the secrets that are to be copied. Returns where they are now."""
    copies = [secret for secret in secrets.values() if secret.is_copied]
    if copies:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return [_write(directory / secret.reference.removeprefix("file:"), secret.content) for secret in copies]


def _write(path: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return Path(name).replace(path)


def build_access(given: Mapping[str, str], secrets: Mapping[str, Secret], *, environment: str) -> Access:
    """Put together what the database keeps: references, settings and addresses."""
    from registry.channels import Access, Environment

    ca_file = given.get("ca_file")
    return Access(
        secrets={role: secret.reference for role, secret in secrets.items()},
        settings={name: given[name] for name in OPTIONS if name not in SECRETS and given.get(name)},
        environment=Environment(environment),
        endpoint=given.get("endpoint"),
        report_endpoint=given.get("report_endpoint"),
        ca_file=None if ca_file is None else str(Path(ca_file).resolve()),
    )
