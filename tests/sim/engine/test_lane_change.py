"""The lane-change task: the published facts, and the engine as a batch of exact, independent environments."""

from __future__ import annotations

import csv
import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_sb3

import sim
from sim import lane_change as task
from sim.actions import MetaAction
from sim.config import fingerprint, resolve
from sim.engine import batch as batch_module
from sim.engine import lane_traffic as engine
from sim.engine.families.lane_change import LaneChangeBatch
from sim.engine.rng import next_double, seeded_stream
from sim.errors import UsageError
from sim.lane_change import LaneChangeConfig, draw_traffic
from sim.outcome import Outcome

PUBLISHED = Path(__file__).parents[2] / "data" / "published_episode.csv"


def published_rows():
    with PUBLISHED.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def make_batch(num_envs=1, seeds=None, threads=1, **config):
    batch = LaneChangeBatch(resolve(LaneChangeConfig(), config), num_envs, threads)
    batch.seed(range(num_envs), range(num_envs) if seeds is None else seeds)
    batch.reset()
    return batch


def random_walk(batch, steps, seed=0, only=None):
    """Random legal actions, resetting what ends; returns every observation and reward."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        drawn = rng.random((1024, batch.num_actions))[: batch.num_envs]
        actions = np.where(batch.masks, drawn, -1).argmax(axis=1)
        batch.step(actions)
        seen.append((batch.obs.copy(), batch.rewards.copy(), batch.outcomes.copy()))
        ended = np.flatnonzero(batch.outcomes)
        if ended.size:
            batch.reset(ended)
    return seen


# --- the published episode -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["engine", "highway-env"])
def test_published_kinematics_are_reproduced_within_5_cm_per_decision(backend):
    env = sim.make("lane-change", backend, {"layout": "published"})
    env.reset(seed=0)
    if backend == "engine":  # the ego alone: the published traffic is only known in part
        env.batch.state.bodies[0, engine.X] += 5000.0
    else:
        del env.inner.road.vehicles[1:]
    rows = published_rows()
    assert len(rows) > 20
    for now, after in itertools.pairwise(rows):
        before = env.scene().ego.x
        env.step(int(now["agent_action"]))
        ego = env.scene().ego
        assert ego.x - before == pytest.approx(float(after["x"]) - float(now["x"]), abs=0.05)
        assert ego.x == pytest.approx(float(after["x"]), abs=0.05)
        assert ego.speed == pytest.approx(float(after["speed"]), abs=0.006)
        assert ego.lane == int(after["lane"])


def test_published_layout_is_frame_0_of_the_video():
    scene = make_batch(layout="published").scene(0)
    for lane, offsets in enumerate(task.PUBLISHED_OFFSETS):
        near = scene.vehicles.x[(scene.vehicles.lane == lane)] - 500.0
        assert sorted(near[(near > -59) & (near < 141)]) == pytest.approx(offsets)
    assert scene.front(1).dx == pytest.approx(38.13, abs=0.2)  # car 552 of the text
    assert scene.rear(1).speed == 19.5  # car 600


def test_speed_grid_and_start():
    scene = make_batch().scene(0)
    assert scene.set_points == pytest.approx(np.linspace(6, 28, 20))
    assert (scene.ego.x, scene.ego.speed, scene.ego.lane, scene.goal.lane, scene.goal.s) == (500.0, 20.0, 0, 3, 1000.0)


def test_traffic_keeps_its_lane_and_its_acceleration_limit():
    batch = make_batch(32)
    for _ in range(40):
        batch.step(np.full(32, 4))
        running = batch.outcomes == Outcome.RUNNING
        assert np.abs(batch.state.bodies[running][:, engine.A]).max() <= 2.0
        lanes = np.repeat(np.arange(4) * 4.0, batch.state.bodies.shape[2] // 4)
        assert (batch.state.bodies[running][:, engine.Y] == lanes).all()
        batch.reset(np.flatnonzero(~running))


# --- random layouts --------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**63), skip=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_the_stream_is_numpys_pcg64(seed, skip):
    generator, stream = np.random.Generator(np.random.PCG64(seed)), seeded_stream(seed)
    for _ in range(skip):
        generator.random(), next_double(stream)
    assert [next_double(stream) for _ in range(50)] == list(generator.random(50))


@given(
    seed=st.integers(0, 2**32),
    density=st.tuples(st.floats(10, 40), st.floats(10, 40)).map(lambda pair: tuple(sorted(pair))),
    phase=st.sampled_from(["level", "random"]),
)
@settings(max_examples=15, deadline=None)
def test_drawn_traffic_equals_the_numpy_definition(seed, density, phase):
    config = LaneChangeConfig(density=density, phase=phase, behind=100.0, ahead=100.0)
    batch = LaneChangeBatch(config, 1)
    batch.seed([0], [seed])
    batch.reset()
    expected = draw_traffic(config, np.random.Generator(np.random.PCG64(seed)))
    cars = batch.state.bodies[0]
    for row, values in (
        (engine.X, expected.x),
        (engine.V, expected.speed),
        (engine.A_MAX, expected.acceleration),
        (engine.HEADWAY, expected.headway),
    ):
        assert np.array_equal(cars[row], values.ravel())


def test_default_density_is_25_per_km_and_lane():
    batch = make_batch(200)
    x = batch.state.bodies[:, engine.X].reshape(200, 4, -1)
    per_km = 1000.0 / np.diff(x, axis=2).mean()
    assert per_km == pytest.approx(25.0, rel=0.02)


# --- exact, independent environments -------------------------------------------------------------------------------


def test_batch_size_and_place_in_the_batch_do_not_matter():
    seeds = [7, 3, 11, 5]
    together = make_batch(4, seeds)
    alone = [make_batch(1, [seed]) for seed in seeds]
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = rng.integers(0, 5, 4)
        together.step(actions)
        for i, batch in enumerate(alone):
            batch.step(actions[i : i + 1])
            assert np.array_equal(batch.obs[0], together.obs[i])
            assert batch.rewards[0] == together.rewards[i]
            if batch.outcomes[0]:
                batch.reset()
        together.reset(np.flatnonzero(together.outcomes))


def test_two_threads_give_the_bits_of_one():
    num = batch_module.PARALLEL_FROM
    serial, parallel = make_batch(num), make_batch(num, threads=2)
    assert parallel.parallel
    for one, two in zip(random_walk(serial, 25), random_walk(parallel, 25), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_clone_has_the_same_future_and_its_own_state():
    batch = make_batch(3)
    random_walk(batch, 5)
    batch.clone(0, [1, 2])
    for _ in range(30):
        batch.step(np.array([4, 4, 4]))
        assert all(np.array_equal(batch.state.bodies[0], batch.state.bodies[i]) for i in (1, 2))
        if batch.outcomes.any():
            batch.reset()  # cloned streams: even the next episodes agree
    batch.step(np.array([3, 4, 4]))
    assert batch.state.envs["speed"][0] != batch.state.envs["speed"][1]


def test_state_survives_pickling_with_its_future():
    vec = sim.make_vec("lane-change", 8, seed=3)
    vec.reset()
    for _ in range(6):
        vec.step(np.full(8, 2))
    kept = pickle.loads(pickle.dumps(vec.get_state()))
    future = [vec.step(np.full(8, a)) for a in (4, 4, 2, 2, 1, 0) * 4]
    other = sim.make_vec("lane-change", 8, seed=99)
    other.reset()
    other.set_state(kept)
    again = [other.step(np.full(8, a)) for a in (4, 4, 2, 2, 1, 0) * 4]
    for (obs, rewards, dones, _), (obs2, rewards2, dones2, _) in zip(future, again, strict=True):
        assert np.array_equal(obs, obs2)
        assert np.array_equal(rewards, rewards2)
        assert np.array_equal(dones, dones2)


def test_branching_foretells_the_future_and_leaves_the_environment_alone():
    batch = make_batch(2)
    plan = np.array([4, 4, 1, 2, 4, 1, 3, 1])
    before = batch.get_state()
    branches = batch.branch(1, np.stack([plan, np.full(8, 1)]))
    assert all(np.array_equal(a, b) for a, b in zip(before, batch.get_state(), strict=True))
    rewards = []
    for action in plan:
        batch.step(np.array([1, action]))
        rewards.append(batch.rewards[1])
        if batch.outcomes[1]:
            break
    steps = branches.steps[0]
    assert steps == len(rewards)
    assert list(branches.rewards[0, :steps]) == rewards
    assert branches.final[0, 0] == batch.state.envs["x"][1]
    assert branches.crashed[0] == (batch.outcomes[1] == Outcome.CRASH)


def test_search_path_and_row_path_agree():
    """The general search, forced on environments that are in order, gives the bits of the vector loops."""
    fast, slow = make_batch(16), make_batch(16)
    rng = np.random.default_rng(4)
    for _ in range(30):
        slow.state.envs["disorder"][:] = 1
        actions = rng.integers(0, 5, 16)
        fast.step(actions)
        slow.step(actions)
        assert np.array_equal(fast.obs, slow.obs)
        assert np.array_equal(fast.state.bodies, slow.state.bodies)
        ended = np.flatnonzero(fast.outcomes)
        fast.reset(ended)
        slow.reset(ended)


# --- task ------------------------------------------------------------------------------------------------------------


def test_at_another_decision_frequency_the_same_commands_lead_to_the_same_bits():
    plain, fine = (
        sim.make("lane-change"),
        sim.make("lane-change", config={"decision_frequency": 20, "time_limit": 1200}),
    )
    rng, compared = np.random.default_rng(0), 0
    for seed in range(12):
        plain.reset(seed=seed)
        fine.reset(seed=seed)
        ended = False
        while not ended:
            action = int(rng.choice(np.flatnonzero(plain.action_masks())))
            ended = plain.step(action)[2]
            for step in range(10):
                if fine.step(action if step == 0 else int(MetaAction.IDLE))[2]:
                    ended = True
                    break
            if not ended:
                one, other = plain.scene(), fine.scene()
                assert one.ego == replace(other.ego, speed_index=one.ego.speed_index)
                assert (one.vehicles.x == other.vehicles.x).all()
                compared += 1
    assert compared > 50


def test_out_of_time_is_a_miss_after_120_decisions():
    batch = make_batch(1, density=(1.0, 1.0))
    for step in range(1, 121):
        batch.step(np.array([4]))
        assert (batch.outcomes[0] == Outcome.MISSED) == (step == 120)
    assert batch.rewards[0] < -4


def test_driving_past_the_line_in_the_wrong_lane_is_a_miss_and_in_the_right_one_a_success():
    for last_lane, expected in ((0, Outcome.MISSED), (3, Outcome.SUCCESS)):
        batch = make_batch(1, density=(1.0, 1.0))
        while not batch.outcomes[0]:
            lane = int(batch.state.envs["lane"][0])
            batch.step(np.array([2 if lane < last_lane else 1]))
        assert batch.outcomes[0] == expected
        assert batch.summary(0).lane_changes == last_lane


def test_a_crash_costs_10_and_ends_the_episode():
    vec = sim.make_vec("lane-change", 1, seed=0)
    vec.reset()
    for _ in range(120):
        _, rewards, dones, infos = vec.step(np.array([3]))
        if dones[0]:
            break
    assert infos[0]["outcome"] == "crash"
    assert infos[0]["crashed"]
    assert rewards[0] < -9


def test_infos_hold_what_sb3_needs():
    vec = sim.make_vec("lane-change", 4, seed=0)
    obs = vec.reset()
    kept = obs.copy()
    finished = 0
    for _ in range(60):
        obs, _, dones, infos = vec.step(np.full(4, 3))
        for i in np.flatnonzero(dones):
            info = infos[i]
            assert info["terminal_observation"].shape == (29,)
            assert not np.array_equal(info["terminal_observation"], obs[i])
            assert info["TimeLimit.truncated"] is False
            assert info["episode"]["l"] == info["summary"]["steps"]
            assert info["terminal_action_mask"].shape == (5,)
            finished += 1
    assert finished
    assert np.array_equal(kept, sim.make_vec("lane-change", 4, seed=0).reset())  # observations are copies


def test_engine_env_passes_the_checkers():
    check_gymnasium(sim.make("lane-change"), skip_render_check=True)
    check_sb3(sim.make("lane-change"))


def test_seeds_agree_between_single_batched_and_highway_env():
    single, _ = sim.make("lane-change").reset(seed=17)
    batched = sim.make_vec("lane-change", 3, seed=15).reset()[2]
    reference, _ = sim.make("lane-change", "highway-env").reset(seed=17)
    assert np.array_equal(single, batched)
    assert np.array_equal(single, reference)


# --- config ----------------------------------------------------------------------------------------------------------


def test_config_hash_follows_the_values_only():
    assert fingerprint(LaneChangeConfig()) == fingerprint(resolve(LaneChangeConfig(), {"density": [25.0, 25.0]}))
    assert fingerprint(LaneChangeConfig()) != fingerprint(LaneChangeConfig(density=(25.0, 26.0)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"densty": [20, 30]}, "did you mean 'density'"),
        ({"density": [30, 20]}, "density"),
        ({"density": "dense"}, "density"),
        ({"lanes": 1}, "lanes"),
        ({"goal_lane": 4}, "the lanes are 0 to 3"),
        ({"slowest": 30.0}, "choose slowest < fastest"),
        ({"layout": "publised"}, "layout"),
        ({"layout": "published", "lanes": 3, "goal_lane": 2}, "4 lanes"),
        ({"reward": {"crsh": 1}}, "did you mean 'crash'"),
        ({"goal_distance": 9000.0}, "10 km"),
    ],
)
def test_bad_config_is_one_clear_line(config, words):
    with pytest.raises(UsageError) as error:
        sim.make("lane-change", config=config)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_actions_that_do_not_exist_are_refused():
    env = sim.make("lane-change")
    env.reset(seed=0)
    for action in (5, -1, 1.5, "left"):
        with pytest.raises(UsageError, match="actions are the integers 0 to 4"):
            env.step(action)
    with pytest.raises(UsageError, match="threads"):
        LaneChangeBatch(LaneChangeConfig(), 4, threads=10_000)
