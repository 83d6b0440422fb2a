"""A simulator's own certificate authority, and the files of its state directory."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files for TLS: the authority to trust, the server's own pair, a client's pair in one file."""

    ca_file: Path
    chain_file: Path
    key_file: Path
    client_file: Path


def make_certificates(state_dir: Path, name: str, hosts: list[str], client_name: str) -> Certificates:
    """Make the certificates of one simulator, or reuse those of an earlier start for the same hosts."""
    files = Certificates(
        ca_file=state_dir / f"{name}.ca.pem",
        chain_file=state_dir / f"{name}.server.pem",
        key_file=state_dir / f"{name}.server.key",
        client_file=state_dir / f"{name}.client.pem",
    )
    marker = state_dir / f"{name}.hosts"
    if marker.exists() and marker.read_text() == " ".join(hosts):
        return files
    authority = trustme.CA()
    server = authority.issue_cert(*hosts)
    client = authority.issue_cert(client_name, common_name=client_name)
    write_private(files.ca_file, authority.cert_pem.bytes())
    write_private(files.chain_file, b"".join(blob.bytes() for blob in server.cert_chain_pems))
    write_private(files.key_file, server.private_key_pem.bytes())
    write_private(files.client_file, client.private_key_and_cert_chain_pem.bytes())
    write_private(marker, " ".join(hosts).encode())
    return files


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once, readable by its owner alone; a reader never sees half of it."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a state file, or `None` when this is the first start."""
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Keep a state file."""
    write_private(path, json.dumps(content, indent=2).encode() + b"\n")
