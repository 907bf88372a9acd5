"""GORL: gradients of the guide against the chain rule and finite differences; runs that begin as their base."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import experts.registry
import sim
from baselines.gorl.guide import separation
from baselines.gorl.strategies import Constrained
from experts.data.collection import Plan, Policy, collect
from experts.data.transition_files import save_transitions
from experts.data.transitions import StateLabels
from lgdrl import training
from lgdrl.config import load_config
from lgdrl.loops.offline import OfflineLoop
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.errors import UsageError
from tests.lgdrl.test_guided_learners import OPTIONS

torch.set_num_threads(1)

SCENARIOS = {"td3": "gym:Pendulum-v1", "sac": "gym:Pendulum-v1", "dqn": "lane-change"}
BASES = {"td3": "policy-constraint", "sac": "policy-constraint", "dqn": "cql"}
GUIDE = {"start": 0.0, "every": 1, "batch_size": 16, "hidden": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data sets by scenario, half of them random; every fourth state is labelled, with the action that was taken."""
    folder, found = tmp_path_factory.mktemp("data"), {}
    for scenario, expert in (("gym:Pendulum-v1", "swing-up"), ("lane-change", "rule")):
        envs = sim.make_vec(scenario, 2)
        providers = [experts.registry.make(name, scenario, {}, 0) for name in ("random", expert)]
        made = collect(envs, [Policy(provider) for provider in providers], Plan(seed=5, episodes=6)).dataset
        envs.close()
        given = np.arange(len(made)) % 4 == 0
        actions = np.where(given if made.discrete else given[:, None], made.actions, 0).astype(made.actions.dtype)
        labels = StateLabels(actions, given, np.where(given, 0, -1).astype(np.int8))
        found[scenario] = str(folder / f"{expert}.npz")
        save_transitions(found[scenario], dataclasses.replace(made, labels=labels))
    return found


def config(data, learner: str, strategy: str, **changes):
    base = {
        "learner": learner,
        "scenario": SCENARIOS[learner],
        "strategy": strategy,
        "dataset": data[SCENARIOS[learner]],
        "steps": 100,
        "seed": 3,
        "log_every": 25,
        "evaluate_every": 0,
        "checkpoint_every": 50,
        "learner_options": {name: value for name, value in OPTIONS[learner].items() if name != "learning_starts"},
    }
    return load_config(None, base | changes)


def finished(trainer: training.Trainer) -> Run:
    assert trainer.train()
    trainer.close()
    return trainer.run


def parameters_of(run: Run) -> list[torch.Tensor]:
    return list(load_policy(run).policy.parameters())


