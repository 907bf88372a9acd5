"""Without a strategy the learners in torch are Stable-Baselines3's own, bit for bit, for the same batches and noise."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from lgdrl.learners.ppo import PPO, PPOConfig
from tests.lgdrl.learners.models import SMALL, assert_equal_parameters, make, state

torch.set_num_threads(1)

UPDATES = 50


def feed(plain, replay, with_discounts: bool = False) -> None:
    """Let SB3's algorithm draw its batches from one of our replay buffers, in SB3's own form."""

    def sample(batch_size, env=None):
        drawn = replay.sample_uniform(batch_size)
        actions = drawn.actions[:, None]
        if isinstance(plain.action_space, gym.spaces.Box):
            actions = torch.from_numpy(plain.policy.scale_action(drawn.array("actions")))
        ended = (drawn.dones & drawn.terminated).float()
        columns = drawn.observations, actions, drawn.next_observations, ended[:, None], drawn.rewards[:, None]
        return ReplayBufferSamples(*columns, discounts=drawn.discounts[:, None] if with_discounts else None)

    plain.replay_buffer.sample = sample


def plain_of(model, kind, **settings):
    """SB3's algorithm with the weights, the optimizers and the transitions of a model."""
    hidden = {"net_arch": list(model.config.hidden)}
    shared = {"gamma": model.gamma, "learning_rate": model.config.learning_rate, "policy_kwargs": hidden}
    plain = kind("MlpPolicy", model.get_env(), buffer_size=10, device="cpu", **shared | settings)
    plain._setup_learn(0)
    plain.set_parameters(model.get_parameters())
    feed(plain, copy.deepcopy(model.replay), with_discounts=model.config.n_step > 1)
    return plain


def noise_of_torch(shape: tuple[int, ...]) -> np.ndarray:
    return torch.normal(torch.zeros(shape), torch.ones(shape)).numpy()


def share_noise(model) -> None:
    """Let the noise of updates come from torch's stream, as SB3's does."""
    model.draw_noise = lambda rows: noise_of_torch((rows, model.dimensions))


def train_both(model, plain) -> None:
    start = state(model)
    for each in (model, plain):
        torch.manual_seed(7)
        each.train(UPDATES, 32)
    assert_equal_parameters(model, plain)
    moved = [name for name, value in state(model).items() if not torch.equal(value, start[name])]
    assert moved == list(start), "all parameters and targets were trained"


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({}, {}),
        ({"alpha_fixed": True, "alpha_initial": 0.3}, {"ent_coef": 0.3}),
        ({"alpha_initial": 0.5, "target_entropy": -1.5}, {"ent_coef": "auto_0.5", "target_entropy": -1.5}),
        ({"tau": 0.2, "gamma": 0.9, "learning_rate": 3e-3}, {"tau": 0.2}),
        ({"n_step": 3}, {"n_steps": 3}),
    ],
    ids=str,
)
def test_sac_is_that_of_sb3(changes, settings):
    model = make("sac", **changes)
    share_noise(model)
    plain = plain_of(model, stable_baselines3.SAC, **settings)
    if "alpha_fixed" in changes:
        assert plain.ent_coef_optimizer is None
        for each in (model, plain):
            torch.manual_seed(7)
            each.train(UPDATES, 32)
        assert_equal_parameters(model, plain)
    else:
        train_both(model, plain)


@pytest.mark.parametrize("delay", [1, 2, 3])
@pytest.mark.parametrize("changes", [{}, {"tau": 0.3, "n_step": 4, "target_noise_clip": 0.1}], ids=str)
def test_td3_is_that_of_sb3(changes, delay):
    model = make("td3", policy_delay=delay, target_noise=0.25, **changes)  # a power of 2: scaling it is exact
    share_noise(model)
    settings = {"policy_delay": delay, "target_policy_noise": 0.25, "tau": model.tau}
    settings |= {"target_noise_clip": model.config.target_noise_clip, "n_steps": model.config.n_step}
    train_both(model, plain_of(model, stable_baselines3.TD3, **settings))


@pytest.mark.parametrize(
    "changes", [{}, {"max_grad_norm": 0.05}, {"gamma": 0.5, "n_step": 3}, {"tau": 0.3, "target_interval": 4}], ids=str
)
def test_dqn_without_double_q_is_that_of_sb3(changes):
    model = make("dqn", double=False, **{"target_interval": 10} | changes)
    model.replay.column("next_legal")[:] = True
    config = model.config
    settings = {"tau": config.tau, "target_update_interval": config.target_interval}
    settings |= {"max_grad_norm": config.max_grad_norm, "n_steps": config.n_step}
    plain = plain_of(model, stable_baselines3.DQN, **settings)
    start = state(model)
    for _ in range(UPDATES):
        for each in (model, plain):
            each.train(1, 32)
            each._on_step()
    assert_equal_parameters(model, plain)
    assert not any(torch.equal(value, start[name]) for name, value in state(model).items())


def test_double_q_and_legal_actions_change_the_update():
    """What SB3 does not have is not there by accident only in name."""
    models = [make("dqn", double=double, target_interval=5) for double in (False, True)]
    models.append(make("dqn", double=True, target_interval=5))
    models[2].replay.column("next_legal")[:] = True
    for model in models:
        for _ in range(UPDATES):
            model.train(1, 32)
            model._on_step()
    assert all(
        not torch.equal(state(one)["q_net.q_net.0.weight"], state(other)["q_net.q_net.0.weight"])
        for one, other in ((models[0], models[1]), (models[1], models[2]))
    )


