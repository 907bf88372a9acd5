"""Sizes of cars and lanes that all simulators share, in metres: those of highway-env."""

from __future__ import annotations

CAR_LENGTH = 5.0
CAR_WIDTH = 2.0
LANE_WIDTH = 4.0
LANE_MARGIN = 1.0
"""How far beyond a lane's border a vehicle still counts as on it (highway-env's neighbour search)."""
