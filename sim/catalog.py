"""The built-in scenarios: the list that `sim.registry()` reads. Keep its imports light."""

from __future__ import annotations

from sim.highway.catalog import HIGHWAY_ENV_SCENARIOS
from sim.scenarios import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    # lane-change: its own config and backends go here.
    *HIGHWAY_ENV_SCENARIOS,
)
