"""The scenarios on CARLA's maps. Keep its imports light."""

from __future__ import annotations

from dataclasses import replace

from sim.carla.config import RoadConfig, RoadReward
from sim.catalog import CARLA, CARLA_BACKENDS
from sim.scenarios import Scenario


def road(name: str, summary: str, defaults: RoadConfig) -> Scenario:
    """A scenario on a shipped map.

    Args:
        name: Without the prefix `carla-`.
        summary: One line for listings.
        defaults: Its config.

    Returns:
        The registry entry.
    """
    return Scenario(
        name=f"carla-{name}", summary=summary, defaults=defaults, backends=CARLA_BACKENDS, family=f"carla-{name}"
    )


CITY = RoadReward(speeds=(0.0, 9.0), right_lane=0.0)
"""Rewards at the speeds of a junction."""
SLOW = RoadConfig(
    along="lane",
    start_speed=9.0,
    duration=40.0,
    policy_frequency=2.0,
    target_speeds=(0.0, 3.0, 6.0, 9.0),
    traffic="tm",
    reward=CITY,
)

CARLA_SCENARIOS: tuple[Scenario, ...] = (
    road(
        "highway",
        "highway-v0's task on a curving 4-lane road: 40 s among 20 scripted cars; success: no crash",
        RoadConfig(map="highway", start=(200.0, 5.25)),
    ),
    road(
        "merge",
        "leave the acceleration lane for a 3-lane highway before it ends, within 250 m",
        RoadConfig(
            map="merge",
            start=(305.0, 12.25),
            start_speed=18.0,
            goal_distance=345.0,
            goal_lane=2,
            duration=30.0,
            policy_frequency=2.0,
            target_speeds=(10.0, 12.5, 15.0, 17.5, 20.0, 22.5, 25.0),
            traffic_speed=(18.0, 22.0),
            traffic_behind=0.5,
            reward=RoadReward(speeds=(10.0, 25.0), right_lane=0.0),
        ),
    ),
    road(
        "intersection",
        "turn left at traffic lights, among Traffic Manager cars",
        replace(
            SLOW,
            map="intersection",
            start=(-140.0, 1.75),
            turns=("left",),
            goal_distance=185.0,
            goal_lane=0,
            duration=90.0,
        ),
    ),
    road(
        "roundabout",
        "take the second exit of a 2-lane roundabout, among Traffic Manager cars",
        replace(SLOW, map="roundabout", start=(-130.0, 2.0), turns=("right", "straight", "right"), goal_distance=200.0),
    ),
    Scenario(
        name="carla-town",
        summary="drive for 60 s from a random place in a town of a real CARLA server (map=Town04)",
        defaults=replace(SLOW, map="Town04", duration=60.0, vehicles_count=40),
        backends={"carla": CARLA},
        family="carla-town",
    ),
)
