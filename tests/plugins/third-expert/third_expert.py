"""An expert: brakes when the car ahead is near, otherwise keeps speed and lane.

lgdrl train --expert third-expert expert_options.distance=40
lgdrl evaluate --expert third-expert
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experts.provider import Context, Decision, PolicyProvider, Status
from sim.actions import MetaAction
from sim.config import resolve
from sim.view import view_of


@dataclass(frozen=True)
class CarefulConfig:
    """Settings under `expert_options`."""

    distance: float = 30.0  # m to the car ahead, under which it brakes

    def __post_init__(self) -> None:
        if self.distance <= 0:
            raise ValueError(f"distance = {self.distance}: choose more than 0 m")


class Careful(PolicyProvider):
    """Reads the traffic scene, so it drives on every simulator whose scenarios have meta-actions."""

    name = "third-expert"
    needs = frozenset({"scene"})

    def __init__(self, config: CarefulConfig) -> None:
        self.config = config

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        return [self._decide(context) for context in contexts]

    def _decide(self, context: Context) -> Decision:
        scene = context.scene
        if scene is None or not scene.meanings:
            return Decision(action=None, status=Status.FAILED, reason="no scene with meta-actions")
        gap = view_of(scene).target.front
        slower = scene.meanings.index(MetaAction.SLOWER)
        brakes = gap < self.config.distance and scene.legal[slower]
        action = slower if brakes else scene.meanings.index(MetaAction.IDLE)
        return Decision(action=action, reason=f"{gap:.1f} m to the car ahead")


def make(options: Mapping[str, Any], scenario: str, seed: int) -> Careful:
    """The expert for a run.

    Args:
        options: Overrides of `CarefulConfig`; unknown ones are refused in one line.
        scenario: Name of the scenario; this expert drives in all of them.
        seed: Seed of the expert's own random draws; this one draws none.
    """
    return Careful(resolve(CarefulConfig(), options, "expert_options"))
