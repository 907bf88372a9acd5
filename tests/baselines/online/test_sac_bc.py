"""SAC+BC: L_pi = L_0 + w E_labelled[-ln pi(u|s)]; the expert labels guided episodes and never drives."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.online.sac_bc import METHOD, SACBCConfig, build
from lgdrl.loops.online import OnlineSettings
from sim.config import resolve
from sim.errors import UsageError
from tests.lgdrl.steps import Expert, SoftmaxNetworks, labels_of, samples_of, step_of


def strategy(budget: int | None = None, **options):
    config = resolve(SACBCConfig(), options, "strategy_options")
    return build(config, OnlineSettings(1000, budget, np.random.SeedSequence(0)))


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_actors_term_is_the_weighted_cloning_loss(weight):
    logits, labels = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]), np.eye(3)[[1, 2]]
    samples = samples_of(logits, labels)
    terms = strategy(weight=weight).actor_terms({"imitation": samples}, SoftmaxNetworks())
    assert terms.loss.item() == pytest.approx(-weight * (np.log(0.25) + np.log(0.8)) / 2)
    assert terms.base_share == 1.0  # L_0 stays
    assert terms.metrics["divergence"] == pytest.approx(-(np.log(0.25) + np.log(0.8)) / 2)
    assert terms.metrics["agreement"] == 0.5


def test_guided_episodes_are_labelled_and_the_learner_drives():
    expert = Expert(labels_of([2, 2, 2]))
    found = strategy(episodes={"kind": "periodic"})
    execution = found.on_action(step_of([0, 1, 2], ask=expert))
    assert expert.asked == [([True, False, True], [False] * 3)]  # nothing is needed at once
    assert execution.actions.tolist() == [0, 1, 2]
    assert execution.labels.given.tolist() == [True, False, True]
    assert found.interventions == 0
    assert not found.on_action(step_of([0], decisions=500, ask=expert)).labels.given.any()  # until 0.5


def test_batch_size_and_pace_are_those_of_the_config():
    found = strategy(budget=100, guide_batch=9, episodes={"kind": "always", "until": 0.2})
    assert found.actor[0].batch_size == 9
    assert (found.labeller.label_budget, found.labeller.end) == (100, 200)
    assert METHOD.name == found.name == "sac-bc"


@pytest.mark.parametrize("options", [{"weight": -1.0}, {"guide_batch": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError, match=f"{next(iter(options))} = .*: choose"):
        strategy(**options)
