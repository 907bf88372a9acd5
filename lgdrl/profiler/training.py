"""What an expert costs a training: time spent waiting for it, with and without cache, arbiter and expert."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experts.provider import PolicyProvider
from lgdrl import training
from lgdrl.config import load_config
from lgdrl.loops.online import OnlineLoop
from sim.bounds import Whole, config_dataclass
from sim.config import deep_merge


@config_dataclass
class TrainingConfig:
    """Short trainings, timed."""

    decisions: Whole = 1000  # of each; 0: leave out
    config: dict[str, Any] = field(default_factory=dict)  # of the runs


@dataclass(frozen=True)
class Cost:
    """One timed training."""

    name: str
    decisions: int
    seconds: float
    """Wall time of the training loop."""
    waiting: float
    """Share of it that the training spent waiting for the expert."""
    rate: float
    """Decisions per second."""
    queries: int
    tokens: int
    cost: float
    cache_hits: int
    """Queries that the response cache served."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


LABELS_ONLY = {"strategy_options": {"arbiter": {"kind": "learner"}}}
AHEAD = 8
"""Label lag, in steps, where the training does not wait for the expert."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "expert off": {"strategy": "sac"},
    "queried at every decision": {"strategy_options": {"episodes": {"kind": "always", "until": 1.0}}},
    "as configured": {},
    "labels, no interventions": LABELS_ONLY,
}
"""Changes to the run's config."""
LAGGING: Mapping[str, Mapping[str, Any]] = {f"labels {AHEAD} steps later": LABELS_ONLY | {"label_lag": AHEAD}}
CACHED: Mapping[str, Mapping[str, Any]] = {"filling a response cache": {}, "from that cache": {}}
"""For language models. The last two share one cache."""


def variants(language_model: bool) -> int:
    """Number of trainings that `costs` runs."""
    return len(VARIANTS) + language_model * (len(LAGGING) + len(CACHED))


def costs(
    config: TrainingConfig,
    scenario: str,
    scenario_config: Mapping[str, Any],
    backend: str | None,
    make: Callable[[Mapping[str, Any]], PolicyProvider],
    language_model: bool,
    seed: int,
    observer: Callable[[str], None] = lambda name: None,
) -> list[Cost]:
    """Train for `config.decisions` in each variant.

    Args:
        config: Length and settings of the runs.
        scenario: Its name.
        scenario_config: Changes to its config.
        backend: The simulator; None: the fastest.
        make: Makes the expert with further options.
        language_model: The expert is one: label lag and response cache are measured too.
        seed: Of the runs.
        observer: Called with the name of each variant before it runs.
    """
    base = {
        "scenario": scenario,
        "scenario_config": dict(scenario_config),
        "steps": config.decisions,
        "evaluate_every": 0,
        "learner_options": {"learning_starts": min(200, config.decisions)},
        "fallback_limit": None,  # faults are part of what is measured
    }
    base |= {"seed": seed, "backend": backend} if backend else {"seed": seed}
    base = deep_merge(base, config.config)
    found: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="lgdrl-profile-") as folder:
        cache = {"cache": {"mode": "read-write", "path": str(Path(folder) / "answers.sqlite")}}
        chosen = {**VARIANTS, **LAGGING, **CACHED} if language_model else VARIANTS
        for name, changes in chosen.items():
            observer(name)
            provider = None if "strategy" in changes else make(cache if name in CACHED else {})
            found.append(_train(name, deep_merge(base, changes), provider, Path(folder) / str(len(found))))
    return found


def _train(name: str, config: Mapping[str, Any], provider: PolicyProvider | None, folder: Path) -> Cost:
    trainer = training.start(load_config(None, config), folder, provider=provider)
    loop = trainer.loop
    assert isinstance(loop, OnlineLoop)
    try:
        begin = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begin
        figures = loop.advisor.metrics() if loop.advisor else {}
    finally:
        trainer.close()
        if provider is not None:
            provider.close()
    return Cost(
        name=name,
        decisions=loop.progress,
        seconds=seconds,
        waiting=float(figures.get("blocked_s", 0.0)) / seconds,
        rate=loop.progress / seconds,
        queries=int(figures.get("queries", 0)),
        tokens=int(figures.get("tokens", 0)),
        cost=float(figures.get("cost", 0.0)),
        cache_hits=int(figures.get("cache/hits", 0)),
    )
