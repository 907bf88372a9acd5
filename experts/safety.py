"""Which actions are unsafe in a scene, on any highway-like Scene: one test for gates, shields and vetoes.

A lane change is unsafe while the ego is still on its way to a lane (more than 1.37 m off its centre), or when it fails
the rule's gap test with all distances and times relaxed to 80 %. Keeping the speed or accelerating is unsafe when the
set-point that it leads to exceeds the safe speed by more than half a set-point of the published grid. A lane change
that has no effect, because there is no lane, counts as keeping the speed. Where paths cross or join (`sim.conflicts`),
an action is also unsafe when the ego meets a car whatever follows: keeping the speed, braking or accelerating for good
(`experts.rules.crossing`). Nothing else makes braking unsafe.
"""

from __future__ import annotations

from dataclasses import field

import numpy as np

from experts.rules import kernel
from experts.rules.config import RuleConfig
from experts.rules.crossing import clearance, conflict_words
from sim.actions import MetaAction
from sim.bounds import NonNegative, Number, config_dataclass
from sim.scene import Scene
from sim.view import Views, manoeuvres, view_of


@config_dataclass
class ActionSafetyConfig:
    """Tolerances of the test; its distances and times are the rule's."""

    gap_scale: NonNegative = 0.8  # share of the rule's distances and times that a lane change must keep
    speed_margin: Number = 0.6  # m/s above the safe speed that are tolerated (half a set-point)
    rule: RuleConfig = field(default_factory=RuleConfig)


DEFAULT = ActionSafetyConfig()
SHORT_OF = {
    kernel.FRONT_GAP: "too close to the car ahead there",
    kernel.REAR_GAP: "too close to the car behind there",
    kernel.FRONT_TTC: "closing in too fast on the car ahead there",
    kernel.REAR_TTC: "the car behind there closes in too fast",
    kernel.NOT_STEADY: "the last lane change is not finished",
}


def unsafe_actions(views: Views, config: ActionSafetyConfig = DEFAULT) -> np.ndarray:
    """Whether each action may lead to a collision.

    Args:
        views: What R egos see.
        config: Tolerances.

    Returns:
        bool (R, A).
    """
    found = np.zeros((len(views.rows), len(views.manoeuvres)), bool)
    meanings = np.array(views.manoeuvres, np.int64)
    kernel.check_all(views.rows, meanings, config.gap_scale, config.speed_margin, config.rule.record(), found)
    return found


def refused(unsafe: np.ndarray, legal: np.ndarray | None, action: int) -> bool:
    """Whether a shield refuses `action`: it is unsafe although another legal one is not.

    Args:
        unsafe: One row of `unsafe_actions`, bool (A,).
        legal: Legal actions, bool (A,); None: all of them.
        action: Its id.
    """
    open_to = ~unsafe if legal is None else ~unsafe & legal
    return bool(unsafe[action] and open_to.any())


def is_unsafe(scene: Scene, action: int, config: ActionSafetyConfig = DEFAULT) -> bool:
    """Whether an action may lead to a collision.

    Args:
        scene: Any with meta-actions.
        action: Its id.
        config: Tolerances.

    Raises:
        ValueError: The scene's actions are not meta-actions.
    """
    return unsafe_reason(scene, action, config) is not None


def unsafe_reason(scene: Scene, action: int, config: ActionSafetyConfig = DEFAULT) -> str | None:
    """Why an action is unsafe, as a short sentence; None when it is safe.

    Args:
        scene: Any with meta-actions.
        action: Its id.
        config: Tolerances.
    """
    p, view, manoeuvre = config.rule.record()[0], view_of(scene), manoeuvres(scene)[action]
    verdict = kernel.check_manoeuvre(view, int(manoeuvre), config.gap_scale, config.speed_margin, p)
    if verdict == kernel.TOO_FAST:
        speed = view.faster if manoeuvre is MetaAction.FASTER else view.idle
        return f"{speed:.1f} m/s is above the safe speed {max(kernel.allowed_speed(view, p), 0.0):.1f} m/s"
    if verdict == kernel.CROSSING:
        return conflict_words(view["conflicts"][clearance(view, int(manoeuvre), p)[1]])
    return SHORT_OF.get(verdict)
