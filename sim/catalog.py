"""The scenarios that several simulators share, and CARLA's two backends. Keep its imports light."""

from __future__ import annotations

from dataclasses import replace

from sim.lane_change import LaneChangeConfig
from sim.scenarios import Backend, Scenario

CARLA_LITE = Backend("sim.carla.factory:make_lite_env", "sim.carla.factory:make_lite_vec", max_envs=2)
"""A server that the environment starts for itself."""
CARLA = Backend("sim.carla.factory:make_env", "sim.carla.factory:make_vec", max_envs=1, places=True)
"""A server that is running: `carla`, `carla@HOST:PORT`, `carla@CarlaUE4.sh`."""
CARLA_BACKENDS = {"carla-lite": CARLA_LITE, "carla": CARLA}

ENGINE = Backend(
    env="sim.engine.factory:make_env",
    vec="sim.engine.factory:make_vec",
    why_not="sim.engine.factory:why_not",
    vector="sim.engine.factory:make_vector",
)

LANE_CHANGE = Scenario(
    name="lane-change",
    summary="be in the rightmost of 4 dense lanes within 500 m (the published LGDRL task)",
    defaults=LaneChangeConfig(),
    backends={
        "engine": ENGINE,
        "highway-env": Backend("sim.highway.lane_change:make_env", "sim.highway.lane_change:make_vec"),
        **{name: replace(backend, why_not="sim.lane_change:uncovered") for name, backend in CARLA_BACKENDS.items()},
    },
    family="lane-change",
)
