"""The form of what a sensor sends, and its noise."""

from __future__ import annotations

from collections.abc import Callable

from sim.carla_lite.actors import Actor
from sim.carla_lite.world import LiteWorld

Content = tuple[str, bytes]
"""Kind of a stream (a key of `codec.Version.sensors`), and the body of a frame."""
Payload = Callable[[LiteWorld, Actor], Content | None]
"""(world, sensor) -> content of the present frame; None where there is nothing to send."""


def gaussian(world: LiteWorld, sensor: Actor, name: str) -> float:
    """Gaussian noise from the sensor's own generator.

    Args:
        world: The world of the sensor.
        sensor: A sensor.
        name: The attribute that holds the standard deviation.

    Returns:
        One draw; 0 without drawing where the deviation is 0.
    """
    deviation = float(sensor.attributes[name])
    return float(world.rng(sensor).normal(0.0, deviation)) if deviation > 0 else 0.0
