"""Words on the road: the gap, the distance to the finish, marks beside the road, speeds of the nearest cars."""

from __future__ import annotations

import math

import numpy as np
import pygame

from sim.render.frame import OPEN_AREA, FrameContext
from sim.render.ground import SHOULDER, TICK
from sim.render.palette import Colour, Theme, mix
from sim.render.panels import TTC_WARNING, gap_text, remaining_text
from sim.render.text import Typist
from sim.scene import Neighbour


class TextLabels:
    """Draws words at their own size; `scale` multiplies it."""

    def __init__(self, theme: Theme, typist: Typist, scale: float) -> None:
        self._theme, self._typist, self._scale = theme, typist, scale

    def draw(self, picture: pygame.Surface, frame: FrameContext, speeds: bool) -> None:
        """Draw all labels.

        Args:
            picture: Receives them.
            frame: What is drawn.
            speeds: Whether to label the cars nearest to the ego with their speeds.
        """
        self._gap(picture, frame)
        self._finish(picture, frame)
        if frame.road.is_straight:
            self._ticks(picture, frame)
        if speeds:
            self._speeds(picture, frame)

    def _px(self, value: float) -> int:
        return round(value * self._scale)

    def _pill(
        self,
        picture: pygame.Surface,
        words: str,
        centre: tuple[float, float],
        colour: Colour,
        ground: Colour,
        room: float = math.inf,
    ) -> None:
        """Words in a rounded box centred at a pixel; left out where `room` pixels are too few."""
        piece = self._typist.text(words, max(self._px(11), 8), colour)
        pad = self._px(6)
        width, height = piece.get_width() + 2 * pad, piece.get_height() + self._px(2)
        if width > room:
            return
        left = min(max(round(centre[0] - width / 2), 2), picture.get_width() - width - 2)
        top = round(centre[1] - height / 2)
        chip = self._typist.chip(width, height, height / 2, ground)
        picture.blit(chip, (left, top), special_flags=pygame.BLEND_PREMULTIPLIED)
        picture.blit(piece, (left + pad, top + (height - piece.get_height()) // 2))

    def _gap(self, picture: pygame.Surface, frame: FrameContext) -> None:
        front, ends, theme = frame.front, frame.gap_ends, self._theme
        if ends is None or front is None:
            return
        _, view_top, width, height = frame.camera.view
        a, b = frame.camera.project(ends)
        middle = (a + b) / 2
        if 0 < middle[0] < width and view_top < middle[1] < view_top + height:
            colour = theme.brake if front.ttc < TTC_WARNING else theme.ink
            self._pill(picture, gap_text(front), (middle[0], middle[1]), colour, theme.panel, math.dist(a, b) - 6)

    def _finish(self, picture: pygame.Surface, frame: FrameContext) -> None:
        goal, theme, camera = frame.scene.goal, self._theme, frame.camera
        if frame.finish is None or goal is None or goal.remaining is None:
            return
        _, view_top, width, height = camera.view
        point, normal, low, _ = frame.finish
        x, y = camera.pixel(*(point + normal * (low - SHOULDER)).tolist())
        words = remaining_text(goal.remaining)
        if 0 <= x < width and view_top <= y < view_top + height:
            y = max(y - self._px(11), view_top + self._px(10))
            self._pill(picture, f"Finish · {words}", (x, y), theme.panel, theme.goal)
        elif frame.road.is_corridor and goal.lane is not None and x >= width:
            path = frame.lane_path(goal.lane, 1.0)
            if path is not None:
                y = camera.pixel(*path.points[0].tolist())[1]
                self._pill(picture, f"{words} →", (width - self._px(44), y), theme.panel, theme.goal)

    def _speeds(self, picture: pygame.Surface, frame: FrameContext) -> None:
        """Speeds ahead and behind in the ego's lane and those beside it, and a short time to collision from behind."""
        camera, scene, theme, px = frame.camera, frame.scene, self._theme, self._px
        cars, ego = scene.vehicles, scene.ego
        left, top, width, height = camera.view
        if scene.lane_width >= OPEN_AREA:
            return
        chaser = scene.rear(ego.target_lane) if ego.target_lane != ego.lane else None
        if chaser is not None and chaser.ttc >= TTC_WARNING:
            chaser = None
        for number, neighbour in _nearest(frame, chaser).items():
            index = int(np.flatnonzero(cars.ids == number)[0])
            x, y = camera.pixel(float(cars.x[index]), float(cars.y[index]))
            late = chaser is not None and number == chaser.id
            hidden = late and x < left  # shown at the picture's edge
            if not ((hidden or left < x < left + width) and top < y < top + height):
                continue
            heading = float(cars.heading[index])
            reach = abs(math.cos(heading)) * cars.length[index] + abs(math.sin(heading)) * cars.width[index]
            x = left + px(6) if hidden else x + float(reach) / 2 * camera.zoom + px(5)
            words = f"{'← ' if hidden else ''}{abs(neighbour.speed):.0f} m/s"
            if late:
                words += f" · TTC {neighbour.ttc:.1f} s"
            piece = self._typist.text(words, max(px(10), 8), theme.panel if late else mix(theme.muted, theme.ink, 0.4))
            wide, high = piece.get_width() + px(8), piece.get_height()
            chip = self._typist.chip(wide, high, high / 2, theme.brake if late else theme.asphalt, 1.0 if late else 0.7)
            corner = round(x), round(y - high / 2)
            picture.blit(chip, corner, special_flags=pygame.BLEND_PREMULTIPLIED)
            picture.blit(piece, (corner[0] + px(4), corner[1]))

    def _ticks(self, picture: pygame.Surface, frame: FrameContext) -> None:
        """Distances beside every fifth mark of a straight road."""
        camera = frame.camera
        _, view_top, width, height = camera.view
        half = width / 2 / camera.zoom
        step = 5 * TICK
        for number in range(math.ceil((camera.x - half) / step), math.floor((camera.x + half) / step) + 1):
            piece = self._typist.text(f"{number * step:.0f} m", max(self._px(10), 8), self._theme.muted)
            x, y = camera.pixel(number * step, float(frame.road.high[1]) + SHOULDER + 1.5)
            if y + piece.get_height() < view_top + height:
                picture.blit(piece, (round(x - piece.get_width() / 2), round(y)))


def _nearest(frame: FrameContext, chaser: Neighbour | None) -> dict[int, Neighbour]:
    """The cars nearest to the ego ahead and behind in its own and the adjacent lanes, and the chaser, by id."""
    scene, found = frame.scene, {}
    for lane in (scene.ego.lane - 1, scene.ego.lane, scene.ego.lane + 1):
        for each in (scene.front(lane), scene.rear(lane)):
            if each is not None:
                found[each.id] = each
    if chaser is not None:
        found[chaser.id] = chaser
    return found
