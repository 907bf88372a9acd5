"""Every registered highway-env environment can be made, driven, described and drawn."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from highway_envs import GYM_IDS, NAMES, action_sequence, in_fresh_process, make_small, sweep

import sim
from sim.actions import MetaAction
from sim.errors import UsageError


def test_every_single_agent_id_of_highway_env_is_a_scenario() -> None:
    import highway_env  # noqa: F401  (registers its ids)

    theirs = {
        spec.id
        for spec in gymnasium.registry.values()
        if str(spec.entry_point).startswith("highway_env.") and "multi-agent" not in spec.id
    }
    assert theirs == set(GYM_IDS)
    assert {"dense-2.0", "dense-2.5", "dense-3.0", "dense-2.0-paper", "dense-2.5-paper", "dense-3.0-paper"} <= set(
        NAMES
    )


def test_summaries_say_what_success_is() -> None:
    assert all("success: " in sim.get(name).summary for name in NAMES)


def test_listing_scenarios_imports_nothing_heavy() -> None:
    heavy = in_fresh_process(
        """
        import sys, sim
        sim.registry()
        print([name for name in ("torch", "highway_env", "pandas", "matplotlib", "pygame") if name in sys.modules])
        """
    )
    assert heavy.strip() == "[]"


@pytest.mark.parametrize("name", sweep(NAMES))
def test_environment_drives_describes_and_draws(name: str) -> None:
    env = make_small(name, render_mode="rgb_array")
    obs, info = env.reset(seed=1)
    assert env.observation_space.contains(obs)
    assert info["backend"] == "highway-env"
    assert not info["crashed"]
    for action in action_sequence(env.action_space, 5):
        obs, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(obs)
        assert type(reward) is float
        assert np.isfinite(reward)
        assert {"crashed", "speed", "backend"} <= set(info)
        if terminated or truncated:
            assert info["outcome"] in ("success", "crash", "missed")
            assert info["success"] == info["summary"]["success"] == (info["outcome"] == "success")
            break
    check_scene(env)
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.std() > 1
    env.close()


def check_scene(env) -> None:
    scene = env.scene()
    cars = scene.vehicles
    columns = (cars.x, cars.y, cars.heading, cars.speed, cars.acceleration, cars.s, cars.d, cars.lane, cars.length)
    assert {column.shape for column in (*columns, cars.width, cars.crashed, cars.ids)} == {(len(cars),)}
    assert len(set(cars.ids.tolist())) == len(cars)
    assert 0 not in cars.ids
    assert (np.isnan(cars.s) == np.isnan(cars.d)).all()
    assert (cars.lane[np.isnan(cars.s)] == -1).all()
    assert (cars.lane < scene.num_lanes).all()
    assert 0 <= scene.ego.lane < scene.num_lanes
    assert 0 <= scene.ego.target_lane < scene.num_lanes
    assert scene.legal.dtype == bool
    assert (scene.legal == env.action_masks()).all()
    if scene.set_points:
        assert 0 <= scene.ego.speed_index < len(scene.set_points)
        assert scene.legal.shape == (env.action_space.n,)
    assert scene.shapes
    for shape in scene.shapes:
        assert shape.center.ndim == 2
        assert shape.center.shape[1] == 2
        assert {shape.left, shape.right} <= {"none", "broken", "solid"}


def test_action_ids_are_those_of_highway_env() -> None:
    def ids(name: str, **action) -> dict[str, int]:
        return make_small(name, config={"action": action}).inner.action_type.actions_indexes

    assert ids("highway-fast-v0") == {action.name: int(action) for action in MetaAction}
    assert ids("intersection-v2") == {"SLOWER": 0, "IDLE": 1, "FASTER": 2}
    assert ids("highway-fast-v0", longitudinal=False) == {"LANE_LEFT": 0, "IDLE": 1, "LANE_RIGHT": 2}


def test_scenarios_declare_their_kind_of_actions() -> None:
    kinds = {"meta": 5, "longitudinal": 3}
    for name in NAMES:
        space, kind = make_small(name).action_space, sim.get(name).actions
        assert getattr(space, "n", None) == kinds.get(kind), name


def test_dense_environments_differ_in_density_and_set_points_only() -> None:
    slow, paper = sim.get("dense-2.5").defaults, sim.get("dense-2.5-paper").defaults
    assert (slow.vehicles_count, slow.lanes_count, slow.duration, slow.simulation_frequency) == (50, 4, 30.0, 15)
    assert slow.vehicles_density == paper.vehicles_density == 2.5
    assert slow.action["target_speeds"] == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]
    env = sim.make("dense-2.5-paper", "highway-env", config={"vehicles_count": 2})
    env.reset(seed=0)
    assert env.scene().set_points == (20.0, 25.0, 30.0)


@pytest.mark.parametrize("name", ["highway-fast-v0", "u-turn-v1", "parking-v0", "lane-keeping-v0"])
def test_checkers_of_gymnasium_and_sb3_are_satisfied(name: str) -> None:
    from gymnasium.utils.env_checker import check_env
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    check_env(make_small(name, render_mode="rgb_array"))
    check_for_sb3(make_small(name, render_mode="rgb_array"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_checkers_are_satisfied_by_every_environment(name: str) -> None:
    test_checkers_of_gymnasium_and_sb3_are_satisfied(name)


def test_unknown_scenario_suggests_a_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'highway-fast-v0'"):
        sim.make("highway-fast")
