"""DAI in runs: what is executed, stored and asked, and what is refused before there is a run folder."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from lgdrl import training
from lgdrl.config import load_config
from lgdrl.loops.online import OnlineLoop, load_policy
from lgdrl.runs import Run
from sim.errors import UsageError
from tests.lgdrl.test_guided_learners import OPTIONS

torch.set_num_threads(1)


def config(learner: str = "sac", scenario: str = "gym:Pendulum-v1", **changes):
    base = {
        "learner": learner,
        "scenario": scenario,
        "strategy": "dai",
        "expert": "swing-up" if "Pendulum" in scenario else "rule",
        "steps": 256,
        "num_envs": 4,
        "seed": 3,
        "log_every": 64,
        "evaluate_every": 0,
        "checkpoint_every": 128,
        "learner_options": OPTIONS[learner],
    }
    return load_config(None, base | changes)


def options(until: float = 0.5, kind: str = "linear", authority=(), **more):
    return {"strategy_options": {"authority": {"kind": kind, "until": until, **dict(authority)}, **more}}


def finish(trainer: training.Trainer) -> Run:
    assert trainer.train()
    trainer.close()
    return trainer.run


@pytest.fixture
def loop_of(tmp_path):
    """Loops that ran to their end."""
    made = []

    def make(cfg, name: str = "run") -> OnlineLoop:
        (tmp_path / name).mkdir()
        loop = cfg.method.make(cfg, Run(tmp_path / name))
        made.append(loop)
        loop.begin()
        loop.advance(cfg.steps)
        return loop

    yield make
    for loop in made:
        loop.close()


def columns(loop: OnlineLoop, *names: str) -> list[np.ndarray]:
    return [loop.model.replay.column(name) for name in names]


@pytest.mark.parametrize("learner", ["sac", "td3"])
def test_no_time_for_the_expert_is_the_learner_alone_bit_for_bit(loop_of, learner):
    alone = loop_of(config(learner, strategy="sac", expert="random"), "alone")
    dai = loop_of(config(learner, **options(until=0.0)), "dai")
    assert dai.labels == 0
    for own, other in zip(alone.model.policy.parameters(), dai.model.policy.parameters(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("learner", ["sac", "td3"])
def test_executed_actions_are_the_written_mixture_and_are_what_is_stored(loop_of, learner):
    loop = loop_of(config(learner, **options(0.5)))
    actions, own, share = columns(loop, "actions", "learner_actions", "authority")
    labels = loop.model.replay.column("label_actions")
    expected = np.clip(1.0 - np.arange(0, 256, 4) / 128, 0, 1).repeat(4).astype(np.float32)
    np.testing.assert_allclose(share, expected, atol=1e-6)
    np.testing.assert_allclose(actions, (1 - share[:, None]) * own + share[:, None] * labels, atol=1e-6)
    assert loop.labels == (expected > 0).sum() == 128


def test_the_expert_alone_at_first_returns_what_the_expert_returns(loop_of):
    loop = loop_of(config(**options(1.0, "constant")))
    actions, labels = columns(loop, "actions", "label_actions")
    np.testing.assert_array_equal(actions, labels)


def test_the_ablation_stores_what_the_learner_proposed(loop_of):
    loop = loop_of(config(**options(1.0, "constant", store="learner")))
    actions, own, labels = columns(loop, "actions", "learner_actions", "label_actions")
    np.testing.assert_array_equal(actions, own)
    assert not np.array_equal(actions, labels)


@pytest.mark.parametrize("form", ["step", "segment", "mixture"])
@pytest.mark.parametrize("learner", ["dqn", "discrete-sac"])
def test_discrete_actions_are_handed_over(loop_of, learner, form):
    loop = loop_of(config(learner, "lane-change", **options(1.0, "constant", [("initial", 0.5)], form=form)))
    actions, labels, share = columns(loop, "actions", "label_actions", "authority")
    assert set(np.unique(share)) == {0.0, 1.0}
    assert 0.3 < share.mean() < 0.7
    assert (actions == labels)[share == 1].all()


def test_ppo_hands_over_and_blends_nothing(tmp_path):
    run = finish(training.start(config("ppo", **options(0.5)), tmp_path / "run"))
    rows = list(csv.DictReader(run.metrics.open()))
    assert float(rows[0]["guidance/interventions"]) > 0
    assert float(rows[-1]["guidance/alpha"]) == 1.0


def test_alpha_and_the_executed_return_stand_in_every_row(tmp_path):
    run = finish(
        training.start(
            config(**options(0.5), steps=832, log_every=208, evaluate_every=416, evaluate_episodes=1), tmp_path / "run"
        )
    )
    rows = list(csv.DictReader(run.metrics.open()))
    alphas = [float(row["guidance/alpha"]) for row in rows]
    assert alphas == sorted(alphas)
    assert alphas[0] < 0.5 < alphas[-1] == 1.0
    assert {"rollout/executed_return", "eval/learner_return"} <= rows[-1].keys()
    assert load_policy(run).learner_name == "sac"


@pytest.mark.parametrize(
    ("learner", "scenario", "authority"),
    [
        ("sac", "gym:Pendulum-v1", {"kind": "performance", "window": 1, "probe_every": 2}),
        ("td3", "gym:Pendulum-v1", {"kind": "agreement", "labels": 50}),
        ("dqn", "lane-change", {"kind": "first-steps", "steps": 5}),
        ("dqn", "lane-change", {"kind": "performance", "window": 2}),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, learner, scenario, authority):
    changes = options(1.0, authority["kind"], authority.items(), form="segment", symmetric=0.5, imitation=0.5)
    cfg = config(learner, scenario, steps=384, **changes)
    whole = finish(training.start(cfg, tmp_path / "whole"))
    broken = training.start(cfg, tmp_path / "broken")
    broken.train(lambda progress: setattr(broken, "stop_requested", progress.done >= 256))
    broken.close()
    half = finish(training.resume(tmp_path / "broken"))
    own, other = load_policy(whole), load_policy(half)
    for a, b in zip(own.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("learner", "scenario", "changes", "words"),
    [
        ("dqn", "lane-change", {"form": "blend"}, "'blend' mixes continuous actions"),
        ("ppo", "gym:Pendulum-v1", {"form": "blend"}, "learner 'ppo' learns only"),
        ("ppo", "gym:Pendulum-v1", {"symmetric": 0.5}, "no replay buffer"),
        ("sac", "gym:Pendulum-v1", {"form": "mixture"}, "choose 'step' or 'segment'"),
        ("sac", "gym:Pendulum-v1", {"switched": [3]}, "actions have dimensions 0 to 0"),
        ("dqn", "lane-change", {"switched": [0]}, "hands over whole actions"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(tmp_path, learner, scenario, changes, words):
    with pytest.raises(UsageError, match=words):
        training.start(config(learner, scenario, strategy_options=changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
