"""The exchange of a service account's signed assertion for an access token."""

import json
import ssl
import time
from pathlib import Path

import httpx
import jwt


def access_token(service_account_file, ca_file):
    """Return a token for an hour."""
    account = json.loads(Path(service_account_file).read_text())
    now = int(time.time())
    claims = {
        "iss": account["client_email"],
        "aud": account["token_uri"],
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "iat": now,
        "exp": now + 3600,
    }
    assertion = jwt.encode(claims, account["private_key"], algorithm="RS256")
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    answer = httpx.post(account["token_uri"], data=form, verify=ssl.create_default_context(cafile=ca_file))
    return answer.json()["access_token"]
