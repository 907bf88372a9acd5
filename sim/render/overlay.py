"""What a caller may add to a picture: who drives, what the policy thinks, what the expert says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Controller = Literal["learner", "expert", "human"]

ACTION_LABELS: dict[int, tuple[str, ...]] = {
    5: ("Left", "Idle", "Right", "Faster", "Slower"),
    3: ("Slower", "Idle", "Faster"),
}
"""Labels by number of actions: highway-env's meta-actions, and its longitudinal ones."""

GLYPHS = {"Left": "←", "Idle": "•", "Right": "→", "Faster": "+", "Slower": "−"}


@dataclass(frozen=True)
class Overlay:
    """Side information of one decision; whatever is None is left out."""

    probs: np.ndarray | None = None
    """float (A,): the policy's action probabilities."""
    expert_action: int | None = None
    executed_action: int | None = None
    controller: Controller = "learner"
    caption: str = ""
    unsafe: np.ndarray | None = None
    """bool (A,): actions judged unsafe; an unsafe lane change is hatched on the road beside the ego."""
    labels: tuple[str, ...] | None = None
    """Names of the actions, (A,); None: the meta-actions' names."""

    def names(self, count: int) -> tuple[str, ...]:
        """Names of `count` actions."""
        if self.labels is not None and len(self.labels) == count:
            return self.labels
        return ACTION_LABELS.get(count, tuple(f"a{i}" for i in range(count)))
