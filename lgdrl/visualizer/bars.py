"""Bars of the panel for continuous actions and for shared control.

Every component of an action has a lane for the learner and one for the expert, from 0 to the proposal within the
action's bounds; a mark shows what is executed. The authority bar divides control between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pygame

from experts.data.episodes import Controller
from lgdrl.visualizer.painter import Painter
from sim.picture import Picture
from sim.render.palette import Colour, mix


@dataclass(frozen=True)
class Proposals:
    """The continuous actions of one moment; D components. What is not known is None."""

    picture: Picture
    """Has names and bounds."""
    learner: np.ndarray | None
    """float (D,): mean of the policy."""
    std: np.ndarray | None
    """float (D,): its standard deviation."""
    expert: np.ndarray | None
    """float (D,)"""
    executed: np.ndarray | None
    """float (D,)"""
    controller: Controller


@dataclass(frozen=True)
class Lane:
    """Where a component's values lie: columns from `left` on, `low` to `high`."""

    left: int
    width: int
    low: float
    high: float

    def place(self, value: float) -> int:
        """The column of a value, clipped to the bounds."""
        share = (value - self.low) / (self.high - self.low)
        return self.left + round(self.width * min(max(share, 0.0), 1.0))


class ActionBars:
    """Draws `Proposals`.

    Args:
        painter: At the window's scale and theme.
    """

    def __init__(self, painter: Painter) -> None:
        self.p = painter

    def draw(self, surface: pygame.Surface, x: int, right: int, y: int, bottom: int, what: Proposals) -> int:
        """Draw a title with its legend, and a row per component, as many as there is room for.

        Args:
            surface: The window's canvas.
            x: Left edge.
            right: Right edge.
            y: Upper edge.
            bottom: Lower edge; components beyond are counted only.
            what: What is shown.
        Returns:
            Where the next section begins.
        """
        p, theme = self.p, self.p.theme
        self._legend(surface, x, right, y, what)
        y += p.px(18)
        count = len(what.picture.names)
        row = min(max((bottom - y) // count, p.px(14), 11), p.px(26))
        fitting = max((bottom - y) // row, 1)
        shown = count if count <= fitting else fitting - 1
        size = max(p.px(12 if row >= p.px(20) else 10), 8)
        widest = max(p.typist.text(name, size, theme.ink).get_width() for name in what.picture.names[:shown])
        names = min(max(widest, p.px(62)), (right - x) * 2 // 5)
        for k in range(shown):
            label = p.typist.fit(what.picture.names[k], size, theme.ink, names)
            surface.blit(label, (x, y + (row - label.get_height()) // 2))
            self._row(surface, x + names + p.px(12), right, y, row, k, what)
            y += row
        if shown < count:
            p.text(surface, f"and {count - shown} more", x, y, 10, theme.muted)
            y += row
        return y + p.px(8)

    def _legend(self, surface: pygame.Surface, x: int, right: int, y: int, what: Proposals) -> None:
        """What the colours are, and the bounds where all components have the same."""
        p, theme, picture = self.p, self.p.theme, what.picture
        assert picture.low is not None
        assert picture.high is not None
        bounds = np.unique(np.stack([picture.low, picture.high], 1), axis=0)
        words = "ACTION" if len(bounds) > 1 else f"ACTION  {bounds[0, 0]:g} TO {bounds[0, 1]:g}"
        p.text(surface, words, x, y, 9, theme.muted)
        entries: list[tuple[str, Colour]] = []
        if what.expert is not None:
            entries.append(("expert", theme.expert))
        if what.learner is not None:
            entries.append(("learner", theme.learner))
        for name, colour in entries:
            piece = p.typist.text(name, max(p.px(9), 8), theme.muted)
            surface.blit(piece, (right - piece.get_width(), y))
            size = max(p.px(7), 6)
            right -= piece.get_width() + size + p.px(4)
            swatch = p.typist.box(size, size, p.px(2), colour, theme.panel)
            surface.blit(swatch, (right, y + (piece.get_height() - size + 1) // 2))
            right -= p.px(12)

    def _row(
        self, surface: pygame.Surface, left: int, right: int, y: int, height: int, k: int, what: Proposals
    ) -> None:
        """The lanes of component k, and the executed value."""
        p, theme = self.p, self.p.theme
        middle = y + height // 2
        lane = self._lane(left, right - p.px(50), k, what.picture)
        bars = [
            (theme.learner, _component(what.learner, k), _component(what.std, k)),
            (theme.expert, _component(what.expert, k), None),
        ]
        drawn = [bar for bar in bars if bar[1] is not None] or bars[:1]
        thick = max(min(p.px(7), (height - p.px(7)) // len(drawn)), 2)
        gap = 1 if len(drawn) > 1 else 0
        top = middle - (len(drawn) * thick + gap * (len(drawn) - 1)) // 2
        whole = len(drawn) * thick + gap * (len(drawn) - 1)
        surface.fill(mix(theme.panel, theme.muted, 0.16), (lane.left, top, lane.width, whole))
        for number, (colour, value, std) in enumerate(drawn):
            if value is not None:
                self._bar(surface, lane, top + number * (thick + gap), thick, value, std, colour)
        surface.fill(mix(theme.panel, theme.ink, 0.55), (lane.place(0.0), top - p.px(2), 1, whole + 2 * p.px(2)))
        value = _component(what.executed, k)
        if value is not None:
            self._mark(surface, lane.place(value), top, whole, theme.controller(what.controller))
            piece = p.typist.text(f"{value:+.2f}", max(p.px(11 if height >= p.px(20) else 10), 8), theme.ink)
            surface.blit(piece, (right - piece.get_width(), middle - piece.get_height() // 2))

    def _lane(self, left: int, right: int, k: int, picture: Picture) -> Lane:
        assert picture.low is not None
        assert picture.high is not None
        low, high = float(picture.low[k]), float(picture.high[k])
        low, high = (low if np.isfinite(low) else -1.0), (high if np.isfinite(high) else 1.0)
        return Lane(left, max(right - left, 8), low, high if high > low else low + 1.0)

    def _bar(
        self, surface: pygame.Surface, lane: Lane, y: int, height: int, value: float, std: float | None, colour: Colour
    ) -> None:
        """From 0 to the value; behind it, paler, one standard deviation to both sides."""
        if std is not None:
            left, end = lane.place(value - std), lane.place(value + std)
            surface.fill(mix(self.p.theme.panel, colour, 0.4), (left, y, max(end - left, 1), height))
        zero, place = lane.place(0.0), lane.place(value)
        surface.fill(colour, (min(zero, place), y, max(abs(place - zero), 1), height))

    def _mark(self, surface: pygame.Surface, x: int, top: int, height: int, colour: Colour) -> None:
        """The executed value: a line through both lanes with a head in the colour of who controls."""
        p, half = self.p, max(self.p.px(4.5), 3)
        surface.fill(p.theme.ink, (x - p.px(1) // 2, top - p.px(1), max(p.px(1.6), 1), height + p.px(2)))
        points = [(x - half, top - half - 1), (x + half, top - half - 1), (x, top + 1)]
        pygame.draw.polygon(surface, colour, points)
        pygame.draw.aalines(surface, colour, True, points)


class AuthorityBar:
    """Draws who has which share of control.

    Args:
        painter: At the window's scale and theme.
    """

    def __init__(self, painter: Painter) -> None:
        self.p = painter

    def draw(
        self, surface: pygame.Surface, x: int, right: int, y: int, authority: float, why: str, controller: Controller
    ) -> int:
        """Draw title, reason, the divided bar and its shares.

        Args:
            surface: The window's canvas.
            x: Left edge.
            right: Right edge.
            y: Upper edge.
            authority: The share of the expert, or of the person, 0 to 1.
            why: The reason.
            controller: Who is in control.
        Returns:
            Where the next section begins.
        """
        p, theme = self.p, self.p.theme
        other = "human" if controller == "human" else "expert"
        p.text(surface, "AUTHORITY", x, y, 9, theme.muted)
        p.right(surface, why.replace("_", " "), right, y - p.px(1), 10, theme.ink)
        y += p.px(17)
        width, height = right - x, p.px(8)
        share = min(max(authority, 0.0), 1.0)
        split = round(width * (1.0 - share))
        surface.fill(mix(theme.panel, theme.learner, 0.25), (x, y, width, height))
        surface.fill(theme.learner, (x, y, split, height))
        surface.fill(theme.controller(other), (x + split, y, width - split, height))
        knob = max(p.px(3), 2)
        place = min(max(x + split, x + knob // 2), right - knob + knob // 2)
        surface.fill(theme.ink, (place - knob // 2, y - p.px(3), knob, height + 2 * p.px(3)))
        y += height + p.px(5)
        p.text(surface, f"learner {100 * (1 - share):.0f}%", x, y, 10, theme.muted)
        p.right(surface, f"{'person' if other == 'human' else other} {100 * share:.0f}%", right, y, 10, theme.muted)
        return y + p.px(22)


def _component(values: np.ndarray | None, k: int) -> float | None:
    return None if values is None else float(values[k])
