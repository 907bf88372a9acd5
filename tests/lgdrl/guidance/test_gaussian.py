"""Divergences of Gaussian policies from labels, against integrals, torch.distributions and SB3's scaling."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from stable_baselines3.common.policies import BasePolicy
from torch.distributions import Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import TanhTransform

from lgdrl.guidance.constraint import LN2
from lgdrl.guidance.gaussian import (
    GAUSSIAN_DIVERGENCES,
    LABEL_STD,
    LARGEST,
    ActionScale,
    bc,
    distance,
    js,
    kl,
    reverse_kl,
    unsquashed,
)

torch.set_num_threads(1)

means = st.floats(-3.0, 3.0)
log_stds = st.floats(-5.0, 2.0)


def one(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float32)


def integrated_js(mean: float, std: float, label: float) -> float:
    """1/2 KL(p || m) + 1/2 KL(q || m) by adaptive quadrature."""
    p, q = norm(mean, std), norm(label, LABEL_STD)

    def integrand(x):
        logs = np.array([p.logpdf(x), q.logpdf(x)])
        mixed = np.logaddexp(*logs) - LN2
        return 0.5 * float((np.exp(logs) * (logs - mixed)).sum())

    parts = sorted({mean + k * std for k in (-9, -3, 0, 3, 9)} | {label + k * LABEL_STD for k in (-9, -3, 0, 3, 9)})
    return sum(quad(integrand, a, b)[0] for a, b in itertools.pairwise(parts))


# ----------------------------------------------------------------------------------------------------------- js


@pytest.mark.parametrize("std", [0.03, 0.1, 0.29, 0.3, 0.31, 0.6, 1.0, 3.0, 7.0])
@pytest.mark.parametrize("offset", [0.0, 0.1, 0.3, -0.7, 1.5, 4.0])
def test_js_is_the_integral(std, offset):
    """Twelve nodes: within a hundredth of ln 2 where the divergence is steep, and much nearer elsewhere."""
    found = js(one(0.4 + offset), one(math.log(std)), one(0.4)).item()
    assert found == pytest.approx(integrated_js(0.4 + offset, std, 0.4), abs=0.01 * LN2)


def test_js_is_exact_where_policy_and_label_are_near():
    for std, offset in ((0.3, 0.0), (0.3, 0.05), (0.3, 0.2), (0.35, 0.1), (0.25, 0.1)):
        expected = integrated_js(offset, std, 0.0)
        assert js(one(offset), one(math.log(std)), one(0.0)).item() == pytest.approx(expected, abs=2e-6)


@given(means, log_stds, means)
def test_js_is_within_0_and_ln_2_with_a_finite_gradient(mean, log_std, label):
    leaves = one(mean).requires_grad_(), one(log_std).requires_grad_()
    value = js(*leaves, one(label))
    value.sum().backward()
    assert 0 <= value.item() <= float(np.float32(LN2))
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


@given(means, log_stds, means)
def test_js_does_not_know_left_from_right(mean, log_std, label):
    here = js(one(mean), one(log_std), one(label))
    assert js(one(-mean), one(log_std), one(-label)).item() == pytest.approx(here.item(), abs=1e-6)
    moved = js(one(mean + 1.5), one(log_std), one(label + 1.5)).item()
    assert moved == pytest.approx(here.item(), abs=1e-5)


def test_js_changes_policy_and_label_without_a_jump():
    """The narrower of the two carries the quadrature; at equal widths it changes sides."""
    for offset in (0.0, 0.2, 0.6):
        below, above = (js(one(offset), one(math.log(LABEL_STD) + d), one(0.0)).item() for d in (-1e-4, 1e-4))
        assert above == pytest.approx(below, abs=1e-3 * LN2)


def test_js_is_0_for_the_label_itself_and_ln_2_for_what_has_nothing_in_common():
    assert js(one(0.7), one(math.log(LABEL_STD)), one(0.7)).item() == pytest.approx(0.0, abs=1e-6)
    assert js(one(8.0), one(math.log(0.05)), one(-2.0)).item() == pytest.approx(LN2, abs=1e-6)


def test_js_grows_with_the_distance():
    offsets = torch.linspace(0, 3, 61)[:, None]
    for std in (0.1, 0.3, 1.0):
        values = js(offsets, torch.full_like(offsets, math.log(std)), torch.zeros_like(offsets))
        assert (values.diff() > -1e-3).all()
        assert values[-1] > values[0]


def test_its_gradient_pulls_towards_the_label():
    mean, label = torch.tensor([[-0.6], [0.9]], requires_grad=True), torch.tensor([[0.1], [0.2]])
    for name, divergence in GAUSSIAN_DIVERGENCES.items():
        (slope,) = torch.autograd.grad(divergence(mean, torch.full_like(mean, -1.0), label).sum(), mean)
        assert slope[0] < 0 < slope[1], name


# --------------------------------------------------------------------------------------------- kl, reverse_kl, bc


@given(st.lists(st.tuples(means, st.floats(-3.0, 2.0), means), min_size=1, max_size=4))
def test_kl_and_reverse_kl_are_those_of_torch(rows):
    mean, log_std, label = torch.tensor(rows, dtype=torch.float32).T.unsqueeze(1)  # (1, D) each
    policy, expert = Normal(mean, log_std.exp()), Normal(label, torch.full_like(label, LABEL_STD))
    forward, backward = kl_divergence(expert, policy).mean(-1), kl_divergence(policy, expert).mean(-1)
    torch.testing.assert_close(kl(mean, log_std, label), forward, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reverse_kl(mean, log_std, label), backward, rtol=1e-4, atol=1e-5)


def test_divergences_before_tanh_are_those_of_the_actions():
    """Estimated from samples of squashed actions, whose densities torch knows."""
    torch.manual_seed(0)
    policy, expert = Normal(torch.tensor(0.5), torch.tensor(0.5)), Normal(torch.tensor(0.2), torch.tensor(LABEL_STD))
    squashed = [TransformedDistribution(each, [TanhTransform(cache_size=1)]) for each in (policy, expert)]
    actions = squashed[1].sample((200_000,))
    estimate = (squashed[1].log_prob(actions) - squashed[0].log_prob(actions)).mean().item()
    assert kl(one(0.5), one(math.log(0.5)), one(0.2)).item() == pytest.approx(estimate, abs=0.01)


def test_of_several_dimensions_the_mean_is_taken():
    mean, log_std, label = torch.tensor([[0.5, -0.3, 1.0]]), torch.tensor([[-1.0, 0.2, -0.4]]), torch.zeros(1, 3)
    for name, divergence in GAUSSIAN_DIVERGENCES.items():
        single = [divergence(mean[:, [d]], log_std[:, [d]], label[:, [d]]).item() for d in range(3)]
        assert divergence(mean, log_std, label).item() == pytest.approx(np.mean(single), rel=1e-5), name


@pytest.mark.parametrize("squash", [torch.tanh, torch.positive])
def test_cloning_is_the_squared_distance_of_greedy_actions(squash):
    mean, label = torch.tensor([[0.5, -2.0]]), torch.tensor([[0.1, 1.5]])
    expected = np.square(squash(mean).numpy() - squash(label).numpy()).mean()
    assert bc(mean, torch.zeros(1, 2), label, squash).item() == pytest.approx(expected, rel=1e-6)


def test_labels_at_the_bounds_are_moderate():
    actions = np.array([[-1.0, 1.0, 0.3, 5.0]])
    assert unsquashed(actions)[0, :3] == pytest.approx([-math.atanh(LARGEST), math.atanh(LARGEST), math.atanh(0.3)])
    assert np.tanh(unsquashed(actions)[0, 3]) == pytest.approx(LARGEST)
    assert unsquashed(actions).dtype == np.float32


# -------------------------------------------------------------------------------------------------------- scale


def box(low, high) -> spaces.Box:
    return spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


@given(
    st.lists(st.tuples(st.floats(-50, 49, width=32), st.floats(0.125, 50, width=32)), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_actions_are_scaled_to_the_bit_as_sb3_does(bounds, seed):
    space = box([low for low, _ in bounds], [low + width for low, width in bounds])
    rng, scale = np.random.default_rng(seed), ActionScale(space)
    actions = rng.uniform(space.low, space.high, (20, len(bounds))).astype(np.float32)

    class Policy:
        action_space = space

    assert np.array_equal(scale.scaled(actions), BasePolicy.scale_action(Policy(), actions))
    units = rng.uniform(-1, 1, actions.shape).astype(np.float32)
    assert np.array_equal(scale.unscaled(units), BasePolicy.unscale_action(Policy(), units))
    assert scale.unscaled(scale.scaled(actions)) == pytest.approx(actions, abs=1e-5 * float(np.abs(actions).max() + 1))
    assert scale.scaled(np.stack([space.low, space.high])) == pytest.approx(
        np.stack([-np.ones(len(bounds)), np.ones(len(bounds))])
    )


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.Box(-np.inf, np.inf, (2,), np.float32),
        spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, 1], np.float32)),
        spaces.Box(-1, 1, (2, 2), np.float32),
    ],
    ids=str,
)
def test_other_spaces_are_refused(space):
    with pytest.raises(ValueError, match="finite bounds"):
        ActionScale(space)


def test_the_distance_of_actions_is_js_in_scaled_ones():
    space = box([-2.0, 0.0], [2.0, 10.0])
    mean, labels = np.array([[1.0, 5.0]], np.float32), np.array([[1.0, 9.0]], np.float32)
    assert distance(mean, None, mean, space) == pytest.approx(0.0, abs=1e-6)
    expected = 0.5 * integrated_js(0.0, 0.2, math.atanh(0.8)) + 0.5 * integrated_js(0.0, 0.5, 0.0)
    std = np.array([[0.5, 0.2]], np.float32)
    centred = distance(np.array([[0.0, 5.0]], np.float32), std, np.array([[0.0, 9.0]], np.float32), space)
    assert centred == pytest.approx(expected, abs=0.01)
    assert distance(mean, None, labels, space) > 0.1
