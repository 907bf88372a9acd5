"""One session in the window: its work in threads, its view of the road, and what the panel shows of it."""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lgdrl.visualizer.clock import Clock
from lgdrl.visualizer.panel import Curve, PanelState
from lgdrl.visualizer.session import PlaySession
from lgdrl.visualizer.track import Assessment, assessment_of, divergence
from sim.render import SceneRenderer
from sim.render.frame import OPEN_AREA, car_ahead
from sim.render.panels import TTC_SHOWN, TTC_WARNING, speed_text
from sim.scene import Scene

LONGEST_TTC = 10.0
"""s: the top of the chart."""


@dataclass(frozen=True)
class Threads:
    """One thread in which environments are stepped, one in which experts are queried. Both are shared by all panes."""

    environment: ThreadPoolExecutor
    expert: ThreadPoolExecutor

    @classmethod
    def started(cls) -> Threads:
        """One thread each."""
        return cls(ThreadPoolExecutor(1, "environment"), ThreadPoolExecutor(1, "expert"))


class Pane:
    """A session with its view of the road and what it is busy with.

    Args:
        session: What is shown.
        renderer: Draws its road.
        clock: The window's.
        threads: Where the session works; None: in the window's own thread, at once.
    """

    def __init__(self, session: PlaySession, renderer: SceneRenderer, clock: Clock, threads: Threads | None) -> None:
        self.session, self.renderer, self.clock, self.threads = session, renderer, clock, threads
        self._acting: Future | None = None
        self._query: Future | None = None
        self._queried: Assessment | None = None
        """The assessment that `_query` completes."""
        self._queried_at = 0.0
        self._closing = False
        self._series: list[tuple[float, float, float | None]] = []
        """Speed (m/s), time-to-collision ahead (s), JS (nats) at every decision of the episode so far."""

    @property
    def undecided(self) -> bool:
        """Whether the session can make a further decision in this episode."""
        return self.session.live and not self.session.track.outcome

    @property
    def busy(self) -> bool:
        """Whether a decision is under way, or must wait for the expert's label.

        A person who drives does not wait for a language model.
        """
        hands = self.session.hands
        patient = self.session.waits or hands is None or not hands.engaged
        return self._acting is not None or (self._query is not None and patient)

    # -- work ----------------------------------------------------------------------------------------------------------

    def begin(self, seed: int) -> None:
        """Start an episode."""
        self.session.begin(seed)
        self._series.clear()
        self.renderer.reset()
        self._ask_expert()

    def settle(self) -> None:
        """Wait for an environment that is stepping; drop a label that is still on its way."""
        if self._acting is not None:
            self._acting.result()
        if self._query is not None and self.session.waits:
            self._query.result()
        self._acting = self._query = None

    def decide(self) -> bool:
        """Make one decision, or start it in a thread.

        Returns:
            Whether a new state is there already.
        """
        if self.threads is None:
            self.session.act()
            self._came_up()
            return True
        if self._query is None:
            self._queried_at = self.clock.now()
        self._acting = self.threads.environment.submit(self.session.act)
        return False

    def collect(self) -> bool:
        """Take what the threads have finished; what broke in them is raised here.

        Returns:
            Whether a new state has come up.
        """
        new = False
        if self._acting is not None and self._acting.done():
            job, self._acting = self._acting, None
            job.result()
            self._came_up()
            new = True
        if self._query is not None and self._query.done():
            job, self._query = self._query, None
            job.result()
            last, queried = self.session.track.last, self._queried
            if last is not None and queried is not None and last.scene is not queried.scene:
                self._ask_expert()  # the person went on without the label
        return new

    def _came_up(self) -> None:
        if self._query is None:
            self._ask_expert()

    def _ask_expert(self) -> None:
        self._queried_at, self._queried = self.clock.now(), self.session.track.last
        if self.threads is None:
            self.session.ask_expert()
        elif not self._closing and self.undecided:
            self._query = self.threads.expert.submit(self.session.ask_expert)

    def interrupt(self) -> None:
        """The window closes: send no further query, and end one that is under way."""
        self._closing = True
        self.session.interrupt()
        if self._query is not None:
            self._query.cancel()

    def close(self) -> None:
        """End the session."""
        self.session.close()
        self.renderer.close()

    # -- what is shown -------------------------------------------------------------------------------------------------

    def scene_at(self, head: float) -> Scene:
        """The scene at a playhead, between two decisions."""
        track = self.session.track
        k = min(int(head), len(track))
        return track.between(k, head - k)

    def state_at(self, head: float, scene: Scene) -> PanelState:
        """What the panel shows at a playhead: the decision under way, or the one that is due.

        Args:
            head: The playhead, in decisions.
            scene: What the road shows there; speed and time to collision are read from it, and from nothing else.
        """
        track, k = self.session.track, int(head)
        self._extend_series()
        if k < len(track):
            turn = track.turns[k]
            executed = int(turn.action) if not hasattr(turn.action, "shape") else None
            assessment, controller, reward, terms = assessment_of(turn), turn.controller, turn.reward, turn.terms
            distance = self._series[k][2]
        else:
            assert track.last is not None
            assessment, executed, reward, terms = track.last, None, None, None
            distance = divergence(assessment)
            hands = self.session.hands
            controller = "human" if hands is not None and hands.engaged else self.session.autopilot
            if track.turns and (track.outcome or not self.session.live):
                controller = track.turns[-1].controller
        working = self._query is not None or self._acting is not None
        return PanelState(
            assessment=assessment,
            controller=controller,
            executed=executed,
            control=self._control(k),
            reward=reward,
            total=float(track.rewards[: k + 1].sum()) if len(track) else 0.0,
            waiting_s=self.clock.now() - self._queried_at if working else 0.0,
            divergence=distance,
            facts=tuple(self.session.facts()),
            curves=self._curves(head, scene, distance),
            expert_name=self.session.expert_name,
            saying=track.saying if assessment is track.last and assessment.expert is None else "",
            terms=terms,
        )

    def _control(self, k: int) -> np.ndarray | None:
        """Pedals and steering of decision k, or of the last one; None where actions are discrete."""
        turns = self.session.track.turns
        action = turns[min(k, len(turns) - 1)].action if turns else None
        return action if isinstance(action, np.ndarray) and action.ndim == 1 and action.size <= 2 else None

    def _extend_series(self) -> None:
        track, series = self.session.track, self._series
        if len(series) > len(track):
            series.clear()
        while len(series) < len(track):
            turn = track.turns[len(series)]
            series.append((*_driving(turn.scene), divergence(assessment_of(turn))))

    def _curves(self, head: float, scene: Scene, distance: float | None) -> tuple[Curve, ...]:
        """The curves up to a playhead, where they have the values of the scene that is drawn there."""
        speeds, ttcs = [row[0] for row in self._series], [row[1] for row in self._series]
        distances = [math.nan if row[2] is None else row[2] for row in self._series]
        points = self.session.track.scene(0).set_points
        fastest = max([points[-1] if points else 30.0, *speeds])
        speed, ttc = _driving(scene)
        words = "" if ttc != ttc else f"{ttc:.1f} s" if ttc < TTC_SHOWN else f"> {TTC_SHOWN:.0f} s"
        curves = [Curve("Speed", speeds, head, speed, f"{speed_text(scene)} m/s", 0.0, fastest)]
        if scene.lane_width < OPEN_AREA:
            curves.append(Curve("Time to collision ahead", ttcs, head, ttc, words, 0.0, LONGEST_TTC, alarm=TTC_WARNING))
        if any(value == value for value in distances):
            now = math.nan if distance is None else distance
            words = "" if distance is None else f"{now:.2f} nats"
            curves.append(Curve("JS of learner and expert", distances, head, now, words, 0.0, math.log(2)))
        return tuple(curves)


def _driving(scene: Scene) -> tuple[float, float]:
    """Speed, m/s, and time to collision with the car ahead, s (NaN without one), as the gauges have them."""
    front = car_ahead(scene)
    return abs(scene.ego.speed), math.nan if front is None else front.ttc
