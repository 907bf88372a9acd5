"""A window of the renderer's own, beside any other pygame window of the process."""

from __future__ import annotations

import pygame

from sim.errors import UsageError

FPS = 30
TITLE = "driving"


class RenderWindow:
    """Shows pictures until the user or the program closes it."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Open the window.

        Args:
            size: Width and height, pixels.

        Raises:
            UsageError: There is no display.
        """
        try:
            pygame.display.init()
            self._window: pygame.Window | None = pygame.Window(TITLE, size)
        except pygame.error as error:
            raise UsageError(f"cannot open a window ({error}): use render mode 'rgb_array'") from None
        self._clock = pygame.time.Clock()

    @property
    def is_open(self) -> bool:
        return self._window is not None

    def resize(self, size: tuple[int, int]) -> None:
        """Set the window's width and height, pixels."""
        if self._window is not None:
            self._window.size = size

    def show(self, picture: pygame.Surface) -> None:
        """Show a picture; close where the user asked for it. Events of other windows stay in the queue.

        Args:
            picture: A surface of the window's size.
        """
        if self._window is None:
            return
        for event in pygame.event.get(pygame.WINDOWCLOSE, pump=True):
            if event.dict.get("window") is self._window:
                self.close()
                return
            pygame.event.post(event)
        self._window.get_surface().blit(picture, (0, 0))
        self._window.flip()

    def wait(self) -> None:
        """Wait until the next picture is due at `FPS`."""
        self._clock.tick(FPS)

    def close(self) -> None:
        """Close the window; pygame and other windows stay as they are."""
        if self._window is not None:
            self._window.destroy()
            self._window = None
