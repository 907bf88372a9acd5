"""Stopped and resumed, saved, exported, looked at: every learner goes on, and acts, as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces

import sim
from lgdrl.learners.files import load_policy_file, policy_bytes
from tests.lgdrl.learners.models import ACTIONS, CLASSES, SMALL, Spaces, assert_equal_parameters, box

torch.set_num_threads(1)

RUNS = [
    ("sac", "gym:Pendulum-v1", "fused"),
    ("sac", "gym:Pendulum-v1", "torch"),
    ("td3", "gym:Pendulum-v1", "fused"),
    ("td3", "gym:Pendulum-v1", "torch"),
    ("dqn", "gym:CartPole-v1", "fused"),
    ("dqn", "gym:CartPole-v1", "torch"),
    ("dqn", "gym:CartPole-v1", "dueling"),
    ("dqn", "lane-change", "fused"),
    ("ppo", "gym:Pendulum-v1", "torch"),
    ("ppo", "gym:CartPole-v1", "torch"),
    ("ppo", "lane-change", "torch"),
]
ENVS, TOTAL = 4, 256


def fresh(name: str, scenario: str, core: str, seed: int = 0):
    envs = sim.make_vec(scenario, ENVS, seed=seed)
    changes = {"buffer_size": 150}  # the ring turns over
    if name == "ppo":
        changes |= {"rollout": 32}
    else:
        changes |= {"learning_starts": 40, "updates_per_decision": 0.3, "core": "torch" if core == "dueling" else core}
    if name == "dqn":
        changes |= {"dueling": core == "dueling", "target_interval": 20, "exploration_decisions": 200, "n_step": 3}
    config = dataclasses.replace(SMALL[name], **changes)
    return CLASSES[name](envs, config, seed=seed, device="cpu")


def without_clock(state: dict) -> dict:
    """SB3's episode infos hold wall-clock times; where the last call of learn began is for its fps only."""
    for key in ("_num_timesteps_at_start", "_total_timesteps", "_current_progress_remaining"):
        state["counters"].pop(key, None)
    return {key: state[key] for key in ("replay", "strategy", "collector", "learner", "counters")}


