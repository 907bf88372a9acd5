"""Cameras: drawings of flat roads, coloured boxes and a sky. They run image code and are useless for perception."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sim.carla_lite.actors import Actor
from sim.carla_lite.sensors.payloads import Content
from sim.carla_lite.sensors.ranging import body_boxes
from sim.carla_lite.world import LiteWorld

if TYPE_CHECKING:
    from sim.carla_lite.camera import Scenery


class Cameras:
    """Pictures of one world; what can be drawn of its map is kept until another map is loaded."""

    def __init__(self) -> None:
        self._scenery: Scenery | None = None

    def rgb(self, world: LiteWorld, sensor: Actor) -> Content:
        return self._picture(world, sensor, "rgb")

    def semantic(self, world: LiteWorld, sensor: Actor) -> Content:
        return self._picture(world, sensor, "semantic")

    def instance(self, world: LiteWorld, sensor: Actor) -> Content:
        return self._picture(world, sensor, "instance")

    def depth(self, world: LiteWorld, sensor: Actor) -> Content:
        return self._picture(world, sensor, "depth")

    def _picture(self, world: LiteWorld, sensor: Actor, kind: str) -> Content:
        from sim.carla_lite import camera  # imported late: pygame is slow to import, and most worlds have no cameras

        if self._scenery is None or self._scenery.roads is not world.roads:
            self._scenery = camera.Scenery.of(world.roads)
        values = sensor.attributes
        size = int(values["image_size_x"]), int(values["image_size_y"])
        lens, boxes = camera.Lens(world.pose(sensor), *size, float(values["fov"])), body_boxes(world)
        head = struct.pack("<IIf", lens.width, lens.height, lens.fov)
        if kind == "depth":
            return kind, head + camera.depth(self._scenery, boxes, lens)
        return kind, head + camera.draw(self._scenery, boxes, lens, camera.PALETTES[kind])
