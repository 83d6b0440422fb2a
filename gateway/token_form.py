"""What providers' tokens look like, for every door that registers devices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.channels import Channel


def check_token(channel: Channel, token: str) -> str | None:
    """Say what is wrong with a token in the eyes of the channel's provider, as far as its form tells."""
    form, words = _forms().get(channel.provider.value, (None, ""))
    return None if form is None or form.fullmatch(token) else words


def _forms() -> dict[str, tuple[re.Pattern[str], str]]:
    from providers import apns, jpush

    return {
        "apns": (apns.DEVICE_TOKEN, "must be hexadecimal, as APNs' device tokens are"),
        "jpush": (jpush.REGISTRATION_ID, "must be a JPush registration id: letters, digits, _ and -"),
    }
