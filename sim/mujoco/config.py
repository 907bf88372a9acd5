"""The config of the MuJoCo scenarios. Light: listing scenarios reads this file."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from sim.bounds import Bounds, Count, config_dataclass

Pixels = Annotated[int, Bounds(16, 4096)]


@config_dataclass
class MujocoConfig:
    """Settings of a MuJoCo environment."""

    max_episode_steps: Count = 1000  # time limit, decisions; gymnasium's, which is 50 for Reacher
    width: Pixels = 480  # of pictures; gymnasium's
    height: Pixels = 480  # of pictures; gymnasium's
    options: dict[str, Any] = field(default_factory=dict)  # other keyword arguments of gymnasium's environment
