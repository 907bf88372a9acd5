"""From a prompt to a parsed completion: cache, endpoint, and at most one request to answer again."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from experts.llm.cache import AnswerCache, CachedQuery, StoredCompletion
from experts.llm.client import ChatClient, RequestResult
from experts.llm.completion import Completion
from experts.llm.config import LLMConfig
from experts.llm.endpoint import Listener
from experts.llm.faults import VETOES, Fault
from experts.llm.ladder import request
from experts.llm.parse import Parsed, parse, reason_so_far, spent_on_thinking
from experts.llm.probe import Ability
from experts.llm.prompt import Prompt
from experts.llm.statistics import Statistics
from experts.llm.timeline import RequestTimeline
from experts.provider import Status
from sim.config import to_dict
from sim.scene import Scene

SPENT = "the model spent its tokens on reasoning: raise sampling.max_tokens, or set its option in sampling.extra"
"""Detail of an answer that ends with thoughts."""


@dataclass(slots=True)
class Inquiry:
    """One context on its way through the expert."""

    prompt: Prompt
    scene: Scene
    legal: np.ndarray
    timeline: RequestTimeline
    say: Callable[[str], None] | None = None
    faults: list[Fault] = field(default_factory=list)
    detail: str = ""
    parsed: Parsed = field(default_factory=Parsed)
    answer: str | None = None
    """Text of the last completion."""
    repaired: bool = False
    sent: bool = False
    """A request went to the endpoint."""
    tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def fail(self, fault: Fault, detail: str = "") -> None:
        """Note a fault.

        Args:
            fault: Its class.
            detail: A line about it; empty keeps the last one.
        """
        self.faults.append(fault)
        self.detail = detail or self.detail

    @property
    def status(self) -> Status:
        """How the decision comes about, lateness apart."""
        if any(fault in VETOES for fault in self.faults[-1:]):
            return Status.VETOED
        if self.parsed.action is None:
            return Status.FALLBACK
        return Status.REPAIRED if self.repaired else Status.OK


class Inquirer:
    """Asks the cache and the endpoint. Its methods fill inquiries in and never raise for what an endpoint does."""

    def __init__(
        self,
        config: LLMConfig,
        ability: Ability,
        client: ChatClient | None,
        cache: AnswerCache | None,
        statistics: Statistics,
    ) -> None:
        """Take over what was probed and opened.

        Args:
            config: Options of the expert.
            ability: What the endpoint can do.
            client: None: replay-only, no socket can be opened.
            cache: None: none is used.
            statistics: Where tokens and look-ups are counted.
        """
        self.config, self.ability, self.client, self.cache = config, ability, client, cache
        self._statistics = statistics

    def inquire(self, inquiries: Sequence[Inquiry], begin: float) -> None:
        """Answer from the cache as far as it goes; the rest go to the endpoint together.

        Args:
            inquiries: Filled in.
            begin: `time.monotonic()` value at which the expert was asked.
        """
        unanswered = [inquiry for inquiry in inquiries if not self._replay(inquiry, begin)]
        if unanswered and self.client is not None:
            client = self.client
            client.run([client.limited(self._ask(client, inquiry, begin)) for inquiry in unanswered])

    def _replay(self, inquiry: Inquiry, begin: float) -> bool:
        """Answer from the cache as far as it goes; True when nothing is left to ask."""
        stored = self._lookup(inquiry, inquiry.prompt)
        if stored is not None:
            _take(inquiry, stored.completion, inquiry.prompt)
            if self._needs_repair(inquiry):
                again = inquiry.prompt.repair(inquiry.answer or "", str(inquiry.faults[-1]))
                stored = self._lookup(inquiry, again)
                if stored is not None:
                    inquiry.repaired = True
                    _take(inquiry, stored.completion, again)
        inquiry.timeline.built = time.monotonic()
        inquiry.seconds = inquiry.timeline.built - begin
        unanswered = inquiry.answer is None
        if self.client is None and unanswered:
            inquiry.fail(Fault.CACHE_MISS, "replay-only, and the cache has no answer to this prompt")
        return self.client is None or not (unanswered or self._needs_repair(inquiry))

    async def _ask(self, client: ChatClient, inquiry: Inquiry, begin: float) -> None:
        """The first request (unless the cache had its completion) and, if need be, one repair."""
        now = inquiry.timeline.started = time.monotonic()
        until = now + self.config.client.total_s
        timely = math.inf if self.config.deadline_s is None else begin + self.config.deadline_s
        if inquiry.answer is None:
            await self._exchange(client, inquiry, inquiry.prompt, until, timely)
        if self._needs_repair(inquiry) and time.monotonic() < min(until, timely):
            again = inquiry.prompt.repair(inquiry.answer or "", str(inquiry.faults[-1]))
            inquiry.repaired = True
            await self._exchange(client, inquiry, again, until, timely)
        inquiry.seconds = time.monotonic() - begin

    async def _exchange(
        self, client: ChatClient, inquiry: Inquiry, prompt: Prompt, until: float, timely: float
    ) -> None:
        config = self.config
        args = request(self.ability.rung, prompt, config.prompt, config.sampling, self.ability.choice)
        result = await client.ask(args, prompt.text(), until, timely, self._listener(inquiry), inquiry.timeline)
        inquiry.sent = inquiry.sent or result.attempts > 0
        inquiry.tokens += result.tokens
        inquiry.cost += result.cost
        if result.usage is not None:
            self._statistics.count_usage(result.usage)
        if result.completion is None:
            inquiry.fail(result.fault or Fault.PROTOCOL, result.detail)
            return
        self._store(inquiry, prompt, result)
        _take(inquiry, result.completion, prompt)

    def _listener(self, inquiry: Inquiry) -> Listener | None:
        """What gets the text of the completion while it comes; None: it comes in one piece."""
        say, form = inquiry.say, inquiry.prompt.form
        if say is not None and form != "label" and self.config.stream != "never":
            return lambda text: say(reason_so_far(text, form))
        return (lambda text: None) if self.config.stream == "always" else None

    def _needs_repair(self, inquiry: Inquiry) -> bool:
        """A completion that named no action, and no repair was asked for yet."""
        fault = inquiry.parsed.fault
        return self.config.repair and not inquiry.repaired and fault is not None and fault not in VETOES

    def _query(self, prompt: Prompt) -> CachedQuery:
        sampling = to_dict(self.config.sampling) | {"choice": self.ability.choice}
        if not sampling["extra"]:  # what was recorded before there was such an option stays valid
            del sampling["extra"]
        return CachedQuery(self.config.model, prompt.version, sampling, self.ability.rung, prompt.text())

    def _lookup(self, inquiry: Inquiry, prompt: Prompt) -> StoredCompletion | None:
        if self.cache is None:
            return None
        try:
            stored = self.cache.get(self._query(prompt))
        except sqlite3.Error as error:
            inquiry.fail(Fault.CACHE_IO, f"answer cache: {error}")
            return None
        self._statistics.count_lookup(stored is not None)
        return stored

    def _store(self, inquiry: Inquiry, prompt: Prompt, result: RequestResult) -> None:
        if self.cache is None or self.cache.mode != "read-write" or result.completion is None:
            return
        stored = StoredCompletion(result.completion, result.usage, result.fingerprint)
        try:
            self.cache.put(self._query(prompt), stored)
        except sqlite3.Error as error:
            inquiry.fail(Fault.CACHE_IO, f"answer cache: {error}")


def _take(inquiry: Inquiry, completion: Completion, prompt: Prompt) -> None:
    inquiry.answer = completion.content or completion.refusal
    inquiry.parsed = parse(completion, prompt)
    inquiry.detail = ""
    if inquiry.parsed.fault is not None:
        inquiry.fail(inquiry.parsed.fault, SPENT if spent_on_thinking(completion, inquiry.parsed) else "")
