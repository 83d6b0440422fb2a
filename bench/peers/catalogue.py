"""The peers. Each is driven in the fastest way that its own documentation shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from registry.channels import Provider


class Language(StrEnum):
    """What a peer's program needs. `OURS`: this very interpreter, which has everything."""

    OURS = "ours"
    PYTHON = "python"
    GO = "go"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to send. `packages` are what its language's own client installs."""

    provider: Provider
    language: Language
    packages: tuple[str, ...] = ()
    program: str


PEERS: Mapping[str, Peer] = {
    "aioapns": Peer(
        provider=Provider.APNS, language=Language.PYTHON, packages=("aioapns",), program="send_aioapns.py"
    ),
    "firebase_admin": Peer(
        provider=Provider.FCM,
        language=Language.PYTHON,
        packages=("firebase-admin",),
        program="send_firebase_admin.py",
    ),
    "firebase_admin_async": Peer(
        provider=Provider.FCM,
        language=Language.PYTHON,
        packages=("firebase-admin",),
        program="send_firebase_admin_async.py",
    ),
    "pyfcm": Peer(
        provider=Provider.FCM,
        language=Language.PYTHON,
        packages=("pyfcm", "aiohttp"),
        program="send_pyfcm.py",
    ),
    "celery_fcm": Peer(provider=Provider.FCM, language=Language.OURS, program="send_celery.py"),
    "celery_apns": Peer(provider=Provider.APNS, language=Language.OURS, program="send_celery.py"),
    "go_apns2": Peer(
        provider=Provider.APNS,
        language=Language.GO,
        packages=("github.com/sideshow/apns2", "golang.org/x/net/http2"),
        program="send_apns2.go",
    ),
    "node_apn": Peer(
        provider=Provider.APNS,
        language=Language.NODE,
        packages=("@parse/node-apn",),
        program="send_node_apn.js",
    ),
}
