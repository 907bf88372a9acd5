"""One HTTP request to an OpenAI-compatible endpoint: sent by the official client, every failure named.

A response comes in one piece, or as a stream to a listener. Both end in the same completion and the same faults.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from experts.llm.budget import Usage
from experts.llm.completion import Completion, read_completion
from experts.llm.faults import Fault
from experts.llm.parse import MAX_ANSWER
from experts.llm.redact import plain_url
from experts.llm.stream import Draft
from experts.llm.timeline import RequestTimeline

Listener = Callable[[str], None]
"""Gets the text of a response so far, whenever it has grown; called in the client's thread."""
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
"""Arguments of a streamed request."""


class AttemptFailed(Exception):
    """One request ended with a fault."""

    def __init__(self, fault: Fault, detail: str, retry_after: float | None = None, billed: bool = True) -> None:
        """Name the fault.

        Args:
            fault: Its class.
            detail: One redacted line about it.
            retry_after: Seconds for which the server asks to wait.
            billed: The endpoint may have charged for it.
        """
        super().__init__(detail)
        self.fault, self.detail, self.retry_after, self.billed = fault, detail, retry_after, billed


@dataclass(frozen=True, slots=True)
class Received:
    """A response that was read."""

    completion: Completion
    usage: Usage | None
    """None where the endpoint reports none."""
    fingerprint: str
    """The endpoint's `system_fingerprint`."""


class Endpoint:
    """One model of one endpoint."""

    def __init__(
        self, openai_client: Any, model: str, connect_s: float, max_bytes: int, redact: Callable[[str], str]
    ) -> None:
        """Open no connection yet.

        Args:
            openai_client: An `openai.AsyncOpenAI` without retries of its own.
            model: Name of the model there.
            connect_s: Seconds to open a connection.
            max_bytes: Largest body that is read; of a stream, all of its events.
            redact: See `experts.llm.redact.redactor`.
        """
        self.model, self.redact = model, redact
        self._openai, self._connect_s, self._max_bytes = openai_client, connect_s, max_bytes

    @property
    def url(self) -> str:
        """The base URL without user name and password."""
        return plain_url(str(self._openai.base_url))

    async def fetch(
        self, args: Mapping[str, Any], seconds: float, timeline: RequestTimeline, listen: Listener | None = None
    ) -> Received:
        """Send one request and read its response.

        Args:
            args: Arguments of `chat.completions.create`.
            seconds: Limit of each wait for the network; the caller limits the whole.
            timeline: Where moments are noted.
            listen: Gets the text as it arrives; None: the response comes in one piece.

        Raises:
            AttemptFailed: Anything but a chat completion came.
            TimeoutError: It took too long.
        """
        import openai

        try:
            data = await self._completion(args, seconds, timeline, listen)
        except (TimeoutError, openai.APITimeoutError):
            raise TimeoutError from None
        except openai.APIStatusError as error:
            raise self._status_failure(error) from None
        except (openai.APIConnectionError, OSError) as error:
            raise self._lost(error.__cause__ or error) from None
        except openai.OpenAIError as error:
            raise AttemptFailed(Fault.PROTOCOL, self.redact(f"the client refused the response: {error}")) from None
        return self._read(data)

    async def close(self) -> None:
        """Close connections."""
        await self._openai.close()

    async def _completion(
        self, args: Mapping[str, Any], seconds: float, timeline: RequestTimeline, listen: Listener | None
    ) -> Any:
        """The completion, as the endpoint's JSON has it in one piece."""
        if listen is None:
            return _json(await self._body(args, seconds, timeline))
        draft, heard = Draft(), ""

        def feed(part: bytes) -> bool:
            nonlocal heard
            draft.feed(part)
            if len(heard) <= MAX_ANSWER and draft.text != heard:
                heard = draft.text
                timeline.heard.append((time.monotonic(), len(heard)))
                listen(heard)
            return draft.done

        try:
            body = await self._body({**args, **STREAMED}, seconds, timeline, feed)
        except ValueError as error:
            raise AttemptFailed(Fault.PROTOCOL, self.redact(str(error))) from None
        if not draft.events:
            return _json(body)
        if not draft.complete:
            raise AttemptFailed(Fault.PROTOCOL, "the stream ended in the middle of the response")
        return draft.body()

    async def _body(
        self,
        args: Mapping[str, Any],
        seconds: float,
        timeline: RequestTimeline,
        feed: Callable[[bytes], bool] | None = None,
    ) -> bytes:
        """The body of the response; `feed` gets its parts as they come and returns whether it needs no more."""
        import httpx2 as httpx

        time_out = httpx.Timeout(seconds, connect=min(self._connect_s, seconds))
        create = self._openai.chat.completions.with_streaming_response.create
        try:
            async with create(model=self.model, timeout=time_out, **args) as response:
                parts, size = [], 0
                async for part in response.iter_bytes():
                    timeline.first_byte = timeline.first_byte or time.monotonic()
                    size += len(part)
                    if size > self._max_bytes:
                        raise AttemptFailed(Fault.OVERSIZED, f"a response of more than {self._max_bytes} bytes")
                    parts.append(part)
                    if feed is not None and feed(part):
                        break
                timeline.done = time.monotonic()
                return b"".join(parts)
        except httpx.TimeoutException:
            raise TimeoutError from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self._lost(error) from None

    def _lost(self, error: BaseException) -> AttemptFailed:
        return AttemptFailed(Fault.CONNECTION, self.redact(f"connection failed: {str(error) or type(error).__name__}"))

    def _status_failure(self, error: Any) -> AttemptFailed:
        code = int(error.status_code)
        detail = " ".join(self.redact(f"HTTP {code}: {error.message}").split())[:300]
        if code in (401, 403):
            return AttemptFailed(Fault.AUTH, detail, billed=False)
        if code == 429 or code >= 500:
            fault = Fault.RATE_LIMITED if code == 429 else Fault.SERVER
            return AttemptFailed(fault, detail, _retry_after(error.response.headers.get("retry-after")), billed=False)
        return AttemptFailed(Fault.REQUEST, detail, billed=False)

    def _read(self, data: Any) -> Received:
        found = read_completion(data) if isinstance(data, dict) else None
        if found is None:
            raise AttemptFailed(Fault.PROTOCOL, "the body is not a chat completion")
        tokens = found.first_token
        clean = Completion(
            self.redact(found.content),
            self.redact(found.refusal),
            self.redact(found.finish_reason)[:40],
            None if tokens is None else {self.redact(token): value for token, value in tokens.items()},
        )
        fingerprint = data.get("system_fingerprint")
        return Received(clean, _usage(data.get("usage")), self.redact(str(fingerprint or ""))[:80])


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise AttemptFailed(Fault.PROTOCOL, "the body is not JSON") from None


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header in its numeric form; None for a date or nonsense."""
    try:
        seconds = float(value) if value else 0.0
    except ValueError:
        return None
    return seconds if 0.0 < seconds < float("inf") else None


def _usage(value: Any) -> Usage | None:
    """Token counts of a completion; None unless they are there and make sense."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = [value.get("prompt_tokens"), cached or 0, value.get("completion_tokens")]
    known = [count for count in counts if isinstance(count, int) and 0 <= count < 2**31]
    return Usage(known[0], min(known[1], known[0]), known[2]) if len(known) == 3 else None
