"""The rule and the published thresholds: published cases, hand-computed numbers, driving."""

import math

import pytest

import sim
from experts import registry
from experts.driving import run_episodes
from experts.provider import Status
from experts.rules import kernel
from experts.rules.config import RuleConfig
from experts.rules.provider import RuleExpert
from experts.rules.thresholds import ThresholdExpert
from sim.actions import MetaAction
from sim.errors import UsageError
from sim.view import view_of
from tests.experts.expert_scenes import decide, make_scene

P = RuleConfig().record()[0]
FAR_AHEAD = (0, 31.0, 20.0)


@pytest.fixture(scope="module")
def envs():
    return sim.make_vec("lane-change", num_envs=60, seed=0)


def success_rate(envs, expert, seeds):
    episodes = run_episodes(envs, expert, seeds)
    return sum(episode["success"] for episode in episodes) / len(episodes)


# --- the published thresholds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "accepted"), [(13.1, True), (11.9, False)])
def test_published_right_gap_ahead(gap, accepted):
    decision = decide(ThresholdExpert(), make_scene([(1, gap, 20.0), (0, 29.8, 20.0)]))
    assert (decision.action == MetaAction.LANE_RIGHT) == accepted


@pytest.mark.parametrize(("gap", "accepted"), [(27.9, True), (18.8, False)])
def test_published_right_gap_behind(gap, accepted):
    decision = decide(ThresholdExpert(), make_scene([(1, -gap, 20.0), (0, 29.8, 20.0)]))
    assert (decision.action == MetaAction.LANE_RIGHT) == accepted


@pytest.mark.parametrize(("distance", "action"), [(31.0, MetaAction.FASTER), (29.8, MetaAction.SLOWER)])
def test_published_distance_to_the_front_car(distance, action):
    assert decide(ThresholdExpert(), make_scene([(3, distance, 20.0)], lane=3)).action == action


def test_ttc_of_four_seconds_makes_the_thresholds_brake():
    closing = 28.0 / 4.0  # 33 m between centres are 28 m between bumpers
    assert decide(ThresholdExpert(), make_scene([(3, 33.0, 20.0 - closing)], lane=3)).action == MetaAction.SLOWER
    assert decide(ThresholdExpert(), make_scene([(3, 33.0, 20.1 - closing)], lane=3)).action == MetaAction.FASTER


def test_ttc_in_the_other_lane_forbids_the_change():
    assert decide(ThresholdExpert(), make_scene([(1, 25.0, 15.0), FAR_AHEAD])).action == MetaAction.FASTER
    assert decide(ThresholdExpert(), make_scene([(1, 25.1, 15.0), FAR_AHEAD])).action == MetaAction.LANE_RIGHT


def test_refusal_names_the_numbers():
    reason = decide(ThresholdExpert(), make_scene([(1, -18.8, 20.0)])).reason
    assert reason.startswith("right lane: car behind 18.8 m < 22.0 m between centres: wait")


def test_the_lane_that_a_number_belongs_to_is_said_while_changing():
    scene = make_scene([(0, 60.0, 20.0), (1, 12.0, 20.0)], lane=0, target=1, goal=1)
    assert "ahead in the target lane is too close (12.0 m between centres)" in decide(ThresholdExpert(), scene).reason


def test_thresholds_are_a_weak_driver(envs):
    assert 0.15 < success_rate(envs, ThresholdExpert(), range(200)) < 0.50


# --- the rule's numbers ----------------------------------------------------------------------------------------------


def test_safe_speed_equals_the_formula():
    b, tau, share, d0, gap, front = 2.31, 0.53, 0.8745, 7.7, 25.0, 12.0
    expected = -b * tau + math.sqrt((b * tau) ** 2 + front**2 / share + 2 * b * (gap - d0))
    assert kernel.safe_speed(gap, front, b, P) == pytest.approx(expected, abs=1e-12)
    assert kernel.safe_speed(math.inf, 0.0, b, P) == math.inf


