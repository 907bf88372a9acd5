"""What an expert costs a training: the time for which it stands still, with and without cache, gate and expert."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experts.provider import PolicyProvider
from lgdrl import training
from sim.config import deep_merge
from sim.errors import UsageError


@dataclass(frozen=True)
class TrainingConfig:
    """Short trainings, timed."""

    decisions: int = 1000  # of each; 0: leave out
    config: dict[str, Any] = field(default_factory=lambda: {"sac": {"learning_starts": 200}})  # of the runs

    def __post_init__(self) -> None:
        if self.decisions < 0:
            raise UsageError(f"training.decisions = {self.decisions}: expected 0 or more")


@dataclass(frozen=True)
class Cost:
    """One timed training."""

    name: str
    decisions: int
    seconds: float
    """Wall time of the training loop."""
    waiting: float
    """Share of it for which the training stood still until the expert had answered."""
    rate: float
    """Decisions per second."""
    queries: int
    tokens: int
    cost: float
    cache_hits: int
    """Questions that the answer cache answered."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "nobody asked": {"strategy": "sac"},
    "asked at every decision": {"strategy_options": {"episodes": {"kind": "always", "until": 1.0}}},
    "as configured": {},
}
"""Changes to the run's config. A language model is also asked ahead, and run twice with one answer cache: filled, then
full."""
AHEAD = 8
"""Steps that its labels may be on their way."""


def costs(
    config: TrainingConfig,
    scenario: str,
    world: Mapping[str, Any],
    backend: str | None,
    make: Callable[[Mapping[str, Any]], PolicyProvider],
    caches: bool,
    seed: int,
    observer: Callable[[str], None] = lambda name: None,
) -> list[Cost]:
    """Train for `config.decisions` in each variant. `make(options)` builds the expert with further options; `caches`
    says whether it can keep answers."""
    base = {"scenario": scenario, "scenario_config": dict(world), "steps": config.decisions, "evaluate_every": 0}
    base |= {"seed": seed, "backend": backend} if backend else {"seed": seed}
    base = deep_merge(base, config.config)
    found: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="lgdrl-profile-") as folder:
        for name, changes in VARIANTS.items():
            observer(name)
            provider = None if "strategy" in changes else make({})
            found.append(_train(name, deep_merge(base, changes), provider, Path(folder) / str(len(found))))
        if caches:
            observer("asked ahead")
            base_ahead = {**base, "label_lag": AHEAD}
            found.append(_train(f"labels {AHEAD} steps later", base_ahead, make({}), Path(folder) / str(len(found))))
            cache = {"cache": {"mode": "read-write", "path": str(Path(folder) / "answers.sqlite")}}
            for name in ("filling an answer cache", "from that cache"):
                observer(name)
                found.append(_train(name, base, make(cache), Path(folder) / str(len(found))))
    return found


def _train(name: str, config: Mapping[str, Any], provider: PolicyProvider | None, folder: Path) -> Cost:
    trainer = training.start(training.load_config(None, config), folder, provider=provider)
    try:
        begin = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begin
        figures = trainer.desk.metrics() if trainer.desk else {}
    finally:
        trainer.close()
        close = getattr(provider, "close", None)
        if close:
            close()
    return Cost(
        name=name,
        decisions=trainer.decisions,
        seconds=seconds,
        waiting=float(figures.get("blocked_s", 0.0)) / seconds,
        rate=trainer.decisions / seconds,
        queries=int(figures.get("queries", 0)),
        tokens=int(figures.get("tokens", 0)),
        cost=float(figures.get("cost", 0.0)),
        cache_hits=int(figures.get("cache/hits", 0)),
    )
