"""`SceneRenderer`: a scene as a picture.

The ground comes first (`ground`), then plans and marks as smoothed polygons (`canvas`), vehicles as small pictures that
are kept (`vehicles`), and words at their own size. What is kept only saves time: everything follows from the scenes
drawn so far in the episode, so that equal calls give equal bytes.
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
from sim.render.canvas import Brush, tint
from sim.render.ground import LINE, SHOULDER, TICK, Ground
from sim.render.overlay import Overlay
from sim.render.palette import THEMES, Colour, Theme, mix
from sim.render.panels import BOTTOM, TOP, TTC_WARNING, Panels, gap_text, remaining_text, speed_share, top_speed
from sim.render.road import Polyline, RoadGeometry
from sim.render.text import Typist
from sim.scene import Neighbour, Scene

TRAIL_TIME = 5.0
"""Seconds of the ego's past that stay visible."""
TRAIL_STEP = 0.7
"""Metres between the points of the trail."""
EPISODE_GAP = 3.0
"""Seconds without a scene, or backwards, after which a new episode is assumed; also for jumps beyond speed."""
CLOSEST, FARTHEST = 4.0, 0.4
"""Limits of the user's zoom."""
PAN_LIMIT = 500.0
"""Metres that the view may be dragged away from the ego."""
STOP_LINE = 0.7
"""m, how wide the bar of a red light is."""
UNSAFE_REACH = 8.0
"""Metres ahead of and behind the ego that are hatched where a lane change is unsafe."""
HATCH, HATCH_PERIOD, HATCH_SLANT = 0.5, 1.5, 2.2
"""Metres: stripes along the lane, from one to the next, and how far they lean over the lane's width."""
WINDOW_FPS = 30


