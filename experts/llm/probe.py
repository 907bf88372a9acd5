"""Start-up probe: which rung of the structured-output ladder an endpoint has, found by asking a fixed query on each.

A rung passes only if the answer could be used for a decision. What is no fault of the rung does not cost one: a server
that is loading or overloaded is waited for, and a parameter that it refuses is left out (`experts.llm.dialect`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experts.llm.budget import Usage
from experts.llm.client import ChatClient
from experts.llm.completion import Completion
from experts.llm.dialect import PARAMETERS
from experts.llm.failures import AttemptFailed
from experts.llm.faults import Fault
from experts.llm.ladder import FIELDS, Rung, SamplingConfig, request, supported
from experts.llm.parse import Parsed, parse, spent_on_thinking
from experts.llm.prompt import Prompt, PromptGenerator, probe_scene
from experts.llm.timeline import RequestTimeline
from sim.errors import UsageError

REMEDIES = {
    Fault.CONNECTION: "start the server or correct client.base_url",
    Fault.TIMEOUT: "start the server, or allow more with client.startup_s",
    Fault.BUDGET: "raise budget.max_calls, max_tokens or max_cost",
}
"""What the user can do about faults without an HTTP status that no other rung avoids."""
LASTING = frozenset({Fault.AUTH, Fault.RATE_LIMITED, *REMEDIES})
"""Faults that no other rung avoids."""
SUSPECTS = (("seed",), ("temperature",), ("seed", "temperature"))
"""Parameters that endpoints refuse, also without saying which one, in the order in which they are suspected."""
LONGEST_PAUSE_S = 2.0
"""s between two questions to a server that is loading."""


@dataclass(frozen=True, slots=True)
class Ability:
    """What the probe found."""

    rung: Rung
    choice: bool = False
    """The server reads `structured_outputs.choice`."""
    lost: tuple[str, ...] = ()
    """The rungs before this one, and in a few words why they cannot be used."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of one query: a completion and how it reads, or the failure that ended it."""

    completion: Completion | None = None
    parsed: Parsed | None = None
    failure: AttemptFailed | None = None

    @property
    def short(self) -> str:
        """Why it does not pass, without words of the endpoint."""
        if self.failure is not None:
            return f"HTTP {self.failure.status}" if self.failure.status else str(self.failure.fault)
        if self.spent_on_thinking:
            return "the model thinks first"
        return str(self.parsed.fault) if self.parsed and self.parsed.fault else "not the requested form"

    @property
    def spent_on_thinking(self) -> bool:
        """There are thoughts, and no usable answer."""
        if self.completion is None or self.parsed is None:
            return False
        return spent_on_thinking(self.completion, self.parsed)


def probe(
    client: ChatClient,
    generator: PromptGenerator,
    sampling: SamplingConfig,
    rungs: Sequence[Rung],
    repair: bool = True,
) -> Ability:
    """The first of `rungs` on which the endpoint gives usable answers. 4xx and 500 alike mean "not this rung".

    Args:
        client: The endpoint.
        generator: Makes the prompts.
        sampling: How responses are sampled.
        rungs: In the order in which they are tried.
        repair: An unusable answer may be asked for once more, as in decisions; on the last rung only.

    Raises:
        UsageError: The endpoint cannot be reached, refuses the key, limits the rate, or gives no usable answer.
    """
    prober = Prober(client, generator, sampling, repair)
    possible = _possible(rungs, client.endpoint.dialect.left_out)
    found = prober.climb(possible)
    if found is None and prober.found_unnamed_refusal(possible[-1]):
        found = prober.climb(possible)
    if found is None:
        raise UsageError(prober.hopeless(pinned=len(rungs) == 1))
    return found


