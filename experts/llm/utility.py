"""Action-utility analysis: code, not the model, works out which actions are safe and which one to recommend.

The published prompts hand the model such a finished analysis (lgdrl project page, 63 frames): every available action is
marked safe or unsafe and one is recommended with a reason. The distances below are the mid-points of what those frames
accept and refuse; like the published ones they are measured centre to centre. Time to collision is bumper to bumper.
Worlds without a goal lane are not in the published frames; there the lane is changed only to overtake, and "too close"
is a time headway instead of 30 m, so that dense traffic at equal speed is not called unsafe.

They are hints to a model, not a test to pass: in dense traffic they call most of what careful drivers do unsafe (two
of three decisions of the rule in lane-change). What is refused is decided by `experts.safety`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experts.labels import ActionSet
from experts.rules.published import PUBLISHED_FOLLOWING, PUBLISHED_FRONT_GAP, PUBLISHED_MIN_TTC, PUBLISHED_REAR_GAP
from sim.actions import MetaAction
from sim.scene import Neighbour, Scene

HEADWAY = 1.0
"""s; without a goal, nearer than this at the present speed while closing in is too close. Our choice."""
OVERTAKE_ROOM = 10.0
"""m of extra room ahead that make an overtaking lane change worth while. Our choice."""
SPEED_STEP = 5.0
"""m/s assumed for FASTER and SLOWER in an environment that names no set-points (highway-env's default step)."""


@dataclass(frozen=True, slots=True)
class ActionVerdict:
    """One available action: is it safe, and the numbers behind it."""

    action: int
    safe: bool
    ttc: float
    """s, smallest time to collision ahead or, on a lane change, behind; inf when nothing closes in."""
    gap: float
    """m bumper to bumper to the vehicle ahead in the lane the action leads to; inf when there is none."""
    rear: float
    """m bumper to bumper to the vehicle behind there (lane changes only, else inf)."""
    why: str
    """A few words; empty when safe."""


@dataclass(frozen=True, slots=True)
class Utility:
    """The analysis of a scene: a verdict for each available action, in the order of ids, and a recommendation."""

    verdicts: tuple[ActionVerdict, ...]
    recommended: int
    reason: str

    def is_safe(self, action: int) -> bool:
        """Whether `action` is available and SAFE."""
        return any(verdict.action == action and verdict.safe for verdict in self.verdicts)


def analyse(scene: Scene, legal: np.ndarray | None = None) -> Utility:
    """The analysis of `scene` over `legal`, bool (A,) (default: the scene's own).

    Raises ValueError when nothing is legal or the scene's actions are not meta-actions.
    """
    mask = np.asarray(scene.legal if legal is None else legal, dtype=bool)
    if not mask.any():
        raise ValueError("no legal action in the scene")
    actions = ActionSet.of(scene)
    verdicts = tuple(_verdict(scene, int(i), actions.manoeuvres[i]) for i in np.flatnonzero(mask))
    recommended, reason = _recommend(scene, verdicts, actions)
    return Utility(verdicts, recommended, reason)


def speed_after(scene: Scene, manoeuvre: MetaAction) -> float:
    """The speed that the ego will hold after `manoeuvre`, m/s; never below its present speed unless it brakes."""
    ego, points = scene.ego, scene.set_points
    step = {MetaAction.FASTER: 1, MetaAction.SLOWER: -1}.get(manoeuvre, 0)
    if points:
        held = points[int(np.clip(ego.speed_index + step, 0, len(points) - 1))]
    else:
        held = max(ego.speed + step * SPEED_STEP, 0.0)
    return min(ego.speed, held) if manoeuvre is MetaAction.SLOWER else max(ego.speed, held)


def _verdict(scene: Scene, action: int, manoeuvre: MetaAction) -> ActionVerdict:
    speed = speed_after(scene, manoeuvre)
    if manoeuvre in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT):
        return _lane_change(scene, action, _lane_after(scene, manoeuvre), speed)
    front = _front_on_path(scene)
    gap, ttc = _gap(front), _ttc(front, speed)
    if manoeuvre is MetaAction.SLOWER:
        return ActionVerdict(action, True, ttc, gap, np.inf, "")
    if ttc <= PUBLISHED_MIN_TTC:
        return ActionVerdict(action, False, ttc, gap, np.inf, f"TTC under {PUBLISHED_MIN_TTC:g} s")
    if _distance(front) < (PUBLISHED_FOLLOWING if manoeuvre is MetaAction.FASTER else _too_close(scene, front)):
        return ActionVerdict(action, False, ttc, gap, np.inf, "too close to the front car")
    return ActionVerdict(action, True, ttc, gap, np.inf, "")


