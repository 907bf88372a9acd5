"""Arbiters: who controls which step, with which authority and reason, and which labels that needs at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon

import sim
from experts.safety import is_unsafe
from lgdrl.guidance.arbiters import (
    ARBITERS,
    Arbiter,
    ArbiterConfig,
    Divergence,
    ExpertDrives,
    Rationed,
    Replacing,
    Unsafe,
)
from lgdrl.guidance.records import LATE, NO_STATUS, Execution, Labels, LearnerInfo, Reason
from sim.actions import MetaAction
from sim.errors import UsageError
from tests.experts.expert_scenes import make_scene
from tests.lgdrl.steps import BOX, FAILED, OK, labels_of, step_of

LEFT, IDLE, RIGHT, FASTER, SLOWER = (int(action) for action in MetaAction)
TRUE3, FALSE3 = np.ones(3, bool), np.zeros(3, bool)


def arbiter(kind: str, **options) -> Arbiter:
    return ArbiterConfig(kind, options).make()


def decided(kind_or_arbiter, context, labels, allowed=None, wanted=None) -> Execution:
    """One step as a strategy takes it: `requires`, then `decide`."""
    found = arbiter(kind_or_arbiter) if isinstance(kind_or_arbiter, str) else kind_or_arbiter
    allowed = np.ones(context.num_envs, bool) if allowed is None else np.array(allowed)
    found.requires(context, allowed if wanted is None else np.array(wanted), allowed)
    return found.decide(context, labels, allowed)


def assert_controlled(execution: Execution, actions: list[int], rows: list[bool], reason: Reason) -> None:
    assert execution.actions.tolist() == actions
    assert execution.authority.tolist() == [float(row) for row in rows]
    assert execution.reason.tolist() == [reason if row else Reason.LEARNER for row in rows]


# -------------------------------------------------------------------------------------------- learner, expert


def test_learner_drives_whatever_the_labels_say_and_they_are_kept():
    labels = labels_of([1, 1, 1])
    execution = decided("learner", step_of([0, 1, 2]), labels)
    assert_controlled(execution, [0, 1, 2], [False] * 3, Reason.LEARNER)
    assert execution.labels is labels


def test_expert_drives_where_it_may_and_its_label_is_there():
    labels = labels_of([1, 1, None, 1])
    execution = decided("expert", step_of([0, 0, 0, 0]), labels, allowed=[True, False, True, True])
    assert_controlled(execution, [1, 0, 0, 1], [True, False, False, True], Reason.SCHEDULE)


def test_an_expert_that_agrees_still_has_control_by_schedule():
    assert decided("expert", step_of([1, 1]), labels_of([1, None])).authority.tolist() == [1, 0]


def test_expert_drives_continuous_actions_too():
    context, labels = step_of(np.zeros((2, 2), np.float32)), Labels.none(2, BOX)
    labels.given[1], labels.action[1], labels.status[1] = True, [0.5, -1.0], OK
    found = ExpertDrives()
    found.attach(LearnerInfo("any", BOX, BOX))
    execution = found.decide(context, labels, np.ones(2, bool))
    assert execution.actions.tolist() == [[0, 0], [0.5, -1]]
    assert execution.authority.tolist() == [0, 1]


# ---------------------------------------------------------------------------------------------- what is needed


def required(kind: str, wanted, allowed, **known) -> list[bool]:
    return arbiter(kind).requires(step_of([0, 0, 0, 0], **known), np.array(wanted), np.array(allowed)).tolist()


def test_which_labels_each_arbiter_needs_at_once():
    wanted, allowed = [True, True, False, False], [True, False, True, False]
    assert required("learner", wanted, allowed) == [False] * 4
    assert required("expert", wanted, allowed) == allowed
    for kind in ("disagree", "value", "js"):  # labels that come anyway, where they may be executed
        assert required(kind, wanted, allowed) == [True, False, False, False]


# ------------------------------------------------------------------------------------------------------ unsafe


BLOCKED = make_scene([(0, 8.0, 5.0)], lane=0, speed=20.0)
"""A slow car right ahead: keeping the speed and accelerating are unsafe, braking is not."""
FREE = make_scene(lane=1)


def test_unsafe_asks_and_takes_over_exactly_where_the_proposal_fails_the_check():
    scenes, proposals = [BLOCKED, BLOCKED, FREE, BLOCKED], [IDLE, SLOWER, FASTER, FASTER]
    context = step_of(proposals, num_actions=5, scene_list=scenes)
    assert [is_unsafe(scene, a) for scene, a in zip(scenes, proposals, strict=True)] == [True, False, False, True]
    found, allowed = arbiter("unsafe"), np.array([True, True, True, False])
    assert found.requires(context, np.zeros(4, bool), allowed).tolist() == [True, False, False, False]
    execution = found.decide(context, labels_of([SLOWER] * 4, num_actions=5), allowed)
    assert_controlled(execution, [SLOWER, SLOWER, FASTER, FASTER], [True, False, False, False], Reason.UNSAFE)


def test_unsafe_agrees_with_the_check_on_scenes_of_the_engine():
    envs, stream, fired = sim.make_vec("lane-change", 6, seed=1, config={"density": [40.0, 40.0]}), rng(0), 0
    envs.reset()
    for _ in range(25):
        legal = np.array(envs.action_masks(), bool)
        proposals = np.array([stream.choice(np.flatnonzero(row)) for row in legal])
        context = step_of(proposals, num_actions=5, legal=legal)
        context.views = lambda indices: envs.views(indices.tolist())
        allowed = stream.random(6) < 0.8
        expected = [
            bool(may) and is_unsafe(scene, int(action))
            for may, scene, action in zip(allowed, envs.scenes(range(6)), proposals, strict=True)
        ]
        assert arbiter("unsafe").requires(context, np.zeros(6, bool), allowed).tolist() == expected
        fired += sum(expected)
        envs.step(proposals)
    envs.close()
    assert 10 < fired < 120


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_unsafe_needs_no_scenes_where_no_step_is_guided_and_says_so_where_one_is():
    found, context = arbiter("unsafe"), step_of([0, 0, 0])
    assert found.requires(context, FALSE3, FALSE3).tolist() == [False] * 3
    with pytest.raises(UsageError, match="needs traffic scenes"):
        found.requires(context, FALSE3, TRUE3)


# ---------------------------------------------------------------------------------------------------- disagree


def test_disagree_takes_over_where_the_expert_acts_differently():
    execution = decided("disagree", step_of([0, 1, 2]), labels_of([1, 1, None]))
    assert_controlled(execution, [1, 1, 2], [True, False, False], Reason.DISAGREEMENT)


# ------------------------------------------------------------------------------------------------------- value


def test_value_takes_over_where_the_critics_prefer_the_label_by_more_than_the_margin():
    q = [[0.0, 0.25, 9.0], [0.0, 0.75, 9.0], [0.0, 0.5, 9.0], [9.0, 0.0, 0.0]]
    labels = labels_of([1, 1, 1, 1])
    execution = decided("value", step_of([0, 0, 0, 0], q=q), labels)  # margin 0.5
    assert_controlled(execution, [0, 1, 0, 0], [False, True, False, False], Reason.VALUE)
    execution = decided(arbiter("value", margin=0.2), step_of([0, 0, 0, 0], q=q), labels)
    assert execution.authority.tolist() == [1, 1, 1, 0]
    execution = decided(arbiter("value", margin=-20.0), step_of([0, 0, 1, 0], q=q), labels)
    assert execution.authority.tolist() == [1, 1, 0, 1]  # where both agree there is nothing to replace


def test_value_computes_nothing_without_labels():
    context = step_of([0, 0, 0])  # has no critics
    assert decided("value", context, context.no_labels()).authority.tolist() == [0] * 3


# ---------------------------------------------------------------------------------------------------------- js


def js_of(p: float) -> float:
    """JS of a policy that gives the hard label probability p, by scipy."""
    return jensenshannon([p, 1 - p], [1.0, 0.0]) ** 2


def js_step(p: float, episode: int = 0, proposal: int = 1):
    """One environment whose policy gives the label 0 probability p."""
    return step_of([proposal], num_actions=2, probs=[[p, 1 - p]], episodes=np.array([episode]))


LABEL = labels_of([0], num_actions=2)
OFF, BETWEEN, ON = 0.95, 0.5, 0.1  # js below off = 0.15, between, above on = 0.35


def test_the_three_policies_lie_on_both_sides_of_the_thresholds():
    assert js_of(OFF) < 0.15 < js_of(BETWEEN) < 0.35 < js_of(ON) < math.log(2)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([BETWEEN, BETWEEN], [0, 0]),  # not far enough to take over
        ([ON, BETWEEN, BETWEEN], [1, 1, 1]),  # but far enough to keep control
        ([ON, OFF, BETWEEN], [1, 0, 0]),  # handed back: the upper threshold counts again
        ([ON, OFF, ON], [1, 0, 1]),
    ],
)
def test_js_has_hysteresis_within_an_episode(policies, expected):
    found = arbiter("js")
    executions = [decided(found, js_step(p), LABEL) for p in policies]
    assert [execution.authority[0] for execution in executions] == expected
    assert [execution.reason[0] for execution in executions] == [Reason.DIVERGENCE if e else 0 for e in expected]


def test_js_begins_each_episode_disengaged():
    found = arbiter("js")
    assert decided(found, js_step(ON, episode=3), LABEL).authority[0] == 1
    assert decided(found, js_step(BETWEEN, episode=4), LABEL).authority[0] == 0


def test_js_disengages_where_a_label_is_missing():
    found = arbiter("js")
    assert decided(found, js_step(ON), LABEL).authority[0] == 1
    assert decided(found, js_step(ON), labels_of([None], num_actions=2)).authority[0] == 0
    assert decided(found, js_step(BETWEEN), LABEL).authority[0] == 0


def test_js_remembers_its_engagement_in_a_resumed_run():
    found, resumed = arbiter("js"), arbiter("js")
    decided(found, js_step(ON), LABEL)
    resumed.load_state_dict(found.state_dict())
    assert decided(resumed, js_step(BETWEEN), LABEL).authority[0] == 1


@given(hnp.arrays(np.float64, (3, 3), elements=st.floats(0, 1)), st.floats(0.01, 0.6))
@settings(max_examples=20)
def test_js_compares_with_the_divergence_of_scipy(weights, threshold):
    probs = (weights + 1e-3) / (weights + 1e-3).sum(axis=1, keepdims=True)
    expert = np.roll(probs, 1, axis=0)
    distance = np.array([jensenshannon(p, q) ** 2 for p, q in zip(probs, expert, strict=True)])
    if (np.abs(distance - threshold) < 1e-4).any():
        return
    context, labels = step_of([0, 0, 0], probs=probs), labels_of([1, 1, 1], probs=expert)
    execution = decided(arbiter("js", on=threshold, off=0.0), context, labels)
    assert execution.intervened.tolist() == (distance > threshold).tolist()


# ----------------------------------------------------------------------------------------- all that replace


def steps_that_fire(num: int):
    """(kind, context): in each of them the arbiter would hand every step to the expert's action 1."""
    scenes = [BLOCKED] * num
    yield "expert", step_of([IDLE + 1] * num, num_actions=5)
    yield "unsafe", step_of([FASTER] * num, num_actions=5, scene_list=scenes)
    yield "disagree", step_of([FASTER] * num, num_actions=5)
    yield "value", step_of([FASTER] * num, num_actions=5, q=[[0, 1, 0, 0, 0]] * num)
    yield "js", step_of([FASTER] * num, num_actions=5, probs=[[0, 0, 0, 1, 0]] * num)


