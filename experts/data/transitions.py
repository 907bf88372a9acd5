"""Transition data sets: what any mixture of policies did in one scenario, as flat arrays with what is known about them.

The columns are those of D4RL (arXiv 2004.07219), and who chose each action, legal actions, and an expert's labels.
`experts.data.transition_files` reads and writes them.

Shapes: R transitions, E episodes, A discrete actions, D action dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from experts.provider import Status
from sim.by_value import ByValue
from sim.errors import UsageError

STATUSES: tuple[Status, ...] = tuple(Status)
"""Decision statuses by the small integers under which `label_status` keeps them; the header repeats their names."""
NO_STATUS = -1
NO_ORIGIN = -1
"""No policy chose the action: the one in control failed to, and an idle action was executed."""
NO_SEED = -1
"""The seed of an episode is not known."""
_FLAGS = ("terminated", "truncated")
ROWS = ("observations", "next_observations", "actions", "rewards", *_FLAGS, "episodes", "steps", "origin")
"""Columns that every data set has."""
MASKS = ("legal", "next_legal")
"""Columns that there are where actions are discrete."""
LABELS = {"label_actions": "actions", "labelled": "given", "label_status": "status"}
"""Columns that there are where states are labelled, and the fields of `StateLabels` that they are."""


@dataclass(frozen=True)
class References:
    """Mean returns that a return is normalised with."""

    random: float
    """Of uniformly random actions."""
    expert: float
    """Of the policy `policy`, the best one that was measured."""
    policy: str
    episodes: int
    """Episodes of each of both."""

    def normalised(self, episode_return: float | np.ndarray) -> Any:
        """(return - random) / (expert - random), in percent. Local: with these references, not with those of D4RL.

        Args:
            episode_return: One return, or an array of them.
        """
        return 100 * (episode_return - self.random) / (self.expert - self.random)


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a data set as a whole."""

    scenario: str
    """Registry name; a foreign data set may have none, then it is empty."""
    backend: str
    """The simulator that computed it; empty where the data set is foreign."""
    scenario_config: dict[str, Any]
    """Resolved, as plain values (`sim.config.to_dict`)."""
    observation_space: spaces.Space
    """A Box."""
    action_space: spaces.Space
    """Discrete actions that count from 0, or a Box of one dimension."""
    origins: tuple[str, ...]
    """Names of the policies, by their numbers in `origin`."""
    made: tuple[dict[str, Any], ...] = ()
    """How it was made, step by step: plain values, `step` says what was done."""
    references: References | None = None

    @property
    def foreign(self) -> bool:
        """Whether it was made by another program, so that the scenario is what the program's environment suggests."""
        return not self.backend


@dataclass(frozen=True, eq=False)
class StateLabels(ByValue):
    """What an expert says about the states of R transitions."""

    actions: np.ndarray
    """int64 (R,) or float32 (R, D); zero where there is no label."""
    given: np.ndarray
    """bool (R,): rows with a label."""
    status: np.ndarray
    """int8 (R,): index into `STATUSES`; `NO_STATUS` where the expert was not asked."""


