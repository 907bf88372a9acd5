"""Where requests go, from what people paste: the base URL, the API key and the proxy. All of it checked in one line."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from sim.errors import UsageError

DEFAULT_URL = "https://api.openai.com/v1"
URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"
HEADERS_VARIABLE = "OPENAI_CUSTOM_HEADERS"
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

_BLANK = " \t\r\n\f\v\u00a0\u200b\u200c\u200d\u2060\ufeff"
_QUOTES = "\"'`‘’“”"
_SECRET_NAME = re.compile(r"key|token|secret|password|passwd|sig|auth|code|cred", re.IGNORECASE)
_LIKE_HOST = re.compile(r"(localhost|[\w-]+(\.[\w-]+)+|[\w.-]+:\d+)(:\d+)?(/|$)")
_PASTED = re.compile(r"/(?:chat/completions|completions|responses|embeddings|models)/*$")
"""Ends of a pasted URL that belong to one kind of request."""


@dataclass(frozen=True, slots=True)
class EndpointAddress:
    """A base URL in the form that the client takes."""

    url: str
    """Without query; user name and password included."""
    query: Mapping[str, str]
    """Sent with every request."""
    secrets: tuple[str, ...]
    """What of it must not be shown."""

    @property
    def host(self) -> str:
        """Name or IP address."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """The proxy between this machine and an endpoint."""

    url: str
    variable: str
    """That names it."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What of it must not be shown."""
        return tuple(filter(None, (urlsplit(self.url).password,)))


def unwrapped(text: str | None) -> str:
    """A pasted text without the white space, invisible characters and quotes around it.

    Args:
        text: None counts as empty.
    """
    found, before = text or "", None
    while found != before:
        before = found
        found = found.strip(_BLANK)
        if len(found) > 1 and found[0] in _QUOTES and found[-1] in _QUOTES:
            found = found[1:-1]
    return found


def plain_url(url: str) -> str:
    """A URL without user name, password, query and fragment.

    Args:
        url: Any URL.
    """
    return re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", url)[0]).rstrip("/")


def named_url(configured: str | None) -> str:
    """The base URL that the configuration or the environment names; empty where none does.

    Args:
        configured: `client.base_url`.
    """
    return unwrapped(configured) or unwrapped(os.environ.get(URL_VARIABLE))


