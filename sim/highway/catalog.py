"""Every single-agent highway-env environment under its gymnasium id, and the dense highways.

Where two versions exist, vehicles of the higher one see neighbours across segment borders
(`neighbour_vehicles_connected_lanes`); they are different environments. intersection-v2 is the successor of v0; v1 is
the continuous one. Multi-agent intersections are out of scope.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.highway.kinds import (
    EnvKind,
    arrive,
    exit_goal,
    intersection_goal,
    merge_goal,
    park,
    parking_goal,
    pass_end,
    stay_in_lane,
    take_exit,
)
from sim.highway.scenario import HighwayScenario

ENVS = "highway_env.envs."
RENDER_AGENT = {"render_agent": "vehicles are always drawn"}
NO_TERM = "highway-env's reward of this environment has no such term"
OWN_TRAFFIC = "highway-env fixes the vehicle class of this environment"
HIGHWAY_INERT = RENDER_AGENT | {"lane_change_reward": NO_TERM}
EXIT_INERT = HIGHWAY_INERT | {
    "initial_lane_id": "the ego starts in the leftmost lane",
    "offroad_terminal": "this environment does not end off the road",
}
TWO_WAY_INERT = RENDER_AGENT | {"collision_reward": NO_TERM, "left_lane_constraint": NO_TERM}
RACETRACK_INERT = RENDER_AGENT | {"other_vehicles_type": OWN_TRAFFIC}
PARKING_INERT = RENDER_AGENT | {
    "other_vehicles_type": OWN_TRAFFIC,
    "steering_range": "set action.steering_range instead",
}
AISLE = 20.0
"""Metres between the two rows of parking spots."""


def versions(
    name: str,
    summary: str,
    kind: str,
    old: str = "v0",
    new: str = "v1",
    actions: str = "meta",
    **about: object,
) -> Iterator[HighwayScenario]:
    """The scenario with neighbour search across segment borders, then the one without; `kind` is "module:Class"."""
    module, _, class_name = kind.partition(":")
    for version, prefix, note in ((new, "ConnectedLane", ""), (old, "", "; traffic is blind across segment borders")):
        full_name = f"{name}-{version}"
        env_kind = EnvKind(full_name, f"{ENVS}{module}:{prefix}{class_name}", **about)  # type: ignore[arg-type]
        yield HighwayScenario(full_name, summary + note, env_kind, actions=actions)


HIGHWAY = EnvKind("highway-v0", ENVS + "highway_env:HighwayEnv", inert=HIGHWAY_INERT, on_engine=True)
HIGHWAY_FAST = EnvKind("highway-fast-v0", ENVS + "highway_env:HighwayEnvFast", inert=HIGHWAY_INERT, on_engine=True)
INTERSECTION_V1 = EnvKind(
    "intersection-v1",
    ENVS + "intersection_env:ContinuousIntersectionEnv",
    outcome=arrive,
    inert=RENDER_AGENT | {"destination": "a continuous ego has no route, it may leave by any exit"},
    private_traffic=True,
)
TWO_WAY = EnvKind("two-way-v0", ENVS + "two_way_env:TwoWayEnv", inert=TWO_WAY_INERT, time_limit=15.0, on_engine=True)
LANE_KEEPING = EnvKind(
    "lane-keeping-v0",
    "sim.highway.upstream:LaneKeeping",
    outcome=stay_in_lane,
    inert=RENDER_AGENT | {"other_vehicles_type": "there is no traffic"},
    time_limit=20.0,
)


def parking(name: str, overrides: dict[str, object] | None = None) -> EnvKind:
    return EnvKind(
        name,
        ENVS + "parking_env:ParkingEnv",
        outcome=park,
        goal=parking_goal,
        overrides=overrides or {},
        inert=PARKING_INERT,
        area_width=AISLE,
    )


def dense(density: float) -> Iterator[HighwayScenario]:
    """A crowded highway, with set-points that can follow its traffic, and with highway-env's own ones."""
    preset = {"lanes_count": 4, "vehicles_count": 50, "vehicles_density": density, "duration": 30.0}
    slow = preset | {"action": {"target_speeds": [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]}}
    text = f"4 lanes, 50 cars at density {density}, 30 s, set-points {{}} m/s; success: no crash until the time limit"
    yield HighwayScenario(f"dense-{density}", text.format("0 to 30 by 5"), HIGHWAY, slow)
    yield HighwayScenario(f"dense-{density}-paper", text.format("20, 25, 30"), HIGHWAY, preset)


