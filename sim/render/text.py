"""Text, pills and bars on finished pictures: anti-aliased, at pixel positions, cached."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import pygame

from sim.render.palette import Colour

CACHE = 4000
"""Pieces kept before the cache starts afresh."""


@functools.cache
def font_file(bold: bool) -> str | None:
    """DejaVu Sans as matplotlib ships it (it has arrows, and digits of one width); None for pygame's own font."""
    spec = importlib.util.find_spec("matplotlib")
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / name
        if file.is_file():
            return str(file)
    return None


class Typist:
    """Makes and keeps small surfaces. Survives that somebody else quits pygame's font module."""

    def __init__(self) -> None:
        self._fonts: dict[tuple[int, bool], pygame.font.Font] = {}
        self._pieces: dict[tuple, pygame.Surface] = {}

    def _font(self, size: int, bold: bool) -> pygame.font.Font:
        if not pygame.font.get_init():
            pygame.font.init()
            self._fonts.clear()
        if (size, bold) not in self._fonts:
            self._fonts[size, bold] = pygame.font.Font(font_file(bold), size)
        return self._fonts[size, bold]

    def _keep(self, key: tuple, piece: pygame.Surface) -> pygame.Surface:
        if len(self._pieces) > CACHE:
            self._pieces.clear()
        self._pieces[key] = piece
        return piece

    def text(self, words: str, size: int, colour: Colour, bold: bool = False) -> pygame.Surface:
        key = ("text", words, size, colour, bold)
        piece = self._pieces.get(key)
        if piece is not None:
            return piece
        try:
            rendered = self._font(size, bold).render(words, True, colour)
        except pygame.error:  # the font module was quit and started again behind our back
            self._fonts.clear()
            rendered = self._font(size, bold).render(words, True, colour)
        return self._keep(key, rendered)

    def box(
        self, width: int, height: int, radius: float, colour: Colour, around: Colour, border: Colour | None = None
    ) -> pygame.Surface:
        """A filled rounded rectangle on a ground of colour `around`."""
        width, height = max(width, 1), max(height, 1)
        key = ("box", width, height, radius, colour, around, border)
        piece = self._pieces.get(key)
        if piece is not None:
            return piece
        scale = 4
        large = pygame.Surface((width * scale, height * scale), 0, 32)
        large.fill(around)
        rect = large.get_rect()
        pygame.draw.rect(large, border or colour, rect, border_radius=round(radius * scale))
        if border is not None:
            pygame.draw.rect(large, colour, rect.inflate(-2 * scale, -2 * scale), border_radius=round(radius * scale))
        return self._keep(key, pygame.transform.smoothscale(large, (width, height)))

    def fit(self, words: str, size: int, colour: Colour, width: int) -> pygame.Surface:
        """As much of the words as fits, with an ellipsis where it does not."""
        piece = self.text(words, size, colour)
        while piece.get_width() > width and len(words) > 1:
            keep = max(min(len(words) - 1, int(len(words) * width / piece.get_width())), 1)
            words = words[:keep].rstrip(" …")
            piece = self.text(words + "…", size, colour)
        return piece
