"""The embedded driver for clients in this process: an HTTP transport that has no network behind it.

The openai client's requests go to the same request handler as those of the chat server (`experts.serving.api`), so that
the embedded driver is asked exactly as a model at an endpoint. Requests that the loop sends in one turn are computed
together.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import httpx2 as httpx

from experts.serving.api import ApiError, ApiResponse, RequestHandler, error_response
from experts.serving.driver_model import DriverModel, DrivingQuery

if TYPE_CHECKING:
    from experts.language.driver import DriverOutput

URL = "http://in-process/v1"
"""Base URL that clients are given; no address."""


class InProcess(httpx.AsyncBaseTransport):
    """Transport to one `DriverModel`, for one event loop. Closing it closes the model."""

    def __init__(self, model: DriverModel) -> None:
        self.model = model
        self._handler = RequestHandler(model)
        self._gathered: list[tuple[DrivingQuery, asyncio.Future[DriverOutput]]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._respond(request.method, request.url.path, await request.aread())
        headers = {"Content-Type": response.content_type}
        if response.events is not None:
            return httpx.Response(response.status, headers=headers, stream=_Events(response.events))
        return httpx.Response(response.status, headers=headers, content=response.body)

    async def aclose(self) -> None:
        self.model.close()

    async def _respond(self, method: str, path: str, body: bytes) -> ApiResponse:
        found = self._handler.receive(method, path, body)
        if isinstance(found, ApiResponse):
            return found
        try:
            query = self.model.read(found)
        except ApiError as error:
            return error_response(error)
        loop = asyncio.get_running_loop()
        output: asyncio.Future[DriverOutput] = loop.create_future()
        self._gathered.append((query, output))
        if len(self._gathered) == 1:
            loop.call_soon(self._ask, loop)
        try:
            return self._handler.respond(found, self.model.write(query, await output))
        except Exception as error:
            return error_response(error)

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask what has come in the turn of the loop that is over."""
        gathered, self._gathered = self._gathered, []
        waiting = [(query, output) for query, output in gathered if not output.done()]
        asked = self.model.batches.ask([query for query, _ in waiting])
        for (_, output), answer in zip(waiting, asked, strict=True):
            asyncio.wrap_future(answer, loop=loop).add_done_callback(functools.partial(_hand_over, output))


def _hand_over(to: asyncio.Future[DriverOutput], done: asyncio.Future[DriverOutput]) -> None:
    if to.done():
        return
    error = done.exception()
    if error is None:
        to.set_result(done.result())
    else:
        to.set_exception(error)


class _Events(httpx.AsyncByteStream):
    """The events of a response; others may run between two of them."""

    def __init__(self, events: Iterator[bytes]) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield event
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        with contextlib.suppress(AttributeError):
            self._events.close()  # type: ignore[attr-defined]
