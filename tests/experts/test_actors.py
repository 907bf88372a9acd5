"""Actors in files compute what torch computes, run no code, and fit the spaces that they were made for."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium import spaces

import sim
from experts import registry
from experts.actors import TRAINED, actor_of, load_actor
from experts.driving import run_episodes
from experts.provider import Context
from sim import assets
from sim.errors import UsageError


def layers(*sizes, seed=0):
    rng, arrays = np.random.default_rng(seed), {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        arrays[f"W{i}"] = rng.normal(size=(outputs, inputs)).astype(np.float32)
        arrays[f"b{i}"] = rng.normal(size=outputs).astype(np.float32)
    return arrays


def written(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_perceptron_computes_what_torch_computes(activation):
    arrays = layers(5, 16, 8, 2)
    mean, std = np.arange(5.0), np.arange(1.0, 6.0)
    low, high = np.array([-2.0, 0.0]), np.array([2.0, 5.0])
    actor = actor_of(
        arrays
        | {"mean": mean, "std": std, "low": low, "high": high}
        | {"activation": np.array(activation), "final": np.array("tanh")}
    )
    obs = np.random.default_rng(1).normal(size=(7, 5))
    hidden = torch.tensor((obs - mean) / std)
    for i in range(3):
        hidden = torch.nn.functional.linear(
            hidden, torch.tensor(arrays[f"W{i}"]).double(), torch.tensor(arrays[f"b{i}"]).double()
        )
        hidden = getattr(torch, activation)(hidden) if i < 2 else torch.tanh(hidden)
    expected = low + (hidden.numpy() + 1) / 2 * (high - low)
    assert actor(obs) == pytest.approx(expected, abs=1e-12)


def test_policy_npz_drives_and_says_what_does_not_fit(tmp_path):
    path = written(tmp_path / "actor.npz", **layers(3, 4, 1), low=[-2.0], high=[2.0], metadata=json.dumps({"seed": 1}))
    envs = sim.make_vec("gym:Pendulum-v1", 2, seed=0)
    with registry.make(f"policy:{path}", "gym:Pendulum-v1") as expert:
        assert len(run_episodes(envs, expert, [0, 1])) == 2
        box = envs.observation_space
        for observations, actions, words in (
            (spaces.Box(-1, 1, (4,)), envs.action_space, r"takes observations of shape \(3,\)"),
            (box, spaces.Discrete(3), r"gives continuous actions of shape \(1,\), those of 'there' are 0 to 2"),
            (box, spaces.Box(-2, 2, (2,)), r"gives continuous actions of shape \(1,\)"),
            (box, spaces.Box(-1, 1, (1,)), r"was made for actions of shape \(1,\) in \[-2, 2\]"),
        ):
            with pytest.raises(UsageError, match=words):
                expert.check_spaces(observations, actions, "there")
    envs.close()
    assert load_actor(path).metadata == {"seed": 1}


def test_a_linear_policy_is_a_matrix_of_whitened_observations(tmp_path):
    path = written(tmp_path / "linear.npz", W=[[2.0, 0.0, -1.0]], b=[0.5], mean=[1.0, 0.0, 0.0], std=[2.0, 1.0, 1.0])
    expert = registry.make(f"linear:{path}", "gym:Pendulum-v1")
    (decision,) = expert.decide([Context(np.array([2.0, 9.0, 0.25]), spaces.Box(-2, 2, (1,)))])
    assert decision.action == pytest.approx([2 * 0.5 - 0.25 + 0.5])


def test_the_shipped_policy_says_how_it_was_made():
    about = load_actor(assets.path("policies/swimmer_linear.npz")).metadata
    assert about["environment"] == "Swimmer-v5"
    assert about["return"] > 340
    assert about["command"].startswith("python experiments/ars.py --scenario gym:Swimmer-v5 --seed 1")


@pytest.mark.parametrize(
    ("body", "least"),
    [("Hopper-v5", 600), ("HalfCheetah-v5", 900), ("Walker2d-v5", 500)],
)
def test_trained_policies_walk(body, least):
    envs = sim.make_vec(f"mujoco:{body}", 2, config={"max_episode_steps": 300})
    with registry.make("trained", f"mujoco:{body}") as expert:
        returns = [episode["episode_return"] for episode in run_episodes(envs, expert, [7, 8])]
    options = {"epsilon": 1.0}
    with registry.make("degraded:trained", f"mujoco:{body}", options) as chance:
        lost = [episode["episode_return"] for episode in run_episodes(envs, chance, [7, 8])]
    envs.close()
    assert np.mean(returns) > least
    assert np.mean(lost) < 100


def test_the_list_names_the_returns_that_are_in_the_files():
    words = registry.summary("trained")
    for body, name in TRAINED.items():
        about = load_actor(assets.path(name)).metadata
        report = about["report"]
        assert about["environment"] == body
        assert about["command"].startswith(f"python experiments/mujoco_checkpoints.py --scenario mujoco:{body}")
        assert f"{body} {report['return']:.0f} (" in words
        assert f"{report['random']:.0f})" in words
        assert report["first_seed"] not in range(10**6, 10**6 + about["episodes"])


def test_trained_policies_are_for_their_bodies():
    with pytest.raises(UsageError, match=r"no policy is shipped for 'gym:Ant-v5' \(for Hopper-v5, "):
        registry.make("trained", "gym:Ant-v5")


FAULTS = {
    "layers are W0": {"mean": np.zeros(3)},
    "without a gap": {"W0": np.zeros((2, 3)), "W2": np.zeros((1, 2))},
    "W1 takes 5 values, the layer before it gives 4": {"W0": np.zeros((4, 3)), "W1": np.zeros((1, 5))},
    r"b0 has shape \(3,\)": {"W0": np.zeros((1, 3)), "b0": np.zeros(3)},
    r"numbers of shape \(any, any\) are needed": {"W": np.zeros(3)},
    "W holds values that are not finite": {"W": np.array([[np.inf]])},
    "std has values that are not above 0": {"W": np.zeros((1, 2)), "std": np.array([1.0, 0.0])},
    "low and high are given together": {"W": np.zeros((1, 2)), "low": np.zeros(1)},
    "unknown activation of an actor 'gelu'": {"W": np.zeros((1, 2)), "activation": np.array("gelu")},
    "W1 belongs to no layer": {"W": np.zeros((1, 2)), "W1": np.zeros((1, 1))},
    "metadata is no JSON mapping": {"W": np.zeros((1, 2)), "metadata": np.array("[1]")},
}


@pytest.mark.parametrize("words", FAULTS)
def test_arrays_that_make_no_actor_are_one_line(tmp_path, words):
    with pytest.raises(UsageError, match=words) as error:
        load_actor(written(tmp_path / "actor.npz", **FAULTS[words]))
    assert "\n" not in str(error.value)


def test_files_that_are_no_arrays_are_one_line_and_no_pickle_is_loaded(tmp_path):
    pickled = io.BytesIO()
    np.savez(pickled, W=np.array([{"code": print}], dtype=object))
    contents = {"pickled": pickled.getvalue(), "text": b"no zip", "empty": b"", "cut": pickled.getvalue()[:60]}
    for name, content in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(UsageError, match=r"is no \.npz file of plain arrays"):
            load_actor(tmp_path / f"{name}.npz")
    with pytest.raises(UsageError, match="cannot read actor"):
        load_actor(tmp_path / "nothing.npz")


def test_linear_takes_one_layer_only(tmp_path):
    path = written(tmp_path / "actor.npz", **layers(3, 4, 1))
    with pytest.raises(UsageError, match="has 2 layers, so it is not linear"):
        registry.make(f"linear:{path}", "gym:Pendulum-v1")
