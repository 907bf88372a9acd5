"""Soft actor-critic for discrete actions, as a Stable-Baselines3 off-policy algorithm that an expert can guide.

LGDRL-style, as specified here (our notation). With a masked softmax policy pi, twin critics Q_1, Q_2, their targets
Qbar_1, Qbar_2 and a temperature alpha:

    V(s)    = sum_a pi(a|s) [ min_i Qbar_i(s, a) - alpha ln pi(a|s) ]
    L_i     = E ( Q_i(s, a_exec) - r - gamma (1 - terminated) V(s') )^2         a_exec: executed, whoever chose it
    L_0     = E sum_a pi(a|s) [ alpha ln pi(a|s) - min_i Q_i(s, a) ] / max(floor, mean |min_i Q_i|)
    L_pi    = rl_share L_0 + guidance                                           both from `Strategy.loss`
    L_alpha = alpha E[ H(pi(.|s)) - H* ],  H* = target_entropy_ratio ln A

A `Strategy` (lgdrl.guidance.strategy) hooks in where SB3 offers a seam: `_sample_action`, `_store_transition`, `train`.
Shapes: N parallel worlds, A actions, B sampled transitions, F flattened observation numbers.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, create_mlp
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, PyTorchObs, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from lgdrl.guidance.strategy import Advice, Execution, GuidanceLoss, Moment, Strategy, Transitions
from lgdrl.learners.replay import GuidedReplayBuffer, GuidedSamples
from sim.view import Views

ILLEGAL = -1e8
"""Log-probability of an illegal action: finite, so that 0 x ln 0 is 0, and far below where exp() reaches 0."""


@dataclass(frozen=True)
class SACConfig:
    """Settings of `DiscreteSAC`. Defaults solved the mandatory lane change in 60k decisions of 32 worlds."""

    hidden: tuple[int, ...] = (128, 128)  # units per hidden layer, actor and critics alike; 29 inputs need no more
    learning_rate: float = 1e-3  # Adam, all networks and alpha; 3e-4 was 20 points behind at 20k decisions
    tau: float = 0.01  # share of the critics that flows into their targets per update; goes with the learning rate
    gamma: float = 0.99  # discount per decision
    batch_size: int = 128  # transitions per update
    buffer_size: int = 100_000  # transitions; a whole run of the lane change fits
    learning_starts: int = 500  # decisions with uniformly random legal proposals, before the first update
    updates_per_decision: float = 0.25  # gradient steps per decision of one world; the remainder is carried over
    target_entropy_ratio: float = 0.2  # H* / ln A; 0.5 keeps a driver undecided
    alpha_initial: float = 0.1  # temperature at the start
    alpha_cap: float | None = 0.1  # upper bound, None: none. A constraint holds H under H*, so free alpha runs off
    alpha_fixed: bool = False  # True: alpha stays at its initial value
    loss_scale_floor: float | None = 1.0  # L_0 is divided by max(this, mean |Q|), None: not at all. 0 drowns guidance

    def __post_init__(self) -> None:
        _require(bool(self.hidden) and all(units > 0 for units in self.hidden), "hidden", self.hidden, "all > 0")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "> 0")
        _require(0 < self.tau <= 1, "tau", self.tau, "in (0, 1]")
        _require(0 <= self.gamma <= 1, "gamma", self.gamma, "in [0, 1]")
        _require(self.batch_size > 0, "batch_size", self.batch_size, "> 0")
        _require(self.buffer_size > 0, "buffer_size", self.buffer_size, "> 0")
        _require(self.learning_starts >= 0, "learning_starts", self.learning_starts, ">= 0")
        _require(self.updates_per_decision >= 0, "updates_per_decision", self.updates_per_decision, ">= 0")
        _require(self.alpha_initial > 0, "alpha_initial", self.alpha_initial, "> 0")
        if self.alpha_cap is not None:
            _require(self.alpha_cap >= self.alpha_initial, "alpha_cap", self.alpha_cap, ">= alpha_initial")
        if self.loss_scale_floor is not None:
            _require(self.loss_scale_floor > 0, "loss_scale_floor", self.loss_scale_floor, "> 0")


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name} = {value} must be {expected}")


class Advisor(Protocol):
    """Who is asked when a strategy wants the expert. Budgets, counting and logging happen behind it."""

    def advise(
        self,
        env: VecEnv,
        rows: np.ndarray,
        obs: np.ndarray,
        masks: np.ndarray,
        episodes: np.ndarray,
        steps: np.ndarray,
    ) -> Advice:
        """Advice for the worlds where bool (N,) `rows` is True.

        Args: env: the worlds, before this decision is executed. obs: (N, ...). masks: bool (N, A).
        episodes: int64 (N,) running episode numbers. steps: int64 (N,) decisions made in them.
        """
        ...

    def promise(
        self,
        env: VecEnv,
        rows: np.ndarray,
        obs: np.ndarray,
        masks: np.ndarray,
        episodes: np.ndarray,
        steps: np.ndarray,
    ) -> None:
        """Ask as `advise` does, but do not wait for the answers. Only with a `label_lag`."""
        ...

    def collect(self) -> Advice:
        """Wait for the answers of the oldest promise."""
        ...


# --------------------------------------------------------------------------------------------------- networks


def masked_log_softmax(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """ln pi(.|s) over legal actions: float (B, A), about `ILLEGAL` where bool (B, A) `masks` is False."""
    return torch.log_softmax(logits.masked_fill(~masks, ILLEGAL), dim=-1)


def sample_categorical(probs: np.ndarray, stream: np.random.Generator) -> np.ndarray:
    """One action per row of (N, A) probabilities, by inversion; never one of probability 0. Returns: int64 (N,)."""
    cumulative = np.cumsum(probs, axis=1, dtype=np.float64)
    thresholds = stream.random(len(probs)) * cumulative[:, -1]
    return (cumulative <= thresholds[:, None]).sum(axis=1)


class TwinMLP(nn.Module):
    """Two equal multilayer perceptrons with weights of their own, computed together by batched products.

    One batched layer per pair of layers takes 40 % off a critic step at 128-128 units and batch 128 on a CPU.
    Initialised as SB3's `create_mlp` initialises each of them.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        twins = [nn.Sequential(*create_mlp(inputs, outputs, list(hidden))) for _ in range(2)]
        pairs = list(zip(*([m for m in twin if isinstance(m, nn.Linear)] for twin in twins), strict=True))
        self.weights = nn.ParameterList([_stacked([layer.weight.T for layer in pair]) for pair in pairs])
        self.biases = nn.ParameterList([_stacked([layer.bias[None] for layer in pair]) for pair in pairs])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (2, B, outputs)."""
        hidden = features.expand(2, *features.shape)
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if index < last:
                hidden = torch.relu(hidden)
        return hidden


def _stacked(tensors: list[torch.Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([tensor.detach() for tensor in tensors]))


class Trainable(nn.Module):
    """A network beside its optimizer, as SB3 keeps them."""

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.optimizer = adam(list(network.parameters()), learning_rate)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> the network's output."""
        return self.network(features)

    def minimise(self, loss: torch.Tensor) -> None:
        """One gradient step."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def adam(parameters: list[torch.Tensor], learning_rate: float) -> torch.optim.Adam:
    """Adam in one fused kernel per step, where all parameters live on one device."""
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)


class DiscreteSACPolicy(BasePolicy):
    """Softmax actor, twin critics and their slowly following targets, on a flattened Box observation.

    Args: spaces and learning-rate schedule as SB3 passes them; hidden units per layer.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        hidden: Sequence[int] = SACConfig.hidden,
    ) -> None:
        if not isinstance(observation_space, spaces.Box):
            raise ValueError(f"observation_space = {observation_space}: expected a Box")
        if not isinstance(action_space, spaces.Discrete) or action_space.start != 0:
            raise ValueError(f"action_space = {action_space}: expected Discrete actions that count from 0")
        super().__init__(observation_space, action_space, features_extractor_class=FlattenExtractor)
        self.hidden = tuple(hidden)
        self.num_actions = int(action_space.n)
        self.features_extractor = self.make_features_extractor()
        inputs, learning_rate = self.features_extractor.features_dim, lr_schedule(1)
        self.actor = Trainable(nn.Sequential(*create_mlp(inputs, self.num_actions, list(hidden))), learning_rate)
        self.critic = Trainable(TwinMLP(inputs, self.num_actions, hidden), learning_rate)
        self.critic_target = copy.deepcopy(self.critic.network).requires_grad_(False)
        self.stream = np.random.default_rng()

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "hidden": self.hidden,
        }

    def features(self, obs: PyTorchObs) -> torch.Tensor:
        """(B, ...) observations as float32 (B, F)."""
        return self.extract_features(obs, self.features_extractor)

    def log_probs(self, obs: PyTorchObs, masks: torch.Tensor) -> torch.Tensor:
        """ln pi(.|s), float (B, A); bool (B, A) `masks` names the legal actions."""
        return masked_log_softmax(self.actor(self.features(obs)), masks)

    def q_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Both critics: float (2, B, A)."""
        return self.critic(self.features(obs))

    def target_q_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Both target critics: float (2, B, A)."""
        return self.critic_target(self.features(obs))

    def update_targets(self, tau: float) -> None:
        """Qbar <- (1 - tau) Qbar + tau Q."""
        with torch.no_grad():
            online: list[torch.Tensor] = list(self.critic.network.parameters())
            targets: list[torch.Tensor] = list(self.critic_target.parameters())
            torch._foreach_lerp_(targets, online, tau)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        batch = self.features(observation).shape[0]
        return torch.as_tensor(self._choose(observation, np.ones((batch, self.num_actions), bool), deterministic))

    def _choose(self, obs: PyTorchObs, masks: np.ndarray, deterministic: bool) -> np.ndarray:
        with torch.no_grad():
            log_probs = self.log_probs(obs, torch.as_tensor(masks, device=self.device)).cpu()
        if deterministic:
            return log_probs.argmax(dim=1).numpy()
        return sample_categorical(log_probs.exp().numpy(), self.stream)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """SB3's `predict` with sb3-contrib's `action_masks`: bool (A,) or (N, A), None where all actions are legal.

        Draws come from a stream of their own, so predicting while training changes nothing in the training.
        """
        if action_masks is None:
            return super().predict(observation, state, episode_start, deterministic)
        self.set_training_mode(False)
        obs, vectorized = self.obs_to_tensor(observation)
        masks = np.asarray(action_masks, bool).reshape(-1, self.num_actions)
        actions = self._choose(obs, masks, deterministic)
        return (actions if vectorized else actions.squeeze(axis=0)), state


