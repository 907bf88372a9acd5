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
from experts.llm.prompt import Prompt, PromptConfig, PromptGenerator, probe_scene
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
    lost: dict[Rung, str] = {}
    trial = Trial()
    thinks = False
    for rung in _possible(rungs, client.endpoint.dialect.left_out):
        prompt = generator.build(probe_scene(), rung.form)
        choices = (False, True) if rung is Rung.LOGPROBS and sampling.choice else (False,)
        for choice in choices:
            trial = _try(client, prompt, rung, generator.config, sampling, choice)
            if repair and rung is Rung.TEXT and trial.completion is not None and not _passes(rung, trial):
                fault = str(trial.parsed.fault) if trial.parsed else ""
                again = prompt.repair(trial.completion.content, fault)
                trial = _try(client, again, rung, generator.config, sampling, choice)
            if _passes(rung, trial):
                return Ability(rung, choice, tuple(f"{name}: {why}" for name, why in lost.items()))
            thinks = thinks or trial.spent_on_thinking
            lost.setdefault(rung, trial.short)
    raise UsageError(_hopeless(client, sampling, rungs, trial, thinks))


def _possible(rungs: Sequence[Rung], left_out: frozenset[str]) -> list[Rung]:
    """The rungs that need no parameter which the configuration leaves out."""
    found = [rung for rung in rungs if not FIELDS[rung] & left_out]
    if not found:
        names = ", ".join(sorted({name for rung in rungs for name in FIELDS[rung]} & left_out & set(PARAMETERS)))
        raise UsageError(f"leave_out = {names}: rung {rungs[0]} cannot do without; choose another rung")
    return found


def _passes(rung: Rung, trial: Trial) -> bool:
    return trial.completion is not None and trial.parsed is not None and supported(rung, trial.completion, trial.parsed)


def _hopeless(client: ChatClient, sampling: SamplingConfig, rungs: Sequence[Rung], trial: Trial, thinks: bool) -> str:
    """The line about an endpoint without any usable rung."""
    who = f"endpoint {client.endpoint.url} does not serve model {client.endpoint.model!r} in a usable way"
    if thinks:
        return (
            f"{who}: the model spends its tokens on reasoning: raise sampling.max_tokens (now {sampling.max_tokens}),"
            " or set the endpoint's reasoning option, for example sampling.extra.reasoning_effort=low"
        )
    pin = ", or pin a rung that it has" if len(rungs) == 1 else ""
    if trial.failure is not None:
        return f"{who} ({trial.failure.detail}{pin})"
    return f"{who} (no usable answer: {trial.short}): choose another model{pin}"


def _try(
    client: ChatClient, prompt: Prompt, rung: Rung, config: PromptConfig, sampling: SamplingConfig, choice: bool
) -> Trial:
    """One query. UsageError for what no other rung avoids."""
    args = request(rung, prompt, config, sampling, choice)
    until = time.monotonic() + client.config.startup_s
    outcome = client.run([_ask(client, args, prompt.text(), until)])[0]
    if isinstance(outcome, Completion):
        return Trial(outcome, parse(outcome, prompt))
    if outcome.fault in LASTING or outcome.passing:
        remedy = f": {REMEDIES[outcome.fault]}" if outcome.fault in REMEDIES and outcome.status is None else ""
        raise UsageError(f"LLM endpoint {client.endpoint.url}: {outcome.detail}{remedy}")
    return Trial(failure=outcome)


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
