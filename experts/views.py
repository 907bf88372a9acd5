"""Experts that decide on views (`sim.view`): many environments at once, or one scene at a time, by the same code."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import gymnasium as gym
import numpy as np

from experts.answers import failed, legal_mask
from experts.provider import Context, Decision, PolicyProvider
from experts.spaces import require_manoeuvres
from sim.actions import NUM_ACTIONS, MetaAction
from sim.env import Branches
from sim.view import Views, manoeuvres, views_of

SIDE_NAMES = {MetaAction.LANE_LEFT: "left", MetaAction.LANE_RIGHT: "right"}


def too_near(side: MetaAction, place: str, distance: float, needed: float) -> str:
    """Why a lane change is not possible, in the measure that rules decide on.

    Args:
        side: Of the lane.
        place: ahead or behind.
        distance: m between the centres of two cars.
        needed: m.
    """
    return f"{SIDE_NAMES[side]} lane: car {place} {distance:.1f} m < {needed:.1f} m between centres"


@dataclass(frozen=True)
class Requests:
    """R states of environments of one scenario in which decisions are requested."""

    views: np.ndarray
    """`VIEW` (R,)"""
    legal: np.ndarray
    """bool (R, 5) by manoeuvre"""
    manoeuvres: tuple[MetaAction, ...]
    """What the action ids mean."""
    branch: Callable[[int, np.ndarray], Branches] | None = None
    """Exact roll-out of (P, H) plans of action ids from request k; None where environments cannot be copied."""


class Choice(NamedTuple):
    """What an expert chooses in R states."""

    chosen: np.ndarray
    """int64 (R,) manoeuvres; one that is not legal means IDLE."""
    reason: Callable[[int], str | None]
    """Why, in words, for request k; only called where it is shown or stored."""
    confidence: np.ndarray | None = None
    """float (R,)"""


class ViewExpert(PolicyProvider):
    """A provider that also decides for whole batches (`act`). It only fails where nothing is legal."""

    needs = frozenset({"scene"})

    @abstractmethod
    def choose(self, requests: Requests) -> Choice:
        """Choose manoeuvres.

        Args:
            requests: R states.
        """

    def check_spaces(self, observation_space: gym.Space, action_space: gym.Space, scenario: str) -> None:
        require_manoeuvres(action_space, scenario)

    def act(
        self, views: Views, masks: np.ndarray, branch: Callable[[int, np.ndarray], Branches] | None = None
    ) -> tuple[np.ndarray, Choice]:
        """Decide in R states.

        Args:
            views: What R egos see.
            masks: Legal actions, bool (R, A).
            branch: Roll-outs, see `Requests`.

        Returns:
            Action ids, int64 (R,), -1 where nothing is legal; and the choice behind them.
        """
        meanings = np.array(views.manoeuvres, np.int64)
        legal = np.zeros((len(masks), NUM_ACTIONS), bool)
        legal[:, meanings] = masks
        choice = self.choose(Requests(views.rows, legal, views.manoeuvres, branch))
        ids = np.full(NUM_ACTIONS, -1)
        ids[meanings] = np.arange(len(meanings))
        idle = np.where(legal[:, MetaAction.IDLE], ids[MetaAction.IDLE], masks.argmax(axis=1))
        is_legal = legal[np.arange(len(legal)), choice.chosen]
        return np.where(masks.any(axis=1), np.where(is_legal, ids[choice.chosen], idle), -1), choice

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        """`act` on contexts, scene by scene; FAILED without a scene or without meta-actions."""
        return [self._answer(context) for context in contexts]

    def _answer(self, context: Context) -> Decision:
        started = time.perf_counter()
        if context.scene is None:
            return failed("there is no scene to decide on")
        try:
            manoeuvres(context.scene)
        except ValueError as error:
            return failed(str(error))
        branch = context.branch
        roll_out = None if branch is None else lambda k, plans: branch(plans)
        actions, choice = self.act(views_of([context.scene]), legal_mask(context)[None], roll_out)
        if actions[0] < 0:
            return failed("no action is legal")
        return Decision(
            action=int(actions[0]),
            confidence=None if choice.confidence is None else float(choice.confidence[0]),
            reason=choice.reason(0),
            latency_s=time.perf_counter() - started,
        )


class KernelExpert(ViewExpert):
    """A `ViewExpert` whose rule is one compiled function of (views, legal, parameters, out)."""

    kernel: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
    """`VIEW` (R,), bool (R, 5), the parameters' record in an array of one -> int64 (R,) manoeuvres."""
    parameters: np.ndarray

    def choose(self, requests: Requests) -> Choice:
        chosen = np.zeros(len(requests.views), np.int64)
        self.kernel(requests.views, requests.legal, self.parameters, chosen)
        return Choice(chosen, lambda k: self.reason(requests.views[k], requests.legal[k]))

    @abstractmethod
    def reason(self, view: np.record, legal: np.ndarray) -> str:
        """Why it chooses what it chooses.

        Args:
            view: One row of `VIEW`.
            legal: bool (5,) by manoeuvre.
        """
