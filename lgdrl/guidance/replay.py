"""Replay buffer that keeps the whole story of a step: both proposals, who was in control, what the expert said.

`GuidedReplayBuffer` is Stable-Baselines3's ring, addressed by transition rather than by vector step, so that a batch of
any size may be stored: the N environments of a step, a file of demonstrations, what a strategy left in `on_store`.
Discrete actions come with legal actions and label distributions; continuous ones do not have them. Random draws come
from three streams of its own; drawing labels never changes what a uniform draw yields.

Transitions that a learner's own losses are drawn from carry n-step returns. From step t of an episode that ends with
step T, or whose newest stored step is T, with m = min(n, T - t + 1):

    rewards = sum_{k < m} gamma^k r_{t + k},    discounts = gamma^m,    next_observations, terminated of step t + m - 1

No correction is made for actions that the present policy would not take (as in Rainbow, arXiv 1710.02298).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from lgdrl.guidance.records import Labels, Transitions
from sim.compiled import kernel


class Samples:
    """B transitions, in the order drawn. Actions are int64 (B,) or float32 (B, D).

    A column becomes a tensor when it is first asked for; on a CPU it shares memory with the drawn records.

    Args:
        records: Drawn records of a `GuidedReplayBuffer`, (B,); they belong to this object. None: all are in `tensors`.
        device: Where tensors are put.
        tensors: Columns that stand in place of those of the records.
    """

    observations: torch.Tensor
    """(B, ...) in the observation space's dtype."""
    next_observations: torch.Tensor
    """(B, ...)"""
    legal: torch.Tensor | None
    """bool (B, A); None where actions are continuous."""
    next_legal: torch.Tensor | None
    """bool (B, A): legal actions of the successor."""
    learner_actions: torch.Tensor
    """What the learner proposed."""
    actions: torch.Tensor
    """What was executed."""
    labelled: torch.Tensor
    """bool (B,): rows with a label."""
    label_actions: torch.Tensor
    """The expert's actions; 0 where there is no label."""
    label_probs: torch.Tensor | None
    """float32 (B, A), zero rows where there is no label; None where actions are continuous."""
    label_status: torch.Tensor
    """int8 (B,): index into STATUSES, -1 where the expert was not asked."""
    authority: torch.Tensor
    """float32 (B,): the expert's share of the executed action."""
    reason: torch.Tensor
    """int8 (B,) of `Reason`."""
    rewards: torch.Tensor
    """float32 (B,): the sum of n discounted rewards."""
    discounts: torch.Tensor
    """float32 (B,): factor of the successor's value."""
    dones: torch.Tensor
    """bool (B,): the episode ended, terminated or truncated."""
    terminated: torch.Tensor
    """bool (B,): nothing is bootstrapped."""
    episodes: torch.Tensor
    """int64 (B,)"""
    steps: torch.Tensor
    """int64 (B,)"""

    def __init__(
        self,
        records: np.ndarray | None = None,
        device: torch.device | str = "cpu",
        **tensors: torch.Tensor | None,
    ) -> None:
        self.records = records
        self.device = device
        self._replaced = tensors
        self.__dict__.update(tensors)

    def __getattr__(self, name: str) -> torch.Tensor | None:
        if name not in COLUMNS or self.records is None:
            raise AttributeError(name)
        values = self._drawn(name)
        tensor = None if values is None else torch.from_numpy(values).to(self.device)
        self.__dict__[name] = tensor
        return tensor

    def array(self, name: str) -> np.ndarray:
        """A column as a contiguous array, for code without torch; ValueError where there is none."""
        replaced = self._replaced.get(name)
        values = self._drawn(name) if replaced is None else replaced.detach().cpu().numpy()
        if values is None:
            raise ValueError(f"these transitions have no {name}")
        return np.ascontiguousarray(values)

    def _drawn(self, name: str) -> np.ndarray | None:
        """A column of the records."""
        if self.records is None:
            return None
        if name == "dones":
            return self.records["dones"] > 0
        if name == "terminated":
            return (self.records["dones"] > 0) & (self.records["timeouts"] <= 0)
        if name in OPTIONAL and name not in (self.records.dtype.names or ()):
            return None
        return self.records[name]

    def __len__(self) -> int:
        return len(self.actions if self.records is None else self.records)

    def replace(self, **tensors: torch.Tensor) -> Samples:
        """The same transitions with other values in some columns."""
        return Samples(self.records, self.device, **{**self._replaced, **tensors})

    @classmethod
    def concatenate(cls, parts: Sequence[Samples]) -> Samples:
        """The rows of all parts, in order; for batches mixed from several sources.

        Args:
            parts: Samples of one buffer, on one device.
        """
        replaced: dict[str, torch.Tensor | None] = {}
        for name in {name for part in parts for name in part._replaced}:
            values = [getattr(part, name) for part in parts]
            replaced[name] = None if values[0] is None else torch.cat(values)
        records = [part.records for part in parts if part.records is not None]
        joined = np.concatenate(records) if len(records) == len(parts) else None
        return cls(joined, parts[0].device, **replaced)


