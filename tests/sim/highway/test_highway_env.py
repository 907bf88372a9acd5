"""One environment's contract: determinism, time limits, errors, summaries, branches, and saving."""

from __future__ import annotations

import math
import pickle

import gymnasium as gym
import numpy as np
import pytest
from highway_envs import NAMES, action_sequence, in_fresh_process, make_small, rollout, same

import sim
from sim.errors import UsageError

LANE_LEFT, IDLE, LANE_RIGHT, FASTER, SLOWER = range(5)
QUICK = ["highway-fast-v0", "merge-v1", "exit-v1", "intersection-v2", "parking-v0", "racetrack-v1", "lane-keeping-v0"]


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(set(NAMES) - set(QUICK)))]
)
def test_same_seed_same_episode_infos_included(name: str) -> None:
    env = make_small(name)
    first = rollout(env, 7, 3)
    assert same(first, rollout(env, 7, 3)), "the same environment again"
    assert same(first, rollout(make_small(name), 7, 3)), "another environment"


def test_seed_also_seeds_sampled_actions() -> None:
    env = make_small("highway-fast-v0")
    env.reset(seed=3)
    sampled = [env.action_space.sample() for _ in range(10)]
    env.reset(seed=3)
    assert sampled == [env.action_space.sample() for _ in range(10)]


@pytest.mark.parametrize(("name", "limit"), [("merge-v0", 2.0), ("two-way-v0", 2.0), ("lane-keeping-v0", 0.5)])
def test_environments_without_a_time_limit_get_one(name: str, limit: float) -> None:
    env = make_small(name, config={"duration": limit})
    env.reset(seed=0)
    idle = IDLE if hasattr(env.action_space, "n") else np.zeros(env.action_space.shape, np.float32)
    for _ in range(round(limit / env.scene().decision_period)):
        _, _, terminated, truncated, info = env.step(idle)
    assert truncated
    assert not terminated
    assert info["summary"]["steps"] * env.scene().decision_period == pytest.approx(limit)


def test_stopped_ego_in_merge_is_truncated_and_has_missed() -> None:
    env = make_small("merge-v1", config={"action": {"target_speeds": [0, 10, 20, 30]}})
    env.reset(seed=0)
    env.inner.road.vehicles[:] = [env.inner.vehicle]  # no car to push it
    for _ in range(30):
        _, _, terminated, truncated, info = env.step(SLOWER)
    assert abs(env.scene().ego.speed) < 0.1
    assert (terminated, truncated, info["outcome"]) == (False, True, "missed")


def test_lane_keeping_observes_after_moving() -> None:
    env = sim.make("lane-keeping-v0", "highway-env", config={"state_noise": 0, "derivative_noise": 0})
    env.reset(seed=0)
    obs, _, _, _, info = env.step(np.array([0.3], np.float32))
    assert (obs["state"] == env.inner.vehicle.state[[1, 2, 4, 5]]).all()
    assert not info["crashed"]
    assert info["speed"] > 0


def test_faster_counts_from_the_present_speed() -> None:
    env = sim.make(
        "highway-fast-v0", "highway-env", config={"vehicles_count": 0, "action": {"target_speeds": [0, 10, 20, 30]}}
    )
    env.reset(seed=0)
    env.inner.vehicle.speed, env.inner.vehicle.target_speed, env.inner.vehicle.speed_index = 10.0, 10.0, 1
    env.inner.vehicle.KP_A = 0.1  # too weak to reach the next set-point within a decision
    env.step(FASTER)
    assert env.scene().ego.speed_index == 2
    env.step(FASTER)
    assert env.scene().ego.speed < 15
    assert env.scene().ego.speed_index == 2


@pytest.mark.parametrize("action", [5, -1, 1.0, None, [1, 2], "FASTER"])
def test_actions_that_do_not_exist_are_refused(action) -> None:
    env = make_small("highway-fast-v0")
    env.reset(seed=0)
    with pytest.raises(UsageError, match="integers 0 to 4"):
        env.step(action)


