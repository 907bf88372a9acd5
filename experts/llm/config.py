"""Options of the expert `llm`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from experts.llm.budget import BudgetConfig
from experts.llm.cache import Mode
from experts.llm.client import ClientConfig
from experts.llm.ladder import Rung, SamplingConfig, rungs_for
from experts.llm.prompt import PromptConfig
from sim.bounds import Bounds, Positive, config_dataclass
from sim.config import resolve
from sim.errors import UsageError

AUTO, HOSTED = "auto", "gpt-4o-mini"
"""Names of models: the default, and what it means at an endpoint."""


@config_dataclass
class CacheConfig:
    """Where completions are kept."""

    mode: Mode = "off"  # off | read-write | replay-only (never opens a socket; a miss is a fallback)
    path: str | None = None  # SQLite file, needed unless off

    def __post_init__(self) -> None:
        if self.mode != "off" and not self.path:
            raise UsageError(f"mode = {self.mode!r}: name the file with cache.path")


@config_dataclass
class LLMConfig:
    """Options of the expert `llm`."""

    model: str = AUTO  # as the endpoint calls it; auto: gpt-4o-mini, or without an endpoint the embedded driver
    rung: Literal["auto", "logprobs", "json_schema", "tools", "json_object", "text"] = "auto"  # auto: probe at start-up
    deadline_s: Positive | None = None  # s from the call to a timely answer; None: the environment waits (training)
    # share that a bare label spreads over all legal actions
    spread: Annotated[float, Bounds(0, 1, open_high=True)] = 0.05
    # share of the uniform distribution mixed into given ones, so that none is zero
    smoothing: Annotated[float, Bounds(0, 1, open_high=True)] = 0.01
    veto_unsafe: bool = True  # refuse answers that `experts.safety` calls unsafe where something else is not
    repair: bool = True  # ask once more after an unusable answer
    stream: Literal["watched", "always", "never"] = "watched"  # watched: where a listener shows the reason as it comes
    fallback: str = "rule"  # expert that decides when the model does not; "none": status FAILED
    fallback_options: dict[str, Any] = field(default_factory=dict)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    client: ClientConfig = field(default_factory=ClientConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def __post_init__(self) -> None:
        if self.rung != "auto" and Rung(self.rung) not in rungs_for(self.prompt):
            raise UsageError(
                f"rung = {self.rung!r}: one token cannot carry reasoning, probs or a plan; use another rung"
            )


def read_config(options: Mapping[str, Any], defaults: LLMConfig | None = None) -> LLMConfig:
    """Options as a checked config.

    Args:
        options: Values for `LLMConfig`.
        defaults: Used where `options` says nothing; None: those of `LLMConfig`.

    Raises:
        UsageError: An option is unknown or has a bad value.
    """
    given = dict(options)
    cache = given.get("cache")
    if isinstance(cache, Mapping) and cache.get("mode") is False:  # YAML reads a bare `off` as false
        given["cache"] = {**cache, "mode": "off"}
    return resolve(defaults or LLMConfig(), given, "expert.llm")