def read_address(url: str) -> EndpointAddress:
    """A base URL as it was pasted: whole paths are cut back, a query is kept apart.

    Args:
        url: Any text.

    Raises:
        UsageError: It is no URL of an endpoint.
    """
    shown = plain_url(url)
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        meant = f"http://{shown}" if "://" not in shown and _LIKE_HOST.match(shown) else ""
        hint = f"did you mean {meant!r}?" if meant else "expected http://host:port/v1 or the like"
        raise UsageError(f"base URL {shown!r}: {hint}")
    if re.search(r"\s", url) or not url.isprintable():
        raise UsageError(f"base URL {shown!r} has white space or control characters inside: paste it again")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    secret = [value for name, value in query.items() if _SECRET_NAME.search(name)]
    path = _PASTED.sub("", parts.path.rstrip("/")).rstrip("/")
    found = tuple(filter(None, (parts.password, unquote(parts.password or ""), *secret)))
    return EndpointAddress(f"{parts.scheme}://{parts.netloc}{path}", query, found)


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None where a part is no part of any URL."""
    try:
        parts = urlsplit(url)
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def check_storable(url: str | None) -> None:
    """A base URL in a configuration must hold no secret: run folders keep the configuration.

    Args:
        url: `client.base_url`.

    Raises:
        UsageError: It has a password or a key in it; the message shows neither.
    """
    parts = _split(unwrapped(url))
    query = parse_qsl(parts.query) if parts is not None else []
    if parts is not None and (parts.password or any(_SECRET_NAME.search(name) for name, _ in query)):
        raise UsageError(
            f"base_url {plain_url(unwrapped(url))!r} holds a password or key, which run folders would keep: "
            f"set {URL_VARIABLE} in place of it"
        )


def read_key(text: str | None) -> str:
    """The API key from the environment; empty where there is none.

    Args:
        text: Value of the variable.

    Raises:
        UsageError: It holds characters that no header can carry; the message does not show it.
    """
    key = unwrapped(text)
    for prefix in (f"export {KEY_VARIABLE}=", f"{KEY_VARIABLE}=", "Authorization:", "Bearer "):
        if f"{key} ".lower().startswith(prefix.lower()):
            key = unwrapped(key[len(prefix) :])
    _check_letters(KEY_VARIABLE, key, "!")
    return key


def read_header(variable: str) -> str | None:
    """A variable that goes into a header of every request; None where it is not set.

    Args:
        variable: Its name.

    Raises:
        UsageError: It holds characters that no header can carry; the message does not show it.
    """
    if variable not in os.environ:
        return None
    value = unwrapped(os.environ[variable])
    _check_letters(variable, value, " ")
    return value


def read_custom_headers() -> tuple[str, ...]:
    """Values of the headers in OPENAI_CUSTOM_HEADERS, which the client library sends: they may be secrets.

    Raises:
        UsageError: As for `read_header`.
    """
    lines = os.environ.get(HEADERS_VARIABLE, "").splitlines()
    for line in lines:
        _check_letters(HEADERS_VARIABLE, line.strip(), " ")
    return tuple(line.partition(":")[2].strip() for line in lines)


def _check_letters(variable: str, text: str, first: str) -> None:
    """UsageError unless all letters lie between `first` and the last one of ASCII."""
    bad = next((position for position, letter in enumerate(text) if not first <= letter <= "~"), None)
    if bad is not None:
        kind = "a character that is not ASCII" if ord(text[bad]) > 127 else "white space or a control character"
        raise UsageError(f"{variable} holds {kind} at position {bad + 1} of {len(text)}: paste it again")


def proxy_for(address: EndpointAddress) -> HttpProxy | None:
    """The proxy that the environment names for an endpoint; none for this machine itself.

    Args:
        address: Of the endpoint.

    Raises:
        UsageError: The proxy cannot be used; names the variable.
    """
    if is_loopback(address.host) or urllib.request.proxy_bypass(address.host):
        return None
    found = _named_proxy(urlsplit(address.url).scheme)
    if found is not None and (why := _unusable(found)):
        raise UsageError(f"{why}: correct it, unset it, or add {address.host} to NO_PROXY")
    return found


def ignored_proxy(address: EndpointAddress) -> str:
    """A sentence about a proxy that could not be used, if it had to be; empty where there is nothing to say.

    Args:
        address: Of the endpoint.
    """
    found = _named_proxy(urlsplit(address.url).scheme)
    why = _unusable(found) if found is not None and is_loopback(address.host) else ""
    return f"{why}; the endpoint is on this machine and is asked without one." if why else ""


def _named_proxy(scheme: str) -> HttpProxy | None:
    """The proxy that the environment names for a scheme."""
    proxies = urllib.request.getproxies()
    kind = scheme if proxies.get(scheme) else "all"
    url = unwrapped(proxies.get(kind))
    if not url:
        return None
    names = (f"{kind}_proxy", f"{kind}_proxy".upper())
    variable = next((name for name in names if os.environ.get(name)), "the system's proxy setting")
    return HttpProxy(url if "://" in url else f"http://{url}", variable)


def _unusable(proxy: HttpProxy) -> str:
    """Which variable names a proxy that cannot be used, and why; empty where it can be."""
    parts = _split(proxy.url)
    if parts is None or not parts.hostname or re.search(r"\s", proxy.url) or not proxy.url.isascii():
        why = "is no address of a proxy"
    elif parts.scheme not in PROXY_SCHEMES:
        why = f"has a scheme that is not one of {', '.join(PROXY_SCHEMES)}"
    elif parts.scheme.startswith("socks") and not _has_socks():
        why = "needs the package socksio, which is not installed"
    else:
        return ""
    return f"{proxy.variable} = {plain_url(proxy.url)!r} {why}"


def _has_socks() -> bool:
    import importlib.util

    return importlib.util.find_spec("socksio") is not None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by name or address.

    Args:
        host: Without port, IPv6 addresses without brackets.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or (mapped or address).is_unspecified
