"""Secrets out of texts: the API key and the password in a URL must not reach logs, caches or recordings."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit


def redactor(key: str, url: str = "") -> Callable[[str], str]:
    """A function that cuts secrets out of a text and makes it storable anywhere (no lone surrogates).

    Args:
        key: The API key; empty for none.
        url: The endpoint's URL, whose password is a secret too.

    Returns:
        text -> text without the key, the password, and anything that looks like a key.
    """
    secrets = [secret for secret in (key, urlsplit(url).password or "") if len(secret) >= 4]

    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "[redacted]")
        text = re.sub(r"\bsk-[A-Za-z0-9_*-]{8,}", "[redacted]", text)
        return text.encode("utf-8", "replace").decode()

    return redact


def plain_url(url: str) -> str:
    """A URL without user name and password.

    Args:
        url: Any URL.
    """
    return re.sub(r"//[^/@]*@", "//", url).rstrip("/")
