"""The engine's U-turn equals highway-env's bit for bit, and the comparison would notice if it did not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import oracle

KINDS = ("u-turn-v0", "u-turn-v1")
SETTINGS: dict[str, Any] = {
    "duration": 12,
    "simulation_frequency": 10,
    "policy_frequency": 2,
    "normalize_reward": False,
    "left_lane_reward": 0.7,
    "reward_speed_range": [0, 20],
    "action": {"target_speeds": [0, 10, 20, 30]},
    "observation": {
        "type": "Kinematics",
        "see_behind": True,
        "features": ["presence", "x", "y", "vx", "vy", "heading"],
    },
}
"""Options far from the defaults."""
QUICK: list[dict[str, Any]] = [
    {"scenario": "u-turn-v0", "seeds": [0, 4], "past_end": 2},
    {"scenario": "u-turn-v1", "seeds": [0, 4]},
    {"scenario": "u-turn-v1", "config": SETTINGS, "seeds": [4, 7]},
]
SCENES: list[dict[str, Any]] = [{"scenario": name, "scenes": 10, "winding": True} for name in KINDS]


@pytest.fixture(scope="module")
def quick() -> list[dict[str, Any]]:
    """Results of the quick jobs, all in one process: starting it takes as long as many episodes."""
    return oracle.run_all([*QUICK, *SCENES], processes=1)


def test_episodes_are_identical_from_their_seeds(quick):
    results = quick[: len(QUICK)]
    assert sum(result["decisions"] for result in results) > 80
    assert sum(result["outcomes"]["crash"] for result in results) > 0
    assert sum(result["continued"] for result in results) > 1


def test_scenes_that_no_rollout_reaches_are_identical(quick):
    assert sum(result["decisions"] for result in quick[len(QUICK) :]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_five_thousand_decisions_over_three_hundred_seeds_are_identical(name):
    jobs = [
        {"scenario": name, "config": config, "seeds": [100 * k, 100 * k + 100], "past_end": 10}
        for k, config in enumerate(({}, {}, SETTINGS))
    ]
    results = oracle.run_all(jobs)
    total = sum(result["decisions"] for result in results)
    print(f"{total:,} decisions over 300 seeds of {name} identical; {[result['outcomes'] for result in results]}")
    assert total >= 5000


@pytest.mark.slow
def test_hundreds_of_adversarial_scenes_are_identical():
    results = oracle.run_all([{"scenario": name, "scenes": 300, "winding": True} for name in KINDS])
    assert all(result["decisions"] >= 300 for result in results)


FAMILY = "sim/engine/families/u_turn.py"
ROADS, ROUTES, FRAMES = (f"sim/engine/{name}.py" for name in ("roads", "routes", "frames"))
FAULTS = {
    "all exponents drawn": (FAMILY, "            if k == 0:\n", "            if k >= 0:\n"),
    "no exponent drawn": (FAMILY, "            if k == 0:\n", "            if k < 0:\n"),
    "cars without routes": (FAMILY, "            body.route = 1 + body.lane\n", ""),
    "the ego has no route": (FAMILY, "        ego.route = 0\n", "        ego.route = -1\n"),
    "places of single cars swapped": (FAMILY, '("b", "c", 0, 17.5, 5.5)', '("b", "c", 0, 17.0, 5.5)'),
    "reward by the target lane": (FAMILY, "lane = nth(lanes[0], ego.lane)\n", "lane = nth(lanes[0], ego.target)\n"),
    "reward not clipped": (FAMILY, "clipped(linear(ego.speed, f.slow, f.fast))", "linear(ego.speed, f.slow, f.fast)"),
    "reward without the left lane's share": (FAMILY, "f.high_speed + f.left_lane)", "f.high_speed)"),
    "a route's first lane is not wanted": (ROUTES, "*start[:2], 0)), start[2])", "*start[:2], 0)), -1)"),
    "a lane of another road is kept by number": (ROADS, "lane.id if wanted < 0", "0 if wanted < 0"),
    "heading along an arc turned": (ROADS, "math.pi / 2 * lane.turn\n", "-math.pi / 2 * lane.turn\n"),
    "clearance without the offset": (ROADS, "needed = 2 * off", "needed = 0 * off"),
    "time-to-collision along the own lane alone": (FRAMES, "for k in range(frame.count):", "for k in range(1):"),
    "roads three crossings on unseen": (ROUTES, "DEPTH = 3", "DEPTH = 1"),
}
"""Slips that a port could make: (file, old text, new text)."""
JOBS: list[dict[str, Any]] = [
    {"scenario": "u-turn-v0", "seeds": [0, 16], "past_end": 5},
    {"scenario": "u-turn-v1", "config": SETTINGS, "seeds": [0, 12]},
    {"scenario": "u-turn-v1", "scenes": 60, "winding": True},
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    assert oracle.run(JOBS, FAULTS[name])[-1]["mismatch"]