def _lane_change(scene: Scene, action: int, lane: int, speed: float) -> ActionVerdict:
    front, rear = scene.front(lane), scene.rear(lane)
    front_ttc, rear_ttc = _ttc(front, speed), _ttc(rear, speed)
    ttc = min(front_ttc, rear_ttc)
    if _distance(front) < PUBLISHED_FRONT_GAP:
        why = "front gap too small"
    elif _distance(rear) < PUBLISHED_REAR_GAP:
        why = "rear gap too small"
    elif ttc <= PUBLISHED_MIN_TTC:
        why = f"TTC under {PUBLISHED_MIN_TTC:g} s to the {'front' if front_ttc <= rear_ttc else 'rear'} car"
    else:
        why = ""
    return ActionVerdict(action, not why, ttc, _gap(front), _gap(rear), why)


def _lane_after(scene: Scene, manoeuvre: MetaAction) -> int:
    return scene.ego.target_lane + (1 if manoeuvre is MetaAction.LANE_RIGHT else -1)


def _front_on_path(scene: Scene) -> Neighbour | None:
    """The nearer of the vehicles ahead in the lane the ego is on and in the one it is steering to."""
    found = [scene.front(lane) for lane in {scene.ego.lane, scene.ego.target_lane}]
    return min((front for front in found if front is not None), key=lambda front: front.dx, default=None)


def _too_close(scene: Scene, front: Neighbour | None) -> float:
    """Distance under which keeping the speed counts as unsafe, m."""
    if scene.goal is not None and scene.goal.lane is not None:
        return PUBLISHED_FOLLOWING
    return HEADWAY * scene.ego.speed if front is not None and front.closing > 0 else 0.0


def _distance(neighbour: Neighbour | None) -> float:
    return np.inf if neighbour is None else abs(neighbour.dx)


def _gap(neighbour: Neighbour | None) -> float:
    return np.inf if neighbour is None else neighbour.gap


def _ttc(neighbour: Neighbour | None, speed: float) -> float:
    """Time to collision with `neighbour` when the ego holds `speed`."""
    if neighbour is None:
        return np.inf
    closing = speed - neighbour.speed if neighbour.dx >= 0 else neighbour.speed - speed
    return max(neighbour.gap, 0.0) / closing if closing > 0 else np.inf


def _recommend(scene: Scene, verdicts: tuple[ActionVerdict, ...], actions: ActionSet) -> tuple[int, str]:
    """Lane towards the goal if safe; else keep the gap; else catch up; else keep the speed."""
    safe = {actions.manoeuvres[v.action]: v for v in verdicts if v.safe}
    available = {actions.manoeuvres[v.action]: v for v in verdicts}
    side = _towards_goal(scene)
    if side in safe:
        return safe[side].action, f"a change to the {_side(side)} is safe and leads to the goal"
    if MetaAction.IDLE in available and MetaAction.IDLE not in safe:
        overtake = None if _has_goal_lane(scene) else _overtake(safe, available[MetaAction.IDLE])
        if overtake is not None:
            return safe[overtake].action, f"too close to the front car and the {_side(overtake)} lane is free"
        if MetaAction.SLOWER in safe:
            return safe[MetaAction.SLOWER].action, "too close to the front car: decelerate"
    elif MetaAction.FASTER in safe:
        return safe[MetaAction.FASTER].action, "the front car is far: catch up"
    elif MetaAction.IDLE in safe:
        return safe[MetaAction.IDLE].action, "keep the gap"
    best = max(safe.values() or verdicts, key=lambda v: min(v.ttc, 1e6))
    return best.action, "the largest time to collision that is left"


def _has_goal_lane(scene: Scene) -> bool:
    return scene.goal is not None and scene.goal.lane is not None


def _towards_goal(scene: Scene) -> MetaAction | None:
    if scene.goal is None or scene.goal.lane is None or scene.goal.lane == scene.ego.target_lane:
        return None
    return MetaAction.LANE_RIGHT if scene.goal.lane > scene.ego.target_lane else MetaAction.LANE_LEFT


def _overtake(safe: dict[MetaAction, ActionVerdict], stay: ActionVerdict) -> MetaAction | None:
    """The safe lane change with the most room ahead, if it beats staying by enough; the left one at equal room."""
    sides = [side for side in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT) if side in safe]
    better = [side for side in sides if safe[side].gap >= stay.gap + OVERTAKE_ROOM]
    return max(better, key=lambda side: safe[side].gap, default=None)


def _side(manoeuvre: MetaAction) -> str:
    return "right" if manoeuvre is MetaAction.LANE_RIGHT else "left"
