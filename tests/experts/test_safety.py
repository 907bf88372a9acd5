"""The 'unsafe' test of the gate."""

import pytest

import sim
from experts.driving import run_episodes
from experts.rules.config import RuleConfig
from experts.rules.kernel import allowed_speed
from experts.rules.provider import RuleExpert
from experts.safety import ActionSafetyConfig, is_unsafe, unsafe_reason
from sim.actions import MetaAction
from sim.view import view_of
from tests.experts.expert_scenes import make_scene

LEFT, IDLE, RIGHT, FASTER, SLOWER = MetaAction


def test_nothing_is_unsafe_on_an_empty_road():
    scene = make_scene(lane=1)
    assert not any(is_unsafe(scene, action) for action in MetaAction)


def test_braking_is_never_unsafe():
    assert not is_unsafe(make_scene([(0, 5.5, 0.0)]), SLOWER)


@pytest.mark.parametrize(("gap", "unsafe"), [(0.8 * 7.7 + 0.01, False), (0.8 * 7.7 - 0.01, True)])
def test_change_needs_four_fifths_of_the_front_gap(gap, unsafe):
    assert is_unsafe(make_scene([(1, gap, 20.0)]), RIGHT) == unsafe


@pytest.mark.parametrize(("gap", "unsafe"), [(0.8 * 6.5 + 0.01, False), (0.8 * 6.5 - 0.01, True)])
def test_change_needs_four_fifths_of_the_rear_gap(gap, unsafe):
    scene = make_scene([(1, -gap, 20.0)], lane=2)
    assert is_unsafe(scene, LEFT) == unsafe
    assert not is_unsafe(scene, RIGHT)


@pytest.mark.parametrize(("offset", "unsafe"), [(-1.38, True), (-1.36, False), (1.38, True), (1.36, False)])
def test_change_before_the_last_one_is_finished(offset, unsafe):
    scene = make_scene(lane=1, offset=offset)
    assert is_unsafe(scene, RIGHT) == is_unsafe(scene, LEFT) == unsafe


def test_speed_above_the_safe_speed_is_unsafe():
    for distance in range(8, 80, 3):
        scene = make_scene([(0, float(distance), 12.0)], speed=SPEED)
        limit = allowed_speed(view_of(scene), RuleConfig().record()[0])
        assert is_unsafe(scene, IDLE) == (limit + 0.6 < SPEED)
        assert is_unsafe(scene, FASTER) == (limit + 0.6 < NEXT)


SPEED = 6.0 + 8 * 22 / 19
NEXT = 6.0 + 9 * 22 / 19


def test_reason_is_a_sentence_with_numbers():
    reason = unsafe_reason(make_scene([(0, 9.0, 2.0)], speed=20.0), IDLE)
    assert "above the safe speed" in reason


def test_change_to_a_lane_that_does_not_exist_counts_as_keeping_the_speed():
    assert not is_unsafe(make_scene(lane=3), RIGHT)
    assert is_unsafe(make_scene([(3, 8.0, 0.0)], lane=3), RIGHT)


def test_longitudinal_actions_are_understood():
    scene = make_scene([(0, 9.0, 0.0)], speed=9.0, set_points=(0.0, 4.5, 9.0), period=1.0, actions=3, goal=None)
    assert [is_unsafe(scene, action) for action in range(3)] == [False, True, True]


def test_tolerance_can_be_set():
    scene = make_scene([(0, 9.0, 12.0)], speed=20.0)
    assert is_unsafe(scene, IDLE)
    assert not is_unsafe(scene, IDLE, ActionSafetyConfig(speed_margin=50.0))


def test_the_rule_never_does_what_the_gate_refuses():
    envs = sim.make_vec("lane-change", num_envs=10, seed=0)
    expert, refused = RuleExpert(), []

    def watched(obs, masks, contexts, running):
        requests = contexts(running)
        actions = [decision.action for decision in expert.decide(requests)]
        refused.extend(is_unsafe(r.scene, action) for r, action in zip(requests, actions, strict=True))
        return actions

    run_episodes(envs, watched, range(10))
    assert len(refused) > 400
    assert not any(refused)


def test_continuous_environments_are_refused():
    with pytest.raises(ValueError, match="other actions than meta-actions"):
        is_unsafe(make_scene(actions=2), 0)
