"""Episode starts: spawn the ego with its sensors and the traffic, and compute the first frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.carla.config import STEP
from sim.carla.control import SpeedControl, Steering
from sim.carla.episode import CarlaEpisode, SensorReports
from sim.carla.lights import Lights
from sim.carla.session import CarlaSession
from sim.carla.task import CarlaTask, EpisodeStart
from sim.carla.traffic import (
    CarlaTraffic,
    ManagedTraffic,
    NoTraffic,
    ScriptedTraffic,
    transform_of,
    velocity_of,
)


def begin_episode(session: CarlaSession, task: CarlaTask, rng: np.random.Generator) -> CarlaEpisode:
    """Begin an episode in a world without actors of this session.

    Args:
        session: A connection with the task's map loaded.
        task: The scenario.
        rng: From which the start is drawn.

    Returns:
        The episode after its first frame.

    Raises:
        SimError: The server failed.
    """
    start = task.start(session.map, rng)
    ego = _place_ego(session, task, start)
    reports = SensorReports(session, ego)
    traffic = _place_traffic(session, task, start, ego, rng)
    reports.clear()
    snapshot = session.tick()
    by_id = {actor.id: actor for actor in session.world.get_actors(traffic.ids.tolist())}
    extents = [by_id[int(number)].bounding_box.extent for number in traffic.ids]
    box = ego.bounding_box.extent
    episode = CarlaEpisode(
        start=start,
        ego=ego,
        traffic=traffic,
        reports=reports,
        sizes=2 * np.array([[extent.x, extent.y] for extent in extents]).reshape(-1, 2),
        ego_size=(2 * box.x, 2 * box.y),
        steering=Steering.of(ego.get_physics_control()),
        control=SpeedControl(1, task.gains, STEP),
        lights=Lights(session, start.route),
        line=start.ego.d,
        speed_index=int(np.argmin(np.abs(task.speeds - start.ego.desired_speed))),
    )
    episode.read_frame(snapshot)
    return episode


def _place_ego(session: CarlaSession, task: CarlaTask, start: EpisodeStart) -> Any:
    blueprint = session.blueprint(task.vehicle, role="ego")
    car = start.ego
    ego = session.spawn(blueprint, transform_of(session, start.route, car.s - car.speed * STEP, car.d))
    ego.set_target_velocity(velocity_of(session, start.route, car))
    return ego


def _place_traffic(
    session: CarlaSession, task: CarlaTask, start: EpisodeStart, ego: Any, rng: np.random.Generator
) -> CarlaTraffic:
    if task.traffic == "none" or (not start.cars and task.traffic == "idm"):
        return NoTraffic()
    kinds = [session.blueprint(name, role="traffic") for name in task.others]
    if task.traffic == "tm":
        blueprints = [kinds[k] for k in rng.integers(len(kinds), size=len(start.places))]
        return ManagedTraffic(session, start.places, blueprints, int(rng.integers(2**31)))
    blueprints = [kinds[k] for k in rng.integers(len(kinds), size=len(start.cars))]
    length = 2 * ego.bounding_box.extent.x
    return ScriptedTraffic(session, start.route, start.cars, blueprints, task.idm, task.gains, length)
