"""The families of environments that the engine has, one file each. To add one, write its file and list it here."""

from __future__ import annotations

from sim.engine.families import exit, highway, intersection, lane_change, merge, two_way
from sim.engine.family import Family
from sim.scenarios import Scenario

FAMILIES: tuple[Family, ...] = (
    highway.FAMILY,
    two_way.FAMILY,
    merge.FAMILY,
    merge.GENERIC,
    exit.FAMILY,
    intersection.FAMILY,
    lane_change.FAMILY,
)


def family_of(scenario: Scenario) -> Family | None:
    """The family that covers environments of a scenario, or None."""
    return next((family for family in FAMILIES if scenario.family in family.kinds), None)
