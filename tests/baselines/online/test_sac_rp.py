"""SAC+RP: r' = r - c where the expert took over (penalty), or where the learner disagreed with it (shaping)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.online.sac_rp import METHOD, SACRPConfig, build
from lgdrl.guidance.records import LATE, Execution, Reason
from lgdrl.guidance.terms import Terms
from lgdrl.loops.online import OnlineSettings
from sim.config import resolve
from sim.errors import UsageError
from tests.lgdrl.steps import Expert, labels_of, step_of, transitions_of

ALWAYS = {"kind": "always", "until": 1.0}


def strategy(budget: int | None = None, **options):
    config = resolve(SACRPConfig(), options, "strategy_options")
    return build(config, OnlineSettings(1000, budget, np.random.SeedSequence(0)))


def stored_rewards(found, context, execution: Execution, rewards) -> list[float]:
    kept = found.on_store(transitions_of(context, execution, rewards=np.array(rewards, np.float32)))
    assert kept.rewards.dtype == np.float32
    return kept.rewards.tolist()


def test_an_intervention_costs_c():
    found = strategy(cost=2.0, episodes=ALWAYS, arbiter={"kind": "disagree"})
    context = step_of([0, 1, 1, 2], ask=Expert(labels_of([1, 1, None, 0])))
    execution = found.on_action(context)
    assert execution.actions.tolist() == [1, 1, 1, 0]  # taken over, agreed, no label, taken over
    assert stored_rewards(found, context, execution, [0.5, 0.5, 0.5, -1.0]) == [-1.5, 0.5, 0.5, -3.0]


def test_disagreement_costs_c_while_the_learner_drives():
    found = strategy(mode="shaping", cost=0.25, episodes=ALWAYS, arbiter={"kind": "expert"})
    context = step_of([0, 1, 1, 2], ask=Expert(labels_of([1, 1, None, 0])))
    execution = found.on_action(context)
    assert execution.actions.tolist() == [0, 1, 1, 2]  # the arbiter of mode penalty is not used
    assert found.interventions == 0
    assert stored_rewards(found, context, execution, [1, 1, 1, 1]) == [0.75, 1, 1, 0.75]


def test_a_late_label_shapes_the_reward_but_is_no_intervention():
    labels = labels_of([1, 1], status=[LATE, 0])
    for mode, expected in (("shaping", [-1, -1]), ("penalty", [0, -1])):
        found = strategy(mode=mode, episodes=ALWAYS, arbiter={"kind": "disagree"})
        context = step_of([0, 0], ask=Expert(labels))
        assert stored_rewards(found, context, found.on_action(context), [0, 0]) == expected


def test_a_person_who_takes_over_is_penalised_like_an_expert():
    context = step_of([0, 0])
    execution = Execution.switched(context, labels_of([1, None]), np.array([True, False]), Reason.PERSON)
    assert stored_rewards(strategy(), context, execution, [0, 0]) == [-1, 0]


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 2)), st.booleans(), st.integers(-9, 9)),
    min_size=1,
    max_size=8,
)


@given(ROWS, st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from(["penalty", "shaping"]))
@settings(max_examples=50)
def test_each_row_is_penalised_by_its_own_rule_and_nothing_else_changes(rows, cost, mode):
    proposals, labels, taken, rewards = zip(*rows, strict=True)
    executed = [label if took and label is not None else own for own, label, took, _ in rows]
    transitions = transitions_of(
        step_of(list(proposals)),
        actions=np.array(executed),
        labels=labels_of(list(labels)),
        authority=np.array(taken, np.float32),
        rewards=np.array(rewards, np.float32),
    )
    kept = strategy(mode=mode, cost=cost).on_store(transitions)
    for i, (proposal, label, took_over, reward) in enumerate(rows):
        penalised = took_over if mode == "penalty" else label is not None and label != proposal
        assert kept.rewards[i] == reward - cost * penalised
    assert transitions.rewards.tolist() == list(rewards)  # the transitions themselves are as they were
    for name in ("obs", "actions", "learner_actions", "labels", "authority", "terminated"):
        assert getattr(kept, name) is getattr(transitions, name)


def test_nothing_is_added_to_the_losses_and_a_budget_is_paced():
    found = strategy(budget=100, episodes=ALWAYS)
    assert found.critic_terms({}, None) == found.actor_terms({}, None) == Terms()
    assert found.labeller.label_budget == 100
    assert METHOD.name == found.name == "sac-rp"


def test_an_unknown_mode_is_refused_in_one_line():
    with pytest.raises(UsageError, match="mode = 'penality'") as error:
        strategy(mode="penality")
    assert "\n" not in str(error.value)
