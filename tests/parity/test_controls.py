"""Egos driven by acceleration and steering equal highway-env's bit for bit, and the comparison would notice a slip."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import oracle

SLOW: dict[str, Any] = {"vehicles_count": 6, "vehicles_density": 2.0, "duration": 12, "policy_frequency": 5}
"""Traffic so near, and decisions so frequent, that controls meet it."""
UNCLIPPED: dict[str, Any] = {
    "type": "ContinuousAction",
    "acceleration_range": [-8, 4],
    "steering_range": [-0.3, 0.4],
    "speed_range": [5, 27],
    "clip": False,
}
GRID: dict[str, Any] = {
    "type": "DiscreteAction",
    "actions_per_axis": 4,
    "dynamical": True,
    "steering_range": [-2, 2],  # beyond what a bicycle takes
}
FORMS: dict[str, dict[str, Any]] = {
    "both": {"type": "ContinuousAction"},
    "acceleration": {"type": "ContinuousAction", "lateral": False},
    "steering": {"type": "ContinuousAction", "longitudinal": False, "steering_range": [-0.1, 0.1]},
    "unclipped": UNCLIPPED,
    "slipping": {"type": "ContinuousAction", "dynamical": True},
    "slipping, steering": {"type": "ContinuousAction", "longitudinal": False, "dynamical": True},
    "grid": {"type": "DiscreteAction"},
    "grid, slipping": GRID,
    "grid of accelerations": {"type": "DiscreteAction", "lateral": False, "actions_per_axis": 5},
}


def jobs(seeds: int, limit: int, past_end: int) -> list[dict[str, Any]]:
    """Every form of control on a fast highway, and controls where rewards and neighbours treat them specially."""
    count = {"seeds": [0, seeds], "limit": limit, "past_end": past_end}
    merge = {"scenario": "merge-v0", "seeds": [0, seeds], "limit": limit, "past_end": past_end}
    return [
        *({"scenario": "highway-fast-v0", "config": SLOW | {"action": action}, **count} for action in FORMS.values()),
        merge | {"config": {"action": FORMS["acceleration"]}},
        merge | {"config": {"action": FORMS["grid"]}},
    ]


def test_a_few_episodes_with_every_form_of_control_are_identical():
    results = oracle.run_all(jobs(seeds=2, limit=8, past_end=2), processes=1)
    assert sum(result["decisions"] for result in results) > 150


@pytest.mark.slow
def test_ten_thousand_decisions_with_controls_are_identical():
    results = oracle.run_all(jobs(seeds=60, limit=40, past_end=5))
    total, crashes = (
        sum(each) for each in zip(*((r["decisions"], r["outcomes"]["crash"]) for r in results), strict=True)
    )
    print(f"{total:,} decisions with controls identical; {crashes} crashes among them")
    assert total >= 10_000
    assert crashes > 50


ACTIONS, BICYCLE, MOTION = (f"sim/engine/{name}.py" for name in ("ego_actions", "bicycle", "motion"))
FAULTS = {
    "actions clipped that should not be": (ACTIONS, "if self._clip else actions", "if True else actions"),
    "double precision": (ACTIONS, "low + (bounded[:, k] - -1)", "low + (bounded[:, k].astype(float) - -1)"),
    "first axis runs fastest": (
        ACTIONS,
        "itertools.product(*axes)",
        "sorted(itertools.product(*axes), key=lambda a: a[::-1])",
    ),
    "no speed range": (ACTIONS, "return tuple(chosen) if chosen else", "return"),
    "axes swapped": (
        ACTIONS,
        "ACCELERATION, STEERING, GIVEN, GIVEN_SECOND = range(4)",
        "STEERING, ACCELERATION, GIVEN, GIVEN_SECOND = range(4)",
    ),
    "a push moves the bicycle": (
        MOTION,
        "        bicycle.move(env, ego, dt)\n",
        "        bicycle.move(env, ego, dt)\n        ego.x += ego.push_x * ego.pushed\n",
    ),
    "Euler instead of Runge-Kutta": (BICYCLE, "(f1 + (2 * f2) + (2 * f3) + f4)", "(f1 * 6)"),
    "no damping at a crawl": (BICYCLE, "if abs(speed) < CRAWL:", "if abs(speed) < 0:"),
    "yaw rate not limited": (
        BICYCLE,
        "r1 = kinematics.clip(env.yaw_rate, -MAX_YAW_RATE, MAX_YAW_RATE)",
        "r1 = env.yaw_rate",
    ),
    "steering not limited": (
        BICYCLE,
        "steering = ego.steering = kinematics.clip(ego.steering, -math.pi / 2, math.pi / 2)",
        "steering = ego.steering",
    ),
    "rear tyres steer": (BICYCLE, "(0.0 - math.atan2(", "(steering - math.atan2("),
    "cars follow the ego's own target speed": (
        "sim/engine/road.py",
        "ego.target_speed = env.lateral_speed",
        "env.lateral_speed",
    ),
    "the ego's delay counts in a merge": (
        "sim/engine/families/merge.py",
        "range(0 if p.ego_kind == MDP else 1, env.vehicles)",
        "range(env.vehicles)",
    ),
    "the ego keeps a target lane": (MOTION, "    ego.target = ego.lane\n", "    ego.target = ego.target\n"),
}
"""Slips that a port could make: (file, old text, new text)."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    assert oracle.run(jobs(seeds=20, limit=30, past_end=5), FAULTS[name])[-1]["mismatch"]