HIGHWAY_ENV_SCENARIOS: tuple[HighwayScenario, ...] = (
    HighwayScenario(
        "highway-v0", "4-lane highway, 50 cars, 15 Hz, 40 s; success: no crash until the time limit", HIGHWAY
    ),
    HighwayScenario(
        "highway-fast-v0",
        "3-lane highway, 20 cars, 5 Hz, 30 s; success: no crash until the time limit",
        HIGHWAY_FAST,
    ),
    *dense(2.0),
    *dense(2.5),
    *dense(3.0),
    *versions(
        "merge",
        "highway with cars merging from a ramp, 30 s; success: pass the end without a crash",
        "merge_env:MergeEnv",
        outcome=pass_end,
        goal=merge_goal,
        inert=RENDER_AGENT,
        time_limit=30.0,
        on_engine=True,
    ),
    *versions(
        "merge-generic",
        "merge with free lane count, traffic and lengths, 30 s; success: pass the end without a crash",
        "merge_env:MergeGenericEnv",
        outcome=pass_end,
        goal=merge_goal,
        inert=RENDER_AGENT,
        time_limit=30.0,
        on_engine=True,
    ),
    *versions(
        "exit",
        "6-lane highway, 18 s; success: in or steering to the exit lane at the end, without a crash",
        "exit_env:ExitEnv",
        outcome=take_exit,
        goal=exit_goal,
        inert=EXIT_INERT,
        on_engine=True,
    ),
    *versions(
        "roundabout",
        "2-lane roundabout, 11 s; success: no crash until the time limit",
        "roundabout_env:RoundaboutEnv",
        inert=RENDER_AGENT | {"right_lane_reward": NO_TERM},
    ),
    *versions(
        "roundabout-generic",
        "roundabout with free radius, lanes and traffic, 17 s; success: no crash until the time limit",
        "roundabout_env:RoundaboutGenericEnv",
        inert=RENDER_AGENT | {"right_lane_reward": NO_TERM},
    ),
    *versions(
        "intersection",
        "4-way crossing with right of way, speed choice only, 13 s; success: arrive without a crash",
        "intersection_env:IntersectionEnv",
        new="v2",
        actions="longitudinal",
        outcome=arrive,
        goal=intersection_goal,
        inert=RENDER_AGENT,
        private_traffic=True,
        on_engine=True,
    ),
    HighwayScenario(
        "intersection-v1",
        "4-way crossing, throttle and steering, tyre-slip physics, 13 s; success: arrive in any exit without a crash",
        INTERSECTION_V1,
        actions="continuous",
    ),
    *versions(
        "u-turn",
        "U-turn with slow cars in the way, 10 s; success: no crash until the time limit",
        "u_turn_env:UTurnEnv",
        inert=RENDER_AGENT | {"offroad_terminal": "this environment does not end off the road"},
    ),
    HighwayScenario(
        "two-way-v0", "overtaking against oncoming traffic, 15 s; success: no crash until the time limit", TWO_WAY
    ),
    *versions(
        "racetrack",
        "steering on a 2-lane racetrack, 300 s; success: on the road without a crash until the time limit",
        "racetrack_env:RacetrackEnv",
        actions="continuous",
        inert=RACETRACK_INERT | {"speed_limit": "the lanes of this track have fixed speed limits"},
    ),
    *versions(
        "racetrack-large",
        "steering on a large 3-lane track, 300 s; success: on the road without a crash until the time limit",
        "racetrack_env:RacetrackEnvLarge",
        actions="continuous",
        inert=RACETRACK_INERT,
    ),
    *versions(
        "racetrack-oval",
        "steering on an oval, lanes may be blocked, 300 s; success: on the road without a crash until the time limit",
        "racetrack_env:RacetrackEnvOval",
        actions="continuous",
        inert=RACETRACK_INERT | {"speed_limit": "the lanes of this track have fixed speed limits"},
    ),
    HighwayScenario(
        "parking-v0",
        "park in the marked spot, 100 s; success: in the spot and in line with it",
        parking("parking-v0"),
        actions="continuous",
    ),
    HighwayScenario(
        "parking-ActionRepeat-v0",
        "parking with one decision per second, 20 s; success: in the spot and in line with it",
        parking("parking-ActionRepeat-v0", {"policy_frequency": 1, "duration": 20}),
        actions="continuous",
    ),
    HighwayScenario(
        "parking-parked-v0",
        "parking among 10 parked cars, 100 s; success: in the spot and in line with it",
        parking("parking-parked-v0", {"vehicles_count": 10}),
        actions="continuous",
    ),
    HighwayScenario(
        "lane-keeping-v0",
        "steering along a winding lane with noisy sensors, 20 s; success: on the road at the time limit",
        LANE_KEEPING,
        actions="continuous",
    ),
)
