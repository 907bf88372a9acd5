"""`lgdrl list --coverage`: what of highway-env runs on the batched engine, and what goes to highway-env by itself.

Every cell is asked of the engine's own `why_not`, with the config that a user would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

import sim
from sim.config import resolve
from sim.engine.factory import why_not
from sim.engine.families import family_of
from sim.errors import UsageError
from sim.highway.scenario import HighwayScenario
from sim.highway.schema import ACTIONS, OBSERVATIONS

TRAFFIC = "other_vehicles_type"
OTHER_TRAFFIC = "highway_env.vehicle.behavior.AggressiveVehicle"
SETTINGS: dict[str, Mapping[str, Any]] = {
    **{name: {"action": {"type": name}} for name in ACTIONS},
    **{name: {"observation": {"type": name}} for name in OBSERVATIONS},
    TRAFFIC: {TRAFFIC: OTHER_TRAFFIC},
}
"""What is asked about, as overrides of a scenario's config."""
CODES = {
    "DiscreteMetaAction": "me",
    "ContinuousAction": "co",
    "DiscreteAction": "di",
    "Kinematics": "Ki",
    "ExitObservation": "Ex",
    "KinematicsGoal": "Go",
    "OccupancyGrid": "Oc",
    "TimeToCollision": "Ti",
    "LidarObservation": "Li",
    "GrayscaleObservation": "Gr",
    "AttributesObservation": "At",
    TRAFFIC: "Tr",
}
"""Column heads of the settings."""
COVERED, LEFT, REFUSED = "+", "-", "."


@dataclass(frozen=True)
class Coverage:
    """What the engine covers of one scenario, by setting of `SETTINGS`."""

    scenario: str
    family: str | None
    """The engine's family of environments; None: it has none for this scenario."""
    covered: tuple[str, ...]
    left: dict[str, str]
    """Settings that go to highway-env, with the reason."""
    refused: dict[str, str]
    """Settings that the scenario's config does not take, with the reason."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def coverage() -> list[Coverage]:
    """What the engine covers of every highway-env scenario, in the catalog's order."""
    return [_coverage(scenario) for scenario in sim.registry().values() if isinstance(scenario, HighwayScenario)]


def _coverage(scenario: HighwayScenario) -> Coverage:
    covered: list[str] = []
    left: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, overrides in SETTINGS.items():
        try:
            reason = why_not(scenario, resolve(scenario.defaults, overrides))
        except UsageError as error:
            refused[name] = str(error)
            continue
        if reason is None:
            covered.append(name)
        else:
            left[name] = reason
    family = family_of(scenario)
    return Coverage(scenario.name, None if family is None else family.name, tuple(covered), left, refused)


def coverage_table(rows: Sequence[Coverage]) -> Table:
    """The rows as marks; fits 80 columns.

    Args:
        rows: Of `coverage`.
    """
    table = Table(
        title="Coverage of the engine", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column("scenario", no_wrap=True, style="bold")
    table.add_column("family", no_wrap=True)
    for name in SETTINGS:
        table.add_column(CODES.get(name, name[:2]), justify="center", no_wrap=True)
    for row in rows:
        marks = [COVERED if name in row.covered else LEFT if name in row.left else REFUSED for name in SETTINGS]
        table.add_row(row.scenario, row.family or LEFT, *marks)
    return table


def legend(rows: Sequence[Coverage]) -> Iterator[str]:
    """What the table's heads and marks mean, then the reasons why settings are left to highway-env.

    Args:
        rows: Of `coverage`.
    """
    yield f"{COVERED} on the engine, {LEFT} on highway-env by itself, {REFUSED} not a setting of this scenario"
    yield ", ".join(f"{code} {name}" for name, code in CODES.items())
    reasons: dict[str, int] = {}
    for row in rows:
        for reason in dict.fromkeys(row.left.values()):
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        yield f"left to highway-env: {reason} ({count} scenario{'s' * (count > 1)})"
