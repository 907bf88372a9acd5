"""What `lgdrl profile` measures: YAML of `--config`, changed by options and dotted overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lgdrl.profiler.lateness import SafetyConfig
from lgdrl.profiler.load import LoadConfig
from lgdrl.profiler.training import TrainingConfig
from sim.errors import UsageError


@dataclass(frozen=True)
class ExpertConfig:
    """Who is asked."""

    expert: str = "llm"  # see `lgdrl list experts`
    options: dict[str, Any] = field(default_factory=dict)  # as expert_options of a training run


@dataclass(frozen=True)
class QualityConfig:
    """Judged scenes, as in `lgdrl llm eval`: latency means little where the advice is bad."""

    scenes: int = 60  # with safe and unsafe actions; 0: leave out
    episodes: int = 0  # that the expert drives alone, the world waiting for it

    def __post_init__(self) -> None:
        if self.scenes < 0 or self.episodes < 0:
            raise UsageError(f"scenes = {self.scenes}, episodes = {self.episodes}: expected 0 or more")


@dataclass(frozen=True)
class ProfileConfig:
    """A profile: every expert in every scenario under every load, and what its latency means there."""

    experts: dict[str, ExpertConfig] = field(default_factory=dict)  # by the name that the report uses
    scenarios: tuple[str, ...] = ("lane-change",)
    scenario_config: dict[str, Any] = field(default_factory=dict)  # the same changes in all of them
    backend: str | None = None  # None: the fastest of each scenario
    frequency: float | None = None  # Hz of decisions; None: each scenario's own. The deadline is 1 / frequency
    loads: tuple[LoadConfig, ...] = (LoadConfig(), LoadConfig(kind="clock", cars=8))
    decisions: int = 200  # questions of each load and repeat, warm-up not counted
    warm_up: int = 10  # questions of each load and repeat that are reported apart
    repeats: int = 3
    driver: Literal["rule", "random"] = "rule"  # who drives through the scenes that are asked about
    faults: str | None = None  # a mix of the fault server, which then is the endpoint of the experts `llm`
    quality: QualityConfig = field(default_factory=QualityConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("decisions", 1), ("repeats", 1), ("warm_up", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} = {getattr(self, name)}: expected {least} or more")
        if not self.scenarios:
            raise UsageError("scenarios is empty: name one or more (see `lgdrl list scenarios`)")
        if self.frequency is not None and not 0 < self.frequency <= 1000:
            raise UsageError(f"frequency = {self.frequency}: expected Hz above 0")
