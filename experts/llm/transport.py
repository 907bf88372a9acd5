"""The way to an endpoint: one proxy or none, and error responses that are read only as far as they are shown."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import AsyncIterator

import httpx2 as httpx
import openai

MAX_ERROR_BYTES = 65_536
"""Bytes of an error response that are read; the client library would read all of them."""


@functools.cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Those of the system, or of the place that the environment names.

    Read once per process and place: it takes some 50 ms, whether the endpoint has a certificate or not.
    """
    return httpx.create_ssl_context()


class EndpointTransport(httpx.AsyncHTTPTransport):
    """The client library's connections, through the proxy given here; the variables for proxies are not read again."""

    def __init__(self, proxy: str | None) -> None:
        """Open no connection yet.

        Args:
            proxy: Its URL; None for none.
        """
        certificates = _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        super().__init__(verify=certificates, proxy=proxy, limits=openai.DEFAULT_CONNECTION_LIMITS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        response = await super().handle_async_request(request)
        if response.status_code >= 300:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _Beginning(response.stream)
        return response


class _Beginning(httpx.AsyncByteStream):
    """The first bytes of a body."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ERROR_BYTES
        async for part in self._stream:
            yield part[:left]
            left -= len(part)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()
