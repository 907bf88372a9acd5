"""Replay that keeps the whole story of a step: both proposals, who was in control, what the expert thought.

`GuidedReplayBuffer` is Stable-Baselines3's ring, addressed by transition rather than by vector step, so that a batch of
any size may be stored: the N worlds of a step, a file of demonstrations, what a strategy left over in `on_store`.
Random draws come from three streams of its own; drawing labels never changes what a uniform draw yields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from lgdrl.guidance.strategy import Advice, Transitions


@dataclass(slots=True)
class GuidedSamples:
    """B transitions as tensors, in the order drawn."""

    observations: torch.Tensor
    """(B, ...) in the observation space's dtype."""
    next_observations: torch.Tensor
    """(B, ...)"""
    masks: torch.Tensor
    """bool (B, A) legal actions."""
    next_masks: torch.Tensor
    """bool (B, A) legal actions of the successor."""
    learner_actions: torch.Tensor
    """int64 (B,) what the learner proposed."""
    actions: torch.Tensor
    """int64 (B,) executed."""
    expert_actions: torch.Tensor
    """int64 (B,) label, -1 where there is none."""
    expert_probs: torch.Tensor
    """float32 (B, A), zero rows where there is no label."""
    status: torch.Tensor
    """int8 (B,) index into STATUSES, -1 where there is none."""
    intervened: torch.Tensor
    """bool (B,)"""
    rewards: torch.Tensor
    """float32 (B,)"""
    dones: torch.Tensor
    """bool (B,): the episode ended, terminated or truncated."""
    terminated: torch.Tensor
    """bool (B,): nothing is bootstrapped."""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def labelled(self) -> torch.Tensor:
        """bool (B,): rows with a label."""
        return self.expert_actions >= 0

    @classmethod
    def concatenate(cls, parts: Sequence[GuidedSamples]) -> GuidedSamples:
        """The rows of all parts, in order; for batches mixed from several sources."""
        names = [f.name for f in dataclasses.fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


class _Queue:
    """Slots with some property, oldest first. The ring overwrites by age: the slots to forget are always in front."""

    def __init__(self, capacity: int) -> None:
        self.slots = np.zeros(capacity, np.int64)
        self.head = 0
        self.count = 0

    def drop_oldest(self, number: int) -> None:
        self.head = (self.head + number) % len(self.slots)
        self.count -= number

    def append(self, slots: np.ndarray) -> None:
        places = (self.head + self.count + np.arange(len(slots))) % len(self.slots)
        self.slots[places] = slots
        self.count += len(slots)

    def draw(self, number: int, stream: np.random.Generator) -> np.ndarray:
        return self.slots[(self.head + stream.integers(self.count, size=number)) % len(self.slots)]


class GuidedReplayBuffer(ReplayBuffer):
    """Ring of transitions with expert labels.

    `size()`, `pos` and `buffer_size` count transitions, whatever the number of worlds. SB3's own `add` and `sample`
    keep working (without guidance); `add_transitions` and the `sample_*` methods below are the full interface.

    Args: capacity in transitions; Box observations; Discrete actions; torch device of the samples; n_envs and
    optimize_memory_usage as SB3's algorithms pass them (the first changes nothing here, the second is refused);
    seed of the random draws.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        seed: int | np.random.SeedSequence | None = None,
    ) -> None:
        if not isinstance(action_space, spaces.Discrete) or action_space.start != 0:
            raise ValueError(f"action_space = {action_space}: expected Discrete actions that count from 0")
        if not isinstance(observation_space, spaces.Box):
            raise ValueError(f"observation_space = {observation_space}: expected a Box")
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage = True: true successors are always stored here; leave it False")
        super().__init__(buffer_size, observation_space, action_space, device, n_envs=1)
        self.worlds = n_envs
        self.num_actions = int(action_space.n)
        self.masks = np.zeros((self.buffer_size, self.num_actions), bool)
        self.next_masks = np.zeros((self.buffer_size, self.num_actions), bool)
        self.learner_actions = np.zeros(self.buffer_size, np.int64)
        self.expert_actions = np.full(self.buffer_size, -1, np.int64)
        self.expert_probs = np.zeros((self.buffer_size, self.num_actions), np.float32)
        self.status = np.full(self.buffer_size, -1, np.int8)
        self.intervened = np.zeros(self.buffer_size, bool)
        self.reset()
        self.seed(seed)

    def seed(self, seed: int | np.random.SeedSequence | None) -> None:
        """Restart the random draws."""
        root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        self._uniform, self._labelled, self._intervened = map(np.random.default_rng, root.spawn(3))

    def reset(self) -> None:
        """Forget every transition; the random draws go on."""
        super().reset()
        self._labels = _Queue(self.buffer_size)
        self._interventions = _Queue(self.buffer_size)

    @property
    def num_labelled(self) -> int:
        """Stored transitions with an expert label."""
        return self._labels.count

    @property
    def num_intervened(self) -> int:
        """Stored transitions that the expert executed."""
        return self._interventions.count

    def _columns(self) -> dict[str, np.ndarray]:
        """Every stored array by name, one row per slot (views: SB3's own arrays have a world axis of length 1)."""
        return {
            "observations": self.observations[:, 0],
            "next_observations": self.next_observations[:, 0],
            "masks": self.masks,
            "next_masks": self.next_masks,
            "learner_actions": self.learner_actions,
            "actions": self.actions[:, 0, 0],
            "expert_actions": self.expert_actions,
            "expert_probs": self.expert_probs,
            "status": self.status,
            "intervened": self.intervened,
            "rewards": self.rewards[:, 0],
            "dones": self.dones[:, 0],
            "timeouts": self.timeouts[:, 0],
        }

    def add_transitions(self, transitions: Transitions) -> None:
        """Store any number of finished steps, overwriting the oldest ones where the ring is full."""
        rows = _rows(transitions)
        excess = len(rows["actions"]) - self.buffer_size
        if excess > 0:
            rows = {name: values[excess:] for name, values in rows.items()}
        number = len(rows["actions"])
        slots = (self.pos + np.arange(number)) % self.buffer_size
        self._forget(slots)
        for name, column in self._columns().items():
            column[slots] = rows[name]
        self._remember(slots)
        self.full = self.full or self.pos + number >= self.buffer_size
        self.pos = (self.pos + number) % self.buffer_size

    def _forget(self, slots: np.ndarray) -> None:
        """Take slots that are about to be overwritten out of both queues."""
        used = slots if self.full else slots[slots < self.pos]
        self._labels.drop_oldest(int((self.expert_actions[used] >= 0).sum()))
        self._interventions.drop_oldest(int(self.intervened[used].sum()))

    def _remember(self, slots: np.ndarray) -> None:
        self._labels.append(slots[self.expert_actions[slots] >= 0])
        self._interventions.append(slots[self.intervened[slots]])

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """SB3's form: every action legal, nobody asked. `done` with info["TimeLimit.truncated"] still bootstraps."""
        actions = np.asarray(action, np.int64).reshape(-1)
        number = len(actions)
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos], bool)
        dones = np.asarray(done).astype(bool)
        legal = np.ones((number, self.num_actions), bool)
        self.add_transitions(
            Transitions(
                obs=np.asarray(obs).reshape(number, *self.obs_shape),
                next_obs=np.asarray(next_obs).reshape(number, *self.obs_shape),
                masks=legal,
                next_masks=legal,
                learner_actions=actions,
                actions=actions,
                advice=Advice.none(number, self.num_actions),
                intervened=np.zeros(number, bool),
                rewards=np.asarray(reward, np.float32),
                dones=dones,
                terminated=dones & ~truncated,
            )
        )

    def sample_uniform(self, batch_size: int) -> GuidedSamples:
        """Uniform over everything stored, with replacement. Raises ValueError when nothing is."""
        if self.size() == 0:
            raise ValueError("the replay buffer is empty: collect at least one decision before sampling")
        return self._gather(self._uniform.integers(self.size(), size=batch_size))

    def sample_labelled(self, batch_size: int) -> GuidedSamples | None:
        """Uniform over the transitions with an expert label, executed or not; None when there are none."""
        return self._gather(self._labels.draw(batch_size, self._labelled)) if self.num_labelled else None

    def sample_intervened(self, batch_size: int) -> GuidedSamples | None:
        """Uniform over the transitions that the expert executed; None when there are none."""
        if not self.num_intervened:
            return None
        return self._gather(self._interventions.draw(batch_size, self._intervened))

    def _gather(self, slots: np.ndarray) -> GuidedSamples:
        taken = {name: column.take(slots, axis=0) for name, column in self._columns().items()}
        dones = taken.pop("dones") > 0
        terminated = dones & ~(taken.pop("timeouts") > 0)
        tensors = {name: self._tensor(values) for name, values in taken.items()}
        return GuidedSamples(**tensors, dones=self._tensor(dones), terminated=self._tensor(terminated))

    def _tensor(self, drawn: np.ndarray) -> torch.Tensor:
        """A freshly gathered array on the device of the samples, without another copy on a CPU."""
        return torch.from_numpy(drawn).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Contents (copies of the filled part only) and random streams; picklable."""
        size = self.size()
        return {
            "capacity": self.buffer_size,
            "pos": self.pos,
            "full": self.full,
            "columns": {name: column[:size].copy() for name, column in self._columns().items()},
            "streams": [stream.bit_generator.state for stream in self._streams()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a `state_dict` of a buffer with the same capacity and spaces."""
        if state["capacity"] != self.buffer_size:
            raise ValueError(f"buffer of {state['capacity']} transitions does not fit one of {self.buffer_size}")
        self.reset()
        self.pos, self.full = state["pos"], state["full"]
        size = self.size()
        for name, column in self._columns().items():
            column[:size] = state["columns"][name]
        self._remember((np.arange(size) + (self.pos if self.full else 0)) % self.buffer_size)
        for stream, stream_state in zip(self._streams(), state["streams"], strict=True):
            stream.bit_generator.state = stream_state

    def _streams(self) -> tuple[np.random.Generator, np.random.Generator, np.random.Generator]:
        return self._uniform, self._labelled, self._intervened


def _rows(transitions: Transitions) -> dict[str, np.ndarray]:
    """A `Transitions` under the buffer's column names."""
    return {
        "observations": transitions.obs,
        "next_observations": transitions.next_obs,
        "masks": transitions.masks,
        "next_masks": transitions.next_masks,
        "learner_actions": transitions.learner_actions,
        "actions": transitions.actions,
        "expert_actions": transitions.advice.action,
        "expert_probs": transitions.advice.probs,
        "status": transitions.advice.status,
        "intervened": transitions.intervened,
        "rewards": transitions.rewards,
        "dones": transitions.dones,
        "timeouts": transitions.dones & ~transitions.terminated,
    }
