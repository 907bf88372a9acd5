"""Lane keeping on the engine equals highway-env bit for bit, and the comparison would notice if it did not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import oracle

SEEN: dict[str, Any] = {
    "observation": {"type": "Kinematics", "features": ["presence", "x", "y", "vx", "vy", "heading"]}
}
KINDS: list[dict[str, Any]] = [
    {"scenario": "lane-keeping-v0"},
    {"scenario": "lane-keeping-v0", "config": SEEN | {"action": {"longitudinal": True, "dynamical": False}}},
    {"scenario": "lane-keeping-v0", "config": SEEN | {"action": {"longitudinal": True}, "duration": 3}},
]

QUICK = [job | {"config": job.get("config", {}) | {"duration": 2 + k}} for k, job in enumerate(KINDS)]


def test_a_few_episodes_are_identical():
    results = oracle.run_all([job | {"seeds": [0, 4], "limit": 50, "past_end": 2} for job in QUICK], processes=1)
    assert sum(result["decisions"] for result in results) > 200
    assert sum(result["outcomes"]["success"] for result in results)
    assert sum(result["outcomes"]["missed"] for result in results)


@pytest.mark.slow
def test_twenty_thousand_decisions_over_300_seeds_are_identical():
    results = oracle.run_all([job | {"seeds": [0, 100], "limit": 210, "past_end": 20} for job in KINDS])
    total = sum(result["decisions"] for result in results)
    print(f"{total:,} decisions over 300 seeds identical")
    assert total >= 20_000


LANE_KEEPING, BICYCLE = "sim/engine/families/lane_keeping.py", "sim/engine/bicycle.py"
FAULTS = {
    "the second lane at once": (LANE_KEEPING, "env.followed = f.first_lane", "env.followed = f.second_lane"),
    "the second lane never": (LANE_KEEPING, "env.followed = f.second_lane", "env.followed = f.first_lane"),
    "the first lane is left late": (
        LANE_KEEPING,
        "holds(followed, s, lateral, 0.0)",
        "holds(followed, s, lateral, 1.0)",
    ),
    "squares instead of powers": (
        LANE_KEEPING,
        "math.pow(lateral / followed.width, f.two)",
        "(lateral / followed.width) * (lateral / followed.width)",
    ),
    "half the width": (LANE_KEEPING, "lateral / followed.width", "lateral / (followed.width / 2)"),
    "success by the lane that is followed": (
        LANE_KEEPING,
        "SUCCESS if roads.on_road(ego, lanes[0])",
        "SUCCESS if roads.holds(followed, s, lateral, 0.0)",
    ),
    "starts in the middle": (LANE_KEEPING, "START = 50.0, -4.0", "START = 50.0, 0.0"),
    "limit a decision late": (LANE_KEEPING, "f.duration - 1e-9", "f.duration + 1e-9"),
    "friction halved": (BICYCLE, "FRICTION = 15.0", "FRICTION = 7.5"),
    "midpoint rule": (BICYCLE, "(dt / 6) * (f1 + (2 * f2) + (2 * f3) + f4)", "dt * f2"),
    "inertia of a square": (BICYCLE, "CAR_LENGTH**2 + CAR_WIDTH**2", "CAR_LENGTH**2 + CAR_LENGTH**2"),
}
"""Slips that a port could make: (file, old text, new text)."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    jobs = [job | {"seeds": [0, 12], "limit": 210} for job in KINDS]
    assert oracle.run(jobs, FAULTS[name])[-1]["mismatch"]
