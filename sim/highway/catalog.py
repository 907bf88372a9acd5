"""Every single-agent highway-env world under its gymnasium id, and the dense highways.

Where two versions exist, the higher one lets vehicles see neighbours across segment borders
(`neighbour_vehicles_connected_lanes`); they are different worlds. Multi-agent intersections are out of scope.
"""

from __future__ import annotations

from sim.highway.families import Family
from sim.highway.scenario import HighwayScenario

HIGHWAY_INERT = {"lane_change_reward": "highway-env's highway reward has no lane-change term"}
HIGHWAY = Family("highway", "highway_env.envs.highway_env:HighwayEnv", inert=HIGHWAY_INERT)
FAST = Family("highway-fast", "highway_env.envs.highway_env:HighwayEnvFast", inert=HIGHWAY_INERT)

HIGHWAY_ENV_SCENARIOS = (
    HighwayScenario("highway-v0", "4-lane highway, 50 cars, 40 s; success: no crash until the time limit", HIGHWAY),
    HighwayScenario("highway-fast-v0", "3-lane highway, 20 cars, 5 Hz physics, 30 s; success: no crash", FAST),
)
