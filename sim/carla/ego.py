"""The ego's controllers: from an action to targets, and from targets to pedals and steering in every frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.actions import MetaAction
from sim.carla.control import curvature
from sim.carla.episode import CarlaEpisode
from sim.carla.task import CarlaTask


def set_targets(task: CarlaTask, episode: CarlaEpisode, action: Any) -> bool:
    """Move the targets as highway-env does: speeds step from the set-point nearest to the present speed.

    Args:
        task: The scenario.
        episode: Holds the targets.
        action: A meta-action; other actions move no target.

    Returns:
        Whether the ego steers to another lane now.
    """
    if not task.discrete:
        return False
    speeds = task.speeds
    nearest = int(np.argmin(np.abs(speeds - episode.own["speed"][0])))
    if action == MetaAction.FASTER:
        episode.speed_index = min(nearest + 1, len(speeds) - 1)
    elif action == MetaAction.SLOWER:
        episode.speed_index = max(nearest - 1, 0)
    elif action in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT):
        centers = episode.route.centers_at(episode.place()[0])
        target = int(np.argmin(np.abs(np.subtract(centers, episode.line))))
        wanted = target + (1 if action == MetaAction.LANE_RIGHT else -1)
        if 0 <= wanted < len(centers):
            episode.line = centers[wanted]
            return True
    return False


def ego_command(carla: Any, task: CarlaTask, episode: CarlaEpisode, action: Any) -> Any:
    """The ego's control for the next frame.

    Args:
        carla: The client's module.
        task: The scenario.
        episode: The running episode.
        action: Pedal and steering where actions are continuous; else not used.

    Returns:
        A `carla.command.ApplyVehicleControl`.
    """
    if task.discrete:
        pedal = float(episode.control.pedals(episode.own["speed"], task.speeds[[episode.speed_index]])[0])
        steer = _steer(task, episode)
    else:
        pedal, steer = float(action[0]), float(action[1])
    control = carla.VehicleControl(max(pedal, 0.0), steer, max(-pedal, 0.0))
    return carla.command.ApplyVehicleControl(episode.ego.id, control)


def _steer(task: CarlaTask, episode: CarlaEpisode) -> float:
    own, route = episode.own, episode.route
    _, d, index = route.project(np.stack([own["x"], own["y"]], axis=1))
    heading = np.remainder(own["yaw"] - route.headings[index] + np.pi, 2 * np.pi) - np.pi
    bend = curvature(task.gains, own["speed"], d - episode.line, heading, route.curvatures[index])
    return float(episode.steering.share(np.abs(own["speed"]), bend)[0])
