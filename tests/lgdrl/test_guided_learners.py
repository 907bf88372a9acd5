"""Strategies with the new learners: short runs count labels and log, and what does not fit is refused in one line."""

from __future__ import annotations

import csv
import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.type_aliases import RolloutBufferSamples

import sim
from lgdrl import training
from lgdrl.config import load_config
from lgdrl.guidance.authority import Scheduled
from lgdrl.guidance.interpolation import Blend
from lgdrl.guidance.labelling import Labeller
from lgdrl.guidance.records import Labels, Reason
from lgdrl.guidance.strategy import Strategy
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.errors import UsageError
from tests.lgdrl.learners.models import CLASSES, SMALL, Spaces, assert_equal_parameters

torch.set_num_threads(1)

OPTIONS = {
    "sac": {"hidden": [8, 8], "learning_starts": 32, "batch_size": 8, "buffer_size": 500},
    "td3": {"hidden": [8, 8], "learning_starts": 32, "batch_size": 8, "buffer_size": 500},
    "dqn": {"hidden": [8, 8], "learning_starts": 32, "batch_size": 8, "buffer_size": 500},
    "ppo": {"hidden": [8, 8], "rollout": 64, "batch_size": 16, "epochs": 2, "buffer_size": 500},
    "discrete-sac": {"hidden": [8, 8], "learning_starts": 32, "batch_size": 8, "buffer_size": 500},
}
STRATEGIES = {
    "lgdrl": {"guide_batch": 8, "arbiter": {"kind": "js"}, "full_price": None},
    "sac-bc": {"guide_batch": 8},
    "dagger": {"guide_batch": 8, "labels": 64, "rounds": 2},
}
PAIRS = [(learner, "gym:Pendulum-v1") for learner in ("sac", "td3", "ppo")]
PAIRS += [(learner, "lane-change") for learner in ("dqn", "ppo")]


def config(learner: str, scenario: str, strategy: str = "lgdrl", **changes):
    base = {
        "learner": learner,
        "scenario": scenario,
        "strategy": strategy,
        "expert": "random",
        "steps": 256,
        "num_envs": 4,
        "log_every": 64,
        "evaluate_every": 0,
        "checkpoint_every": 128,
        "learner_options": OPTIONS[learner],
        "strategy_options": STRATEGIES.get(strategy, {}),
    }
    return load_config(None, base | changes)


def rows_of(folder) -> list[dict[str, str]]:
    with Run(folder).metrics.open() as file:
        return list(csv.DictReader(file))


# ----------------------------------------------------------------------------------------------------- short runs


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("learner", "scenario"), PAIRS)
def test_a_guided_run_counts_its_labels_and_logs_what_its_terms_measure(tmp_path, learner, scenario, strategy):
    trainer = training.start(config(learner, scenario, strategy, label_budget=80), tmp_path / "run")
    assert trainer.train()
    counts, kept = trainer.loop.advisor.counts, trainer.loop.model.replay.num_labelled
    trainer.close()
    assert 0 < counts["labels"] <= 80
    assert kept == counts["labels"], "all labels are learned from"
    rows = rows_of(tmp_path / "run")
    assert [int(row["decisions"]) for row in rows] == [64, 128, 192, 256]
    last = rows[-1]
    assert 0 <= float(last["guidance/divergence"]) < 1e4
    assert 0 <= float(last["guidance/agreement"]) <= 1
    assert ("guidance/dual" in last) == (strategy == "lgdrl")
    assert float(last["guidance/interventions"]) >= 0
    names = {"sac": "critic_loss", "td3": "critic_loss", "dqn": "loss", "ppo": "value_loss"}
    assert any(key.endswith(names[learner]) and value for key, value in last.items())
    policy = load_policy(Run(tmp_path / "run"))
    obs = np.zeros((3, *policy.observation_space.shape), np.float32)
    assert len(policy.predict(obs, deterministic=True)[0]) == 3
    assert (tmp_path / "run" / "policy.zip").is_file()


