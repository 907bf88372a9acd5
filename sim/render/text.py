"""Text, pills and bars on finished pictures: anti-aliased, at pixel positions, cached."""

from __future__ import annotations

import functools
import importlib.util
import math
from pathlib import Path

import pygame

from sim.render.canvas import tint
from sim.render.palette import Colour

SCALE = 4
"""Samples per pixel and direction of shapes."""
CACHE = 1500
"""Cached pieces after which the cache is cleared."""


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
    """Renders and caches small surfaces; works on when another part of the program quits pygame's font module."""

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
        """Words on a transparent ground.

        Args:
            words: The text.
            size: Of the font, pixels.
            colour: Of the text.
            bold: Use the bold font.
        """
        key = ("text", words, size, colour, bold)
        piece = self._pieces.get(key)
        if piece is not None:
            return piece
        try:
            rendered = self._font(size, bold).render(words, True, colour)
        except pygame.error:  # another part of the program quit and restarted the font module
            self._fonts.clear()
            rendered = self._font(size, bold).render(words, True, colour)
        return self._keep(key, rendered)

    def box(
        self, width: int, height: int, radius: float, colour: Colour, around: Colour, border: Colour | None = None
    ) -> pygame.Surface:
        """A filled rounded rectangle on an opaque ground.

        Args:
            width: Pixels.
            height: Pixels.
            radius: Of the corners, pixels.
            colour: Of the rectangle.
            around: Of the ground.
            border: Of the border; none where None.
        """
        width, height = max(width, 1), max(height, 1)
        key = ("box", width, height, radius, colour, around, border)
        piece = self._pieces.get(key)
        if piece is not None:
            return piece
        corner = math.ceil(radius) + 2
        small = min(width, 2 * corner + 1), min(height, 2 * corner + 1)
        if small != (width, height):  # bars change their size often, but only corners need smoothing
            piece = _stretched(self.box(*small, radius, colour, around, border), corner, (width, height))
            return self._keep(key, piece)
        large = pygame.Surface((width * SCALE, height * SCALE), 0, 32)
        large.fill(around)
        rect = large.get_rect()
        pygame.draw.rect(large, border or colour, rect, border_radius=round(radius * SCALE))
        if border is not None:
            pygame.draw.rect(large, colour, rect.inflate(-2 * SCALE, -2 * SCALE), border_radius=round(radius * SCALE))
        return self._keep(key, pygame.transform.smoothscale(large, (width, height)))

    def chip(self, width: int, height: int, radius: float, colour: Colour, opacity: float = 1.0) -> pygame.Surface:
        """A filled rounded rectangle to blit with BLEND_PREMULTIPLIED on any ground.

        Args:
            width: Pixels.
            height: Pixels.
            radius: Of the corners, pixels.
            colour: Of the rectangle.
            opacity: In [0, 1].
        """
        key = ("chip", width, height, radius, colour, opacity)
        piece = self._pieces.get(key)
        if piece is None:
            large = self.sheet(width, height)
            pygame.draw.rect(large, tint(colour, opacity), large.get_rect(), border_radius=round(radius * SCALE))
            piece = self._keep(key, pygame.transform.smoothscale(large, (width, height)))
        return piece

    def diamond(self, size: int, colour: Colour) -> pygame.Surface:
        """The mark of an expert's label, to blit with BLEND_PREMULTIPLIED.

        Args:
            size: Pixels.
            colour: Of the mark.
        """
        key = ("diamond", size, colour)
        piece = self._pieces.get(key)
        if piece is None:
            large, half = self.sheet(size, size), size * SCALE / 2
            pygame.draw.polygon(large, colour, [(half, 0), (2 * half, half), (half, 2 * half), (0, half)])
            piece = self._keep(key, pygame.transform.smoothscale(large, (size, size)))
        return piece

    def barred(self, size: int, colour: Colour) -> pygame.Surface:
        """The mark of an unsafe action, a barred ring, to blit with BLEND_PREMULTIPLIED.

        Args:
            size: Pixels.
            colour: Of the mark.
        """
        key = ("barred", size, colour)
        piece = self._pieces.get(key)
        if piece is None:
            large, half = self.sheet(size, size), size * SCALE / 2
            line = max(round(0.15 * size * SCALE), 1)
            pygame.draw.circle(large, colour, (half, half), half, line)
            reach, wide = 0.66 * half, line / 2**1.5
            ends = [(half - reach, half - reach), (half + reach, half + reach)]
            pygame.draw.polygon(
                large,
                colour,
                [(x + sign * wide, y - sign * wide) for sign, order in ((1, ends), (-1, ends[::-1])) for x, y in order],
            )
            piece = self._keep(key, pygame.transform.smoothscale(large, (size, size)))
        return piece

    @staticmethod
    def sheet(width: int, height: int) -> pygame.Surface:
        """An empty transparent sheet with `SCALE` samples per pixel and direction."""
        return pygame.Surface((width * SCALE, height * SCALE), pygame.SRCALPHA, 32)

    def fit(self, words: str, size: int, colour: Colour, width: int) -> pygame.Surface:
        """Words shortened to a width, with an ellipsis where they do not fit.

        Args:
            words: The text.
            size: Of the font, pixels.
            colour: Of the text.
            width: Pixels.
        """
        piece = self.text(words, size, colour)
        while piece.get_width() > width and len(words) > 1:
            keep = max(min(len(words) - 1, int(len(words) * width / piece.get_width())), 1)
            words = words[:keep].rstrip(" …")
            piece = self.text(words + "…", size, colour)
        return piece


def _stretched(piece: pygame.Surface, corner: int, size: tuple[int, int]) -> pygame.Surface:
    """A piece whose corners are kept, and whose one row and column between them, where there are any, fill the rest."""
    result = pygame.Surface(size, 0, 32)
    spans = [_thirds(old, new, corner) for old, new in zip(piece.get_size(), size, strict=True)]
    for x0, wide, x1, width in spans[0]:
        for y0, high, y1, height in spans[1]:
            part = piece.subsurface((x0, y0, wide, high))
            if (wide, high) != (width, height):
                part = pygame.transform.scale(part, (width, height))
            result.blit(part, (x1, y1))
    return result


def _thirds(old: int, new: int, corner: int) -> list[tuple[int, int, int, int]]:
    """(begin, length) in the old size and (begin, length) in the new one."""
    if old == new:
        return [(0, old, 0, new)]
    return [(0, corner, 0, corner), (corner, 1, corner, new - 2 * corner), (old - corner, corner, new - corner, corner)]