@pytest.mark.parametrize("action", [[0.1], [math.nan, 0.0], 3])
def test_continuous_actions_of_the_wrong_shape_are_refused(action) -> None:
    env = make_small("parking-v0")
    env.reset(seed=0)
    with pytest.raises(UsageError, match="shape"):
        env.step(action)


def test_stepping_needs_a_running_episode() -> None:
    env = make_small("highway-fast-v0", config={"duration": 1})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(IDLE)
    env.reset(seed=0)
    env.step(IDLE)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(IDLE)
    with pytest.raises(gym.error.ResetNeeded):
        env.branch(np.array([[IDLE]]))


def test_summary_adds_the_episode_up() -> None:
    env = sim.make("highway-fast-v0", "highway-env", config={"vehicles_count": 0, "duration": 6})
    _, info = env.reset(seed=0)
    start = env.scene().ego
    rewards, speeds, lanes = [], [], [start.lane]
    for action in (LANE_LEFT if start.lane else LANE_RIGHT, IDLE, FASTER, IDLE, IDLE, IDLE):
        _, reward, _, _, info = env.step(action)
        rewards.append(reward)
        speeds.append(info["speed"])
        lanes.append(env.scene().ego.lane)
    summary = info["summary"]
    assert summary["outcome"] == "success"
    assert summary["steps"] == 6
    assert summary["episode_return"] == pytest.approx(sum(rewards))
    assert summary["mean_speed"] == pytest.approx(np.mean(speeds))
    assert summary["lane_changes"] == np.count_nonzero(np.diff(lanes)) == 1
    assert summary["min_ttc"] == math.inf
    assert summary["distance"] == pytest.approx(env.scene().ego.x - start.x, rel=0.01)
    assert summary["backend"] == "highway-env"


def test_min_ttc_is_the_smallest_over_all_decisions() -> None:
    env = sim.make("highway-fast-v0", "highway-env", config={"duration": 8})
    env.reset(seed=2)
    seen = [env.scene()]
    for _ in range(8):
        _, _, terminated, truncated, info = env.step(IDLE)
        seen.append(env.scene())
        if terminated or truncated:
            break
    fronts = [scene.front(scene.ego.lane) for scene in seen]
    assert info["summary"]["min_ttc"] == min(math.inf if car is None else car.ttc for car in fronts) < math.inf


def test_crash_is_reported() -> None:
    env = sim.make("highway-fast-v0", "highway-env")
    env.reset(seed=0)
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, info = env.step(FASTER)
    assert (info["outcome"], info["success"], info["crashed"]) == ("crash", False, True)
    assert env.scene().ego.crashed


# -- branches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["highway-fast-v0", "intersection-v2", "merge-v1"])
def test_branches_foretell_what_happens_and_leave_the_environment_alone(name: str) -> None:
    env = make_small(name)
    env.reset(seed=4)
    env.step(IDLE)
    actions = env.action_space.n
    plans = np.random.default_rng(0).integers(actions, size=(4, 3))
    plans[1, :2] = plans[0, :2]  # a shared beginning
    before = env.get_state()
    branches = env.branch(plans)
    assert same(before["environment"], env.get_state()["environment"]), "the environment has not moved"
    for row, plan in enumerate(plans):
        env.set_state(before)
        rewards, ended = [], False
        for action in plan:
            _, reward, terminated, truncated, info = env.step(int(action))
            rewards.append(reward)
            if ended := terminated or truncated:
                break
        assert branches.steps[row] == len(rewards)
        assert branches.rewards[row].tolist() == rewards + [0.0] * (3 - len(rewards))
        assert branches.ended[row] == ended
        assert branches.crashed[row] == info["crashed"]
        assert branches.success[row] == info.get("success", False)
        scene = env.scene()
        ego, front = scene.ego, scene.front(scene.ego.target_lane)
        gap = math.inf if front is None else front.gap
        assert branches.final[row].tolist() == [ego.s, ego.d, ego.lane, ego.target_lane, ego.speed, gap]


