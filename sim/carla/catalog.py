"""The scenarios on CARLA's maps, and CARLA's two backends. Keep its imports light."""

from __future__ import annotations

from sim.carla.config import RoadConfig, RoadReward
from sim.scenarios import Backend, Scenario

LITE = Backend("sim.carla.factory:make_lite_env", "sim.carla.factory:make_lite_vec")
SERVER = Backend("sim.carla.factory:make_env", "sim.carla.factory:make_vec", places=True)
CARLA_BACKENDS = {"carla-lite": LITE, "carla": SERVER}
"""A server that the world starts for itself; one that runs: `carla`, `carla@HOST:PORT`, `carla@CarlaUE4.sh`."""


def road(name: str, summary: str, defaults: RoadConfig) -> Scenario:
    return Scenario(
        name=f"carla-{name}", summary=summary, defaults=defaults, backends=CARLA_BACKENDS, family=f"carla-{name}"
    )


CITY = RoadReward(speeds=(2.0, 9.0), right_lane=0.0)
"""Reward at the speeds of a junction."""
CITY_SPEEDS = (0.0, 3.0, 6.0, 9.0)

CARLA_SCENARIOS: tuple[Scenario, ...] = (
    road(
        "highway",
        "highway-v0's task on a curved 4-lane road: 40 s among 20 scripted cars without a crash",
        RoadConfig(map="highway", start=(200.0, 0.0)),
    ),
)
