"""One session in the window: its work in threads, its view of the road, and what the panel shows of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lgdrl.visualizer.clock import Clock
from lgdrl.visualizer.curves import Curves, curves_of
from lgdrl.visualizer.panel import PanelState
from lgdrl.visualizer.session import PlaySession
from lgdrl.visualizer.track import Assessment, assessment_of, divergence
from sim.picture import Picture, Shown
from sim.render import ShownRenderer

GLANCE_S = 0.3
"""s: a wait for the expert that is shorter is not shown where steps follow each other quickly."""


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
        renderer: Draws its road, or its pictures.
        clock: The window's.
        threads: Where the session works; None: in the window's own thread, at once.
    """

    def __init__(self, session: PlaySession, renderer: ShownRenderer, clock: Clock, threads: Threads | None) -> None:
        self.session, self.renderer, self.clock, self.threads = session, renderer, clock, threads
        self._acting: Future | None = None
        self._query: Future | None = None
        self._queried: Assessment | None = None
        """The assessment that `_query` completes."""
        self._queried_at = 0.0
        self._closing = False
        self._curves: Curves | None = None
        """Of the episode so far; None before its first decision was shown."""

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
        """Start an episode. Some environments draw only in the thread in which they drew first: this is the one."""
        self._in_environment(lambda: self.session.begin(seed))
        self._curves = None
        self.renderer.reset()
        self._ask_expert()

    def _in_environment(self, job: Callable[[], None]) -> None:
        """Do something where environments are stepped, and wait for it."""
        if self.threads is None:
            job()
        else:
            self.threads.environment.submit(job).result()

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
        self._in_environment(self.session.close)
        self.renderer.close()

    # -- what is shown -------------------------------------------------------------------------------------------------

    def scene_at(self, head: float) -> Shown:
        """The scene or picture at a playhead, between two decisions."""
        track = self.session.track
        k = min(int(head), len(track))
        return track.between(k, head - k)

    def state_at(self, head: float, scene: Shown) -> PanelState:
        """What the panel shows at a playhead: the decision under way, or the one that is due.

        Steps of environments without scenes are so short that there is always one under way: at the newest state the
        last one is shown, unless the expert has been deciding for longer than a glance.

        Args:
            head: The playhead, in decisions.
            scene: What is drawn there; speed and time to collision are read from it, and from nothing else.
        """
        track, k = self.session.track, int(head)
        curves = self._extended_curves()
        working = self._query is not None or self._acting is not None
        waiting_s = self.clock.now() - self._queried_at if working else 0.0
        if isinstance(scene, Picture) and 0 < k == len(track) and waiting_s < GLANCE_S:
            k -= 1
        if k < len(track):
            turn = track.turns[k]
            executed = int(turn.action) if not hasattr(turn.action, "shape") else None
            assessment, controller, reward, terms = assessment_of(turn), turn.controller, turn.reward, turn.terms
            distance, authority, why = curves.distances[k], turn.authority, turn.control
        else:
            assert track.last is not None
            assessment, executed, reward, terms = track.last, None, None, None
            distance, authority, why = divergence(assessment), None, ""
            hands = self.session.hands
            controller = "human" if hands is not None and hands.engaged else self.session.autopilot
            if track.turns and (track.outcome or not self.session.live):
                controller = track.turns[-1].controller
        return PanelState(
            assessment=assessment,
            controller=controller,
            executed=executed,
            control=self._control(k, scene),
            reward=reward,
            total=float(track.rewards[: k + 1].sum()) if len(track) else 0.0,
            waiting_s=waiting_s,
            divergence=distance,
            facts=tuple(self.session.facts()),
            curves=curves.at(head, scene, distance),
            expert_name=self.session.expert_name,
            saying=track.saying if assessment is track.last and assessment.expert is None else "",
            terms=terms,
            authority=authority,
            why=why,
        )

    def _control(self, k: int, scene: Shown) -> np.ndarray | None:
        """The continuous action of decision k; None where actions are discrete, or a picture's is not made yet.

        In driving, where decision k is not made yet, pedals and steering are those of the last one.
        """
        turns = self.session.track.turns
        if isinstance(scene, Picture):
            action = turns[k].action if k < len(turns) else None
            return action if isinstance(action, np.ndarray) else None
        action = turns[min(k, len(turns) - 1)].action if turns else None
        return action if isinstance(action, np.ndarray) and action.ndim == 1 and action.size <= 2 else None

    def _extended_curves(self) -> Curves:
        track = self.session.track
        if self._curves is None or len(self._curves.distances) > len(track):
            self._curves = curves_of(track.scene(0))
        self._curves.extend(track)
        return self._curves
