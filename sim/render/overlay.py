"""What a caller may add to a picture: who drives, the policy's probabilities, the expert's action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sim.actions import MetaAction
from sim.picture import Picture, Shown
from sim.scene import Scene

Controller = Literal["learner", "expert", "human"]

NAMES = {
    MetaAction.LANE_LEFT: "Left",
    MetaAction.IDLE: "Idle",
    MetaAction.LANE_RIGHT: "Right",
    MetaAction.FASTER: "Faster",
    MetaAction.SLOWER: "Slower",
}

GLYPHS = {"Left": "←", "Idle": "•", "Right": "→", "Faster": "+", "Slower": "−"} | {
    "Up": "↑",
    "Down": "↓",
    "Main": "↑",
    "Off": "•",
}
"""Signs of actions by name: of the meta-actions, and of environments without scenes (`sim.action_names`)."""


@dataclass(frozen=True)
class Overlay:
    """Side information of one decision; parts that are None are left out."""

    probs: np.ndarray | None = None
    """float (A,): the policy's action probabilities."""
    expert_action: int | None = None
    """Label of the expert."""
    executed_action: int | None = None
    controller: Controller = "learner"
    caption: str = ""
    unsafe: np.ndarray | None = None
    """bool (A,): unsafe actions; an unsafe lane change is hatched on the road beside the ego."""
    labels: tuple[str, ...] | None = None
    """Names of the actions, (A,); None: the meta-actions' names."""

    def names(self, scene: Scene) -> tuple[str, ...]:
        """Names of the scene's actions."""
        return self.labels if self.labels is not None else action_names(scene)


def action_names(scene: Shown) -> tuple[str, ...]:
    """Names of the scene's actions: what they mean, or numbers where they are not meta-actions."""
    if isinstance(scene, Picture):
        return scene.names
    return tuple(NAMES[each] for each in scene.meanings) or tuple(f"a{i}" for i in range(len(scene.legal)))
