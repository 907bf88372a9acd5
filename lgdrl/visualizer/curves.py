"""The curves of the panel: a few quantities over the episode so far, at every decision and at the playhead."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from lgdrl.visualizer.track import Track, assessment_of, divergence, separation
from sim.picture import Picture, Shown
from sim.render.frame import OPEN_AREA, car_ahead
from sim.render.panels import TTC_SHOWN, TTC_WARNING, speed_text
from sim.scene import Scene

LONGEST_TTC = 10.0
"""s: the top of the chart."""


@dataclass(frozen=True)
class Curve:
    """A quantity over the episode so far."""

    name: str
    values: list[float]
    """At the beginning of every decision so far; NaN leaves a gap."""
    head: float
    """The playhead, in decisions."""
    now: float
    """Value at the playhead: of the scene that is drawn there."""
    words: str
    """`now` with its unit; empty: there is none."""
    low: float
    high: float
    alarm: float | None = None
    """Values below are drawn in the colour of danger."""


class Curves(ABC):
    """Quantities of one episode, computed once per decision."""

    def __init__(self) -> None:
        self.distances: list[float | None] = []
        """Jensen-Shannon divergence of learner and expert at every decision, nats."""

    def extend(self, track: Track) -> None:
        """Take in the decisions that have been made since the last call."""
        while len(self.distances) < len(track):
            k = len(self.distances)
            self.distances.append(divergence(assessment_of(track.turns[k])))
            self._add(track, k)

    @abstractmethod
    def _add(self, track: Track, k: int) -> None:
        """Take in decision k."""

    @abstractmethod
    def at(self, head: float, shown: Shown, distance: float | None) -> tuple[Curve, ...]:
        """The curves up to a playhead.

        Args:
            head: The playhead, in decisions.
            shown: What is drawn there.
            distance: The divergence there, nats; None: there is none.
        """

    def _divergence(self, head: float, distance: float | None) -> list[Curve]:
        if all(value is None for value in self.distances):
            return []
        values = [math.nan if value is None else value for value in self.distances]
        words = "" if distance is None else f"{distance:.2f} nats"
        now = math.nan if distance is None else distance
        return [Curve("JS of learner and expert", values, head, now, words, 0.0, math.log(2))]


class DrivingCurves(Curves):
    """Speed, time to collision ahead, and divergence.

    Args:
        first: The first scene of the episode.
    """

    def __init__(self, first: Scene) -> None:
        super().__init__()
        self._top = first.set_points[-1] if first.set_points else 30.0
        self._speeds: list[float] = []
        self._ttcs: list[float] = []

    def _add(self, track: Track, k: int) -> None:
        scene = track.turns[k].scene
        assert isinstance(scene, Scene)
        speed, ttc = _driving(scene)
        self._speeds.append(speed)
        self._ttcs.append(ttc)

    def at(self, head: float, shown: Shown, distance: float | None) -> tuple[Curve, ...]:
        assert isinstance(shown, Scene)
        speed, ttc = _driving(shown)
        fastest = max([self._top, *self._speeds])
        words = "" if ttc != ttc else f"{ttc:.1f} s" if ttc < TTC_SHOWN else f"> {TTC_SHOWN:.0f} s"
        curves = [Curve("Speed", self._speeds, head, speed, f"{speed_text(shown)} m/s", 0.0, fastest)]
        if shown.lane_width < OPEN_AREA:
            name = "Time to collision ahead"
            curves.append(Curve(name, self._ttcs, head, ttc, words, 0.0, LONGEST_TTC, alarm=TTC_WARNING))
        return (*curves, *self._divergence(head, distance))


class PictureCurves(Curves):
    """Return, reward, and how far learner and expert are apart."""

    def __init__(self) -> None:
        super().__init__()
        self._returns: list[float] = []
        self._rewards: list[float] = []
        self._apart: list[float] = []

    def _add(self, track: Track, k: int) -> None:
        turn = track.turns[k]
        self._returns.append(self._returns[-1] + self._rewards[-1] if self._returns else 0.0)
        self._rewards.append(turn.reward)
        apart = separation(assessment_of(turn))
        self._apart.append(math.nan if apart is None else apart)

    def at(self, head: float, shown: Shown, distance: float | None) -> tuple[Curve, ...]:
        made = len(self._rewards)
        if not made:
            return ()
        k = min(int(head), made - 1)
        total = self._returns[k] + self._rewards[k]  # the decision under way included, as in the panel
        now = self._returns[k] + self._rewards[k] * min(head - k, 1.0)
        curves = [
            Curve("Return", self._returns, head, now, f"{total:.2f}", *_range([*self._returns, total])),
            Curve("Reward", self._rewards, head, self._rewards[k], f"{self._rewards[k]:+.3f}", *_range(self._rewards)),
        ]
        if any(value == value for value in self._apart):
            now = self._apart[k]
            words = "" if now != now else f"{100 * now:.0f}%"
            curves.append(Curve("Distance of learner and expert", self._apart, head, now, words, 0.0, 1.0))
        return (*curves, *self._divergence(head, distance))


def curves_of(first: Shown) -> Curves:
    """The curves of an episode, by the kind of what is shown of it."""
    return PictureCurves() if isinstance(first, Picture) else DrivingCurves(first)


def _range(values: list[float]) -> tuple[float, float]:
    """Lower and upper end of a chart that holds 0 and all values."""
    low, high = float(np.min([0.0, *values])), float(np.max([0.0, *values]))
    return (low, high) if high > low else (low, low + 1.0)


def _driving(scene: Scene) -> tuple[float, float]:
    """Speed, m/s, and time to collision with the car ahead, s (NaN without one), as the gauges have them."""
    front = car_ahead(scene)
    return abs(scene.ego.speed), math.nan if front is None else front.ttc
