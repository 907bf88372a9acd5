"""Environments on CARLA keep the contracts of `sim.env`: the real client against carla-lite."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

import sim
from experts import registry
from experts.driving import run_episodes
from experts.provider import Context
from sim.actions import MetaAction
from sim.errors import UsageError

pytest.importorskip("carla", reason="the CARLA client is not installed (extra `carla`)")

LANE_LEFT, IDLE, LANE_RIGHT, FASTER, SLOWER = MetaAction
EMPTY = {"density": [1, 1], "ahead": 1, "behind": 1}
"""A lane change without traffic."""


@pytest.fixture(scope="module")
def lane_change():
    env = sim.make("lane-change", "carla-lite")
    yield env
    env.close()


@pytest.fixture(scope="module")
def alone():
    env = sim.make("lane-change", "carla-lite", EMPTY)
    yield env
    env.close()


def request_of(env, scene):
    """A request for a label."""
    return Context(obs=None, action_space=env.action_space, scene=scene, legal=scene.legal)


def drive(env, actions, seed=0):
    """Observations, rewards and the last info of an episode."""
    obs, info = env.reset(seed=seed)
    history = [(obs, 0.0)]
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(int(action))
        history.append((obs, reward))
        if terminated or truncated:
            break
    return history, info


def test_an_episode_begins_exactly_as_on_the_engine_and_experts_decide_alike(lane_change):
    engine = sim.make("lane-change")
    experts = [registry.make(name, "lane-change", {}, 0) for name in ("rule", "thresholds", "idm", "slower")]
    for seed in range(3):
        engine.reset(seed=seed)
        lane_change.reset(seed=seed)
        ours, theirs = lane_change.scene(), engine.scene()
        assert len(ours.vehicles) == len(theirs.vehicles) == 72
        assert ours.vehicles.s == pytest.approx(theirs.vehicles.s, abs=0.01)
        assert ours.vehicles.d == pytest.approx(theirs.vehicles.d, abs=0.06)  # cars stand a little beside their line
        assert ours.vehicles.speed == pytest.approx(theirs.vehicles.speed, abs=0.05)
        assert (ours.vehicles.lane == theirs.vehicles.lane).all()
        assert (ours.ego.s, ours.ego.d, ours.ego.speed) == pytest.approx((500.0, 0.0, 20.0), abs=0.05)
        assert (ours.legal == theirs.legal).all()
        assert ours.set_points == theirs.set_points
        assert ours.goal.lane == theirs.goal.lane
        for expert in experts:
            decided = [
                expert.decide([request_of(env, scene)])[0].action
                for env, scene in ((lane_change, ours), (engine, theirs))
            ]
            assert decided[0] == decided[1], (seed, expert.name)


SCRIPTS = {
    "two lanes to the right, then slower": [LANE_RIGHT] * 2 + [IDLE] * 4 + [SLOWER] * 4 + [IDLE] * 6,
    "faster": [FASTER] * 5 + [IDLE] * 6,
    "to the right and back": [LANE_RIGHT] + [IDLE] * 5 + [LANE_LEFT] + [IDLE] * 7,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_ends_in_the_same_lane_at_the_same_speed_on_every_simulator(alone, name):
    ends = {}
    for backend in ("engine", "highway-env", "carla-lite"):
        env = alone if backend == "carla-lite" else sim.make("lane-change", backend, EMPTY)
        drive(env, SCRIPTS[name])
        ends[backend] = env.scene().ego
    for backend in ("highway-env", "carla-lite"):
        assert ends[backend].lane == ends["engine"].lane, backend
        assert ends[backend].speed == pytest.approx(ends["engine"].speed, abs=0.4), backend
        assert abs(ends[backend].d - ends["engine"].d) < 0.3, backend


def test_the_same_seed_gives_the_same_episode_and_another_seed_another(lane_change):
    actions = np.random.default_rng(1).integers(0, 5, 12)
    first, _ = drive(lane_change, actions, seed=5)
    again, _ = drive(lane_change, actions, seed=5)
    other, _ = drive(lane_change, actions, seed=6)
    assert len(first) == len(again)
    for (obs, reward), (obs_again, reward_again) in zip(first, again, strict=True):
        assert (obs == obs_again).all()
        assert reward == reward_again
    assert not (first[-1][0] == other[-1][0]).all()


def test_the_rule_reaches_the_goal_and_results_name_the_simulator():
    envs = sim.make_vec(
        "lane-change", 1, backend="carla-lite", config={"density": [15, 15], "ahead": 150, "behind": 100}
    )
    results = run_episodes(envs, registry.make("rule", "lane-change", {}, 0), [100])
    envs.close()
    assert [result["outcome"] for result in results] == ["success"]
    assert {result["backend"] for result in results} == {"carla-lite kinematic"}
    assert all(result["lane_changes"] == 3 for result in results)


def test_running_into_the_car_ahead_is_a_crash(lane_change):
    history, info = drive(lane_change, [FASTER] * 60, seed=3)
    assert info["outcome"] == "crash"
    assert info["crashed"]
    assert history[-1][1] < -9
    assert info["summary"]["steps"] == len(history) - 1


def test_reward_terms_add_up_and_infos_report_events(alone):
    alone.reset(seed=0)
    _, reward, _, _, info = alone.step(LANE_RIGHT)
    assert sum(info["rewards"].values()) == pytest.approx(reward)
    assert info["rewards"]["lane_change"] < 0
    for _ in range(5):
        info = alone.step(IDLE)[-1]
    assert info["lane_invasions"] >= 1


def test_branching_raises_because_a_world_cannot_be_copied(lane_change):
    lane_change.reset(seed=0)
    with pytest.raises(UsageError, match="cannot be copied"):
        lane_change.branch(np.zeros((1, 1), int))


def test_steps_need_an_episode_and_actions_that_exist(lane_change):
    lane_change.reset(seed=0)
    with pytest.raises(UsageError, match="integers 0 to 4"):
        lane_change.step(7)
    drive(lane_change, [FASTER] * 60, seed=3)
    with pytest.raises(ResetNeeded):
        lane_change.step(IDLE)


def test_continuous_actions_are_pedal_and_steering():
    env = sim.make("carla-highway", "carla-lite", {"action": "continuous", "traffic": "none"})
    env.reset(seed=0)
    for _ in range(3):
        _, _, terminated, truncated, info = env.step(np.array([-1.0, 0.0]))
    assert not terminated
    assert not truncated
    assert info["speed"] < 8.0
    straight = env.scene().ego.d
    env.step(np.array([0.6, 0.1]))
    assert env.scene().ego.d > straight  # to the right
    env.close()


def test_a_car_stops_at_a_red_light_and_goes_on_when_it_is_green():
    env = sim.make("carla-intersection", "carla-lite", {"traffic": "none"})
    env.reset(seed=0)
    rule = registry.make("rule", "carla-intersection", {}, 0)
    line = env._episode.lights.lines[0]  # the light of the ego's approach
    line.light.set_state(env._session.carla.TrafficLightState.Red)
    line.light.freeze(True)
    ended = False
    for step in range(150):
        if step == 60:
            ego = env.scene().ego
            assert ego.speed < 0.5
            assert 0.0 < line.s - ego.s - ego.length / 2 < 15.0  # before the line
            line.light.set_state(env._session.carla.TrafficLightState.Green)
        scene = env.scene()
        action = rule.decide([request_of(env, scene)])[0].action
        _, _, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
        if ended:
            break
    env.close()
    assert ended
    assert info["outcome"] == "success"
    assert info["red_lights"] == 0


def test_without_the_client_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "carla", None)
    with pytest.raises(UsageError, match="CARLA client is not installed: pip install") as told:
        sim.make("lane-change", "carla-lite").reset(seed=0)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("carla@here", "write HOST:PORT"),
        ("carla@/no/such/CarlaUE4.sh", "no such file"),
        ("engine@localhost:2000", "takes no address"),
        ("carlo", "did you mean 'carla'"),
    ],
)
def test_an_invalid_backend_is_an_error_of_one_line(backend, said):
    with pytest.raises(UsageError, match=said):
        sim.make("lane-change", backend)
