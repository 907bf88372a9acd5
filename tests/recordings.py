"""Episodes to record, and what it means that two of them are equal to the bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import sim
from experts import registry
from experts.data.episodes import Episode, Turn
from experts.provider import Context
from sim.config import to_dict


def drive(
    scenario: str = "lane-change",
    expert: str = "rule",
    seed: int = 0,
    turns: int = 10_000,
    config: dict[str, Any] | None = None,
) -> Episode:
    """An episode of a built-in expert, broken off after `turns` decisions."""
    env, provider = sim.make(scenario, config=config), registry.make(expert, scenario)
    obs, info = env.reset(seed=seed)
    driven: list[Turn] = []
    terminated = truncated = False
    while not (terminated or truncated or len(driven) == turns):
        scene, legal = env.scene(), env.action_masks()
        (decision,) = provider.decide([Context(obs, env.action_space, scene, legal, branch=env.branch)])
        after, reward, terminated, truncated, info = env.step(decision.action)
        driven.append(
            Turn(
                scene=scene,
                obs=obs,
                legal=legal,
                action=decision.action,
                controller="expert",
                reward=float(reward),
                expert_action=decision.action,
                expert_probs=decision.probs,
                expert_status=decision.status.value,
                expert_reason=decision.reason or "",
                expert_latency_s=decision.latency_s,
            )
        )
        obs = after
    return Episode(
        scenario=scenario,
        backend=env.backend,
        scenario_config=to_dict(env.scenario_config),
        seed=seed,
        driver=f"expert {expert}",
        turns=tuple(driven),
        last_scene=env.scene(),
        last_obs=obs,
        last_legal=env.action_masks(),
        terminated=bool(terminated),
        truncated=bool(truncated),
        summary=info.get("summary", {}),
    )


def bits(value: Any) -> Any:
    """`value` as something that is equal exactly when type and bits are."""
    if dataclasses.is_dataclass(value):
        return {f.name: bits(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return (str(value.dtype.descr), value.shape, value.tobytes())
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (type(value).__name__, [bits(item) for item in value])
    return (type(value).__name__, repr(value))
