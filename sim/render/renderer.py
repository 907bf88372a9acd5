"""`SceneRenderer`: a scene as a picture.

The world is drawn at twice the size and smoothed down, only where the road is; text is set at its own size afterwards.
Everything follows from the scenes drawn so far in the episode: equal calls give equal bytes.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pygame

from sim.actions import MetaAction
from sim.errors import UsageError, unknown
from sim.render import vehicles
from sim.render.camera import Camera, aim
from sim.render.overlay import Overlay
from sim.render.palette import THEMES, Colour, Theme, mix
from sim.render.panels import BOTTOM, TOP, TTC_WARNING, Panels, gap_text, remaining_text, speed_share, top_speed
from sim.render.road import Polyline, RoadMap
from sim.render.text import Typist
from sim.scene import Neighbour, Scene
from sim.view import manoeuvres

SUPER = 2
"""Samples per pixel and direction."""
SHOULDER = 1.2
"""Metres beside the outer lanes."""
LINE = 0.17
"""Metres: width of paint."""
TRAIL_TIME = 5.0
"""Seconds of the ego's past that stay visible."""
TRAIL_STEP = 0.7
"""Metres between the points of the trail."""
EPISODE_GAP = 3.0
"""Seconds without a scene, or backwards, after which a new episode is assumed; also for jumps beyond speed."""
TICK = 20.0
"""Metres between the marks beside a road; every fifth one has its number."""
WINDOW_FPS = 30


