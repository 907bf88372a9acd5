"""The fused core computes what torch computes: passes, gradients, terms of strategies, steps; it saves and resumes."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

from lgdrl.guidance.constraint import DIVERGENCES, DualConfig
from lgdrl.guidance.records import Labels, Transitions
from lgdrl.guidance.strategy import RL, Strategy
from lgdrl.guidance.terms import ConstraintTerm, ImitationTerm, Terms
from lgdrl.learners.discrete_sac import DiscreteSAC, DiscreteSACConfig
from lgdrl.learners.fused.discrete_sac import _twin_layers
from lgdrl.learners.fused.perceptron import Perceptron, run_backward, sequential_layers
from lgdrl.learners.fused.products import BLOCK
from lgdrl.learners.softmax_policy import TwinMLP

torch.set_num_threads(1)

INPUTS, ACTIONS = 6, 4
SMALL = DiscreteSACConfig(hidden=(16, 24), batch_size=32, buffer_size=2_000, alpha_cap=None)


class Noise(gym.Env):
    """An environment that is never stepped: its spaces."""

    observation_space = gym.spaces.Box(-2.0, 2.0, (INPUTS,), np.float32)
    action_space = gym.spaces.Discrete(ACTIONS)

    def reset(self, *, seed=None, options=None):
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), {}


def some_transitions(number: int = 400) -> Transitions:
    """Everything varies: legal actions, ends, labels, of which a third are hard."""
    rng = np.random.default_rng(0)
    legal, next_legal = (rng.random((2, number, ACTIONS)) < 0.7) | (np.arange(ACTIONS) == 1)
    probs = (rng.dirichlet(np.ones(ACTIONS), number) * legal).astype(np.float32)
    probs[::3] = legal[::3] & (np.arange(ACTIONS) == legal[::3].argmax(axis=1)[:, None])
    probs /= probs.sum(axis=1, keepdims=True)
    labels = Labels.none(number, gym.spaces.Discrete(ACTIONS))
    labels.given[:], labels.action[:] = rng.random(number) < 0.5, probs.argmax(axis=1)
    assert labels.probs is not None
    labels.probs[:] = probs * labels.given[:, None]
    actions = np.array([rng.choice(np.flatnonzero(row)) for row in legal])
    ends = rng.random((2, number)) < 0.1
    return Transitions(
        obs=rng.normal(size=(number, INPUTS)).astype(np.float32),
        next_obs=rng.normal(size=(number, INPUTS)).astype(np.float32),
        legal=legal,
        next_legal=next_legal,
        learner_actions=actions,
        actions=actions,
        labels=labels,
        authority=np.zeros(number, np.float32),
        reason=np.zeros(number, np.int8),
        rewards=rng.normal(size=number).astype(np.float32),
        terminated=ends[0],
        truncated=ends[1] & ~ends[0],
        episodes=np.zeros(number, np.int64),
        steps=np.arange(number),
    )


def make(core: str, strategy: Strategy | None = None, seed: int = 0, **changes) -> DiscreteSAC:
    model = DiscreteSAC(Noise(), dataclasses.replace(SMALL, core=core, **changes), strategy, seed=seed)
    model._setup_learn(0)
    model.replay.add_transitions(some_transitions())
    return model


class Everything(Strategy):
    """Terms of every kind at once: weights, shares, free expressions in both losses, batches of several sizes."""

    def __init__(self) -> None:
        super().__init__("everything", actor=[ConstraintTerm("js", 24, DualConfig(initial=0.5))], needs_expert=False)

    def critic_terms(self, batches, networks):
        samples = batches["constraint"]
        labelled = networks.q_values(samples).gather(2, samples.label_actions[None, :, None].expand(2, -1, 1))
        margin = (networks.q_values(samples).amax(dim=2) - labelled.squeeze(2)).square().mean()
        unused = networks.log_probs(samples)
        return Terms(0.3 * margin + 0.0 * unused.mean(), batches[RL].rewards.abs(), 0.5, {"margin": margin.item()})

    def actor_terms(self, batches, networks):
        found = super().actor_terms(batches, networks)
        networks.log_probs(batches[RL])  # asked for, and not used
        log_probs = networks.log_probs(batches[RL])
        pull = (log_probs.exp() * networks.q_values(batches[RL])[0].detach()).sum(dim=1).mean()
        return Terms.combined([found, Terms(0.2 * pull, batches[RL].rewards.abs() + 0.1, 0.7)])


STRATEGIES = (
    {
        "none": lambda: None,
        "everything": Everything,
        "imitation alone": lambda: Strategy(
            "bc", actor=[ImitationTerm("bc", 40, 0.7, rl_share=0.0)], needs_expert=False
        ),
    }
    | {
        name: lambda name=name: Strategy(name, actor=[ConstraintTerm(name, 32, DualConfig())], needs_expert=False)
        for name in DIVERGENCES
    }
    | {
        f"{measured} pulled by {pull}": lambda measured=measured, pull=pull: Strategy(
            "pulled", actor=[ConstraintTerm(measured, 32, DualConfig(), pull=pull)], needs_expert=False
        )
        for measured, pull in (("js", "kl"), ("kl", "js"))
    }
)


def state(model: DiscreteSAC) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.policy.state_dict().items()}


def moments(model: DiscreteSAC) -> list[torch.Tensor]:
    """Moving means of the gradients, actor and critics; after one step a tenth of the gradients."""
    return [
        torch.cat([part.optimizer.state[p]["exp_avg"].flatten() for p in part.network.parameters()])
        for part in (model.actor, model.critic)
    ]


def distance(one: DiscreteSAC, other: DiscreteSAC) -> float:
    pairs = zip(state(one).values(), state(other).values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def mean_distance(one: DiscreteSAC, other: DiscreteSAC) -> float:
    pairs = zip(state(one).values(), state(other).values(), strict=True)
    return float(torch.cat([(a - b).abs().flatten() for a, b in pairs]).mean())


# ----------------------------------------------------------------------------------------------------- networks


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(1, 20),
    st.one_of(st.integers(1, 30), st.sampled_from([BLOCK - 3, BLOCK - 2, 2 * BLOCK + 5])),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_passes_of_any_shape_are_those_of_torch(hidden, inputs, outputs, rows, twins, seed):
    torch.manual_seed(seed)
    module = TwinMLP(inputs, outputs, hidden) if twins else nn.Sequential(*create_mlp(inputs, outputs, hidden))
    exact = {name: parameter.detach().double().requires_grad_() for name, parameter in module.named_parameters()}
    network = Perceptron(module, _twin_layers if twins else lambda stack: [sequential_layers(stack)])
    x = torch.randn(rows + 3, inputs)
    y = torch.func.functional_call(module, exact, (x.double(),)).view(-1, rows + 3, outputs)
    network.append(rows + 3)
    for first, last in ((0, rows), (rows, rows + 3)):  # two batches, one backward pass
        found, expected = network.forward(first, x[first:last].numpy()), y[:, first:last].detach().numpy()
        assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()
    slope = torch.randn(y.shape)
    network.output(network.memory.delta, 0, rows + 3)[:] = slope.numpy()
    run_backward(network.memory, rows + 3)
    (y * slope).sum().backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in exact.values()]).numpy()
    assert np.abs(network.memory.gradient[: network.size] - gradient).max() <= 1e-6 * np.abs(gradient).max()


def test_a_row_does_not_depend_on_the_rows_beside_it():
    model = make("fused")
    obs, legal = np.random.default_rng(0).normal(size=(37, INPUTS)).astype(np.float32), np.ones((37, ACTIONS), bool)
    together = model.core.probs(obs, legal)
    for rows in (slice(0, 1), slice(5, 12), slice(30, 37)):
        assert np.array_equal(model.core.probs(obs[rows], legal[rows]), together[rows])


def test_other_stacks_are_refused():
    for stack in (nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2, False))):
        with pytest.raises(TypeError, match="expected"):
            sequential_layers(stack)


# ------------------------------------------------------------------------------------------------------- update


@pytest.mark.parametrize("name", STRATEGIES)
def test_gradients_are_those_of_torch(name):
    models = [make(core, STRATEGIES[name]()) for core in ("torch", "fused")]
    for model in models:
        model.train(20, 32)  # critics, targets and temperature are apart
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        for part in (model.actor, model.critic):
            for values in part.optimizer.state.values():
                values["exp_avg"].zero_()
        model.train(1, 32)
    for expected, found in zip(moments(models[0]), moments(models[1]), strict=True):
        assert float((found - expected).abs().max()) <= 1e-6 * float(expected.abs().max())
        assert float(expected.abs().max()) > 0
    logged = [model.logger.name_to_value for model in models]
    assert logged[1].keys() == logged[0].keys()
    for key, value in logged[0].items():
        assert logged[1][key] == pytest.approx(value, rel=2e-5, abs=1e-6), key


@pytest.mark.parametrize("name", ["none", "js", "kl", "bc"])
@pytest.mark.parametrize("updates", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_updates_drift_apart_by_rounding_alone(name, updates):
    """Adam turns the rounding of a vanishing gradient into a whole step, so single weights may differ by some: a
    perturbation of the first weights by 1e-6 moves them by up to 3e-4 on average in 1,000 updates, the other core by
    1e-7 to 9e-5."""
    start, exact, fused = (make(core, STRATEGIES[name]()) for core in ("torch", "torch", "fused"))
    for model in (exact, fused):
        model.train(updates, 32)
    learned, apart = mean_distance(start, exact), mean_distance(exact, fused)
    assert learned > 0.01
    assert apart < 0.01 * learned
    obs = np.random.default_rng(5).normal(size=(500, INPUTS)).astype(np.float32)
    legal = np.ones((500, ACTIONS), bool)
    probs = [model.describe(obs, legal)[0].probs for model in (exact, fused)]
    assert probs[1] == pytest.approx(probs[0], abs=0.03)
    assert fused.log_alpha.item() == pytest.approx(exact.log_alpha.item(), abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha_fixed": True},
        {"alpha_cap": 0.1},
        {"loss_scale_floor": None},
        {"loss_scale_floor": 0.01},
        {"hidden": (8,)},
        {"hidden": (8, 9, 10)},
        {"tau": 1.0, "gamma": 0.0},
    ],
    ids=str,
)
def test_every_setting_that_decides_an_update_does_so_in_both_cores(changes):
    models = [make(core, **changes) for core in ("torch", "fused")]
    for model in models:
        model.train(5, 32)
    assert distance(*models) < 1e-5
    assert models[1].log_alpha.item() == pytest.approx(models[0].log_alpha.item(), abs=1e-6)


# -------------------------------------------------------------------------------------------------------- state


def test_parameters_stay_torch_parameters_and_share_the_memory_of_the_kernels(tmp_path):
    model = make("fused", Everything())
    model.train(3, 32)
    flat = torch.cat([p.detach().flatten() for p in model.actor.network.parameters()]).numpy()
    assert np.array_equal(flat, model.core.actor.memory.theta[: model.core.actor.size])
    obs = np.random.default_rng(1).normal(size=(50, INPUTS)).astype(np.float32)
    legal = np.ones((50, ACTIONS), bool)
    by_torch = model.policy.log_probs(torch.as_tensor(obs), torch.as_tensor(legal)).exp().detach().numpy()
    assert model.core.probs(obs, legal) == pytest.approx(by_torch, abs=1e-6)
    model.save(tmp_path / "model.zip")
    loaded = DiscreteSAC.load(tmp_path / "model.zip", env=Noise())
    assert distance(model, loaded) == 0
    assert np.array_equal(loaded.core.probs(obs, legal), model.core.probs(obs, legal))
    assert np.array_equal(loaded.core.least_q(obs), model.core.least_q(obs))


def test_changed_parameters_are_seen():
    model, other = make("fused"), make("fused", seed=1)
    obs, legal = np.ones((3, INPUTS), np.float32), np.ones((3, ACTIONS), bool)
    before = model.core.probs(obs, legal)
    model.set_parameters(other.get_parameters())
    assert np.array_equal(model.core.probs(obs, legal), other.core.probs(obs, legal))
    assert not np.array_equal(model.core.probs(obs, legal), before)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.zero_()
    assert model.core.probs(obs, legal) == pytest.approx(1 / ACTIONS)
    assert not model.core.least_q(obs).any()


def test_changed_parameters_are_learned_from():
    model, other = make("fused"), make("fused", seed=1)
    obs = np.ones((3, INPUTS), np.float32)
    model.describe(obs, np.ones((3, ACTIONS), bool))  # packs the parameters that are replaced next
    model.load_state_dict(other.state_dict())
    for each in (model, other):
        each.train(3, 32)
    assert distance(model, other) == 0


@pytest.mark.parametrize("first", ["torch", "fused"])
def test_a_checkpoint_of_one_core_goes_on_in_the_other(first):
    models = {core: make(core, STRATEGIES["js"]()) for core in ("torch", "fused")}
    source = models.pop(first)
    (target,) = models.values()
    source.train(30, 32)
    target.load_state_dict(source.state_dict())
    assert distance(source, target) == 0
    for model in (source, target):
        model.train(5, 32)
    assert 0 < distance(source, target) < 1e-5
    steps = [model.critic.optimizer.state_dict()["state"][0]["step"].item() for model in (source, target)]
    assert steps == [35, 35]


def test_a_resumed_learner_goes_on_to_the_bit_whatever_the_threads():
    whole, resumed = (make("fused", Everything()) for _ in range(2))
    whole.train(8, 32)
    resumed.load_state_dict(whole.state_dict())
    whole.train(40, 32)
    torch.set_num_threads(2)
    try:
        resumed.train(40, 32)
    finally:
        torch.set_num_threads(1)
    assert distance(whole, resumed) == 0
    assert whole.log_alpha.item() == resumed.log_alpha.item()


def test_observations_of_other_types_and_shapes_are_converted_as_stable_baselines3_does():
    class Images(Noise):
        observation_space = gym.spaces.Box(0, 255, (36, 36, 3), np.uint8)

    obs = np.random.default_rng(0).integers(0, 255, (3, 36, 36, 3), dtype=np.uint8)
    legal = np.ones((3, ACTIONS), bool)
    fused, plain = (DiscreteSAC(Images(), dataclasses.replace(SMALL, core=core), seed=0) for core in ("fused", "torch"))
    obs = obs.reshape(3, *fused.observation_space.shape)
    assert fused.describe(obs, legal)[0].probs == pytest.approx(plain.describe(obs, legal)[0].probs, abs=1e-6)
