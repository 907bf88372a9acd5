"""Requests with a time limit, retries, a budget and a circuit breaker, over one `Endpoint`.

The openai client's own 600 s time-out and silent retries are of no use in a control loop. Here every request has a
total time (a slow drip does not outlive it), retries are ours (full jitter, seeded; a server's Retry-After counts only
as far as the time allows), every failure has a name (`experts.llm.faults`), and after several failures in a row a
circuit breaker stops asking for a while. One event loop in a thread of its own serves all requests, at most
`concurrency` at a time. `interrupt` ends what is under way at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from experts.llm.address import check_storable
from experts.llm.breaker import CircuitBreaker
from experts.llm.budget import Budget, Reservation, Usage
from experts.llm.completion import Completion
from experts.llm.dialect import PARAMETERS
from experts.llm.endpoint import Endpoint, Listener, Received
from experts.llm.failures import AttemptFailed
from experts.llm.faults import RETRYABLE, Fault
from experts.llm.timeline import RequestTimeline
from sim.bounds import Bounds, Count, config_dataclass
from sim.errors import unknown

T = TypeVar("T")
Seconds = Annotated[float, Bounds(0, 86_400, open_low=True)]


@config_dataclass
class ClientConfig:
    """How the endpoint is reached."""

    base_url: str | None = None  # None: OPENAI_BASE_URL, else the vendor's own endpoint; no password or key in it
    leave_out: tuple[str, ...] = ()  # request parameters never sent; those that the endpoint refuses are found anyway
    connect_s: Seconds = 5.0  # s to open a connection
    total_s: Seconds = 30.0  # s for one query, retries and repair included
    startup_s: Seconds = 30.0  # s for each request of the start-up probe; a model that is loading is waited for
    retries: Annotated[int, Bounds(0, 1000)] = 3  # further attempts after a time-out, lost connection, 429 or 5xx
    backoff_s: Seconds = 0.5  # s, first ceiling of the random wait; doubles with each attempt
    backoff_cap_s: Seconds = 8.0  # s, highest ceiling
    concurrency: Annotated[int, Bounds(1, 10_000)] = 8  # requests in flight at most
    breaker_failures: Count = 5  # failed requests in a row that open the circuit
    breaker_open_s: Seconds = 30.0  # s before a single probe is let through
    max_bytes: Count = 1_000_000  # largest body that is read; of a stream, all of its events

    def __post_init__(self) -> None:
        for name in self.leave_out:
            if name not in PARAMETERS:
                raise unknown("request parameter in leave_out", name, PARAMETERS)
        check_storable(self.base_url)


@dataclass(frozen=True, slots=True)
class RequestResult:
    """Outcome of a request with its retries: a completion, or the fault that ended it."""

    completion: Completion | None = None
    fault: Fault | None = None
    detail: str = ""
    """One redacted line about the fault."""
    usage: Usage | None = None
    fingerprint: str = ""
    tokens: int = 0
    """Tokens of all attempts as the budget counts them."""
    cost: float = 0.0
    attempts: int = 0


@dataclass(slots=True)
class _Bill:
    """What the attempts of one request took so far."""

    tokens: int = 0
    cost: float = 0.0
    attempts: int = 0

    def failed(self, fault: Fault, detail: str) -> RequestResult:
        return RequestResult(None, fault, detail, tokens=self.tokens, cost=self.cost, attempts=self.attempts)

    def succeeded(self, received: Received) -> RequestResult:
        parts = received.usage, received.fingerprint, self.tokens, self.cost, self.attempts
        return RequestResult(received.completion, None, "", *parts)


class ChatClient:
    """Asks one endpoint. Made by `experts.llm.connect.connect`."""

    def __init__(self, endpoint: Endpoint, config: ClientConfig, budget: Budget, seed: int) -> None:
        """Start no thread yet.

        Args:
            endpoint: Where requests go.
            config: Times, retries and limits.
            budget: Every attempt is paid from it.
            seed: Of the retries' jitter.
        """
        self.endpoint, self.config, self.budget = endpoint, config, budget
        self.breaker = CircuitBreaker(config.breaker_failures, config.breaker_open_s)
        self.faults: Counter[Fault] = Counter()
        """Failed attempts by class; a retried one counts although its request may end well."""
        self.retries = 0
        self.streams = True
        """Whether streams are asked for: until the endpoint has refused one and answered the same request plainly."""
        self._interrupted = False
        self._limits: set[asyncio.Timeout] = set()
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._slots: asyncio.Semaphore | None = None

    def __repr__(self) -> str:
        return f"ChatClient(model={self.endpoint.model!r}, endpoint={self.endpoint.url!r})"

    def run(self, work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Run coroutines together on the client's loop and wait for all of them.

        Args:
            work: Coroutines of this client.

        Returns:
            Their results, in order.
        """
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
        """Await `work` inside one of the `concurrency` slots.

        Args:
            work: Any awaitable.
        """
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
        timeline: RequestTimeline | None = None,
    ) -> RequestResult:
        """One request with retries. Does not raise for anything that an endpoint does.

        Args:
            args: Arguments of `chat.completions.create`.
            text: Text of its messages, for the budget.
            until: `time.monotonic()` value at which the request is given up.
            retry_until: The one after which no further attempt begins; None: the same.
            listen: Gets the text as it arrives; None: the response comes in one piece.
            timeline: Where moments are noted.
        """
        timeline = timeline or RequestTimeline(time.monotonic())
        retry_until = until if retry_until is None else min(until, retry_until)
        listen, refused = (listen if self.streams else None), False
        bill = _Bill()
        if not self.breaker.allow():
            return self._unsent(Fault.CIRCUIT_OPEN, "too many failures in a row: not asking for a while", bill)
        while True:
            if self._interrupted:
                self.breaker.release()
                return self._unsent(Fault.INTERRUPTED, "the request was interrupted", bill)
            reserved = self.reserve(args, text)
            if reserved is None:
                self.breaker.release()
                return self._unsent(Fault.BUDGET, "the budget is spent", bill)
            numbered = {**args, "extra_headers": {"x-stainless-retry-count": str(bill.attempts)}}
            result = await self._paid(numbered, reserved, until, timeline, listen, bill)
            if isinstance(result, Received):
                timeline.output_tokens = result.usage.output if result.usage else None
                self.breaker.record(True)
                self.streams = self.streams and not refused
                return bill.succeeded(result)
            if self._interrupted:
                continue
            if result.adapted:
                continue
            self.faults[result.fault] += 1
            if result.fault is Fault.REQUEST and listen is not None:  # it may be the stream that is not supported
                listen, refused = None, True
                continue
            pause = self.pause(result, bill.attempts, retry_until)
            if pause is None:
                self.breaker.record(False)
                return bill.failed(result.fault, result.detail)
            self.retries += 1
            with contextlib.suppress(TimeoutError):
                await self._within(pause + 1.0, asyncio.sleep(pause))

    def _unsent(self, fault: Fault, detail: str, bill: _Bill) -> RequestResult:
        self.faults[fault] += 1
        return bill.failed(fault, detail)

    def reserve(self, args: Mapping[str, Any], text: str) -> Reservation | None:
        """Reserve what one attempt may cost at most; None where the budget does not cover it.

        Args:
            args: Arguments of `chat.completions.create`.
            text: Text of its messages.
        """
        limit = int(args.get("max_tokens") or args.get("max_completion_tokens") or 0)
        return self.budget.reserve(text, len(args["messages"]), limit)

    async def _paid(
        self,
        args: Mapping[str, Any],
        reserved: Reservation,
        until: float,
        timeline: RequestTimeline,
        listen: Listener | None,
        bill: _Bill,
    ) -> Received | AttemptFailed:
        """One attempt, settled in the budget and added to the bill."""
        bill.attempts += 1
        usage: Usage | None = None  # None: unknown, so the reservation counts in full
        try:
            received = await self.attempt(args, until, timeline, listen)
            usage = received.usage
            return received
        except AttemptFailed as failure:
            if not failure.billed:
                usage = Usage()
            return failure
        finally:
            bill.cost += self.budget.settle(reserved, usage)
            bill.tokens += (usage or reserved.usage).total

    async def attempt(
        self, args: Mapping[str, Any], until: float, timeline: RequestTimeline, listen: Listener | None = None
    ) -> Received:
        """One request, neither repeated nor paid for.

        Args:
            args: Arguments of `chat.completions.create`.
            until: `time.monotonic()` value at which it is given up.
            timeline: Where moments are noted.
            listen: Gets the text as it arrives; None: the response comes in one piece.

        Raises:
            AttemptFailed: There is no completion.
        """
        left = until - time.monotonic()
        if left <= 0:
            raise AttemptFailed(Fault.TIMEOUT, "no time left", billed=False)
        timeline.send(time.monotonic())
        try:
            return await self._within(left, self.endpoint.fetch(args, left, timeline, listen))
        except TimeoutError:
            raise AttemptFailed(Fault.TIMEOUT, f"no answer within {left:.1f} s") from None

    def pause(self, failed: AttemptFailed, attempt: int, until: float) -> float | None:
        """Seconds before the next attempt, None for none: full jitter, or longer if the server asks for it.

        Args:
            failed: The last attempt.
            attempt: How many there were.
            until: `time.monotonic()` value after which no attempt begins.
        """
        used_up = failed.fault is Fault.RATE_LIMITED and not failed.passing
        if failed.fault not in RETRYABLE or used_up or attempt > self.config.retries:
            return None
        ceiling = min(self.config.backoff_cap_s, self.config.backoff_s * 2 ** (attempt - 1))
        pause = max(self._rng.uniform(0.0, ceiling), failed.retry_after or 0.0)
        return pause if time.monotonic() + pause < until else None

    async def _within(self, seconds: float, work: Awaitable[T]) -> T:
        """`work` with a time limit. TimeoutError when it is over, or at once when interrupted."""
        async with asyncio.timeout(0.0 if self._interrupted else seconds) as limit:
            self._limits.add(limit)
            try:
                return await work
            finally:
                self._limits.discard(limit)

    def interrupt(self) -> None:
        """End what is under way, connections included, and fail further requests with INTERRUPTED: for good.

        May be called from any thread.
        """
        self._interrupted = True
        if self._thread is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(self._loop.time())

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
        """Let waiting tasks return their INTERRUPTED result before the loop stops."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2.0)
        await self.endpoint.close()
