"""Who may use a server that asks for no key: the check of Host against DNS rebinding, and CORS for browsers.

A page in a browser reaches servers on its user's machine. Pages of this machine are welcome; a page of any other origin
is refused, also one that had its own name resolve to 127.0.0.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.message import Message
from urllib.parse import urlsplit

from experts.llm.address import is_loopback
from experts.serving.api import ApiError

PREFLIGHT_S = 600
"""s for which a browser may remember what it was told."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_-]+(\s*,\s*[A-Za-z0-9_-]+)*")


def judge(headers: Message, version: str, on_loopback: bool) -> tuple[ApiError | None, str | None]:
    """Whether a request is refused, and the origin of the page that may read the response.

    Args:
        headers: Of the request.
        version: As for `check_host`.
        on_loopback: As for `check_host`.

    Returns:
        The error where it is refused, and the origin where a browser's page asks that may.
    """
    try:
        check_host(headers, version, on_loopback)
        return None, check_origin(headers)
    except ApiError as error:
        return error, None


def check_host(headers: Message, version: str, on_loopback: bool) -> None:
    """Check the Host header.

    Args:
        headers: Of the request.
        version: `HTTP/1.1` or the like.
        on_loopback: The server is reachable from this machine only, so that every honest request names this machine.

    Raises:
        ApiError: 400 where there is not exactly one name, 403 where it is a foreign one.
    """
    given = headers.get_all("Host") or []
    if not given and version in ("HTTP/0.9", "HTTP/1.0"):
        return
    found = _HOST.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is None:
        raise ApiError(400, "a request needs one Host header, with the name of a host")
    name = found[1].strip("[]")
    if on_loopback and not is_loopback(name):
        raise ApiError(
            403, f"Host {name[:100]!r}: this server answers to localhost only; start it with --host for other names"
        )


def check_origin(headers: Message) -> str | None:
    """The origin of the browser's page; None where no browser page asks.

    Args:
        headers: Of the request.

    Raises:
        ApiError: 403 for a page that is not of this machine.
    """
    origin = headers.get("Origin")
    if origin is None:
        return None
    origin = origin.strip()
    if not _is_local(origin):
        raise ApiError(403, f"origin {origin[:100]!r}: only pages of this machine may ask")
    return origin


def _is_local(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    plain = parts.netloc.isascii() and "@" not in parts.netloc and not (parts.path or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and plain and is_loopback(name) and name != "0.0.0.0"


def cors_headers(origin: str, headers: Message, methods: Sequence[str]) -> list[tuple[str, str]]:
    """Headers that let a page read the response.

    Args:
        origin: Of the page, checked.
        headers: Of the request; of a preflight they name what the page means to send.
        methods: Those that the path takes; empty: this is no preflight.
    """
    found = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
    if not methods:
        return found
    wanted = (headers.get("Access-Control-Request-Headers") or "").strip()
    names = wanted if len(wanted) < 2000 and _HEADER_NAMES.fullmatch(wanted) else "authorization, content-type"
    found += [
        ("Access-Control-Allow-Methods", ", ".join(methods)),
        ("Access-Control-Allow-Headers", names),
        ("Access-Control-Max-Age", str(PREFLIGHT_S)),
    ]
    if headers.get("Access-Control-Request-Private-Network") == "true":
        found.append(("Access-Control-Allow-Private-Network", "true"))
    return found
