"""The other cars: scripted drivers on the ego's route, or CARLA's Traffic Manager anywhere on the map.

Scripted drivers follow the intelligent driver model (Treiber et al. 2000, in highway-env's form) and keep their lane;
they are reproducible to the bit on carla-lite. The Traffic Manager runs inside the client; with a seed, and after a map
has been loaded again, it is reproducible, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from sim.carla.config import STEP
from sim.carla.control import Gains, SpeedControl, Steering, curvature
from sim.carla.routes import Route
from sim.carla.session import CarlaSession
from sim.carla.task import Idm, VehicleStart
from sim.sizes import LANE_MARGIN

CAR_LENGTH = 5.0
"""Vehicle length for which highway-env's jam distance holds, m."""
LEAD_OF_REFERENCE = 1.0
"""m/s by which the target speed of a driver may exceed its present speed."""


class CarlaTraffic(Protocol):
    """The other cars of an episode."""

    ids: np.ndarray
    """(V,) actor ids of the cars that were placed."""

    def commands(self, state: np.ndarray, ego: np.ndarray) -> list[Any]:
        """Their commands for the next frame.

        Args:
            state: `STATE` (V,) of the cars.
            ego: `STATE` (1,).

        Returns:
            `carla.command`s.
        """
        ...


STATE = np.dtype(
    [(name, "f8") for name in ("x", "y", "z", "yaw", "speed", "acceleration")],
)
"""One vehicle in a snapshot; yaw in rad, speed and acceleration along the yaw."""


def read_states(snapshot: Any, ids: Sequence[int]) -> np.ndarray:
    """The states of actors.

    Args:
        snapshot: A `carla.WorldSnapshot`.
        ids: Of N actors.

    Returns:
        `STATE` (N,); NaN for actors that the snapshot does not have.
    """
    rows = np.full((len(ids), 8), np.nan)
    for k, number in enumerate(ids):
        actor = snapshot.find(number)
        if actor is None:
            continue
        transform, velocity, change = actor.get_transform(), actor.get_velocity(), actor.get_acceleration()
        place = transform.location
        rows[k] = place.x, place.y, place.z, transform.rotation.yaw, velocity.x, velocity.y, change.x, change.y
    state = np.empty(len(ids), STATE)
    for name, column in zip(("x", "y", "z", "yaw"), rows.T[:4], strict=True):
        state[name] = column
    state["yaw"] = np.radians(state["yaw"])
    forward = np.stack([np.cos(state["yaw"]), np.sin(state["yaw"])], axis=1)
    state["speed"] = (rows[:, 4:6] * forward).sum(axis=1)
    state["acceleration"] = (rows[:, 6:8] * forward).sum(axis=1)
    return state


class NoTraffic:
    """An empty road."""

    ids = np.zeros(0, dtype=int)

    def commands(self, state: np.ndarray, ego: np.ndarray) -> list[Any]:
        return []


