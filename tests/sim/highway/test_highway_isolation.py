"""Environments share nothing: neither with each other nor with the rest of the process."""

from __future__ import annotations

import pickle

import pytest
from highway_env.envs.common.abstract import AbstractEnv
from highway_env.vehicle.behavior import AggressiveVehicle, IDMVehicle
from highway_envs import GYM_IDS, action_sequence, in_fresh_process, make_small, rollout, same, sweep

DECISIONS = 3

UPSTREAM = """
import pickle, sys
import gymnasium, highway_env
from highway_envs import action_sequence, few_cars

def rollout(name):
    if name in ("parking-ActionRepeat-v0", "parking-parked-v0", "lane-keeping-v0"):
        env = gymnasium.make(name).unwrapped
    else:
        env = gymnasium.make(name, config=few_cars(name)).unwrapped
    record = [(env.reset(seed=5)[0],)]
    for action in action_sequence(env.action_space, int(sys.argv[2]), 5):
        obs, reward, terminated, truncated, info = env.step(action)
        record.append((obs, float(reward), bool(terminated), bool(truncated), info.get("speed")))
        if terminated or truncated:
            break
    return record

names = sorted(sys.argv[3:], key=lambda name: "intersection" in name)  # these spoil the environments after them
pickle.dump({name: rollout(name) for name in names}, open(sys.argv[1], "wb"))
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory) -> dict:
    """What plain highway-env does in a process of its own, by id."""
    path = tmp_path_factory.mktemp("upstream") / "rollouts.pickle"
    in_fresh_process(UPSTREAM, str(path), str(DECISIONS), *GYM_IDS)
    return pickle.loads(path.read_bytes())


def close_to(ours: list, theirs: list, name: str) -> None:
    assert len(ours) == len(theirs), name
    for (obs, *rest), (their_obs, *their_rest) in zip(ours, theirs, strict=True):
        if name != "lane-keeping-v0":  # there upstream observes one step late
            assert same(obs, dict(their_obs) if isinstance(their_obs, dict) else their_obs), name
        if their_rest:
            assert [*rest[:3]] == their_rest[:3], name


@pytest.mark.parametrize("name", sweep(GYM_IDS))
def test_environment_equals_plain_highway_env_bit_for_bit(name: str, upstream: dict) -> None:
    close_to(rollout(make_small(name), 5, DECISIONS), upstream[name], name)


@pytest.mark.parametrize("first", ["intersection-v2", "highway-fast-v0"])
def test_intersections_and_highways_do_not_change_each_other(first: str, upstream: dict) -> None:
    names = ["intersection-v2", "highway-fast-v0"]
    if first != names[0]:
        names.reverse()
    envs = {name: make_small(name) for name in names}
    records = {name: [env.reset(seed=5)] for name, env in envs.items()}
    plans = {name: action_sequence(env.action_space, DECISIONS, 5) for name, env in envs.items()}
    for step in range(DECISIONS):
        for name, env in envs.items():
            records[name].append(env.step(plans[name][step]))
    for name in names:
        close_to(records[name][: len(upstream[name])], upstream[name], name)


def test_intersections_leave_the_shared_vehicle_classes_alone() -> None:
    for traffic in (IDMVehicle, AggressiveVehicle):
        before = (traffic.DISTANCE_WANTED, traffic.COMFORT_ACC_MAX, traffic.COMFORT_ACC_MIN)
        path = f"{traffic.__module__}.{traffic.__name__}"
        env = make_small("intersection-v2", config={"other_vehicles_type": path})
        env.reset(seed=0)
        env.step(1)
        cars = [car for car in env.inner.road.vehicles if car is not env.inner.vehicle]
        assert all(isinstance(car, traffic) for car in cars)
        assert (cars[0].DISTANCE_WANTED, cars[0].COMFORT_ACC_MAX, cars[0].COMFORT_ACC_MIN) == (7, 6, -3)
        assert before == (traffic.DISTANCE_WANTED, traffic.COMFORT_ACC_MAX, traffic.COMFORT_ACC_MIN)


def test_metadata_belongs_to_each_environment() -> None:
    before = dict(AbstractEnv.metadata)
    slow, fast = make_small("highway-fast-v0"), make_small("racetrack-v1")
    slow.reset(seed=0)
    fast.reset(seed=0)
    assert (slow.metadata["render_fps"], fast.metadata["render_fps"]) == (1, 5)
    assert before == AbstractEnv.metadata
    assert "render_fps" not in AbstractEnv.metadata
