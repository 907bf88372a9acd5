"""The same scenario at another decision frequency, or stepped between its decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sim
from sim.config import deep_merge, resolve
from sim.errors import UsageError


def with_frequency(scenario: str, config: Mapping[str, Any], hertz: float | None) -> dict[str, Any]:
    """The scenario's config with another decision frequency; a time limit in decisions keeps its seconds.

    Args:
        scenario: Its name.
        config: Changes to its config.
        hertz: Decisions per second; None: the scenario's own.
    Raises:
        UsageError: The scenario has no decision frequency.
    """
    if hertz is None:
        return dict(config)
    chosen = sim.get(scenario)
    plain = resolve(chosen.defaults, config, chosen.name)
    if hasattr(plain, "policy_frequency"):
        return deep_merge(dict(config), {"policy_frequency": hertz})
    if not hasattr(plain, "decision_frequency"):
        raise UsageError(f"scenario {scenario!r} has no decision frequency to set: leave `frequency` out")
    limit = max(1, round(plain.time_limit * hertz / plain.decision_frequency))
    return deep_merge(dict(config), {"decision_frequency": hertz, "time_limit": limit})


def finest(scenario: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """A config in which every simulation step is a decision.

    Args:
        scenario: Its name.
        config: Changes to its config.
    Returns:
        The config, and the number of simulation steps in one decision of `config`.
    Raises:
        UsageError: The scenario cannot be stepped between decisions.
    """
    chosen = sim.get(scenario)
    plain = resolve(chosen.defaults, config, chosen.name)
    if hasattr(plain, "policy_frequency"):
        steps = round(plain.simulation_frequency / plain.policy_frequency)
        return with_frequency(scenario, config, plain.simulation_frequency), steps
    if not hasattr(plain, "decision_frequency"):
        raise UsageError(f"scenario {scenario!r} cannot run on between decisions: leave out `safety`")
    return with_frequency(scenario, config, plain.decision_frequency * plain.substeps), plain.substeps
