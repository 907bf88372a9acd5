"""Any expert, made worse on purpose: `degraded:NAME`, for experiments on the quality of experts.

Four faults, each off by default and applied in this order: episodes in which chance decides (`skill`), actions of the
past (`lag`), Gaussian noise (`noise`) and single random actions (`epsilon`). `delay` makes decisions slow, not wrong.
Forms stack: `degraded:degraded:lqr` is possible, `degraded:policy:PATH` too.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any

import numpy as np
from gymnasium import spaces

from experts import registry
from experts.answers import failed, legal_mask
from experts.delay import read_delay
from experts.provider import Context, Decision, PolicyProvider
from experts.spaces import form, require_box
from sim.bounds import Bounds, NonNegative, Share, config_dataclass
from sim.config import resolve
from sim.errors import UsageError

REMEMBERED = 1024
"""Episodes whose past actions are kept for `lag`, the latest ones: more than environments that run at once."""

GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, fill [0, 1) evenly: any few episodes in a row have nearly the share of skilled ones."""


@config_dataclass
class DegradedConfig:
    """How much worse. The defaults change nothing."""

    options: dict[str, Any] = field(default_factory=dict)  # of the expert that is made worse
    # share of episodes in which it decides, else chance does: the mean return is that share of the way up from random
    skill: Share = 1.0
    lag: Annotated[int, Bounds(0, 1000)] = 0  # decisions by which its action comes too late
    noise: NonNegative = 0.0  # continuous actions: standard deviation, in halves of the range of each action
    epsilon: Share = 0.0  # share of decisions that are a random action instead
    delay: str = "0"  # s that a decision takes longer, see `experts.delay`; reported as its latency
    real_time: bool = False  # the delay is waited for