@pytest.mark.parametrize(("kind", "context"), steps_that_fire(4), ids=lambda value: value if type(value) is str else "")
def test_only_labels_that_came_in_time_and_steps_that_are_allowed_are_executed(kind, context):
    labels = labels_of([1, 1, 1, 1], status=[OK, LATE, FAILED, OK], num_actions=5)
    labels.given[2] = False
    execution = decided(kind, context, labels, allowed=[True, True, True, False])
    assert execution.authority.tolist() == [1, 0, 0, 0]
    assert execution.actions.tolist() == [1, *context.proposals[1:]]
    assert execution.labels.status.tolist() == [OK, LATE, FAILED, OK]  # a late label is kept, to learn from


@pytest.mark.parametrize("kind", ["unsafe", "disagree"])
def test_arbiters_that_compare_discrete_actions_refuse_continuous_ones_in_one_line(kind):
    found = arbiter(kind)
    assert isinstance(found, Replacing)
    with pytest.raises(UsageError, match="compares discrete actions") as error:
        found.attach(LearnerInfo("any", BOX, BOX))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("sometimes", {}, "unknown arbiter 'sometimes'"),
        ("usnafe", {}, "did you mean 'unsafe'"),
        ("value", {"margn": 1}, "did you mean 'margin'"),
        ("value", {"margin": "wide"}, "options of arbiter 'value'.margin = 'wide'"),
        ("js", {"on": 0.1, "off": 0.2}, "off = 0.2, on = 0.1: choose 0 <= off <= on"),
        ("learner", {"on": 1}, "unknown key in options of arbiter 'learner'"),
    ],
)
def test_bad_configs_are_refused_in_one_line(kind, options, words):
    with pytest.raises(UsageError) as error:
        ArbiterConfig(kind, options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_every_registered_arbiter_is_built_from_its_defaults():
    for kind in ARBITERS.available():
        assert ARBITERS.get(kind).name == kind
        assert isinstance(arbiter(kind), Arbiter)
    assert type(ArbiterConfig().make()) is Unsafe
    assert type(ArbiterConfig().make(traffic=False)) is Divergence


def test_a_label_that_was_not_asked_is_never_executed():
    for kind, context in steps_that_fire(3):
        execution = decided(kind, context, context.no_labels(), wanted=FALSE3)
        assert execution.actions.tolist() == context.proposals.tolist(), kind
        assert execution.labels.status.tolist() == [NO_STATUS] * 3


# -------------------------------------------------------------------------------------------------------- ration


def test_a_ration_becomes_available_evenly_and_covers_only_labels_that_nothing_else_wanted():
    found = Rationed(ExpertDrives(), labels=6, until=100)

    def granted(decisions, wanted=(False, False, False)):
        return found.requires(step_of([0, 0, 0], decisions=decisions), np.array(wanted), TRUE3).tolist()

    assert granted(0) == [False, False, False]
    assert granted(0, wanted=[True, False, True]) == [True, False, True]
    assert granted(17) == [True, False, False]  # 6 x 0.17 = 1.02
    assert granted(50) == [True, True, False]  # 3 in all
    assert granted(50) == [False, False, False]
    assert granted(100) == [True, True, True]
    assert granted(500) == [False, False, False]
    assert found.asked == 6
    other = Rationed(ExpertDrives(), labels=6, until=100)
    other.load_state_dict(found.state_dict())
    assert other.asked == 6


def test_without_a_label_the_learner_drives_on():
    found = Rationed(ExpertDrives(), labels=1, until=1)
    execution = decided(found, step_of([0, 0, 0], decisions=5), labels_of([1, None, None]), wanted=FALSE3)
    assert_controlled(execution, [1, 0, 0], [True, False, False], Reason.SCHEDULE)
