"""What lies under the traffic: ground, shoulders, asphalt and paint.

A level stretch of road, whose lanes all run along x, is composed of rows and repeating patterns with exact coverage of
every pixel. Anything else is drawn as polygons at twice the size and smoothed down; where the camera stands still, the
result is cached.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pygame

from sim.render.camera import Camera
from sim.render.palette import Colour, Theme
from sim.render.road import DASH, DASH_PERIOD, RoadGeometry
from sim.scene import Scene

SUPER = 2
"""Samples per pixel and direction of maps that are not level."""
SHOULDER = 1.2
"""Metres beside the outer lanes."""
OVERLAP = 0.06
"""Metres of asphalt beyond a lane's border."""
LINE = 0.17
"""Metres: width of paint."""
TICK = 20.0
"""Metres between the marks beside a road; every fifth one is longer and labelled."""
TICK_WIDTH = 0.16
"""Metres."""
PHASES = 16
"""Positions per pixel at which a repeating pattern may begin."""
PATTERNS = 8 << 20
"""Bytes of cached patterns after which the cache is cleared."""


def paint_width(zoom: float) -> float:
    """Width of a painted line, m: never much thinner than a pixel.

    Args:
        zoom: Pixels per metre.
    """
    return max(LINE, 1.3 / zoom)


