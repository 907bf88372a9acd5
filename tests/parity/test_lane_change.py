"""The engine equals highway-env bit for bit, and the comparison would notice if it did not."""

from __future__ import annotations

import pytest

from tests.parity import oracle

NEAR = {"behind": 80.0, "ahead": 120.0}
"""Less traffic far away: the oracle runs some ten times faster, the same code is compared."""
CROWDED = {"density": [60.0, 60.0], "behind": 80.0, "ahead": 120.0, "phase": "random"}
"""Cars that run into each other: the kernel's search path."""

TRAFFIC, FAMILY = "sim/engine/lane_traffic.py", "sim/engine/families/lane_change.py"
KINEMATICS = "sim/kinematics.py"
FAULTS = {
    "leader of equal position ignored": (FAMILY, "ahead and 0 <= dx", "ahead and 0 < dx - 40"),
    "free-road exponent 3": (TRAFFIC, "(1 - (ratio * ratio) * (ratio * ratio))", "(1 - ratio**3)"),
    "traffic brakes harder": (TRAFFIC, "value if value > -limit", "value if value > -2 * limit"),
    "ego invisible to traffic": (TRAFFIC, "if kinematics.on_lane(env.y, lane):", "if False:"),
    "ego speed not projected": (TRAFFIC, "env.speed * math.cos(env.heading)", "env.speed"),
    "speed before position": (
        TRAFFIC,
        "        x[c] += v[c] * DT\n        v[c] += a[c] * DT",
        "        v[c] += a[c] * DT\n        x[c] += v[c] * DT",
    ),
    "push crashes at once": (TRAFFIC, "    if soon:\n", "    if soon:\n        env.crashed = 1\n"),
    "push not halved": (TRAFFIC, "-push_x / 2, -push_y / 2, 1.0", "-push_x, -push_y / 2, 1.0"),
    "speed index rounds up": (KINEMATICS, "np.round(x * (count - 1))", "np.ceil(x * (count - 1))"),
    "lane margin forgotten": (KINEMATICS, "<= LANE_WIDTH / 2 + LANE_MARGIN", "<= LANE_WIDTH / 2"),
    "heading servo too slow": (KINEMATICS, "heading_rate = kp_heading *", "heading_rate = 0.9 * kp_heading *"),
    "slip angle not halved": (TRAFFIC, "math.atan(0.5 * math.tan", "math.atan(1.0 * math.tan"),
    "swept contact ignored": (KINEMATICS, "low_a += velocity", "low_a += 0.0"),
    "gap from the centres": (FAMILY, "- env.x - CAR_LENGTH", "- env.x"),
    "reward by target lane": (FAMILY, "abs(p.goal_lane - env.lane)", "abs(p.goal_lane - env.target_lane)"),
    "one draw too many": (
        FAMILY,
        "jitter = next_double(stream)",
        "jitter = next_double(stream) + 0 * next_double(stream)",
    ),
    "mask by target lane": (FAMILY, "mask[RIGHT] = env.lane <", "mask[RIGHT] = env.target_lane <"),
}
"""Slips that a port could make: (file, old text, new text)."""


def jobs_of(*parts: dict) -> list[dict]:
    return [{"scenario": "lane-change", **part} for part in parts]


def test_a_few_episodes_are_identical():
    near = {"seeds": [0, 4], "config": NEAR, "limit": 20}
    crowded = {"seeds": [0, 4], "config": {**CROWDED, "behind": 30.0, "ahead": 60.0}, "limit": 12}
    quick = {"seeds": [0, 2], "config": {**NEAR, "decision_frequency": 5.0}, "limit": 40}
    for result in oracle.run_all(jobs_of(near, crowded, quick), processes=1):
        assert result["outcomes"]["crash"] > 0
        assert result["decisions"] > 20


@pytest.mark.slow
def test_twenty_thousand_decisions_over_580_seeds_are_identical():
    jobs = jobs_of(
        *({"seeds": [start, start + 55], "config": NEAR, "limit": 120} for start in range(0, 440, 55)),
        {"seeds": [440, 464], "limit": 120},
        {"seeds": [464, 500], "config": CROWDED, "limit": 120},
        *({"seeds": [start, start + 40], "config": NEAR, "limit": 120} for start in (500, 540)),
    )
    results = oracle.run_all(jobs)
    total = sum(result["decisions"] for result in results)
    crashes, successes = (sum(result["outcomes"][end] for result in results) for end in ("crash", "success"))
    print(f"{total:,} decisions over 580 seeds identical; {crashes} crashes, {successes} successes among them")
    assert total >= 20_000
    assert crashes > 100
    assert successes > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    jobs = jobs_of(*({"seeds": [0, 60], "config": config, "limit": 40} for config in (NEAR, CROWDED)))
    assert oracle.run(jobs, FAULTS[name])[-1]["mismatch"]
