"""A profile as data: what is measured of experts, and how profile.json stores it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lgdrl.profiler.config import ProfileConfig
from lgdrl.profiler.lateness import LatencyOutcome
from lgdrl.profiler.machine import MachineLoad
from lgdrl.profiler.metrics import MEANINGS, ProfileCell
from lgdrl.profiler.stall import Recovery
from lgdrl.profiler.training import Cost
from lgdrl.quality.evaluation import ExpertEvaluation
from lgdrl.runs import fingerprint_environment
from sim.config import to_dict

SCHEMA, VERSION = "lgdrl-profile", 1
USAGE = ("input", "cached_input", "output")
"""Tokens: of the prompts, those among them that the endpoint had in its prompt cache, of the responses."""


@dataclass
class ExpertProfile:
    """Everything measured of one expert in one scenario."""

    name: str
    expert: str
    cold_start_s: float
    """To have it ready, from nothing: model loaded, endpoint probed."""
    note: str = ""
    endpoint: str | None = None
    network_s: float | None = None
    """Median time of a TCP handshake with the endpoint: the cost of one round trip without any computation."""
    cells: list[ProfileCell] = field(default_factory=list)
    usage: dict[str, float] = field(default_factory=dict)
    """Tokens of all loads as the endpoint counts them: `USAGE`; empty where it does not."""
    outcomes: list[LatencyOutcome] = field(default_factory=list)
    budgets: dict[str, float | None] = field(default_factory=dict)
    """Latency budget, s, by policy."""
    recovery: Recovery | None = None
    costs: list[Cost] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "expert": self.expert,
            "note": self.note,
            "endpoint": self.endpoint,
            "cold_start_s": self.cold_start_s,
            "network_s": self.network_s,
            "cells": [cell.to_dict() for cell in self.cells],
            "usage": self.usage,
            "safety": [outcome.to_dict() for outcome in self.outcomes],
            "latency_budget_s": self.budgets,
            "stall": self.recovery.to_dict() if self.recovery else None,
            "training": [cost.to_dict() for cost in self.costs],
        }


@dataclass
class ScenarioProfile:
    """All experts in one scenario at one decision frequency."""

    scenario: str
    label: str
    """The scenario, with the frequency where that was set."""
    deadline_s: float
    experts: list[ExpertProfile]
    quality: ExpertEvaluation | None = None
    trivial: dict[str, LatencyOutcome] = field(default_factory=dict)
    """Always SLOWER, IDLE and chance in the same episodes, without latency."""

    def to_dict(self) -> dict[str, Any]:
        quality = None
        if self.quality is not None:
            quality = {"scenes": self.quality.scenes, "scores": [to_dict(score) for score in self.quality.scores]}
        return {
            "scenario": self.scenario,
            "label": self.label,
            "deadline_s": self.deadline_s,
            "experts": [expert.to_dict() for expert in self.experts],
            "quality": quality,
            "trivial_baselines": {name: outcome.to_dict() for name, outcome in self.trivial.items()},
        }


@dataclass
class Profile:
    """What `lgdrl profile` writes."""

    config: ProfileConfig
    scenarios: list[ScenarioProfile]
    overhead: ProfileCell
    seconds: float
    machine: MachineLoad
    served: dict[str, int] = field(default_factory=dict)
    """What the fault server did, by class; empty without one."""
    rows: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """Every query, for the CSV file."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `schema` and `version` say how to read them."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "environment": fingerprint_environment(),
            "machine": self.machine.to_dict(),
            "config": to_dict(self.config),
            "meanings": MEANINGS,
            "overhead": self.overhead.to_dict(),
            "faults_served": self.served,
            "scenarios": [scenario.to_dict() for scenario in self.scenarios],
        }
