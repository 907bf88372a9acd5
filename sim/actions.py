"""Meta-actions: the five discrete decisions of a highway driver, with highway-env's ids."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class MetaAction(IntEnum):
    """Ids as in highway-env's DiscreteMetaAction. "Right" is the higher lane index."""

    LANE_LEFT = 0
    IDLE = 1
    LANE_RIGHT = 2
    FASTER = 3
    SLOWER = 4


NUM_ACTIONS = len(MetaAction)
FULL = tuple(MetaAction)
LONGITUDINAL = (MetaAction.SLOWER, MetaAction.IDLE, MetaAction.FASTER)
LATERAL = (MetaAction.LANE_LEFT, MetaAction.IDLE, MetaAction.LANE_RIGHT)
"""What action ids mean, by the kinds of manoeuvre that an environment offers (highway-env's `ACTIONS_*`)."""


def legal_mask(lane: int, num_lanes: int, speed_index: int, num_speeds: int) -> np.ndarray:
    """Which meta-actions change something, by highway-env's `get_available_actions` rule.

    Args:
        lane: Present lane index, 0 leftmost.
        num_lanes: Lanes of the road.
        speed_index: Set-point in force.
        num_speeds: Set-points.
    Returns:
        bool (5,) by action id; IDLE is always legal.
    """
    return np.array([lane > 0, True, lane < num_lanes - 1, speed_index < num_speeds - 1, speed_index > 0])
