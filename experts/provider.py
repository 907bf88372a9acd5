"""The policy-provider contract: anything that can label a state or drive.

Rules, search, language models, people and trained policies are subclasses of `PolicyProvider`. One call of `decide`
serves many contexts, so that a provider can batch. A provider is asked for decisions in states; whether a decision is
executed, stored as a label or ignored is up to `lgdrl.guidance`.

An expert of a third party is a subclass and a factory, for example the module `careful`:

    from experts.provider import Decision, PolicyProvider, Status
    from sim.actions import MetaAction
    from sim.view import view_of

    class Careful(PolicyProvider):  # brakes when the car ahead is near, else keeps the speed
        name = "careful"
        needs = frozenset({"scene"})

        def __init__(self, distance: float = 30.0) -> None:
            self.distance = distance  # m

        def decide(self, contexts):
            return [self._decide(context.scene) for context in contexts]

        def _decide(self, scene):
            if scene is None or not scene.meanings:
                return Decision(action=None, status=Status.FAILED, reason="no scene with meta-actions")
            gap = view_of(scene).target.front
            manoeuvre = MetaAction.SLOWER if gap < self.distance else MetaAction.IDLE
            return Decision(action=scene.meanings.index(manoeuvre), reason=f"{gap:.1f} m to the car ahead")

    def make(options, scenario, seed):
        return Careful(**options)

with an entry point in the `pyproject.toml` of its package:

    [project.entry-points."lgdrl.experts"]
    careful = "careful:make"

`lgdrl train --expert careful` then trains with it; `experts.registry` says what a factory must do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

import gymnasium as gym
import numpy as np

from sim.env import Branches
from sim.errors import UsageError
from sim.scene import Scene


class Status(StrEnum):
    """How a decision came about; every one of them is counted in the metrics."""

    OK = "ok"
    REPAIRED = "repaired"
    """The first response was unusable; a second one was used."""
    VETOED = "vetoed"
    """The response named an unavailable or unsafe action; the fallback provider decided."""
    FALLBACK = "fallback"
    """No usable response (fault, budget, open circuit); the fallback provider decided."""
    LATE = "late"
    """The response came after its deadline: a label for its own state, never executed in a later one."""
    FAILED = "failed"
    """There is no decision: `action` is None."""


@dataclass(frozen=True, slots=True)
class Context:
    """One state in which a decision is requested."""

    obs: np.ndarray
    """What the learner sees."""
    action_space: gym.Space
    scene: Scene | None = None
    """The traffic scene, in driving environments."""
    legal: np.ndarray | None = None
    """bool (A,), discrete actions only."""
    episode: int = 0
    step: int = 0
    branch: Callable[[np.ndarray], Branches] | None = field(default=None, repr=False)
    """Exact roll-out of (P, H) plans from this state, where the environment can be copied. Privileged knowledge."""
    say: Callable[[str], None] | None = field(default=None, repr=False)
    """Called, from any thread, with the reason so far while a decision is on its way; None: there is no listener."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a provider decides in one state."""

    action: int | np.ndarray | None
    """An id (discrete), an array (continuous) or None (status FAILED)."""
    probs: np.ndarray | None = None
    """float (A,), sums to 1, zero on illegal actions; None when only the action is known."""
    confidence: float | None = None
    reason: str | None = None
    status: Status = Status.OK
    latency_s: float = 0.0
    tokens: int = 0
    cost: float = 0.0
    """In the currency of the configured price table."""


Need = Literal["scene", "branch"]
"""What an expert may need beyond the observation: `Context.scene`, `Context.branch`."""


class PolicyProvider(ABC):
    """Anything that can label states or drive. Only `name` and `decide` are required; the rest has defaults.

    The code that makes a provider closes it, once; a `with` statement does so.
    """

    name: str
    """As in the registry, for logs and tables."""
    needs: frozenset[Need] = frozenset()
    """What `decide` needs in its contexts beyond the observation. A run that cannot give it does not start."""
    concurrent: bool = False
    """`decide` may be called from several threads at once, and needs no `Context.branch`."""
    note: str = ""
    """One line for the user about what makes the decisions, where the name does not tell; empty: nothing to say."""
    endpoint: str | None = None
    """Base URL, without user and password, of the server that makes the decisions; None: no network is used."""

    @property
    def exhausted(self) -> bool:
        """Whether a limit of its own (calls, tokens, cost) is reached, so that a fallback decides as configured."""
        return False

    @abstractmethod
    def decide(self, contexts: Sequence[Context]) -> Sequence[Decision]:
        """Decide in each context. One that cannot be decided does not raise: its decision has the status FAILED.

        Args:
            contexts: What is known of each of R states.

        Returns:
            R decisions, in the order of `contexts`.
        """

    def check_spaces(self, observation_space: gym.Space, action_space: gym.Space, scenario: str) -> None:
        """Check that it can decide on an environment's observations, and with its actions. By default it takes any.

        Args:
            observation_space: Of one environment.
            action_space: Of one environment.
            scenario: Name of the scenario, for the message.

        Raises:
            UsageError: The observations have another shape than those it takes, or the actions are others.
        """

    def on_episode_start(self, episodes: Sequence[int]) -> None:
        """Episodes begin. For policies that draw something once per episode.

        Args:
            episodes: Their numbers; `Context.episode` of the contexts that follow.
        """

    def interrupt(self) -> None:
        """End the decisions under way as soon as possible, for good. May be called from any thread."""

    def close(self) -> None:
        """Free connections, threads and files. No `decide` may follow."""

    def metrics(self) -> dict[str, float]:
        """Figures of its own for the log of a run, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must restore: random streams, counters, budgets. Plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`.

        Args:
            state: What `state_dict` returned.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_needs(provider: PolicyProvider, given: frozenset[Need], scenario: str) -> None:
    """Check that a run can give a provider what it needs.

    Args:
        provider: Any.
        given: What the contexts of the run will hold.
        scenario: Name of the scenario, for the message.

    Raises:
        UsageError: Something is missing.
    """
    missing = sorted(provider.needs - given)
    if missing:
        words = {"scene": "driving scenes", "branch": "exact copies of the environment"}
        raise UsageError(
            f"expert {provider.name!r} needs {words[missing[-1]]}, which scenario {scenario!r} does not offer: "
            "choose another expert or scenario"
        )


def label_distributions(actions: np.ndarray, legal: np.ndarray, spread: float = 0.05) -> np.ndarray:
    """Bare labels as distributions: p_E(a) = (1 - eps) 1[a = u] + eps / |A_legal| for a label u.

    Args:
        actions: Labels, int (R,) action ids.
        legal: Legal actions, bool (R, A).
        spread: eps, the share in [0, 1) that is spread evenly over all legal actions.

    Returns:
        Distributions, float64 (R, A).
    """
    probs = np.where(legal, spread / np.maximum(legal.sum(axis=1, keepdims=True), 1), 0.0)
    probs[np.arange(len(probs)), actions] += 1.0 - probs.sum(axis=1)
    return probs


def label_distribution(action: int, legal: np.ndarray, spread: float = 0.05) -> np.ndarray:
    """`label_distributions` of one label.

    Args:
        action: Its id.
        legal: Legal actions, bool (A,).
        spread: As there.

    Returns:
        The distribution, float64 (A,).
    """
    return label_distributions(np.array([action]), np.asarray(legal)[None], spread)[0]
