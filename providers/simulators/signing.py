"""Keys and the signed tokens that prove who holds them."""

from __future__ import annotations

from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.types import Options

# Each vendor has its own rules about times, issuer and audience, and its own words for breaking them.
_SIGNATURE_ALONE: Options = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def claims_of(token: str, private_key_pem: str, algorithm: str) -> dict[str, Any]:
    """Return the claims of a token that this key signed, whatever they say; raises `jwt.PyJWTError`."""
    key = _public_pem(private_key_pem)
    return jwt.decode(token, key, algorithms=[algorithm], options=_SIGNATURE_ALONE)


def new_rsa_key() -> str:
    """Return a private key as Google's service accounts have."""
    return _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def new_ec_key() -> str:
    """Return a private key as Apple's .p8 files hold."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


@cache
def _public_pem(private_key_pem: str) -> bytes:
    key = serialization.load_pem_private_key(private_key_pem.encode(), None).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
