"""The engine's roundabouts equal highway-env's bit for bit, and the comparison would notice if they did not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import oracle

KINDS = ("roundabout-v0", "roundabout-v1", "roundabout-generic-v0", "roundabout-generic-v1")
SETTINGS: dict[str, Any] = {
    "incoming_vehicle_destination": 1,
    "duration": 6,
    "policy_frequency": 2,
    "normalize_reward": False,
    "collision_reward": -2.0,
    "lane_change_reward": -0.5,
    "action": {"target_speeds": [0, 5, 10, 15]},
    "observation": {"type": "TimeToCollision", "horizon": 8},
}
"""Options far from the defaults; the grid looks ahead along the ego's route."""
WIDE: dict[str, Any] = {"roundabout_radius": 33.5, "roundabout_lanes": 3, "vehicles_count": 8}
NARROW: dict[str, Any] = {"roundabout_radius": 14, "roundabout_lanes": 1, "incoming_vehicle_destination": 2}
QUICK: list[dict[str, Any]] = [
    {"scenario": "roundabout-v0", "seeds": [0, 4], "limit": 9, "past_end": 2},
    {"scenario": "roundabout-v1", "seeds": [0, 2], "limit": 9},
    {"scenario": "roundabout-v0", "config": SETTINGS, "seeds": [0, 2], "limit": 8},
    {"scenario": "roundabout-generic-v0", "config": NARROW, "seeds": [0, 2], "limit": 6},
    {"scenario": "roundabout-generic-v1", "config": WIDE, "seeds": [1, 3], "limit": 6},
]
SCENES: list[dict[str, Any]] = [{"scenario": name, "scenes": 5, "winding": True} for name in KINDS[:2]]


@pytest.fixture(scope="module")
def quick() -> list[dict[str, Any]]:
    """Results of the quick jobs, all in one process: starting it takes as long as many episodes."""
    return oracle.run_all([*QUICK, *SCENES], processes=1)


def test_episodes_are_identical_from_their_seeds(quick):
    results = quick[: len(QUICK)]
    assert sum(result["decisions"] for result in results) > 70
    assert sum(result["outcomes"]["crash"] for result in results) > 0
    assert sum(result["continued"] for result in results) > 0


def test_scenes_that_no_rollout_reaches_are_identical(quick):
    assert sum(result["decisions"] for result in quick[len(QUICK) :]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_five_thousand_decisions_over_three_hundred_seeds_are_identical(name):
    parts: list[dict[str, Any]] = [{}, {}, SETTINGS] if "generic" not in name else [{}, WIDE, NARROW]
    jobs = [
        {"scenario": name, "config": config, "seeds": [100 * k, 100 * k + 100], "past_end": 9}
        for k, config in enumerate(parts)
    ]
    results = oracle.run_all(jobs)
    total = sum(result["decisions"] for result in results)
    print(f"{total:,} decisions over 300 seeds of {name} identical; {[result['outcomes'] for result in results]}")
    assert total >= 5000


@pytest.mark.slow
def test_hundreds_of_adversarial_scenes_are_identical():
    results = oracle.run_all([{"scenario": name, "scenes": 100, "winding": True} for name in KINDS])
    assert all(result["decisions"] >= 100 for result in results)


ROADS, ROUTES, FRAMES = (f"sim/engine/{name}.py" for name in ("roads", "routes", "frames"))
FAMILY = "sim/engine/families/roundabout.py"
FAULTS = {
    "destination drawn after the exponent": (
        FAMILY,
        "    if destination < 0:\n        destination = next_below(env.stream, exits)\n"
        "    body.route = 1 + body.lane * exits + destination\n    body.delta = uniform(3.5, 4.5, env.stream)\n",
        "    body.delta = uniform(3.5, 4.5, env.stream)\n    if destination < 0:\n"
        "        destination = next_below(env.stream, exits)\n    body.route = 1 + body.lane * exits + destination\n",
    ),
    "routes counted from the spawn lane's road": (FAMILY, "1 + body.lane * exits", "1 + (body.lane // 2 * 2) * exits"),
    "the ego has no route": (FAMILY, "    ego.route = 0\n", ""),
    "reward by the present speed": (FAMILY, "env.speed_index / (len", "ego.speed / 8 / (len"),
    "reward off the road": (FAMILY, "1.0 if on_road(ego, lanes[0]) else 0.0", "1.0"),
    "spawned too near": (FAMILY, "SPAWN_DISTANCE = 7.0", "SPAWN_DISTANCE = 5.0"),
    "speed drawn before the place": (
        FAMILY,
        "    at = s + next_normal(env.stream) * 2.0\n"
        "    body = add_vehicle(env, ego, lanes, n, at, 16.0 + next_normal(env.stream) * 2.0)",
        "    speed = 16.0 + next_normal(env.stream) * 2.0\n"
        "    body = add_vehicle(env, ego, lanes, n, s + next_normal(env.stream) * 2.0, speed)",
    ),
    "a route's first lane is not wanted": (ROUTES, "*start[:2], 0)), start[2])", "*start[:2], 0)), -1)"),
    "steps of a route are not dropped": (
        ROADS,
        "step += 1  # the first",
        "step += 0  # the first",
    ),
    "boxes too small": (ROADS, "slack += lane.width / 2 + LANE_MARGIN + ROUNDING", "slack -= 1.0"),
    "near lanes forgotten": (ROADS, "near |= ONE << np.uint64(m)", "near |= ONE << np.uint64(n)"),
    "coordinates of the last place": (ROADS, " or body.known_x != body.x or body.known_y != body.y", ""),
    "arcs wrapped one turn on": (
        ROADS,
        "phi = start + kinematics.wrap_to_pi(angle - start)",
        "phi = start + kinematics.modulo(angle - start, 2 * math.pi)",
    ),
    "time-to-collision along the own lane alone": (FRAMES, "for k in range(frame.count):", "for k in range(1):"),
    "roads ahead regardless of the route": (ROUTES, "if route < 0:", "if route < 99:"),
}
"""Slips that a port could make: (file, old text, new text)."""
JOBS: list[dict[str, Any]] = [
    {"scenario": "roundabout-v0", "seeds": [0, 12], "past_end": 9},
    {"scenario": "roundabout-v0", "config": SETTINGS, "seeds": [0, 6]},
    {"scenario": "roundabout-generic-v1", "seeds": [0, 12]},
    {"scenario": "roundabout-v1", "scenes": 40, "winding": True},
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    assert oracle.run(JOBS, FAULTS[name])[-1]["mismatch"]