def same(one: Run, other: Run) -> bool:
    pairs = zip(parameters_of(one), parameters_of(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def guided(data, tmp_path):
    """Maker of a guided learner after some updates: its strategy, samples and labelled samples."""
    loops = []

    def make(learner: str, **guide) -> tuple[Constrained, object, object]:
        cfg = config(data, learner, "gorl", strategy_options={"guide": GUIDE | guide}).resolved()
        (tmp_path / learner).mkdir()
        loop = cfg.method.make(cfg, Run(tmp_path / learner))
        assert isinstance(loop, OfflineLoop)
        loops.append(loop)
        loop.advance(10)
        replay, strategy = loop.model.replay, loop.strategy
        assert isinstance(strategy, Constrained)
        return strategy, replay.sample_uniform(12), replay.sample_labelled(20)

    yield make
    for loop in loops:
        loop.close()


# ------------------------------------------------------------------------------------------------------- gradients


def _product(one, other) -> float:
    """The inner product of two gradients; None: the loss does not depend on the parameter."""
    pairs = zip(one, other, strict=True)
    return sum(float((a * b).sum()) for a, b in pairs if a is not None and b is not None)


@pytest.mark.parametrize("learner", SCENARIOS)
def test_the_gradient_of_a_weight_is_minus_the_product_of_gradients(guided, learner):
    """dE/du_i = -(eta / B) <grad E(theta'), grad I_i>, and alike for v_i: by torch, and by the chain rule."""
    strategy, samples, labelled = guided(learner)
    base, eta, rows = strategy.base, 1e-2, len(samples)
    weights = (0.5 + torch.rand(rows, 2, generator=torch.Generator().manual_seed(0))).requires_grad_()
    state = base.stream.bit_generator.state
    parameters = base.parameters()
    losses = torch.stack(base.losses(parameters, samples), dim=1)
    names, leaves = list(parameters), list(parameters.values())
    slopes = torch.autograd.grad((weights * losses).mean(0).sum(), leaves, create_graph=True)
    after = {name: leaf - eta * slope for name, leaf, slope in zip(names, leaves, slopes, strict=True)}
    found = torch.autograd.grad(base.guidance(after, labelled), weights)[0]

    base.stream.bit_generator.state = state
    there = {name: value.detach().requires_grad_() for name, value in after.items()}
    towards = torch.autograd.grad(base.guidance(there, labelled), list(there.values()), allow_unused=True)
    expected = torch.zeros(rows, 2)
    for i in range(rows):
        for k in range(2):
            own = torch.autograd.grad(losses[i, k], leaves, retain_graph=True, allow_unused=True)
            expected[i, k] = -(eta / rows) * _product(towards, own)
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-7 * float(expected.abs().max() + 1))


@pytest.mark.parametrize("learner", ["td3", "dqn"])
def test_the_gradient_of_the_guide_equals_finite_differences(guided, learner):
    strategy, samples, labelled = guided(learner, virtual_step=1.0)
    guide, step = strategy.guide, 2e-2
    state = strategy.base.stream.bit_generator.state

    def loss() -> torch.Tensor:
        strategy.base.stream.bit_generator.state = state
        return guide.loss(samples, labelled)

    last = guide.network[-1]
    slope = torch.autograd.grad(loss(), last.bias)[0]
    for k in range(2):
        kept, ends = float(last.bias[k]), []
        for sign in (1, -1):
            last.bias.data[k] = kept + sign * step
            ends.append(float(loss().detach()))
        last.bias.data[k] = kept
        assert float(slope[k]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02)


@pytest.mark.parametrize("learner", SCENARIOS)
def test_weights_begin_at_one_and_always_sum_to_two(guided, learner):
    strategy, samples, labelled = guided(learner, learning_rate=1e-9)
    torch.testing.assert_close(strategy.guide.weights(samples), torch.ones(len(samples), 2), rtol=0, atol=1e-5)
    for group in strategy.guide.optimizer.param_groups:
        group["lr"] = 0.1
    for _ in range(5):
        strategy.guide.step(samples, labelled)
    weights = strategy.guide.weights(samples)
    assert (weights - 1).abs().max() > 0.05
    torch.testing.assert_close(weights.sum(dim=1), torch.full((len(samples),), 2.0))


def test_a_step_of_the_guide_leaves_the_learner_as_it_is(guided):
    strategy, samples, labelled = guided("td3")
    before = [p.detach().clone() for p in strategy.model.policy.parameters()]
    strategy.guide.step(samples, labelled)
    assert all(torch.equal(a, b) for a, b in zip(before, strategy.model.policy.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------------------ runs


@pytest.mark.parametrize("core", ["fused", "torch"])
@pytest.mark.parametrize("learner", SCENARIOS)
def test_before_its_guide_has_learned_gorl_is_its_base_bit_for_bit(data, tmp_path, learner, core):
    options = {"learner_options": {**config(data, learner, "gorl").learner_options, "core": core}}
    base = finished(training.start(config(data, learner, BASES[learner], **options), tmp_path / "base"))
    late = {"strategy_options": {"guide": GUIDE | {"start": 1.0}}}
    gorl = finished(training.start(config(data, learner, "gorl", **options, **late), tmp_path / "gorl"))
    assert same(base, gorl)
    early = {"strategy_options": {"guide": GUIDE | {"every": 10_000}}}  # its weights are 1, and count
    gorl = finished(training.start(config(data, learner, "gorl", **options, **early), tmp_path / "early"))
    close = zip(parameters_of(base), parameters_of(gorl), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in close)


@pytest.mark.parametrize("learner", SCENARIOS)
def test_a_guide_that_learns_changes_the_policy_and_is_resumed_exactly(data, tmp_path, learner):
    cfg = config(data, learner, "gorl", strategy_options={"guide": GUIDE | {"learning_rate": 0.05}})
    whole = finished(training.start(cfg, tmp_path / "whole"))
    broken = training.start(cfg, tmp_path / "broken")
    broken.train(lambda progress: setattr(broken, "stop_requested", progress.done >= 50))
    broken.close()
    assert same(whole, finished(training.resume(tmp_path / "broken")))
    base = finished(training.start(config(data, learner, BASES[learner]), tmp_path / "base"))
    assert not same(base, whole)
    row = list(csv.DictReader(whole.metrics.open()))[-1]
    assert 0 <= float(row["guidance/separation"]) <= 1
    assert 0 < float(row["guidance/constraint_weight"]) < 2


def test_cloning_learns_the_actions_of_the_data(data, tmp_path):
    options = {"learner_options": {"hidden": [32], "batch_size": 64, "learning_rate": 3e-3}}
    for name, source in (("all", "data"), ("labelled", "labels")):
        cfg = config(data, "td3", "bc", steps=1500, log_every=500, strategy_options={"source": source}, **options)
        run = finished(training.start(cfg, tmp_path / name))
        rows = list(csv.DictReader(run.metrics.open()))
        losses = [float(row["guidance/divergence"]) for row in rows]
        assert losses[-1] < losses[0] < 1


def test_td3_bc_follows_the_data_where_the_constraint_weighs_much(data, tmp_path):
    losses = []
    for alpha in (0.01, 100.0):
        cfg = config(data, "td3", "policy-constraint", steps=400, log_every=400, strategy_options={"alpha": alpha})
        run = finished(training.start(cfg, tmp_path / str(alpha)))
        losses.append(float(list(csv.DictReader(run.metrics.open()))[-1]["guidance/constraint"]))
    assert losses[0] < losses[1]


@pytest.mark.parametrize(
    ("learner", "strategy", "changes", "words"),
    [
        ("td3", "gorl", {"dataset": None}, "name one with --data FILE"),
        ("td3", "gorl", {"scenario": "mujoco:Hopper-v5"}, "choose one of 'mujoco:Hopper-v5'"),
        ("td3", "gorl", {"label_budget": 5}, "label_budget: strategy 'gorl' learns from a data set"),
        ("td3", "sac", {}, "dataset: strategy 'sac' learns from its own decisions"),
        ("dqn", "policy-constraint", {}, "needs continuous actions"),
        ("sac", "cql", {}, "needs discrete actions"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(data, tmp_path, learner, strategy, changes, words):
    with pytest.raises(UsageError, match=words):
        training.start(config(data, learner, strategy, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_data_set_without_labels_cannot_guide(data, tmp_path):
    from experts.data.transition_files import load_transitions

    bare = str(tmp_path / "bare.npz")
    save_transitions(bare, dataclasses.replace(load_transitions(data["gym:Pendulum-v1"]), labels=None))
    for strategy, options in (("gorl", {}), ("bc", {"source": "labels"}), ("policy-constraint", {"pairs": 1.0})):
        with pytest.raises(UsageError, match=r"guided by labels, data set .* has none"):
            training.start(config(data, "td3", strategy, dataset=bare, strategy_options=options), tmp_path / "run")
    finished(training.start(config(data, "td3", "policy-constraint", dataset=bare, steps=50), tmp_path / "base"))


def test_a_run_is_not_resumed_on_other_data(data, tmp_path):
    cfg = config(data, "td3", "policy-constraint")
    moved = tmp_path / "own.npz"
    moved.write_bytes(Path(data["gym:Pendulum-v1"]).read_bytes())
    broken = training.start(dataclasses.replace(cfg, dataset=str(moved)), tmp_path / "run")
    broken.train(lambda progress: setattr(broken, "stop_requested", progress.done >= 50))
    broken.close()
    from experts.data.transition_files import load_transitions

    save_transitions(str(moved), load_transitions(str(moved)).take(np.arange(300)))
    with pytest.raises(UsageError, match="has changed since"):
        training.resume(tmp_path / "run")


def test_separation_is_the_area_under_the_curve():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 200).astype(float), rng.random(200) < 0.4
    pairs = [np.sign(a - b) / 2 + 0.5 for a in scores[positive] for b in scores[~positive]]
    assert separation(scores, positive) == pytest.approx(np.mean(pairs))
    assert np.isnan(separation(scores, np.ones(200, bool)))