@pytest.mark.parametrize("learner", ["sac", "td3"])
def test_sac_demo_and_the_blend_arbiter_work_on_continuous_actions(tmp_path, learner):
    blend = {"arbiter": {"kind": "blend", "options": {"decisions": 200}}, "full_price": None, "pace": None}
    for name, strategy, options in (("demo", "sac-demo", {"decisions": 64}), ("blend", "lgdrl", blend)):
        trainer = training.start(
            config(learner, "gym:Pendulum-v1", strategy, strategy_options=options), tmp_path / name
        )
        assert trainer.train()
        authority = trainer.loop.model.replay.column("authority").copy()
        trainer.close()
        assert (authority > 0).any()
        if name == "blend":
            assert ((authority > 0) & (authority < 1)).any()


@pytest.mark.parametrize(("learner", "scenario"), [("sac", "gym:Pendulum-v1"), ("ppo", "lane-change")])
def test_a_guided_run_that_is_stopped_and_resumed_equals_an_uninterrupted_one(tmp_path, learner, scenario):
    def finished(trainer):
        assert trainer.train()
        trainer.close()

    finished(training.start(config(learner, scenario), tmp_path / "straight"))
    broken = training.start(config(learner, scenario), tmp_path / "broken")
    broken.train(lambda progress: setattr(broken, "stop_requested", progress.done >= 128))
    broken.close()
    finished(training.resume(tmp_path / "broken"))
    one, other = (load_policy(Run(tmp_path / name)).policy.state_dict() for name in ("straight", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    timing = {"elapsed_s", "rate", "expert/wait_s", "expert/blocked_s"}
    tables = [
        [{k: v for k, v in row.items() if k not in timing} for row in rows_of(tmp_path / name)]
        for name in ("straight", "broken")
    ]
    assert tables[0] == tables[1]


# ------------------------------------------------------------------------------------------------------- refusals


class Unbounded(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}


@pytest.fixture
def unbounded():
    gym.register("Unbounded-v0", Unbounded)
    yield "gym:Unbounded-v0"
    del gym.registry["Unbounded-v0"]


BLEND = {"strategy_options": {"arbiter": {"kind": "blend"}}}
UNSAFE = {"strategy_options": {"arbiter": {"kind": "unsafe"}}}


@pytest.mark.parametrize(
    ("learner", "scenario", "strategy", "changes", "words"),
    [
        ("dqn", "lane-change", "lgdrl", BLEND, "blend"),
        ("ppo", "gym:Pendulum-v1", "lgdrl", BLEND, "blend"),
        ("ppo", "gym:Pendulum-v1", "sac-demo", {}, "replay buffer"),
        ("ppo", "gym:CartPole-v1", "sac-demo", {}, "replay buffer"),
        ("sac", "gym:Pendulum-v1", "lgdrl", UNSAFE, "unsafe"),
        ("ppo", "gym:CartPole-v1", "lgdrl", UNSAFE, "unsafe"),
        ("discrete-sac", "gym:CartPole-v1", "sac-rp", UNSAFE, "unsafe"),
        ("discrete-sac", "gym:Pendulum-v1", "sac", {}, "continuous"),
        ("dqn", "gym:Pendulum-v1", "sac", {}, "continuous"),
        ("sac", "gym:CartPole-v1", "sac", {}, "discrete"),
        ("td3", "lane-change", "sac", {}, "discrete"),
        ("ppo", "gym:CartPole-v1", "lgdrl", {"label_lag": 3}, "label_lag = 3"),
    ],
)
def test_what_does_not_fit_together_is_one_line_and_leaves_no_folder(
    tmp_path, learner, scenario, strategy, changes, words
):
    with pytest.raises(UsageError) as error:
        training.start(config(learner, scenario, strategy, **changes), tmp_path / "run").train()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("learner", ["sac", "td3", "ppo"])
def test_unbounded_actions_are_refused_in_one_line(tmp_path, learner, unbounded):
    with pytest.raises(UsageError, match="finite lower and upper bound") as error:
        training.start(config(learner, unbounded, "sac"), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("learner", ["sac", "td3", "ppo"])
def test_actions_that_are_no_vector_are_refused_in_one_line(learner):
    with pytest.raises(UsageError, match=f"learner '{learner}'.*one dimension with finite bounds"):
        CLASSES[learner](Spaces(gym.spaces.Box(-1, 1, (2, 2), np.float32)), SMALL[learner], device="cpu")


# ---------------------------------------------------------------------------------------------------------- blend


class All(Labeller):
    """The expert labels, and may control, every step."""

    def select(self, context):
        return np.ones(context.num_envs, bool), np.ones(context.num_envs, bool)


class Constant:
    """Always the same action."""

    def on_episode_start(self, episodes):
        pass

    def label(self, env, context, rows):
        labels = Labels.none(context.num_envs, context.action_space)
        labels.given[rows], labels.action[rows], labels.status[rows] = True, 1.5, 0
        return labels


def blended(initial: float, final: float, decisions: int = 100):
    arbiter = Blend(Scheduled("linear", initial, final, decisions))
    return Strategy("blended", All(), arbiter)


def learned(strategy, advisor, name: str = "sac"):
    settings = dataclasses.replace(SMALL[name], learning_starts=20, updates_per_decision=0.5)
    model = CLASSES[name](sim.make_vec("gym:Pendulum-v1", 2, seed=1), settings, strategy, advisor, seed=0, device="cpu")
    return model.learn(200)


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_the_blended_action_is_what_is_stored_with_its_authority(name):
    model = learned(blended(1.0, 0.0), Constant(), name)
    columns = {key: model.replay.column(key) for key in ("actions", "learner_actions", "authority", "reason")}
    share = np.repeat(np.clip(1.0 - np.arange(0, 200, 2) / 100, 0, 1), 2).astype(np.float32)
    np.testing.assert_allclose(columns["authority"], share, atol=1e-6)
    expected = (1 - share[:, None]) * columns["learner_actions"] + share[:, None] * 1.5
    np.testing.assert_allclose(columns["actions"], expected, atol=1e-6)
    assert np.array_equal(columns["reason"] == Reason.SCHEDULE, share > 0)
    assert model.strategy.interventions == (share > 0).sum()


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_a_share_of_zero_is_plain_learning_bit_for_bit(name):
    assert_equal_parameters(learned(None, None, name), learned(blended(0.0, 0.0), Constant(), name))


def test_a_share_of_one_is_the_expert_alone():
    columns = learned(blended(1.0, 1.0), Constant()).replay.column("actions")
    assert (columns == 1.5).all()


# ------------------------------------------------------------------------------------------ PPO and expert steps


def ppo_batch(space):
    """A model and a hand-made minibatch of 12 steps, of which the expert took over 5."""
    settings = dataclasses.replace(SMALL["ppo"], entropy_weight=0.02, value_weight=0.7, clip_range=0.2)
    model = CLASSES["ppo"](Spaces(space), settings, seed=0, device="cpu")
    torch.manual_seed(1)
    obs, legal = (
        torch.randn(12, 6),
        torch.ones(12, 4, dtype=torch.bool) if isinstance(space, gym.spaces.Discrete) else None,
    )
    actions = torch.randint(4, (12, 1)).float() if legal is not None else torch.randn(12, space.shape[0])
    numbers = torch.randn(4, 12)
    samples = RolloutBufferSamples(obs, actions, numbers[0], 0.3 * numbers[1] - 1.4, numbers[2], numbers[3])
    with torch.no_grad():
        chosen = actions.long().flatten() if legal is not None else actions
        near = model.policy.evaluate_actions(obs, chosen)[1] - 0.6 * numbers[1]
    samples = samples._replace(old_log_prob=near)
    own = torch.tensor([True] * 7 + [False] * 5)[torch.randperm(12)]
    return model, samples, legal, own


def gradients(model, loss) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the policy's own parameters, and of the value's."""
    model.policy.optimizer.zero_grad()
    loss.backward()
    value = [p.grad for n, p in model.policy.named_parameters() if "value" in n]
    policy = [
        p.grad if p.grad is not None else torch.zeros_like(p)
        for n, p in model.policy.named_parameters()
        if "value" not in n
    ]
    return torch.cat([g.flatten() for g in policy]), torch.cat([g.flatten() for g in value])


@pytest.mark.parametrize("space", [gym.spaces.Discrete(4), gym.spaces.Box(-1, 2, (3,), np.float32)], ids=str)
def test_steps_of_the_expert_train_the_value_and_not_the_policy(space):
    model, samples, legal, own = ppo_batch(space)
    policy, value = gradients(model, model.losses(samples, legal, own)[0])
    foreign = {}
    for name in ("old_log_prob", "advantages", "actions"):
        changed = getattr(samples, name).clone()
        changed[~own] = changed[~own].flip(0) if name == "actions" else changed[~own] + 3.0
        foreign[name] = changed
    other = samples._replace(**foreign)
    assert all(
        torch.equal(a, b)
        for a, b in zip((policy, value), gradients(model, model.losses(other, legal, own)[0]), strict=True)
    )
    returns = samples.returns.clone()
    returns[~own] += 3.0
    moved = gradients(model, model.losses(samples._replace(returns=returns), legal, own)[0])
    assert torch.equal(moved[0], policy)
    assert not torch.allclose(moved[1], value)


@pytest.mark.parametrize("space", [gym.spaces.Discrete(4), gym.spaces.Box(-1, 2, (3,), np.float32)], ids=str)
def test_the_loss_is_the_written_equation(space):
    model, samples, legal, own = ppo_batch(space)
    loss, numbers = model.losses(samples, legal, own)
    actions = samples.actions.long().flatten() if legal is not None else samples.actions
    with torch.no_grad():
        values, log_probs, entropy = (
            x.double().numpy().ravel() for x in model.policy.evaluate_actions(samples.observations, actions)
        )
    mine = own.numpy()
    advantage = samples.advantages.double().numpy()[mine]
    advantage = (advantage - advantage.mean()) / advantage.std(ddof=1)
    ratio = np.exp(log_probs - samples.old_log_prob.double().numpy())[mine]
    surrogate = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).mean()
    assert surrogate < (ratio * advantage).mean() - 1e-3, "some of the clipped steps count"
    squared = np.square(values - samples.returns.double().numpy()).mean()
    assert loss.item() == pytest.approx(-surrogate + 0.7 * squared - 0.02 * entropy[mine].mean(), rel=1e-5)
    assert numbers["clip_fraction"] == pytest.approx((np.abs(ratio - 1) > 0.2).mean())
    assert 0 < numbers["clip_fraction"] < 1
    assert numbers["approx_kl"] == pytest.approx((ratio - 1 - np.log(ratio)).mean(), rel=1e-4)


@pytest.mark.parametrize("space", [gym.spaces.Discrete(4), gym.spaces.Box(-1, 2, (3,), np.float32)], ids=str)
def test_a_batch_of_the_expert_alone_trains_the_value_alone(space):
    model, samples, legal, own = ppo_batch(space)
    loss, numbers = model.losses(samples, legal, torch.zeros_like(own))
    assert loss.item() == pytest.approx(0.7 * numbers["value_loss"], rel=1e-6)
    policy, value = gradients(model, loss)
    assert not policy.any()
    assert value.any()


def test_illegal_actions_have_no_gradient_in_ppo():
    model, samples, legal, own = ppo_batch(gym.spaces.Discrete(4))
    legal[:, 3] = False
    samples = samples._replace(actions=samples.actions.clamp(max=2))
    gradients(model, model.losses(samples, legal, own)[0])
    slopes = model.policy.action_net.weight.grad
    assert not slopes[3].any()
    assert slopes[:3].any()
