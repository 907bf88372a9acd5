"""Observations of the engine equal highway-env's bit for bit, with every option, and slips would be noticed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import oracle

ALL = [
    *("presence", "x", "y", "vx", "vy", "heading", "cos_h", "sin_h", "cos_d", "sin_d"),
    *("long_off", "lat_off", "ang_off"),
]
RANGES = {"x": [-100, 100], "y": [-100, 100], "vx": [-20, 20], "lat_off": [-3, 3]}
WIDE = {"features": [*ALL, "on_road"], "grid_size": [[-30, 60], [-20, 20]], "grid_step": [3, 1.5]}
GRIDS: list[dict[str, Any]] = [
    {},
    WIDE | {"align_to_vehicle_axes": True, "clip": False, "features_range": RANGES},
    {"as_image": True, "features": ["on_road", "vx", "cos_h"]},
]
LIDARS: list[dict[str, Any]] = [{}, {"cells": 64, "maximum_range": 90, "normalize": False}, {"cells": 5}]
TABLES: list[dict[str, Any]] = [
    {"features": ALL, "order": "shuffled", "observe_intentions": True, "vehicles_count": 8},
    {"features": ALL, "order": "unsorted", "see_behind": True, "include_obstacles": False, "features_range": RANGES},
    {"vehicles_count": 1, "order": "shuffled"},
]
KINDS = [
    *({"type": "Kinematics"} | table for table in TABLES),
    *({"type": "OccupancyGrid"} | grid for grid in GRIDS),
    *({"type": "LidarObservation"} | lidar for lidar in LIDARS),
]


def jobs_of(observation: dict[str, Any], scenarios: tuple[str, ...], **driving: Any) -> list[dict[str, Any]]:
    return [
        {"scenario": name, "config": {"observation": observation}, "limit": 15, "past_end": 3, **driving}
        for name in scenarios
    ]


QUICK = [
    *(job for kind in KINDS for job in jobs_of(kind, ("merge-v1",), seeds=[0, 2])),
    *jobs_of(TABLES[0] | {"type": "ExitObservation"}, ("exit-v1",), seeds=[0, 1]),
    *jobs_of(KINDS[4], ("two-way-v0",), seeds=[0, 2]),
]


def test_every_option_of_every_type_gives_the_same_bits():
    results = oracle.run_all(QUICK, processes=1)
    assert sum(result["decisions"] for result in results) > 200
    assert sum(result["outcomes"]["crash"] for result in results) > 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_hundreds_of_decisions_of_each_give_the_same_bits(kind):
    names = ("highway-fast-v0", "merge-v1", "exit-v1", "two-way-v0")
    results = oracle.run_all(jobs_of(KINDS[kind], names, seeds=[0, 40], past_end=5))
    assert sum(result["decisions"] for result in results) > 1000


FEATURES, TABLE, GRID, LIDAR = (f"sim/engine/observe/{name}.py" for name in ("features", "kinematics", "grid", "lidar"))
FAULTS = {
    "draws of integers instead of a shuffle's": (
        "sim/engine/rng.py",
        "    mask = np.uint64(1)\n",
        "    return next_below(stream, highest + 1)\n    mask = np.uint64(1)\n",
    ),
    "hidden rows are not shuffled": (TABLE, "close if p.obs_rows == 1 else", "0 if p.obs_rows == 1 else"),
    "sorted whatever the order": (TABLE, "abs(ahead) if p.obs_sorted else 0.0", "abs(ahead)"),
    "obstacles always seen": (TABLE, "env.bodies if p.obs_obstacles else env.vehicles", "env.bodies"),
    "intentions always seen": (TABLE, "motion, p.obs_intentions, out", "motion, True, out"),
    "destination of the next step": (
        FEATURES,
        "            last = step\n",
        "            last = step\n            break\n",
    ),
    "obstacles have a heading": (FEATURES, "    if not vehicle:\n        return math.nan\n", ""),
    "lane angle not wrapped to the lane": (FEATURES, "body.heading - roads.heading_at(lane, s)", "body.heading"),
    "last of a cell counts": (GRID, "range(env.vehicles - 1, -1, -1)", "range(env.vehicles)"),
    "positions keep their digits": (GRID, "value if math.isnan(low) else low", "value if True else low"),
    "grid turned the other way": (GRID, "-ego.sin * x + ego.cos", "ego.sin * x + ego.cos"),
    "road drawn from the ego on": (GRID, "start = origin - ROAD_DISTANCE", "start = origin"),
    "grid not clipped": (GRID, "if g.clip or g.image", "if False"),
    "pictures rounded up": (GRID, "(value + 1) / 2 * 255", "(value + 1) / 2 * 255 + 0.5"),
    "rays start half a cell off": (LIDAR, "half = g.angle / 2", "half = 0.0"),
    "distance from the surface": (LIDAR, "far - body.width / 2", "far"),
    "nearest body is overwritten": (LIDAR, "if distance <= out[k, 0]:", "if distance < 1e9:"),
    "bodies behind are not wrapped": (LIDAR, "if low < -math.pi / 2 < math.pi / 2 < high:", "if False:"),
    "rays are unbounded": (LIDAR, " or _apart(0.0, 1.0, low_1, high_1)", ""),
    "speed of the body alone": (LIDAR, "body.vx - ego.vx, body.vy - ego.vy", "body.vx, body.vy"),
    "normalized in double precision": (LIDAR, "out[k, 0] /= np.float32(g.range)", "out[k, 0] *= 1 / g.range"),
}
"""Slips that a port could make: (file, old text, new text)."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name):
    jobs = [job for kind in KINDS for job in jobs_of(kind, ("merge-v1", "exit-v1"), seeds=[0, 12])]
    assert oracle.run(jobs, FAULTS[name])[-1]["mismatch"]
