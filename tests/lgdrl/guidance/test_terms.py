"""Terms: losses and gradients agree with closed forms and finite differences; the dual moves once per update."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdrl.guidance.constraint import DualConfig
from lgdrl.guidance.replay import GuidedReplayBuffer
from lgdrl.guidance.terms import ActorTerm, ConstraintTerm, ImitationTerm, Terms
from tests.lgdrl.steps import SoftmaxNetworks, labels_of, samples_of, step_of, transitions_of

NETWORKS = SoftmaxNetworks()
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 3))
EXPERT = RNG.dirichlet(np.ones(3), size=4)
HARD = np.eye(3)[[0, 2, 1, 1]]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def numpy_js(p, q):
    m = (p + q) / 2
    return sum(0.5 * (x * np.log(np.where(x > 0, x / m, 1.0))).sum(axis=1) for x in (p, q))


def numpy_kl(p, q):
    return (q * np.log(np.where(q > 0, q / p, 1.0))).sum(axis=1)


NUMPY = {
    "js": numpy_js,
    "kl": numpy_kl,
    "reverse_kl": lambda p, q: (p * np.log(p / np.maximum(q, 1e-6))).sum(axis=1),
    "bc": lambda p, q: -np.log(p[np.arange(len(p)), q.argmax(axis=1)]),
}


def labelled_replay(labels: int) -> GuidedReplayBuffer:
    """A replay buffer with as many labels, and twice as many transitions."""
    replay = GuidedReplayBuffer(1000, spaces.Box(-1, 999, (1,)), spaces.Discrete(3), "cpu", seed=0)
    replay.add_transitions(transitions_of(step_of([0] * 2 * labels), labels=labels_of([None, 1] * labels)))
    return replay


def gradient_of(loss: torch.Tensor, samples) -> np.ndarray:
    return torch.autograd.grad(loss, samples.logits)[0].numpy()


def finite_differences(value, logits: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of value(logits), entry by entry."""
    gradient = np.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        moved = [logits.copy(), logits.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        gradient[index] = (value(moved[0]) - value(moved[1])) / (2 * step)
    return gradient


@pytest.mark.parametrize("expert", [EXPERT, HARD], ids=["soft", "hard"])
@pytest.mark.parametrize("divergence", list(NUMPY))
def test_imitation_is_weight_times_the_mean_divergence(divergence, expert):
    def value(logits):
        return 2.5 * NUMPY[divergence](softmax(logits), expert).mean()

    samples = samples_of(LOGITS, expert)
    found = ImitationTerm(divergence, 4, weight=2.5, rl_share=0.25).terms(samples, NETWORKS)
    assert found.loss.item() == pytest.approx(value(LOGITS), rel=1e-6)
    assert gradient_of(found.loss, samples) == pytest.approx(finite_differences(value, LOGITS), abs=1e-7)
    assert found.base_share == 0.25
    assert found.weights is None
    assert found.metrics["divergence"] == pytest.approx(value(LOGITS) / 2.5, rel=1e-6)


def test_cloning_has_the_gradient_of_a_classifier():
    samples = samples_of(LOGITS, HARD)
    loss = ImitationTerm("bc", 4).terms(samples, NETWORKS).loss
    assert gradient_of(loss, samples) == pytest.approx((softmax(LOGITS) - HARD) / 4)


def test_agreement_is_the_share_of_states_whose_likeliest_action_is_the_label():
    logits = np.array([[9.0, 0, 0], [9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0]])
    assert ImitationTerm("bc", 4).terms(samples_of(logits, HARD), NETWORKS).metrics["agreement"] == 0.75


def test_the_constraint_is_dual_times_divergence_and_its_dual_has_no_gradient():
    def value(logits):
        return 6.0 * numpy_js(softmax(logits), EXPERT).mean()

    term, samples = ConstraintTerm("js", 4, DualConfig(initial=6.0)), samples_of(LOGITS, EXPERT)
    found = term.terms(samples, NETWORKS)
    assert found.loss.item() == pytest.approx(value(LOGITS), rel=1e-6)
    assert gradient_of(found.loss, samples) == pytest.approx(finite_differences(value, LOGITS), abs=1e-7)
    assert found.base_share == 1.0
    assert (found.metrics["dual"], found.metrics["price"]) == (6.0, 6.0)
    assert found.metrics["divergence"] == pytest.approx(value(LOGITS) / 6.0, rel=1e-6)


def test_the_dual_takes_its_step_in_on_update_and_only_there():
    config = DualConfig(initial=1.0, target=0.1, step_size=0.5, maximum=1.3)
    term, samples = ConstraintTerm("js", 4, config), samples_of(LOGITS, EXPERT)
    for decisions in (0, 10):
        term.on_step(decisions)
        metrics = term.terms(samples, NETWORKS).metrics
    assert term.dual.value == 1.0
    term.on_update(metrics)
    assert term.dual.value == pytest.approx(1.0 + 0.5 * (metrics["divergence"] - 0.1))
    term.on_update({})  # nothing was measured: no labels yet
    term.on_update({"divergence": 0.1})
    assert term.dual.value == pytest.approx(1.0 + 0.5 * (metrics["divergence"] - 0.1))
    term.on_update({"divergence": 9.0})
    assert term.dual.value == 1.3
    assert term.terms(samples, NETWORKS).metrics["dual"] == 1.3
    term.on_update({"divergence": -9.0})
    assert term.dual.value == 0.0


def test_another_pull_than_the_measured_divergence_is_descended():
    def value(logits):
        return 2.0 * numpy_kl(softmax(logits), EXPERT).mean()

    term, samples = ConstraintTerm("js", 4, DualConfig(initial=2.0), pull="kl"), samples_of(LOGITS, EXPERT)
    found = term.terms(samples, NETWORKS)
    assert found.loss.item() == pytest.approx(value(LOGITS), rel=1e-6)
    assert gradient_of(found.loss, samples) == pytest.approx(finite_differences(value, LOGITS), abs=1e-6)
    assert found.metrics["divergence"] == pytest.approx(numpy_js(softmax(LOGITS), EXPERT).mean(), rel=1e-6)


@pytest.mark.parametrize(("full_price", "labels", "share"), [(None, 80, 1), (20, 5, 1), (20, 20, 1), (20, 80, 0.5)])
def test_more_labels_than_the_full_price_is_for_lower_it(full_price, labels, share):
    replay = labelled_replay(labels)
    term = ConstraintTerm("js", 4, DualConfig(initial=3.0), full_price=full_price)
    assert term.sample(replay) is not None
    found = term.terms(samples_of(LOGITS, EXPERT), NETWORKS)
    assert (found.metrics["dual"], found.metrics["price"]) == (3.0, pytest.approx(3.0 * share))
    assert found.loss.item() == pytest.approx(3.0 * share * numpy_js(softmax(LOGITS), EXPERT).mean(), rel=1e-6)


def test_a_dual_of_zero_adds_no_loss_but_goes_on_measuring():
    found = ConstraintTerm("js", 4, DualConfig(initial=0.0)).terms(samples_of(LOGITS, EXPERT), NETWORKS)
    assert found.loss is None
    assert found.metrics["dual"] == 0.0
    assert found.metrics["divergence"] == pytest.approx(numpy_js(softmax(LOGITS), EXPERT).mean(), rel=1e-6)


def test_the_constraint_fades_linearly_between_its_decisions():
    term = ConstraintTerm("js", 4, DualConfig(initial=8.0, fixed=True), fade=(100, 300))
    factors = []
    for decisions in (0, 100, 150, 200, 299, 300, 1000):
        term.on_step(decisions)
        factors.append(term.terms(samples_of(LOGITS, EXPERT), NETWORKS).metrics["price"] / 8.0)
    assert factors == pytest.approx([1, 1, 0.75, 0.5, 0.005, 0, 0])
    assert term.terms(samples_of(LOGITS, EXPERT), NETWORKS).loss is None
    assert term.dual.value == 8.0


def test_a_restored_constraint_has_its_dual_and_its_fading():
    term = ConstraintTerm("js", 4, DualConfig(), fade=(0, 100))
    term.on_step(25)
    term.on_update({"divergence": 0.5})
    resumed = ConstraintTerm("js", 4, DualConfig(), fade=(0, 100))
    resumed.load_state_dict(term.state_dict())
    one, other = (t.terms(samples_of(LOGITS, EXPERT), NETWORKS) for t in (term, resumed))
    assert one.metrics == other.metrics
    assert one.metrics["price"] == pytest.approx(0.75 * (1.0 + 0.002 * 0.47))


def test_a_term_samples_labelled_states_only_and_none_where_there_are_none():
    replay = GuidedReplayBuffer(100, spaces.Box(-1, 99, (1,)), spaces.Discrete(3), "cpu", seed=0)
    term = ImitationTerm("bc", 32)
    assert term.sample(replay) is None
    context = step_of([0, 0, 0, 0])
    replay.add_transitions(transitions_of(context, labels=labels_of([None, 2, None, 1])))
    drawn = term.sample(replay)
    assert len(drawn) == 32
    assert set(drawn.observations.flatten().tolist()) == {1.0, 3.0}
    assert torch.equal(drawn.label_actions, torch.where(drawn.observations.flatten() == 1, 2, 1))


# ------------------------------------------------------------------------------------------------------- Terms


def test_terms_are_combined_by_adding_losses_and_multiplying_weights_and_shares():
    weights = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5])]
    parts = [
        Terms(torch.tensor(2.0), weights[0], 0.5, {"a": 1.0, "b": 1.0}),
        Terms(),
        Terms(torch.tensor(3.0), weights[1], 0.25, {"b": 2.0}),
    ]
    total = Terms.combined(parts)
    assert total.loss.item() == 5.0
    assert total.weights.tolist() == [3.0, 1.0]
    assert total.base_share == 0.125
    assert total.metrics == {"a": 1.0, "b": 2.0}
    assert parts[0].metrics == {"a": 1.0, "b": 1.0}  # the parts are as they were
    assert parts[0].loss.item() == 2.0


def test_nothing_combined_is_nothing():
    for parts in ([], [Terms()], [Terms(), Terms()]):
        assert Terms.combined(parts) == Terms(None, None, 1.0, {})


NUMBERS = st.one_of(st.none(), st.integers(-100, 100))


@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from([0.0, 0.5, 1.0, 2.0])), max_size=6), st.integers(0, 6))
@settings(max_examples=50)
def test_combining_in_two_stages_changes_nothing(numbers, cut):
    parts = [
        Terms(None if loss is None else torch.tensor(loss), None if w is None else torch.tensor([w, 1]), share)
        for loss, w, share in numbers
    ]
    once, twice = Terms.combined(parts), Terms.combined([Terms.combined(parts[:cut]), Terms.combined(parts[cut:])])
    assert once.base_share == twice.base_share
    for name in ("loss", "weights"):
        one, other = getattr(once, name), getattr(twice, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


def test_the_base_term_adds_nothing():
    term = ActorTerm()
    assert term.sample(None) is None
    assert term.terms(None, None) == Terms()
    assert term.state_dict() == {}
