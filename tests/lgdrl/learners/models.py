"""Small models of the learners by name, transitions in which everything varies, strategies with terms of every kind."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from lgdrl.guidance.constraint import DualConfig
from lgdrl.guidance.records import Labels, Transitions
from lgdrl.guidance.strategy import RL, Strategy
from lgdrl.guidance.terms import ConstraintTerm, ImitationTerm, Terms
from lgdrl.learners.dqn import DQN, DQNConfig
from lgdrl.learners.ppo import PPO, PPOConfig
from lgdrl.learners.sac import SAC, SACConfig
from lgdrl.learners.td3 import TD3, TD3Config

INPUTS, ACTIONS = 6, 4
CLASSES = {"sac": SAC, "td3": TD3, "dqn": DQN, "ppo": PPO}
SMALL: dict[str, Any] = {
    "sac": SACConfig(hidden=(16, 24), batch_size=32, buffer_size=2_000),
    "td3": TD3Config(hidden=(16, 24), batch_size=32, buffer_size=2_000),
    "dqn": DQNConfig(hidden=(16, 24), batch_size=32, buffer_size=2_000),
    "ppo": PPOConfig(hidden=(16, 24), batch_size=32, buffer_size=2_000, rollout=64, epochs=2),
}


def box(dimensions: int) -> spaces.Box:
    """Actions whose bounds are neither symmetric nor the same in each dimension."""
    low = -1.0 - 0.5 * np.arange(dimensions)
    return spaces.Box(low.astype(np.float32), (low + 3.0 + np.arange(dimensions)).astype(np.float32))


class Spaces(gym.Env):
    """An environment that is never stepped."""

    def __init__(self, action_space: spaces.Space, inputs: int = INPUTS) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (inputs,), np.float32)
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        return np.zeros(self.observation_space.shape or (), np.float32), {}


def space_of(name: str, dimensions: int = 3) -> spaces.Space:
    """Actions that a learner can learn."""
    return spaces.Discrete(ACTIONS) if name == "dqn" else box(dimensions)


def some_transitions(action_space: spaces.Space, number: int = 300, inputs: int = INPUTS) -> Transitions:
    """Everything varies: legal actions, ends, labels, what was proposed, executed and advised."""
    rng = np.random.default_rng(0)
    labels, ends = Labels.none(number, action_space), rng.random((2, number)) < 0.1
    labels.given[:] = rng.random(number) < 0.5
    legal = next_legal = None
    if isinstance(action_space, spaces.Discrete):
        actions = int(action_space.n)
        legal, next_legal = (rng.random((2, number, actions)) < 0.7) | (np.arange(actions) == 1)
        proposed, executed, advised = (
            np.array([rng.choice(np.flatnonzero(row)) for row in legal], np.int64) for _ in range(3)
        )
        assert labels.probs is not None
        labels.probs[:] = np.eye(actions)[advised] * labels.given[:, None]
    else:
        assert isinstance(action_space, spaces.Box)
        shape = (number, *action_space.shape)
        proposed, executed, advised = (
            rng.uniform(action_space.low, action_space.high, shape).astype(np.float32) for _ in range(3)
        )
        advised[: number // 5] = action_space.high  # labels at the bounds
    labels.action[labels.given] = advised[labels.given]
    return Transitions(
        obs=rng.normal(size=(number, inputs)).astype(np.float32),
        next_obs=rng.normal(size=(number, inputs)).astype(np.float32),
        legal=legal,
        next_legal=next_legal,
        learner_actions=proposed,
        actions=executed,
        labels=labels,
        authority=np.zeros(number, np.float32),
        reason=np.zeros(number, np.int8),
        rewards=rng.normal(size=number).astype(np.float32),
        terminated=ends[0],
        truncated=ends[1] & ~ends[0],
        episodes=np.zeros(number, np.int64),
        steps=np.arange(number),
    )


def make(
    name: str,
    core: str = "torch",
    strategy: Strategy | None = None,
    *,
    seed: int = 0,
    dimensions: int = 3,
    inputs: int = INPUTS,
    **changes: Any,
) -> Any:
    """An off-policy learner with a filled replay buffer, ready to `train`.

    Args:
        name: Of the learner.
        core: What computes updates.
        strategy: Integration of the expert.
        seed: Of the model.
        dimensions: Of continuous actions.
        inputs: Numbers of an observation.
        changes: Settings other than those of `SMALL`.
    """
    config = dataclasses.replace(SMALL[name], core=core, **changes)
    env = Spaces(space_of(name, dimensions), inputs)
    model = CLASSES[name](env, config, strategy, seed=seed, device="cpu")
    model._setup_learn(0)
    model.replay.add_transitions(some_transitions(model.action_space, inputs=inputs))
    return model


# -------------------------------------------------------------------------------------------------- strategies


class Everything(Strategy):
    """Terms of every kind at once: weights, shares, free expressions in both losses, batches of several sizes."""

    def __init__(self) -> None:
        super().__init__("everything", actor=[ConstraintTerm("js", 24, DualConfig(initial=0.5))], needs_expert=False)

    def critic_terms(self, batches, networks):
        samples = batches["constraint"] if "constraint" in batches else batches[RL]
        loss = 0.3 * critic_margin(samples, networks)
        return Terms(loss, batches[RL].rewards.abs(), 0.5, {"margin": loss.item()})

    def actor_terms(self, batches, networks):
        found = super().actor_terms(batches, networks)
        pull = policy_spread(batches[RL], networks)
        return Terms.combined([found, Terms(0.2 * pull, batches[RL].rewards.abs() + 0.1, 0.7)])


def critic_margin(samples, networks) -> torch.Tensor:
    """Critics should prefer labels: an expression that asks each critic twice on one batch."""
    if samples.legal is None:
        executed, advised = (networks.action_values(samples, name) for name in ("actions", "label_actions"))
        return (executed - advised + 0.1).square().mean() + 0.1 * executed[0].mean()
    values = networks.q_values(samples)
    labels = samples.label_actions[None, :, None].expand(len(values), -1, 1)
    return (values.amax(dim=2) - values.gather(2, labels).squeeze(2)).square().mean()


def policy_spread(samples, networks) -> torch.Tensor:
    """An expression of all that a policy is, on the batch of the learner's own loss."""
    if samples.legal is None:
        networks.gaussian(samples)  # asked for, and not used
        mean, log_std = networks.gaussian(samples)
        return (torch.tanh(mean) * log_std.exp()).mean() + mean.square().mean()
    return networks.log_probs(samples)[:, 1].mean()


