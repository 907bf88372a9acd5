"""The engine's road families equal highway-env bit for bit, and the comparison would notice if they did not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import oracle

FEW: dict[str, Any] = {"vehicles_count": 8}
CROWD: dict[str, Any] = {"vehicles_count": 15, "vehicles_density": 3.0}
SETTINGS: dict[str, Any] = {
    "lanes_count": 5,
    "vehicles_count": 7,
    "initial_lane_id": 2,
    "simulation_frequency": 10,
    "policy_frequency": 2,
    "duration": 6,
    "reward_speed_range": [10, 25],
    "normalize_reward": False,
    "offroad_terminal": True,
    "action": {"target_speeds": [0, 10, 20]},
    "observation": {
        "vehicles_count": 9,
        "features": ["presence", "x", "y", "vx", "vy", "heading", "cos_h", "sin_h"],
        "features_range": {"x": [-80, 80], "vx": [-20, 20]},
        "absolute": True,
        "clip": False,
        "see_behind": True,
    },
}
"""Options far from the defaults."""
TTC: dict[str, Any] = {"vehicles_count": 8, "observation": {"type": "TimeToCollision", "horizon": 6}}
OTHERS = ("merge-v0", "merge-v1", "merge-generic-v0", "merge-generic-v1", "exit-v0", "exit-v1", "two-way-v0")

QUICK: list[dict[str, Any]] = [
    {"scenario": "highway-fast-v0", "seeds": [0, 4], "past_end": 3},
    {"scenario": "highway-v0", "config": FEW, "seeds": [0, 2], "past_end": 3},
    {"scenario": "highway-v0", "config": SETTINGS, "seeds": [0, 8]},
    {"scenario": "highway-v0", "config": TTC, "seeds": [0, 2]},
    {"scenario": "highway-fast-v0", "config": FEW | {"action": {"lateral": False}}, "seeds": [0, 2]},
    *({"scenario": name, "seeds": [0, 2 if "exit" in name else 3], "past_end": 3} for name in OTHERS),
]
SCENES: list[dict[str, Any]] = [
    {"scenario": "highway-v0", "config": {"vehicles_count": 5}, "scenes": 12},
    {"scenario": "highway-fast-v0", "config": {"vehicles_count": 5}, "scenes": 30},
    *({"scenario": name, "scenes": 10} for name in ("merge-v0", "merge-v1", "exit-v0", "two-way-v0")),
]


@pytest.fixture(scope="module")
def quick() -> list[dict[str, Any]]:
    """Results of the quick jobs, all in one process: starting it takes as long as many episodes."""
    return oracle.run_all([*QUICK, *SCENES], processes=1)


def test_episodes_are_identical_from_their_seeds(quick):
    results = quick[: len(QUICK)]
    assert sum(result["decisions"] for result in results) > 250
    assert all(result["outcomes"]["crash"] for result in results[:1])
    assert sum(result["continued"] for result in results) > 2


def test_scenes_that_no_rollout_reaches_are_identical(quick):
    results = quick[len(QUICK) :]
    assert sum(result["decisions"] for result in results) > 100


def test_an_unpinned_highway_env_agrees_until_the_first_contact():
    result = oracle.compare({"scenario": "highway-fast-v0", "config": FEW, "seeds": [0, 4], "tolerance": 1e-9})
    assert result["mismatch"] is None
    assert result["decisions"] > 40


@pytest.mark.slow
def test_a_hundred_thousand_decisions_over_a_thousand_seeds_are_identical():
    jobs: list[dict[str, Any]] = [
        {"scenario": "highway-fast-v0", "seeds": [start, start + 100], "limit": 30, "past_end": 90}
        for start in range(0, 900, 100)
    ]
    jobs += [{"scenario": "highway-v0", "seeds": [start, start + 20], "past_end": 5} for start in range(900, 960, 20)]
    jobs += [
        {"scenario": "highway-v0", "config": CROWD, "seeds": [start, start + 20], "limit": 40, "past_end": 40}
        for start in range(960, 1000, 20)
    ]
    results = oracle.run_all(jobs)
    total = sum(result["decisions"] for result in results)
    print(f"{total:,} decisions over 1,000 seeds of highway-fast-v0 and highway-v0 identical")
    assert total >= 100_000


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_two_thousand_decisions_of_the_other_kinds_are_identical(name):
    jobs = [{"scenario": name, "seeds": [start, start + 60], "past_end": 10} for start in (0, 60)]
    assert sum(result["decisions"] for result in oracle.run_all(jobs)) > 2000


@pytest.mark.slow
def test_thousands_of_adversarial_scenes_are_identical():
    results = oracle.run_all([job | {"scenes": 10 * job["scenes"]} for job in SCENES])
    assert sum(result["decisions"] for result in results) > 5000


TRAFFIC, NEIGHBOURS, CONTACTS = (f"sim/engine/{name}.py" for name in ("traffic", "neighbours", "contacts"))
ROADS, ROAD, MOTION = (f"sim/engine/{name}.py" for name in ("roads", "road", "motion"))
OBSERVE, GRID = (f"sim/engine/observe/{name}.py" for name in ("kinematics", "time_to_collision"))
HIGHWAY = "sim/engine/families/highway.py"
KINEMATICS, SIZES = "sim/kinematics.py", "sim/sizes.py"
FAULTS = {
    "left lane wins": (TRAFFIC, "for side in (-1, 1):", "for side in (1, -1):"),
    "timer at its limit counts": (
        TRAFFIC,
        "elif body.timer > LANE_CHANGE_DELAY",
        "elif body.timer >= LANE_CHANGE_DELAY",
    ),
    "speed without sign in the pre-check": (CONTACTS, "/ 2 + body.speed * dt:", "/ 2 + abs(body.speed) * dt:"),
    "first push is kept": (CONTACTS, "    if soon:\n", "    if soon and not body.pushed:\n"),
    "push crashes at once": (CONTACTS, "    if now:\n", "    if now or soon:\n"),
    "push of an obstacle is halved": (CONTACTS, "share = 1.0 if obstacle else 2.0", "share = 2.0"),
    "vehicles decide in another order": (
        TRAFFIC,
        "in range(first, env.vehicles):\n        _idm",
        "in range(env.vehicles - 1, first - 1, -1):\n        _idm",
    ),
    "position rounded": (
        MOTION,
        "body.x += body.speed * dt",
        "body.x = round(body.x + body.speed * dt, 6)",
    ),
    "speed halves round up": (KINEMATICS, "np.round(x * (count - 1))", "np.floor(x * (count - 1) + 0.5)"),
    "no margin beside a lane": (SIZES, "LANE_MARGIN = 1.0", "LANE_MARGIN = 0.0"),
    "first of equals is ahead": (NEIGHBOURS, "> listed(env, best))", "< listed(env, best))"),
    "last of equals is behind": (
        NEIGHBOURS,
        "listed(env, j) < listed(env, best))",
        "listed(env, j) > listed(env, best))",
    ),
    "level bodies not told apart": (NEIGHBOURS, "LEVEL = 1e-9", "LEVEL = -1.0"),
    "closest lane regardless of heading": (ROADS, "total += 1.0 * angle", "total += 0.0 * angle"),
    "wrecks decide": (TRAFFIC, "    if body.crashed:\n        return\n", ""),
    "wrecks do not brake": (MOTION, "0.0, -1.0 * body.speed", "0.0, 0.0"),
    "followers keep their own exponent": (
        TRAFFIC,
        "_free_road(follower, lanes, p, body.delta)",
        "_free_road(follower, lanes, p, follower.delta)",
    ),
    "no speed limit": (
        TRAFFIC,
        "min(max(body.target_speed, 0.0), nth(lanes, body.lane).speed_limit)",
        "max(body.target_speed, 0.0)",
    ),
    "FASTER counts from the set-point": (
        TRAFFIC,
        "kinematics.speed_index(ego.speed, p.speeds[: p.set_points])",
        "env.speed_index",
    ),
    "the action is repeated": (ROAD, "        meaning = NONE\n", ""),
    "changes are never given up": (TRAFFIC, "if 0 < d < _desired_gap", "if 0 < d < -_desired_gap"),
    "reversing cars do not change": (TRAFFIC, "if abs(body.speed) < 1:", "if body.speed < 1:"),
    "no top speed": (KINEMATICS, "    if speed > fastest:\n", "    if speed > 2 * fastest:\n"),
    "velocity not projected": (TRAFFIC, "(body.vy - other.vy) * body.sin", "0.0"),
    "target lane's leader ignored": (TRAFFIC, "ego, front_in(env, ego, lanes, i, body.target)", "ego, -1"),
    "speed drawn before the lane": (
        HIGHWAY,
        "speed = uniform(0.7",
        "n = next_below(env.stream, f.lanes)\n            speed = uniform(0.7",
    ),
    "seen too little behind": (OBSERVE, "ahead > -2 * CAR_LENGTH", "ahead > -1 * CAR_LENGTH"),
    "observation not clipped": (OBSERVE, "if p.obs_clip:", "if False:"),
    "reward by the present lane": (HIGHWAY, "nth(lanes[0], ego.target).id", "nth(lanes[0], ego.lane).id"),
    "time to collision rounded once": (GRID, "math.ceil(ttc / p.period)", "math.floor(ttc / p.period)"),
    "obstacle unseen": ("sim/engine/spawn.py", "    env.bodies += 1\n", "    env.bodies += 0\n"),
    "no offset across a border": (
        ROADS,
        '["reach_offsets"][: len(reach)] = [offset for',
        '["reach_offsets"][: len(reach)] = [0.0 for',
    ),
}
"""Slips that a port could make: (file, old text, new text)."""
JOBS: list[dict[str, Any]] = [
    *(job | {"scenes": 150} for job in SCENES[:3]),
    {"scenario": "highway-fast-v0", "seeds": [0, 40], "past_end": 3},
    {"scenario": "merge-v1", "seeds": [0, 30]},
    {"scenario": "two-way-v0", "seeds": [0, 20]},
    {
        "scenario": "highway-v0",
        "config": {"vehicles_count": 2, "action": {"target_speeds": [20, 40, 60]}},
        "seeds": [0, 8],
    },
    {"scenario": "highway-v0", "config": TTC, "seeds": [0, 8]},
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    assert oracle.run(JOBS, FAULTS[name])[-1]["mismatch"]