# ---------------------------------------------------------------------------------------------------------- PPO


class SharedDraws:
    """The streams that SB3's PPO draws from."""

    def standard_normal(self, shape, dtype):
        return noise_of_torch(tuple(shape))

    def permutation(self, number):
        return np.random.permutation(number)  # noqa: NPY002


def two_ppos(env_id: str, **changes) -> tuple[PPO, stable_baselines3.PPO]:
    """The same environments, settings and weights; episodes are cut off by time and, in CartPole, end before."""
    config = PPOConfig(hidden=(16, 24), rollout=128, batch_size=32, epochs=7, gae_lambda=0.9, gamma=0.97, **changes)
    ours, theirs = (make_vec_env(env_id, 2, seed=3, env_kwargs={"max_episode_steps": 25}) for _ in range(2))
    model = PPO(ours, config, seed=0, device="cpu")
    plain = stable_baselines3.PPO(
        "MlpPolicy", theirs, learning_rate=config.learning_rate, n_steps=64, batch_size=32, n_epochs=7, gamma=0.97,
        gae_lambda=0.9, clip_range=config.clip_range, ent_coef=config.entropy_weight, vf_coef=config.value_weight,
        max_grad_norm=config.max_grad_norm, target_kl=config.target_kl, policy_kwargs={"net_arch": [16, 24]}, seed=0,
        device="cpu",
    )  # fmt: skip
    plain.set_parameters(model.get_parameters())
    return model, plain


def learn_both(model, plain, monkeypatch) -> None:
    """Two rollouts, with an update after each."""
    executed = []
    if isinstance(model.action_space, gym.spaces.Discrete):
        propose = model.propose

        def recorded(*arguments):
            executed.append(propose(*arguments))
            return executed[-1]

        model.propose = recorded
        permutation, draws = SharedDraws().permutation, model.draws

        class Draws:
            random = draws.random

            def permutation(self, number):
                return permutation(number)

        model.draws = Draws()
    else:
        model.draws = SharedDraws()
    for each in (model, plain):
        torch.manual_seed(11)
        np.random.seed(11)  # noqa: NPY002
        if executed and each is plain:
            actions = iter([torch.from_numpy(proposals) for proposals, _ in executed])
            monkeypatch.setattr(torch.distributions.Categorical, "sample", lambda self, left=actions: next(left))
        each.learn(256)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"entropy_weight": 0.01, "value_weight": 0.7, "max_grad_norm": 0.1}, {"target_kl": 1e-4}],
    ids=["defaults", "weights", "target_kl"],
)
def test_ppo_is_that_of_sb3(env_id, changes, monkeypatch):
    model, plain = two_ppos(env_id, **changes)
    start = state(model)
    learn_both(model, plain, monkeypatch)
    ours, theirs = model.rollout_buffer, plain.rollout_buffer
    assert ours.generator_ready == theirs.generator_ready
    for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert model._n_updates == plain._n_updates == (14 if "target_kl" not in changes else model._n_updates)
    assert_equal_parameters(model, plain)
    assert not any(torch.equal(value, start[name]) for name, value in state(model).items())


def test_values_of_cut_episodes_are_bootstrapped_and_those_of_ended_ones_are_not():
    """With lambda = 0 and gamma = 1 an advantage is r + V(s') - V(s), with V(s') = 0 where the episode ended."""
    config = PPOConfig(hidden=(8,), rollout=120, batch_size=20, gamma=1.0, gae_lambda=0.0, learning_rate=1e-12)
    model = PPO(make_vec_env("CartPole-v1", 2, seed=0, env_kwargs={"max_episode_steps": 20}), config, seed=0)
    stored = []
    bootstrapped = model._bootstrapped

    def recorded(finished):
        stored.append(finished)
        return bootstrapped(finished)

    model._bootstrapped = recorded
    model.learn(120)

    def values(observations):
        with torch.no_grad():
            return model.policy.predict_values(torch.as_tensor(observations)).flatten().numpy()

    truncated, terminated = (np.stack([getattr(each, name) for each in stored]) for name in ("truncated", "terminated"))
    assert truncated.any()
    assert terminated.any()
    expected = [
        each.rewards + np.where(each.terminated, 0, values(each.next_obs)) - values(each.obs) for each in stored
    ]
    advantages = model.rollout_buffer.advantages.reshape(2, 60).T
    np.testing.assert_allclose(advantages, expected, atol=1e-5)
    assert np.array_equal([each.rewards for each in stored], np.ones((60, 2))), "the stored reward is that of the task"


def test_sb3s_default_settings_are_ours():
    """`PPO` counts the steps of a rollout over all environments."""
    env = gym.make("Pendulum-v1")
    for name, kind in (("sac", stable_baselines3.SAC), ("td3", stable_baselines3.TD3)):
        plain, own = kind("MlpPolicy", env), type(SMALL[name])()
        for field in ("learning_rate", "tau", "gamma", "batch_size", "buffer_size", "learning_starts"):
            assert getattr(plain, field) == getattr(own, field), (name, field)
    plain, own = stable_baselines3.PPO("MlpPolicy", env), PPOConfig()
    assert (plain.n_steps, plain.batch_size, plain.n_epochs) == (own.rollout, own.batch_size, own.epochs)
    assert (plain.gae_lambda, plain.vf_coef, plain.ent_coef) == (own.gae_lambda, own.value_weight, own.entropy_weight)
    assert (plain.max_grad_norm, plain.clip_range(1.0)) == (own.max_grad_norm, own.clip_range)
