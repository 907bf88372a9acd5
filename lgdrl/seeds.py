"""Which environment seeds are for what. A training draws its own from the root seed of its run, far above these."""

from __future__ import annotations

CURVE_SEEDS = range(0, 300)
"""Seeds of the learning curve."""
FINAL_SEED = 10_000
"""First of the held-out seeds of a final evaluation; no curve, tuning or training run uses them."""
SCENE_SEED = 20_000
"""First seed of the scenes that a profile asks experts about."""
LATE_SEED = 30_000
"""First seed of the episodes that a profile drives with late decisions."""
DATA_SEED = 100_000
"""First seed of the episodes of a collected data set; no curve and no evaluation uses them."""
PUBLISHED = "published"
"""In place of a seed: the published traffic layout of the lane change."""