def test_safe_speed_stops_behind_a_braking_car():
    """Both brake, the ego after its reaction time: at rest the standstill distance is left, exactly."""
    b, front = 2.31, 12.0
    speed = kernel.safe_speed(30.0, front, b, P)
    travelled = speed * 0.53 + speed**2 / (2 * b)
    front_travelled = front**2 / (2 * b * 0.8745)
    assert 30.0 + front_travelled - travelled == pytest.approx(7.7, abs=1e-9)


def test_an_oncoming_car_is_no_car_to_follow():
    assert kernel.safe_speed(40.0, -12.0, 2.31, P) < kernel.safe_speed(40.0, 0.0, 2.31, P)


@pytest.mark.parametrize(
    ("front", "front_speed", "rear", "rear_speed", "verdict"),
    [
        (7.71, 20.0, 6.51, 20.0, kernel.CLEAR),
        (7.70, 20.0, 6.51, 20.0, kernel.FRONT_GAP),
        (7.71, 20.0, 6.50, 20.0, kernel.REAR_GAP),
        (7.7 + 16 / 4.6 + 4 * 0.34, 16.0, 50.0, 20.0, kernel.FRONT_GAP),
        (19.0, 16.0, 50.0, 20.0, kernel.FRONT_TTC),
        (19.7, 16.0, 50.0, 20.0, kernel.CLEAR),
        (50.0, 20.0, 20.3, 24.0, kernel.REAR_TTC),
        (50.0, 20.0, 20.5, 24.0, kernel.CLEAR),
    ],
)
def test_lane_change_test(front, front_speed, rear, rear_speed, verdict):
    assert kernel.change_test(20.0, 0.0, front, front_speed, rear, rear_speed, 2.3, 1.0, P) == verdict


def test_no_change_starts_while_the_last_one_goes_on():
    assert kernel.change_test(20.0, -1.4, math.inf, 0.0, math.inf, 0.0, 2.3, 1.0, P) == kernel.NOT_STEADY
    assert kernel.change_test(20.0, 1.36, math.inf, 0.0, math.inf, 0.0, 2.3, 1.0, P) == kernel.CLEAR


def test_slot_speed():
    wanted_rear = 6.5 + 0.66 * (38.0 - 7.7 - 6.5)
    assert kernel.slot_speed(8.0, 14.0, 30.0, 16.0, P) == pytest.approx(15.0 + 0.43 * (wanted_rear - 30.0))
    assert kernel.slot_speed(9.0, 14.0, 10.0, 16.0, P) == pytest.approx(14.0 - 4.2)
    assert kernel.slot_speed(9.0, 10.0, 10.0, 10.0, P) == 8.5
    assert kernel.slot_speed(math.inf, 0.0, math.inf, 0.0, P) == math.inf


def test_the_lane_being_left_counts_until_three_metres_off_it():
    blocked = [(0, 9.0, 5.0)]
    near = view_of(make_scene(blocked, lane=0, target=1, offset=-1.1))
    far = view_of(make_scene(blocked, lane=1, target=1, offset=-0.9))
    assert near.old.front == far.old.front == pytest.approx(9.0)
    assert near.old_distance < RuleConfig().old_lane_reach < far.old_distance
    assert kernel.allowed_speed(near, P) == kernel.safe_speed(9.0, 5.0, near.braking, P)
    assert kernel.allowed_speed(far, P) == math.inf


def test_view_agrees_with_the_scene(envs):
    envs.reset_to(range(60))
    for scene in envs.scenes(range(60)):
        view = view_of(scene)
        front, rear = scene.front(1), scene.rear(1)
        assert (view.right.front, view.right.front_speed, view.right.rear) == (front.dx, front.speed, -rear.dx)
        assert view.target.front == scene.front(0).dx
        assert not view.has_left


