"""A scripted person: decides like another expert, and presses the key after a reaction time.

It stands for people where no person is at the keyboard, for instance in the profiler, which measures what a person's
lateness does to a car. Its keys are processed like all keys, by `experts.human`. The default reaction time is that of
alert drivers who know what may come, 0.75 s in the median (Green 2000, "How long does it take to stop?", Transportation
Human Factors 2(3)); twice that for one reaction in a hundred is our choice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from experts import registry
from experts.answers import require_discrete
from experts.delay import read_delay
from experts.human import Hands, HeldInput, HumanExpert
from experts.provider import Context, Decision, PolicyProvider
from experts.spaces import require_manoeuvres
from experts.views import ViewExpert
from sim.config import resolve


@dataclass(frozen=True)
class PersonConfig:
    """Options of the expert `person`."""

    thinks_like: str = "rule"  # expert whose keys are pressed
    options: dict[str, Any] = field(default_factory=dict)  # of that expert
    reaction: str = "lognormal:0.75:1.5"  # s: SECONDS, uniform:LOW:HIGH, lognormal:P50:P99 or exponential:MEAN
    real_time: bool = True  # False: the reaction is reported as latency without waiting for it


class Person(PolicyProvider):
    """One person per context, all at their keys at the same time.

    A reaction time is drawn from a hash of seed and observation: the same scene, the same reaction, in any order.
    """

    name = "person"
    needs = frozenset({"scene"})

    def __init__(self, thinker: PolicyProvider, config: PersonConfig, seed: int = 0) -> None:
        self._thinker, self._config, self._seed = thinker, config, seed
        self._reaction = read_delay(config.reaction)
        self.concurrent = isinstance(thinker, ViewExpert)
        self.needs = self.needs | thinker.needs

    def check_spaces(self, observation_space: Space, action_space: Space, scenario: str) -> None:
        require_manoeuvres(action_space, scenario)
        self._thinker.check_spaces(observation_space, action_space, scenario)

    def reaction_s(self, obs: np.ndarray) -> float:
        """Seconds until the key is down.

        Args:
            obs: The observation.
        """
        digest = hashlib.blake2b(obs.tobytes(), digest_size=8, key=str(self._seed).encode()).digest()
        return self._reaction.at(int.from_bytes(digest, "big") / 2**64)

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        """Press a key in each context. With `real_time` this takes as long as the slowest of the reactions.

        Args:
            contexts: R states.

        Returns:
            R decisions.
        """
        begin = time.perf_counter()
        thoughts = self._thinker.decide(contexts)
        pressed = [self._press(context, thought) for context, thought in zip(contexts, thoughts, strict=True)]
        if self._config.real_time and pressed:
            until = begin + max(decision.latency_s for decision in pressed)
            time.sleep(max(0.0, until - time.perf_counter()))
        return pressed

    def _press(self, context: Context, thought: Decision) -> Decision:
        if thought.action is None or context.scene is None:
            return thought
        hands = Hands()
        hands.show(0.0)
        key = context.scene.meanings[int(thought.action)]
        hands.press(key.name, HeldInput(key), self.reaction_s(np.asarray(context.obs)))
        return HumanExpert(hands).decide([context])[0]

    def close(self) -> None:
        self._thinker.close()

    def state_dict(self) -> dict[str, Any]:
        return {"thinker": self._thinker.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._thinker.load_state_dict(state["thinker"])


def make(options: Mapping[str, Any], scenario: str, seed: int) -> Person:
    """The expert `person`: another expert's keys after a person's reaction time.

    Args:
        options: Fields of `PersonConfig`.
        scenario: Name of the scenario.
        seed: Of the reactions and of the expert that it decides like.

    Raises:
        UsageError: An option is bad, or the scenario has continuous actions.
    """
    require_discrete("person", scenario)
    config = resolve(PersonConfig(), options, "person")
    read_delay(config.reaction)
    return Person(registry.make(config.thinks_like, scenario, config.options, seed), config, seed)
