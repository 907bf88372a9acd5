"""Vehicle commands: pedals and steering, and Ackermann commands, which keep a speed and a wheel angle."""

from __future__ import annotations

import math

import numpy as np

from sim.carla_lite.actors import Actor
from sim.carla_lite.bodies import Bodies

PEDAL = 0.5
"""Pedal per m/s of speed error of an Ackermann command."""

AT_REST = (0.0, 0.0, 0.0, False, False, False, 0)
"""Throttle, steering, brake, hand brake, reverse, manual gear shift, gear."""


class VehicleControls:
    """The commands in force for the vehicles of one episode."""

    def __init__(self, actors: dict[int, Actor], bodies: Bodies, delay: bool) -> None:
        """With `delay`, pedals and steering take effect one frame late. `actors` is shared with the world."""
        self._actors, self._bodies, self._delay = actors, bodies, delay
        self._received: list[tuple[int, tuple]] = []
        self._due: list[tuple[int, tuple]] = []
        self._ackermann: set[int] = set()
        """Ids of vehicles that follow an Ackermann command."""
        self._loose: set[int] = set()
        """Ids of vehicles whose `sticky_control` is false: a command holds for one frame."""
        self._commanded: set[int] = set()
        """Those among them that have a command for the next frame."""

    def apply(self, actor: Actor, values: tuple) -> None:
        """Set pedals and steering.

        The Traffic Manager divides by its target speed; where that is 0 its brake is NaN, which is read as full brake.

        Args:
            actor: A vehicle.
            values: Throttle, steering, brake, hand brake, reverse, manual gear shift, gear.

        Raises:
            CallRefused: The actor has no body.
            ValueError: A value is not finite.
        """
        body = self._bodies.of(actor)
        if math.isnan(values[2]):
            values = (*values[:2], 1.0, *values[3:])
        if not math.isfinite(values[0] + values[1] + values[2]):
            raise ValueError(f"expected finite numbers, not {values[:3]}")
        if self._ackermann:
            self._ackermann.discard(actor.id)
        if actor.attributes.get("sticky_control") == "false":
            self._loose.add(actor.id)
            self._commanded.add(actor.id)
        if self._delay:
            self._received.append((actor.id, values))
        else:
            _set_pedals(body, values)

    def keep_speed(self, actor: Actor, angle: float, speed: float) -> None:
        """Follow an Ackermann command until `apply` is called for this vehicle.

        Args:
            actor: A vehicle.
            angle: Of the wheels, rad.
            speed: m/s, negative in reverse.

        Raises:
            CallRefused: The actor has no body.
        """
        self._bodies.of(actor)
        actor.ackermann = angle, speed
        self._ackermann.add(actor.id)

    def forget(self, actor_id: int) -> None:
        """Drop the commands of an actor that is destroyed."""
        self._ackermann.discard(actor_id)
        self._loose.discard(actor_id)

    def before_step(self) -> None:
        """Let go what does not stick, apply delayed commands that are due, update the pedals of Ackermann commands."""
        commanded = {number for number, _ in self._due} if self._delay else self._commanded
        for number in self._loose - commanded - self._ackermann:
            _set_pedals(self._bodies.of(self._actors[number]), AT_REST)
        self._commanded = set()
        due, self._due, self._received = self._due, self._received, []
        for number, values in due:
            if number in self._actors:
                _set_pedals(self._bodies.of(self._actors[number]), values)
        for number in self._ackermann:
            actor = self._actors[number]
            body, (angle, speed) = self._bodies.of(actor), actor.ackermann or (0.0, 0.0)
            own = body["vx"] * math.cos(body["yaw"]) + body["vy"] * math.sin(body["yaw"])
            reverse = speed < 0
            pedal = PEDAL * ((own - speed) if reverse else (speed - own))
            _set_pedals(body, (pedal, angle / body["max_steer"], -pedal, False, reverse, False, 0))


def _set_pedals(body: np.void, values: tuple) -> None:
    """Throttle, steering, brake, hand brake, reverse, manual gear shift, gear."""
    throttle, steer, brake, hand_brake, reverse, manual, gear = values
    body["throttle"] = min(max(throttle, 0.0), 1.0)
    body["steer"] = min(max(steer, -1.0), 1.0)
    body["brake"] = min(max(brake, 0.0), 1.0)
    body["hand_brake"], body["reverse"] = hand_brake, reverse
    body["manual"], body["gear"] = manual, gear if manual else (-1 if reverse else 1)
