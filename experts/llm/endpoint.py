"""One HTTP request to an OpenAI-compatible endpoint: sent by the official client, every failure named.

A response comes in one piece, or as a stream to a listener. Both end in the same completion and the same faults.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from experts.llm.address import plain_url
from experts.llm.budget import Usage
from experts.llm.completion import Completion, read_completion
from experts.llm.dialect import Dialect
from experts.llm.failures import AttemptFailed, Place, read_error, status_failure
from experts.llm.faults import Fault
from experts.llm.parse import MAX_ANSWER
from experts.llm.stream import Draft
from experts.llm.timeline import RequestTimeline

Listener = Callable[[str], None]
"""Gets the text of a response so far, whenever it has grown; called in the client's thread."""
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
"""Arguments of a streamed request."""


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
        self,
        openai_client: Any,
        model: str,
        connect_s: float,
        max_bytes: int,
        redact: Callable[[str], str],
        dialect: Dialect,
        place: Place,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Open no connection yet.

        Args:
            openai_client: An `openai.AsyncOpenAI` without retries of its own.
            model: Name of the model there.
            connect_s: Seconds to open a connection.
            max_bytes: Largest body that is read; of a stream, all of its events.
            redact: See `experts.llm.redact.redactor`.
            dialect: What is known of the parameters that it takes; learns from refusals.
            place: Where it is, for the meaning of failures.
            on_close: Called at the end.
        """
        self.model, self.redact, self.dialect, self.place = model, redact, dialect, place
        self.note = ""
        """A sentence for the user about the way to it; empty: nothing to say."""
        self._openai, self._connect_s, self._max_bytes, self._on_close = openai_client, connect_s, max_bytes, on_close

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

        wanted = dict(args) if listen is None else {**args, **STREAMED}
        sent = self.dialect.apply(wanted)
        try:
            data = await self._completion(sent, seconds, timeline, listen)
        except (TimeoutError, openai.APITimeoutError):
            raise TimeoutError from None
        except openai.APIStatusError as error:
            response = error.response
            code, text = int(response.status_code), _body_text(response)
            raise self._status_failure(wanted, sent, code, text, response.headers) from None
        except (openai.APIConnectionError, OSError) as error:
            raise self._lost(error.__cause__ or error) from None
        except openai.OpenAIError as error:
            raise AttemptFailed(Fault.PROTOCOL, self.redact(f"the client refused the response: {error}")) from None
        said = data.get("error") if isinstance(data, dict) else None
        if said and not data.get("choices"):  # a failure with status 200, as routers report it
            named = said.get("code") if isinstance(said, dict) else None
            status = named if isinstance(named, int) and 300 <= named < 600 else 500
            raise self._status_failure(wanted, sent, status, json.dumps(data), {})
        return self._read(data)

    async def close(self) -> None:
        """Close connections."""
        self._on_close()
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
                listen(self.redact(heard))
            return draft.done

        try:
            body = await self._body(args, seconds, timeline, feed)
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
        way = f" through the proxy named by {self.place.proxy}" if self.place.proxy else ""
        detail = " ".join(f"connection failed{way}: {str(error) or type(error).__name__}".split())
        return AttemptFailed(Fault.CONNECTION, self.redact(detail)[:300])

    def _status_failure(
        self, wanted: Mapping[str, Any], sent: Mapping[str, Any], status: int, body: str, headers: Mapping[str, str]
    ) -> AttemptFailed:
        """The failure that a status stands for; from a refused request the dialect learns.

        Another request may have learnt it meanwhile: then `wanted` is no longer what was `sent`.
        """
        failure, error = status_failure(status, body, headers, self.place, self.redact)
        if failure.fault is Fault.REQUEST or status in (500, 501):
            failure.adapted = self.dialect.learn(error, sent) or self.dialect.apply(wanted) != sent
        return failure

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
            self.redact(found.thought),
            found.reasoning_tokens,
        )
        fingerprint = data.get("system_fingerprint")
        return Received(clean, _usage(data.get("usage")), self.redact(str(fingerprint or ""))[:80])


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        page = read_error(body[:10_000].decode("utf-8", "replace")).is_page
        what = "an HTML page and no JSON: check client.base_url, and whether it needs /v1" if page else "not JSON"
        raise AttemptFailed(Fault.PROTOCOL, f"the body is {what}") from None


def _body_text(response: Any) -> str:
    """The text of an error response, as far as it was read."""
    import httpx2 as httpx

    try:
        return str(response.text)
    except (httpx.StreamError, LookupError, ValueError):
        return ""


def _usage(value: Any) -> Usage | None:
    """Token counts of a completion; None unless they are there and make sense."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = [value.get("prompt_tokens"), cached or 0, value.get("completion_tokens")]
    known = [count for count in counts if isinstance(count, int) and 0 <= count < 2**31]
    return Usage(known[0], min(known[1], known[0]), known[2]) if len(known) == 3 else None