class Ground:
    """Draws the map under the traffic; caches parts."""

    def __init__(self, theme: Theme) -> None:
        self.theme = theme
        self._large: pygame.Surface | None = None
        self._still: tuple[object, pygame.Surface] | None = None
        self._rows: dict[tuple, tuple[int, pygame.Surface]] = {}
        self._patterns: dict[tuple, pygame.Surface] = {}
        self._pattern_bytes = 0
        self._shapes: object = None

    def draw(self, picture: pygame.Surface, road: RoadGeometry, camera: Camera, scene: Scene) -> None:
        """Fill the camera's view of the picture.

        Args:
            picture: Receives the ground.
            road: The map.
            camera: Where it looks.
            scene: Gives the walls of a parking lot.
        """
        if road is not self._shapes:
            self._shapes, self._still = road, None
            self._rows.clear()
        if road.is_corridor and road.is_level(camera.x, camera.y, camera.radius + 6.0):
            self._level(picture, road, camera)
            return
        key = (camera, _lot(road, scene).tobytes() if road.is_lot else None)
        if self._still is None or self._still[0] != key:
            self._polygons(picture, road, camera, scene)
            if not road.is_corridor:
                self._still = (key, picture.subsurface(camera.view).copy())
        else:
            picture.blit(self._still[1], camera.view[:2])

    # -- level roads ---------------------------------------------------------------------------------------------------

    def _level(self, picture: pygame.Surface, road: RoadGeometry, camera: Camera) -> None:
        left, _, width, _ = camera.view
        picture.fill(self.theme.ground, camera.view)
        x_left = camera.x - width / 2 / camera.zoom
        x_right = camera.x + width / 2 / camera.zoom
        seen = [row for row in road.level if row is not None and row[0] < x_right and row[1] > x_left]
        # Between two ends of lanes the road looks the same everywhere, except for its dashes.
        ends = sorted({end for x0, x1, *_ in seen for end in (x0, x1) if x_left < end < x_right})
        cuts = [x_left, *ends, x_right]
        for start, end in itertools.pairwise(cuts):
            rows = tuple((y, half) for x0, x1, y, half in seen if x0 < (start + end) / 2 < x1)
            a, b = round((start - x_left) * camera.zoom), round((end - x_left) * camera.zoom)
            if rows and b > a:
                first, strip = self._strip(camera, rows)
                picture.blit(strip, (left + a, first), (0, 0, b - a, strip.get_height()))
        if road.is_straight:
            edge = float(road.high[1]) + SHOULDER
            for step, y0, y1 in ((TICK, 0.0, 0.6), (5 * TICK, 0.6, 1.2)):
                self._pattern(
                    picture, camera, self.theme.tick, (edge + y0, edge + y1), (step, TICK_WIDTH, -TICK_WIDTH / 2)
                )
        # Half a pixel more, as polygons, which include their outlines, have it.
        half = (paint_width(camera.zoom) + 0.5 / camera.zoom) / 2
        for border in road.borders:
            row = road.level[border.lane]
            if row is not None and row[0] < x_right and row[1] > x_left:
                x0, x1, y, _ = row
                way = float(road.lanes[border.lane].tangents[0, 0])
                dashes = (DASH_PERIOD, DASH, 0.0 if way > 0 else -DASH) if border.broken else (1.0, 1.0, 0.0)
                y += way * border.offset
                self._pattern(picture, camera, self.theme.marking, (y - half, y + half), dashes, (x0, x1))

    def _strip(self, camera: Camera, lanes: tuple[tuple[float, float], ...]) -> tuple[int, pygame.Surface]:
        """The first row, and the cross-section of lanes at (y, half width) stretched over the view's width."""
        key = (camera.y, camera.zoom, camera.view, lanes)
        if key in self._rows:
            return self._rows[key]
        if len(self._rows) >= 4:
            self._rows.clear()
        _, top, width, height = camera.view
        middle = top + height / 2
        reach = SHOULDER + 1.0
        first = math.floor(middle + (min(y - half for y, half in lanes) - reach - camera.y) * camera.zoom)
        last = math.ceil(middle + (max(y + half for y, half in lanes) + reach - camera.y) * camera.zoom)
        first, last = max(first, top), max(min(last, top + height), max(first, top) + 1)
        colours = np.tile(np.array(self.theme.ground, dtype=float), (last - first, 1))
        for colour, extra in ((self.theme.shoulder, SHOULDER), (self.theme.asphalt, OVERLAP)):
            share = np.zeros(last - first)
            for low, high in _union([(y - half - extra, y + half + extra) for y, half in lanes]):
                a, b = (middle + (value - camera.y) * camera.zoom - first for value in (low, high))
                share += _covered(a, b, last - first)
            colours += np.minimum(share, 1.0)[:, None] * (np.array(colour, dtype=float) - colours)
        column = pygame.Surface((1, last - first), 0, 32)
        pygame.surfarray.blit_array(column, np.rint(colours).astype(np.uint8)[None])
        strip = pygame.transform.scale(column, (width, last - first))
        self._rows[key] = first, strip
        return first, strip

    def _pattern(
        self,
        picture: pygame.Surface,
        camera: Camera,
        colour: Colour,
        rows: tuple[float, float],
        repeat: tuple[float, float, float],
        limits: tuple[float, float] = (-math.inf, math.inf),
    ) -> None:
        """Draw a row of marks between two y, `repeat` = (period, length, begin) in m, within limits of x."""
        left, top, width, height = camera.view
        period, length, begin = repeat
        zoom, middle = camera.zoom, top + height / 2
        y0, y1 = (middle + (y - camera.y) * zoom for y in rows)
        first = math.floor(y0)
        low, high = round((y0 - first) * 64) / 64, round((y1 - first) * 64) / 64
        if y1 < top or first > top + height:
            return
        x_left = camera.x - width / 2 / zoom
        solid = length >= period
        shift = 0 if solid else round((x_left - begin) % period * zoom * PHASES)
        start, phase = divmod(shift, PHASES)
        key = (colour, zoom, width, period, length, low, high, phase)
        sprite = self._patterns.get(key)
        if sprite is None:
            if self._pattern_bytes > PATTERNS:
                self._patterns.clear()
                self._pattern_bytes = 0
            count = width + (0 if solid else math.ceil(period * zoom) + 2)
            edges = (np.arange(count + 1) + phase / PHASES) / zoom
            whole = np.floor(edges / period)
            painted = whole * length + np.minimum(edges - whole * period, length)
            across = np.clip(np.diff(painted) * zoom, 0.0, 1.0)
            sprite = self._patterns[key] = _sheet(across, _covered(low, high, math.ceil(high)), colour)
            self._pattern_bytes += 4 * math.prod(sprite.get_size())
        a = 0 if limits[0] <= x_left else round((limits[0] - x_left) * zoom)
        b = width if limits[1] == math.inf else min(round((limits[1] - x_left) * zoom), width)
        if b > a:
            area = (start + a, 0, b - a, sprite.get_height())
            picture.blit(sprite, (left + a, first), area, special_flags=pygame.BLEND_PREMULTIPLIED)

    # -- other maps ----------------------------------------------------------------------------------------------------

    def _polygons(self, picture: pygame.Surface, road: RoadGeometry, camera: Camera, scene: Scene) -> None:
        left, top, width, height = camera.view
        first, last = _touched(road, camera, scene)
        picture.fill(self.theme.ground, camera.view)
        if last <= first:
            return
        size = picture.get_width() * SUPER, picture.get_height() * SUPER
        if self._large is None or self._large.get_size() != size:
            self._large = pygame.Surface(size, 0, 32)
        canvas = self._large.subsurface((0, 0, width * SUPER, (last - first) * SUPER))
        origin = np.array([camera.x, camera.y]) - np.array([width / 2, top + height / 2 - first]) / camera.zoom
        zoom = camera.zoom * SUPER

        def fill(colour: Colour, world: np.ndarray) -> None:
            if len(world) >= 3:
                pygame.draw.polygon(canvas, colour, ((world - origin) * zoom).tolist())

        canvas.fill(self.theme.ground)
        if road.is_straight:
            for x, long in _ticks(camera, width):
                y0 = float(road.high[1]) + SHOULDER
                a, b, y1 = x - TICK_WIDTH / 2, x + TICK_WIDTH / 2, y0 + (1.2 if long else 0.6)
                fill(self.theme.tick, np.array([(a, y0), (b, y0), (b, y1), (a, y1)]))
        visible = road.visible(camera.x, camera.y, camera.radius + 6.0)
        if road.is_lot:
            fill(self.theme.asphalt, _lot(road, scene))
        else:
            for colour, extra in ((self.theme.shoulder, SHOULDER), (self.theme.asphalt, OVERLAP)):
                for index, start, end in visible:
                    fill(colour, road.surface(index, road.widths[index] / 2 + extra, start, end))
        half = paint_width(camera.zoom) / 2
        spans = {index: (start, end) for index, start, end in visible}
        for border in road.borders:
            if border.lane not in spans:
                continue
            start, end = spans[border.lane]
            if border.broken:
                for dash in road.dashes(border, start, end, half):
                    fill(self.theme.marking, dash)
            else:
                low, high = border.offset - half, border.offset + half
                fill(self.theme.marking, road.strip(border.lane, low, high, start, end))
        target = picture.subsurface((left, first, width, last - first))
        pygame.transform.smoothscale(canvas, (width, last - first), target)


