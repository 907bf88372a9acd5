"""Text, boxes and bars at one scale and theme: what panel, timeline and the window's own lines are drawn with."""

from __future__ import annotations

import pygame

from sim.render.palette import Colour, Theme, mix
from sim.render.text import Typist

STATUS_MARKS = {"repaired": "↻", "vetoed": "⊘", "fallback": "↓", "late": "◷", "failed": "✕"}
"""Of the expert's decisions, in the panel and on the timeline; a plain "ok" has none."""


class Painter:
    """Text, boxes and bars.

    Args:
        theme: Colours.
        typist: Renders and keeps text.
        scale: Of all sizes, 1 at the reference window.
    """

    def __init__(self, theme: Theme, typist: Typist, scale: float) -> None:
        self.theme, self.typist, self.scale = theme, typist, scale

    def px(self, value: float) -> int:
        """Pixels of a size at the reference window, at least 1."""
        return max(round(value * self.scale), 1)

    def text(
        self, surface: pygame.Surface, words: str, x: int, y: int, size: float, colour: Colour, bold: bool = False
    ) -> int:
        """Draws and returns the width."""
        piece = self.typist.text(words, max(self.px(size), 8), colour, bold)
        surface.blit(piece, (x, y))
        return piece.get_width()

    def right(self, surface: pygame.Surface, words: str, x: int, y: int, size: float, colour: Colour) -> None:
        piece = self.typist.text(words, max(self.px(size), 8), colour)
        surface.blit(piece, (x - piece.get_width(), y))

    def chip(self, surface: pygame.Surface, words: str, x: int, y: int, colour: Colour, ground: Colour) -> int:
        """A filled pill; returns its width."""
        piece = self.typist.text(words, max(self.px(11), 8), self.theme.panel, True)
        width, height = piece.get_width() + self.px(16), piece.get_height() + self.px(6)
        surface.blit(self.typist.box(width, height, height / 2, colour, ground), (x, y))
        surface.blit(piece, (x + self.px(8), y + (height - piece.get_height()) // 2))
        return width

    def bar(
        self, surface: pygame.Surface, share: float, x: int, y: int, width: int, height: int, colour: Colour
    ) -> None:
        ground = self.theme.panel
        empty = self.typist.box(width, height, height / 2, mix(ground, self.theme.muted, 0.2), ground)
        surface.blit(empty, (x, y))
        filled = round(width * min(max(share, 0.0), 1.0))
        if filled > 0:
            surface.blit(self.typist.box(max(filled, height), height, height / 2, colour, ground), (x, y))

    def lines(self, words: str, size: float, width: int, most: int) -> list[str]:
        """Words broken to a width, at most `most` lines, the last one cut with an ellipsis."""
        done: list[str] = []
        line = ""
        pieces = words.split()
        for k, word in enumerate(pieces):
            longer = f"{line} {word}".strip()
            if self.typist.text(longer, max(self.px(size), 8), self.theme.ink).get_width() <= width or not line:
                line = longer
                continue
            if len(done) == most - 1:
                return [*done, " ".join([line, *pieces[k:]])]
            done.append(line)
            line = word
        return [*done, line] if line else done
