"""Trained policies as experts: runs of ours and models that Stable-Baselines3 saved."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from stable_baselines3 import DQN, PPO

from experts import registry
from experts.driving import run_episodes
from experts.provider import Context
from lgdrl import training
from lgdrl.config import evaluation_envs, load_config
from lgdrl.evaluation import PolicyActor
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.errors import UsageError

QUICK = {
    "steps": 300,
    "num_envs": 4,
    "log_every": 300,
    "evaluate_every": 0,
    "learner_options": {"hidden": [8, 8], "learning_starts": 100, "batch_size": 16},
}


def train(folder, **changes):
    trainer = training.start(load_config(None, QUICK | changes), folder)
    assert trainer.train()
    trainer.close()
    return trainer


def test_loading_a_policy_is_silent(tmp_path):
    train(tmp_path / "run")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load_policy(Run(tmp_path / "run"))
    assert [str(each.message) for each in said] == []


def test_a_run_drives_as_it_does_when_it_is_evaluated(tmp_path):
    train(tmp_path / "run", strategy="sac")
    config = load_config(tmp_path / "run" / "config.yaml", {}).resolved()
    envs = evaluation_envs(config, 4)
    seeds = range(10_000, 10_004)
    alone = run_episodes(envs, PolicyActor(load_policy(Run(tmp_path / "run"))), seeds)
    with registry.make(f"policy:{tmp_path / 'run'}", config.scenario) as expert:
        driven = run_episodes(envs, expert, seeds)
    envs.close()
    asked = [episode | {"statuses": {"ok": episode["steps"]}} for episode in alone]
    assert driven == [episode | {"undecided": 0} for episode in asked]


def test_a_run_guides_another_one_with_its_whole_distribution(tmp_path):
    train(tmp_path / "teacher", strategy="sac")
    trainer = train(tmp_path / "student", strategy="sac-bc", expert=f"policy:{tmp_path / 'teacher'}")
    probs = trainer.loop.model.replay.column("label_probs")[trainer.loop.model.replay.column("labelled")]
    assert len(probs) > 0
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, rtol=1e-5)
    assert (np.count_nonzero(probs, axis=1) > 1).any()


def test_it_guides_on_gymnasiums_environments_too(tmp_path):
    train(tmp_path / "teacher", scenario="gym:CartPole-v1", strategy="sac")
    changes = {"scenario": "gym:CartPole-v1", "strategy": "dagger", "strategy_options": {"labels": 64, "rounds": 2}}
    trainer = train(tmp_path / "student", expert=f"policy:{tmp_path / 'teacher'}", **changes)
    assert trainer.loop.labels == 64


@pytest.mark.parametrize("algorithm", [DQN, PPO])
def test_a_zip_of_sb3_chooses_what_sb3_predicts(tmp_path, algorithm):
    model = algorithm("MlpPolicy", "CartPole-v1", seed=0, device="cpu")
    model.save(tmp_path / "model.zip")
    obs = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    with registry.make(f"policy:{tmp_path / 'model.zip'}", "gym:CartPole-v1") as expert:
        decisions = expert.decide([Context(row, model.action_space, legal=np.ones(2, bool)) for row in obs])
    assert [decision.action for decision in decisions] == model.predict(obs, deterministic=True)[0].tolist()


def test_what_does_not_fit_is_one_line(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    model = PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu")
    model.save(tmp_path / "model.zip")
    cases = {
        "policy": "name a run folder or a zip",
        f"policy:{tmp_path / 'nothing'}": "no run in",
        f"policy:{tmp_path / 'text.zip'}": "is no model of Stable-Baselines3",
        "rule:fast": "takes nothing after a colon",
    }
    for name, words in cases.items():
        with pytest.raises(UsageError) as error:
            registry.make(name, "lane-change")
        assert words in str(error.value)
        assert "\n" not in str(error.value)
    envs = evaluation_envs(load_config(None, {}).resolved(), 1)
    with (
        registry.make(f"policy:{tmp_path / 'model.zip'}", "lane-change") as expert,
        pytest.raises(
            UsageError, match=r"trained on observations of shape \(4,\), those of lane-change are of shape \(29,\)"
        ),
    ):
        run_episodes(envs, expert, [0])
    envs.close()


def test_a_training_with_an_expert_that_does_not_fit_leaves_no_folder(tmp_path):
    PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu").save(tmp_path / "model.zip")
    layer = {"W": np.zeros((1, 3)), "low": [-1.0], "high": [1.0]}
    np.savez(tmp_path / "actor.npz", **layer)
    for name, words in (
        ("model.zip", r"trained on observations of shape \(4,\), those of lane-change are of shape \(29,\)"),
        ("actor.npz", r"takes observations of shape \(3,\), those of 'lane-change' are of shape \(29,\)"),
    ):
        with pytest.raises(UsageError, match=words):
            train(tmp_path / "run", strategy="sac-bc", expert=f"policy:{tmp_path / name}")
        assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=r"degraded\.noise"):
        train(tmp_path / "run", strategy="sac-bc", expert="degraded:idm", expert_options={"noise": 0.1})
    assert not (tmp_path / "run").exists()
