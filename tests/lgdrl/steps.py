"""Steps of a few environments by hand: contexts, experts with known labels, networks with known outputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from gymnasium import spaces

from lgdrl.guidance.records import (
    NO_STATUS,
    STATUSES,
    Execution,
    Labels,
    PolicySummary,
    StepContext,
    Transitions,
)
from lgdrl.guidance.terms import Networks
from sim.view import views_of

OK = STATUSES.index("ok")
FAILED = STATUSES.index("failed")
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


def labels_of(actions: list[int | None], probs=None, status: list[int] | None = None, num_actions: int = 3) -> Labels:
    """Labels of discrete actions; None: the expert was not asked. Bare labels are one-hot."""
    labels = Labels.none(len(actions), spaces.Discrete(num_actions))
    for i, action in enumerate(actions):
        if action is not None:
            labels.given[i], labels.action[i] = True, action
            labels.status[i] = OK if status is None else status[i]
            labels.probs[i] = np.eye(num_actions)[action] if probs is None else probs[i]
    return labels


class Expert:
    """An expert behind `StepContext.ask` that knows all labels; `asked` lists (rows, now) of each call.

    With `lag`, rows that are not needed at once stay empty, as in a run with a `label_lag`.
    """

    def __init__(self, labels: Labels, lag: bool = False) -> None:
        self.labels, self.lag = labels, lag
        self.asked: list[tuple[list[bool], list[bool] | None]] = []

    def __call__(self, rows: np.ndarray, now: np.ndarray | None = None) -> Labels:
        self.asked.append((rows.tolist(), None if now is None else now.tolist()))
        answered = rows & now if self.lag and now is not None else rows
        known = self.labels
        return Labels(
            known.given & answered,
            np.where(answered if known.action.ndim == 1 else answered[:, None], known.action, 0),
            None if known.probs is None else np.where(answered[:, None], known.probs, 0).astype(np.float32),
            np.where(answered, known.status, NO_STATUS).astype(np.int8),
        )


def step_of(proposals, *, num_actions: int = 3, **known) -> StepContext:
    """A step with the given proposals (a list of ids, or a (N, D) array); what is not given is the plainest case.

    Args:
        proposals: What the learner would do.
        num_actions: Discrete actions.
        known: Fields of `StepContext`; `probs` for the policy, `q` (N, A) for the critics, `scene_list` for scenes.
    """
    proposals = np.asarray(proposals)
    num, discrete = len(proposals), proposals.ndim == 1
    action_space = spaces.Discrete(num_actions) if discrete else BOX
    probs, q, scenes = known.pop("probs", None), known.pop("q", None), known.pop("scene_list", None)
    fields = {
        "obs": np.arange(num, dtype=np.float32)[:, None],
        "legal": np.ones((num, num_actions), bool) if discrete else None,
        "policy": PolicySummary(None if probs is None else np.asarray(probs, np.float32)),
        "decisions": 0,
        "episodes": np.arange(num),
        "steps": np.zeros(num, np.int64),
        "action_space": action_space,
        "ask": Expert(Labels.none(num, action_space)),
        "scenes": lambda indices: [None if scenes is None else scenes[i] for i in indices],
        "views": lambda indices: None if scenes is None else views_of([scenes[i] for i in indices]),
        "values": lambda actions: np.asarray(q, np.float32)[np.arange(num), actions],
    }
    return StepContext(proposals=proposals, **fields | known)


def transitions_of(context: StepContext, execution: Execution | None = None, **changes) -> Transitions:
    """The step finished: rewards 0, nothing ended."""
    execution = execution or Execution.by_learner(context)
    num, nothing = context.num_envs, np.zeros(context.num_envs, bool)
    fields = {
        "obs": context.obs,
        "next_obs": context.obs + 1,
        "legal": context.legal,
        "next_legal": context.legal,
        "learner_actions": context.proposals,
        "actions": execution.actions,
        "labels": execution.labels,
        "authority": execution.authority,
        "reason": execution.reason,
        "rewards": np.zeros(num, np.float32),
        "terminated": nothing,
        "truncated": nothing,
        "episodes": context.episodes,
        "steps": context.steps,
    }
    return Transitions(**fields | changes)


@dataclass
class LabelledSamples:
    """As much of `Samples` as terms of labels read."""

    logits: torch.Tensor
    label_probs: torch.Tensor
    label_actions: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.label_actions = self.label_probs.argmax(dim=1)

    def __len__(self) -> int:
        return len(self.label_probs)


class SoftmaxNetworks(Networks):
    """`Networks` whose policy is the softmax of the samples' own logits, so that gradients can be looked at."""

    def log_probs(self, samples: LabelledSamples) -> torch.Tensor:
        return torch.log_softmax(samples.logits, dim=-1)

    def q_values(self, samples: LabelledSamples) -> torch.Tensor:
        return torch.stack([samples.logits, samples.logits + 1])


def samples_of(logits, label_probs) -> LabelledSamples:
    """Labelled samples in double precision, with gradient."""
    return LabelledSamples(
        torch.tensor(np.asarray(logits), dtype=torch.float64, requires_grad=True),
        torch.tensor(np.asarray(label_probs), dtype=torch.float64),
    )