class Weighted(Strategy):
    """Weights of samples and a share of the learner's own losses; nothing is added."""

    def critic_terms(self, batches, networks):
        return Terms(weights=batches[RL].rewards.square(), base_share=0.6)

    def actor_terms(self, batches, networks):
        return Terms(weights=batches[RL].rewards.abs(), base_share=0.3)


class CriticTerm(Strategy):
    """A term of the critics alone, on the batch of the learner's own loss."""

    def critic_terms(self, batches, networks):
        return Terms(0.5 * critic_margin(batches[RL], networks))


def constrained(measured: str, pull: str | None = None) -> Strategy:
    """LGDRL's term."""
    return Strategy("constrained", actor=[ConstraintTerm(measured, 24, DualConfig(), pull=pull)], needs_expert=False)


STRATEGIES = {
    "none": lambda: None,
    "js": lambda: constrained("js"),
    "js pulled by kl": lambda: constrained("js", "kl"),
    "reverse_kl": lambda: constrained("reverse_kl"),
    "cloning": lambda: Strategy("bc", actor=[ImitationTerm("bc", 40, 0.7)], needs_expert=False),
    "cloning alone": lambda: Strategy("bc", actor=[ImitationTerm("bc", 40, 0.7, rl_share=0.0)], needs_expert=False),
    "weighted": Weighted,
    "critic term": CriticTerm,
    "everything": Everything,
}


# ----------------------------------------------------------------------------------------------------- numbers


def state(model: Any) -> dict[str, torch.Tensor]:
    """Copies of all parameters, targets included, and the logarithm of the temperature."""
    found = {name: value.detach().clone() for name, value in model.policy.state_dict().items()}
    log_alpha = getattr(model, "log_ent_coef", None)
    return found if log_alpha is None else found | {"log_alpha": log_alpha.detach().clone()}


def parts(model: Any) -> dict[str, Any]:
    """What holds an optimizer."""
    found = {name: getattr(model, name, None) for name in ("actor", "critic")}
    found = {name: part for name, part in found.items() if part is not None}
    return found or {"policy": model.policy}


def optimizers(model: Any) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of all parameters."""
    found = {name: part.optimizer for name, part in parts(model).items()}
    of_alpha = getattr(model, "ent_coef_optimizer", None)
    return found if of_alpha is None else found | {"alpha": of_alpha}


def moments(model: Any) -> dict[str, torch.Tensor]:
    """Moving means of the gradients of each network; after one step from zero a tenth of the gradients."""
    return {
        name: torch.cat([own["exp_avg"].flatten() for own in part.optimizer.state.values()])
        for name, part in parts(model).items()
    }


def assert_equal_parameters(one: Any, other: Any) -> None:
    """Bit for bit: parameters, targets, temperature, and what the optimizers remember."""
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    for name, optimizer in optimizers(one).items():
        pairs = zip(optimizer.state.values(), optimizers(other)[name].state.values(), strict=True)
        for own, theirs in pairs:
            assert torch.equal(own["exp_avg"], theirs["exp_avg"]), name
            assert torch.equal(own["exp_avg_sq"], theirs["exp_avg_sq"]), name
            assert float(own["step"]) == float(theirs["step"]), name


def distance(one: Any, other: Any) -> float:
    """The largest difference of two parameters."""
    pairs = zip(state(one).values(), state(other).values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def mean_distance(one: Any, other: Any) -> float:
    """The mean difference of two parameters."""
    pairs = zip(state(one).values(), state(other).values(), strict=True)
    return float(torch.cat([(a - b).abs().flatten() for a, b in pairs]).mean())
