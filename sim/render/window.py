"""A window of the renderer's own, beside any other pygame window of the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pygame

from sim.errors import UsageError

FPS = 30
TITLE = "driving"
INVISIBLE = ("offscreen", "dummy", "evdev")
"""SDL's video drivers that show nothing. SDL takes one where it finds no display; here it has to be named."""


def open_display() -> None:
    """Start SDL's video.

    Raises:
        pygame.error: There is no display, and `SDL_VIDEODRIVER` does not name a driver that shows nothing.
    """
    running = pygame.display.get_init()
    with _quiet():
        pygame.display.init()
    driver = pygame.display.get_driver()
    if driver in INVISIBLE and driver not in os.environ.get("SDL_VIDEODRIVER", "").split(","):
        if not running:
            pygame.display.quit()
        raise pygame.error("there is no display")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries of the window system write to stderr about servers that they do not find."""
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


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
            open_display()
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
