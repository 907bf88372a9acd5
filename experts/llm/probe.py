"""Start-up probe: which rung of the structured-output ladder an endpoint has, found by asking a fixed query on each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from experts.llm.budget import Usage
from experts.llm.client import ChatClient, RequestResult
from experts.llm.endpoint import AttemptFailed
from experts.llm.faults import Fault
from experts.llm.ladder import Rung, SamplingConfig, request, supported
from experts.llm.parse import parse
from experts.llm.prompt import Prompt, PromptConfig, PromptGenerator, probe_scene
from experts.llm.timeline import RequestTimeline
from sim.errors import UsageError

REMEDIES = {
    Fault.AUTH: "check OPENAI_API_KEY",
    Fault.RATE_LIMITED: "try again later",
    Fault.CONNECTION: "start the server or correct client.base_url",
    Fault.TIMEOUT: "start the server, or allow more with client.startup_s",
    Fault.BUDGET: "raise budget.max_calls, max_tokens or max_cost",
}
"""What the user can do about faults that no other rung avoids."""


@dataclass(frozen=True, slots=True)
class Ability:
    """What the probe found: the rung to use, and whether the server reads `structured_outputs.choice`."""

    rung: Rung
    choice: bool = False


def probe(client: ChatClient, generator: PromptGenerator, sampling: SamplingConfig, rungs: Sequence[Rung]) -> Ability:
    """The first of `rungs` that the endpoint really has. 4xx and 5xx alike mean "not this rung".

    Args:
        client: The endpoint.
        generator: Makes the prompts.
        sampling: How responses are sampled.
        rungs: In the order in which they are tried.

    Raises:
        UsageError: The endpoint cannot be reached, refuses the key, limits the rate, or has none of the rungs.
    """
    failures: list[str] = []
    for rung in rungs:
        prompt = generator.build(probe_scene(), rung.form)
        choices = (False, True) if rung is Rung.LOGPROBS and sampling.choice else (False,)
        for choice in choices:
            result = _probe_once(client, prompt, rung, generator.config, sampling, choice)
            found = result.completion
            if found is not None and supported(rung, found, parse(found, prompt)):
                return Ability(rung, choice)
            failures.append(f"{rung}: {result.detail or 'the answer does not have the requested form'}")
    raise UsageError(
        f"endpoint {client.endpoint.url} does not serve model {client.endpoint.model!r} in a usable way"
        f" ({failures[-1]}): check the model name, or pin a rung that it has"
    )


def _probe_once(
    client: ChatClient, prompt: Prompt, rung: Rung, config: PromptConfig, sampling: SamplingConfig, choice: bool
) -> RequestResult:
    """One probe, sent once except that a limited rate is waited for. UsageError for what no other rung avoids."""
    args, text = request(rung, prompt, config, sampling, choice), prompt.text()
    until = time.monotonic() + client.config.startup_s

    async def once() -> RequestResult:
        attempt = 0
        while True:
            attempt += 1
            reserved = client.reserve(args, text)
            if reserved is None:
                return RequestResult(fault=Fault.BUDGET, detail="the budget does not even cover the start-up probe")
            try:
                received = await client.attempt(args, until, RequestTimeline(time.monotonic()))
            except AttemptFailed as failure:
                client.budget.settle(reserved, None if failure.billed else Usage())
                pause = client.pause(failure, attempt, until) if failure.fault is Fault.RATE_LIMITED else None
                if pause is None:
                    return RequestResult(fault=failure.fault, detail=failure.detail)
                await asyncio.sleep(pause)
            else:
                client.budget.settle(reserved, received.usage)
                return RequestResult(completion=received.completion)

    result = client.run([once()])[0]
    if result.fault in REMEDIES:
        raise UsageError(f"LLM endpoint {client.endpoint.url}: {result.detail}: {REMEDIES[result.fault]}")
    return result