SHARED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Arrays of SB3's buffer."""
COLUMNS = frozenset(Samples.__annotations__)
"""Names of the columns of `Samples`."""
OPTIONAL = frozenset({"legal", "next_legal", "label_probs"})
"""Columns that only discrete actions have."""
OF_SUCCESSORS = frozenset({"next_observations", "next_legal", "dones", "timeouts"})
"""Columns of a transition that tell where it leads."""


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

    `size()`, `pos` and `buffer_size` count transitions, whatever the number of environments. SB3's own `add` and
    `sample` keep working (without guidance); `add_transitions` and the `sample_*` methods are the full interface.

    Args:
        buffer_size: Capacity in transitions.
        observation_space: A Box.
        action_space: Discrete actions that count from 0, or a Box of one dimension.
        device: Torch device of the samples.
        n_envs: As SB3's algorithms pass it; changes nothing here.
        optimize_memory_usage: As SB3's algorithms pass it; True is refused.
        seed: Seed of the random draws.
        n_step: Steps of the returns.
        gamma: Discount per step.
    Raises:
        ValueError: A space that cannot be stored.
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
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> None:
        discrete = isinstance(action_space, spaces.Discrete) and action_space.start == 0
        if not discrete and not (isinstance(action_space, spaces.Box) and len(action_space.shape) == 1):
            raise ValueError(
                f"action_space = {action_space}: expected Discrete actions that count from 0, or a Box of one dimension"
            )
        if not isinstance(observation_space, spaces.Box):
            raise ValueError(f"observation_space = {observation_space}: expected a Box")
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage = True: true successors are always stored here; leave it False")
        super().__init__(buffer_size, observation_space, action_space, device, n_envs=1)
        self.discrete = discrete
        self.n_step, self.gamma = n_step, gamma
        self._records = np.zeros(buffer_size, self._record())
        self._share()
        self.reset()
        self.seed(seed)

    def _record(self) -> np.dtype:
        """What is kept of one transition. One record is one piece of memory, so that a batch is gathered at once."""
        observation = (self.observations.dtype, self.obs_shape)
        action = (self.actions.dtype, () if self.discrete else (self.action_dim,))
        fields: list[tuple[str, Any]] = [
            ("observations", observation),
            ("next_observations", observation),
            ("learner_actions", action),
            ("actions", action),
            ("label_actions", action),
            ("episodes", np.int64),
            ("steps", np.int64),
            ("rewards", np.float32),
            ("dones", np.float32),
            ("timeouts", np.float32),
            ("discounts", np.float32),
            ("successors", np.int64),
            ("authority", np.float32),
            ("labelled", np.bool_),
            ("label_status", np.int8),
            ("reason", np.int8),
        ]
        if isinstance(self.action_space, spaces.Discrete):
            per_action = (int(self.action_space.n),)
            fields += [("label_probs", (np.float32, per_action))]
            fields += [(name, (np.bool_, per_action)) for name in ("legal", "next_legal")]
        return np.dtype(fields, align=True)

    def _share(self) -> None:
        """Make the columns, and SB3's arrays, which have an axis of length 1 for environments, views of the records."""
        self._columns = {name: self._records[name] for name in self._records.dtype.names or ()}
        for name in SHARED:
            column = self._columns[name]
            setattr(self, name, column.reshape(self.buffer_size, 1, -1) if name == "actions" else column[:, None])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in (*SHARED, "_columns")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share()

    def seed(self, seed: int | np.random.SeedSequence | None) -> None:
        """Restart the random draws."""
        root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        self._uniform, self._labelled, self._intervened = map(np.random.default_rng, root.spawn(3))

    def reset(self) -> None:
        """Forget every transition; the random draws go on."""
        super().reset()
        self._labels = _Queue(self.buffer_size)
        self._interventions = _Queue(self.buffer_size)
        self._newest: dict[int, int] = {}
        """Slot of the newest step of each episode that goes on."""

    @property
    def num_labelled(self) -> int:
        """Stored transitions with an expert label."""
        return self._labels.count

    @property
    def num_intervened(self) -> int:
        """Stored transitions in which the expert had a share of control."""
        return self._interventions.count

    def column(self, name: str) -> np.ndarray:
        """The stored values of one field of `Samples`, in the order of the slots: a view, filled part only."""
        return self._columns[name][: self.size()]

    def add_transitions(self, transitions: Transitions) -> None:
        """Store any number of finished steps, overwriting the oldest ones where the ring is full.

        Args:
            transitions: The steps. Where actions are discrete, `legal` and label probabilities are required.
        """
        rows = _rows(transitions, self.gamma)
        excess = len(rows["actions"]) - self.buffer_size
        if excess > 0:
            rows = {name: values[excess:] for name, values in rows.items()}
        number = len(rows["actions"])
        slots = (self.pos + np.arange(number)) % self.buffer_size
        self._forget(slots)
        for name, column in self._columns.items():
            column[slots] = rows[name]
        self._remember(slots)
        if self.n_step > 1:
            self._link(slots)
        self.full = self.full or self.pos + number >= self.buffer_size
        self.pos = (self.pos + number) % self.buffer_size

    def _forget(self, slots: np.ndarray) -> None:
        """Take slots that are about to be overwritten out of both queues."""
        used = slots if self.full else slots[slots < self.pos]
        self._labels.drop_oldest(int(self._columns["labelled"][used].sum()))
        self._interventions.drop_oldest(int((self._columns["authority"][used] > 0).sum()))

    def _remember(self, slots: np.ndarray) -> None:
        self._labels.append(slots[self._columns["labelled"][slots]])
        self._interventions.append(slots[self._columns["authority"][slots] > 0])

    def _link(self, slots: np.ndarray) -> None:
        """Let the steps before these know where their successors lie."""
        columns = self._columns
        episodes, steps, successors = columns["episodes"], columns["steps"], columns["successors"]
        rows = zip(
            slots.tolist(), episodes[slots].tolist(), steps[slots].tolist(), columns["dones"][slots], strict=True
        )
        for slot, episode, step, done in rows:
            if episode < 0:  # SB3's form does not tell
                continue
            before = self._newest.pop(episode, None)
            if before is not None and episodes[before] == episode and steps[before] == step - 1:
                successors[before] = slot
            if not done:
                self._newest[episode] = slot

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """SB3's form: every action legal, no label. `done` with info["TimeLimit.truncated"] still bootstraps."""
        actions = np.asarray(action, self.actions.dtype)
        actions = actions.reshape(-1) if self.discrete else actions.reshape(-1, self.action_dim)
        number = len(actions)
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos], bool)
        dones = np.asarray(done).astype(bool)
        labels = Labels.none(number, self.action_space)
        legal = None if labels.probs is None else np.ones(labels.probs.shape, bool)
        self.add_transitions(
            Transitions(
                obs=np.asarray(obs).reshape(number, *self.obs_shape),
                next_obs=np.asarray(next_obs).reshape(number, *self.obs_shape),
                legal=legal,
                next_legal=legal,
                learner_actions=actions,
                actions=actions,
                labels=labels,
                authority=np.zeros(number, np.float32),
                reason=np.zeros(number, np.int8),
                rewards=np.asarray(reward, np.float32),
                terminated=dones & ~truncated,
                truncated=dones & truncated,
                episodes=np.full(number, -1),
                steps=np.full(number, -1),
            )
        )

    def sample_uniform(self, batch_size: int) -> Samples:
        """Uniform over everything stored, with replacement. Raises ValueError when the buffer is empty."""
        if self.size() == 0:
            raise ValueError("the replay buffer is empty: collect at least one decision before sampling")
        return self.take(self._uniform.integers(self.size(), size=batch_size))

    def sample_labelled(self, batch_size: int) -> Samples | None:
        """Uniform over the transitions with an expert label, executed or not; None when there are none. Single steps,
        without n-step returns."""
        if not self.num_labelled:
            return None
        return Samples(self._records.take(self._labels.draw(batch_size, self._labelled)), self.device)

    def sample_intervened(self, batch_size: int) -> Samples | None:
        """Uniform over the transitions in which the expert had control; None when there are none."""
        return self.take(self._interventions.draw(batch_size, self._intervened)) if self.num_intervened else None

    def take(self, slots: np.ndarray) -> Samples:
        """The transitions in the slots named by an int array, with n-step returns; for methods that choose their own
        samples."""
        records = self._records.take(slots)
        if self.n_step > 1:
            self._look_ahead(records, slots)
        return Samples(records, self.device)

    def _look_ahead(self, records: np.ndarray, slots: np.ndarray) -> None:
        """Give drawn records the rewards and the successors of n steps."""
        columns, last = self._columns, np.empty(len(slots), np.int64)
        steps = columns["successors"], columns["rewards"], columns["dones"]
        returns = records["rewards"], records["discounts"]
        _returns(slots, *steps, self.n_step, self.gamma, last, *returns)
        for name in OF_SUCCESSORS & columns.keys():
            records[name] = columns[name][last]

    def state_dict(self) -> dict[str, Any]:
        """Contents (copies of the filled part only) and random streams."""
        return {
            "capacity": self.buffer_size,
            "pos": self.pos,
            "full": self.full,
            "columns": {name: self.column(name).copy() for name in self._columns},
            "newest": dict(self._newest),
            "streams": self.streams_state(),
        }

    def streams_state(self) -> list[Any]:
        """The random streams alone, for a buffer whose contents are elsewhere."""
        return [stream.bit_generator.state for stream in self._streams()]

    def load_streams_state(self, state: Sequence[Any]) -> None:
        """Inverse of `streams_state`."""
        for stream, own in zip(self._streams(), state, strict=True):
            stream.bit_generator.state = own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a `state_dict` of a buffer with the same capacity and spaces."""
        if state["capacity"] != self.buffer_size:
            raise ValueError(f"buffer of {state['capacity']} transitions does not fit one of {self.buffer_size}")
        self.reset()
        self.pos, self.full = state["pos"], state["full"]
        size = self.size()
        for name, column in self._columns.items():
            column[:size] = state["columns"][name]
        self._remember((np.arange(size) + (self.pos if self.full else 0)) % self.buffer_size)
        self._newest = dict(state["newest"])
        self.load_streams_state(state["streams"])

    def _streams(self) -> tuple[np.random.Generator, np.random.Generator, np.random.Generator]:
        return self._uniform, self._labelled, self._intervened


@kernel
def _returns(
    slots: Any, successors: Any, rewards: Any, dones: Any, n_step: int, gamma: float, last: Any, sums: Any,
    discounts: Any,
) -> None:  # fmt: skip
    """Fill, for each of the slots, the slot of its last step, its n-step return, and the discount after it."""
    for i in range(len(slots)):
        slot, total, discount = slots[i], float(rewards[slots[i]]), gamma
        for _ in range(1, n_step):
            if dones[slot] > 0 or successors[slot] < 0:
                break
            slot = successors[slot]
            total += discount * rewards[slot]
            discount *= gamma
        last[i], sums[i], discounts[i] = slot, total, discount


def _rows(transitions: Transitions, gamma: float) -> dict[str, Any]:
    """A `Transitions` under the buffer's column names."""
    labels, number = transitions.labels, len(transitions.actions)
    rows = {
        "observations": transitions.obs,
        "next_observations": transitions.next_obs,
        "legal": transitions.legal,
        "next_legal": transitions.next_legal,
        "learner_actions": transitions.learner_actions,
        "actions": transitions.actions,
        "labelled": labels.given,
        "label_actions": labels.action,
        "label_probs": labels.probs,
        "label_status": labels.status,
        "authority": transitions.authority,
        "reason": transitions.reason,
        "rewards": transitions.rewards,
        "dones": transitions.dones,
        "timeouts": transitions.truncated,
        "discounts": np.full(number, gamma, np.float32),
        "successors": np.full(number, -1),
        "episodes": transitions.episodes,
        "steps": transitions.steps,
    }
    return {name: values for name, values in rows.items() if values is not None}
