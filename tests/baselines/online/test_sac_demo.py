"""SAC+Demo: the expert drives first; from then on half of every batch are its transitions."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.online.sac_demo import METHOD, SACDemoConfig, build
from lgdrl.guidance.records import Reason
from lgdrl.guidance.replay import GuidedReplayBuffer
from lgdrl.guidance.strategy import RL
from lgdrl.guidance.terms import Terms
from lgdrl.loops.online import OnlineSettings
from sim.config import resolve
from sim.errors import UsageError
from tests.lgdrl.steps import Expert, labels_of, step_of, transitions_of


def strategy(demonstrated: bool = False, label_budget: int | None = None, **options):
    config = resolve(SACDemoConfig(), options, "strategy_options")
    return build(config, OnlineSettings(1000, label_budget, np.random.SeedSequence(0), demonstrated))


def buffer(demonstrated: int, own: int) -> GuidedReplayBuffer:
    """Rewards tell them apart: 1 where the expert drove."""
    number = demonstrated + own
    replay = GuidedReplayBuffer(1000, spaces.Box(-1, 999, (1,)), spaces.Discrete(3), "cpu", seed=0)
    driven = np.arange(number) < demonstrated
    replay.add_transitions(
        transitions_of(step_of([0] * number), authority=driven.astype(np.float32), rewards=driven.astype(np.float32))
    )
    return replay


def test_the_expert_drives_every_one_of_the_first_decisions_and_none_later():
    expert, found = Expert(labels_of([2, 2])), strategy(decisions=600)
    executed = [found.on_action(step_of([0, 1], decisions=d, ask=expert)) for d in (0, 2, 598, 600, 602)]
    assert [execution.actions.tolist() for execution in executed] == [[2, 2]] * 3 + [[0, 1]] * 2
    assert [execution.reason[0] for execution in executed] == [Reason.SCHEDULE] * 3 + [Reason.LEARNER] * 2
    assert expert.asked[:3] == [([True, True], [True, True])] * 3
    assert expert.asked[3:] == [([False, False], [False, False])] * 2
    assert found.interventions == 6


@pytest.mark.parametrize(("label_budget", "options"), [(3, {}), (50, {"decisions": 3})])
def test_few_decisions_are_driven_in_a_row_in_one_environment(label_budget, options):
    expert, found = Expert(labels_of([2, 2])), strategy(label_budget=label_budget, **options)
    executed = [found.on_action(step_of([0, 1], decisions=d, ask=expert)) for d in (0, 2, 4, 6)]
    assert [execution.actions.tolist() for execution in executed] == [[2, 1]] * 3 + [[0, 1]]


def test_without_a_label_budget_the_expert_drives_ten_thousand_decisions():
    found = strategy()
    assert found.labeller.decisions == 10_000
    assert not strategy(label_budget=0).needs_expert


def test_half_of_every_batch_is_demonstrated_the_rest_is_uniform_over_everything():
    drawn = strategy().on_batch(buffer(10, 990), 64)
    assert set(drawn) == {RL}
    assert len(drawn[RL]) == 64
    assert (drawn[RL].authority[:32] == 1).all()
    assert (drawn[RL].rewards[:32] == 1).all()
    assert drawn[RL].authority[32:].sum() < 8  # 1 % of everything is demonstrated
    assert set(drawn[RL].observations[:32].flatten().tolist()) <= set(range(10))


@given(st.integers(1, 100), st.floats(0.01, 0.99))
@settings(max_examples=20)
def test_a_batch_has_its_size_and_its_share_whatever_they_are(size, share):
    batch = strategy(share=share).on_batch(buffer(3, 97), size)[RL]
    demonstrated = int(size * share)
    assert len(batch) == size
    assert (batch.authority[:demonstrated] == 1).all()


def test_without_demonstrations_a_batch_is_uniform():
    batch = strategy().on_batch(buffer(0, 50), 64)[RL]
    assert len(batch) == 64
    assert not batch.authority.any()


def test_nothing_is_added_to_the_losses():
    found = strategy()
    batches = found.on_batch(buffer(5, 5), 8)
    assert found.critic_terms(batches, None) == found.actor_terms(batches, None) == Terms()


def test_recorded_demonstrations_take_the_place_of_the_expert():
    expert, found = Expert(labels_of([2])), strategy(demonstrated=True, decisions=0)
    assert not found.needs_expert
    assert found.on_action(step_of([0], ask=expert)).actions.tolist() == [0]
    assert not expert.asked
    assert strategy(decisions=1).needs_expert


def test_a_run_in_which_nothing_is_demonstrated_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"strategy_options\.decisions = 0: choose at least 1") as error:
        strategy(decisions=0)
    assert "\n" not in str(error.value)
    assert METHOD.name == "sac-demo"


@pytest.mark.parametrize("options", [{"decisions": -1}, {"share": 0.0}, {"share": 1.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError, match=f"{next(iter(options))} = .*: choose"):
        strategy(**options)
