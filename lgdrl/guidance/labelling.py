"""Labellers: which states the expert is asked about. Gates: in which episodes it takes part at all.

The intermittent part of LGDRL is a gate: in guided episodes the expert labels and may intervene, in the others the
learner explores on its own. Gates are plug-ins (entry point group `lgdrl.gates`, each entry a `GatePlugin`); a config
chooses one by `kind` and `options`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lgdrl.guidance.records import StepContext
from lgdrl.plugins import Registry
from sim.bounds import Count, Share, config_dataclass
from sim.config import NoOptions, resolve

# ------------------------------------------------------------------------------------------------------- gates


class EpisodeGate(ABC):
    """Decides once per episode whether it is guided."""

    @abstractmethod
    def guided(self, episodes: np.ndarray) -> np.ndarray:
        """Which episodes are guided.

        Args:
            episodes: Episode numbers, int64 (N,). The same number gives the same answer.
        Returns:
            bool (N,)
        """

    @property
    @abstractmethod
    def share(self) -> float:
        """Expected share of episodes that are guided, in [0, 1]."""


@dataclass(frozen=True)
class GatePlugin:
    """A named gate. `defaults` is an instance of its frozen config dataclass."""

    name: str
    summary: str
    defaults: Any
    make: Callable[[Any, np.random.SeedSequence], EpisodeGate]
    """(config, seed of its own draws) -> gate"""


GATES: Registry[GatePlugin] = Registry("lgdrl.gates", "gate")


@config_dataclass
class GateConfig:
    """Which episodes are guided, and for how long."""

    kind: str = "bernoulli"  # a registered gate; `lgdrl list` prints them
    options: dict[str, Any] = field(default_factory=dict)  # of the gate
    until: Share = 0.5  # guidance ends at this share of the training's decisions

    def __post_init__(self) -> None:
        self.make(np.random.SeedSequence(0))

    def make(self, seed: np.random.SeedSequence) -> EpisodeGate:
        """The gate; UsageError for an unknown kind or option."""
        plugin = GATES.get(self.kind)
        return plugin.make(resolve(plugin.defaults, self.options, f"options of gate {self.kind!r}"), seed)


@config_dataclass
class BernoulliConfig:
    share: Share = 0.5  # probability that an episode is guided


class BernoulliGate(EpisodeGate):
    """Each episode is guided with one probability. The draw depends on its number alone, so there is no state."""

    def __init__(self, config: BernoulliConfig, seed: np.random.SeedSequence) -> None:
        self.config = config
        self._key = int(seed.generate_state(1, np.uint64)[0])

    def guided(self, episodes: np.ndarray) -> np.ndarray:
        return self._uniform(episodes) < self.config.share

    @property
    def share(self) -> float:
        return self.config.share

    def _uniform(self, episodes: np.ndarray) -> np.ndarray:
        """A number in [0, 1) per episode: splitmix64 of its number and the key."""
        with np.errstate(over="ignore"):
            z = episodes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(self._key)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
        return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


@config_dataclass
class PeriodicConfig:
    period: Count = 2  # of every `period` episodes ...
    guided: Count = 1  # ... the first `guided` are guided

    def __post_init__(self) -> None:
        if self.guided > self.period:
            raise ValueError(f"guided = {self.guided} of period = {self.period}: choose 1 <= guided <= period")


class PeriodicGate(EpisodeGate):
    """The first episodes of every period are guided."""

    def __init__(self, config: PeriodicConfig, seed: np.random.SeedSequence) -> None:
        self.config = config

    def guided(self, episodes: np.ndarray) -> np.ndarray:
        return episodes % self.config.period < self.config.guided

    @property
    def share(self) -> float:
        return self.config.guided / self.config.period


class ConstantGate(EpisodeGate):
    """Every episode is guided, or none is."""

    def __init__(self, open_: bool) -> None:
        self.open = open_

    def guided(self, episodes: np.ndarray) -> np.ndarray:
        return np.full(len(episodes), self.open)

    @property
    def share(self) -> float:
        return float(self.open)


BERNOULLI = GatePlugin("bernoulli", "each episode with one probability", BernoulliConfig(), BernoulliGate)
PERIODIC = GatePlugin("periodic", "the first episodes of every period", PeriodicConfig(), PeriodicGate)
ALWAYS = GatePlugin("always", "every episode", NoOptions(), lambda config, seed: ConstantGate(True))
NEVER = GatePlugin("never", "no episode", NoOptions(), lambda config, seed: ConstantGate(False))


# --------------------------------------------------------------------------------------------------- labellers


class Labeller(ABC):
    """Chooses the states that the expert labels."""

    @abstractmethod
    def select(self, context: StepContext) -> tuple[np.ndarray, np.ndarray]:
        """Called once per step.

        Args:
            context: The step; its `ask` must not be called here.
        Returns:
            Environments whose state should be labelled, bool (N,), and those in which the arbiter may hand control to
            the expert, bool (N,).
        """

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue identically."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""


class NoLabels(Labeller):
    """The expert is never asked."""

    def select(self, context: StepContext) -> tuple[np.ndarray, np.ndarray]:
        none = np.zeros(context.num_envs, bool)
        return none, none


class GuidedEpisodes(Labeller):
    """A share of the steps of guided episodes is labelled.

    Under a label budget the share is what is left of the budget over what is left of the guided part of the training,
    so that the labels are spread evenly and used up, but for one or two where the last guided steps are fewer than
    expected.

    Args:
        gate: Which episodes are guided, and until which share of the training.
        total_decisions: Decisions of the whole training.
        seeds: Seeds of the gate's draws and of the draws of steps.
        label_share: Share of the steps to label. None: all, or as many as the budget allows.
        label_budget: Most labels that this labeller may ask for; None: no limit.
    """

    def __init__(
        self,
        gate: GateConfig,
        total_decisions: int,
        seeds: tuple[np.random.SeedSequence, np.random.SeedSequence],
        label_share: float | None = None,
        label_budget: int | None = None,
    ) -> None:
        self.gate = gate.make(seeds[0])
        self.end = gate.until * total_decisions
        self.label_share, self.label_budget = label_share, label_budget
        self.asked = 0
        """Labels asked for so far."""
        self._stream = np.random.default_rng(seeds[1])

    def select(self, context: StepContext) -> tuple[np.ndarray, np.ndarray]:
        num = context.num_envs
        guided = self.gate.guided(context.episodes) if context.decisions < self.end else np.zeros(num, bool)
        if self.label_budget is None and self.label_share in (None, 1.0):
            return guided, guided
        draws, chosen = self._stream.random(num), np.zeros(num, bool)
        to_come = (self.end - context.decisions) * self.gate.share  # guided steps, this one's among them
        for i in np.flatnonzero(guided):
            chosen[i] = draws[i] < self._share(to_come)
            self.asked += int(chosen[i])
            to_come -= 1
        return chosen, guided

    def _share(self, to_come: float) -> float:
        """Probability that a guided step is labelled when so many guided steps are left."""
        left = math.inf if self.label_budget is None else self.label_budget - self.asked
        if self.label_share is not None:
            return self.label_share if left > 0 else 0.0
        return left / max(to_come, 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {"stream": self._stream.bit_generator.state, "asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._stream.bit_generator.state = state["stream"]
        self.asked = state["asked"]


class FirstDecisions(Labeller):
    """The expert labels, and may drive, consecutive decisions at the start of the training.

    Args:
        decisions: How many, over all environments.
        consecutive: Fewest decisions in a row in each environment, as far as `decisions` reach: a few demonstrated
            decisions are a piece of driving in one environment, not the first moment in each of many.
    """

    def __init__(self, decisions: int, consecutive: int = 1) -> None:
        self.decisions, self.consecutive = decisions, consecutive

    def select(self, context: StepContext) -> tuple[np.ndarray, np.ndarray]:
        num = context.num_envs
        driven = min(max(self.decisions // self.consecutive, 1), num)
        so_far = context.decisions // num * driven  # all environments take their steps at the same time
        chosen = np.zeros(num, bool)
        chosen[: min(max(self.decisions - so_far, 0), driven)] = True
        return chosen, chosen


class Rounds(Labeller):
    """Training in rounds of equal length, each of which begins with its share of the labels (DAgger's schedule).

    In the first round every state is labelled and the expert may drive; later the learner drives.

    Args:
        labels: Labels in the whole training.
        rounds: Number of rounds.
        thinning: Each state of a labelling phase is labelled with probability 1 / thinning, and the phase is that much
            longer: less similar states for the same number of labels.
        total_decisions: Decisions of the whole training.
        seed: Seed of the draws.
    """

    def __init__(
        self, labels: int, rounds: int, thinning: int, total_decisions: int, seed: np.random.SeedSequence
    ) -> None:
        self.thinning = thinning
        self.length = max(total_decisions // rounds, 1)
        self.labelling = min(labels / rounds * thinning, self.length)
        self._stream = np.random.default_rng(seed)

    def select(self, context: StepContext) -> tuple[np.ndarray, np.ndarray]:
        num = context.num_envs
        number, into = divmod(context.decisions, self.length)
        if into >= self.labelling:
            none = np.zeros(num, bool)
            return none, none
        chosen = self._stream.random(num) < 1.0 / self.thinning
        first = np.full(num, number == 0)
        return chosen | first, first

    def state_dict(self) -> dict[str, Any]:
        return {"stream": self._stream.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._stream.bit_generator.state = state["stream"]