class Prober:
    """Tries rungs, and remembers what came of them."""

    def __init__(self, client: ChatClient, generator: PromptGenerator, sampling: SamplingConfig, repair: bool) -> None:
        """Ask nothing yet.

        Args:
            client: As for `probe`.
            generator: As for `probe`.
            sampling: As for `probe`.
            repair: As for `probe`.
        """
        self._client, self._generator, self._sampling, self._repair = client, generator, sampling, repair
        self._last = Trial()
        self._thinks = False

    def climb(self, rungs: Sequence[Rung]) -> Ability | None:
        """The first rung that passes; None where none does.

        Args:
            rungs: In the order in which they are tried.
        """
        lost: dict[Rung, str] = {}
        for rung in rungs:
            for choice in (False, True) if rung is Rung.LOGPROBS and self._sampling.choice else (False,):
                trial = self._last = self._question(rung, choice)
                if _passes(rung, trial):
                    return Ability(rung, choice, tuple(f"{name}: {why}" for name, why in lost.items()))
                self._thinks = self._thinks or trial.spent_on_thinking
                lost.setdefault(rung, trial.short)
        return None

    def found_unnamed_refusal(self, rung: Rung) -> bool:
        """Whether the endpoint refuses one of `SUSPECTS` without naming it; that is then left out.

        Args:
            rung: The last one that was tried.
        """
        last, dialect = self._last, self._client.endpoint.dialect
        if last.failure is None or last.failure.status not in (400, 422):
            return False
        for names in SUSPECTS:
            dialect.suppose(names)
            if self._question(rung, False).completion is not None:
                return True
        dialect.suppose(())
        return False

    def hopeless(self, pinned: bool) -> str:
        """The line about an endpoint without any usable rung.

        Args:
            pinned: The configuration names the only rung that was tried.
        """
        endpoint, last = self._client.endpoint, self._last
        who = f"endpoint {endpoint.url} does not serve model {endpoint.model!r} in a usable way"
        if self._thinks:
            limit = self._sampling.max_tokens
            return (
                f"{who}: the model spends its tokens on reasoning: raise sampling.max_tokens (now {limit}),"
                " or set the endpoint's reasoning option, for example sampling.extra.reasoning_effort=low"
            )
        pin = ", or pin a rung that it has" if pinned else ""
        if last.failure is not None:
            return f"{who} ({last.failure.detail}{pin})"
        return f"{who} (no usable answer: {last.short}): choose another model{pin}"

    def _question(self, rung: Rung, choice: bool) -> Trial:
        """The probe's query on a rung, on the last one with one repair."""
        prompt = self._generator.build(probe_scene(), rung.form)
        trial = self._try(prompt, rung, choice)
        if self._repair and rung is Rung.TEXT and trial.completion is not None and not _passes(rung, trial):
            fault = str(trial.parsed.fault) if trial.parsed else ""
            return self._try(prompt.repair(trial.completion.content, fault), rung, choice)
        return trial

    def _try(self, prompt: Prompt, rung: Rung, choice: bool) -> Trial:
        """One query. UsageError for what no other rung avoids."""
        client = self._client
        args = request(rung, prompt, self._generator.config, self._sampling, choice)
        until = time.monotonic() + client.config.startup_s
        outcome = client.run([_ask(client, args, prompt.text(), until)])[0]
        if isinstance(outcome, Completion):
            return Trial(outcome, parse(outcome, prompt))
        if outcome.fault in LASTING or outcome.passing:
            remedy = f": {REMEDIES[outcome.fault]}" if outcome.fault in REMEDIES and outcome.status is None else ""
            raise UsageError(f"LLM endpoint {client.endpoint.url}: {outcome.detail}{remedy}")
        return Trial(failure=outcome)


def _possible(rungs: Sequence[Rung], left_out: frozenset[str]) -> list[Rung]:
    """The rungs that need no parameter which the configuration leaves out."""
    found = [rung for rung in rungs if not FIELDS[rung] & left_out]
    if not found:
        names = ", ".join(sorted({name for rung in rungs for name in FIELDS[rung]} & left_out & set(PARAMETERS)))
        raise UsageError(f"leave_out = {names}: rung {rungs[0]} cannot do without; choose another rung")
    return found


def _passes(rung: Rung, trial: Trial) -> bool:
    return trial.completion is not None and trial.parsed is not None and supported(rung, trial.completion, trial.parsed)


async def _ask(client: ChatClient, args: Mapping[str, Any], text: str, until: float) -> Completion | AttemptFailed:
    """A completion, or the failure that neither waiting nor leaving a parameter out avoids."""
    pause = client.config.backoff_s
    while True:
        reserved = client.reserve(args, text)
        if reserved is None:
            return AttemptFailed(Fault.BUDGET, "the budget does not even cover the start-up probe")
        try:
            received = await client.attempt(args, until, RequestTimeline(time.monotonic()))
        except AttemptFailed as failure:
            client.budget.settle(reserved, None if failure.billed else Usage())
            wait = max(pause, failure.retry_after or 0.0)
            if failure.adapted:
                continue
            if not failure.passing or time.monotonic() + wait >= until:
                return failure
            await asyncio.sleep(wait)
            pause = min(2 * pause, client.config.backoff_cap_s, LONGEST_PAUSE_S)
        else:
            client.budget.settle(reserved, received.usage)
            return received.completion
