"""Thresholds of LGDRL's published action-utility code (arXiv 2412.18511), shared by the rule and the prompt analysis.

The distances are the mid-points of what the 63 published frames accept and refuse, measured centre to centre. Limits on
the time to collision of other purposes: `experts.rules.config.RuleConfig` (when the slot-aligning rule changes lane),
`sim.lane_change.TTC_WARNING` (below which the reward counts it as short: the same published value).
"""

from __future__ import annotations

from sim.lane_change import TTC_WARNING

PUBLISHED_MIN_TTC = TTC_WARNING
"""s, bumper to bumper, that a lane change and keeping the speed need; stated by the published rules."""
PUBLISHED_FRONT_GAP = 12.5
"""m ahead that a lane change needs (published: 13.1 accepted, 11.9 refused)."""
PUBLISHED_REAR_GAP = 22.0
"""m behind that a lane change needs (published: 27.9 accepted, 18.8 refused)."""
PUBLISHED_FOLLOWING = 30.0
"""m to the car ahead: nearer is too close (published: 29.8), farther allows accelerating (31.0)."""
