"""The four fixed thresholds of the published action-utility code, as an expert of their own.

The distances are the mid-points of what the 63 published frames of LGDRL (arXiv 2412.18511) accept and refuse, measured
centre to centre. Ordered rules: change towards the goal if both gaps and the time to collision with the car ahead
allow; brake when the car ahead is too close; catch up when it is far. The published text asks for a time to collision
with the front car only, so none is asked of the car behind. A weak driver: fixed gaps ignore closing speeds.
"""

from __future__ import annotations