def assert_same(one, other, where: str = "state") -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_same(value, other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(one, np.ndarray | torch.Tensor):
        assert np.array_equal(np.asarray(one), np.asarray(other)), where
    else:
        assert one == other, where


@pytest.mark.parametrize(("name", "scenario", "core"), RUNS)
def test_a_resumed_run_is_identical_to_the_bit(name, scenario, core):
    straight, first = fresh(name, scenario, core), fresh(name, scenario, core)
    straight.learn(TOTAL)
    for _ in range(4):  # in slices of a rollout
        first.learn(32, reset_num_timesteps=False)
    saved = pickle.dumps((first.state_dict(), first.envs.get_state()))
    first.learn(32, reset_num_timesteps=False)  # going on does not touch what was saved
    model_state, env_state = pickle.loads(saved)
    resumed = fresh(name, scenario, core, seed=99)
    resumed.load_state_dict(model_state)
    resumed.envs.set_state(env_state)
    for _ in range(4):
        resumed.learn(32, reset_num_timesteps=False)
    assert straight._n_updates == resumed._n_updates > 10
    assert_equal_parameters(straight, resumed)
    assert_same(without_clock(straight.state_dict()), without_clock(resumed.state_dict()))


@pytest.mark.parametrize(("name", "scenario", "core"), RUNS)
def test_predictions_during_training_change_nothing_in_it(name, scenario, core):
    calm, watched = fresh(name, scenario, core), fresh(name, scenario, core)
    rng = np.random.default_rng(0)
    for _ in range(4):
        calm.learn(32, reset_num_timesteps=False)
        watched.learn(32, reset_num_timesteps=False)
        obs = rng.uniform(-1, 1, (7, *watched.observation_space.shape)).astype(np.float32)
        masks = np.ones((7, watched.action_space.n), bool) if isinstance(calm.action_space, spaces.Discrete) else None
        for deterministic in (False, True):
            watched.predict(obs, deterministic=deterministic)
            watched.predict(obs, deterministic=deterministic, action_masks=masks)
        described = watched.describe(obs, masks)[0]
        assert (described.probs is None) == (masks is None)
        watched.values(obs, np.zeros(7, int) if masks is not None else np.zeros((7, 1), np.float32))
        torch.rand(3)
        np.random.rand(3)  # noqa: NPY002
    assert_equal_parameters(calm, watched)
    same = ("replay", "collector", "counters")
    one, other = without_clock(calm.state_dict()), without_clock(watched.state_dict())
    assert_same({key: one[key] for key in same}, {key: other[key] for key in same})


# ---------------------------------------------------------------------------------------------- masks of predict


@pytest.mark.parametrize(("name", "changes"), [("dqn", {}), ("dqn", {"dueling": True}), ("ppo", {})], ids=str)
def test_predict_with_masks_never_chooses_an_illegal_action(name, changes):
    env = Spaces(spaces.Discrete(ACTIONS))
    model = CLASSES[name](env, dataclasses.replace(SMALL[name], **changes), seed=0, device="cpu")
    rng = np.random.default_rng(0)
    obs = (10 * rng.normal(size=(2000, 6))).astype(np.float32)
    masks = rng.random((2000, ACTIONS)) < 0.4
    masks[np.arange(2000), rng.integers(ACTIONS, size=2000)] = True
    chosen = set()
    for deterministic in (False, True):
        actions, _ = model.predict(obs, deterministic=deterministic, action_masks=masks)
        assert masks[np.arange(2000), actions].all()
        chosen |= set(actions.tolist())
        assert model.predict(obs[0], deterministic=deterministic, action_masks=masks[0])[0] in np.flatnonzero(masks[0])
    assert chosen == set(range(ACTIONS))
    best, _ = model.predict(obs, deterministic=True, action_masks=np.ones_like(masks))
    assert np.array_equal(best, model.predict(obs, deterministic=True)[0])


# --------------------------------------------------------------------------------------------------------- files

SHAPES = [
    ("sac", box(3), {}),
    ("td3", box(3), {}),
    ("dqn", spaces.Discrete(ACTIONS), {}),
    ("dqn", spaces.Discrete(ACTIONS), {"dueling": True}),
    ("dqn", spaces.Discrete(ACTIONS), {"dueling": True, "hidden": (5,)}),
    ("ppo", box(3), {}),
    ("ppo", spaces.Discrete(ACTIONS), {}),
]
PLAIN = {"sac": "SAC", "td3": "TD3", "dqn": "DQN", "ppo": "PPO"}

ALONE = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"lgdrl", "sim", "experts", "baselines", "tests"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
import stable_baselines3
import torch

torch.set_num_threads(1)
found = []
for argument in sys.argv[1:]:
    kind, path = argument.split(":", 1)
    model = getattr(stable_baselines3, kind).load(path, device="cpu")
    assert type(model).__module__.startswith("stable_baselines3")
    found.append(model.predict(np.load("obs.npy"), deterministic=True)[0].tolist())
print(json.dumps(found))
"""


def some_model(name, space, changes):
    """With weights that are not the initial ones."""
    model = CLASSES[name](Spaces(space), dataclasses.replace(SMALL[name], **changes), seed=3, device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def test_exported_policies_are_loaded_where_nothing_of_ours_is_installed(tmp_path):
    obs = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    np.save(tmp_path / "obs.npy", obs)
    models = [some_model(*shape) for shape in SHAPES]
    for i, model in enumerate(models):
        with (tmp_path / f"{i}.zip").open("wb") as file:
            model.export(file)
    files = [f"{PLAIN[name]}:{i}.zip" for i, (name, _, _) in enumerate(SHAPES)]
    command = [sys.executable, "-c", ALONE, *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    for model, actions in zip(models, json.loads(done.stdout), strict=True):
        np.testing.assert_allclose(actions, model.predict(obs, deterministic=True)[0], atol=1e-6)


@pytest.mark.parametrize(("name", "space", "changes"), SHAPES, ids=str)
def test_policy_files_predict_the_same_after_a_round_trip(name, space, changes, tmp_path):
    model, path = some_model(name, space, changes), tmp_path / "policy.safetensors"
    path.write_bytes(policy_bytes(model))
    loaded = load_policy_file(path)
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    obs = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    for deterministic in (True, False) if name != "dqn" else (True,):  # epsilon is not part of a policy
        actions = []
        for each in (model, loaded):
            torch.manual_seed(0)
            actions.append(each.predict(obs, deterministic=deterministic)[0])
        assert np.array_equal(*actions)
    legal = np.ones((40, ACTIONS), bool) if isinstance(space, spaces.Discrete) else None
    one, other = (each.describe(obs, legal)[0] for each in (model, loaded))
    assert_same(dataclasses.asdict(one), dataclasses.asdict(other))
    assert path.read_bytes() == policy_bytes(loaded)


def test_folded_networks_compute_what_dueling_ones_do():
    for hidden in ((2,), (5,), (9, 7), (8, 8, 3)):
        model = some_model("dqn", spaces.Discrete(5), {"dueling": True, "hidden": hidden})
        plain = stable_baselines3.DQN(
            "MlpPolicy", model.get_env(), policy_kwargs={"net_arch": list(hidden)}, device="cpu"
        )
        plain.q_net.load_state_dict(model.policy.folded())
        obs = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.testing.assert_close(plain.q_net(obs), model.q_net(obs), rtol=1e-5, atol=1e-6)


def test_a_dueling_network_is_value_plus_centred_advantage():
    model = some_model("dqn", spaces.Discrete(5), {"dueling": True, "hidden": (6, 7)})
    net, obs = model.q_net, torch.randn(9, 6)
    with torch.no_grad():
        hidden = torch.relu(net.q_net[0](obs))
        value = net.value[2](torch.relu(net.value[0](hidden)))
        advantage = net.advantage[2](torch.relu(net.advantage[0](hidden)))
        values = net(obs)
        torch.testing.assert_close(values.mean(dim=1, keepdim=True), value)
        torch.testing.assert_close(values - value, advantage - advantage.mean(dim=1, keepdim=True))
    assert (net.value[0].out_features, net.advantage[0].out_features) == (3, 4)
