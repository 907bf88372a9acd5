"""The engine's circuits equal highway-env bit for bit, and the comparison would notice if they did not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import oracle

SEEN: dict[str, Any] = {"observation": {"type": "Kinematics", "features": ["presence", "x", "y", "vx", "vy"]}}
CROWD: dict[str, Any] = SEEN | {"other_vehicles": 6}
BOTH: dict[str, Any] = {"action": {"longitudinal": True}}
BLOCKED: dict[str, Any] = SEEN | {"block_lane": True, "force_decision": True, "other_vehicles": 3}
SLIPPING: dict[str, Any] = {"no_lanes": 5, "action": {"longitudinal": True, "dynamical": True}}
GRID: dict[str, Any] = {"action": {"type": "DiscreteAction", "longitudinal": False, "actions_per_axis": 9}}
ONWARDS: dict[str, Any] = {"terminate_off_road": False, "duration": 20}

KINDS: list[dict[str, Any]] = [
    {"scenario": "racetrack-v1", "config": {"other_vehicles": 6}},
    {"scenario": "racetrack-v0", "config": CROWD | BOTH},
    {"scenario": "racetrack-large-v1", "config": CROWD | GRID},
    {"scenario": "racetrack-large-v0", "config": SEEN | ONWARDS | {"other_vehicles": 0, "action_reward": 0.7}},
    {"scenario": "racetrack-oval-v1", "config": BLOCKED},
    {"scenario": "racetrack-oval-v0", "config": CROWD | SLIPPING},
]


def test_a_few_episodes_are_identical():
    results = oracle.run_all([job | {"seeds": [0, 4], "limit": 16, "past_end": 3} for job in KINDS], processes=1)
    assert sum(result["decisions"] for result in results) > 150
    assert sum(result["outcomes"]["missed"] for result in results) > 5


@pytest.mark.slow
def test_ten_thousand_decisions_over_360_seeds_are_identical():
    jobs = [job | {"seeds": [start, start + 30], "limit": 120, "past_end": 15} for job in KINDS for start in (0, 30)]
    results = oracle.run_all(jobs)
    total, crashes = (
        sum(each) for each in zip(*((r["decisions"], r["outcomes"]["crash"]) for r in results), strict=True)
    )
    print(f"{total:,} decisions over 360 seeds identical; {crashes} crashes among them")
    assert total >= 10_000
    assert crashes > 10


RACETRACK = "sim/engine/families/racetrack.py"
FAULTS = {
    "one place drawn too many": (
        RACETRACK,
        "    s, speed = uniform(0.0, length",
        "    next_below(env.stream, 2)\n    s, speed = uniform(0.0, length",
    ),
    "faster cars": (RACETRACK, "uniform(0.0, 3.0, env.stream)", "uniform(0.0, 3.5, env.stream)"),
    "cars may start close to each other": (RACETRACK, ".length, SPAWN_DISTANCE)", ".length, 0.5 * SPAWN_DISTANCE)"),
    "length of the present lane": (
        RACETRACK,
        "after_start + lane, nth(first, f.after_start).length",
        "after_start + lane, nth(first, f.after_start + lane).length",
    ),
    "rewards in double precision": (
        RACETRACK,
        "np.float64(np.float32(centering) + effort + np.float32(crash))",
        "centering + effort + crash",
    ),
    "rewards in single precision": (
        RACETRACK,
        "return centering + np.float64(effort) + crash",
        "return np.float64(np.float32(centering) + effort + np.float32(crash))",
    ),
    "squares instead of powers": (RACETRACK, "math.pow(lateral, f.two)", "(lateral * lateral)"),
    "only the first component is costly": (RACETRACK, "np.sqrt(a * a + b * b)", "np.sqrt(a * a)"),
    "the clipped action is costly": (
        "sim/engine/ego_actions.py",
        "GIVEN + self.width] = actions",
        "GIVEN + self.width] = np.clip(actions, -1, 1)",
    ),
    "reward off the road": (RACETRACK, "        if on_road:\n", "        if True:\n"),
    "clocks by counting": (RACETRACK, "env.time >= f.duration", "env.steps * params[0].period >= f.duration + 0.1"),
    "obstacles too wide apart": (RACETRACK, "y in (3.75, 6.25)", "y in (3.7, 6.25)"),
    "no neighbours across borders": (
        "sim/engine/road_batch.py",
        "bool(config.neighbour_vehicles_connected_lanes)",
        "False",
    ),
}
"""Slips that a port could make: (file, old text, new text)."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    jobs = [job | {"seeds": [0, 40], "limit": 120, "past_end": 5} for job in KINDS]
    assert oracle.run(jobs, FAULTS[name])[-1]["mismatch"]
