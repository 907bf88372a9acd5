"""Transport to an OpenAI-compatible endpoint, or to the embedded driver in the same words: the official client with its
defaults overridden.

The client's own 600 s time-out and silent retries are of no use in a control loop. Here every request has a total time
(a slow drip does not outlive it), retries are ours (full jitter, seeded; a server's Retry-After counts only as far as
the time allows), every failure has a name (`experts.llm.faults`), and after several in a row a circuit breaker stops
asking for a while. One event loop in a thread of its own serves all requests, at most `concurrency` at a time.

An answer comes in one piece, or as a stream to whoever listens. Both end in the same body, the same faults and the same
time. `interrupt` ends what is under way at once.

The API key comes from OPENAI_API_KEY only and is read once, in `connect`; it is cut out of every text that leaves here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from experts.llm.budget import Budget, Usage
from experts.llm.faults import RETRYABLE, Fault
from experts.llm.ladder import Rung, SamplingConfig, read_completion, request, supported
from experts.llm.parse import MAX_ANSWER, Answer, parse
from experts.llm.prompt import Prompt, PromptConfig, PromptGenerator, probe_scene
from experts.llm.stream import Draft
from experts.llm.timeline import Timeline
from sim.errors import UsageError

if TYPE_CHECKING:
    from experts.serving.driver_model import DriverModel

T = TypeVar("T")
Listener = Callable[[str], None]
"""Gets the text of an answer so far, whenever it has grown; called in the client's thread."""
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
DEFAULT_URL = "https://api.openai.com/v1"
TOGETHER = 4096
"""Questions in flight at most to a model in this process: no connection is opened for them."""
NO_KEY = "not-needed"
"""Sent to endpoints of the user's own when no key is set; the client library refuses to send none."""


@dataclass(frozen=True)
class ClientConfig:
    """How the endpoint is reached."""

    base_url: str | None = None  # None: OPENAI_BASE_URL, else the vendor's own endpoint
    connect_s: float = 5.0  # s to open a connection
    total_s: float = 30.0  # s for one question, retries and repair included
    startup_s: float = 30.0  # s for each request of the start-up probe (a local model may be loading)
    retries: int = 3  # further attempts after a time-out, lost connection, 429 or 5xx
    backoff_s: float = 0.5  # s, first ceiling of the random wait; doubles with each attempt
    backoff_cap_s: float = 8.0  # s, highest ceiling
    concurrency: int = 8  # requests in flight at most
    breaker_failures: int = 5  # failed questions in a row that open the circuit
    breaker_open_s: float = 30.0  # s before a single probe is let through
    max_bytes: int = 1_000_000  # largest body that is read; of a stream, all of its events

    def __post_init__(self) -> None:
        for name in ("connect_s", "total_s", "startup_s", "backoff_s", "backoff_cap_s", "breaker_open_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} = {getattr(self, name)!r}: expected seconds above 0")
        for name in ("concurrency", "breaker_failures", "max_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)!r}: expected 1 or more")
        if self.retries < 0:
            raise UsageError(f"retries = {self.retries}: expected 0 or more")


@dataclass(frozen=True, slots=True)
class Reply:
    """Outcome of a question: an answer, or the fault that ended it."""

    answer: Answer | None = None
    fault: Fault | None = None
    detail: str = ""
    """One redacted line about the fault."""
    usage: Usage | None = None
    tokens: int = 0
    """Tokens of all attempts as the budget counts them."""
    cost: float = 0.0
    fingerprint: str = ""
    seconds: float = 0.0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Ability:
    """What the start-up probe found: the rung to use, and whether the server reads `structured_outputs.choice`."""

    rung: Rung
    choice: bool = False


class _AttemptFailed(Exception):
    """One attempt ended with a fault; `retry_after` s is what the server asked for."""

    def __init__(
        self, fault: Fault, detail: str, retry_after: float | None = None, billed: bool = True, status: int = 0
    ) -> None:
        super().__init__(detail)
        self.fault, self.detail, self.retry_after, self.billed, self.status = fault, detail, retry_after, billed, status


