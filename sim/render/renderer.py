"""`SceneRenderer`: a scene as a picture.

The ground comes first (`ground`), then plans and marks as smoothed polygons (`marks`, `canvas`), vehicles as cached
sprites (`traffic`, `vehicles`), words at their own size (`labels`), and the strips of gauges (`panels`). Caches only
save time: a picture follows from the scenes drawn so far in the episode, so that equal calls give equal bytes.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pygame

from sim.errors import UsageError, unknown
from sim.render.camera import Camera
from sim.render.frame import FrameContext
from sim.render.ground import Ground
from sim.render.labels import TextLabels
from sim.render.marks import draw_marks
from sim.render.motion import in_between
from sim.render.overlay import Overlay
from sim.render.palette import THEMES, Theme
from sim.render.panels import BOTTOM, TOP, Panels
from sim.render.road import RoadGeometry
from sim.render.text import Typist
from sim.render.traffic import draw_traffic
from sim.render.vehicles import Sprites
from sim.render.viewpoint import Viewpoint
from sim.render.window import FPS, RenderWindow
from sim.scene import Scene

SMALLEST = (160, 120)
"""Width and height of the smallest picture, pixels."""
TRAIL_TIME = 5.0
"""Seconds of the ego's past that stay visible."""
TRAIL_STEP = 0.7
"""Metres between the points of the trail."""
EPISODE_GAP = 3.0
"""Seconds between two scenes above which a new episode is assumed; a jump back in time or too far also begins one."""


