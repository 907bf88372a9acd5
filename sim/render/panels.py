"""The two strips of text: the gauges above the picture and the caller's side information below it."""

from __future__ import annotations

import numpy as np
import pygame

from sim.render.overlay import GLYPHS, Overlay
from sim.render.palette import Colour, Theme, mix
from sim.render.text import Typist
from sim.scene import Neighbour, Scene

TTC_SHOWN = 30.0
"""Seconds: a longer time to collision is not shown."""
TTC_WARNING = 4.0
"""Seconds: a shorter time to collision is drawn in the warning colour."""
TOP, BOTTOM = 44, 56
"""Pixels of the strips at scale 1."""


def gap_text(front: Neighbour) -> str:
    """Gap and time to collision in words."""
    words = f"{max(front.gap, 0.0):.0f} m"
    return f"{words} · TTC {front.ttc:.1f} s" if front.ttc < TTC_SHOWN else words


def speed_text(scene: Scene) -> str:
    """The ego's speed in words, m/s; also where it reverses."""
    return f"{abs(scene.ego.speed):.1f}"


def remaining_text(metres: float) -> str:
    """Distance to the goal in words."""
    return f"{metres:.0f} m" if metres >= 0.5 else "passed"


def manoeuvre(scene: Scene) -> str:
    """The ego's visible manoeuvre, shown where the executed action is not given."""
    ego = scene.ego
    if ego.crashed:
        return "Crashed"
    if ego.target_lane != ego.lane:
        return "→ Changing right" if ego.target_lane > ego.lane else "← Changing left"
    if ego.acceleration > 0.3:
        return "+ Speeding up"
    if ego.acceleration < -0.3:
        return "− Slowing down"
    return "• Keeping"


def top_speed(scene: Scene) -> float:
    """The end of the gauge and of the traffic's colours, m/s."""
    return max(scene.set_points[-1], 1.0) if len(scene.set_points) > 1 else 30.0