class ScriptedTraffic:
    """Drivers that follow the intelligent driver model in their lane of a route."""

    def __init__(
        self,
        session: CarlaSession,
        route: Route,
        cars: Sequence[VehicleStart],
        blueprints: Sequence[Any],
        idm: Idm,
        gains: Gains,
        ego_length: float,
    ) -> None:
        """Place the cars; they drive at their speed from the next frame on.

        Args:
            session: Spawns and owns them.
            route: Where they drive.
            cars: Starts of the cars.
            blueprints: One per car.
            idm: Parameters that all drivers share.
            gains: Of the controllers.
            ego_length: m.
        """
        self.route, self.idm, self.gains = route, idm, gains
        self.carla = session.carla
        ids = session.spawn_all(
            [
                (blueprint, transform_of(session, route, car.s - car.speed * STEP, car.d))
                for car, blueprint in zip(cars, blueprints, strict=True)
            ]
        )
        kept = [k for k, number in enumerate(ids) if number is not None]
        cars = [cars[k] for k in kept]
        self.ids = np.array([ids[k] for k in kept], dtype=int)
        self.desired = np.array([car.desired_speed for car in cars])
        self.maximum = np.array([car.acceleration for car in cars])
        self.headway = np.array([car.headway for car in cars])
        self.line = np.array([car.d for car in cars])
        self._control = SpeedControl(len(cars), gains, STEP)
        self._reference = np.array([car.speed for car in cars])
        session.apply(
            [
                session.carla.command.ApplyTargetVelocity(int(number), velocity_of(session, route, car))
                for number, car in zip(self.ids, cars, strict=True)
            ]
        )
        actors = {actor.id: actor for actor in session.world.get_actors(self.ids.tolist())}
        found = [actors[int(number)] for number in self.ids]
        self.lengths = np.array([*(2 * actor.bounding_box.extent.x for actor in found), ego_length])
        self._steering = steering_by_type(found)

    def commands(self, state: np.ndarray, ego: np.ndarray) -> list[Any]:
        if not len(self.ids):
            return []
        vehicles = np.concatenate([state, ego])
        s, d, index = self.route.project(np.stack([vehicles["x"], vehicles["y"]], axis=1))
        speed = state["speed"]
        acceleration = self._acceleration(s, d, vehicles["speed"], self.route.width[index[:-1]])
        reference = self._reference + acceleration * STEP
        self._reference = np.clip(reference, np.maximum(speed - LEAD_OF_REFERENCE, 0.0), speed + LEAD_OF_REFERENCE)
        pedals = self._control.pedals(speed, self._reference)
        road = self.route.headings[index[:-1]]
        turn = self.route.curvatures[index[:-1]]
        heading = np.remainder(state["yaw"] - road + np.pi, 2 * np.pi) - np.pi
        bend = curvature(self.gains, speed, d[:-1] - self.line, heading, turn)
        steer = np.empty(len(bend))
        for steering, rows in self._steering:
            steer[rows] = steering.share(np.abs(speed[rows]), bend[rows])
        apply, control = self.carla.command.ApplyVehicleControl, self.carla.VehicleControl
        return [
            apply(number, control(max(pedal, 0.0), wheel, max(-pedal, 0.0)))
            for number, pedal, wheel in zip(self.ids.tolist(), pedals.tolist(), steer.tolist(), strict=True)
        ]

    def _acceleration(self, s: np.ndarray, d: np.ndarray, speed: np.ndarray, width: np.ndarray) -> np.ndarray:
        """IDM accelerations (V,), m/s2; the last row of s, d and speed is the ego."""
        idm, count = self.idm, len(self.ids)
        ahead = s[None, :] - s[:count, None]
        in_lane = np.abs(d[None, :] - self.line[:, None]) <= (width / 2 + LANE_MARGIN)[:, None]
        ahead = np.where(in_lane & (ahead > 0), ahead, np.inf)
        leader = np.argmin(ahead, axis=1)
        gap = ahead[np.arange(count), leader] - (self.lengths[:count] + self.lengths[leader]) / 2 + CAR_LENGTH
        own = np.maximum(speed[:count], 0.0)
        closing = own - speed[leader]
        wanted = idm.jam_distance + own * self.headway + own * closing / (2 * np.sqrt(self.maximum * idm.deceleration))
        with np.errstate(invalid="ignore"):
            braking = np.where(np.isfinite(gap), wanted / np.maximum(gap, 0.01), 0.0) ** 2
        free = 1.0 - (own / self.desired) ** 4
        return np.clip(self.maximum * (free - braking), -idm.limit, idm.limit)


class ManagedTraffic:
    """Cars of the Traffic Manager at the map's spawn points, away from the ego's start."""

    def __init__(self, session: CarlaSession, places: Sequence[Any], blueprints: Sequence[Any], seed: int) -> None:
        """Place the cars.

        Args:
            session: Spawns and owns them.
            places: `carla.Transform`s.
            blueprints: One per place.
            seed: Of the Traffic Manager.
        """
        manager = session.traffic_manager(seed)
        ids = session.spawn_all(list(zip(blueprints, places, strict=True)))
        self.ids = np.array([number for number in ids if number is not None], dtype=int)
        port = manager.get_port()
        for actor in session.world.get_actors(self.ids.tolist()):
            actor.set_autopilot(True, port)

    def commands(self, state: np.ndarray, ego: np.ndarray) -> list[Any]:
        return []


def steering_by_type(actors: Sequence[Any]) -> list[tuple[Steering, np.ndarray]]:
    """The steering of each type of vehicle; physics are requested once per type.

    Args:
        actors: V vehicles.

    Returns:
        Steerings, each with the indices of its vehicles.
    """
    types = np.array([actor.type_id for actor in actors])
    found = []
    for name in sorted(set(types.tolist())):
        rows = np.flatnonzero(types == name)
        found.append((Steering.of(actors[int(rows[0])].get_physics_control()), rows))
    return found


def transform_of(session: CarlaSession, route: Route, s: float, d: float, lift: float = 0.3) -> Any:
    """A place on a route as a `carla.Transform`.

    Args:
        session: Gives the client's module.
        route: The route.
        s: m.
        d: m.
        lift: Metres above the ground.

    Returns:
        The transform, facing along the route.
    """
    carla = session.carla
    x, y, z, heading = route.pose(s, d)
    return carla.Transform(carla.Location(x, y, z + lift), carla.Rotation(yaw=float(np.degrees(heading))))


def velocity_of(session: CarlaSession, route: Route, car: VehicleStart) -> Any:
    """The velocity of a car at its start, along the road.

    Args:
        session: Gives the client's module.
        route: The route.
        car: Its start.

    Returns:
        A `carla.Vector3D`, m/s.
    """
    heading = route.pose(car.s, car.d)[3]
    return session.carla.Vector3D(car.speed * np.cos(heading), car.speed * np.sin(heading), 0.0)