class SceneRenderer:
    """Draws scenes of one world after the other; the ego's trail and the camera's movement carry over in an episode.

    Args: whether to show every picture in a window of its own too, at real-time pace; size in pixels, at least
        160 x 120; theme "light", "dark" or one's own.
    `strip` says whether an overlay's strip is drawn below the road. `show_speeds` labels the cars around the ego.
    Raises: UsageError for a bad size or theme, or where no window can be opened.
    """

    def __init__(
        self,
        window: bool = False,
        size: tuple[int, int] = (1280, 320),
        theme: str | Theme = "light",
        strip: bool = True,
    ) -> None:
        self.strip, self.show_speeds = strip, False
        self.camera: Camera | None = None
        self._aimed: Camera | None = None  # before the user's zoom and pan
        self._user_zoom, self._pan = 1.0, np.zeros(2)
        self._typist = Typist()
        self.set_theme(theme)
        self.resize(size)
        self._shapes: object = None
        self._road = RoadMap(())
        self._trail: deque[tuple[float, float, float]] = deque()
        self._last: Scene | None = None
        self._visible: list[tuple[int, float, float]] = []  # lane, from, to (m)
        self._paint: list = []  # polygons of the markings, pixels
        self._here: tuple[int, float, np.ndarray] | None = None  # the ego on the map
        self._finish: tuple[np.ndarray, np.ndarray, float, float] | None = None
        self._origin, self._zoom = np.zeros(2), 1.0
        self._window = self._open() if window else None
        self._clock = pygame.time.Clock()

    # -- for callers ---------------------------------------------------------------------------------------------------

    def resize(self, size: tuple[int, int]) -> None:
        """Draw pictures of another size from now on; the episode goes on. UsageError below 160 x 120."""
        width, height = int(size[0]), int(size[1])
        if width < 160 or height < 120:
            raise UsageError(f"picture size {width} x {height}: choose at least 160 x 120 pixels")
        self.size = width, height
        self.scale = min(max(min(width / 1100, height / 320), 0.72), 2.5)
        self._panels = Panels(self.theme, self._typist, self.scale)
        self._picture = pygame.Surface(self.size, 0, 32)
        self._large = pygame.Surface((width * SUPER, height * SUPER), 0, 32)
        self._canvas = self._large
        self._layer: tuple[object, pygame.Surface] | None = None

    def set_theme(self, theme: str | Theme) -> None:
        """Draw in another theme from now on. UsageError for an unknown name."""
        if isinstance(theme, str):
            if theme not in THEMES:
                raise unknown("theme", theme, THEMES)
            theme = THEMES[theme]
        self.theme = theme
        self._layer = None
        if hasattr(self, "size"):
            self._panels = Panels(theme, self._typist, self.scale)

    def zoom_by(self, factor: float) -> None:
        """Come closer (> 1) or go farther, about the ego; 0.4 to 4 times the camera's own zoom."""
        self._user_zoom = min(max(self._user_zoom * factor, 0.4), 4.0)

    def pan(self, dx: float, dy: float) -> None:
        """Drag the view by pixels."""
        if self.camera is not None:
            self._pan = self._pan - np.array([dx, dy]) / self.camera.zoom

    def follow(self) -> None:
        """Undo `zoom_by` and `pan`."""
        self._user_zoom, self._pan = 1.0, np.zeros(2)

    def draw(self, scene: Scene, overlay: Overlay | None = None) -> np.ndarray:
        """The picture, uint8 (height, width, 3), a fresh array. With a window, it is shown there as well.

        A window plays the time since the last scene of the episode in real time, with pictures in between.
        """
        if self._window is not None:
            self._play(scene, overlay)
        surface = self.draw_surface(scene, overlay)
        pixels = np.frombuffer(pygame.image.tobytes(surface, "RGB"), np.uint8)
        return pixels.reshape(self.size[1], self.size[0], 3).copy()

    def draw_surface(self, scene: Scene, overlay: Overlay | None = None) -> pygame.Surface:
        """The picture as a surface that this renderer owns and draws the next one on; for apps with a display."""
        self._follow(scene, overlay)
        self._world(scene, overlay)
        front = self._front(scene)
        self._labels(scene, front)
        self._panels.gauges(self._picture, scene, overlay, front)
        if overlay is not None and self.strip:
            self._panels.side(self._picture, scene, overlay)
        if self._window is not None:
            self._show()
        return self._picture

    def to_pixel(self, x: float, y: float) -> tuple[float, float]:
        """Where a world position lies in the picture drawn last."""
        if self.camera is None:
            raise UsageError("to_pixel: draw a scene first")
        column, row = self.camera.project(np.array([x, y]))
        return float(column), float(row)

    def reset(self) -> None:
        """Forget the episode: no trail, and the camera jumps to its place. A new episode is also noticed by itself."""
        self._trail.clear()
        self._last = self.camera = self._aimed = None

    def close(self) -> None:
        """Close our window, if any; pygame and every other window live on."""
        if self._window is not None:
            self._window.destroy()
            self._window = None

    # -- window --------------------------------------------------------------------------------------------------------

    def _open(self) -> pygame.Window:
        try:
            pygame.display.init()
            return pygame.Window("lgdrl", self.size)
        except pygame.error as error:
            raise UsageError(f"cannot open a window ({error}): use render mode 'rgb_array'") from None

    def _show(self) -> None:
        assert self._window is not None
        for event in pygame.event.get(pygame.WINDOWCLOSE, pump=True):
            if getattr(event, "window", None) is self._window:
                self.close()
                return
            pygame.event.post(event)
        self._window.get_surface().blit(self._picture, (0, 0))
        self._window.flip()

    def _play(self, scene: Scene, overlay: Overlay | None) -> None:
        from sim.render.motion import interpolate

        last = self._last
        if last is None or self._is_new_episode(last, scene) or scene.time <= last.time:
            return
        count = max(round((scene.time - last.time) * WINDOW_FPS), 1)
        for step in range(1, count):
            self.draw_surface(interpolate(last, scene, step / count), overlay)
            if self._window is None:
                return
            self._clock.tick(WINDOW_FPS)
        self._clock.tick(WINDOW_FPS)

    # -- the episode so far --------------------------------------------------------------------------------------------

    @staticmethod
    def _is_new_episode(last: Scene, scene: Scene) -> bool:
        elapsed = scene.time - last.time
        jump = math.hypot(scene.ego.x - last.ego.x, scene.ego.y - last.ego.y)
        fastest = max(abs(scene.ego.speed), abs(last.ego.speed))
        return (
            last.scenario != scene.scenario
            or not 0.0 <= elapsed <= max(EPISODE_GAP, 3 * scene.decision_period)
            or jump > 1.5 * fastest * elapsed + 10.0
        )

    def _follow(self, scene: Scene, overlay: Overlay | None) -> None:
        if scene.shapes is not self._shapes:
            self._shapes, self._road, self._layer = scene.shapes, RoadMap(scene.shapes), None
        if self._last is not None and self._is_new_episode(self._last, scene):
            self.reset()
        elapsed = 0.0 if self._last is None else scene.time - self._last.time
        top = self._panels.px(TOP)
        bottom = self._panels.px(BOTTOM) if overlay is not None and self.strip else 0
        view = (0, top, self.size[0], max(self.size[1] - top - bottom, 16))
        self._aimed = aim(scene, self._road, view, self._aimed, elapsed)
        self.camera = self._moved(self._aimed, scene)
        point = (scene.time, scene.ego.x, scene.ego.y)
        if not self._trail or math.dist(self._trail[-1][1:], point[1:]) >= TRAIL_STEP:
            self._trail.append(point)
        while self._trail and scene.time - self._trail[0][0] > TRAIL_TIME:
            self._trail.popleft()
        self._last = scene
        self._here = self._road.lane_at(scene.ego.x, scene.ego.y, scene.ego.heading)
        self._finish = self._find_finish(scene)

    def _moved(self, camera: Camera, scene: Scene) -> Camera:
        """The camera with the user's zoom, about the ego, and pan."""
        if self._user_zoom == 1.0 and not self._pan.any():
            return camera
        ego, share = scene.ego, 1.0 / self._user_zoom
        x = ego.x + (camera.x - ego.x) * share + float(self._pan[0])
        y = ego.y + (camera.y - ego.y) * share + float(self._pan[1])
        return Camera(x, y, camera.zoom * self._user_zoom, camera.view)

    # -- the world -----------------------------------------------------------------------------------------------------

    def _world(self, scene: Scene, overlay: Overlay | None) -> None:
        """Road, marks and vehicles, smoothed into the picture."""
        camera = self.camera
        assert camera is not None
        _, top, width, height = camera.view
        first, last = self._rows(scene)
        self._picture.fill(self.theme.ground, (0, top, width, height))
        canvas = self._large.subsurface((0, 0, width * SUPER, (last - first) * SUPER))
        self._origin = np.array([camera.x, camera.y]) - (np.array([width / 2, top + height / 2 - first]) / camera.zoom)
        self._zoom = camera.zoom * SUPER
        self._canvas = canvas
        self._ground(scene)
        self._draw_goal(scene)
        self._draw_unsafe(scene, overlay)
        self._draw_trail(scene)
        for line in self._paint:
            pygame.draw.polygon(self._canvas, self.theme.marking, line)
        self._draw_target(scene)
        self._draw_finish()
        self._draw_gap(scene)
        self._draw_vehicles(scene, overlay)
        target = self._picture.subsurface((0, first, width, last - first))
        pygame.transform.smoothscale(canvas, (width, last - first), target)

    def _rows(self, scene: Scene) -> tuple[int, int]:
        """Rows of the picture that the road may touch: the rest stays ground and needs no smoothing."""
        camera = self.camera
        assert camera is not None
        _, top, _, height = camera.view
        if not self._road.is_corridor:
            return top, top + height
        edges = camera.project(np.array([self._road.low, self._road.high]))[:, 1]
        rows = [*edges, *camera.project(np.array([[scene.ego.x, scene.ego.y]]))[:, 1]]
        margin = 3.2 * camera.zoom
        return max(int(min(rows) - margin), top), min(math.ceil(max(rows) + margin), top + height)

    def _points(self, world: np.ndarray) -> list:
        """World (..., 2) to pixels of the large canvas, as nested lists."""
        return ((world - self._origin) * self._zoom).tolist()

    def _fill(self, colour: Colour, world: np.ndarray) -> None:
        if len(world) >= 3:
            pygame.draw.polygon(self._canvas, colour, self._points(world))

    def _ground(self, scene: Scene) -> None:
        """Ground, shoulders and asphalt, and what to paint on them later; all kept while the camera stands still."""
        camera = self.camera
        key = (camera, self._canvas.get_size())
        if self._layer is not None and self._layer[0] == key:
            self._canvas.blit(self._layer[1], (0, 0))
            return
        assert camera is not None
        theme, road = self.theme, self._road
        self._canvas.fill(theme.ground)
        self._visible = road.visible(camera.x, camera.y, camera.radius + 6.0)
        if road.is_lot:
            self._lot(scene)
        else:
            if road.is_straight:
                self._ticks()
            for colour, extra in ((theme.shoulder, SHOULDER), (theme.asphalt, 0.06)):
                for index, start, end in self._visible:
                    half = road.widths[index] / 2 + extra
                    self._fill(colour, road.surface(index, half, start, end))
        self._paint = self._markings()
        if not road.is_corridor:
            self._layer = (key, self._canvas.copy())

    def _lot(self, scene: Scene) -> None:
        """The ground of a parking lot, up to its walls."""
        cars = scene.vehicles
        walls = (cars.speed == 0) & (np.maximum(cars.length, cars.width) > 20.0)
        corners = np.array([self._road.low - 1.5, self._road.high + 1.5])
        if walls.any():
            middles = np.stack([cars.x[walls], cars.y[walls]], axis=1)
            corners = np.array([np.minimum(corners[0], middles.min(0)), np.maximum(corners[1], middles.max(0))])
        (x0, y0), (x1, y1) = corners
        self._fill(self.theme.asphalt, np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]))

    def _ticks(self) -> None:
        """A mark every 20 m along the lower edge of a road."""
        camera = self.camera
        assert camera is not None
        half = self.size[0] / 2 / camera.zoom
        y = float(self._road.high[1]) + SHOULDER
        for number in range(math.floor((camera.x - half) / TICK), math.ceil((camera.x + half) / TICK) + 1):
            x, long = number * TICK, 1.2 if number % 5 == 0 else 0.6
            self._fill(
                self.theme.tick, np.array([(x - 0.08, y), (x + 0.08, y), (x + 0.08, y + long), (x - 0.08, y + long)])
            )

    def _markings(self) -> list:
        """All painted lines in view, as polygons in pixels of the canvas."""
        half = max(LINE, 1.3 * SUPER / self._zoom) / 2
        road = self._road
        spans = {index: (start, end) for index, start, end in self._visible}
        paint: list = []
        for border in road.borders:
            if border.lane not in spans:
                continue
            start, end = spans[border.lane]
            if border.broken:
                paint += self._points(road.dashes(border, start, end, half))
            else:
                low, high = border.offset - half, border.offset + half
                paint.append(self._points(road.strip(border.lane, low, high, start, end)))
        return paint

    # -- the ego's plans and past --------------------------------------------------------------------------------------

    def _lane_path(self, scene: Scene, lane: int, distance: float, behind: float = 0.0) -> Polyline | None:
        """Centre of one of the ego's lanes, from `behind` the ego, as far as it is certain."""
        ego = scene.ego
        if not 0 <= lane < scene.num_lanes:
            return None
        if self._here is None:
            return None
        tangent = self._here[2]
        normal = np.array([-tangent[1], tangent[0]])
        start = np.array([ego.x, ego.y]) + normal * (scene.lane_centers[lane] - ego.d)
        heading = math.atan2(tangent[1], tangent[0])
        back = start - behind * tangent
        if behind and (path := self._road.follow(back[0], back[1], heading, distance + behind)) is not None:
            return path
        return self._road.follow(start[0], start[1], heading, distance)

    def _draw_goal(self, scene: Scene) -> None:
        """The lane to be in, tinted up to the finish."""
        goal = scene.goal
        if self._road.is_lot:
            for spot in self._goal_spots(scene):
                lane, half = self._road.lanes[spot], self._road.widths[spot] / 2
                self._fill(mix(self.theme.asphalt, self.theme.goal, 0.45), lane.strip(-half, half, 0.0, lane.length))
            return
        if goal is None or goal.lane is None or scene.num_lanes < 2:
            return
        behind = 60.0 if self._road.is_corridor else 0.0
        ahead = 200.0 if goal.remaining is None else min(max(goal.remaining, -behind), 200.0)
        path = self._lane_path(scene, goal.lane, ahead, behind)
        if path is not None and path.length > 0.1:
            half = scene.lane_width / 2
            self._fill(mix(self.theme.asphalt, self.theme.goal, 0.26), path.strip(-half, half, 0.0, path.length))

    def _draw_unsafe(self, scene: Scene, overlay: Overlay | None) -> None:
        """Hatching beside the ego in lanes that it had better not change to now."""
        ego = scene.ego
        if overlay is None or overlay.unsafe is None or ego.crashed or self._road.is_lot:
            return
        try:
            meanings = manoeuvres(scene)
        except ValueError:
            return
        half, reach = scene.lane_width / 2 - 0.25, ego.length / 2 + 8.0
        colour = mix(self.theme.asphalt, self.theme.crash, 0.42)
        for action, side in ((MetaAction.LANE_LEFT, -1), (MetaAction.LANE_RIGHT, 1)):
            lane = ego.target_lane + side
            if action not in meanings or not 0 <= lane < scene.num_lanes:
                continue
            if not bool(overlay.unsafe[meanings.index(action)]):
                continue
            path = self._lane_path(scene, lane, reach, reach)
            if path is None or path.length < 2.0:
                continue
            for s in np.arange(0.0, path.length - 1.6, 1.6):
                points, normals = path.at(np.array([s, s + 0.45, s + 2.0, s + 1.55]))
                sides = np.array([-half, -half, half, half])[:, None]
                self._fill(colour, points + normals * sides)

    def _goal_spots(self, scene: Scene) -> list[int]:
        """The spots of a lot that fit the goal's s (x there) and distance: one, rarely two that mirror each other."""
        goal, ego = scene.goal, scene.ego
        if goal is None or goal.s is None or goal.remaining is None:
            return []
        middles = np.array([lane.at(np.array([lane.length / 2]))[0][0] for lane in self._road.lanes])
        distance = np.hypot(middles[:, 0] - ego.x, middles[:, 1] - ego.y)
        fits = (np.abs(middles[:, 0] - goal.s) < 0.5) & (np.abs(distance - goal.remaining) < 0.1)
        return np.flatnonzero(fits).tolist()

    def _find_finish(self, scene: Scene) -> tuple[np.ndarray, np.ndarray, float, float] | None:
        """Where the ego's lane meets the goal: point, right-hand normal, offsets of the road's edges.

        None if the way there is not certain.
        """
        goal = scene.goal
        if goal is None or goal.s is None or goal.remaining is None or self._road.is_lot:
            return None
        if goal.remaining > 0.0:
            path = self._lane_path(scene, scene.ego.lane, goal.remaining)
            if path is None or path.length < goal.remaining - 1.0:
                return None
            point, normal = path.points[-1], path.normals[-1]
        elif self._here is not None and self._road.is_corridor:  # passed
            along = self._here[2]
            point = np.array([scene.ego.x, scene.ego.y]) + goal.remaining * along
            normal = np.array([-along[1], along[0]])
        else:
            return None
        return point, normal, *self._road.cross_section(point[0], point[1], normal)

    def _draw_finish(self) -> None:
        """A chequered line across the road."""
        if self._finish is None:
            return
        point, normal, low, high = self._finish
        along = np.array([normal[1], -normal[0]])
        count = max(round((high - low) / 0.8), 1)
        edges = point + np.linspace(low, high, count + 1)[:, None] * normal
        for column in range(2):
            a, b = 0.8 * (column - 1) * along, 0.8 * column * along
            cells = np.stack([edges[:-1] + a, edges[:-1] + b, edges[1:] + b, edges[1:] + a], axis=1)
            for row, cell in enumerate(self._points(cells)):
                colour = self.theme.glass if (row + column) % 2 else (255, 255, 255)
                pygame.draw.polygon(self._canvas, colour, cell)

    def _draw_trail(self, scene: Scene) -> None:
        """Where the ego came from, fading."""
        points = [*self._trail, (scene.time, scene.ego.x, scene.ego.y)]
        if len(points) < 3:
            return
        path = Polyline.through(np.array([point[1:] for point in points]))
        if len(path.points) < 3:
            return
        low, high = path.points - 0.28 * path.normals, path.points + 0.28 * path.normals
        quads = self._points(np.stack([low[:-1], low[1:], high[1:], high[:-1]], axis=1))
        newest = len(quads)
        for number, quad in enumerate(quads):
            strength = 0.1 + 0.6 * (number + 1) / newest
            pygame.draw.polygon(self._canvas, mix(self.theme.asphalt, self.theme.ego, strength), quad)

    def _draw_target(self, scene: Scene) -> None:
        """The way into the lane that the ego is steering to, with the place where it is about to be."""
        ego = scene.ego
        if ego.target_lane == ego.lane and abs(self._offset(scene)) < 0.6:
            return
        path = self._lane_path(scene, ego.target_lane, max(16.0, 1.1 * ego.speed))
        if path is None or path.length < 8.0 or ego.crashed:
            return
        s = np.linspace(0.0, path.length, 24)
        points, normals = path.at(s)
        share = np.clip(s / (0.75 * path.length), 0.0, 1.0)
        points = points - normals * (self._offset(scene) * (1.0 - share**2 * (3.0 - 2.0 * share)))[:, None]
        line = Polyline.through(points)
        colour = mix(self.theme.asphalt, self.theme.ego, 0.8)
        start = min(ego.length / 2 + 0.6, line.length / 3)
        half = max(0.11, 0.9 * SUPER / self._zoom / 2)
        self._fill(colour, line.strip(-half, half, start, line.length - 0.8))
        tip, normal = line.points[-1], line.normals[-1]
        along = np.array([normal[1], -normal[0]])
        self._fill(
            colour, np.array([tip + along * 0.6, tip - along * 1.0 + normal * 0.75, tip - along * 1.0 - normal * 0.75])
        )

    def _offset(self, scene: Scene) -> float:
        """Metres from the ego to the centre of its target lane, to the right."""
        target = min(max(scene.ego.target_lane, 0), scene.num_lanes - 1)
        return scene.lane_centers[target] - scene.ego.d if scene.num_lanes else 0.0

    # -- traffic -------------------------------------------------------------------------------------------------------

    def _front(self, scene: Scene) -> Neighbour | None:
        """The car ahead in the ego's lane; None in open areas, where lanes mean nothing."""
        return scene.front(scene.ego.lane) if scene.lane_width < 8.0 else None

    def _gap_ends(self, scene: Scene, front: Neighbour | None) -> np.ndarray | None:
        """World points (2, 2) at the two bumpers, where a straight line can join them."""
        if front is None or front.gap < 1.0:
            return None
        ego, cars = scene.ego, scene.vehicles
        index = int(np.flatnonzero(cars.ids == front.id)[0])
        heading = float(cars.heading[index])
        if math.cos(heading - ego.heading) < 0.94:
            return None
        # The road's own direction there: what turns (s, d) of the other car into its place in the world.
        seen = math.atan2(cars.y[index] - ego.y, cars.x[index] - ego.x)
        road = seen - math.atan2(cars.d[index] - ego.d, cars.s[index] - ego.s)
        along = np.array([math.cos(road), math.sin(road)])
        tail = np.array([cars.x[index], cars.y[index]]) - cars.length[index] / 2 * along
        to_ego = float((tail - (ego.x, ego.y)) @ along) - ego.length / 2
        return np.stack([tail - max(to_ego, 0.0) * along, tail]) if to_ego > 0.5 else None

    def _draw_gap(self, scene: Scene) -> None:
        """A dimension line from bumper to bumper."""
        front = self._front(scene)
        ends = self._gap_ends(scene, front)
        if ends is None or front is None:
            return
        colour = self.theme.brake if front.ttc < TTC_WARNING else self.theme.ink
        colour = mix(self.theme.asphalt, colour, 0.75)
        path = Polyline.through(ends)
        inset = min(0.4, path.length / 6)
        half = 0.7 * SUPER / self._zoom / 2
        self._fill(colour, path.strip(-half, half, inset, path.length - inset))
        for s in (inset, path.length - inset):
            self._fill(colour, path.strip(-0.7, 0.7, s - half, s + half))

    def _bodies(self, scene: Scene, overlay: Overlay | None) -> list[vehicles.Body]:
        camera, cars, ego = self.camera, scene.vehicles, scene.ego
        assert camera is not None
        reach = camera.radius + np.maximum(cars.length, cars.width)
        near = np.flatnonzero(np.hypot(cars.x - camera.x, cars.y - camera.y) < reach)
        shares = speed_share(cars.speed[near], top_speed(scene))
        rows = zip(
            *(column[near].tolist() for column in (cars.x, cars.y, cars.heading, cars.length, cars.width, cars.speed)),
            (cars.acceleration[near] < vehicles.BRAKING).tolist(),
            cars.crashed[near].tolist(),
            shares.tolist(),
            strict=True,
        )
        bodies = [
            vehicles.Body(
                x, y, heading, length, width, self.theme.traffic(share), braking, crashed,
                obstacle=vehicles.is_obstacle(length, width, speed),
            )
            for x, y, heading, length, width, speed, braking, crashed, share in rows
        ]  # fmt: skip
        halo = None
        if overlay is not None and overlay.controller != "learner":
            halo = self.theme.controller(overlay.controller)
        braking = ego.acceleration < vehicles.BRAKING
        bodies.append(
            vehicles.Body(
                ego.x, ego.y, ego.heading, ego.length, ego.width, self.theme.ego, braking, ego.crashed, halo=halo
            )
        )
        return bodies

    def _draw_vehicles(self, scene: Scene, overlay: Overlay | None) -> None:
        placed = vehicles.place(self._bodies(scene, overlay), self._origin, self._zoom)
        for body in placed:
            vehicles.draw_shadow(self._canvas, self.theme, body, self._zoom)
        for body in placed:
            vehicles.draw(self._canvas, self.theme, body)

    # -- words in the world --------------------------------------------------------------------------------------------

    def _pill(self, words: str, x: float, y: float, colour: Colour, ground: Colour, room: float | None = None) -> None:
        """Words in a rounded box centred at a pixel; left out where `room` pixels are too few."""
        size = max(self._panels.px(11), 8)
        piece = self._typist.text(words, size, colour)
        pad = self._panels.px(6)
        width, height = piece.get_width() + 2 * pad, piece.get_height() + self._panels.px(2)
        if room is not None and width > room:
            return
        left = min(max(round(x - width / 2), 2), self.size[0] - width - 2)
        top = round(y - height / 2)
        around = tuple(self._picture.get_at((left, min(max(top, 0), self.size[1] - 1))))[:3]
        self._picture.blit(self._typist.box(width, height, height / 2, ground, around), (left, top))  # type: ignore[arg-type]
        self._picture.blit(piece, (left + pad, top + (height - piece.get_height()) // 2))

    def _labels(self, scene: Scene, front: Neighbour | None) -> None:
        camera, theme = self.camera, self.theme
        assert camera is not None
        _, view_top, width, height = camera.view
        ends = self._gap_ends(scene, front)
        if ends is not None and front is not None:
            a, b = camera.project(ends)
            middle = (a + b) / 2
            if 0 < middle[0] < width and view_top < middle[1] < view_top + height:
                colour = theme.brake if front.ttc < TTC_WARNING else theme.ink
                self._pill(gap_text(front), middle[0], middle[1], colour, theme.panel, math.dist(a, b) - 6)
        if self._finish is not None and scene.goal is not None and scene.goal.remaining is not None:
            point, normal, low, _ = self._finish
            x, y = camera.project(point + normal * (low - SHOULDER))
            words = remaining_text(scene.goal.remaining)
            if 0 <= x < width and view_top <= y < view_top + height:
                y = max(y - self._panels.px(11), view_top + self._panels.px(10))
                self._pill(f"Finish · {words}", x, y, theme.panel, theme.goal)
            elif self._road.is_corridor and scene.goal.lane is not None and x >= width:
                path = self._lane_path(scene, scene.goal.lane, 1.0)
                if path is not None:
                    y = camera.project(path.points[0])[1]
                    self._pill(f"{words} →", width - self._panels.px(44), y, theme.panel, theme.goal)
        if self._road.is_straight:
            self._tick_labels(width, view_top + height)
        if self.show_speeds:
            self._speed_labels(scene)

    def _speed_labels(self, scene: Scene) -> None:
        """m/s of the cars ahead and behind in the ego's lane and those beside."""
        camera, cars = self.camera, scene.vehicles
        assert camera is not None
        left, top, width, height = camera.view
        lanes = (scene.ego.lane - 1, scene.ego.lane, scene.ego.lane + 1)
        found = [each for lane in lanes for each in (scene.front(lane), scene.rear(lane)) if each is not None]
        for number in {each.id for each in found}:
            index = int(np.flatnonzero(cars.ids == number)[0])
            x, y = camera.project(np.array([cars.x[index], cars.y[index]]))
            if left < x < left + width and top < y < top + height:
                y += (cars.width[index] / 2) * camera.zoom + self._panels.px(7)
                piece = self._typist.text(f"{cars.speed[index]:.0f}", max(self._panels.px(10), 8), self.theme.ink)
                self._picture.blit(piece, (round(x - piece.get_width() / 2), round(y - piece.get_height() / 2)))

    def _tick_labels(self, width: int, bottom: int) -> None:
        camera = self.camera
        assert camera is not None
        half = width / 2 / camera.zoom
        step = 5 * TICK
        for number in range(math.ceil((camera.x - half) / step), math.floor((camera.x + half) / step) + 1):
            piece = self._typist.text(f"{number * step:.0f} m", max(self._panels.px(10), 8), self.theme.muted)
            x, y = camera.project(np.array([number * step, self._road.high[1] + SHOULDER + 1.5]))
            if y + piece.get_height() < bottom:
                self._picture.blit(piece, (round(x - piece.get_width() / 2), round(y)))
