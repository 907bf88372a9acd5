"""The engine's crossings equal highway-env bit for bit, and the comparison would notice if they did not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import oracle

CROWD: dict[str, Any] = {"initial_vehicle_count": 30, "spawn_probability": 1.0, "destination": None, "duration": 20}
SETTINGS: dict[str, Any] = {
    "simulation_frequency": 10,
    "policy_frequency": 2,
    "duration": 8,
    "destination": "o2",
    "normalize_reward": True,
    "offroad_terminal": True,
    "reward_speed_range": [2.0, 8.0],
    "action": {"longitudinal": True, "lateral": True, "target_speeds": [0, 3, 6, 9, 12]},
    "observation": {
        "features": ["presence", "x", "y", "vx", "vy", "heading", "cos_d", "sin_d", "long_off", "lat_off", "ang_off"],
        "observe_intentions": True,
        "absolute": False,
        "see_behind": True,
        "order": "shuffled",
    },
}
"""Options far from the defaults; shuffled observations draw from the stream that the traffic comes from."""
TTC: dict[str, Any] = {"observation": {"type": "TimeToCollision", "horizon": 6}, "destination": None}
PLAIN: dict[str, Any] = {"action": {"dynamical": False}, "initial_vehicle_count": 14}

QUICK: list[dict[str, Any]] = [
    {"scenario": "intersection-v0", "seeds": [0, 4], "past_end": 3},
    {"scenario": "intersection-v2", "seeds": [6, 8], "past_end": 3},
    {"scenario": "intersection-v1", "seeds": [2, 4], "past_end": 3},
    {"scenario": "intersection-v2", "config": SETTINGS, "seeds": [0, 2]},
]
SCENES: list[dict[str, Any]] = [
    {"scenario": "intersection-v0", "scenes": 12},
    {"scenario": "intersection-v2", "scenes": 6},
]
LONG: list[dict[str, Any]] = [
    *(
        {"scenario": name, "seeds": [start, start + 40], "past_end": 8}
        for name in ("intersection-v0", "intersection-v2")
        for start in (0, 40, 80)
    ),
    *({"scenario": "intersection-v1", "seeds": [start, start + 40], "past_end": 8} for start in (0, 40, 80)),
    *(
        {"scenario": name, "config": CROWD, "seeds": [200, 215], "past_end": 8}
        for name in ("intersection-v0", "intersection-v1", "intersection-v2")
    ),
    {"scenario": "intersection-v2", "config": SETTINGS, "seeds": [300, 320], "past_end": 4},
    {"scenario": "intersection-v0", "config": TTC, "seeds": [320, 340], "past_end": 4},
    {"scenario": "intersection-v1", "config": PLAIN, "seeds": [340, 360], "past_end": 8},
]


@pytest.fixture(scope="module")
def quick() -> list[dict[str, Any]]:
    """Results of the quick jobs, all in one process: starting it takes as long as many episodes."""
    return oracle.run_all([*QUICK, *SCENES], processes=1)


def test_episodes_are_identical_from_their_seeds(quick):
    results = quick[: len(QUICK)]
    assert sum(result["decisions"] for result in results) > 90
    assert sum(result["outcomes"]["crash"] for result in results) > 1
    assert sum(result["continued"] for result in results) > 1


def test_scenes_that_no_rollout_reaches_are_identical(quick):
    assert sum(result["decisions"] for result in quick[len(QUICK) :]) > 20


@pytest.mark.slow
def test_five_thousand_decisions_over_three_hundred_seeds_are_identical():
    results = oracle.run_all(LONG)
    seeds = sum(job["seeds"][1] - job["seeds"][0] for job in LONG)
    total = sum(result["decisions"] for result in results)
    print(f"{total:,} decisions over {seeds} seeds of intersections identical")
    assert total >= 5_000
    assert seeds >= 300
    for end in ("crash", "success", "missed"):
        assert sum(result["outcomes"][end] for result in results) > 10


@pytest.mark.slow
def test_hundreds_of_adversarial_scenes_are_identical():
    results = oracle.run_all([job | {"scenes": 40 * job["scenes"]} for job in SCENES])
    assert sum(result["decisions"] for result in results) > 800


FAMILY, REGULATION = "sim/engine/families/intersection.py", "sim/engine/regulation.py"
BODIES, CONTACTS, TRAFFIC = (f"sim/engine/{name}.py" for name in ("bodies", "contacts", "traffic"))
FAULTS = {
    "the one ahead yields": (REGULATION, "one.sin * dy > other.cos", "one.sin * dy < other.cos"),
    "lower priority goes first": (REGULATION, "return j if first > second", "return j if first < second"),
    "points turned the right way": (REGULATION, "other_c * dx - other_s * dy", "other_c * dx + other_s * dy"),
    "rectangles as large as the cars": (REGULATION, "1.5 * CAR_LENGTH / 2", "1.0 * CAR_LENGTH / 2"),
    "one pose too few": (REGULATION, "POSES = 11", "POSES = 10"),
    "predicted along the present lane": (
        REGULATION,
        "p, here, route, step)) if routed else here",
        "p, here, route, step)) if False else here",
    ),
    "stopped for good": (REGULATION, "        if body.yielding:\n", "        if body.yielding and False:\n"),
    "a slipping ego predicted without steering": (
        REGULATION,
        "    ego.acceleration = 0.0\n",
        "    ego.acceleration = ego.steering = 0.0\n",
    ),
    "regulated a step later": (TRAFFIC, "env.road_steps % p.regulation == 0", "env.road_steps % p.regulation == 1"),
    "leaving cars stay longer": (FAMILY, "LEAVING_DISTANCE = 4 * 5.0", "LEAVING_DISTANCE = 3 * 5.0"),
    "cars come closer to others": (
        FAMILY,
        "SPAWN_DISTANCE, EGO_DISTANCE = 15.0",
        "SPAWN_DISTANCE, EGO_DISTANCE = 14.0",
    ),
    "the challenger's speed varies": (FAMILY, "60.0, 0.1, 0.0, 1.0, True", "60.0, 0.1, 1.0, 1.0, True"),
    "a second less of traffic": (FAMILY, "WARM_UP = 3", "WARM_UP = 2"),
    "traffic brakes as on a highway": (FAMILY, "COMFORT_ACC_MIN = 6.0, -3.0", "COMFORT_ACC_MIN = 6.0, -5.0"),
    "arrived a metre before": (FAMILY, "EXIT_DISTANCE = 25.0", "EXIT_DISTANCE = 24.0"),
    "certain cars draw nothing": (
        FAMILY,
        "if next_double(env.stream) > probability",
        "if probability < 1.0 and next_double(env.stream) > probability",
    ),
    "all ways are open to a car that goes straight on": (FAMILY, "    if straight:\n", "    if False:\n"),
    "arms drawn without a shuffle": (
        "sim/engine/rng.py",
        "if next_below(stream, 2) == 0 else (first",
        "if False else (first",
    ),
    "the ego's place forgotten": (BODIES, "    if i <= env.place:\n        env.place -= 1\n", ""),
    "the ego's contacts come last": (
        CONTACTS,
        "contact(env, ego, row_of(env, i), row_of(env, j), dt)",
        "contact(env, ego, row_of(env, j), row_of(env, i), dt)",
    ),
}
"""Slips that a port could make: (file, old text, new text)."""
JOBS: list[dict[str, Any]] = [
    {"scenario": "intersection-v0", "seeds": [0, 12], "past_end": 3},
    {"scenario": "intersection-v1", "seeds": [0, 6], "past_end": 3},
    {"scenario": "intersection-v2", "config": CROWD, "seeds": [0, 6]},
    {"scenario": "intersection-v0", "scenes": 150},
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    assert oracle.run(JOBS, FAULTS[name])[-1]["mismatch"]
