"""Recorded demonstrations as the first transitions of a replay buffer, as if the expert had just driven."""

from __future__ import annotations

import numpy as np

from experts.data.demonstrations import Demonstrations
from experts.provider import label_distributions
from lgdrl.guidance.records import NO_STATUS, STATUSES, Labels, Reason, Transitions


def transitions_of(demonstrations: Demonstrations, label_spread: float) -> Transitions:
    """All R decisions: labels where something is demonstrated, the expert's authority where it or a person drove.

    Args:
        demonstrations: What was recorded.
        label_spread: Share of a bare label that is spread over all legal actions, as the advisor does.
    """
    known = demonstrations
    given, probs = known.given, None
    if known.probs is not None and known.legal is not None:
        bare = given & ~known.probs.any(axis=1)
        probs = known.probs.astype(np.float32)
        probs[bare] = label_distributions(known.labels[bare], known.legal[bare], label_spread)
    actions = np.where(given if known.labels.ndim == 1 else given[:, None], known.labels, 0)
    statuses = np.array([STATUSES.index(status) for status in known.statuses], np.int8)
    status = np.where(given, statuses, NO_STATUS).astype(np.int8)
    labels = Labels(given, actions.astype(known.labels.dtype), probs, status)
    return Transitions(
        obs=known.obs,
        next_obs=known.next_obs,
        legal=known.legal,
        next_legal=known.next_legal,
        learner_actions=known.learner_actions,
        actions=known.actions,
        labels=labels,
        authority=known.driven.astype(np.float32),
        reason=np.where(known.driven, Reason.SCHEDULE, Reason.LEARNER).astype(np.int8),
        rewards=known.rewards.astype(np.float32),
        terminated=known.terminated,
        truncated=known.dones & ~known.terminated,
        episodes=known.episodes - int(known.episodes.max()) - 1,  # negative: the training's count from 0
        steps=known.steps,
    )