@dataclass(frozen=True, eq=False)
class TransitionDataset(ByValue):
    """R transitions, episode by episode, in the order driven within one. ValueError where they do not fit together."""

    about: DatasetInfo
    observations: np.ndarray
    """(R, ...) in the dtype of the observation space."""
    next_observations: np.ndarray
    """(R, ...): true successors, also where the episode ended."""
    actions: np.ndarray
    """int64 (R,) or float32 (R, D): executed."""
    rewards: np.ndarray
    """float32 (R,)"""
    terminated: np.ndarray
    """bool (R,): the episode ended for good here."""
    truncated: np.ndarray
    """bool (R,): the episode was cut off here (time limit). One that the collection broke off ends in neither."""
    episodes: np.ndarray
    """int64 (R,): number of the episode, 0 to E - 1, never falling."""
    steps: np.ndarray
    """int64 (R,): position within the episode, from 0; rising, with gaps where rows were taken out."""
    origin: np.ndarray
    """int16 (R,): which of `about.origins` chose the action; `NO_ORIGIN` where none did."""
    seeds: np.ndarray
    """int64 (E,): the seed that each episode was reset with; `NO_SEED` where it is not known."""
    legal: np.ndarray | None = None
    """bool (R, A); None where actions are continuous."""
    next_legal: np.ndarray | None = None
    """bool (R, A); None where actions are continuous."""
    labels: StateLabels | None = None

    def __post_init__(self) -> None:
        _check_info(self.about)
        _check_rows(self)
        _check_actions(self)
        _check_episodes(self)

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def discrete(self) -> bool:
        """Whether actions are discrete."""
        return isinstance(self.about.action_space, spaces.Discrete)

    @property
    def lasts(self) -> np.ndarray:
        """bool (R,): the last transition of its episode that is here."""
        return np.append(self.episodes[1:] != self.episodes[:-1], True)[: len(self)]

    @property
    def finished(self) -> np.ndarray:
        """bool (E,): episodes that are here from their first transition to their end."""
        last = self.lasts & (self.terminated | self.truncated)
        whole = np.zeros(len(self.seeds), bool)
        whole[self.episodes[last]] = True
        return whole & (np.bincount(self.episodes, minlength=len(whole)) == self._lengths())

    @property
    def returns(self) -> np.ndarray:
        """float64 (E,): undiscounted sums of the rewards that are here."""
        return np.bincount(self.episodes, self.rewards.astype(float), len(self.seeds))

    @property
    def drivers(self) -> np.ndarray:
        """int64 (E,): the policy that drove the whole episode; `NO_ORIGIN` where several did. Idle actions aside."""
        low, high = np.full(len(self.seeds), 2**15), np.full(len(self.seeds), NO_ORIGIN)
        known = self.origin != NO_ORIGIN
        np.minimum.at(low, self.episodes[known], self.origin[known])
        np.maximum.at(high, self.episodes[known], self.origin[known])
        return np.where(low == high, high, NO_ORIGIN)

    def take(self, rows: np.ndarray) -> TransitionDataset:
        """Some of the transitions, in their present order; episodes of which nothing is left are forgotten.

        Args:
            rows: Which ones, bool (R,) or int (any number), as NumPy indexes.

        Returns:
            A new data set; how it was made tells that rows were taken.
        """
        chosen = np.unique(np.arange(len(self))[rows])
        kept, episodes = np.unique(self.episodes[chosen], return_inverse=True)
        note = {"step": "take", "transitions": len(chosen), "of": len(self)}
        columns = {name: _taken(getattr(self, name), chosen) for name in (*ROWS, *MASKS)}
        labels = self.labels
        if labels is not None:
            labels = StateLabels(labels.actions[chosen], labels.given[chosen], labels.status[chosen])
        return TransitionDataset(
            about=dataclasses.replace(self.about, made=(*self.about.made, note)),
            **columns | {"episodes": episodes.astype(np.int64)},
            seeds=self.seeds[kept],
            labels=labels,
        )

    def _lengths(self) -> np.ndarray:
        """int64 (E,): transitions that each episode had up to the last one that is here."""
        lengths = np.zeros(len(self.seeds), np.int64)
        lengths[self.episodes[self.lasts]] = self.steps[self.lasts] + 1
        return lengths


def concatenate(parts: Sequence[TransitionDataset]) -> TransitionDataset:
    """The transitions of all parts, in order, as one data set; equal names of policies become one origin.

    Args:
        parts: At least one, of one scenario, config, simulator and pair of spaces. The first one that has reference
            returns gives them. Rows of parts without labels are unlabelled where other parts have some.

    Raises:
        UsageError: They do not belong together.
    """
    first = parts[0].about
    for part in parts[1:]:
        for name in ("scenario", "backend", "scenario_config", "observation_space", "action_space"):
            if getattr(part.about, name) != getattr(first, name):
                raise UsageError(
                    f"data sets differ in their {name.replace('_', ' ')} ({getattr(first, name)!s:.80}, "
                    f"{getattr(part.about, name)!s:.80}): only those of one kind can be joined"
                )
    origins = tuple(dict.fromkeys(name for part in parts for name in part.about.origins))
    numbers = [np.array([*map(origins.index, part.about.origins), NO_ORIGIN], np.int16) for part in parts]
    offsets = np.cumsum([0, *(len(part.seeds) for part in parts)])
    columns = {name: _joined([getattr(part, name) for part in parts]) for name in (*ROWS, *MASKS)}
    columns["episodes"] = np.concatenate([p.episodes + k for p, k in zip(parts, offsets[:-1], strict=True)])
    columns["origin"] = np.concatenate([known[p.origin] for p, known in zip(parts, numbers, strict=True)])
    labelled = any(part.labels is not None for part in parts)
    made = tuple(note for part in parts for note in part.about.made)
    references = next((part.about.references for part in parts if part.about.references is not None), None)
    return TransitionDataset(
        about=dataclasses.replace(first, origins=origins, made=made, references=references),
        **columns,
        seeds=np.concatenate([part.seeds for part in parts]),
        labels=_joined_labels(parts) if labelled else None,
    )


def no_labels(dataset: TransitionDataset) -> StateLabels:
    """Labels of an expert that was asked about none of the states."""
    given, status = np.zeros(len(dataset), bool), np.full(len(dataset), NO_STATUS, np.int8)
    return StateLabels(np.zeros_like(dataset.actions), given, status)


def _taken(values: np.ndarray | None, rows: np.ndarray) -> Any:
    return None if values is None else values[rows]


def _joined(columns: Sequence[np.ndarray | None]) -> Any:
    found = [values for values in columns if values is not None]
    return np.concatenate(found) if found else None


def _joined_labels(parts: Sequence[TransitionDataset]) -> StateLabels:
    each = [no_labels(part) if part.labels is None else part.labels for part in parts]
    return StateLabels(*(np.concatenate([getattr(part, name) for part in each]) for name in LABELS.values()))


# --- what fits together -----------------------------------------------------------------------------------------------


