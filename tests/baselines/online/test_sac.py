"""Plain SAC: no expert is needed, asked or heard."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from baselines.online.sac import METHOD, build
from lgdrl.guidance.records import Reason
from lgdrl.guidance.replay import GuidedReplayBuffer
from lgdrl.guidance.strategy import RL
from lgdrl.guidance.terms import Terms
from lgdrl.loops.online import OnlineSettings
from sim.config import NoOptions, resolve
from sim.errors import UsageError
from tests.lgdrl.steps import Expert, labels_of, step_of, transitions_of


@pytest.fixture
def strategy():
    return build(NoOptions(), OnlineSettings(1000, 100, np.random.SeedSequence(0)))


def test_the_learner_always_drives_and_no_expert_is_asked(strategy):
    expert = Expert(labels_of([2, 2]))
    execution = strategy.on_action(step_of([0, 1], ask=expert))
    assert not strategy.needs_expert
    assert not expert.asked
    assert execution.actions.tolist() == [0, 1]
    assert execution.reason.tolist() == [Reason.LEARNER] * 2
    assert not execution.labels.given.any()


def test_transitions_batches_and_losses_are_those_of_the_learner(strategy):
    replay = GuidedReplayBuffer(10, spaces.Box(-1, 9, (1,)), spaces.Discrete(3), "cpu", seed=0)
    transitions = transitions_of(step_of([0, 1]), labels=labels_of([1, 1]))
    assert strategy.on_store(transitions) is transitions
    replay.add_transitions(transitions)
    batches = strategy.on_batch(replay, 8)
    assert {name: len(samples) for name, samples in batches.items()} == {RL: 8}
    assert strategy.critic_terms(batches, None) == strategy.actor_terms(batches, None) == Terms()
    assert strategy.metrics() == {}


def test_it_has_a_name_and_no_options():
    assert METHOD.name == "sac"
    with pytest.raises(UsageError, match="unknown key in strategy_options 'weight'"):
        resolve(METHOD.defaults, {"weight": 1.0}, "strategy_options")
