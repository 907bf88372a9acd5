"""The fused cores of sac, td3 and dqn compute what torch computes: gradients, terms of strategies, steps, targets."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

from lgdrl.guidance.strategy import RL, Strategy
from lgdrl.learners.fused.perceptron import Perceptron, run_back_to_inputs, sequential_layers
from tests.lgdrl.learners.models import (
    CLASSES,
    INPUTS,
    SMALL,
    STRATEGIES,
    Everything,
    Spaces,
    assert_equal_parameters,
    distance,
    make,
    mean_distance,
    moments,
    optimizers,
    parts,
    state,
)

torch.set_num_threads(1)

OFF_POLICY = ("sac", "td3", "dqn")
BEFORE = {"sac": 20, "td3": 21, "dqn": 20}
"""Updates after which networks, targets and temperature are apart, and the next one is one of the policy too."""


def both(name: str, strategy: str = "none", **changes):
    """A model of each core."""
    return [make(name, core, STRATEGIES[strategy](), **changes) for core in ("torch", "fused")]


def one_more_update(exact, fused, batch_size: int, noise: float = 1.0) -> None:
    """From the same state, with empty moving means of the gradients.

    Args:
        exact, fused: The models; the second one takes over the first one's state.
        batch_size: Of the update.
        noise: Factor of the noise. Near the bounds the last bit of tanh decides the gradient of ln (1 - tanh^2).
    """
    fused.load_state_dict(exact.state_dict())
    for model in (exact, fused):
        if noise != 1.0:
            model.draw_noise = lambda rows, draw=model.draw_noise: (noise * draw(rows)).astype(np.float32)
        for part in parts(model).values():
            for own in part.optimizer.state.values():
                own["exp_avg"].zero_()
        model.train(1, batch_size)


def assert_same_gradients(exact, fused, tolerance: float = 1e-6) -> None:
    expected, found = moments(exact), moments(fused)
    for name, gradient in expected.items():
        largest = float(gradient.abs().max())
        assert largest > 0, name
        assert float((found[name] - gradient).abs().max()) <= tolerance * largest, name


# ---------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", OFF_POLICY)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_are_those_of_torch(name, strategy):
    exact, fused = both(name, strategy)
    exact.train(BEFORE[name], 32)
    one_more_update(exact, fused, 32)
    assert_same_gradients(exact, fused)
    logged = [model.logger.name_to_value for model in (exact, fused)]
    assert logged[1].keys() == logged[0].keys()
    for key, value in logged[0].items():
        assert logged[1][key] == pytest.approx(value, rel=2e-5, abs=1e-6), key
    assert distance(exact, fused) < 1e-6


@pytest.mark.parametrize("name", OFF_POLICY)
@pytest.mark.parametrize(
    ("hidden", "dimensions", "batch_size"),
    [
        ((16,), 1, 64), ((16,), 2, 1), ((9,), 17, 7), ((9, 13), 1, 1), ((9, 13), 2, 64), ((24, 5), 17, 64),
        ((7, 11, 5), 1, 7), ((7, 11, 5), 2, 64), ((33, 8, 17), 17, 1), ((1, 1), 2, 7),
    ],
    ids=str,
)  # fmt: skip
def test_gradients_of_any_shape_are_those_of_torch(name, hidden, dimensions, batch_size):
    exact, fused = both(name, hidden=hidden, dimensions=dimensions, inputs=dimensions + 4)
    exact.train(BEFORE[name], 32)
    one_more_update(exact, fused, batch_size, noise=1.0 if name == "dqn" else 0.1)
    expected, found = moments(exact), moments(fused)
    for part, gradient in expected.items():
        largest = float(gradient.abs().max())
        assert float((found[part] - gradient).abs().max()) <= 1e-6 * max(largest, 1e-3), part
    assert distance(exact, fused) < 1e-5


@pytest.mark.parametrize("double", [False, True])
def test_a_gradient_is_scaled_down_as_in_torch(double):
    exact, fused = both("dqn", max_grad_norm=0.05, double=double)
    exact.train(BEFORE["dqn"], 32)
    one_more_update(exact, fused, 32)
    assert_same_gradients(exact, fused)
    norm = float(torch.cat([each.flatten() for each in moments(fused).values()]).norm())
    assert norm == pytest.approx((1 - 0.9) * 0.05, rel=1e-4)  # a tenth of the gradient after one step


def test_steps_of_all_parameters_are_counted_together():
    _, fused = both("td3")
    fused.train(5, 32)
    counts = [each["step"] for each in fused.critic.optimizer.state.values()]
    assert [int(count) for count in counts] == [5] * len(counts)
    for parameter in fused.critic.parameters():
        parameter.grad = torch.ones_like(parameter)
    fused.critic.optimizer.step()  # torch's own, which counts each parameter's steps
    assert fused.critic.optimizer.steps == 6
    assert [int(count) for count in counts] == [6] * len(counts)


@pytest.mark.parametrize("strategy", ["none", "js", "js pulled by kl", "everything"])
def test_bounds_of_ln_std_stop_the_gradient_in_both_cores(strategy):
    exact, fused = both("sac", strategy, dimensions=4)
    with torch.no_grad():
        exact.actor.log_std.bias.copy_(torch.tensor([6.0, -30.0, 0.0, 1.8]))  # above, below, inside, about the bound
    one_more_update(exact, fused, 64, noise=0.02)
    assert_same_gradients(exact, fused, tolerance=3e-5)  # torch loses n^2 / 2 in ln pi where std < 1e-7
    for model in (exact, fused):
        slopes = model.actor.optimizer.state[model.actor.log_std.bias]["exp_avg"]
        assert (slopes[:2] == 0).all()
        assert (slopes[2:] != 0).all()
    obs = np.random.default_rng(0).normal(size=(50, INPUTS)).astype(np.float32)
    std = [model.describe(obs, None)[0].std for model in (exact, fused)]
    np.testing.assert_allclose(std[1], std[0], rtol=1e-5)
    assert std[1][:, 0] == pytest.approx(np.exp(2.0), rel=1e-6)
    assert std[1][:, 1] == pytest.approx(np.exp(-20.0), rel=1e-6)


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_actions_at_the_bounds_have_finite_gradients_in_both_cores(name):
    """tanh of what is far out is 1 in float32, and its slope 0."""
    exact, fused = both(name, "js")
    exact.train(BEFORE[name], 32)
    last = exact.actor.mu if name == "sac" else exact.actor.mu[-2]
    with torch.no_grad():
        last.bias.copy_(torch.tensor([30.0, -30.0, 4.0]))
    one_more_update(exact, fused, 64)
    assert_same_gradients(exact, fused, tolerance=2e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(1, 20),
    st.sampled_from([1, 2, 17]),
    st.integers(1, 70),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
def test_the_gradient_of_critics_with_respect_to_actions_is_that_of_torch(hidden, first, actions, rows, critics, seed):
    torch.manual_seed(seed)
    module = nn.ModuleList([nn.Sequential(*create_mlp(first + actions, 1, hidden)) for _ in range(critics)])
    x, slope = torch.randn(rows, first + actions), torch.randn(critics, rows)
    exact = x.double().requires_grad_()
    values = [
        torch.func.functional_call(critic, {n: p.detach().double() for n, p in critic.named_parameters()}, (exact,))
        for critic in module
    ]
    (torch.cat(values, dim=1).T * slope).sum().backward()
    network = Perceptron(module, lambda critics: [sequential_layers(critic) for critic in critics])
    network.append(rows)
    network.forward(0, x.numpy())
    network.output(network.memory.delta, 0, rows)[:, :, 0] = slope.numpy()
    found = np.full((rows, actions), 99.0, np.float32)
    run_back_to_inputs(network.memory, rows, first, found)
    expected = exact.grad[:, first:].numpy()
    assert np.abs(found - expected).max() <= 2e-6 * max(np.abs(expected).max(), 1e-6)


# ------------------------------------------------------------------------------------------------ many updates


@pytest.mark.parametrize("name", OFF_POLICY)
@pytest.mark.parametrize("strategy", ["none", "js pulled by kl", "cloning", "everything"])
@pytest.mark.parametrize("updates", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_updates_drift_apart_by_rounding_alone(name, strategy, updates):
    """Adam turns the rounding of a vanishing gradient into a whole step, so single weights may differ by some."""
    cores = "torch", "torch", "fused"
    start, exact, fused = (make(name, core, STRATEGIES[strategy](), learning_rate=3e-4) for core in cores)
    for model in (exact, fused):
        for _ in range(updates // 20):
            model.train(20, 32)
            if name == "dqn":
                torch_like_sync(model)
    learned, apart = mean_distance(start, exact), mean_distance(exact, fused)
    assert learned > 2e-5 * updates
    assert apart < 0.01 * learned


def torch_like_sync(model) -> None:
    """Let the target follow."""
    with torch.no_grad():
        for target, own in zip(model.q_net_target.parameters(), model.q_net.parameters(), strict=True):
            target.copy_(own)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sac", {"alpha_fixed": True, "alpha_initial": 0.2}),
        ("sac", {"target_entropy": 1.0, "learning_rate": 1e-2}),
        ("sac", {"tau": 1.0, "gamma": 0.0}),
        ("sac", {"n_step": 3}),
        ("sac", {"loss_scale_floor": None}),
        ("sac", {"loss_scale_floor": 50.0}),
        ("td3", {"policy_delay": 1}),
        ("td3", {"policy_delay": 3, "tau": 0.5}),
        ("td3", {"target_noise": 3.0, "target_noise_clip": 0.05}),
        ("td3", {"target_noise": 3.0, "target_noise_clip": 3.0}),
        ("td3", {"loss_scale_floor": None}),
        ("td3", {"n_step": 3, "gamma": 0.5}),
        ("dqn", {"double": False}),
        ("dqn", {"max_grad_norm": 0.05}),
        ("dqn", {"n_step": 3}),
        ("dqn", {"temperature": 0.2}),
    ],
    ids=str,
)
def test_every_setting_that_decides_an_update_does_so_in_both_cores(name, changes):
    exact, fused, default = [*both(name, "js", **changes), make(name, "torch", STRATEGIES["js"]())]
    for model in (exact, fused, default):
        if name != "dqn":  # values that exceed the floor of the loss scale
            with torch.no_grad():
                for part in (*model.critic.q_networks, *model.critic_target.q_networks):
                    part[-1].bias += 5.0
        model.train(30, 32)
    assert distance(exact, fused) < 2e-5
    weights, own = exact.policy.state_dict(), default.policy.state_dict()
    assert max(float((weights[key] - own[key]).abs().max()) for key in own) > 5e-5, "the setting decides nothing here"


def test_rewards_beyond_the_quadratic_part_are_clipped_in_both_cores():
    """Huber: errors larger than 1 have a slope of 1."""
    exact, fused = both("dqn", max_grad_norm=1e9)
    for model in (exact, fused):
        model.replay.column("rewards")[:] *= 50
    one_more_update(exact, fused, 64)
    assert_same_gradients(exact, fused)
    bias = exact.policy.optimizer.state[exact.q_net.q_net[-1].bias]["exp_avg"] / 0.1
    assert float(bias.abs().sum()) <= 1 + 1e-5


# ---------------------------------------------------------------------------------------------------- workspace


@pytest.mark.parametrize("name", OFF_POLICY)
def test_what_was_in_the_workspace_before_and_threads_decide_nothing(name):
    clean, used = (make(name, "fused", Everything()) for _ in range(2))
    rng = np.random.default_rng(4)
    for size in (200, 3):
        for model in (clean, used):
            model.train(5, 32)
        obs = rng.normal(size=(size, INPUTS)).astype(np.float32) * 100
        if name == "dqn":
            used.core.values(obs)
            networks = [used.core.network]
        else:
            used.core.outputs(obs)
            used.core.least_values(obs, rng.uniform(-1, 1, (size, 3)).astype(np.float32))
            networks = [used.core.actor, used.core.critic]
        for network in networks:
            network.output(network.memory.units, 0, network.rows)[:] = np.nan
            network.output(network.memory.delta, 0, network.rows)[:] = np.nan
            network.memory.gradient[:] = np.nan
        torch.set_num_threads(2)
        try:
            used.train(5, 32)
        finally:
            torch.set_num_threads(1)
        clean.train(5, 32)
    assert_equal_parameters(clean, used)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_a_row_does_not_depend_on_the_rows_beside_it(name):
    model = make(name, "fused")
    obs = np.random.default_rng(0).normal(size=(37, INPUTS)).astype(np.float32)
    outputs = model.core.values if name == "dqn" else model.core.outputs
    together = outputs(obs)
    for rows in (slice(0, 1), slice(5, 12), slice(30, 37)):
        assert np.array_equal(outputs(obs[rows]), together[rows])


@pytest.mark.parametrize("name", OFF_POLICY)
def test_outputs_are_those_of_the_torch_networks(name):
    model = make(name, "fused")
    model.train(10, 32)
    plain = make(name, "torch")
    plain.load_state_dict(model.state_dict())
    rng = np.random.default_rng(1)
    obs = rng.normal(size=(50, INPUTS)).astype(np.float32)
    legal = np.ones((50, 4), bool) if name == "dqn" else None
    actions = rng.integers(4, size=50) if name == "dqn" else model.scale.unscaled(rng.uniform(-1, 1, (50, 3)))
    np.testing.assert_allclose(model.values(obs, actions), plain.values(obs, actions), atol=1e-6)
    described = [each.describe(obs, legal)[0] for each in (model, plain)]
    for field in ("probs", "mean", "std"):
        found, expected = (getattr(each, field) for each in described)
        assert (found is None) == (expected is None)
        if found is not None:
            np.testing.assert_allclose(found, expected, atol=2e-6)


# -------------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("name", OFF_POLICY)
@pytest.mark.parametrize("first", ["torch", "fused"])
def test_a_checkpoint_of_one_core_goes_on_in_the_other(name, first):
    models = dict(zip(("torch", "fused"), both(name, "js"), strict=True))
    source = models.pop(first)
    (target,) = models.values()
    source.train(31, 32)
    target.load_state_dict(source.state_dict())
    assert distance(source, target) == 0
    for model in (source, target):
        model.train(5, 32)
    assert 0 < distance(source, target) < 1e-5
    steps = [
        [float(next(iter(each.state.values()))["step"]) for each in optimizers(model).values()]
        for model in (source, target)
    ]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("name", OFF_POLICY)
def test_changed_parameters_are_seen_and_learned_from(name):
    model, other = make(name, "fused"), make(name, "fused", seed=1)
    obs = np.ones((3, INPUTS), np.float32)
    outputs = lambda each: (each.core.values if name == "dqn" else each.core.outputs)(obs)  # noqa: E731
    before = outputs(model)
    model.load_state_dict(other.state_dict())
    assert np.array_equal(outputs(model), outputs(other))
    assert not np.array_equal(outputs(model), before)
    for each in (model, other):
        each.train(4, 32)
    assert_equal_parameters(model, other)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_parameters_share_the_memory_of_the_kernels(name, tmp_path):
    model = make(name, "fused", Everything())
    model.train(3, 32)
    network = model.core.network if name == "dqn" else model.core.actor
    module = model.q_net if name == "dqn" else model.actor
    flat = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    assert torch.equal(flat.sort()[0], torch.from_numpy(network.memory.theta[: network.size]).sort()[0])
    model.save(tmp_path / "model.zip")
    loaded = CLASSES[name].load(tmp_path / "model.zip", env=model.get_env(), device="cpu")
    own = {name: value for name, value in state(model).items() if name != "log_alpha"}
    assert all(torch.equal(value, state(loaded)[name]) for name, value in own.items())


def test_a_term_of_the_critics_has_no_gradient_in_the_actor_and_the_other_way_round():
    class Crossed(Strategy):
        """Asks in each loss for the outputs of the other network too."""

        def critic_terms(self, batches, networks):
            found = super().critic_terms(batches, networks)
            found.loss = networks.gaussian(batches[RL])[0].square().mean() * 5
            found.loss = found.loss + 0.1 * networks.action_values(batches[RL]).mean()
            return found

        def actor_terms(self, batches, networks):
            found = super().actor_terms(batches, networks)
            found.loss = networks.action_values(batches[RL]).square().mean() * 5
            found.loss = found.loss + 0.1 * networks.gaussian(batches[RL])[0].mean()
            return found

    for name in ("sac", "td3"):
        exact, fused = (make(name, core, Crossed()) for core in ("torch", "fused"))
        exact.train(BEFORE[name], 32)
        one_more_update(exact, fused, 32, noise=0.3)
        assert_same_gradients(exact, fused, tolerance=2e-6)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_observations_of_other_types_and_shapes_are_converted_as_stable_baselines3_does(name):
    class Images(Spaces):
        def __init__(self, action_space):
            super().__init__(action_space)
            self.observation_space = gym.spaces.Box(0, 255, (36, 36, 3), np.uint8)

        def reset(self, *, seed=None, options=None):
            return np.zeros((36, 36, 3), np.uint8), {}

    space = make(name).action_space
    exact, fused = (
        CLASSES[name](Images(space), type(SMALL[name])(hidden=(8,), core=core, buffer_size=300, batch_size=32), seed=0)
        for core in ("torch", "fused")
    )
    shape = (3, *fused.observation_space.shape)
    obs = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    legal = np.ones((3, 4), bool) if name == "dqn" else None
    found, expected = (model.describe(obs, legal)[0] for model in (fused, exact))
    if name == "dqn":
        assert np.array_equal(found.probs, expected.probs)
    else:
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6)
