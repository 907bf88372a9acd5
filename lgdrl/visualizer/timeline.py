"""The strip at the lower edge: every decision of an episode, who controlled it, and the playhead."""

from __future__ import annotations

import pygame

from experts.data.episodes import Controller
from lgdrl.visualizer.painter import STATUS_MARKS, Painter
from sim.render.palette import mix


class DecisionTimeline:
    """Every decision of an episode as a stripe in the colour of who drove.

    A mark shows the status of the expert's decision, where that is not plainly ok; a notch shows an intervention or
    hand-back.

    Args:
        painter: At the window's scale and theme.
    """

    def __init__(self, painter: Painter) -> None:
        self.p = painter
        self.span = (0, 1, 1)
        """Left edge, width (pixels) and decisions of the strip drawn last, to read clicks by."""

    def draw(
        self,
        surface: pygame.Surface,
        area: pygame.Rect,
        rows: list[tuple[list[tuple[Controller, str | None]], str]],
        head: float,
        words: str,
    ) -> None:
        """Draw the strip.

        Args:
            surface: The window's canvas.
            area: Of the strip.
            rows: Of each track, (controller, status of the expert's decision) of every decision, and the outcome.
            head: The playhead, in decisions.
            words: At the right.
        """
        p, theme = self.p, self.p.theme
        surface.fill(theme.panel, area)
        surface.fill(theme.hairline, (area.left, area.top, area.width, 1))
        piece = p.typist.text(words, max(p.px(11), 8), theme.muted)
        surface.blit(piece, (area.right - piece.get_width() - p.px(16), area.centery - piece.get_height() // 2))
        left, width = area.left + p.px(16), area.width - piece.get_width() - p.px(52)
        count = max([len(decisions) for decisions, _ in rows] + [20])
        self.span = (left, max(width, 1), count)
        height = max((area.height - p.px(16)) // max(len(rows), 1) - p.px(3), 3)
        y = area.top + p.px(9)
        for decisions, outcome in rows:
            surface.fill(mix(theme.panel, theme.muted, 0.14), (left, y, width, height))
            drivers = [driver for driver, _ in decisions]
            start, hand_overs = 0, []
            for k in range(1, len(drivers) + 1):
                if k == len(drivers) or drivers[k] != drivers[start]:
                    x0, x1 = left + width * start // count, left + width * k // count
                    surface.fill(theme.controller(drivers[start]), (x0, y, max(x1 - x0, 1), height))
                    hand_overs += [x1] if k < len(drivers) else []
                    start = k
            for x in hand_overs:
                self._hand_over(surface, x, y, height)
            for k, (_, status) in enumerate(decisions):
                if status in STATUS_MARKS:
                    x = left + round(width * (k + 0.5) / count)
                    self._status(surface, x, y, width / count, height, status)
            self._end(surface, left + width * len(drivers) // count, y, height, outcome)
            y += height + p.px(3)
        x = left + round(width * min(head, count) / count)
        surface.fill(theme.ink, (x - p.px(1), area.top + p.px(5), p.px(2), area.height - p.px(10)))

    def _hand_over(self, surface: pygame.Surface, x: int, y: int, height: int) -> None:
        """A notch in the stripe's upper edge."""
        p, half = self.p, max(min(self.p.px(5), height // 3), 2)
        surface.fill(p.theme.panel, (x, y, 1, height))
        pygame.draw.polygon(surface, p.theme.panel, [(x - half, y), (x + half, y), (x, y + half)])

    def _status(self, surface: pygame.Surface, x: int, y: int, width: float, height: int, status: str) -> None:
        """The status's mark in a decision's stripe; where that is too narrow, a tick."""
        p = self.p
        piece = p.typist.text(STATUS_MARKS[status], max(min(p.px(12), height), 8), p.theme.panel, True)
        if piece.get_width() <= width:
            surface.blit(piece, piece.get_rect(center=(x, y + height // 2)))
        else:
            surface.fill(p.theme.ink, (x, y, max(p.px(1), 1), height // 2))

    def _end(self, surface: pygame.Surface, x: int, y: int, height: int, outcome: str) -> None:
        """A flag or a cross where the episode ended."""
        p, theme, half = self.p, self.p.theme, min(self.p.px(6), max(height // 2, 3))
        middle = y + height // 2
        if outcome == "success":
            surface.fill(theme.goal, (x, middle - half, p.px(2), 2 * half))
            pygame.draw.polygon(
                surface, theme.goal, [(x, middle - half), (x + 2 * half, middle - half // 2), (x, middle)]
            )
        elif outcome in ("crash", "failure"):
            for sign in (-1, 1):
                a, b = (x - half, middle - sign * half), (x + half, middle + sign * half)
                pygame.draw.line(surface, theme.crash, a, b, max(p.px(2), 1))
        elif outcome:
            pygame.draw.circle(surface, theme.muted, (x, middle), half, max(p.px(2), 1))

    def decision_at(self, x: int) -> float:
        """The playhead, in decisions, under a pixel column."""
        left, width, count = self.span
        return min(max((x - left) / width, 0.0), 1.0) * count
