"""Recorded demonstrations as the first transitions of a replay, as if the expert had just driven."""

from __future__ import annotations

import numpy as np

from experts.data.demonstrations import Demonstrations
from experts.provider import label_distributions
from lgdrl.guidance.strategy import STATUSES, Advice, Transitions


def transitions_of(demonstrations: Demonstrations, label_spread: float) -> Transitions:
    """All R decisions: labelled where something is demonstrated, marked as intervened where expert or person drove.

    Bare labels become distributions as the expert desk makes them, with `label_spread` shared over all legal actions.
    """
    known = demonstrations
    labelled = known.labels >= 0
    bare = labelled & ~known.probs.any(axis=1)
    probs = known.probs.astype(np.float32)
    probs[bare] = label_distributions(known.labels[bare], known.legal[bare], label_spread)
    statuses = np.array([STATUSES.index(status) for status in known.statuses], np.int8)
    return Transitions(
        obs=known.obs,
        next_obs=known.next_obs,
        masks=known.legal,
        next_masks=known.next_legal,
        learner_actions=known.learner_actions,
        actions=known.actions,
        advice=Advice(known.labels, probs, np.where(labelled, statuses, -1).astype(np.int8)),
        intervened=known.driven,
        rewards=known.rewards.astype(np.float32),
        dones=known.dones,
        terminated=known.terminated,
    )
