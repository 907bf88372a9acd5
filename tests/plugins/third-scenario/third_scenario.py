"""A scenario: the mandatory lane change in the rush hour, in denser and slower traffic, within half the time.

A scenario is a name, a config with defaults, and the simulators that can build it. This one takes the config of the
lane change and its simulators, so every expert, strategy and report works on it at once.

    lgdrl train --scenario third-scenario
    lgdrl play expert:rule --scenario third-scenario
"""

from __future__ import annotations

from sim.lane_change import LaneChangeConfig
from sim.scenarios import Backend, Scenario

SCENARIO = Scenario(
    name="third-scenario",
    summary="the mandatory lane change in the rush hour",
    defaults=LaneChangeConfig(
        density=(35.0, 45.0),  # vehicles per km and lane, drawn per episode
        traffic_speed=(8.0, 14.0),  # m/s
        start_speed=12.0,  # m/s
        time_limit=60,  # decisions (30 s)
    ),
    backends={
        "engine": Backend(env="sim.engine.factory:make_env", vec="sim.engine.factory:make_vec"),
        "highway-env": Backend(env="sim.highway.lane_change:make_env", vec="sim.highway.lane_change:make_vec"),
    },
    family="lane-change",
)
