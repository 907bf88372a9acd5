"""What `lgdrl profile` measures: YAML of `--config`, changed by options and dotted overrides."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Any, Literal

from lgdrl.profiler.load import LoadConfig
from lgdrl.profiler.safety import LatencySafetyConfig
from lgdrl.profiler.stall import StallConfig
from lgdrl.profiler.training import TrainingConfig
from sim.bounds import Bounds, Count, Seed, Whole, config_dataclass
from sim.config import resolve
from sim.errors import UsageError, unknown

OF_AN_EXPERT = ("loads", "decisions", "warm_up", "repeats", "safety", "stall", "training")
"""Settings that one expert may have for itself: a slow one needs fewer queries."""


@config_dataclass
class ExpertConfig:
    """The expert that is profiled."""

    expert: str = "llm"  # see `lgdrl list experts`
    options: dict[str, Any] = field(default_factory=dict)  # as expert_options of a training run
    settings: dict[str, Any] = field(default_factory=dict)  # of this profile, for this expert alone: see `OF_AN_EXPERT`

    def __post_init__(self) -> None:
        for name in self.settings:
            if name not in OF_AN_EXPERT:
                raise unknown("setting of an expert", name, OF_AN_EXPERT)


@config_dataclass
class QualityConfig:
    """Quality of the decisions, as in `lgdrl llm eval`: latency means little where the decisions are bad."""

    scenes: Whole = 60  # with safe and unsafe actions; 0: leave out
    episodes: Whole = 0  # that the expert drives alone, the environment waiting for it


@config_dataclass
class ProfileConfig:
    """A profile: every expert in every scenario under every load, and what its latency means there."""

    experts: dict[str, ExpertConfig] = field(default_factory=dict)  # by the name that the report uses
    scenarios: tuple[str, ...] = ("lane-change",)
    scenario_config: dict[str, Any] = field(default_factory=dict)  # the same changes in all of them
    backend: str | None = None  # None: the fastest of each scenario
    frequencies: tuple[
        Annotated[float, Bounds(0, 1000, open_low=True)], ...
    ] = ()  # Hz of decisions, one after the other; none: each scenario's own. D = 1 / Hz
    loads: tuple[LoadConfig, ...] = (LoadConfig(), LoadConfig(kind="clock", cars=8))
    decisions: Count = 200  # queries of each load and repeat, warm-up not counted
    warm_up: Whole = 10  # queries of each load and repeat that are reported apart
    repeats: Count = 3
    driver: Literal["rule", "random"] = "rule"  # what drives through the scenes of the queries
    faults: str | None = None  # a mix of the fault server, which then is the endpoint of the experts `llm`
    quality: QualityConfig = field(default_factory=QualityConfig)
    safety: LatencySafetyConfig = field(default_factory=LatencySafetyConfig)
    stall: StallConfig = field(default_factory=StallConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not self.scenarios:
            raise UsageError("scenarios is empty: name one or more (see `lgdrl list scenarios`)")
        if len(set(self.frequencies)) < len(self.frequencies):
            raise UsageError(f"frequencies = {list(self.frequencies)}: one is named twice")
        for name, expert in self.experts.items():
            self.of(name, expert)

    def of(self, name: str, expert: ExpertConfig) -> ProfileConfig:
        """These settings with those that an expert has for itself. UsageError where these make no sense."""
        return resolve(replace(self, experts={}), expert.settings, f"experts.{name}.settings")
