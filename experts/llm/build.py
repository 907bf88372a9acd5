"""Builds the language-model expert: fallback, cache, client, start-up probe. Opens the first connections."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from experts import registry
from experts.llm.budget import Budget
from experts.llm.cache import AnswerCache
from experts.llm.config import AUTO, HOSTED, LLMConfig
from experts.llm.connect import InProcessModel, connect
from experts.llm.ladder import Rung, rungs_for
from experts.llm.probe import Ability, probe
from experts.llm.prompt import PromptGenerator
from experts.llm.provider import LLMExpert
from experts.provider import PolicyProvider
from sim.errors import UsageError, unknown


def build(
    config: LLMConfig,
    scenario: str,
    seed: int,
    fallback: PolicyProvider | None = None,
    in_process: InProcessModel | None = None,
) -> LLMExpert:
    """The expert that a config describes.

    Args:
        config: Options.
        scenario: Name of the scenario, for the fallback.
        seed: Of the retries' jitter.
        fallback: Used in place of the one that the config names; its maker closes it.
        in_process: A model that is asked in place of an endpoint.

    Raises:
        UsageError: The endpoint is unreachable, refuses the key or serves no rung; or the cache file is broken.
    """
    if in_process is not None:
        config = replace(config, model=in_process.name)
    elif config.model == AUTO:
        config = replace(config, model=HOSTED)
    given, fallback = fallback is not None, fallback or _fallback(config, scenario, seed)
    budget = Budget(config.budget)
    cache = None
    if config.cache.mode != "off" and config.cache.path:
        cache = AnswerCache(Path(config.cache.path), config.cache.mode)
    if config.cache.mode == "replay-only":
        return LLMExpert(config, _recorded(config, cache), None, cache, budget, fallback, not given)
    client = connect(config.model, config.client, budget, seed, in_process)
    try:
        rungs = rungs_for(config.prompt) if config.rung == "auto" else (Rung(config.rung),)
        generator = PromptGenerator(config.prompt)
        ability = probe(client, generator, config.sampling, rungs, config.repair)
        if cache is not None:
            cache.record_rung(config.model, generator.version, ability.rung, ability.choice)
    except (UsageError, sqlite3.Error) as error:
        client.close()
        if cache is not None:
            cache.close()
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"answer cache {config.cache.path!r} cannot be written: {error}") from None
    expert = LLMExpert(config, ability, client, cache, budget, fallback, not given)
    if in_process is None:
        expert.endpoint = client.endpoint.url
        lost = f"Its answers use rung {ability.rung} ({'; '.join(ability.lost)})." if ability.lost else ""
        expert.note = " ".join(filter(None, [client.endpoint.note, *client.endpoint.dialect.notes, lost]))
    else:
        expert.note = in_process.note
    return expert


def _fallback(config: LLMConfig, scenario: str, seed: int) -> PolicyProvider | None:
    if config.fallback == "none":
        return None
    if config.fallback == LLMExpert.name:
        raise unknown("fallback expert", config.fallback, (set(registry.available()) | {"none"}) - {LLMExpert.name})
    return registry.make(config.fallback, scenario, config.fallback_options, seed)


def _recorded(config: LLMConfig, cache: AnswerCache | None) -> Ability:
    """The rung that the completions were recorded with; the first possible one when the cache does not know it."""
    found = cache.recorded_rung(config.model, PromptGenerator(config.prompt).version) if cache else None
    if config.rung != "auto":
        return Ability(Rung(config.rung), bool(found and found[0] == config.rung and found[1]))
    return Ability(*found) if found else Ability(rungs_for(config.prompt)[0])
