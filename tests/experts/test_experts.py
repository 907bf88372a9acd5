"""What holds for every built-in expert: legal, deterministic, mirrored left to right, never raising."""

import functools
import math

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from experts import registry
from experts.driving import run_episodes
from experts.idm import IDMConfig, IDMExpert, acceleration
from experts.provider import Context, Status
from experts.rules.config import as_record
from experts.rules.provider import RuleExpert
from experts.rules.thresholds import ThresholdExpert
from experts.safety import is_unsafe
from experts.search import SearchExpert
from sim.actions import MetaAction
from sim.errors import UsageError
from tests.experts.expert_scenes import context, decide, make_scene, mirrored

NAMES = ("rule", "thresholds", "idm", "search", "random", "idle", "slower", "faster")
GRIDS = {
    "fine": (tuple(np.linspace(6.0, 28.0, 20).tolist()), 0.5),
    "coarse": ((20.0, 25.0, 30.0), 1.0),
    "slow": ((0.0, 4.5, 9.0), 1.0),
    "single": ((10.0,), 0.2),
    "none": ((), 1.0),
}


@functools.cache
def expert_named(name):
    return registry.make(name, "lane-change")


@st.composite
def scenes(draw):
    """Anything from an empty road to cars on top of the ego, on this road and on others."""
    lanes = draw(st.integers(1, 5))
    lane = draw(st.integers(0, lanes - 1))
    points, period = GRIDS[draw(st.sampled_from(sorted(GRIDS)))]
    actions = draw(st.sampled_from((5, 5, 3)))
    car = st.tuples(st.integers(-1, lanes - 1), st.floats(-150, 150), st.floats(0, 40))
    return make_scene(
        draw(st.lists(car, max_size=12)),
        lane=lane,
        target=min(max(lane + draw(st.integers(-1, 1)), 0), lanes - 1),
        speed=draw(st.floats(0, 40)),
        offset=draw(st.floats(-4, 4)),
        goal=draw(st.one_of(st.none(), st.integers(0, 6))),
        lanes=lanes,
        set_points=points,
        period=period,
        actions=actions,
    )


@pytest.mark.parametrize("name", NAMES)
@given(scene=scenes())
@settings(max_examples=60, deadline=None)
def test_every_decision_is_legal(name, scene):
    decision = decide(expert_named(name), scene)
    assert decision.status is Status.OK
    assert scene.legal[decision.action]
    assert decision.latency_s > 0


@given(scene=scenes())
@settings(max_examples=100, deadline=None)
def test_safety_judges_every_scene(scene):
    for action in range(len(scene.legal)):
        assert is_unsafe(scene, action) in (True, False)


MIRROR = {0: 2, 1: 1, 2: 0, 3: 3, 4: 4}


@pytest.mark.parametrize("expert", [RuleExpert(), ThresholdExpert(), IDMExpert()], ids=lambda e: e.name)
@given(scene=scenes())
@settings(max_examples=100, deadline=None)
def test_left_and_right_are_alike_with_a_goal(expert, scene):
    """Mirrored about the middle of the road. Cars level with each other may swap by the tie rule: left out."""
    if len(scene.legal) != 5 or scene.goal is None or scene.goal.lane >= scene.num_lanes:
        return
    assert decide(expert, mirrored(scene)).action == MIRROR[decide(expert, scene).action]


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_decisions(name):
    envs = sim.make_vec("lane-change", num_envs=2, seed=0)
    first, second = (run_episodes(envs, registry.make(name, "lane-change", seed=5), [11, 12]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("random", "search")])
def test_without_a_scene_it_says_that_it_failed(name):
    decisions = registry.make(name, "lane-change").decide([context(None)])
    assert [(d.action, d.status) for d in decisions] == [(None, Status.FAILED)]


def test_no_contexts_no_decisions():
    assert all(list(registry.make(name, "lane-change").decide([])) == [] for name in NAMES)


# --- simple ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "action"), [("idle", 1), ("slower", 4), ("faster", 3)])
def test_constant_experts(name, action):
    expert = registry.make(name, "lane-change")
    assert decide(expert, make_scene()).action == action
    extremes = [decide(expert, make_scene(speed=speed)).action for speed in (6.0, 28.0)]
    assert set(extremes) <= {action, int(MetaAction.IDLE)}


def test_constant_expert_on_longitudinal_actions():
    scene = make_scene(actions=3, goal=None)
    assert [decide(registry.make(name, "lane-change"), scene).action for name in ("slower", "idle", "faster")] == [
        0,
        1,
        2,
    ]


