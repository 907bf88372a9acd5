"""The ego and the traffic as sprites."""

from __future__ import annotations

import numpy as np
import pygame

from sim.render.frame import FrameContext
from sim.render.palette import Theme
from sim.render.panels import speed_share, top_speed
from sim.render.vehicles import BRAKING, Sprites, VehicleLook, is_obstacle


def draw_traffic(picture: pygame.Surface, sprites: Sprites, frame: FrameContext, theme: Theme) -> None:
    """Draw all vehicles in view, the ego on top.

    Args:
        picture: Receives them.
        sprites: Pictures of vehicles.
        frame: What is drawn.
        theme: The colours.
    """
    camera, cars, ego, overlay = frame.camera, frame.scene.vehicles, frame.scene.ego, frame.overlay
    left, top, width, height = camera.view
    columns = (cars.x - camera.x) * camera.zoom + (left + width / 2)
    rows = (cars.y - camera.y) * camera.zoom + (top + height / 2)
    reach = (np.maximum(cars.length, cars.width) / 2 + 2.0) * camera.zoom
    near = np.flatnonzero(
        (columns > left - reach) & (columns < left + width + reach) & (rows > top - reach)
        & (rows < top + height + reach) & (cars.length > 0.0)
    )  # fmt: skip
    shares = speed_share(cars.speed[near], top_speed(frame.scene))
    each = zip(
        columns[near].tolist(),
        rows[near].tolist(),
        *(column[near].tolist() for column in (cars.heading, cars.length, cars.width, cars.speed)),
        (cars.acceleration[near] < BRAKING).tolist(),
        cars.crashed[near].tolist(),
        shares.tolist(),
        strict=True,
    )
    bodies = [
        (
            VehicleLook(length, width, theme.traffic(share), braking, crashed, is_obstacle(length, width, speed)),
            column, row, heading,
        )
        for column, row, heading, length, width, speed, braking, crashed, share in each
    ]  # fmt: skip
    halo = None
    if overlay is not None and overlay.controller != "learner":
        halo = theme.controller(overlay.controller)
    braking = bool(ego.acceleration < BRAKING)
    look = VehicleLook(ego.length, ego.width, theme.ego, braking, bool(ego.crashed), False, halo)
    bodies.append((look, *camera.pixel(ego.x, ego.y), ego.heading))
    sprites.put(picture, bodies, camera.zoom)
