"""A client for the endpoint that the configuration or the environment names, or for a model in this process.

The API key comes from OPENAI_API_KEY only and is read once, here; it is cut out of every text that leaves the client.
The environment's proxies are chosen here too (`experts.llm.address`), not by the client library.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from experts.llm.address import (
    DEFAULT_URL,
    KEY_VARIABLE,
    HttpProxy,
    ignored_proxy,
    named_url,
    proxy_for,
    read_address,
    read_custom_headers,
    read_header,
    read_key,
    unwrapped,
)
from experts.llm.budget import Budget
from experts.llm.client import ChatClient, ClientConfig
from experts.llm.dialect import Dialect
from experts.llm.endpoint import Endpoint
from experts.llm.failures import Place
from experts.llm.redact import SecretFilter, redactor
from sim.errors import UsageError

if TYPE_CHECKING:
    import httpx2 as httpx

NO_KEY = "not-needed"
"""Sent to endpoints of the user's own when no key is set; the client library refuses to send none."""
IN_PROCESS_CONCURRENCY = 4096
"""Requests in flight at most to a model in this process: no connection is opened for them."""


@dataclasses.dataclass(frozen=True)
class InProcessModel:
    """A model in this process that takes the place of an endpoint."""

    name: str
    transport: httpx.AsyncBaseTransport
    """What the openai client sends its requests through; closing the client closes it."""
    url: str
    """Base URL that the client is given; no address."""
    note: str
    """See `PolicyProvider.note`."""


def is_configured(config: ClientConfig) -> bool:
    """Whether the user has named an endpoint, by a URL or by the vendor's key.

    Args:
        config: May name a URL; else the environment may.
    """
    return bool(named_url(config.base_url) or unwrapped(os.environ.get(KEY_VARIABLE)))


def connect(
    model: str, config: ClientConfig, budget: Budget, seed: int, in_process: InProcessModel | None = None
) -> ChatClient:
    """A client for `model`. Opens no connection yet.

    Args:
        model: As the endpoint calls it.
        config: Where the endpoint is (else OPENAI_BASE_URL, else the vendor's), and how it is asked.
        budget: Every attempt is paid from it.
        seed: Of the retries' jitter.
        in_process: Asked in the endpoint's place.

    Raises:
        UsageError: The vendor's endpoint is meant and no key is set; URL, key or proxy cannot be used.
    """
    import openai

    dialect = Dialect(config.leave_out)
    if in_process is not None:
        http = openai.DefaultAsyncHttpx2Client(transport=in_process.transport)
        read_custom_headers()
        made = openai.AsyncOpenAI(
            api_key=NO_KEY,
            base_url=in_process.url,
            max_retries=0,
            http_client=http,
            organization="",  # this and the next: else the client library reads the environment's
            project="",
        )
        place = Place(urlsplit(in_process.url).path, False, "")
        endpoint = Endpoint(made, model, config.connect_s, config.max_bytes, redactor(), dialect, place)
        return ChatClient(endpoint, dataclasses.replace(config, concurrency=IN_PROCESS_CONCURRENCY), budget, seed)
    address = read_address(named_url(config.base_url) or DEFAULT_URL)
    key = read_key(os.environ.get(KEY_VARIABLE))
    if not key and address.url == DEFAULT_URL:
        raise UsageError(
            f"no key for {DEFAULT_URL}: set OPENAI_API_KEY,"
            " or name another endpoint with client.base_url or OPENAI_BASE_URL"
        )
    proxy = proxy_for(address)
    redact = redactor(key, *read_custom_headers(), *address.secrets, *(proxy.secrets if proxy else ()))
    made = openai.AsyncOpenAI(
        api_key=key or NO_KEY,
        base_url=address.url,
        max_retries=0,
        timeout=config.total_s,
        organization=read_header("OPENAI_ORG_ID"),
        project=read_header("OPENAI_PROJECT_ID"),
        default_query=dict(address.query),
        http_client=openai.DefaultAsyncHttpx2Client(transport=_transport(proxy)),
    )
    place = Place(urlsplit(address.url).path, bool(key), proxy.variable if proxy else "")
    hidden = SecretFilter(redact)
    endpoint = Endpoint(made, model, config.connect_s, config.max_bytes, redact, dialect, place, hidden.remove)
    endpoint.note = ignored_proxy(address)
    return ChatClient(endpoint, config, budget, seed)


def _transport(proxy: HttpProxy | None) -> httpx.AsyncBaseTransport:
    """The connections to an endpoint. UsageError where the certificates that the environment names cannot be read."""
    from experts.llm.transport import EndpointTransport

    try:
        return EndpointTransport(None if proxy is None else proxy.url)
    except OSError as error:  # also ssl.SSLError
        file = os.environ.get("SSL_CERT_FILE", "")
        why = error.strerror or "it holds no certificates"
        raise UsageError(f"SSL_CERT_FILE = {file!r} cannot be used: {why}: correct or unset it") from None
