"""gymnasium ids: `gymnasium.make`, `make_vec`, spec round trips, and Minari datasets that recover their environment."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

import sim
from sim.errors import UsageError
from tests.sim.highway.highway_envs import in_fresh_process


def test_every_built_in_driving_scenario_has_an_id():
    registered = {name.removeprefix("lgdrl/") for name in gym.registry if name.startswith("lgdrl/")}
    assert registered >= {
        name for name, scenario in sim.registry().items() if scenario.driving and not name.startswith("third-")
    }
    assert "lane-change" in registered


def test_made_by_id_it_is_the_same_environment():
    by_id = gym.make("lgdrl/highway-fast-v0", config={"vehicles_count": 5})
    ours = sim.make("highway-fast-v0", config={"vehicles_count": 5})
    assert by_id.unwrapped.backend == "engine"
    np.testing.assert_array_equal(by_id.reset(seed=3)[0], ours.reset(seed=3)[0])
    np.testing.assert_array_equal(by_id.step(1)[0], ours.step(1)[0])
    assert by_id.unwrapped.scene() == ours.scene()


def test_config_backend_and_render_mode_are_passed_on():
    env = gym.make("lgdrl/merge-v1", backend="highway-env", render_mode="rgb_array", config={"duration": 2})
    assert env.unwrapped.backend == "highway-env"
    assert env.unwrapped.config["duration"] == 2.0
    env.reset(seed=0)
    assert env.render().ndim == 3
    with pytest.raises(UsageError, match="did you mean 'lanes_count'"):
        gym.make("lgdrl/highway-v0", config={"lane_count": 3})
    with pytest.raises(gym.error.NameNotFound):
        gym.make("lgdrl/no-such-scenario")


@pytest.mark.parametrize("name", ["highway-fast-v0", "lane-change", "parking-v0"])
def test_make_vec_uses_the_batch_where_there_is_one(name):
    made = gym.make_vec(f"lgdrl/{name}", num_envs=3, autoreset_mode=AutoresetMode.SAME_STEP)
    ours = sim.make_vector(name, 3, autoreset="SameStep")
    assert type(made.unwrapped) is type(ours)
    assert made.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    first, second = made.reset(seed=4)[0], ours.reset(seed=4)[0]
    np.testing.assert_equal(first, second)
    again = gym.make_vec(made.spec)
    assert again.num_envs == 3
    np.testing.assert_equal(again.reset(seed=4)[0], first)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasiums_own_vectorisations_take_the_ids_too(mode):
    envs = gym.make_vec("lgdrl/highway-fast-v0", num_envs=2, vectorization_mode=mode)
    obs, _ = envs.reset(seed=1)
    assert obs.shape == (2, 5, 5)
    envs.close()


@pytest.mark.parametrize("make", [sim.make, lambda name, **more: gym.make(f"lgdrl/{name}", **more)])
def test_specs_survive_json(make):
    env = make("highway-fast-v0", config={"vehicles_count": 4, "action": {"target_speeds": [10, 20, 30]}})
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.config == env.unwrapped.config
    np.testing.assert_array_equal(again.reset(seed=0)[0], env.reset(seed=0)[0])


@pytest.mark.parametrize("order", ["import sim, gymnasium", "import gymnasium, sim", "import lgdrl.cli, gymnasium"])
def test_importing_the_package_is_enough_in_either_order(order):
    assert in_fresh_process(f"{order}; print('lgdrl/highway-fast-v0' in gymnasium.registry)").strip() == "True"


def test_gymnasium_imports_the_package_where_the_id_names_it():
    code = "import gymnasium; print(gymnasium.make('sim:lgdrl/u-turn-v1').unwrapped.scenario)"
    assert in_fresh_process(code).strip() == "u-turn-v1"


def test_importing_the_package_does_not_import_gymnasium():
    assert in_fresh_process("import sim, sys; print('gymnasium' in sys.modules)").strip() == "False"


def test_an_exported_dataset_recovers_its_environment(tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    minari = pytest.importorskip("minari")
    from experts.data.minari_datasets import export_dataset
    from tests.recordings import drive

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    episode = drive("highway-fast-v0", seed=3, config={"vehicles_count": 5, "duration": 4})
    export_dataset([episode], "highway-fast/test-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recovered = minari.load_dataset("highway-fast/test-v0").recover_environment()
    assert recovered.unwrapped.config["vehicles_count"] == 5
    np.testing.assert_array_equal(recovered.reset(seed=3)[0], episode.turns[0].obs)
    for turn in episode.turns:
        _, reward, *_ = recovered.step(turn.action)
        assert reward == turn.reward