class Degraded(PolicyProvider):
    """Another provider with faults.

    Whether chance decides an episode follows from its number and the seed; everything else comes from a stream that
    advances with every context. Decisions without an action are passed on as they are.

    Args:
        expert: The provider; it is closed with this one.
        config: The faults.
        seed: Of all that is random.
    """

    def __init__(self, expert: PolicyProvider, config: DegradedConfig, seed: int = 0) -> None:
        self.expert, self.config = expert, config
        self.name, self.needs, self.note = f"degraded:{expert.name}", expert.needs, expert.note
        self.endpoint = expert.endpoint
        self._delay = read_delay(config.delay)
        self._rng = np.random.default_rng(seed)
        self._first = float(np.random.default_rng([seed, 0]).random())
        self._past: OrderedDict[int, list[tuple[int, Any]]] = OrderedDict()
        """By episode: (step, action) of its latest decisions, for `lag`."""

    @property
    def exhausted(self) -> bool:
        return self.expert.exhausted

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space, scenario: str) -> None:
        self.expert.check_spaces(observation_space, action_space, scenario)
        if isinstance(action_space, spaces.Discrete):
            if self.config.noise:
                raise UsageError(
                    f"degraded.noise = {self.config.noise}: actions of {scenario!r} are {form(action_space)}, noise is "
                    "for continuous ones; set epsilon instead"
                )
        else:
            require_box(self.name, None, action_space, scenario)

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        begin = time.perf_counter()
        decisions = [
            self._degraded(context, decision)
            for context, decision in zip(contexts, self.expert.decide(contexts), strict=True)
        ]
        if self.config.real_time and decisions:
            until = begin + max(decision.latency_s for decision in decisions)
            time.sleep(max(0.0, until - time.perf_counter()))
        return decisions

    def _degraded(self, context: Context, decision: Decision) -> Decision:
        if decision.action is None:
            return decision
        config, rng = self.config, self._rng
        decision = dataclasses.replace(decision, latency_s=decision.latency_s + self._delay.at(rng.random()))
        if config.skill < 1.0 and not self._skilled(context.episode):
            return self._random(context, decision, 1.0)
        if config.lag:
            decision = self._late(context, decision)
        if config.noise and isinstance(context.action_space, spaces.Box) and decision.action is not None:
            decision = self._noisy(context.action_space, decision)
        if config.epsilon and decision.action is not None:
            decision = self._random(context, decision, config.epsilon)
        return decision

    def _skilled(self, episode: int) -> bool:
        return (self._first + episode * GOLDEN) % 1.0 < self.config.skill

    def _random(self, context: Context, decision: Decision, share: float) -> Decision:
        """A random action with probability `share`; the distribution, where it is known, says so."""
        space, rng = context.action_space, self._rng
        chance = rng.random() < share
        if isinstance(space, spaces.Box):
            drawn = rng.uniform(space.low, space.high).astype(np.float32)
            return dataclasses.replace(decision, action=drawn, reason="chance") if chance else decision
        legal = legal_mask(context)
        if decision.probs is not None:
            mixed = (1 - share) * decision.probs + share * legal / legal.sum()
            decision = dataclasses.replace(decision, probs=mixed)
        picked = int(rng.choice(np.flatnonzero(legal)))
        return dataclasses.replace(decision, action=picked, reason="chance") if chance else decision

    def _noisy(self, space: spaces.Box, decision: Decision) -> Decision:
        spread = self.config.noise * (space.high - space.low) / 2
        action = np.asarray(decision.action) + spread * self._rng.standard_normal(space.shape)
        return dataclasses.replace(decision, action=np.clip(action, space.low, space.high).astype(np.float32))

    def _late(self, context: Context, decision: Decision) -> Decision:
        """The action of `lag` decisions ago; that of the earliest state that was asked about where there is none."""
        past = self._past.setdefault(context.episode, [])
        self._past.move_to_end(context.episode)
        if context.step == 0:
            past.clear()
        past.append((context.step, decision.action))
        while len(past) > 1 and past[1][0] <= context.step - self.config.lag:
            del past[0]
        while len(self._past) > REMEMBERED:
            self._past.popitem(last=False)
        step, action = past[0]
        if step == context.step:
            return decision
        if isinstance(context.action_space, spaces.Discrete) and not legal_mask(context)[action]:
            return failed(f"the action of decision {step} is not legal any more")
        return dataclasses.replace(decision, action=action, probs=None, reason=f"as in decision {step}")

    def on_episode_start(self, episodes: Sequence[int]) -> None:
        for episode in episodes:
            self._past.pop(episode, None)
        self.expert.on_episode_start(episodes)

    def interrupt(self) -> None:
        self.expert.interrupt()

    def close(self) -> None:
        self.expert.close()

    def metrics(self) -> dict[str, float]:
        return self.expert.metrics()

    def state_dict(self) -> dict[str, Any]:
        past = {
            episode: [(step, np.asarray(action).tolist()) for step, action in each]
            for episode, each in self._past.items()
        }
        return {"expert": self.expert.state_dict(), "stream": self._rng.bit_generator.state, "past": past}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.expert.load_state_dict(state["expert"])
        self._rng.bit_generator.state = state["stream"]
        self._past = OrderedDict(
            (int(episode), [(int(step), _action(action)) for step, action in each])
            for episode, each in state["past"].items()
        )


def _action(plain: Any) -> Any:
    return np.array(plain, np.float32) if isinstance(plain, list) else int(plain)


def make(options: Mapping[str, Any], scenario: str, seed: int, target: str = "") -> Degraded:
    """The expert `degraded:NAME`: another expert with noise, random actions, less skill, or late actions.

    Args:
        options: Fields of `DegradedConfig`.
        scenario: Name of the scenario.
        seed: Of the faults, and of the expert that is made worse.
        target: The expert, with what its own name has after a colon.

    Raises:
        UsageError: An option is bad, no expert is named, or it cannot decide in the scenario.
    """
    config = resolve(DegradedConfig(), options, "degraded")
    read_delay(config.delay)
    if not target:
        raise UsageError("expert 'degraded': name the expert that is made worse, as in degraded:lqr")
    return Degraded(registry.make(target, scenario, config.options, seed), config, seed)
