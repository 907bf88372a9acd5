"""`ShownRenderer`: scenes and pictures in one pane, each drawn by the renderer of its kind."""

from __future__ import annotations

import pygame

from sim.picture import Picture, Shown
from sim.render.overlay import Overlay
from sim.render.palette import Theme
from sim.render.pictures import PictureRenderer
from sim.render.renderer import SceneRenderer


class ShownRenderer:
    """Draws what a session shows; size, theme and view are those of both renderers.

    Args:
        size: Width and height, pixels.
        theme: Colours.
    """

    def __init__(self, size: tuple[int, int], theme: Theme) -> None:
        self.scenes = SceneRenderer(size=size, theme=theme, strip=False)
        self.pictures = PictureRenderer(size, theme)
        self._both = self.scenes, self.pictures

    def draw_surface(self, shown: Shown, overlay: Overlay | None = None) -> pygame.Surface:
        """Draw a scene or a picture on a surface that its renderer owns.

        Args:
            shown: The scene or picture.
            overlay: Side information to show.
        """
        if isinstance(shown, Picture):
            return self.pictures.draw_surface(shown, overlay)
        return self.scenes.draw_surface(shown, overlay)

    def show_speeds(self, shown: bool) -> None:
        """Show or hide the speeds of traffic."""
        self.scenes.show_speeds = shown

    def resize(self, size: tuple[int, int]) -> None:
        """Draw at another width and height, pixels, from now on."""
        for renderer in self._both:
            renderer.resize(size)

    def set_theme(self, theme: Theme) -> None:
        """Draw in another theme from now on."""
        for renderer in self._both:
            renderer.set_theme(theme)

    def zoom_by(self, factor: float) -> None:
        """Zoom in (factor > 1) or out."""
        for renderer in self._both:
            renderer.zoom_by(factor)

    def pan(self, dx: float, dy: float) -> None:
        """Drag the view by pixels."""
        for renderer in self._both:
            renderer.pan(dx, dy)

    def follow(self) -> None:
        """Undo `pan` and `zoom_by`."""
        for renderer in self._both:
            renderer.follow()

    def reset(self) -> None:
        """A new episode begins: forget what moved."""
        self.scenes.reset()

    def close(self) -> None:
        """Free what the renderers hold."""
        self.scenes.close()
