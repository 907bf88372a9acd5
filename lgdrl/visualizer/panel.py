"""The panel beside the road: who drives, what learner and expert would do, and how the episode goes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pygame

from experts.data.episodes import Controller
from lgdrl.visualizer.bars import ActionBars, AuthorityBar, Proposals
from lgdrl.visualizer.curves import Curve
from lgdrl.visualizer.painter import STATUS_MARKS, Painter
from lgdrl.visualizer.track import Assessment
from sim.picture import Picture
from sim.render.overlay import GLYPHS, action_names
from sim.render.palette import mix

STATUS_WORDS = {
    "ok": "ok",
    "repaired": "repaired",
    "vetoed": "vetoed",
    "fallback": "fallback",
    "late": "late",
    "failed": "no response",
}


CONTROLS = ("Pedals", "Steering")
"""Continuous actions: acceleration and steering, or steering alone."""


@dataclass(frozen=True)
class PanelState:
    """What the panel shows of one moment."""

    assessment: Assessment
    controller: Controller
    executed: int | None
    """Action id of the decision under way."""
    control: np.ndarray | None
    """Its action where actions are continuous, float32 (D,): in driving, pedals and steering, each in [-1, 1]."""
    reward: float | None
    total: float
    """Return so far."""
    waiting_s: float
    """Since the query to the expert, while there is no response; 0: there is no open query."""
    divergence: float | None
    """JS between learner and expert, nats."""
    facts: tuple[tuple[str, str], ...] = ()
    curves: tuple[Curve, ...] = ()
    expert_name: str = ""
    saying: str = ""
    """What the expert is saying before it has decided."""
    terms: dict[str, float] | None = None
    """What adds up to the reward, or to what the environment rescales to it."""
    authority: float | None = None
    """The expert's share of the action, in [0, 1]; None: no strategy decided."""
    why: str = ""
    """Why it has that share."""


def signed(value: float) -> str:
    """A number with its sign and two digits that matter."""
    return f"{value:+.2f}" if abs(value) >= 0.1 else f"{value:+.3f}"


