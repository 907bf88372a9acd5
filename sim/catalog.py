"""The built-in scenarios: the list that `sim.registry()` reads. Keep its imports light."""

from __future__ import annotations

from sim.carla.catalog import CARLA_BACKENDS, CARLA_SCENARIOS
from sim.highway.catalog import HIGHWAY_ENV_SCENARIOS
from sim.lane_change import LaneChangeConfig
from sim.scenarios import Backend, Scenario

LANE_CHANGE = Scenario(
    name="lane-change",
    summary="be in the rightmost of 4 dense lanes within 500 m (the published LGDRL task)",
    defaults=LaneChangeConfig(),
    backends={
        "engine": Backend(
            env="sim.engine.factory:make_env",
            vec="sim.engine.factory:make_vec",
            vector="sim.engine.factory:make_vector",
        ),
        "highway-env": Backend("sim.highway.lane_change:make_env", "sim.highway.lane_change:make_vec"),
        **CARLA_BACKENDS,
    },
    family="lane-change",
)

SCENARIOS: tuple[Scenario, ...] = (
    LANE_CHANGE,
    *HIGHWAY_ENV_SCENARIOS,
    *CARLA_SCENARIOS,
)
