"""The engine equals highway-env bit for bit, and the comparison would notice if it did not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.parity import oracle

NEAR = {"behind": 80.0, "ahead": 120.0}
"""Less traffic far away: the oracle runs some ten times faster, the same code is compared."""
CROWDED = {"density": [60.0, 60.0], "behind": 80.0, "ahead": 120.0, "phase": "random"}
"""Cars that run into each other: the kernel's search path."""

FAULTS = {
    "leader of equal position is ignored": ("sim.engine.lane_change", "ahead and 0 <= dx", "ahead and 0 < dx - 40"),
    "free-road exponent 3": ("sim.engine.lane_change", "(1 - (ratio * ratio) * (ratio * ratio))", "(1 - ratio**3)"),
    "traffic brakes harder": ("sim.engine.lane_change", "value if value > -limit", "value if value > -2 * limit"),
    "ego is invisible to traffic": ("sim.engine.lane_change", "if physics.on_lane(w.y, lane):", "if False:"),
    "ego speed not projected": ("sim.engine.lane_change", "w.speed * math.cos(w.heading)", "w.speed"),
    "new speed used for the position": (
        "sim.engine.lane_change",
        "        x[c] += v[c] * DT\n        v[c] += a[c] * DT",
        "        v[c] += a[c] * DT\n        x[c] += v[c] * DT",
    ),
    "push applied at once": (
        "sim.engine.lane_change",
        "w.push_x, w.push_y, w.pushed = push_x",
        "w.crashed = 1; w.push_x, w.push_y, w.pushed = push_x",
    ),
    "push not halved": ("sim.engine.lane_change", "-push_x / 2, -push_y / 2, 1.0", "-push_x, -push_y / 2, 1.0"),
    "speed index rounds half up": (
        "sim.engine.physics",
        "np.round(x * (count - 1))",
        "np.floor(x * (count - 1) + 0.6)",
    ),
    "lane margin forgotten": ("sim.engine.physics", "<= LANE_WIDTH / 2 + LANE_MARGIN", "<= LANE_WIDTH / 2"),
    "heading servo too slow": (
        "sim.engine.physics",
        "heading_rate = kp_heading *",
        "heading_rate = 0.9 * kp_heading *",
    ),
    "slip angle instead of its half": (
        "sim.engine.lane_change",
        "math.atan(0.5 * math.tan",
        "math.atan(1.0 * math.tan",
    ),
    "swept contact ignored": (
        "sim.engine.physics",
        "if velocity < 0:\n                low_a += velocity",
        "if velocity < 0:\n                low_a += 0.0",
    ),
    "time-to-collision from the centres": ("sim.engine.lane_change", "- w.x - physics.LENGTH", "- w.x"),
    "lane reward from the target lane": (
        "sim.engine.lane_change",
        "abs(p.goal_lane - w.lane)\n",
        "abs(p.goal_lane - w.target_lane)\n",
    ),
    "one draw too many": (
        "sim.engine.lane_change",
        "jitter = next_double(stream)",
        "jitter = next_double(stream) + 0.0 * next_double(stream)",
    ),
    "mask from the target lane": ("sim.engine.lane_change", "mask[RIGHT] = w.lane <", "mask[RIGHT] = w.target_lane <"),
}
"""Slips that a port could make: (module, old text, new text)."""


def test_a_few_episodes_are_identical():
    with ThreadPoolExecutor(2) as pool:
        near = pool.submit(oracle.run, seeds=[0, 24], config=NEAR, limit=20)
        crowded = pool.submit(oracle.run, seeds=[0, 8], config=CROWDED, limit=12)
    for result in (near.result(), crowded.result()):
        assert result["mismatch"] is None
        assert result["outcomes"]["crash"] > 0
        assert result["decisions"] > 40


@pytest.mark.slow
def test_twenty_thousand_decisions_over_five_hundred_seeds_are_identical():
    jobs = [{"seeds": [start, start + 50], "config": NEAR, "limit": 60} for start in range(0, 400, 50)]
    jobs += [{"seeds": [400, 450], "config": {}, "limit": 30}, {"seeds": [450, 500], "config": CROWDED, "limit": 60}]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: oracle.run(**job), jobs))
    assert [result["mismatch"] for result in results] == [None] * len(jobs)
    total = sum(result["decisions"] for result in results)
    crashes = sum(result["outcomes"]["crash"] for result in results)
    print(f"{total:,} decisions over 500 seeds identical, {crashes} crashes among them")
    assert crashes > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    for config in (NEAR, CROWDED):
        if oracle.run(seeds=[0, 60], config=config, limit=40, fault=FAULTS[name])["mismatch"]:
            return
    pytest.fail(f"not noticed: {name}")