class SceneRenderer:
    """Draws scenes of one world after the other; the ego's trail and the camera's movement carry over in an episode.

    Args: whether to show every picture in a window of its own too, at real-time pace; size in pixels, at least
        160 x 120; theme "light", "dark" or one's own; whether the strip of gauges above the road is drawn, and whether
        an overlay's strip below it is: without them the road has their place.
    Raises: UsageError for a bad size or theme, or where no window can be opened.

    `show_speeds` (False at first) labels the cars nearest to the ego, ahead and behind in its own and the adjacent
    lanes, with their speeds in m/s, and the car behind in the lane that the ego changes to with the time to collision
    where that is short.
    """

    def __init__(
        self,
        window: bool = False,
        size: tuple[int, int] = (1280, 320),
        theme: str | Theme = "light",
        strip: bool = True,
        gauges: bool = True,
    ) -> None:
        self.strip, self.gauges, self.show_speeds = strip, gauges, False
        self.camera: Camera | None = None
        self._window: pygame.Window | None = None
        self._aimed: Camera | None = None  # before the user's zoom and pan
        self._user_zoom, self._pan = 1.0, (0.0, 0.0)
        self._typist = Typist()
        self._panels = Panels(_theme(theme), self._typist, 1.0)
        self.set_theme(theme)
        self.resize(size)
        self._shapes: object = None
        self._road = RoadGeometry(())
        self._trail: deque[tuple[float, float, float]] = deque()
        self._last: Scene | None = None
        self._here: tuple[int, float, np.ndarray] | None = None  # the ego on the map
        self._finish: tuple[np.ndarray, np.ndarray, float, float] | None = None
        self._clock = pygame.time.Clock()
        if window:
            self._window = self._open()

    # -- for callers ---------------------------------------------------------------------------------------------------

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
        """The picture, `size` pixels, as a surface that this renderer owns and draws the next one on.

        For apps that have a display of their own and blit it.
        """
        self._follow(scene, overlay)
        front = self._front(scene)
        ends = self._gap_ends(scene, front)
        self._world(scene, overlay, front, ends)
        self._labels(scene, front, ends)
        if self.gauges:
            self._panels.gauges(self._picture, scene, overlay, front)
        if overlay is not None and self.strip:
            self._panels.side(self._picture, scene, overlay)
        if self._window is not None:
            self._show()
        return self._picture

    def resize(self, size: tuple[int, int]) -> None:
        """Draw pictures of another size (width, height) in pixels from now on; trail and camera go on.

        A window of the renderer's own follows. Raises: UsageError below 160 x 120.
        """
        width, height = int(size[0]), int(size[1])
        if width < 160 or height < 120:
            raise UsageError(f"picture size {width} x {height}: choose at least 160 x 120 pixels")
        self.size = width, height
        self.scale = min(max(min(width / 1100, height / 320), 0.72), 2.5)
        self._panels = Panels(self.theme, self._typist, self.scale)
        self._picture = pygame.Surface(self.size, 0, 32)
        if self._window is not None:
            self._window.size = self.size

    def set_theme(self, theme: str | Theme) -> None:
        """Draw in the theme "light", "dark" or one's own from now on. Raises: UsageError for an unknown name."""
        self.theme = _theme(theme)
        self._panels = Panels(self.theme, self._typist, self._panels.scale)
        self._ground = Ground(self.theme)
        self._sprites = vehicles.Sprites(self.theme)

    def zoom_by(self, factor: float) -> None:
        """Come closer (factor > 1) or go farther, from 0.4 to 4 times the camera's own zoom, from the next picture on.

        The ego keeps its place in the picture; after `pan`, the picture's centre does.
        Raises: UsageError for a factor that is not a positive number.
        """
        if not (factor > 0 and math.isfinite(factor)):
            raise UsageError(f"zoom_by({factor}): give a positive factor")
        self._set_zoom(min(max(self._user_zoom * factor, FARTHEST), CLOSEST))

    def reset_zoom(self) -> None:
        """Return to the camera's own zoom."""
        self._set_zoom(1.0)

    def _set_zoom(self, zoom: float) -> None:
        if self._pan != (0.0, 0.0) and self._aimed is not None and self._last is not None:
            # Keep the world position in the centre, which lies (camera - ego) / zoom + pan from the ego.
            change, ego = 1.0 / self._user_zoom - 1.0 / zoom, self._last.ego
            self._pan = (
                self._pan[0] + (self._aimed.x - ego.x) * change,
                self._pan[1] + (self._aimed.y - ego.y) * change,
            )
        self._user_zoom = zoom

    def pan(self, dx: float, dy: float) -> None:
        """Drag what is seen by pixels to the right and down, from the next picture on.

        The view still goes with the ego, at most 500 m away from it. Nothing happens before the first picture.
        """
        if self.camera is not None:
            x, y = self._pan[0] - dx / self.camera.zoom, self._pan[1] - dy / self.camera.zoom
            far = max(math.hypot(x, y) / PAN_LIMIT, 1.0)
            self._pan = x / far, y / far

    def follow(self) -> None:
        """Return to the ego at the camera's own zoom: undo `pan` and `zoom_by`."""
        self._user_zoom, self._pan = 1.0, (0.0, 0.0)

    def to_pixel(self, x: float, y: float) -> tuple[float, float]:
        """Where a world position (m) lies in the picture drawn last. Raises: UsageError before the first one."""
        if self.camera is None:
            raise UsageError("to_pixel: draw a scene first")
        return self.camera.pixel(x, y)

    def reset(self) -> None:
        """Forget the episode: no trail, and the camera jumps to its place; the user's zoom and pan stay.

        A new episode is also noticed by itself.
        """
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
            self._shapes, self._road = scene.shapes, RoadGeometry(scene.shapes)
        if self._last is not None and self._is_new_episode(self._last, scene):
            self.reset()
        elapsed = 0.0 if self._last is None else scene.time - self._last.time
        top = self._panels.px(TOP) if self.gauges else 0
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
        if self._user_zoom == 1.0 and self._pan == (0.0, 0.0):
            return camera
        ego, share = scene.ego, 1.0 / self._user_zoom
        x = ego.x + (camera.x - ego.x) * share + self._pan[0]
        y = ego.y + (camera.y - ego.y) * share + self._pan[1]
        return Camera(x, y, camera.zoom * self._user_zoom, camera.view)

    # -- the world -----------------------------------------------------------------------------------------------------

    def _world(
        self, scene: Scene, overlay: Overlay | None, front: Neighbour | None, gap_ends: np.ndarray | None
    ) -> None:
        """Road, marks and vehicles."""
        camera = self.camera
        assert camera is not None
        self._ground.draw(self._picture, self._road, camera, scene)
        self._brush = Brush(self._picture, camera)
        for draw in (
            lambda: self._draw_goal(scene),
            lambda: self._draw_stop_lines(scene),
            lambda: self._draw_unsafe(scene, overlay),
            lambda: self._draw_trail(scene),
            lambda: self._draw_target(scene),
            self._draw_finish,
            lambda: self._draw_gap(front, gap_ends),
        ):
            draw()
            self._brush.flush()
        self._draw_vehicles(scene, overlay)

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
        """The lane to be in, tinted up to the finish, between its painted lines."""
        goal = scene.goal
        if self._road.is_lot:
            for spot in self._goal_spots(scene):
                lane, half = self._road.lanes[spot], self._road.widths[spot] / 2 - LINE / 2
                self._brush.fill(tint(self.theme.goal, 0.45), lane.strip(-half, half, 0.0, lane.length))
            return
        if goal is None or goal.lane is None or scene.num_lanes < 2:
            return
        behind = 60.0 if self._road.is_corridor else 0.0
        ahead = 200.0 if goal.remaining is None else min(max(goal.remaining, -behind), 200.0)
        path = self._lane_path(scene, goal.lane, ahead, behind)
        if path is not None and path.length > 0.1:
            half = scene.lane_width / 2 - LINE / 2
            self._brush.fill(tint(self.theme.goal, 0.26), path.strip(-half, half, 0.0, path.length))

    def _draw_unsafe(self, scene: Scene, overlay: Overlay | None) -> None:
        """Hatching beside the ego in lanes that it had better not change to now."""
        ego = scene.ego
        if overlay is None or overlay.unsafe is None or ego.crashed or self._road.is_lot:
            return
        half, reach = scene.lane_width / 2 - 0.3, ego.length / 2 + UNSAFE_REACH
        for action, unsafe in zip(scene.meanings, overlay.unsafe, strict=False):
            side = {MetaAction.LANE_LEFT: -1, MetaAction.LANE_RIGHT: 1}.get(action, 0)
            lane = ego.target_lane + side
            if not (unsafe and side and 0 <= lane < scene.num_lanes):
                continue
            path = self._lane_path(scene, lane, reach, reach)
            if path is not None and path.length > 2.0:
                self._hatch(path, half, side)

    def _hatch(self, path: Polyline, half: float, side: int) -> None:
        """A stretch of lane in slanted stripes that lean away from the ego, with an edge on the ego's side."""
        colour, length = self.theme.crash, path.length
        self._brush.fill(tint(colour, 0.13), path.strip(-half, half, 0.0, length))
        stripes = []
        for begin in np.arange(-HATCH_SLANT, length, HATCH_PERIOD).tolist():
            # Corners as arc length and share of the lane's width, counted from the ego's side.
            tip = begin + HATCH_SLANT
            corners = [(begin, 0.0), (begin + HATCH, 0.0), (tip + HATCH, 1.0), (tip, 1.0)]
            if begin < 0.0 or tip + HATCH > length:
                corners = _between(corners, 0.0, length)
            if len(corners) >= 3:
                stripes.append(corners)
        s, share = np.concatenate(stripes).T
        points, normals = path.at(s)
        points += normals * (side * half * (2.0 * share - 1.0))[:, None]
        for stripe in np.split(points, np.cumsum([len(corners) for corners in stripes])[:-1]):
            self._brush.fill(tint(colour, 0.42), stripe)
        edge = sorted((-side * half, -side * (half - 0.14)))
        self._brush.fill(tint(colour, 0.75), path.strip(edge[0], edge[1], 0.0, length))

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
        colours, corners = [], []
        for column in range(2):
            a, b = 0.8 * (column - 1) * along, 0.8 * column * along
            corners.append(np.stack([edges[:-1] + a, edges[:-1] + b, edges[1:] + b, edges[1:] + a], axis=1))
            colours += [tint(self.theme.glass if (row + column) % 2 else (255, 255, 255)) for row in range(count)]
        self._brush.fill_all(colours, np.concatenate(corners))

    def _draw_trail(self, scene: Scene) -> None:
        """Where the ego came from, fading."""
        camera = self.camera
        assert camera is not None
        points = np.array([*(point[1:] for point in self._trail), (scene.ego.x, scene.ego.y)])
        near = np.flatnonzero(np.abs(points - (camera.x, camera.y)).max(axis=1) < camera.radius)
        if len(points) < 3 or near.size == 0:
            return
        count, begin = len(points) - 1, max(int(near[0]) - 1, 0)
        path = Polyline.through(points[begin:])
        if len(path.points) < 3:
            return
        low, high = path.points - 0.28 * path.normals, path.points + 0.28 * path.normals
        quads = np.stack([low[:-1], low[1:], high[1:], high[:-1]], axis=1)
        first = count - len(quads)
        shares = [0.1 + 0.6 * (first + number + 1) / count for number in range(len(quads))]
        self._brush.fill_all([tint(self.theme.ego, share) for share in shares], quads)

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
        colour = tint(self.theme.ego, 0.8)
        start = min(ego.length / 2 + 0.6, line.length / 3)
        half = max(0.11, self._pixels(0.9) / 2)
        self._brush.fill(colour, line.strip(-half, half, start, line.length - 0.8))
        tip, normal = line.points[-1], line.normals[-1]
        along = np.array([normal[1], -normal[0]])
        self._brush.fill(
            colour, np.array([tip + along * 0.6, tip - along * 1.0 + normal * 0.75, tip - along * 1.0 - normal * 0.75])
        )

    def _pixels(self, count: float) -> float:
        """Metres of so many pixels."""
        assert self.camera is not None
        return count / self.camera.zoom

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

    def _draw_gap(self, front: Neighbour | None, ends: np.ndarray | None) -> None:
        """A dimension line from bumper to bumper."""
        if ends is None or front is None:
            return
        colour = tint(self.theme.brake if front.ttc < TTC_WARNING else self.theme.ink, 0.75)
        path = Polyline.through(ends)
        inset = min(0.4, path.length / 6)
        half = self._pixels(1.2) / 2
        self._brush.fill(colour, path.strip(-half, half, inset, path.length - inset))
        for s in (inset, path.length - inset):
            self._brush.fill(colour, path.strip(-0.7, 0.7, s - half, s + half))

    def _draw_stop_lines(self, scene: Scene) -> None:
        """A bar across the lane where a light is red: cars of no length stand for it."""
        cars = scene.vehicles
        for k in np.flatnonzero(cars.length == 0.0):
            along = np.array([math.cos(cars.heading[k]), math.sin(cars.heading[k])]) * STOP_LINE / 2
            across = np.array([-along[1], along[0]]) * (cars.width[k] / STOP_LINE)
            corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
            middle = np.array([cars.x[k], cars.y[k]])
            self._brush.fill(tint(self.theme.crash), np.array([middle + a * along + b * across for a, b in corners]))

    def _draw_vehicles(self, scene: Scene, overlay: Overlay | None) -> None:
        camera, cars, ego = self.camera, scene.vehicles, scene.ego
        assert camera is not None
        left, top, width, height = camera.view
        columns = (cars.x - camera.x) * camera.zoom + (left + width / 2)
        rows = (cars.y - camera.y) * camera.zoom + (top + height / 2)
        reach = (np.maximum(cars.length, cars.width) / 2 + 2.0) * camera.zoom
        near = np.flatnonzero(
            (columns > left - reach) & (columns < left + width + reach) & (rows > top - reach)
            & (rows < top + height + reach) & (cars.length > 0.0)
        )  # fmt: skip
        shares = speed_share(cars.speed[near], top_speed(scene))
        each = zip(
            columns[near].tolist(),
            rows[near].tolist(),
            *(column[near].tolist() for column in (cars.heading, cars.length, cars.width, cars.speed)),
            (cars.acceleration[near] < vehicles.BRAKING).tolist(),
            cars.crashed[near].tolist(),
            shares.tolist(),
            strict=True,
        )
        bodies = [
            (
                vehicles.VehicleLook(
                    length, width, self.theme.traffic(share), braking, crashed,
                    vehicles.is_obstacle(length, width, speed),
                ),
                column, row, heading,
            )
            for column, row, heading, length, width, speed, braking, crashed, share in each
        ]  # fmt: skip
        halo = None
        if overlay is not None and overlay.controller != "learner":
            halo = self.theme.controller(overlay.controller)
        braking = bool(ego.acceleration < vehicles.BRAKING)
        look = vehicles.VehicleLook(ego.length, ego.width, self.theme.ego, braking, bool(ego.crashed), False, halo)
        bodies.append((look, *camera.pixel(ego.x, ego.y), ego.heading))
        self._sprites.put(self._picture, bodies, camera.zoom)

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
        chip = self._typist.chip(width, height, height / 2, ground)
        self._picture.blit(chip, (left, top), special_flags=pygame.BLEND_PREMULTIPLIED)
        self._picture.blit(piece, (left + pad, top + (height - piece.get_height()) // 2))

    def _labels(self, scene: Scene, front: Neighbour | None, ends: np.ndarray | None) -> None:
        camera, theme = self.camera, self.theme
        assert camera is not None
        _, view_top, width, height = camera.view
        if ends is not None and front is not None:
            a, b = camera.project(ends)
            middle = (a + b) / 2
            if 0 < middle[0] < width and view_top < middle[1] < view_top + height:
                colour = theme.brake if front.ttc < TTC_WARNING else theme.ink
                self._pill(gap_text(front), middle[0], middle[1], colour, theme.panel, math.dist(a, b) - 6)
        if self._finish is not None and scene.goal is not None and scene.goal.remaining is not None:
            point, normal, low, _ = self._finish
            x, y = camera.pixel(*(point + normal * (low - SHOULDER)).tolist())
            words = remaining_text(scene.goal.remaining)
            if 0 <= x < width and view_top <= y < view_top + height:
                y = max(y - self._panels.px(11), view_top + self._panels.px(10))
                self._pill(f"Finish · {words}", x, y, theme.panel, theme.goal)
            elif self._road.is_corridor and scene.goal.lane is not None and x >= width:
                path = self._lane_path(scene, scene.goal.lane, 1.0)
                if path is not None:
                    y = camera.pixel(*path.points[0].tolist())[1]
                    self._pill(f"{words} →", width - self._panels.px(44), y, theme.panel, theme.goal)
        if self._road.is_straight:
            self._tick_labels(width, view_top + height)
        if self.show_speeds:
            self._speed_labels(scene)

    def _speed_labels(self, scene: Scene) -> None:
        """m/s of the cars ahead and behind in the ego's lane and those beside it, and a short time to collision."""
        camera, cars, ego, theme, px = self.camera, scene.vehicles, scene.ego, self.theme, self._panels.px
        assert camera is not None
        left, top, width, height = camera.view
        if scene.lane_width >= 8.0:
            return
        found = {}
        for lane in (ego.lane - 1, ego.lane, ego.lane + 1):
            for each in (scene.front(lane), scene.rear(lane)):
                if each is not None:
                    found[each.id] = each
        chaser = scene.rear(ego.target_lane) if ego.target_lane != ego.lane else None
        if chaser is not None and chaser.ttc < TTC_WARNING:
            found[chaser.id] = chaser
        for number, neighbour in found.items():
            index = int(np.flatnonzero(cars.ids == number)[0])
            x, y = camera.pixel(float(cars.x[index]), float(cars.y[index]))
            late = chaser is not None and number == chaser.id and chaser.ttc < TTC_WARNING
            hidden = late and x < left  # still worth a word at the picture's edge
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
            self._picture.blit(chip, corner, special_flags=pygame.BLEND_PREMULTIPLIED)
            self._picture.blit(piece, (corner[0] + px(4), corner[1]))

    def _tick_labels(self, width: int, bottom: int) -> None:
        camera = self.camera
        assert camera is not None
        half = width / 2 / camera.zoom
        step = 5 * TICK
        for number in range(math.ceil((camera.x - half) / step), math.floor((camera.x + half) / step) + 1):
            piece = self._typist.text(f"{number * step:.0f} m", max(self._panels.px(10), 8), self.theme.muted)
            x, y = camera.pixel(number * step, float(self._road.high[1]) + SHOULDER + 1.5)
            if y + piece.get_height() < bottom:
                self._picture.blit(piece, (round(x - piece.get_width() / 2), round(y)))


def _theme(theme: str | Theme) -> Theme:
    if isinstance(theme, str):
        if theme not in THEMES:
            raise unknown("theme", theme, THEMES)
        return THEMES[theme]
    return theme


def _between(polygon: list[tuple[float, float]], low: float, high: float) -> list[tuple[float, float]]:
    """The part of a convex polygon whose first coordinate lies within limits."""
    for sign, limit in ((1.0, low), (-1.0, -high)):
        kept: list[tuple[float, float]] = []
        for (s0, d0), (s1, d1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            inside0, inside1 = sign * s0 >= limit, sign * s1 >= limit
            if inside0:
                kept.append((s0, d0))
            if inside0 != inside1:
                share = (sign * limit - s0) / (s1 - s0)
                kept.append((sign * limit, d0 + share * (d1 - d0)))
        polygon = kept
        if not polygon:
            break
    return polygon