def _ticks(camera: Camera, width: int) -> list[tuple[float, bool]]:
    """x of the marks beside a road in view, and whether they are long ones."""
    half = width / 2 / camera.zoom
    first, last = math.floor((camera.x - half) / TICK), math.ceil((camera.x + half) / TICK)
    return [(number * TICK, number % 5 == 0) for number in range(first, last + 1)]


def _union(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Intervals without overlaps."""
    joined: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1] + 1e-9:
            joined[-1] = joined[-1][0], max(joined[-1][1], high)
        else:
            joined.append((low, high))
    return joined


def _covered(low: float, high: float, count: int) -> np.ndarray:
    """Share of each of `count` unit cells that an interval covers."""
    cell = np.arange(count)
    return np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0.0, 1.0)


def _sheet(across: np.ndarray, down: np.ndarray, colour: Colour) -> pygame.Surface:
    """A premultiplied sheet whose opacity is the product of two profiles."""
    opacity = np.outer(down, across).astype(np.float32)
    pixels = np.empty((*opacity.shape, 4), np.uint8)
    for channel, value in enumerate((*colour[::-1], 255)):
        pixels[:, :, channel] = opacity * value + 0.5
    return pygame.image.frombuffer(pixels.data, (len(across), len(down)), "BGRA")  # as screens have it


def _touched(road: RoadGeometry, camera: Camera, scene: Scene) -> tuple[int, int]:
    """Rows of the picture that the map may touch: the rest stays ground and needs no smoothing."""
    _, top, _, height = camera.view
    if road.is_lot or not road.lanes:
        return top, top + height
    middle = top + height / 2
    edges = [middle + (float(y) - camera.y) * camera.zoom for y in (road.low[1], road.high[1])]
    margin = 3.2 * camera.zoom
    return max(int(min(edges) - margin), top), min(math.ceil(max(edges) + margin), top + height)


def _lot(road: RoadGeometry, scene: Scene) -> np.ndarray:
    """Corners of a parking lot, up to its walls."""
    cars = scene.vehicles
    walls = (cars.speed == 0) & (np.maximum(cars.length, cars.width) > 20.0)
    corners = np.array([road.low - 1.5, road.high + 1.5])
    if walls.any():
        middles = np.stack([cars.x[walls], cars.y[walls]], axis=1)
        corners = np.array([np.minimum(corners[0], middles.min(0)), np.maximum(corners[1], middles.max(0))])
    (x0, y0), (x1, y1) = corners
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
