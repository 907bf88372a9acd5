"""HTTP failures of an endpoint: what it says, which fault that is, and what it means for the user."""

from __future__ import annotations

import email.utils
import html
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from experts.llm.faults import Fault

MAX_MESSAGE = 300
"""Characters of an endpoint's own words that are shown."""
PASSING = frozenset({425, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses of a server that is not ready, or of a gateway that does not reach it yet."""

_LOADING = re.compile(r"\bloading\b|\bwarming up\b|\bstarting up\b|not ready", re.IGNORECASE)
_QUOTA = re.compile(r"quota|billing|credit|balance|payment|spend", re.IGNORECASE)
_MODEL = re.compile(r"\bmodel\b|deployment", re.IGNORECASE)
_PLACES = re.compile(r"'loc': [(\[]([^)\]]*)[)\]]")
"""Where pydantic found an error, inside a message."""


@dataclass(frozen=True, slots=True)
class ErrorText:
    """The body of an error response."""

    message: str = ""
    """One line."""
    names: tuple[str, ...] = ()
    """Request parameters that it names in a field of their own."""
    is_page: bool = False
    """An HTML page: a proxy, firewall or web server answered, not an API."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an endpoint is, as far as the meaning of a status depends on it."""

    path: str
    """Path of the base URL."""
    has_key: bool
    proxy: str
    """Variable that names the proxy on the way; empty: there is none."""


class AttemptFailed(Exception):
    """One request ended with a fault."""

    def __init__(
        self,
        fault: Fault,
        detail: str,
        retry_after: float | None = None,
        billed: bool = True,
        status: int | None = None,
        passing: bool = False,
    ) -> None:
        """Name the fault.

        Args:
            fault: Its class.
            detail: One redacted line about it.
            retry_after: Seconds for which the server asks to wait.
            billed: The endpoint may have charged for it.
            status: HTTP status; None: there was none.
            passing: The server is loading or overloaded, or the rate is limited: waiting may help.
        """
        super().__init__(detail)
        self.fault, self.detail, self.retry_after, self.billed = fault, detail, retry_after, billed
        self.status, self.passing = status, passing
        self.adapted = False
        """A parameter was refused, and the next request goes without it (`experts.llm.dialect`)."""


def read_error(body: str) -> ErrorText:
    """Read the body of an error response, in the forms of OpenAI, pydantic, vLLM, Anthropic, Google and web servers.

    Args:
        body: The text of it.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        is_page = bool(re.search(r"<(?:!doctype|html|head|body|title)\b", body[:2000], re.IGNORECASE))
        return ErrorText(_line(_page_text(body) if is_page else body), is_page=is_page)
    names: list[str] = []
    messages = _messages(data, names)
    text = _line("; ".join(dict.fromkeys(messages)))
    for place in _PLACES.findall(" ".join(messages)):
        names += re.findall(r"'(\w+)'", place)
    return ErrorText(text, tuple(dict.fromkeys(names)))


def _page_text(body: str) -> str:
    """The title of an HTML page, else its text."""
    title = re.search(r"<title[^>]*>([^<]{1,300})", body[:100_000], re.IGNORECASE)
    return html.unescape(title[1] if title else re.sub(r"<[^<>]{0,500}>", " ", body[:2000]))


def _messages(data: Any, names: list[str], depth: int = 0) -> list[str]:
    """The messages in the JSON of an error; the parameters that have a field of their own go to `names`."""
    if isinstance(data, str):
        return [data]
    if depth > 5:
        return []
    if isinstance(data, list):
        return [text for item in data[:20] for text in _messages(item, names, depth + 1)]
    if not isinstance(data, dict):
        return []
    place = data.get("loc")
    words = [word for word in place if isinstance(word, str)] if isinstance(place, list) else []
    names += words
    if isinstance(data.get("param"), str):
        names += re.findall(r"\w+", data["param"])
    inner = [data.get(key) for key in ("error", "errors", "message", "detail", "msg")]
    found = [text for value in inner for text in _messages(value, names, depth + 1)]
    where = [word for word in words if word != "body"]
    return [f"{'.'.join(where)}: {text}" for text in found] if where else found


def _line(text: str) -> str:
    return " ".join(text[:5000].split())


def status_failure(
    status: int, body: str, headers: Mapping[str, str], place: Place, redact: Callable[[str], str]
) -> tuple[AttemptFailed, ErrorText]:
    """The failure that a status stands for, and what the endpoint said.

    Args:
        status: HTTP status, 300 or more.
        body: Text of the response.
        headers: Of the response.
        place: Where the endpoint is.
        redact: See `experts.llm.redact.redactor`.
    """
    error = read_error(body)
    quota = status == 402 or (status == 429 and bool(_QUOTA.search(error.message)))
    passing = status in PASSING or (status >= 500 and bool(_LOADING.search(error.message)))
    if status in (401, 403, 407):
        fault = Fault.AUTH
    elif status in (402, 429):
        fault, passing = Fault.RATE_LIMITED, not quota
    elif status == 408:
        fault = Fault.TIMEOUT
    else:
        fault = Fault.SERVER if status >= 500 or status == 425 else Fault.REQUEST
    wait = retry_after(headers)
    said = redact(error.message)[:MAX_MESSAGE]
    asked = f" (it asks to wait {wait:.0f} s)" if wait is not None and wait >= 1 else ""
    detail = f"HTTP {status}{f': {said}' if said else ''}{asked}: {meaning(status, error, place, quota)}"
    return AttemptFailed(fault, detail, wait, billed=False, status=status, passing=passing), error


def meaning(status: int, error: ErrorText, place: Place, quota: bool = False) -> str:
    """What a status means here, and what to do.

    Args:
        status: HTTP status, 300 or more.
        error: What the endpoint said.
        place: Where the endpoint is.
        quota: An allowance is used up, not a rate exceeded.
    """
    if quota:
        return "the quota or credit of this key is used up: check the account's plan, or try again later"
    if status == 404 or status in (301, 302, 303, 305, 307, 308, 405, 410):
        return _wrong_place(error, place)
    if status in (502, 504) and place.proxy:
        return f"the proxy named by {place.proxy} did not reach the endpoint: correct it, or add the host to NO_PROXY"
    if status == 401 or (status == 403 and not error.is_page):
        return "the key is refused: check OPENAI_API_KEY" + ("" if place.has_key else ", which is not set")
    return MEANINGS.get(status, MEANINGS[500] if status >= 500 else MEANINGS[400])


MEANINGS = {
    400: "the request is refused: check the model name, or leave a parameter out with client.leave_out",
    403: "a firewall or proxy on the way refuses the request: check HTTPS_PROXY, NO_PROXY and OPENAI_API_KEY",
    407: "the proxy asks for a user name and password: check HTTPS_PROXY",
    408: "the server gave up waiting for the request",
    413: "the request is too long for the endpoint",
    422: "the endpoint does not take a part of the request: leave it out with client.leave_out",
    425: "the server is not ready: try again later, or allow more with client.startup_s",
    429: "the rate is limited: try again later, or lower client.concurrency",
    500: "an error inside the server: see its log",
    501: "the server does not know this kind of request",
    502: "a gateway does not reach the model's server: start it, or check HTTPS_PROXY and client.base_url",
    503: "the model is loading or the server overloaded: try again later, or allow more with client.startup_s",
    504: "a gateway waited in vain for the model's server: try again later, or allow more with client.startup_s",
    529: "the server is overloaded: try again later",
}
"""By status; where a meaning depends on more, see `meaning`."""


def _wrong_place(error: ErrorText, place: Place) -> str:
    if _MODEL.search(error.message):
        return "check the model name, which the endpoint does not know"
    if not re.search(r"/v\d", place.path):
        return "check the model name, and client.base_url, which lacks the usual /v1 at its end"
    return "check the model name, and client.base_url, which is the part before /chat/completions"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds for which a server asks to wait; None where it says nothing that can be read.

    Args:
        headers: `retry-after-ms` (milliseconds) or `retry-after` (seconds, or a date by the server's own clock).
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = (headers.get(name) or "").strip()
        try:
            seconds = float(text) * unit if text else 0.0
        except ValueError:
            seconds = _until(text, headers.get("date")) if unit == 1.0 else 0.0
        if 0.0 < seconds < float("inf"):
            return seconds
    return None


def _until(date: str, now: str | None) -> float:
    """Seconds from the server's present time to an HTTP date; 0 where it is none."""
    due, present = _moment(date), _moment(now or "")
    if due is None:
        return 0.0
    return due - (time.time() if present is None else present)


def _moment(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
