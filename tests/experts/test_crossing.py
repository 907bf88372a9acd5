"""The rule and the gate at conflicts: going first, giving way, not stopping where roads cross."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from experts.data.columns import Columns, put_scenes, take_scenes
from experts.driving import run_episodes
from experts.llm.prompt import PromptGenerator
from experts.rules import kernel
from experts.rules.config import RuleConfig
from experts.rules.crossing import clearance, give_way
from experts.rules.provider import RuleExpert
from experts.safety import is_unsafe, unsafe_reason
from sim.actions import MetaAction
from sim.scene import CONFLICT
from sim.view import view_of
from tests.experts.expert_scenes import context, make_scene
from tests.experts.test_experts import scenes

P = RuleConfig().record()[0]
SLOWER, IDLE, FASTER = range(3)


def conflict(begin=20.0, length=7.0, near=20.0, speed=8.0, side=-1):
    """A crossing car; distances from the ego and from that car."""
    row = np.zeros(1, CONFLICT)[0]
    row["begin"], row["end"], row["box_begin"], row["box_end"] = begin, begin + length, begin, begin + length
    row["near"], row["far"], row["speed"], row["side"] = near, near + length, speed, side
    row["enter"] = 0.0 if near <= 0 else near / speed if speed else np.inf
    row["leave"] = (near + length) / speed if speed else np.inf
    return row


def crossing_scene(*rows, speed=9.0):
    cars = [(-1, 30.0, 8.0)]  # on another road
    scene = make_scene(cars, speed=speed, set_points=(0.0, 4.5, 9.0), period=1.0, actions=3, goal=None)
    return dataclasses.replace(scene, conflicts=np.array(list(rows), CONFLICT))


def decided(scene):
    (decision,) = RuleExpert().decide([context(scene)])
    return decision


@given(scene=scenes())
@settings(max_examples=100, deadline=None)
def test_without_conflicts_the_rule_decides_by_lanes_alone(scene):
    view, legal = view_of(scene), np.ones(5, bool)
    chosen = (kernel.reach_goal if view.goal_lane >= 0 else kernel.cruise)(view, legal, P)[0]
    out = np.zeros(1, np.int64)
    kernel.drive(np.array([view]), legal[None], RuleConfig().record(), out)
    assert out[0] == chosen == give_way(view, legal, chosen, P)
    assert clearance(view, int(MetaAction.IDLE), P)[0] == np.inf


def test_it_gives_way_to_a_car_that_would_meet_it_and_says_so():
    decision = decided(crossing_scene(conflict(begin=14.0, near=12.0)))
    assert decision.action == SLOWER
    assert decision.reason == "a car from the left reaches the ego's path in 1.5 s: slow down"


def test_it_goes_before_a_car_that_is_far_and_behind_one_that_has_left():
    assert decided(crossing_scene(conflict(near=90.0))).action != SLOWER
    assert decided(crossing_scene(conflict(begin=30.0, near=-5.0))).action != SLOWER


def test_it_starts_when_the_way_is_clear():
    assert decided(crossing_scene(conflict(begin=3.0, near=80.0), speed=0.0)).action == FASTER
    assert decided(crossing_scene(conflict(begin=3.0, near=12.0), speed=0.0)).action != FASTER


def test_it_does_not_stop_where_roads_cross():
    inside = conflict(begin=-3.0, near=40.0)
    assert decided(crossing_scene(inside, speed=4.5)).action != SLOWER
    assert is_unsafe(crossing_scene(inside, speed=0.0), SLOWER) == (clearance_of(inside, SLOWER) < 0)


def clearance_of(row, manoeuvre, speed=0.0):
    return clearance(view_of(crossing_scene(row, speed=speed)), (4, 1, 3)[manoeuvre], P)[0]


@given(begin=st.floats(1, 40), near=st.floats(1, 80), speed=st.floats(1, 15), ego=st.sampled_from([0.0, 4.5, 9.0]))
@settings(max_examples=60, deadline=None)
def test_clearance_is_that_of_a_plain_roll_out(begin, near, speed, ego):
    """An oracle in NumPy for one manoeuvre: FASTER now, then one of the three for good."""
    row = conflict(begin=begin, near=near, speed=speed)
    best = max(_rolled(row, ego, FASTER, then) for then in range(3))
    assert clearance_of(row, FASTER, ego) == pytest.approx(best, abs=1e-6)


def _rolled(row, speed, manoeuvre, then):
    points, c = np.array([0.0, 4.5, 9.0]), RuleConfig()
    move = {SLOWER: -1, IDLE: 0, FASTER: 1}
    index = int(np.clip(np.argmin(np.abs(points - speed)) + move[manoeuvre], 0, 2))
    gone, least = 0.0, np.inf
    for tick in range(1, int(c.conflict_horizon / 0.1) + 1):
        speed += (points[index] - speed) * 0.1 / 0.6
        gone += speed * 0.1
        if tick % 10 == 0 and then != IDLE:
            index = int(np.clip(np.argmin(np.abs(points - speed)) + move[then], 0, 2))
        t = tick * 0.1
        if t > c.conflict_reaction:
            far = row["speed"] * t + min(c.conflict_doubt * t, c.conflict_start * t * t / 2)
            least_way = row["speed"] * t - min(c.conflict_doubt * t, row["speed"] * t)
            out = max(row["begin"] - gone, gone - row["end"], row["near"] - far, least_way - row["far"])
            least = min(least, out)
    if speed < 1.0:
        least = min(least, max(row["box_begin"] - gone, gone - row["box_end"]))
    return least


def test_the_gate_refuses_what_no_continuation_saves_and_says_why():
    scene = crossing_scene(conflict(begin=2.0, near=2.0, side=1))
    assert is_unsafe(scene, IDLE)
    assert unsafe_reason(scene, IDLE) == "a car from the right reaches the ego's path in 0.2 s"
    assert not is_unsafe(crossing_scene(conflict(near=200.0)), IDLE)


def test_prompts_name_crossing_cars_and_others_stay_as_they_are():
    plain = crossing_scene()
    crossed = crossing_scene(conflict(begin=12.3, near=14.4))
    texts = [PromptGenerator().build(scene, "label").messages[1]["content"].splitlines() for scene in (plain, crossed)]
    row = "crossing 1: from the left, speed 8.0, in your path from 1.8 s to 2.7 s, its path 12.3 m ahead of you"
    assert [line for line in texts[1] if line not in texts[0]] == [row]
    assert [line for line in texts[1] if line != row] == texts[0]


def test_stored_scenes_keep_their_conflicts():
    given = [crossing_scene(), crossing_scene(conflict(), conflict(begin=25.0))]
    columns = Columns()
    rest = put_scenes(columns, given)
    assert take_scenes(columns, rest, 2) == given
    del columns.index["scene.conflicts"]
    assert [len(scene.conflicts) for scene in take_scenes(columns, rest, 2)] == [0, 0]


@pytest.mark.slow
def test_the_rule_crosses_an_intersection():
    """Before it saw crossing cars, 42 of 100 episodes ended in a crash."""
    envs = sim.make_vec("intersection-v0", num_envs=100, seed=0)
    results = run_episodes(envs, RuleExpert(), range(10_000, 10_100))
    assert sum(result["outcome"] == "crash" for result in results) <= 18
    assert sum(result["outcome"] == "success" for result in results) >= 60
