"""The user's view: the automatic camera with the user's zoom and pan on top."""

from __future__ import annotations

import math

from sim.errors import UsageError
from sim.render.camera import Camera, aim
from sim.render.road import RoadGeometry
from sim.scene import Scene

CLOSEST, FARTHEST = 4.0, 0.4
"""Limits of the user's zoom."""
PAN_LIMIT = 500.0
"""Metres that the view may be dragged away from the ego."""


class Viewpoint:
    """Follows the ego through an episode; zoom and pan of the user stay until `follow`."""

    def __init__(self) -> None:
        self.camera: Camera | None = None
        """Of the last picture; None before the first one of an episode."""
        self._aimed: Camera | None = None
        """The same without the user's zoom and pan."""
        self._ego = (0.0, 0.0)
        self._zoom, self._pan = 1.0, (0.0, 0.0)

    def update(self, scene: Scene, road: RoadGeometry, view: tuple[int, int, int, int], elapsed: float) -> Camera:
        """Move on to a scene.

        Args:
            scene: The next scene of the episode.
            road: Its road.
            view: x, y, width and height of the part of the picture that shows the road, pixels.
            elapsed: Seconds since the last scene.

        Returns:
            The camera to draw with.
        """
        self._aimed = aim(scene, road, view, self._aimed, elapsed)
        self._ego = scene.ego.x, scene.ego.y
        self.camera = self._moved(self._aimed)
        return self.camera

    def _moved(self, camera: Camera) -> Camera:
        """The camera with the user's zoom, about the ego, and pan."""
        if self._zoom == 1.0 and self._pan == (0.0, 0.0):
            return camera
        (ego_x, ego_y), share = self._ego, 1.0 / self._zoom
        x = ego_x + (camera.x - ego_x) * share + self._pan[0]
        y = ego_y + (camera.y - ego_y) * share + self._pan[1]
        return Camera(x, y, camera.zoom * self._zoom, camera.view)

    def zoom_by(self, factor: float) -> None:
        """Zoom in (factor > 1) or out from the next picture on, within `FARTHEST` and `CLOSEST`.

        Args:
            factor: Positive.

        Raises:
            UsageError: The factor is not a positive number.
        """
        if not (factor > 0 and math.isfinite(factor)):
            raise UsageError(f"zoom_by({factor}): give a positive factor")
        zoom = min(max(self._zoom * factor, FARTHEST), CLOSEST)
        if self._pan != (0.0, 0.0) and self._aimed is not None:
            # Keep the world position in the centre, which lies (camera - ego) / zoom + pan from the ego.
            change = 1.0 / self._zoom - 1.0 / zoom
            self._pan = (
                self._pan[0] + (self._aimed.x - self._ego[0]) * change,
                self._pan[1] + (self._aimed.y - self._ego[1]) * change,
            )
        self._zoom = zoom

    def pan(self, dx: float, dy: float) -> None:
        """Drag the view from the next picture on, at most `PAN_LIMIT` from the ego; no effect before the first one.

        Args:
            dx: Pixels to the right.
            dy: Pixels down.
        """
        if self.camera is not None:
            x, y = self._pan[0] - dx / self.camera.zoom, self._pan[1] - dy / self.camera.zoom
            far = max(math.hypot(x, y) / PAN_LIMIT, 1.0)
            self._pan = x / far, y / far

    def follow(self) -> None:
        """Undo the user's zoom and pan."""
        self._zoom, self._pan = 1.0, (0.0, 0.0)

    def reset(self) -> None:
        """Forget the episode: the next camera is not smoothed. The user's zoom and pan stay."""
        self.camera = self._aimed = None