# -------------------------------------------------------------------------------------------------- algorithm


class DiscreteSAC(OffPolicyAlgorithm):
    """Discrete soft actor-critic, guided by a `Strategy`.

    Works on any gymnasium environment or SB3 VecEnv with Box observations and Discrete actions. Where the worlds offer
    `action_masks()`, only legal actions are proposed, and successors are valued over legal actions only (a truncated
    world tells those in info["terminal_action_mask"]; without it all count as legal).

    Args:
        env: what to learn in; None only for prediction.
        config: settings.
        strategy: integration of the expert; None is plain SAC.
        advisor: who answers when the strategy asks; None: nobody, which a strategy that needs an expert refuses.
        label_lag: steps of the worlds for which a label may be on its way where the strategy wants to execute nothing
            of it. Transitions enter the replay so many steps late, with their labels: what is learned does not depend
            on how fast the answers were. 0: answers are waited for.
        seed: root of all random draws (network weights, proposals, replay, `predict`); None draws one.
        device, verbose, tensorboard_log, stats_window_size: as in SB3.
        policy: network class; here because SB3's `load` passes it.

    After each decision `moment` and `execution` hold what was known and what was done, for callbacks.
    `learn` in slices (`reset_num_timesteps=False`) equals `learn` in one go. A callback that returns False from
    `on_step` loses the step it stopped at, as everywhere in SB3: to stop cleanly, end a slice instead.
    """

    policy: DiscreteSACPolicy
    actor: Trainable
    critic: Trainable
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": DiscreteSACPolicy}

    def __init__(
        self,
        env: GymEnv | str | None,
        config: SACConfig | None = None,
        strategy: Strategy | None = None,
        advisor: Advisor | None = None,
        *,
        label_lag: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        verbose: int = 0,
        tensorboard_log: str | None = None,
        stats_window_size: int = 100,
        policy: str | type[DiscreteSACPolicy] = DiscreteSACPolicy,
        _init_setup_model: bool = True,
    ) -> None:
        self.config = config or SACConfig()
        self.strategy = strategy or Strategy()
        self.advisor = advisor
        self.label_lag = label_lag
        if self.strategy.needs_expert and advisor is None:
            raise ValueError(f"strategy {self.strategy.name!r} needs an expert: pass an advisor")
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate=self.config.learning_rate,
            buffer_size=self.config.buffer_size,
            learning_starts=self.config.learning_starts,
            batch_size=self.config.batch_size,
            tau=self.config.tau,
            gamma=self.config.gamma,
            train_freq=1,
            gradient_steps=0,
            replay_buffer_class=GuidedReplayBuffer,
            policy_kwargs={"hidden": self.config.hidden},
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Discrete,),
        )
        self.moment: Moment | None = None
        self.execution: Execution | None = None
        self._unlabelled: deque[tuple[Transitions, int]] = deque()
        """Steps that are not stored yet, oldest first, and how many promises their labels are in."""
        self._promises = 0
        self._learning_decisions = 0
        self._next_episode = 0
        self._episodes = np.zeros(0, np.int64)
        self._steps = np.zeros(0, np.int64)
        if _init_setup_model:
            self._setup_model()

    # ------------------------------------------------------------------------------------------ set-up

    def _setup_model(self) -> None:
        if self._vec_normalize_env is not None:
            raise ValueError("VecNormalize is not supported: scale observations and rewards inside the environment")
        root = np.random.SeedSequence(self.seed)
        proposals, predictions, replay = root.spawn(3)
        self.replay_buffer_kwargs = {"seed": replay}
        super()._setup_model()
        self._proposals = np.random.default_rng(proposals)
        self.policy.stream = np.random.default_rng(predictions)
        self.actor, self.critic = self.policy.actor, self.policy.critic
        self.target_entropy = self.config.target_entropy_ratio * math.log(self.policy.num_actions)
        self.log_alpha = torch.tensor([math.log(self.config.alpha_initial)], device=self.device, requires_grad=True)
        self.alpha_optimizer = None if self.config.alpha_fixed else adam([self.log_alpha], self.config.learning_rate)

    @property
    def replay(self) -> GuidedReplayBuffer:
        """The replay buffer, by its own type."""
        assert isinstance(self.replay_buffer, GuidedReplayBuffer)
        return self.replay_buffer

    @property
    def worlds(self) -> VecEnv:
        """The training environment."""
        if self.env is None:
            raise ValueError("no environment: pass one to the constructor, to load() or to set_env()")
        return self.env

    @property
    def alpha(self) -> torch.Tensor:
        """Temperature, (1,), without gradient."""
        return self.log_alpha.detach().exp()

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        restarts = reset_num_timesteps or self._last_obs is None
        prepared = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if restarts:
            self._episodes = np.full(self.n_envs, -1, np.int64)
            self._steps = np.zeros(self.n_envs, np.int64)
            self._begin_episodes(np.arange(self.n_envs))
        return prepared

    def _begin_episodes(self, worlds: np.ndarray) -> None:
        """Give the worlds named by an int array fresh episode numbers."""
        self._episodes[worlds] = self._next_episode + np.arange(len(worlds))
        self._steps[worlds] = 0
        self._next_episode += len(worlds)

    def _legal(self) -> np.ndarray:
        """bool (N, A): legal actions of all worlds now."""
        masks = current_action_masks(self.worlds, self.policy.num_actions)
        if not masks.any(axis=1).all():
            raise ValueError(f"worlds {np.flatnonzero(~masks.any(axis=1)).tolist()} offer no legal action")
        return masks

    # -------------------------------------------------------------------------------- seam 1: acting

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        moment = self._look(warming_up=self.num_timesteps < learning_starts)
        execution = self.strategy.on_action(moment)
        legal = moment.masks[np.arange(n_envs), execution.actions]
        if not legal.all():
            raise ValueError(
                f"strategy {self.strategy.name!r} executed an illegal action in worlds {np.flatnonzero(~legal)}"
            )
        self.moment, self.execution = moment, execution
        return execution.actions, execution.actions

    def _look(self, warming_up: bool) -> Moment:
        """The present decision moment. In the warm-up `probs`, and so the proposals, are uniform over legal actions."""
        assert isinstance(self._last_obs, np.ndarray)
        obs, masks = self._last_obs, self._legal()
        probs = _uniform(masks) if warming_up else self._policy_probs(obs, masks)
        episodes, steps = self._episodes.copy(), self._steps.copy()
        return Moment(
            obs=obs,
            masks=masks,
            proposals=sample_categorical(probs, self._proposals),
            probs=probs,
            decisions=self.num_timesteps,
            episodes=episodes,
            steps=steps,
            ask=lambda rows, now=None: self._ask(rows, now, obs, masks, episodes, steps),
            scenes=lambda indices: current_scenes(self.worlds, indices),
            views=lambda indices: current_views(self.worlds, indices),
            q_values=lambda: self._min_q(obs),
        )

    def _policy_probs(self, obs: np.ndarray, masks: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            tensor = torch.as_tensor(obs, device=self.device)
            log_probs = self.policy.log_probs(tensor, torch.as_tensor(masks, device=self.device))
        return log_probs.exp().cpu().numpy()

    def _min_q(self, obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.policy.q_values(torch.as_tensor(obs, device=self.device)).amin(dim=0).cpu().numpy()

    def _ask(
        self,
        rows: np.ndarray,
        now: np.ndarray | None,
        obs: np.ndarray,
        masks: np.ndarray,
        episodes: np.ndarray,
        steps: np.ndarray,
    ) -> Advice:
        if self.advisor is None or not rows.any():
            return Advice.none(*masks.shape)
        if now is None or not self.label_lag:
            return self.advisor.advise(self.worlds, rows, obs, masks, episodes, steps)
        advice = self.advisor.advise(self.worlds, rows & now, obs, masks, episodes, steps)
        self.advisor.promise(self.worlds, rows & ~now, obs, masks, episodes, steps)
        self._promises += 1
        return advice

    # ------------------------------------------------------------------------------- seam 2: storing

    def _store_transition(  # type: ignore[override]
        self,
        replay_buffer: GuidedReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        transitions = self._transitions(buffer_action, new_obs, reward, dones, infos)
        if self.label_lag:
            self._unlabelled.append((copy.deepcopy(transitions), self._promises))
            self._promises = 0
            self.store_until(self.label_lag)
        else:
            replay_buffer.add_transitions(self.strategy.on_store(transitions))
        self._last_obs = new_obs
        self._steps += 1
        self._begin_episodes(np.flatnonzero(dones))

    def store_until(self, left: int) -> None:
        """Store steps that wait for their labels, oldest first, until no more than `left` of them wait."""
        while len(self._unlabelled) > left:
            transitions, promises = self._unlabelled.popleft()
            for _ in range(promises):
                assert self.advisor is not None
                transitions.advice.fill(self.advisor.collect())
            self.replay.add_transitions(self.strategy.on_store(transitions))

    def _transitions(
        self,
        actions: np.ndarray,
        new_obs: np.ndarray,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> Transitions:
        """The step just made. Worlds that ended have begun anew already: their true successors are in the infos."""
        assert self.moment is not None
        assert self.execution is not None
        next_obs, next_masks = new_obs.copy(), self._legal().copy()
        terminated = dones.astype(bool)
        for world in np.flatnonzero(dones):
            info = infos[world]
            next_obs[world] = info.get("terminal_observation", new_obs[world])
            next_masks[world] = info.get("terminal_action_mask", True)
            terminated[world] = not info.get("TimeLimit.truncated", False)
        return Transitions(
            obs=self.moment.obs,
            next_obs=next_obs,
            masks=self.moment.masks,
            next_masks=next_masks,
            learner_actions=self.moment.proposals,
            actions=actions,
            advice=self.execution.advice,
            intervened=self.execution.intervened,
            rewards=reward.astype(np.float32),
            dones=dones.astype(bool),
            terminated=terminated,
        )

    def _on_step(self) -> None:
        """Tell SB3's loop how many updates are due: floor(ratio x decisions), counted from the end of the warm-up."""
        if self.num_timesteps <= self.learning_starts or not self.replay.size():
            self.gradient_steps = 0
            return
        done = self._updates_due()
        self._learning_decisions += self.n_envs
        self.gradient_steps = self._updates_due() - done

    def _updates_due(self) -> int:
        return math.floor(self._learning_decisions * self.config.updates_per_decision + 1e-9)

    # ------------------------------------------------------------------------------ seam 3: learning

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """`gradient_steps` updates of critics, actor, temperature and targets, in this order."""
        self.policy.set_training_mode(True)
        losses: list[torch.Tensor] = []
        guidance: list[dict[str, float]] = []
        for _ in range(gradient_steps):
            values, metrics = self._update(batch_size)
            losses.append(values)
            guidance.append(metrics)
        self._n_updates += gradient_steps
        self._record(torch.stack(losses).mean(dim=0).tolist(), guidance)

    def _update(self, batch_size: int) -> tuple[torch.Tensor, dict[str, float]]:
        """One update. Returns: (critic loss, actor loss, alpha loss, alpha, entropy) and the strategy's metrics."""
        batch = self.strategy.on_batch(self.replay, batch_size)
        alpha = self.alpha
        critic_loss = self.critic_loss(batch.rl, alpha)
        self.critic.minimise(critic_loss)
        log_probs = self.policy.log_probs(batch.rl.observations, batch.rl.masks)
        actor_loss = self.actor_loss(batch.rl, log_probs, alpha)
        guided = self._guidance(batch.guide)
        total = actor_loss if guided.rl_share == 1.0 else guided.rl_share * actor_loss
        self.actor.minimise(total if guided.value is None else total + guided.value)
        entropy = -(log_probs.detach().exp() * log_probs.detach()).sum(dim=1).mean()
        alpha_loss = self._update_alpha(entropy)
        self.policy.update_targets(self.tau)
        values = (critic_loss.detach(), actor_loss.detach(), alpha_loss, alpha.squeeze(), entropy)
        return torch.stack(values), guided.metrics

    def critic_loss(self, batch: GuidedSamples, alpha: torch.Tensor) -> torch.Tensor:
        """L_1 + L_2 on the executed actions."""
        with torch.no_grad():
            next_log_probs = self.policy.log_probs(batch.next_observations, batch.next_masks)
            next_q = self.policy.target_q_values(batch.next_observations).amin(dim=0)
            next_value = (next_log_probs.exp() * (next_q - alpha * next_log_probs)).sum(dim=1)
            target = batch.rewards + self.gamma * (~batch.terminated) * next_value
        q = self.policy.q_values(batch.observations)
        executed = q.gather(2, batch.actions[None, :, None].expand(2, -1, 1)).squeeze(2)
        return (executed - target).square().mean(dim=1).sum()

    def actor_loss(self, batch: GuidedSamples, log_probs: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """L_0 for float (B, A) `log_probs` on the batch; mean |Q| is taken over legal actions."""
        with torch.no_grad():
            q = self.policy.q_values(batch.observations).amin(dim=0)
            scale = self._loss_scale(q, batch.masks)
        return (log_probs.exp() * (alpha * log_probs - q)).sum(dim=1).mean() / scale

    def _loss_scale(self, q: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        if self.config.loss_scale_floor is None:
            return torch.ones((), device=q.device)
        return ((q.abs() * masks).sum() / masks.sum()).clamp(min=self.config.loss_scale_floor)

    def _guidance(self, guide: GuidedSamples | None) -> GuidanceLoss:
        """The strategy's term, from its own forward pass; adding nothing leaves plain SAC, bit for bit."""
        if guide is None:
            return GuidanceLoss()
        return self.strategy.loss(guide, self.policy.log_probs(guide.observations, guide.masks))

    def _update_alpha(self, entropy: torch.Tensor) -> torch.Tensor:
        """One step on L_alpha for the batch's mean entropy, then the cap. Returns: the loss, without gradient."""
        if self.alpha_optimizer is None:
            return torch.zeros_like(entropy)
        loss = self.alpha * (entropy - self.target_entropy)
        self.log_alpha.grad = loss  # exponential in ln alpha, so L_alpha is its own derivative
        self.alpha_optimizer.step()
        if self.config.alpha_cap is not None:
            with torch.no_grad():
                self.log_alpha.clamp_(max=math.log(self.config.alpha_cap))
        return loss.squeeze()

    def _record(self, means: list[float], guidance: list[dict[str, float]]) -> None:
        critic_loss, actor_loss, alpha_loss, alpha, entropy = means
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/critic_loss", critic_loss)
        self.logger.record("train/actor_loss", actor_loss)
        self.logger.record("train/ent_coef", alpha)
        self.logger.record("train/entropy", entropy)
        if self.alpha_optimizer is not None:
            self.logger.record("train/ent_coef_loss", alpha_loss)
        for name in {name for metrics in guidance for name in metrics}:
            values = [metrics[name] for metrics in guidance if name in metrics]
            self.logger.record(f"guidance/{name}", sum(values) / len(values))

    def dump_logs(self) -> None:
        """SB3's log lines, with the strategy's metrics under guidance/."""
        for name, value in self.strategy.metrics().items():
            self.logger.record(f"guidance/{name}", value)
        super().dump_logs()

    # --------------------------------------------------------------------------- prediction and files

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As `DiscreteSACPolicy.predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def _excluded_save_params(self) -> list[str]:
        own = ["actor", "critic", "strategy", "advisor", "moment", "execution", "alpha_optimizer", "_proposals"]
        return [*super()._excluded_save_params(), *own, "_unlabelled"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules = ["policy", "actor.optimizer", "critic.optimizer"]
        if self.alpha_optimizer is not None:
            modules.append("alpha_optimizer")
        return modules, ["log_alpha"]

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the rest of the training except the worlds: picklable, a copy.

        Take it between two calls of `learn`, together with the worlds' own state.
        """
        return {
            "parameters": copy.deepcopy(self.get_parameters()),
            "log_alpha": self.log_alpha.detach().clone(),
            "replay": self.replay.state_dict(),
            "unlabelled": copy.deepcopy(list(self._unlabelled)),
            "strategy": copy.deepcopy(self.strategy.state_dict()),
            "streams": {
                "proposals": self._proposals.bit_generator.state,
                "predictions": self.policy.stream.bit_generator.state,
            },
            "counters": {name: copy.deepcopy(getattr(self, name)) for name in COUNTERS},
            "ep_info": _listed(self.ep_info_buffer),
            "ep_success": _listed(self.ep_success_buffer),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a `state_dict` of a model with the same config, strategy and number of worlds.

        Call `learn(..., reset_num_timesteps=False)` next, with the worlds set to the state they had.
        """
        self.set_parameters(copy.deepcopy(state["parameters"]), device=self.device)
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self.replay.load_state_dict(state["replay"])
        self._unlabelled = deque(copy.deepcopy(state.get("unlabelled", [])))
        self.strategy.load_state_dict(copy.deepcopy(state["strategy"]))
        self._proposals.bit_generator.state = state["streams"]["proposals"]
        self.policy.stream.bit_generator.state = state["streams"]["predictions"]
        for name in COUNTERS:
            setattr(self, name, copy.deepcopy(state["counters"][name]))
        self.ep_info_buffer = _window(state["ep_info"], self._stats_window_size)
        self.ep_success_buffer = _window(state["ep_success"], self._stats_window_size)


COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_num_timesteps_at_start",
    "_current_progress_remaining",
    "_episode_num",
    "_n_updates",
    "_learning_decisions",
    "_next_episode",
    "_episodes",
    "_steps",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
)
"""Attributes of `DiscreteSAC` that its `state_dict` keeps as they are."""


def _listed(window: deque | None) -> list | None:
    return None if window is None else copy.deepcopy(list(window))


def _window(values: list | None, length: int) -> deque | None:
    return None if values is None else deque(copy.deepcopy(values), maxlen=length)


def _uniform(masks: np.ndarray) -> np.ndarray:
    """float32 (N, A): uniform over legal actions."""
    return (masks / masks.sum(axis=1, keepdims=True)).astype(np.float32)


# ------------------------------------------------------------------------------------- what worlds may offer


def current_action_masks(env: VecEnv, num_actions: int) -> np.ndarray:
    """bool (N, A) of legal actions now: the VecEnv's `action_masks()`, else its environments', else all True."""
    batched = getattr(env, "action_masks", None)
    if batched is not None:
        return np.asarray(batched(), bool)
    if env.has_attr("action_masks"):
        return np.stack(env.env_method("action_masks")).astype(bool)
    return np.ones((env.num_envs, num_actions), bool)


def current_scenes(env: VecEnv, indices: np.ndarray) -> list[Any]:
    """Scenes of the worlds named by an int array; None for each where the worlds have no scenes."""
    scenes = getattr(env, "scenes", None)
    return [None] * len(indices) if scenes is None else scenes(indices)


def current_views(env: VecEnv, indices: np.ndarray) -> Views | None:
    """What the egos of the worlds named by an int array see; None where the worlds have no scenes."""
    views = getattr(env, "views", None)
    return None if views is None else views(indices)