class Panel:
    """Draws one `PanelState` into a rectangle.

    Args:
        painter: At the window's scale and theme.
    """

    def __init__(self, painter: Painter) -> None:
        self.p = painter
        self._bars, self._authority = ActionBars(painter), AuthorityBar(painter)

    def draw(self, surface: pygame.Surface, area: pygame.Rect, state: PanelState, title: str) -> None:
        """Draw the panel.

        Args:
            surface: The window's canvas.
            area: Of the panel.
            state: What is shown.
            title: Names the driver.
        """
        p, theme = self.p, self.p.theme
        surface.fill(theme.panel, area)
        surface.fill(theme.hairline, (area.left, area.top, 1, area.height))
        clip = surface.get_clip()
        surface.set_clip(area)
        pad = p.px(16)
        x, right, y = area.left + pad, area.right - pad, area.top + p.px(12)
        y = self._head(surface, x, right, y, state, title)
        y = self._actions(surface, x, right, y, area.bottom, state)
        if state.authority is not None and isinstance(state.assessment.scene, Picture):
            y = self._authority.draw(surface, x, right, y, state.authority, state.why, state.controller)
        y = self._expert(surface, x, right, y, area.bottom, state)
        y = self._figures(surface, x, right, y, area.bottom - p.px(8), state)
        self._curves(surface, x, right, y + p.px(14), area.bottom - p.px(10), state)
        surface.set_clip(clip)

    def _head(self, surface: pygame.Surface, x: int, right: int, y: int, state: PanelState, title: str) -> int:
        p, theme = self.p, self.p.theme
        words = f"{state.controller.capitalize()} drives"
        if isinstance(state.assessment.scene, Picture):
            shared = state.authority is not None and 0 < state.authority < 1
            words = "Both act" if shared else f"{state.controller.capitalize()} acts"
        width = p.chip(surface, words, x, y, theme.controller(state.controller), theme.panel)
        piece = p.typist.fit(title, p.px(11), theme.muted, max(right - x - width - p.px(10), 10))
        if right - x - width > p.px(60):
            surface.blit(piece, (right - piece.get_width(), y + p.px(4)))
        return y + p.px(36)

    def _rule(self, surface: pygame.Surface, x: int, right: int, y: int, words: str) -> int:
        """A section's small title."""
        self.p.text(surface, words.upper(), x, y, 9, self.p.theme.muted)
        return y + self.p.px(16)

    def _actions(self, surface: pygame.Surface, x: int, right: int, y: int, bottom: int, state: PanelState) -> int:
        p, theme, assessment = self.p, self.p.theme, state.assessment
        picture = assessment.scene if isinstance(assessment.scene, Picture) else None
        if picture is not None and picture.low is not None:
            advised = assessment.expert is not None or bool(state.expert_name)
            below = 115 + 55 * (state.authority is not None) + 54 * advised  # the sections that follow
            return self._bars.draw(surface, x, right, y, bottom - p.px(below), _proposals(picture, state))
        names = action_names(assessment.scene)
        if state.control is not None:
            return self._controls(surface, x, right, y, state, state.control)
        if len(names) > 9 or (picture is None and state.executed is None and not assessment.scene.meanings):
            return y
        learner = assessment.learner_probs is not None
        y = self._rule(surface, x, right, y, "Learner" if learner else "Actions")
        if assessment.q_values is not None:
            p.right(surface, "Q", right, y - p.px(16), 9, theme.muted)
        expert = assessment.expert.action if assessment.expert is not None else None
        row = p.px(26)
        for action, name in enumerate(names):
            legal = bool(assessment.legal[action])
            unsafe = assessment.unsafe is not None and bool(assessment.unsafe[action])
            if action == state.executed:
                colour = theme.controller(state.controller)
                ground, border = mix(theme.panel, colour, 0.14), mix(theme.panel, colour, 0.7)
                box = p.typist.box(right - x + p.px(12), row - p.px(2), p.px(6), ground, theme.panel, border)
                surface.blit(box, (x - p.px(6), y - p.px(2)))
            elif action == assessment.learner_action:  # proposed, not executed
                border = mix(theme.panel, theme.learner, 0.7)
                box = p.typist.box(right - x + p.px(12), row - p.px(2), p.px(6), theme.panel, theme.panel, border)
                surface.blit(box, (x - p.px(6), y - p.px(2)))
            ink = theme.ink if legal else mix(theme.panel, theme.muted, 0.55)
            label = f"{GLYPHS.get(name, '')} {name}".strip()
            p.text(surface, label, x, y + p.px(3), 12, ink, bold=action == state.executed)
            if not legal:
                middle = y + p.px(10)
                surface.fill(ink, (x, middle, p.px(62), 1))
            self._marks(surface, x + p.px(74), y + p.px(10), unsafe, expert is not None and action == expert)
            if learner:
                assert assessment.learner_probs is not None
                share = float(assessment.learner_probs[action])
                start, end = x + p.px(106), right - p.px(84)
                if end - start > p.px(16):
                    p.bar(surface, share, start, y + p.px(7), end - start, p.px(6), theme.learner)
                p.right(surface, f"{100 * share:.0f}%", right - p.px(46), y + p.px(3), 11, ink)
            if assessment.q_values is not None:
                p.right(surface, f"{float(assessment.q_values[action]):.1f}", right, y + p.px(3), 11, theme.muted)
            y += row
        return y + p.px(8)

    def _controls(
        self, surface: pygame.Surface, x: int, right: int, y: int, state: PanelState, control: np.ndarray
    ) -> int:
        """Pedals and steering as bars from the middle: what is executed, and a diamond where the expert's label is."""
        p, theme = self.p, self.p.theme
        y = self._rule(surface, x, right, y, "Pedals and steering")
        expert = state.assessment.expert
        label = expert.action if expert is not None and isinstance(expert.action, np.ndarray) else None
        start, end = x + p.px(74), right - p.px(52)
        middle, half = (start + end) // 2, (end - start) // 2
        for k, name in enumerate(CONTROLS[-len(control) :]):
            value = float(np.clip(control[k], -1.0, 1.0))
            p.text(surface, name, x, y + p.px(3), 12, theme.ink)
            surface.fill(mix(theme.panel, theme.muted, 0.2), (start, y + p.px(7), end - start, p.px(6)))
            left, width = (middle, round(half * value)) if value >= 0 else (middle + round(half * value), 0)
            bar = pygame.Rect(left, y + p.px(7), width or middle - left, p.px(6))
            surface.fill(theme.controller(state.controller), bar)
            surface.fill(theme.ink, (middle, y + p.px(4), 1, p.px(12)))
            if label is not None and k < len(label):
                place = middle + round(half * float(np.clip(label[k], -1.0, 1.0)))
                self._marks(surface, place, y + p.px(10), unsafe=False, labelled=True)
            p.right(surface, f"{value:+.2f}", right, y + p.px(3), 11, theme.ink)
            y += p.px(26)
        return y + p.px(8)

    def _marks(self, surface: pygame.Surface, x: int, y: int, unsafe: bool, labelled: bool) -> None:
        """A diamond: the expert's label. A triangle: unsafe by the safety check."""
        p, theme, half = self.p, self.p.theme, self.p.px(5)
        if labelled:
            points = [(x, y - half), (x + half, y), (x, y + half), (x - half, y)]
            pygame.draw.polygon(surface, theme.expert, points)
            pygame.draw.aalines(surface, theme.expert, True, points)
        if unsafe:
            x += p.px(16)
            points = [(x, y - half), (x + half, y + half - 1), (x - half, y + half - 1)]
            pygame.draw.polygon(surface, theme.crash, points)
            pygame.draw.aalines(surface, theme.crash, True, points)

    def _expert(self, surface: pygame.Surface, x: int, right: int, y: int, bottom: int, state: PanelState) -> int:
        p, theme, assessment = self.p, self.p.theme, state.assessment
        if assessment.expert is None and not state.expert_name:
            return y
        y = self._rule(surface, x, right, y, f"Expert {state.expert_name} as the decision began".replace("  ", " "))
        if assessment.expert is None:
            doing = "responding" if state.saying else "deciding"
            words = f"is {doing} … {state.waiting_s:.1f} s" if state.waiting_s > 0.2 else "…"
            p.text(surface, words, x, y, 12, theme.muted)
            return self._reason(surface, x, right, y + p.px(22), bottom, state.saying)
        decision = assessment.expert
        status = decision.status.value
        good = status in ("ok", "repaired")
        words = f"{STATUS_MARKS.get(status, '')} {STATUS_WORDS[status]}".strip()
        width = p.chip(surface, words, x, y, theme.expert if good else theme.crash, theme.panel)
        if decision.latency_s > 0.02:
            p.text(surface, f"{decision.latency_s:.1f} s", x + width + p.px(8), y + p.px(4), 11, theme.muted)
        if state.divergence is not None:
            p.right(surface, f"JS {state.divergence:.2f} nats", right, y + p.px(4), 11, theme.muted)
        return self._reason(surface, x, right, y + p.px(28), bottom, decision.reason or "")

    def _reason(self, surface: pygame.Surface, x: int, right: int, y: int, bottom: int, words: str) -> int:
        p, theme = self.p, self.p.theme
        most = max((bottom - y - p.px(90)) // p.px(17), 1)
        for line in p.lines(words, 12, right - x, min(most, 5)):
            piece = p.typist.fit(line, max(p.px(12), 8), theme.ink, right - x)
            surface.blit(piece, (x, y))
            y += p.px(17)
        return y + p.px(10)

    def _figures(self, surface: pygame.Surface, x: int, right: int, y: int, bottom: int, state: PanelState) -> int:
        p, theme = self.p, self.p.theme
        rows = [("Return", f"{state.total:.2f}"), *state.facts]
        if isinstance(state.assessment.scene, Picture):
            rows.insert(1, ("Step", f"{state.assessment.scene.step:,}"))
        if y + p.px(34) > bottom:
            return bottom
        y = self._rule(surface, x, right, y, "Episode")
        if state.reward is not None:
            y = self._reward(surface, x, right, y, bottom, state.reward, state.terms)
        for name, value in rows:
            if y + p.px(17) > bottom:
                break
            p.text(surface, name, x, y, 12, theme.muted)
            p.right(surface, value, right, y, 12, theme.ink)
            y += p.px(18)
        return y

    def _reward(
        self,
        surface: pygame.Surface,
        x: int,
        right: int,
        y: int,
        bottom: int,
        reward: float,
        terms: dict[str, float] | None,
    ) -> int:
        """The reward and, in one small line with the largest first, its terms."""
        p, theme = self.p, self.p.theme
        found = sorted(((value, name) for name, value in (terms or {}).items() if value), key=lambda row: -abs(row[0]))
        rescaled = terms is not None and not math.isclose(sum(terms.values()), reward, abs_tol=1e-6)
        p.text(surface, "Reward, rescaled" if rescaled else "Reward", x, y, 12, theme.muted)
        p.right(surface, f"{reward:+.3f}", right, y, 12, theme.ink)
        y += p.px(18)
        if terms is None or y + p.px(34) > bottom:
            return y
        words = " · ".join(f"{name.removesuffix('_reward').replace('_', ' ')} {signed(value)}" for value, name in found)
        surface.blit(p.typist.fit(words, max(p.px(10), 8), theme.muted, right - x), (x, y))
        return y + p.px(18)

    def _curves(self, surface: pygame.Surface, x: int, right: int, y: int, bottom: int, state: PanelState) -> None:
        """Small charts, as many as there is room for; beside pictures they share the room that is left."""
        p = self.p
        height = p.px(58)
        if isinstance(state.assessment.scene, Picture) and state.curves:
            height = min(max((bottom - y) // len(state.curves) - p.px(6), height), p.px(110))
        for curve in state.curves:
            if y + height > bottom:
                break
            self._curve(surface, pygame.Rect(x, y, right - x, height - p.px(12)), curve)
            y += height + p.px(6)

    def _curve(self, surface: pygame.Surface, area: pygame.Rect, curve: Curve) -> None:
        p, theme = self.p, self.p.theme
        p.text(surface, curve.name.upper(), area.left, area.top, 9, theme.muted)
        alarmed = curve.alarm is not None and curve.now < curve.alarm
        p.right(surface, curve.words, area.right, area.top - p.px(2), 11, theme.brake if alarmed else theme.ink)
        top, span = area.top + p.px(16), area.height - p.px(16)
        surface.fill(theme.hairline, (area.left, top + span, area.width, 1))
        count = max(len(curve.values) - 1, curve.head, 20)
        points: list[tuple[float, float]] = []
        shown = [(float(i), value) for i, value in enumerate(curve.values) if i < curve.head]
        for i, value in [*shown, (curve.head, curve.now)]:
            if value != value:
                self._stroke(surface, points)
                points = []
                continue
            share = min(max((value - curve.low) / (curve.high - curve.low), 0.0), 1.0)
            points.append((area.left + area.width * i / count, top + span * (1.0 - share)))
        self._stroke(surface, points)
        if points:
            pygame.draw.aacircle(surface, theme.brake if alarmed else theme.ego, points[-1], p.px(3.5))

    def _stroke(self, surface: pygame.Surface, points: list[tuple[float, float]]) -> None:
        if len(points) > 1:
            pygame.draw.aalines(surface, self.p.theme.ego, False, points)


def _proposals(picture: Picture, state: PanelState) -> Proposals:
    """The continuous actions of a moment."""
    assessment = state.assessment
    learner, expert = assessment.learner_action, None if assessment.expert is None else assessment.expert.action
    return Proposals(
        picture=picture,
        learner=learner if isinstance(learner, np.ndarray) else None,
        std=assessment.learner_std,
        expert=expert if isinstance(expert, np.ndarray) else None,
        executed=state.control,
        controller=state.controller,
    )