def _check_info(about: DatasetInfo) -> None:
    actions = about.action_space
    if not isinstance(about.observation_space, spaces.Box):
        raise ValueError(f"observations are {about.observation_space}, not one array")
    discrete = isinstance(actions, spaces.Discrete) and actions.start == 0
    if not discrete and not (isinstance(actions, spaces.Box) and len(actions.shape) == 1):
        raise ValueError(
            f"actions are {actions}: Discrete ones that count from 0 or a Box of one dimension can be kept"
        )
    if len(set(about.origins)) < len(about.origins) or len(about.origins) > np.iinfo(np.int16).max:
        raise ValueError(f"origins {about.origins!s:.80} are not different names")
    found = about.references
    if found is not None and not (np.isfinite([found.random, found.expert]).all() and found.random != found.expert):
        raise ValueError(f"reference returns {found.random} and {found.expert} are not two different numbers")


def _check_rows(dataset: TransitionDataset) -> None:
    """Shapes, dtypes and finite numbers."""
    about, count = dataset.about, len(dataset.actions)
    shape, dtype = about.observation_space.shape or (), about.observation_space.dtype
    discrete = isinstance(about.action_space, spaces.Discrete)
    action: tuple[tuple[int, ...], Any] = ((), np.int64) if discrete else (about.action_space.shape or (), np.float32)
    expected = {"observations": (shape, dtype), "next_observations": (shape, dtype), "actions": action}
    expected |= {"rewards": ((), np.float32), "terminated": ((), bool), "truncated": ((), bool)}
    expected |= {"episodes": ((), np.int64), "steps": ((), np.int64), "origin": ((), np.int16)}
    values: dict[str, np.ndarray | None] = {name: getattr(dataset, name) for name in expected}
    if discrete:
        masks = ((int(about.action_space.n),), bool)  # type: ignore[attr-defined]
        expected |= dict.fromkeys(MASKS, masks)
        values |= {name: getattr(dataset, name) for name in MASKS}
    elif dataset.legal is not None or dataset.next_legal is not None:
        raise ValueError("legal: continuous actions are all legal")
    if dataset.labels is not None:
        expected |= {"label_actions": action, "labelled": ((), bool), "label_status": ((), np.int8)}
        values |= {name: getattr(dataset.labels, field) for name, field in LABELS.items()}
    for name, (row, kind) in expected.items():
        found = values[name]
        if found is None or found.shape != (count, *row) or found.dtype != kind:
            what = "missing" if found is None else f"{found.dtype} {found.shape}"
            raise ValueError(f"{name}: expected {np.dtype(kind)} {(count, *row)}, found {what}")
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise ValueError(f"{name}: not all numbers are finite")


def _check_actions(dataset: TransitionDataset) -> None:
    """Actions and labels that exist and were legal; origins and statuses that have a name."""
    if dataset.legal is not None:
        chosen = {"actions": (dataset.actions, np.ones(len(dataset), bool))}
        if dataset.labels is not None:
            chosen["label_actions"] = (dataset.labels.actions, dataset.labels.given)
        for name, (actions, given) in chosen.items():
            if ((actions < 0) | (actions >= dataset.legal.shape[1])).any():
                raise ValueError(f"{name}: some do not exist")
            if not dataset.legal[np.arange(len(dataset)), actions][given].all():
                raise ValueError(f"{name}: some are not legal in their state")
    if ((dataset.origin < NO_ORIGIN) | (dataset.origin >= len(dataset.about.origins))).any():
        raise ValueError("origin: some have no name")
    if dataset.labels is not None:
        status = dataset.labels.status
        if ((status < NO_STATUS) | (status >= len(STATUSES))).any():
            raise ValueError("label_status: some have no name")
        if (dataset.labels.given & (status == NO_STATUS)).any():
            raise ValueError("label_status: a label has none")


def _check_episodes(dataset: TransitionDataset) -> None:
    """Episodes in order, each ending once, at its last transition, and states that follow each other."""
    episodes, steps, seeds = dataset.episodes, dataset.steps, dataset.seeds
    if seeds.ndim != 1 or seeds.dtype != np.int64 or (seeds < NO_SEED).any():
        raise ValueError("seeds: expected one whole number per episode")
    if not np.array_equal(np.unique(episodes), np.arange(len(seeds))) or (np.diff(episodes) < 0).any():
        raise ValueError(f"episodes: expected numbers from 0 to {len(seeds) - 1} that never fall")
    same = ~dataset.lasts[:-1]
    if (steps < 0).any() or (np.diff(steps)[same] <= 0).any():
        raise ValueError("steps: expected numbers from 0 that rise within an episode")
    ends = dataset.terminated | dataset.truncated
    if (dataset.terminated & dataset.truncated).any() or ends[:-1][same].any():
        raise ValueError("terminated, truncated: an episode ends once, at its last transition")
    follows = same & (np.diff(steps) == 1)
    if not np.array_equal(dataset.next_observations[:-1][follows], dataset.observations[1:][follows]):
        raise ValueError("next_observations: some are not the observation that follows")
    legal, next_legal = dataset.legal, dataset.next_legal
    both = legal is not None and next_legal is not None
    if both and not np.array_equal(next_legal[:-1][follows], legal[1:][follows]):  # type: ignore[index]
        raise ValueError("next_legal: some are not the legal actions that follow")
