"""The embedded driver for clients in this process: an HTTP transport that has no network behind it.

The openai client sends its requests to the same door as everybody's (`experts.serving.api`), so that whoever asks the
embedded driver asks it exactly as a model at an endpoint. Requests that the loop sends in one turn are thought about
together.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import httpx2 as httpx

from experts.serving.api import ApiError, Door, Reply, refusal
from experts.serving.driver_model import DriverModel, Question

if TYPE_CHECKING:
    from experts.language.driver import Thought

URL = "http://in-process/v1"
"""Base URL that clients are given; no address."""


class InProcess(httpx.AsyncBaseTransport):
    """Transport to one `DriverModel`, for one event loop. Closing it closes the model."""

    def __init__(self, model: DriverModel) -> None:
        self.model = model
        self._door = Door(model)
        self._gathered: list[tuple[Question, asyncio.Future[Thought]]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply = await self._reply(request.method, request.url.path, await request.aread())
        headers = {"Content-Type": reply.content_type}
        if reply.events is not None:
            return httpx.Response(reply.status, headers=headers, stream=_Events(reply.events))
        return httpx.Response(reply.status, headers=headers, content=reply.body)

    async def aclose(self) -> None:
        self.model.close()

    async def _reply(self, method: str, path: str, body: bytes) -> Reply:
        found = self._door.receive(method, path, body)
        if isinstance(found, Reply):
            return found
        try:
            question = self.model.read(found)
        except ApiError as error:
            return refusal(error)
        loop = asyncio.get_running_loop()
        thought: asyncio.Future[Thought] = loop.create_future()
        self._gathered.append((question, thought))
        if len(self._gathered) == 1:
            loop.call_soon(self._ask, loop)
        try:
            return self._door.reply(found, self.model.write(question, await thought))
        except Exception as error:
            return refusal(error)

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask what has come in the turn of the loop that is over."""
        gathered, self._gathered = self._gathered, []
        waiting = [(question, thought) for question, thought in gathered if not thought.done()]
        asked = self.model.batches.ask([question for question, _ in waiting])
        for (_, thought), answer in zip(waiting, asked, strict=True):
            asyncio.wrap_future(answer, loop=loop).add_done_callback(functools.partial(_hand_over, thought))


def _hand_over(to: asyncio.Future[Thought], done: asyncio.Future[Thought]) -> None:
    if to.done():
        return
    error = done.exception()
    if error is None:
        to.set_result(done.result())
    else:
        to.set_exception(error)


class _Events(httpx.AsyncByteStream):
    """The events of a reply; others may run between two of them."""

    def __init__(self, events: Iterator[bytes]) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield event
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        with contextlib.suppress(AttributeError):
            self._events.close()  # type: ignore[attr-defined]
