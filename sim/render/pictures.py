"""`PictureRenderer`: the picture that an environment draws of itself, framed in the look of the scenes.

It has the interface of `SceneRenderer`, for environments without traffic scenes.
"""

from __future__ import annotations

import numpy as np
import pygame

from sim.picture import Picture
from sim.render.overlay import GLYPHS, Overlay
from sim.render.palette import Theme, mix
from sim.render.panels import TOP
from sim.render.text import Typist

SMALLEST_ZOOM, LARGEST_ZOOM = 0.4, 4.0
MARGIN = 16
"""Pixels around the picture at scale 1."""


class PictureRenderer:
    """Draws pictures, scaled to the pane with their aspect kept.

    Args:
        size: Width and height, pixels.
        theme: Colours.
    """

    def __init__(self, size: tuple[int, int], theme: Theme) -> None:
        self.theme = theme
        self.show_speeds = False
        """No effect: there is no traffic."""
        self._typist = Typist()
        self._scaled: tuple[tuple[bytes, tuple[int, int]], pygame.Surface] | None = None
        """The picture drawn last, by its pixels and size."""
        self._zoom, self._shift = 1.0, (0.0, 0.0)
        self.resize(size)

    def draw(self, picture: Picture, overlay: Overlay | None = None) -> np.ndarray:
        """Draw a picture.

        Args:
            picture: The picture.
            overlay: Who controls, and which action is executed.
        Returns:
            uint8 (height, width, 3), a fresh array.
        """
        surface = self.draw_surface(picture, overlay)
        pixels = np.frombuffer(pygame.image.tobytes(surface, "RGB"), np.uint8)
        return pixels.reshape(self.size[1], self.size[0], 3).copy()

    def draw_surface(self, picture: Picture, overlay: Overlay | None = None) -> pygame.Surface:
        """Draw a picture for an application that has a display of its own.

        Args:
            picture: The picture.
            overlay: Who controls, and which action is executed.
        Returns:
            `size` pixels. The renderer owns it and draws the next picture on it.
        """
        surface, theme = self._surface, self.theme
        surface.fill(theme.ground)
        top = self._px(TOP)
        pane = pygame.Rect(0, top, self.size[0], self.size[1] - top)
        image = self._image(picture, pane)
        place = image.get_rect(center=(pane.centerx + self._shift[0], pane.centery + self._shift[1]))
        border = theme.hairline if overlay is None else mix(theme.ground, theme.controller(overlay.controller), 0.8)
        surface.set_clip(pane)
        edge = 2 * self._px(2)
        surface.blit(self._typist.box(place.width + edge, place.height + edge, self._px(3), border, theme.ground),
                     place.move(-edge // 2, -edge // 2))  # fmt: skip
        surface.blit(image, place)
        surface.set_clip(None)
        self._strip(surface, picture, overlay)
        return surface

    def _image(self, picture: Picture, pane: pygame.Rect) -> pygame.Surface:
        """The picture at its size in the pane; smoothed."""
        width, height = picture.size
        room = max(pane.width - 2 * self._px(MARGIN), 16), max(pane.height - 2 * self._px(MARGIN), 16)
        factor = min(room[0] / width, room[1] / height) * self._zoom
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        key = picture.packed, size
        if self._scaled is None or self._scaled[0] != key:
            image = pygame.image.frombuffer(picture.pixels().tobytes(), picture.size, "RGB")
            self._scaled = key, pygame.transform.smoothscale(image, size)
        return self._scaled[1]

    def _strip(self, surface: pygame.Surface, picture: Picture, overlay: Overlay | None) -> None:
        """The strip above: where the episode is, what is done, and the name of the scenario."""
        theme, width, height = self.theme, self.size[0], self._px(TOP)
        surface.fill(theme.panel, (0, 0, width, height))
        surface.fill(theme.hairline, (0, height - 1, width, 1))
        fields = [("STEP", f"{picture.step:,}", 74), ("TIME", f"{picture.time:.2f} s", 92)]
        if overlay is not None and overlay.executed_action is not None:
            name = picture.names[overlay.executed_action]
            fields.append(("ACTION", f"{GLYPHS.get(name, '')} {name}".strip(), 132))
        x = self._px(16)
        for label, value, room in fields:
            piece = self._typist.text(value, self._px(14), theme.ink)
            if x + piece.get_width() > width - self._px(12):
                return
            surface.blit(self._typist.text(label, self._px(9), theme.muted), (x, self._px(8)))
            surface.blit(piece, (x, self._px(20)))
            x += max(self._px(room), piece.get_width() + self._px(14))
        title = self._typist.text(picture.scenario, self._px(12), theme.muted)
        left = width - self._px(16) - title.get_width()
        if left > x:
            surface.blit(title, (left, (height - title.get_height()) // 2))

    def _px(self, value: float) -> int:
        """Pixels of a size at scale 1, at least 1."""
        return max(round(value * self.scale), 1)

    # -- settings and view ---------------------------------------------------------------------------------------------

    def resize(self, size: tuple[int, int]) -> None:
        """Draw at another size from now on.

        Args:
            size: Width and height, pixels.
        """
        self.size = int(size[0]), int(size[1])
        self.scale = min(max(min(self.size[0] / 1100, self.size[1] / 320), 0.72), 2.5)
        self._surface = pygame.Surface(self.size, 0, 32)

    def set_theme(self, theme: Theme) -> None:
        """Draw in another theme from now on."""
        self.theme = theme

    def zoom_by(self, factor: float) -> None:
        """Zoom in (factor > 1) or out, about the middle."""
        self._zoom = min(max(self._zoom * factor, SMALLEST_ZOOM), LARGEST_ZOOM)

    def pan(self, dx: float, dy: float) -> None:
        """Drag the picture by pixels."""
        self._shift = self._shift[0] + dx, self._shift[1] + dy

    def follow(self) -> None:
        """Undo `pan` and `zoom_by`."""
        self._zoom, self._shift = 1.0, (0.0, 0.0)

    def reset(self) -> None:
        """Nothing: pictures do not depend on those before."""

    def close(self) -> None:
        """Nothing: the renderer has no window."""