def test_branching_ends_where_the_episode_ends() -> None:
    env = sim.make("highway-fast-v0", "highway-env", config={"vehicles_count": 0, "duration": 2})
    env.reset(seed=0)
    branches = env.branch(np.full((1, 5), IDLE))
    assert branches.steps.tolist() == [2]
    assert branches.ended.all()
    assert branches.success.all()


def test_branching_refuses_what_it_cannot_do() -> None:
    env = make_small("highway-fast-v0")
    env.reset(seed=0)
    for plans, message in (([[5]], "actions 5 to 5"), ([1], "shape"), ([[0.5]], "integers")):
        with pytest.raises(UsageError, match=message):
            env.branch(np.array(plans))
    steering = make_small("racetrack-v1")
    steering.reset(seed=0)
    with pytest.raises(UsageError, match=r"finite numbers of shape \(P, H, 1\)"):
        steering.branch(np.array([[0]]))


def test_observations_that_draw_random_numbers_do_not_change_the_future() -> None:
    env = make_small("intersection-v2", config={"observation": {"order": "shuffled"}})
    env.reset(seed=1)
    foretold = env.branch(np.array([[2, 2, 2]])).rewards[0]
    assert foretold.tolist() == [env.step(2)[1] for _ in range(3)]


# -- saving ------------------------------------------------------------------------------------------------------------

CONTINUE = """
import pickle, sys
from highway_envs import make_small, action_sequence
state, name = pickle.load(open(sys.argv[1], "rb")), sys.argv[2]
environment = make_small(name)
environment.set_state(state)
record = []
for action in action_sequence(environment.action_space, 6, 9):
    record.append(environment.step(action))
    if record[-1][2] or record[-1][3]:
        record.append(environment.reset())
pickle.dump(record, open(sys.argv[3], "wb"))
"""


@pytest.mark.parametrize("name", ["intersection-v2"])
def test_saved_environment_continues_identically_in_a_fresh_process(name: str, tmp_path) -> None:
    env = make_small(name)
    rollout(env, 11, 2)
    (tmp_path / "state").write_bytes(pickle.dumps(env.get_state()))
    expected = []
    for action in action_sequence(env.action_space, 6, 9):
        expected.append(env.step(action))
        if expected[-1][2] or expected[-1][3]:
            expected.append(env.reset())
    in_fresh_process(CONTINUE, str(tmp_path / "state"), name, str(tmp_path / "record"))
    assert same(expected, pickle.loads((tmp_path / "record").read_bytes()))


@pytest.mark.parametrize("name", QUICK)
def test_saved_environment_continues_identically_in_another_environment(name: str) -> None:
    env, other = make_small(name), make_small(name)
    env.reset(seed=2)
    env.step(action_sequence(env.action_space, 1)[0])
    other.set_state(pickle.loads(pickle.dumps(env.get_state())))
    for action in action_sequence(env.action_space, 3, 1):
        assert same(env.step(action), other.step(action))
        if env.get_state()["episode"]["ended"]:
            break
    assert same(env.reset(), other.reset())
    assert same(env.action_space.sample(), other.action_space.sample())


def test_state_of_another_environment_is_refused() -> None:
    state = make_small("highway-fast-v0").get_state()
    with pytest.raises(UsageError, match="use the same scenario"):
        make_small("merge-v1").set_state(state)
    with pytest.raises(UsageError, match="use the same scenario"):
        make_small("highway-fast-v0", config={"lanes_count": 2}).set_state(state)


def test_grayscale_environments_can_be_saved_and_branched() -> None:
    look = {"type": "GrayscaleObservation", "observation_shape": [64, 32], "stack_size": 2, "weights": [0.3, 0.6, 0.1]}
    env = make_small("highway-fast-v0", config={"observation": look})
    env.reset(seed=0)
    env.branch(np.array([[IDLE, IDLE]]))
    other = make_small("highway-fast-v0", config={"observation": look})
    other.set_state(pickle.loads(pickle.dumps(env.get_state())))
    obs = env.step(IDLE)[0]
    assert obs.std() > 1
    assert same(obs, other.step(IDLE)[0])