class CircuitBreaker:
    """Opens after `failures` in a row, lets one probe through after `open_s`, closes when that succeeds."""

    def __init__(self, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._open_s, self._clock = failures, open_s, clock
        self._in_a_row = 0
        self._opened: float | None = None
        self._probing = False
        self.times_opened = 0

    @property
    def state(self) -> str:
        """closed | open | half-open"""
        if self._opened is None:
            return "closed"
        return "half-open" if self._clock() - self._opened >= self._open_s else "open"

    def allow(self) -> bool:
        """Whether a question may be sent now; in half-open state only one may."""
        state = self.state
        if state == "half-open" and not self._probing:
            self._probing = True
            return True
        return state == "closed"

    def release(self) -> None:
        """A question that was let through was never sent."""
        self._probing = False

    def record(self, success: bool) -> None:
        """The outcome of a question that was let through."""
        self._probing = False
        if success:
            self._in_a_row, self._opened = 0, None
            return
        self._in_a_row += 1
        if self._opened is not None or self._in_a_row >= self._limit:
            self._opened = self._clock()
            self.times_opened += 1


class ChatClient:
    """Asks one model of one endpoint. Made by `connect`."""

    def __init__(
        self,
        openai_client: Any,
        model: str,
        config: ClientConfig,
        budget: Budget,
        redact: Callable[[str], str],
        seed: int,
    ) -> None:
        self.model, self.config, self.budget, self.redact = model, config, budget, redact
        self.breaker = CircuitBreaker(config.breaker_failures, config.breaker_open_s)
        self.faults: Counter[Fault] = Counter()
        """Failed attempts by class; a retried one counts although the question may end well."""
        self.retries = 0
        self.streams = True
        """Whether streams are asked for: until the endpoint has refused one and answered the same question plainly."""
        self._interrupted = False
        self._limits: set[asyncio.Timeout] = set()
        self._openai = openai_client
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._slots: asyncio.Semaphore | None = None

    def __repr__(self) -> str:
        return f"ChatClient(model={self.model!r}, endpoint={self.endpoint!r})"

    @property
    def endpoint(self) -> str:
        """The base URL without user name and password."""
        return plain_url(str(self._openai.base_url))

    def run(self, work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Run coroutines together on the client's loop and wait for all of them; order is kept."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run_forever, name="llm-client", daemon=True)
            self._thread.start()

        async def together() -> list[T]:
            return list(await asyncio.gather(*work))

        future = asyncio.run_coroutine_threadsafe(together(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def limited(self, work: Awaitable[T]) -> T:
        """Await `work` inside one of the `concurrency` slots."""
        if self._slots is None:
            self._slots = asyncio.Semaphore(self.config.concurrency)
        async with self._slots:
            return await work

    async def ask(
        self,
        args: Mapping[str, Any],
        text: str,
        until: float,
        retry_until: float | None = None,
        listen: Listener | None = None,
        timeline: Timeline | None = None,
    ) -> Reply:
        """One question with retries.

        Args: arguments of `chat.completions.create`; the text of its messages, for the budget; `time.monotonic()` value
            at which the question is given up; the one after which no further attempt begins (default: the same); who
            hears the answer while it comes (default: it comes in one piece); where moments are noted.
        Never raises for what an endpoint can do.
        """
        begin = time.monotonic()
        timeline = timeline or Timeline(begin)
        listen, refused = (listen if self.streams else None), False
        if not self.breaker.allow():
            self.faults[Fault.CIRCUIT_OPEN] += 1
            return Reply(fault=Fault.CIRCUIT_OPEN, detail="too many failures in a row: not asking for a while")
        tokens, cost, attempt = 0, 0.0, 0
        while True:
            if self._interrupted:
                self.breaker.release()
                self.faults[Fault.INTERRUPTED] += 1
                words = "whoever asked has left"
                return Reply(None, Fault.INTERRUPTED, words, None, tokens, cost, "", _since(begin), attempt)
            reserved = self.budget.reserve(text, len(args["messages"]), _answer_limit(args))
            if reserved is None:
                self.breaker.release()
                self.faults[Fault.BUDGET] += 1
                return Reply(None, Fault.BUDGET, "the budget is spent", None, tokens, cost, "", _since(begin), attempt)
            attempt += 1
            spent: Usage | None = None  # None: unknown, so the reservation counts in full
            failed: _AttemptFailed | None = None
            try:
                told = {**args, "extra_headers": {"x-stainless-retry-count": str(attempt - 1)}}
                answer, usage, fingerprint = await self._attempt(told, until, timeline, listen)
                spent = usage
                timeline.output_tokens = usage.output if usage else None
            except _AttemptFailed as failure:
                failed = failure
                if not failure.billed:
                    spent = Usage()
            finally:
                cost += self.budget.settle(reserved, spent)
                tokens += (spent or reserved.usage).total
            if failed is None:
                self.breaker.record(True)
                self.streams = self.streams and not refused
                return Reply(answer, None, "", usage, tokens, cost, fingerprint, _since(begin), attempt)
            if self._interrupted:
                continue
            self.faults[failed.fault] += 1
            if failed.fault is Fault.REQUEST and listen is not None:  # it may be the stream that it does not know
                listen, refused = None, True
                continue
            pause = self._pause(failed, attempt, until if retry_until is None else min(until, retry_until))
            if pause is None:
                self.breaker.record(False)
                return Reply(None, failed.fault, failed.detail, None, tokens, cost, "", _since(begin), attempt)
            self.retries += 1
            with contextlib.suppress(TimeoutError):
                await self._within(pause + 1.0, asyncio.sleep(pause))

    async def _within(self, seconds: float, work: Awaitable[T]) -> T:
        """`work`, for at most so many seconds. TimeoutError when they are over, or at once when interrupted."""
        async with asyncio.timeout(0.0 if self._interrupted else seconds) as limit:
            self._limits.add(limit)
            try:
                return await work
            finally:
                self._limits.discard(limit)

    def interrupt(self) -> None:
        """End what is under way, connections included, and answer further questions with INTERRUPTED: for good.

        From any thread.
        """
        self._interrupted = True
        if self._thread is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(self._loop.time())

    def _pause(self, failed: _AttemptFailed, attempt: int, until: float) -> float | None:
        """Seconds before the next attempt, None for none: full jitter, or longer if the server asks for it."""
        if failed.fault not in RETRYABLE or attempt > self.config.retries:
            return None
        ceiling = min(self.config.backoff_cap_s, self.config.backoff_s * 2 ** (attempt - 1))
        pause = max(self._rng.uniform(0.0, ceiling), failed.retry_after or 0.0)
        return pause if time.monotonic() + pause < until else None

    async def _attempt(
        self, args: Mapping[str, Any], until: float, timeline: Timeline, listen: Listener | None = None
    ) -> tuple[Answer, Usage | None, str]:
        """One HTTP request: answer, usage where reported, system fingerprint. Raises _AttemptFailed."""
        import openai

        left = until - time.monotonic()
        if left <= 0:
            raise _AttemptFailed(Fault.TIMEOUT, "no time left", billed=False)
        timeline.send(time.monotonic())
        try:
            data = await self._within(left, self._completion(args, left, timeline, listen))
        except (TimeoutError, openai.APITimeoutError):
            raise _AttemptFailed(Fault.TIMEOUT, f"no answer within {left:.1f} s") from None
        except openai.APIStatusError as error:
            raise self._status_failure(error) from None
        except (openai.APIConnectionError, OSError) as error:
            raise self._lost(error.__cause__ or error) from None
        except openai.OpenAIError as error:
            raise _AttemptFailed(Fault.PROTOCOL, self.redact(f"the client refused the answer: {error}")) from None
        return self._read(data)

    async def _completion(
        self, args: Mapping[str, Any], left: float, timeline: Timeline, listen: Listener | None
    ) -> Any:
        """The completion, as the endpoint's JSON has it in one piece."""
        if listen is None:
            return _json(await self._body(args, left, timeline))
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
            body = await self._body({**args, **STREAMED}, left, timeline, feed)
        except ValueError as error:
            raise _AttemptFailed(Fault.PROTOCOL, self.redact(str(error))) from None
        if not draft.events:
            return _json(body)
        if not draft.complete:
            raise _AttemptFailed(Fault.PROTOCOL, "the stream ended in the middle of the answer")
        return draft.body()

    async def _body(
        self, args: Mapping[str, Any], left: float, timeline: Timeline, feed: Callable[[bytes], bool] | None = None
    ) -> bytes:
        """The body of the answer; `feed` gets its parts as they come and says when no more of them are needed."""
        import httpx2 as httpx

        connect = min(self.config.connect_s, left)
        time_out = httpx.Timeout(left, connect=connect)
        create = self._openai.chat.completions.with_streaming_response.create
        try:
            async with create(model=self.model, timeout=time_out, **args) as response:
                parts, size = [], 0
                async for part in response.iter_bytes():
                    timeline.first_byte = timeline.first_byte or time.monotonic()
                    size += len(part)
                    if size > self.config.max_bytes:
                        raise _AttemptFailed(Fault.OVERSIZED, f"an answer of more than {self.config.max_bytes} bytes")
                    parts.append(part)
                    if feed is not None and feed(part):
                        break
                timeline.done = time.monotonic()
                return b"".join(parts)
        except httpx.TimeoutException:
            raise TimeoutError from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self._lost(error) from None

    def _lost(self, error: BaseException) -> _AttemptFailed:
        return _AttemptFailed(Fault.CONNECTION, self.redact(f"connection failed: {str(error) or type(error).__name__}"))

    def _status_failure(self, error: Any) -> _AttemptFailed:
        code = int(error.status_code)
        detail = " ".join(self.redact(f"HTTP {code}: {error.message}").split())[:300]
        if code in (401, 403):
            return _AttemptFailed(Fault.AUTH, detail, billed=False, status=code)
        if code == 429:
            after = _retry_after(error.response.headers.get("retry-after"))
            return _AttemptFailed(Fault.RATE_LIMITED, detail, after, billed=False, status=code)
        if code >= 500:
            after = _retry_after(error.response.headers.get("retry-after"))
            return _AttemptFailed(Fault.SERVER, detail, after, billed=False, status=code)
        return _AttemptFailed(Fault.REQUEST, detail, billed=False, status=code)

    def _read(self, data: Any) -> tuple[Answer, Usage | None, str]:
        answer = read_completion(data) if isinstance(data, dict) else None
        if answer is None:
            raise _AttemptFailed(Fault.PROTOCOL, "the body is not a chat completion")
        tokens = answer.first_token
        clean = Answer(
            self.redact(answer.content),
            self.redact(answer.refusal),
            self.redact(answer.finish_reason)[:40],
            None if tokens is None else {self.redact(token): value for token, value in tokens.items()},
        )
        fingerprint = data.get("system_fingerprint")
        return clean, _usage(data.get("usage")), self.redact(str(fingerprint or ""))[:80]

    def close(self) -> None:
        """Interrupt, close connections and stop the loop's thread. Safe to call twice."""
        if self._loop.is_closed():
            return
        self.interrupt()
        if self._thread is not None:
            asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(timeout=5.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5.0)
        self._loop.close()

    async def _finish(self) -> None:
        """Let those who wait have their answer, that they were interrupted, before the loop stops."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2.0)
        await self._openai.close()


def configured(config: ClientConfig) -> bool:
    """Whether the user has named an endpoint, by a URL or by the vendor's key."""
    return any((config.base_url, os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")))


def connect(
    model: str, config: ClientConfig, budget: Budget, seed: int, embedded: DriverModel | None = None
) -> ChatClient:
    """A client for `model`. Reads OPENAI_API_KEY and, where the config names no URL, OPENAI_BASE_URL; or asks a model
    in this process, which closing the client closes.

    Opens no connection yet. UsageError when the vendor's endpoint is meant and no key is set, or the URL is no URL.
    """
    import openai

    if embedded is not None:
        from experts.serving.in_process import URL, InProcess

        transport = openai.DefaultAsyncHttpx2Client(transport=InProcess(embedded))
        made = openai.AsyncOpenAI(api_key=NO_KEY, base_url=URL, max_retries=0, http_client=transport)
        wide = dataclasses.replace(config, concurrency=TOGETHER)
        return ChatClient(made, model, wide, budget, redactor(""), seed)
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
    return ChatClient(made, model, config, budget, redactor(key, url), seed)


def probe(client: ChatClient, generator: PromptGenerator, sampling: SamplingConfig, rungs: Sequence[Rung]) -> Ability:
    """The first of `rungs` that the endpoint really has, found by asking one fixed question on each.

    4xx and 5xx alike mean "not this rung". UsageError, in one line, when the endpoint cannot be reached, refuses the
    key, limits the rate, or has none of the rungs.
    """
    replies: list[str] = []
    for rung in rungs:
        prompt = generator.build(probe_scene(), rung.form)
        choices = (False, True) if rung is Rung.LOGPROBS and sampling.choice else (False,)
        for choice in choices:
            reply = _probe_once(client, prompt, rung, generator.config, sampling, choice)
            if reply.answer is not None and supported(rung, reply.answer, parse(reply.answer, prompt)):
                return Ability(rung, choice)
            why = reply.detail or "the answer does not have the asked form"
            replies.append(f"{rung}: {why}")
    raise UsageError(
        f"endpoint {client.endpoint} does not serve model {client.model!r} in a usable way ({replies[-1]}):"
        " check the model name, or pin a rung that it has"
    )


def _probe_once(
    client: ChatClient, prompt: Prompt, rung: Rung, config: PromptConfig, sampling: SamplingConfig, choice: bool
) -> Reply:
    """One probe, asked once except that a limited rate is waited for. Raises UsageError for a hopeless endpoint."""
    args, text = request(rung, prompt, config, sampling, choice), prompt.text()
    until = time.monotonic() + client.config.startup_s

    async def once() -> Reply:
        attempt = 0
        while True:
            attempt += 1
            reserved = client.budget.reserve(text, len(prompt.messages), _answer_limit(args))
            if reserved is None:
                return Reply(fault=Fault.BUDGET, detail="the budget does not even cover the start-up probe")
            try:
                answer, usage, _ = await client._attempt(args, until, Timeline(time.monotonic()))
            except _AttemptFailed as failure:
                client.budget.settle(reserved, None if failure.billed else Usage())
                pause = client._pause(failure, attempt, until) if failure.fault is Fault.RATE_LIMITED else None
                if pause is None:
                    return Reply(fault=failure.fault, detail=failure.detail)
                await asyncio.sleep(pause)
            else:
                client.budget.settle(reserved, usage)
                return Reply(answer=answer)

    reply = client.run([once()])[0]
    advice = {
        Fault.AUTH: "check OPENAI_API_KEY",
        Fault.RATE_LIMITED: "try again later",
        Fault.CONNECTION: "start the server or correct client.base_url",
        Fault.TIMEOUT: "start the server, or allow more with client.startup_s",
        Fault.BUDGET: "raise budget.max_calls, max_tokens or max_cost",
    }
    if reply.fault in advice:
        raise UsageError(f"LLM endpoint {client.endpoint}: {reply.detail}: {advice[reply.fault]}")
    return reply


def redactor(key: str, url: str = "") -> Callable[[str], str]:
    """A function that cuts the key, anything that looks like one, and the URL's password out of a text.

    The result is one that can be stored anywhere (no lone surrogates).
    """
    secrets = [secret for secret in (key, urlsplit(url).password or "") if len(secret) >= 4]

    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "[redacted]")
        text = re.sub(r"\bsk-[A-Za-z0-9_*-]{8,}", "[redacted]", text)
        return text.encode("utf-8", "replace").decode()

    return redact


def plain_url(url: str) -> str:
    """A URL without user name and password."""
    return re.sub(r"//[^/@]*@", "//", url).rstrip("/")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _AttemptFailed(Fault.PROTOCOL, "the body is not JSON") from None


def _answer_limit(args: Mapping[str, Any]) -> int:
    return int(args.get("max_tokens") or args.get("max_completion_tokens") or 0)


def _since(begin: float) -> float:
    return time.monotonic() - begin


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
