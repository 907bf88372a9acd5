"""A gate: guided episodes are spread as evenly as their share allows.

Episode n is guided where the fractional part of n x golden ratio + offset lies below the share. Multiples of the golden
ratio fill the unit interval most evenly (Weyl's equidistribution), so guided episodes come neither in clumps, as with
`bernoulli`, nor in a fixed rhythm, as with `periodic`.

    lgdrl train strategy_options.episodes.kind=third-gate strategy_options.episodes.options.share=0.3
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lgdrl.guidance.labelling import EpisodeGate, GatePlugin

GOLDEN_RATIO = (np.sqrt(5.0) - 1) / 2


@dataclass(frozen=True)
class EvenConfig:
    """Settings under `strategy_options.episodes.options`."""

    share: float = 0.5  # of the episodes that are guided

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share = {self.share}: choose 0 to 1")


class EvenGate(EpisodeGate):
    """Whether an episode is guided depends on its number and the run's seed alone."""

    def __init__(self, config: EvenConfig, seed: np.random.SeedSequence) -> None:
        self.config = config
        self._offset = np.random.default_rng(seed).random()

    def guided(self, episodes: np.ndarray) -> np.ndarray:
        return (episodes * GOLDEN_RATIO + self._offset) % 1.0 < self.config.share

    @property
    def share(self) -> float:
        return self.config.share


GATE = GatePlugin("third-gate", "guided episodes are spread evenly", EvenConfig(), EvenGate)