class Panels:
    """Draws both strips; `scale` multiplies every size."""

    def __init__(self, theme: Theme, typist: Typist, scale: float) -> None:
        self.theme, self.typist, self.scale = theme, typist, scale

    def px(self, value: float) -> int:
        """Pixels of a size at scale 1."""
        return round(value * self.scale)

    # -- above ---------------------------------------------------------------------------------------------------------

    def gauges(self, surface: pygame.Surface, scene: Scene, overlay: Overlay | None, front: Neighbour | None) -> None:
        """Draw the strip above the road.

        Args:
            surface: The picture.
            scene: The scene.
            overlay: Gives the executed action.
            front: The car ahead.
        """
        theme, ego = self.theme, scene.ego
        width = surface.get_width()
        surface.fill(theme.panel, (0, 0, width, self.px(TOP)))
        surface.fill(theme.hairline, (0, self.px(TOP) - 1, width, 1))
        x = self._speed(surface, scene)
        fields: list[tuple[str, str, Colour, float]] = []
        if scene.num_lanes > 1:
            lane = f"{ego.lane + 1} of {scene.num_lanes}"
            if ego.target_lane != ego.lane:
                lane = f"{ego.lane + 1} → {ego.target_lane + 1} of {scene.num_lanes}"
            fields.append(("LANE", lane, theme.ink, 84))
        action = manoeuvre(scene)
        if overlay is not None and overlay.executed_action is not None:
            name = overlay.names(scene)[overlay.executed_action]
            action = f"{GLYPHS.get(name, '')} {name}".strip()
        fields.append(("ACTION", action, theme.crash if ego.crashed else theme.ink, 132))
        if front is not None and not ego.crashed:
            fields.append(("AHEAD", gap_text(front), theme.brake if front.ttc < TTC_WARNING else theme.ink, 138))
        elif front is None and scene.num_lanes > 1:
            fields.append(("AHEAD", "free", theme.muted, 138))
        if scene.goal is not None and scene.goal.remaining is not None:
            goal = remaining_text(scene.goal.remaining)
            if scene.goal.lane is not None:
                goal += f" · lane {scene.goal.lane + 1}"
            fields.append(("GOAL", goal, mix(theme.goal, theme.ink, 0.25), 116))
        fields.append(("TIME", f"{scene.time:.1f} s", theme.ink, 64))
        title = self.typist.text(scene.scenario, self.px(12), theme.muted)
        right = width - self.px(16) - title.get_width()
        for label, value, colour, room in fields:
            piece = self.typist.text(value, self.px(14), colour)
            if x + piece.get_width() > width - self.px(12):
                break
            surface.blit(self.typist.text(label, self.px(9), theme.muted), (x, self.px(8)))
            surface.blit(piece, (x, self.px(20)))
            x += max(self.px(room), piece.get_width() + self.px(14))
        if x < right:
            surface.blit(title, (right, (self.px(TOP) - title.get_height()) // 2))

    def _speed(self, surface: pygame.Surface, scene: Scene) -> int:
        """Number and bar with the set-point in force; returns where the next field starts."""
        theme, ego = self.theme, scene.ego
        number = self.typist.text(speed_text(scene), self.px(22), theme.ink, bold=True)
        slot = self.typist.text("88.8", self.px(22), theme.ink, bold=True).get_width()
        x = self.px(16)
        surface.blit(number, (x + slot - number.get_width(), (self.px(TOP) - number.get_height()) // 2))
        x += slot + self.px(6)
        unit = self.typist.text("m/s", self.px(11), theme.muted)
        surface.blit(unit, (x, self.px(19)))
        x += unit.get_width() + self.px(12)
        length, height = self.px(130), max(self.px(7), 3)
        y = (self.px(TOP) - height) // 2
        top = top_speed(scene)
        surface.blit(self.typist.box(length, height, height / 2, theme.hairline, theme.panel), (x, y))
        filled = round(length * min(max(abs(ego.speed) / top, 0.0), 1.0))
        if filled >= height:
            surface.blit(self.typist.box(filled, height, height / 2, theme.ego, theme.panel), (x, y))
        if 0 <= ego.speed_index < len(scene.set_points):
            mark = x + round((length - 2) * scene.set_points[ego.speed_index] / top)
            surface.fill(theme.ink, (mark, y - self.px(3), max(self.px(2), 1), height + 2 * self.px(3)))
        return x + length + self.px(28)

    # -- below ---------------------------------------------------------------------------------------------------------

    def side(self, surface: pygame.Surface, scene: Scene, overlay: Overlay) -> None:
        """Draw the strip below the road.

        Args:
            surface: The picture.
            scene: The scene.
            overlay: What to show.
        """
        theme = self.theme
        width, top = surface.get_width(), surface.get_height() - self.px(BOTTOM)
        surface.fill(theme.panel, (0, top, width, self.px(BOTTOM)))
        surface.fill(theme.hairline, (0, top, width, 1))
        x = self._controller(surface, overlay, top)
        if overlay.probs is not None or overlay.expert_action is not None or overlay.executed_action is not None:
            x = self._actions(surface, scene, overlay, x, top)
        room = width - x - self.px(16)
        if overlay.caption and room > self.px(40):
            self._caption(surface, overlay.caption, x, top, room)

    def _controller(self, surface: pygame.Surface, overlay: Overlay, top: int) -> int:
        colour = self.theme.controller(overlay.controller)
        words = self.typist.text(overlay.controller.capitalize(), self.px(14), self.theme.panel, bold=True)
        slot = max(words.get_width(), self.px(62)) + self.px(24)
        height = self.px(28)
        y = top + (self.px(BOTTOM) - height) // 2
        surface.blit(self.typist.box(slot, height, height / 2, colour, self.theme.panel), (self.px(16), y))
        surface.blit(words, (self.px(16) + (slot - words.get_width()) // 2, y + (height - words.get_height()) // 2))
        return self.px(16) + slot + self.px(20)

    def _actions(self, surface: pygame.Surface, scene: Scene, overlay: Overlay, x: int, top: int) -> int:
        theme = self.theme
        names = overlay.names(scene)
        count = len(names)
        cell = min(self.px(104), (surface.get_width() - x - self.px(8)) // max(count, 1))
        pad, gap = self.px(10), self.px(6)
        if cell < self.px(48):
            return x
        for action, name in enumerate(names):
            legal = action >= len(scene.legal) or bool(scene.legal[action])
            chosen = action == overlay.executed_action
            ground = theme.panel
            height = self.px(BOTTOM) - self.px(14)
            if chosen:
                ground = mix(theme.panel, theme.controller(overlay.controller), 0.16)
                border = mix(theme.panel, theme.controller(overlay.controller), 0.75)
                box = self.typist.box(cell - gap, height, self.px(8), ground, theme.panel, border)
                surface.blit(box, (x, top + self.px(7)))
            ink = theme.ink if legal else mix(theme.panel, theme.muted, 0.6)
            label = f"{GLYPHS.get(name, '')} {name}".strip()
            inner = cell - gap - 2 * pad
            size = max(self.px(11), 7)
            marks = []
            if action == overlay.expert_action:
                marks.append(self.typist.diamond(size, theme.expert))
            if overlay.unsafe is not None and action < len(overlay.unsafe) and overlay.unsafe[action]:
                marks.append(self.typist.barred(size, theme.crash))
            room = max(inner - len(marks) * (size + self.px(3)), self.px(8))
            surface.blit(self.typist.fit(label, self.px(12), ink, room), (x + pad, top + self.px(13)))
            for number, mark in enumerate(marks, 1):
                place = x + pad + inner - number * size - (number - 1) * self.px(3), top + self.px(20) - size // 2
                surface.blit(mark, place, special_flags=pygame.BLEND_PREMULTIPLIED)
            if overlay.probs is not None:
                self._bar(surface, float(overlay.probs[action]), x + pad, top + self.px(36), inner, legal, ground)
            x += cell
        return x + self.px(10)

    def _bar(
        self, surface: pygame.Surface, share: float, x: int, y: int, length: int, legal: bool, ground: Colour
    ) -> None:
        theme = self.theme
        number = self.typist.text(f"{100 * share:.0f}%", self.px(10), theme.muted)
        length -= self.typist.text("100%", self.px(10), theme.muted).get_width() + self.px(4)
        if length > self.px(12):
            height = max(self.px(5), 3)
            empty = mix(ground, theme.muted, 0.25)
            surface.blit(self.typist.box(length, height, height / 2, empty, ground), (x, y))
            filled = round(length * min(max(share, 0.0), 1.0))
            if filled > 0:
                colour = theme.learner if legal else theme.muted
                piece = self.typist.box(max(filled, height), height, height / 2, colour, ground)
                surface.blit(piece, (x, y))
            surface.blit(number, (x + length + self.px(4), y + height // 2 - number.get_height() // 2))

    def _caption(self, surface: pygame.Surface, caption: str, x: int, top: int, room: int) -> None:
        """One or two lines."""
        size = self.px(12)
        words = caption.split()
        first: list[str] = []
        while words and self.typist.text(" ".join([*first, words[0]]), size, self.theme.muted).get_width() <= room:
            first.append(words.pop(0))
        lines = [" ".join(first), " ".join(words)] if first else [" ".join(words)]
        pieces = [self.typist.fit(line, size, self.theme.muted, room) for line in lines if line]
        height = self.px(17)
        y = top + (self.px(BOTTOM) - height * len(pieces)) / 2
        for number, piece in enumerate(pieces):
            surface.blit(piece, (x, round(y + number * height)))


def speed_share(speed: np.ndarray, top: float) -> np.ndarray:
    """Where speeds lie between 0.3 and 1 of the top speed.

    Args:
        speed: (N,), m/s.
        top: m/s.

    Returns:
        (N,) within [0, 1], in steps of 1/16.
    """
    share = np.clip((np.abs(speed) / top - 0.3) / 0.7, 0.0, 1.0)
    return np.round(share * 16) / 16
