"""The expert `llm`: a language model at an endpoint, or without one the embedded driver in this process.

`experts.llm` is the client side and knows no server. Where no endpoint is named, or the embedded driver is meant by
name, its transport (`experts.serving.in_process`) takes the place of a connection: same client, parser, cache, budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experts.llm.build import build
from experts.llm.config import AUTO, LLMConfig, read_config
from experts.llm.connect import InProcessModel, is_configured
from experts.llm.ladder import Rung
from experts.llm.prompt import PromptConfig
from experts.llm.provider import LLMExpert
from experts.provider import PolicyProvider

DRIVER = "lgdrl-driver"
"""Name of the embedded driver, also at an endpoint that serves it."""
WEIGHTS = ".safetensors"
"""A model so named is a file with another driver's weights."""
EMBEDDED_PROMPT = PromptConfig(reasoning="short", ask_probs=True)
"""What the embedded driver is asked for by default: reasoning costs it nothing extra."""
RICH = ("auto", Rung.JSON_SCHEMA, Rung.JSON_OBJECT)
"""Rungs on which that can be asked for."""


def make(options: Mapping[str, Any], scenario: str, seed: int) -> LLMExpert:
    """The expert `llm`: a language model at an endpoint, or the embedded driver where none is named.

    Args:
        options: Values for `experts.llm.config.LLMConfig`; `fallback` may also be a ready `PolicyProvider`, which its
            maker closes.
        scenario: Name of the scenario, for the fallback.
        seed: Of the retries' jitter.

    Raises:
        UsageError: Bad options; an endpoint that is unreachable, refuses the key or serves no rung; a broken cache
            file or weights file.
    """
    given, fallback = dict(options), None
    if isinstance(given.get("fallback"), PolicyProvider):
        fallback = given.pop("fallback")
    config = read_config(given)
    if not _is_embedded(config):
        return build(config, scenario, seed, fallback)
    if config.rung in RICH:
        config = read_config(given, LLMConfig(prompt=EMBEDDED_PROMPT))
    if config.cache.mode == "replay-only" and not config.model.endswith(WEIGHTS):
        return build(replace(config, model=DRIVER), scenario, seed, fallback)
    return build(config, scenario, seed, fallback, embedded(config.model))


def _is_embedded(config: LLMConfig) -> bool:
    """Whether the embedded driver is meant: it is named, or no model is, and there is no endpoint."""
    named = config.model == DRIVER or config.model.endswith(WEIGHTS)
    return (named or config.model == AUTO) and not is_configured(config.client)


def embedded(model: str) -> InProcessModel:
    """A driver of `experts.language` as a model in this process.

    Args:
        model: Path of its weights; any other name means the shipped driver.

    Raises:
        UsageError: The file is missing or holds no driver.
    """
    from experts.language.driver import Driver
    from experts.serving.driver_model import DriverModel
    from experts.serving.in_process import URL, InProcess

    driver = DriverModel(Driver.load(model if model.endswith(WEIGHTS) else None))
    count = driver.driver.parameter_count / 1e6
    note = (
        f"The embedded driver advises ({driver.name}, {count:.1f} million parameters); name another language model "
        "with OPENAI_BASE_URL or expert_options.client.base_url."
    )
    return InProcessModel(driver.name, InProcess(driver), URL, note)
