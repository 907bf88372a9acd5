"""A client for the endpoint that the configuration or the environment names, or for a model in this process.

The API key comes from OPENAI_API_KEY only and is read once, here; it is cut out of every text that leaves the client.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from experts.llm.budget import Budget
from experts.llm.client import ChatClient, ClientConfig
from experts.llm.endpoint import Endpoint
from experts.llm.redact import plain_url, redactor
from sim.errors import UsageError

if TYPE_CHECKING:
    import httpx2 as httpx

DEFAULT_URL = "https://api.openai.com/v1"
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
    return any((config.base_url, os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")))


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
        UsageError: The vendor's endpoint is meant and no key is set, or the URL is no URL.
    """
    import openai

    if in_process is not None:
        transport = openai.DefaultAsyncHttpx2Client(transport=in_process.transport)
        made = openai.AsyncOpenAI(api_key=NO_KEY, base_url=in_process.url, max_retries=0, http_client=transport)
        return _client(made, model, dataclasses.replace(config, concurrency=IN_PROCESS_CONCURRENCY), budget, "", seed)
    url = config.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
    key = os.environ.get("OPENAI_API_KEY") or ""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise UsageError(f"base URL {plain_url(url)!r}: expected http://host:port/v1 or the like")
    if not key and url == DEFAULT_URL:
        raise UsageError(
            f"no key for {DEFAULT_URL}: set OPENAI_API_KEY,"
            " or name another endpoint with client.base_url or OPENAI_BASE_URL"
        )
    made = openai.AsyncOpenAI(api_key=key or NO_KEY, base_url=url, max_retries=0, timeout=config.total_s)
    return _client(made, model, config, budget, key, seed, url)


def _client(
    made: Any, model: str, config: ClientConfig, budget: Budget, key: str, seed: int, url: str = ""
) -> ChatClient:
    endpoint = Endpoint(made, model, config.connect_s, config.max_bytes, redactor(key, url))
    return ChatClient(endpoint, config, budget, seed)
