"""Parking on the engine equals highway-env bit for bit, and the comparison would notice if it did not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import oracle

EASY: dict[str, Any] = {"success_goal_reward": 0.3}
"""Driving straight to the goal is enough then."""
FULL: dict[str, Any] = {"vehicles_count": 30, "observation": {"type": "LidarObservation"}}
"""More cars than spots."""
SLIPPING: dict[str, Any] = {
    "action": {"dynamical": True},
    "observation": {
        "type": "Kinematics",
        "features": ["presence", "x", "y", "cos_h", "lat_off", "cos_d"],
        "vehicles_count": 9,
    },
}
SETTINGS: dict[str, Any] = {
    "add_walls": False,
    "vehicles_count": 3,
    "reward_weights": [0.7, 0.4, 0.1, 0.2, 0.03, 0.05],
    "collision_reward": -2.5,
    "simulation_frequency": 10,
    "duration": 8,
    "action": {"type": "DiscreteAction", "actions_per_axis": 4},
    "observation": {"features": ["sin_h", "y", "presence"], "scales": [2, 50, 3]},
}
"""Options far from the defaults."""
JOBS: list[dict[str, Any]] = [
    {"scenario": "parking-v0", "config": EASY},
    {"scenario": "parking-parked-v0", "config": {}},
    {"scenario": "parking-ActionRepeat-v0", "config": {}},
    {"scenario": "parking-parked-v0", "config": FULL},
    {"scenario": "parking-parked-v0", "config": SLIPPING},
    {"scenario": "parking-v0", "config": SETTINGS},
]


def test_a_few_episodes_are_identical():
    jobs = [job | {"seeds": [0, 4], "limit": 25, "past_end": 8} for job in JOBS]
    results = oracle.run_all(jobs, processes=1)
    assert sum(result["decisions"] for result in results) > 500
    ends = {end: sum(result["outcomes"][end] for result in results) for end in ("crash", "success", "missed")}
    assert all(ends.values()), ends


@pytest.mark.slow
def test_ten_thousand_decisions_over_360_seeds_are_identical():
    results = oracle.run_all([job | {"seeds": [0, 60], "limit": 60, "past_end": 20} for job in JOBS])
    total = sum(result["decisions"] for result in results)
    print(f"{total:,} decisions over 360 seeds identical")
    assert total >= 10_000


PARKING, LOT, GOAL = "sim/engine/families/parking.py", "sim/engine/lot.py", "sim/engine/observe/goal.py"
CONTACTS, TRAFFIC = "sim/engine/contacts.py", "sim/engine/traffic.py"
FAULTS = {
    "the goal may be the ego's own spot": (PARKING, "if n != ego.lane:", "if True:"),
    "a spot is taken twice": (PARKING, "        free[k] = free[k + 1]\n", "        free[k] = free[k]\n"),
    "cars drawn before the goal": (
        PARKING,
        "        goal = _take_spot(env, free, count)\n",
        "        next_below(env.stream, 2)\n        goal = _take_spot(env, free, count)\n",
    ),
    "half a turn at most": (PARKING, "2.0 * math.pi * next_double", "math.pi * next_double"),
    "parked at the kerb": (PARKING, "PARKED_AT = 4.0", "PARKED_AT = 2.5"),
    "goal faces the other way": (PARKING, "x, y, lane.heading, OBSTACLE_SIZE", "x, y, -lane.heading, OBSTACLE_SIZE"),
    "walls of no thickness": (
        PARKING,
        "WIDTH, HEIGHT, THICKNESS = 70.0, 42.0, 1.0",
        "WIDTH, HEIGHT, THICKNESS = 70.0, 42.0, 0.1",
    ),
    "reward by the scales of the observation": (PARKING, "SCALES = (100.0, 100.0, 5.0", "SCALES = (50.0, 50.0, 5.0"),
    "reward without the root": (PARKING, "return -math.sqrt(total)", "return -total"),
    "success when on the edge": (PARKING, "near > -f.success", "near > -1.05 * f.success"),
    "crashes are free": (PARKING, "f.collision * float(ego.crashed)", "0.0"),
    "goals can be hit": (LOT, "not landmark and not _clear_of", "not _clear_of"),
    "walls are as short as cars": (LOT, "abs(along) - body.length / 2", "abs(along) - 2.5"),
    "pushed cars stay": (
        TRAFFIC,
        "        if body.pushed:\n            move_car(",
        "        if False:\n            move_car(",
    ),
    "push of a wall is halved": (CONTACTS, "share = 1.0 if obstacle else 2.0", "share = 2.0"),
    "wall as wide as long": (CONTACTS, "other.width / 2 if obstacle", "other.length / 2 if obstacle"),
    "goal without scale": (GOAL, "p, goal) / g.scales[k]", "p, goal)"),
}
"""Slips that a port could make: (file, old text, new text)."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    jobs = [job | {"seeds": [0, 40], "limit": 60, "past_end": 10} for job in JOBS]
    assert oracle.run(jobs, FAULTS[name])[-1]["mismatch"]
