"""The table of actors that is sent with every frame. It is kept between frames: only what moves is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim.carla_lite import codec, physics
from sim.carla_lite.actors import Actor
from sim.carla_lite.bodies import Bodies
from sim.carla_lite.lights import TrafficLights
from sim.carla_lite.signals import Signal

DEGREES = 180.0 / np.pi
REACH = 8.0
"""Metres around a vehicle's centre within which its box lies; longer vehicles enter a light's trigger a little late."""


class ActorTable:
    """`codec.ACTOR` records of all actors of a world: bodies in the order of their rows, then lights, then the rest."""

    def __init__(
        self,
        actors: dict[int, Actor],
        bodies: Bodies,
        lights: TrafficLights,
        light_actors: dict[str, Actor],
        signals: tuple[Signal, ...],
        pose: Callable[[Actor], tuple[float, ...]],
    ) -> None:
        """All arguments are shared with the world and read again in every frame.

        Args:
            actors: By id.
            bodies: The bodies of those that have one.
            lights: States of the traffic lights.
            light_actors: Actors of the traffic lights, by OpenDRIVE id.
            signals: Of the traffic lights.
            pose: The world pose of an actor.
        """
        self._actors, self._bodies, self._pose = actors, bodies, pose
        self._light_states, self._light_actors = lights, light_actors
        self._records = np.zeros(0, codec.ACTOR)
        self._current = False
        self._vehicles: np.ndarray | slice = slice(0)
        self._lights: list[Actor] = []
        self._others: list[Actor] = []
        self._triggers = Triggers(signals)

    def changed(self) -> None:
        """To be called when an actor is added or removed, or changes something other than its motion."""
        self._current = False

    def records(self) -> np.ndarray:
        """All actors as they are now, `codec.ACTOR` (N,); valid until the next call."""
        if not self._current:
            self._arrange()
        self._fill_bodies()
        self._fill_lights()
        first = len(self._records) - len(self._others)
        for k, actor in enumerate(self._others, start=first):
            self._records["pose"][k] = self._pose(actor)
        return self._records

    def _arrange(self) -> None:
        bodies = [self._actors[number] for number in self._bodies.owners]
        without = [actor for actor in self._actors.values() if actor.row < 0]
        self._lights = [actor for actor in without if actor.kind == "light"]
        self._others = [actor for actor in without if actor.kind != "light"]
        actors = [*bodies, *self._lights, *self._others]
        self._records = records = np.zeros(len(actors), codec.ACTOR)
        records["id"], records["active"] = [actor.id for actor in actors], 1
        vehicles = np.array([actor.kind == "vehicle" for actor in bodies], dtype=bool)
        self._vehicles = slice(len(bodies)) if vehicles.all() else np.flatnonzero(vehicles)
        records.view(codec.ACTOR_VEHICLE)["light_state"][np.flatnonzero(vehicles)] = codec.NO_LIGHT
        walkers = records.view(codec.ACTOR_WALKER)
        for k, actor in enumerate(bodies):
            if actor.kind == "walker":
                x, y, z, speed, jump = actor.stride
                walkers[k]["direction"], walkers[k]["speed"], walkers[k]["jump"] = (x, y, z), speed, jump
        first = len(bodies)
        for k, actor in enumerate(self._lights, start=first):
            records["pose"][k] = self._pose(actor)
            records.view(codec.ACTOR_LIGHT)["sign"][k] = actor.light.encode()
        self._current = True

    def _fill_bodies(self) -> None:
        b = self._bodies.used
        records = self._records[: len(b)]
        groups = b.view(physics.BODY_GROUPS)
        records["pose"] = groups["pose"]
        records["pose"][:, 3:] *= DEGREES
        records["velocity"] = groups["velocity"]
        records["angular_velocity"][:, 2] = DEGREES * b["spin"]
        records["acceleration"][:, :2] = groups["acceleration"]
        vehicles, which = records.view(codec.ACTOR_VEHICLE), self._vehicles
        vehicles["pedals"][which] = groups["pedals"][which]
        vehicles["switches"][which] = groups["switches"][which]
        vehicles["gear"][which] = b["gear"][which]
        vehicles["speed_limit"][which] = b["limit"][which]
        if self._lights:
            self._fill_at_lights(b, vehicles)

    def _fill_at_lights(self, b: np.ndarray, vehicles: np.ndarray) -> None:
        vehicles["light_state"][self._vehicles] = codec.NO_LIGHT
        vehicles["at_light"][self._vehicles], vehicles["light"][self._vehicles] = False, 0
        for row, signal in self._triggers.at(b):
            if b["wheels"][row]:
                vehicles["light_state"][row] = self._light_states.light(signal.id).state
                vehicles["at_light"][row], vehicles["light"][row] = True, self._light_actors[signal.id].id

    def _fill_lights(self) -> None:
        if not self._lights:
            return
        first = len(self._bodies)
        records = self._records[first : first + len(self._lights)].view(codec.ACTOR_LIGHT)
        lights = [self._light_states.light(actor.light) for actor in self._lights]
        records["green"] = [light.times.green for light in lights]
        records["yellow"] = [light.times.yellow for light in lights]
        records["red"] = [light.times.red for light in lights]
        records["elapsed"] = [light.elapsed for light in lights]
        records["pole"] = [light.pole for light in lights]
        records["frozen"] = [light.frozen for light in lights]
        records["state"] = [light.state for light in lights]


class Triggers:
    """Finds vehicles whose box overlaps the trigger box of a light, as on CARLA."""

    def __init__(self, signals: tuple[Signal, ...]) -> None:
        self._signals = [signal for signal in signals if signal.trigger is not None]
        boxes = [signal.trigger for signal in self._signals if signal.trigger is not None]
        self._places = np.array([(box.x, box.y) for box in boxes]).reshape(-1, 2)
        self._reach = np.array([np.hypot(*box.extent[:2]) for box in boxes]) + REACH

    def at(self, b: np.ndarray) -> list[tuple[int, Signal]]:
        """The bodies that are at a light.

        Args:
            b: `physics.BODY` (N,).

        Returns:
            (row, signal) pairs.
        """
        xy = np.stack([b["x"], b["y"]], axis=1)
        near = ((xy[:, None] - self._places) ** 2).sum(axis=2) < self._reach**2
        found = []
        for row, k in zip(*np.nonzero(near), strict=True):
            box, one = self._signals[k].trigger, slice(row, row + 1)
            size = np.stack([b["length"][one], b["width"][one]], axis=1)
            if box is not None and box.overlaps(xy[one], np.degrees(b["yaw"][one]), size)[0]:
                found.append((int(row), self._signals[k]))
        return found
