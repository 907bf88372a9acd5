"""A person around any arbiter: their action is executed, labelled and marked; without them nothing changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from experts.human import Hands, HeldInput
from lgdrl.guidance.arbiters import ArbiterConfig, Divergence, DivergenceConfig, ExpertDrives, LearnerDrives
from lgdrl.guidance.human import PersonArbiter
from lgdrl.guidance.labelling import FirstDecisions
from lgdrl.guidance.records import Labels, LearnerInfo, Reason
from lgdrl.guidance.strategy import Strategy
from sim.actions import MetaAction
from sim.errors import UsageError
from tests.experts.expert_scenes import make_scene
from tests.lgdrl.steps import BOX, OK, labels_of, step_of

LEFT, IDLE, RIGHT, FASTER, SLOWER = (int(action) for action in MetaAction)
SCENE = make_scene(lane=1)
ALL = np.ones(2, bool)


def step(**changes):
    return step_of([FASTER, FASTER], num_actions=5, scene_list=[SCENE, SCENE], **changes)


def no_labels():
    return labels_of([None, None], num_actions=5)


@pytest.fixture
def hands() -> Hands:
    return Hands()


def test_without_the_person_the_inner_arbiter_decides(hands):
    labels, reported = labels_of([IDLE, SLOWER], num_actions=5), []
    person = PersonArbiter(ExpertDrives(), hands, report=lambda *said: reported.append(said))
    execution = person.decide(step(), labels, ALL)
    assert execution.actions.tolist() == [IDLE, SLOWER]
    assert execution.reason.tolist() == [Reason.SCHEDULE] * 2
    assert execution.labels is labels
    assert person.metrics() == {"human_decisions": 0.0}
    assert not reported


def test_the_person_drives_the_first_environment_and_what_they_do_is_a_label(hands):
    hands.press("left", HeldInput(MetaAction.LANE_LEFT), now=1.0)
    context, reported = step(), []
    person = PersonArbiter(LearnerDrives(), hands, 0.05, report=lambda *said: reported.append(said))
    execution = person.decide(context, no_labels(), ALL)
    assert execution.actions.tolist() == [LEFT, FASTER]
    assert execution.authority.tolist() == [1, 0]
    assert execution.reason.tolist() == [Reason.PERSON, Reason.LEARNER]
    assert execution.labels.given.tolist() == [True, False]
    assert execution.labels.action[0] == LEFT
    assert execution.labels.status[0] == OK
    assert execution.labels.probs[0] == pytest.approx([0.96, 0.01, 0.01, 0.01, 0.01])
    assert context.proposals.tolist() == [FASTER, FASTER]  # what the learner proposed is kept
    assert person.metrics() == {"human_decisions": 1.0}
    ((seen, decision, scene),) = reported
    assert seen is context
    assert decision.action == LEFT
    assert scene is SCENE


def test_the_label_is_spread_over_legal_actions_and_an_illegal_wish_is_idle(hands):
    legal = np.ones((2, 5), bool)
    legal[0, LEFT] = False
    hands.press("left", HeldInput(MetaAction.LANE_LEFT), now=0.0)
    execution = PersonArbiter(LearnerDrives(), hands, 0.2).decide(step(legal=legal), no_labels(), ALL)
    assert execution.actions[0] == IDLE
    assert execution.labels.probs[0] == pytest.approx([0, 0.85, 0.05, 0.05, 0.05])


def test_the_person_stays_in_control_until_they_hand_back(hands):
    person = PersonArbiter(LearnerDrives(), hands)
    hands.press("slower", HeldInput(MetaAction.SLOWER), now=0.0)
    hands.release("slower")
    executed = [person.decide(step(), no_labels(), ALL).actions[0] for _ in range(2)]
    assert executed == [SLOWER, IDLE]
    hands.hand_back()
    assert person.decide(step(), no_labels(), ALL).actions[0] == FASTER
    assert person.decisions == 2


def test_the_person_overrides_the_expert_and_the_steps_in_which_it_may_drive(hands):
    hands.press("left", HeldInput(MetaAction.LANE_LEFT), now=0.0)
    labels = labels_of([SLOWER, SLOWER], num_actions=5)
    execution = PersonArbiter(ExpertDrives(), hands).decide(step(), labels, np.array([False, True]))
    assert execution.actions.tolist() == [LEFT, SLOWER]
    assert execution.reason.tolist() == [Reason.PERSON, Reason.SCHEDULE]
    assert execution.labels.action.tolist() == [LEFT, SLOWER]


def test_a_strategy_counts_the_experts_interventions_and_not_the_persons(hands):
    strategy = Strategy("guided", FirstDecisions(10), PersonArbiter(ExpertDrives(), hands))
    hands.press("left", HeldInput(MetaAction.LANE_LEFT), now=0.0)
    context = step(ask=lambda rows, now=None: labels_of([SLOWER, SLOWER], num_actions=5))
    execution = strategy.on_action(context)
    assert execution.intervened.tolist() == [True, True]
    assert strategy.metrics() == {"human_decisions": 1.0, "interventions": 1.0}


def test_without_scenes_the_person_cannot_drive(hands):
    hands.press("left", HeldInput(MetaAction.LANE_LEFT), now=0.0)
    execution = PersonArbiter(LearnerDrives(), hands).decide(step_of([0, 0]), labels_of([None, None]), ALL)
    assert execution.authority.tolist() == [0, 0]


def test_a_person_steers_continuous_actions(hands):
    scene = replace(SCENE, legal=np.ones(2, bool))
    context = step_of(np.zeros((2, 2), np.float32), scene_list=[scene, scene])
    hands.push("pad", 0.5, -1.0, now=0.0)
    execution = PersonArbiter(LearnerDrives(), hands).decide(context, Labels.none(2, BOX), ALL)
    assert execution.actions.tolist() == [[0.5, -1.0], [0.0, 0.0]]
    assert execution.labels.action[0].tolist() == [0.5, -1.0]
    assert execution.labels.probs is None


def test_labels_are_required_and_action_spaces_checked_by_the_inner_arbiter(hands):
    person = PersonArbiter(ArbiterConfig("disagree").make(), hands)
    wanted, allowed = np.array([True, True]), np.array([True, False])
    assert person.requires(step(), wanted, allowed).tolist() == [True, False]
    person.attach(LearnerInfo("any", BOX, spaces.Discrete(5)))
    with pytest.raises(UsageError, match="discrete actions"):
        person.attach(LearnerInfo("any", BOX, BOX))


def test_a_restored_person_keeps_the_count_and_the_state_of_the_inner_arbiter(hands):
    def make():
        return PersonArbiter(Divergence(DivergenceConfig()), hands)

    first, resumed = make(), make()
    far = step(probs=[[0, 0, 0, 1, 0]] * 2)
    first.decide(far, labels_of([SLOWER, SLOWER], num_actions=5), ALL)
    first.decisions = 7
    resumed.load_state_dict(first.state_dict())
    assert resumed.decisions == 7
    between = step(probs=[[0, 0.5, 0, 0, 0.5]] * 2)
    assert resumed.decide(between, labels_of([SLOWER, SLOWER], num_actions=5), ALL).intervened.all()
    assert not make().decide(between, labels_of([SLOWER, SLOWER], num_actions=5), ALL).intervened.any()