class SceneRenderer:
    """Draws scenes one after the other; the ego's trail and the camera's movement carry over within an episode.

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
        """Prepare to draw.

        Args:
            window: Show every picture in a window as well, in real time.
            size: Width and height, pixels, at least 160 x 120.
            theme: "light", "dark", or a theme.
            strip: Draw the strip of an overlay below the road; else the road has its place.
            gauges: Draw the strip of gauges above the road; else the road has its place.

        Raises:
            UsageError: Size or theme are invalid, or no window can be opened.
        """
        self.strip, self.gauges, self.show_speeds = strip, gauges, False
        self._viewpoint = Viewpoint()
        self._typist = Typist()
        self._window: RenderWindow | None = None
        self.theme = _theme(theme)
        self._adopt_theme()
        self.resize(size)
        self._shapes: object = None
        self._road = RoadGeometry(())
        self._trail: deque[tuple[float, float, float]] = deque()
        """Time, x and y of the ego."""
        self._last: Scene | None = None
        if window:
            self._window = RenderWindow(self.size)

    # -- drawing -------------------------------------------------------------------------------------------------------

    def draw(self, scene: Scene, overlay: Overlay | None = None) -> np.ndarray:
        """Draw a scene; with a window, show it there as well.

        A window plays the time since the last scene of the episode in real time, with pictures in between.

        Args:
            scene: The next scene.
            overlay: Side information to show.

        Returns:
            The picture, uint8 (height, width, 3), a fresh array.
        """
        if self._window is not None and self._window.is_open:
            self._play(self._window, scene, overlay)
        surface = self.draw_surface(scene, overlay)
        pixels = np.frombuffer(pygame.image.tobytes(surface, "RGB"), np.uint8)
        return pixels.reshape(self.size[1], self.size[0], 3).copy()

    def draw_surface(self, scene: Scene, overlay: Overlay | None = None) -> pygame.Surface:
        """Draw a scene for an application that has a display of its own.

        Args:
            scene: The next scene.
            overlay: Side information to show.

        Returns:
            The picture, `size` pixels. The renderer owns it and draws the next picture on it.
        """
        frame, picture = self._follow(scene, overlay), self._picture
        self._ground.draw(picture, self._road, frame.camera, scene)
        draw_marks(picture, frame, self.theme)
        draw_traffic(picture, self._sprites, frame, self.theme)
        self._labels.draw(picture, frame, self.show_speeds)
        if self.gauges:
            self._panels.gauges(picture, scene, overlay, frame.front)
        if overlay is not None and self.strip:
            self._panels.side(picture, scene, overlay)
        if self._window is not None:
            self._window.show(picture)
        return picture

    def _follow(self, scene: Scene, overlay: Overlay | None) -> FrameContext:
        """Move trail and camera on to a scene."""
        if scene.shapes is not self._shapes:
            self._shapes, self._road = scene.shapes, RoadGeometry(scene.shapes)
        if self._last is not None and _is_new_episode(self._last, scene):
            self.reset()
        elapsed = 0.0 if self._last is None else scene.time - self._last.time
        top = self._panels.px(TOP) if self.gauges else 0
        bottom = self._panels.px(BOTTOM) if overlay is not None and self.strip else 0
        view = (0, top, self.size[0], max(self.size[1] - top - bottom, 16))
        camera = self._viewpoint.update(scene, self._road, view, elapsed)
        point = (scene.time, scene.ego.x, scene.ego.y)
        if not self._trail or math.dist(self._trail[-1][1:], point[1:]) >= TRAIL_STEP:
            self._trail.append(point)
        while self._trail and scene.time - self._trail[0][0] > TRAIL_TIME:
            self._trail.popleft()
        self._last = scene
        trail = np.array([*(point[1:] for point in self._trail), (scene.ego.x, scene.ego.y)])
        return FrameContext(scene, overlay, self._road, camera, trail)

    def _play(self, window: RenderWindow, scene: Scene, overlay: Overlay | None) -> None:
        """Show the time between the last scene and this one."""
        if self._last is None or _is_new_episode(self._last, scene) or scene.time <= self._last.time:
            return
        for between in in_between(self._last, scene, FPS):
            self.draw_surface(between, overlay)
            if not window.is_open:
                return
            window.wait()
        window.wait()

    # -- settings ------------------------------------------------------------------------------------------------------

    def resize(self, size: tuple[int, int]) -> None:
        """Draw pictures of another size from now on; trail and camera go on, and a window follows.

        Args:
            size: Width and height, pixels.

        Raises:
            UsageError: The size is below 160 x 120.
        """
        width, height = int(size[0]), int(size[1])
        if width < SMALLEST[0] or height < SMALLEST[1]:
            raise UsageError(f"picture size {width} x {height}: choose at least {SMALLEST[0]} x {SMALLEST[1]} pixels")
        self.size = width, height
        self.scale = min(max(min(width / 1100, height / 320), 0.72), 2.5)
        self._adopt_scale()
        self._picture = pygame.Surface(self.size, 0, 32)
        if self._window is not None:
            self._window.resize(self.size)

    def set_theme(self, theme: str | Theme) -> None:
        """Draw in another theme from now on.

        Args:
            theme: "light", "dark", or a theme.

        Raises:
            UsageError: The name is unknown.
        """
        self.theme = _theme(theme)
        self._adopt_theme()
        self._adopt_scale()

    def _adopt_theme(self) -> None:
        self._ground = Ground(self.theme)
        self._sprites = Sprites(self.theme)

    def _adopt_scale(self) -> None:
        self._panels = Panels(self.theme, self._typist, self.scale)
        self._labels = TextLabels(self.theme, self._typist, self.scale)

    # -- view ----------------------------------------------------------------------------------------------------------

    @property
    def camera(self) -> Camera | None:
        """The camera of the last picture; None before the first one of an episode."""
        return self._viewpoint.camera

    def zoom_by(self, factor: float) -> None:
        """Zoom in (factor > 1) or out, from 0.4 to 4 times the camera's own zoom, from the next picture on.

        The ego keeps its place in the picture; after `pan`, the picture's centre does.

        Args:
            factor: Positive.

        Raises:
            UsageError: The factor is not a positive number.
        """
        self._viewpoint.zoom_by(factor)

    def pan(self, dx: float, dy: float) -> None:
        """Drag the view from the next picture on; no effect before the first one.

        The view still moves with the ego, at most 500 m away from it.

        Args:
            dx: Pixels to the right.
            dy: Pixels down.
        """
        self._viewpoint.pan(dx, dy)

    def follow(self) -> None:
        """Return to the ego at the camera's own zoom: undo `pan` and `zoom_by`."""
        self._viewpoint.follow()

    def to_pixel(self, x: float, y: float) -> tuple[float, float]:
        """Where a world position lies in the picture drawn last.

        Args:
            x: m.
            y: m.

        Returns:
            Column and row.

        Raises:
            UsageError: Nothing was drawn yet.
        """
        if self.camera is None:
            raise UsageError("to_pixel: draw a scene first")
        return self.camera.pixel(x, y)

    def reset(self) -> None:
        """Forget the episode: no trail, and the camera jumps to its place; the user's zoom and pan stay.

        A new episode is also detected from its scenes.
        """
        self._trail.clear()
        self._last = None
        self._viewpoint.reset()

    def close(self) -> None:
        """Close the renderer's window, if any; pygame and other windows stay as they are."""
        if self._window is not None:
            self._window.close()
            self._window = None


def _is_new_episode(last: Scene, scene: Scene) -> bool:
    elapsed = scene.time - last.time
    jump = math.hypot(scene.ego.x - last.ego.x, scene.ego.y - last.ego.y)
    fastest = max(abs(scene.ego.speed), abs(last.ego.speed))
    return (
        last.scenario != scene.scenario
        or not 0.0 <= elapsed <= max(EPISODE_GAP, 3 * scene.decision_period)
        or jump > 1.5 * fastest * elapsed + 10.0
    )


def _theme(theme: str | Theme) -> Theme:
    if isinstance(theme, str):
        if theme not in THEMES:
            raise unknown("theme", theme, THEMES)
        return THEMES[theme]
    return theme
