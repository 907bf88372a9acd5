"""DAgger: labels in rounds, the expert drives in the first, the actor only clones: L_pi = E_labelled[-ln pi(u|s)]."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.online.dagger import METHOD, DAggerConfig, build
from lgdrl.guidance.records import Reason
from lgdrl.loops.online import OnlineSettings
from sim.config import resolve
from sim.errors import UsageError
from tests.lgdrl.steps import Expert, SoftmaxNetworks, labels_of, samples_of, step_of


def strategy(total: int = 80, label_budget: int | None = None, **options):
    config = resolve(DAggerConfig(), options, "strategy_options")
    return build(config, OnlineSettings(total, label_budget, np.random.SeedSequence(0)))


def rounds_of(found, total: int, num_envs: int, rounds: int):
    """Labels asked and steps driven by the expert in each round."""
    expert = Expert(labels_of([2] * num_envs))
    asked, driven = np.zeros(rounds, int), np.zeros(rounds, int)
    for decisions in range(0, total, num_envs):
        execution = found.on_action(step_of([0] * num_envs, decisions=decisions, ask=expert))
        number = decisions * rounds // total
        asked[number] += sum(expert.asked[-1][0])
        driven[number] += (execution.reason == Reason.SCHEDULE).sum()
        assert (execution.actions == np.where(execution.intervened, 2, 0)).all()
    return asked.tolist(), driven.tolist()


@pytest.mark.parametrize(
    ("total", "num_envs", "labels", "rounds", "per_round"),
    [
        (80, 4, 32, 4, [8, 8, 8, 8]),
        (80, 4, 16, 1, [16]),
        (100, 5, 50, 2, [25, 25]),
        (80, 8, 20, 4, [8, 8, 8, 8]),  # 5 labels a round are asked in one step of 8
        (80, 4, 800, 4, [20, 20, 20, 20]),  # every state is labelled: there are no more
    ],
)
def test_each_round_begins_with_its_share_of_the_labels_and_the_expert_drives_the_first(
    total, num_envs, labels, rounds, per_round
):
    asked, driven = rounds_of(strategy(total, labels=labels, rounds=rounds), total, num_envs, rounds)
    assert asked == per_round
    assert driven == [per_round[0]] + [0] * (rounds - 1)


@pytest.mark.parametrize(
    ("label_budget", "options", "per_round"),
    [
        (32, {"rounds": 4}, [8, 8, 8, 8]),
        (32, {"rounds": 4, "labels": 16}, [4, 4, 4, 4]),
        (2, {"rounds": 4}, [4, 4]),  # one label in each of two rounds, asked in a step of 4 environments
        (0, {"rounds": 4}, [0]),
    ],
)
def test_a_label_budget_is_what_is_asked_unless_labels_say_otherwise(label_budget, options, per_round):
    rounds = len(per_round)
    asked, _ = rounds_of(strategy(80, label_budget, **options), 80, 4, rounds)
    assert asked == per_round


def test_only_the_expert_that_drives_is_waited_for():
    expert, found = Expert(labels_of([2, 2])), strategy(labels=16, rounds=4)
    for decisions in (0, 20, 30):
        found.on_action(step_of([0, 0], decisions=decisions, ask=expert))
    assert expert.asked == [
        ([True, True], [True, True]),  # first round: its label is executed
        ([True, True], [False, False]),  # later: the label may be on its way
        ([False, False], [False, False]),
    ]


def test_the_actor_only_clones():
    logits, labels = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]), np.eye(3)[[1, 2]]
    terms = strategy().actor_terms({"imitation": samples_of(logits, labels)}, SoftmaxNetworks())
    assert terms.base_share == 0.0
    assert terms.loss.item() == pytest.approx(-(np.log(0.25) + np.log(0.8)) / 2)


def test_before_the_first_label_nothing_is_imitated():
    assert strategy().actor_terms({}, SoftmaxNetworks()).loss is None


def test_batch_size_and_name():
    assert strategy(guide_batch=31).actor[0].batch_size == 31
    assert METHOD.name == strategy().name == "dagger"


@pytest.mark.parametrize("options", [{"labels": 3, "rounds": 4}, {"rounds": 0}, {"guide_batch": 0}, {"thinning": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError, match=r"choose (labels >= rounds|1 to )"):
        strategy(**options)