def test_random_expert_is_uniform_over_legal_actions():
    expert, scene = registry.make("random", "lane-change", seed=1), make_scene(lane=0)
    decisions = expert.decide([context(scene)] * 4000)
    share = np.bincount([d.action for d in decisions], minlength=5) / 4000
    assert share == pytest.approx(scene.legal / 4, abs=0.03)
    assert decisions[0].probs == pytest.approx(scene.legal / 4)


def test_random_expert_needs_no_scene():
    request = Context(obs=np.zeros(3), action_space=spaces.Discrete(7))
    (decision,) = registry.make("random", "lane-change", seed=1).decide([request])
    assert 0 <= decision.action < 7


# --- IDM -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [8.0, 20.0, 60.0])
def test_idm_acceleration_equals_highway_env(gap):
    from highway_env.road.road import Road, RoadNetwork
    from highway_env.vehicle.behavior import IDMVehicle

    road = Road(RoadNetwork.straight_road_network(2, speed_limit=None))
    ego = IDMVehicle(road, [0.0, 0.0], speed=21.0, target_speed=28.0)
    front = IDMVehicle(road, [gap, 0.0], speed=17.0)
    road.vehicles = [ego, front]
    p = as_record(IDMConfig())[0]
    assert acceleration(21.0, 28.0, gap, 17.0, p) == pytest.approx(ego.acceleration(ego, front))
    assert acceleration(21.0, 28.0, math.inf, 0.0, p) == pytest.approx(ego.acceleration(ego))


def test_idm_follows_and_overtakes():
    points = {"set_points": (20.0, 25.0, 30.0), "period": 1.0, "goal": None, "lane": 0, "lanes": 2, "speed": 25.0}
    assert decide(IDMExpert(), make_scene([(0, 30.0, 18.0)], **points)).action == MetaAction.LANE_RIGHT
    boxed = [(0, 30.0, 18.0), (1, -8.0, 25.0)]
    assert decide(IDMExpert(), make_scene(boxed, **points)).action == MetaAction.SLOWER
    assert decide(IDMExpert(), make_scene([], **points)).action == MetaAction.FASTER


def test_idm_heads_for_the_goal_lane():
    assert decide(IDMExpert(), make_scene(lane=1, goal=0)).action == MetaAction.LANE_LEFT


def test_idm_desired_speed_is_an_option():
    slow = registry.make("idm", "lane-change", {"desired_speed": 10.0})
    assert decide(slow, make_scene(goal=None)).action == MetaAction.SLOWER
    assert IDMConfig().desired_speed is None


# --- search ----------------------------------------------------------------------------------------------------------


def test_search_solves_the_task():
    envs = sim.make_vec("lane-change", num_envs=6, seed=0)
    assert all(episode["success"] for episode in run_episodes(envs, SearchExpert(), range(6)))


def test_search_without_branches_says_what_to_do():
    with pytest.raises(UsageError, match="use a simulator that can branch"):
        SearchExpert().decide([context(make_scene())])


def test_search_always_finds_a_plan_that_ends_well():
    envs = sim.make_vec("lane-change", num_envs=1, seed=0)

    def watched(obs, masks, contexts, running):
        (request,) = contexts(running)
        (decision,) = SearchExpert().decide([request])
        assert decision.confidence == 1.0
        return [decision.action]

    assert run_episodes(envs, watched, [17])[0]["outcome"] == "success"


def test_search_on_highway_env():
    near = {"behind": 60, "ahead": 100}
    env = sim.make("lane-change", "highway-env", near)
    env.reset(seed=3)
    engine = sim.make("lane-change", config=near)
    engine.reset(seed=3)
    config = {"horizon": 3, "waits": [0]}
    actions = [
        registry.make("search", "lane-change", config).decide([context(w.scene(), branch=w.branch)])[0].action
        for w in (env, engine)
    ]
    assert actions[0] == actions[1]


def test_search_without_a_goal_uses_the_rewards():
    env = sim.make("highway-fast-v0")
    env.reset(seed=0)
    expert = registry.make("search", "highway-fast-v0", {"free_horizon": 2.0})
    (decision,) = expert.decide([context(env.scene(), branch=env.branch)])
    assert env.action_masks()[decision.action]
    assert "best of" in decision.reason


@pytest.mark.slow
def test_search_on_a_thousand_seeds():
    envs = sim.make_vec("lane-change", num_envs=50, seed=0)
    episodes = run_episodes(envs, SearchExpert(), range(2_000_000, 2_001_000))
    assert np.mean([episode["success"] for episode in episodes]) >= 0.995
