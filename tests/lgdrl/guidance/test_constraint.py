"""The divergences agree with their definitions and closed forms; the dual variable does its arithmetic."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import rel_entr

from lgdrl.guidance.constraint import (
    DIVERGENCES,
    EXPERT_FLOOR,
    LN2,
    Dual,
    DualConfig,
    bc,
    js,
    js_of_label,
    kl,
    reverse_kl,
)

LOGITS = hnp.arrays(np.float64, 5, elements=st.floats(-30.0, 30.0))
MASKS = hnp.arrays(bool, 5).filter(np.any)


def masked(logits: np.ndarray, mask: np.ndarray, floor: float = -math.inf) -> torch.Tensor:
    """log-probabilities (1, A), `floor` before normalising where illegal."""
    return torch.log_softmax(torch.as_tensor(np.where(mask, logits, floor))[None], dim=-1)


def two_policies(p_label: float, num_actions: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """A policy that gives the label p and shares the rest evenly; the hard label. float64."""
    p = torch.full((1, num_actions), (1 - p_label) / (num_actions - 1), dtype=torch.float64)
    p[0, 2] = p_label
    q = torch.zeros(1, num_actions, dtype=torch.float64)
    q[0, 2] = 1.0
    return p.log(), q


@pytest.mark.parametrize(("p", "value"), [(1.0, 0.0), (0.0, LN2)])
def test_js_of_a_hard_label_at_its_ends(p, value):
    log_p, q = two_policies(p)
    assert js(log_p, q).item() == pytest.approx(value, abs=1e-12)
    assert js_of_label(torch.tensor(p, dtype=torch.float64)).item() == pytest.approx(value, abs=1e-12)


@given(st.floats(1e-6, 1.0))
def test_closed_form_for_a_hard_label_is_the_general_definition(p):
    log_p, q = two_policies(p)
    assert js(log_p, q).item() == pytest.approx(js_of_label(torch.tensor(p, dtype=torch.float64)).item(), abs=1e-12)


@pytest.mark.parametrize(("p", "magnitude"), [(0.318, 0.154), (0.2, 0.143), (0.01, 0.023)])
def test_gradient_on_the_expert_logit(p, magnitude):
    """-dJS/dz_u = 1/2 p (1 - p) ln((1 + p) / p): largest at 0.318, gone where the policy already rejects the expert."""
    log_p, q = two_policies(p)
    logits = log_p.clone().requires_grad_(True)
    js(torch.log_softmax(logits, dim=-1), q).sum().backward()
    assert -logits.grad[0, 2].item() == pytest.approx(0.5 * p * (1 - p) * math.log((1 + p) / p), rel=1e-9)
    assert -logits.grad[0, 2].item() == pytest.approx(magnitude, abs=5e-4)


@pytest.mark.parametrize("p", [0.2, 0.01])
def test_cloning_pulls_with_one_minus_p(p):
    log_p, q = two_policies(p)
    logits = log_p.clone().requires_grad_(True)
    bc(torch.log_softmax(logits, dim=-1), q).sum().backward()
    assert -logits.grad[0, 2].item() == pytest.approx(1 - p)


@settings(max_examples=100)
@given(LOGITS, LOGITS, MASKS)
def test_divergences_match_scipy_and_their_bounds(logits, expert_logits, mask):
    log_p, q = masked(logits, mask), masked(expert_logits, mask).exp()
    p_np, q_np = log_p.exp().numpy()[0], q.numpy()[0]
    value = js(log_p, q).item()
    assert 0.0 <= value <= LN2
    middle = (p_np + q_np) / 2
    assert value == pytest.approx((rel_entr(p_np, middle) + rel_entr(q_np, middle)).sum() / 2, abs=1e-9)
    assert value >= 0.5 * (0.5 * np.abs(p_np - q_np).sum()) ** 2 - 1e-9
    assert js(q.log(), log_p.exp()).item() == pytest.approx(value, abs=1e-9)
    assert kl(log_p, q).item() == pytest.approx(rel_entr(q_np, p_np).sum(), rel=1e-7, abs=1e-9)
    floored = np.maximum(q_np, EXPERT_FLOOR)
    assert reverse_kl(log_p, q).item() == pytest.approx(rel_entr(p_np, floored).sum(), rel=1e-7, abs=1e-9)
    assert bc(log_p, q).item() == pytest.approx(-log_p[0, q_np.argmax()].item())


@settings(max_examples=100)
@given(LOGITS.map(lambda x: (x * 10).astype(np.float32)), MASKS, st.data(), st.sampled_from(sorted(DIVERGENCES)))
def test_extreme_float32_policies_give_finite_values_and_gradients(logits, mask, data, name):
    label = data.draw(st.sampled_from(np.flatnonzero(mask).tolist()))
    q = torch.zeros(1, 5)
    q[0, label] = 1.0
    for floor in (-math.inf, -1e8):
        z = torch.as_tensor(logits)[None].requires_grad_(True)
        log_p = torch.log_softmax(z.masked_fill(~torch.as_tensor(mask)[None], floor), dim=-1)
        value = DIVERGENCES[name](log_p, q)
        value.sum().backward()
        assert torch.isfinite(value).all()
        assert torch.isfinite(z.grad).all()
        assert (z.grad[0, ~torch.as_tensor(mask)] == 0).all()


def test_both_ways_of_writing_an_illegal_action_agree():
    mask, logits = np.array([True, False, True, True, False]), np.array([0.3, 9.0, -1.0, 2.0, 5.0])
    q = torch.tensor([[0.1, 0.0, 0.7, 0.2, 0.0]], dtype=torch.float64)
    for divergence in DIVERGENCES.values():
        assert divergence(masked(logits, mask), q).item() == divergence(masked(logits, mask, -1e8), q).item()


def test_values_are_per_state():
    log_p = torch.log_softmax(torch.randn(7, 5), dim=-1)
    q = torch.softmax(torch.randn(7, 5), dim=-1)
    for divergence in DIVERGENCES.values():
        whole = divergence(log_p, q)
        assert whole.shape == (7,)
        rows = torch.cat([divergence(log_p[i : i + 1], q[i : i + 1]) for i in range(7)])
        torch.testing.assert_close(whole, rows)


def test_a_dual_step_adds_eta_times_the_violation():
    dual = Dual(DualConfig(initial=6.0, target=0.03, step_size=0.01))
    assert dual.update(0.23) == pytest.approx(6.0 + 0.01 * 0.2)
    assert dual.update(0.0) == pytest.approx(6.002 - 0.01 * 0.03)
    assert dual.value == pytest.approx(6.0017)


def test_the_dual_falls_to_zero_while_the_constraint_holds_and_stays_there():
    dual = Dual(DualConfig(initial=0.05, target=0.03, step_size=0.1))
    values = [dual.update(0.01) for _ in range(60)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0.0


def test_the_dual_stops_at_its_maximum():
    dual = Dual(DualConfig(initial=19.99, step_size=1.0, maximum=20.0))
    assert dual.update(LN2) == 20.0
    assert dual.update(LN2) == 20.0


def test_a_fixed_dual_does_not_move():
    dual = Dual(DualConfig(initial=3.0, fixed=True))
    assert [dual.update(c) for c in (0.0, 0.6, 0.03)] == [3.0, 3.0, 3.0]


@given(st.lists(st.floats(0.0, LN2), max_size=20), st.lists(st.floats(0.0, LN2), max_size=20))
def test_a_resumed_dual_goes_on_identically(before, after):
    straight, resumed = Dual(), Dual()
    for c in before:
        straight.update(c)
    resumed.load_state_dict(straight.state_dict())
    assert [straight.update(c) for c in after] == [resumed.update(c) for c in after]


@pytest.mark.parametrize("bad", [{"initial": -1.0}, {"initial": 30.0}, {"target": -0.1}, {"step_size": -1.0}])
def test_nonsense_dual_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DualConfig(**bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_policy_is_reported_not_absorbed(bad):
    with pytest.raises(ValueError, match="not finite"):
        Dual().update(bad)