def test_a_longer_car_counts_as_nearer():
    scene = make_scene([(0, 20.0, 10.0)])
    scene.vehicles.length[0] = 15.0
    assert view_of(scene).target.front == pytest.approx(20.0 - 5.0)


def test_braking_is_one_set_point_per_decision():
    assert view_of(make_scene()).braking == pytest.approx(22 / 19 / 0.5)
    assert view_of(make_scene(set_points=(20.0, 25.0, 30.0), period=1.0)).braking == 5.0


# --- the rule drives -------------------------------------------------------------------------------------------------


def test_rule_changes_into_an_empty_lane_and_says_so():
    decision = decide(RuleExpert(), make_scene())
    assert (decision.action, decision.reason, decision.status) == (2, "the right lane is clear", Status.OK)


def test_rule_waits_and_names_the_gap():
    decision = decide(RuleExpert(), make_scene([(1, -6.0, 20.0), (1, 30.0, 20.0)]))
    assert decision.action != MetaAction.LANE_RIGHT
    assert decision.reason.startswith("right lane: car behind 6.0 m < 6.5 m between centres")


def test_rule_stays_in_the_goal_lane():
    assert decide(RuleExpert(), make_scene(lane=3, speed=23.0)).action == MetaAction.IDLE


def test_rule_brakes_for_a_standing_car_without_a_goal():
    scene = make_scene([(lane, 25.0, 0.0) for lane in range(4)], lane=1, goal=None)
    assert decide(RuleExpert(), scene).action == MetaAction.SLOWER


def test_rule_overtakes_without_a_goal():
    slow = make_scene([(1, 25.0, 20.0)], lane=1, speed=25.0, goal=None, set_points=(20.0, 25.0, 30.0), period=1.0)
    assert decide(RuleExpert(), slow).action == MetaAction.LANE_RIGHT
    blocked = make_scene(
        [(1, 25.0, 20.0), (2, 3.0, 20.0)], lane=1, speed=25.0, goal=None, set_points=(20.0, 25.0, 30.0), period=1.0
    )
    assert decide(RuleExpert(), blocked).action == MetaAction.LANE_LEFT


def test_rule_speeds_up_on_an_empty_road():
    assert decide(RuleExpert(), make_scene(goal=None)).action == MetaAction.FASTER


def test_goal_lane_that_has_not_begun_means_the_outermost_lane():
    assert decide(RuleExpert(), make_scene(lane=3, goal=6, speed=20.0)).action == MetaAction.FASTER
    assert decide(RuleExpert(), make_scene(lane=2, goal=6)).action == MetaAction.LANE_RIGHT


def test_rule_reaches_a_goal_on_either_side(envs):
    """The task with the road mirrored: from the right lane to the left one."""
    other = sim.make_vec("lane-change", num_envs=30, seed=0, config={"start_lane": 3, "goal_lane": 0})
    assert success_rate(other, RuleExpert(), range(3000, 3030)) >= 0.9


def test_rule_solves_the_task(envs):
    assert success_rate(envs, RuleExpert(), range(700_000, 700_060)) >= 0.95


@pytest.mark.slow
def test_rule_on_two_thousand_held_out_seeds(envs):
    assert success_rate(envs, RuleExpert(), range(1_000_000, 1_002_000)) >= 0.985


@pytest.mark.slow
def test_rule_survives_highway_env():
    highway = sim.make_vec("highway-fast-v0", num_envs=4, seed=0)
    assert success_rate(highway, RuleExpert(), range(12)) >= 0.9


@pytest.mark.parametrize(("name", "option"), [("rule", "reaction"), ("thresholds", "min_ttc")])
def test_bad_options_are_refused(name, option):
    with pytest.raises(UsageError, match="unknown key"):
        registry.make(name, "lane-change", {"speling": 1})
    with pytest.raises(UsageError, match=option):
        registry.make(name, "lane-change", {option: -1.0})


def test_continuous_environments_are_refused():
    with pytest.raises(UsageError, match="continuous"):
        registry.make("rule", "parking-v0")
