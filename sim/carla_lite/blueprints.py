"""Blueprints and their attributes: what clients see of them, and how values from clients are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sim.carla_lite import codec


@dataclass(frozen=True)
class Attribute:
    """An attribute of a blueprint. Choices are recommended values; numbers must lie within low and high."""

    name: str
    kind: str
    """bool | int | float | string | color"""
    value: str
    choices: tuple[str, ...] = ()
    modifiable: bool = True
    low: float = -math.inf
    high: float = math.inf

    def read(self, value: str) -> str:
        """Check a value from a client.

        Args:
            value: As it came.

        Returns:
            The value in normal form.

        Raises:
            ValueError: It is of the wrong kind or out of bounds.
        """
        if self.kind == "bool":
            if value.lower() not in ("true", "false"):
                raise ValueError(f"'{value}' for attribute '{self.name}': choose true or false")
            return value.lower()
        if self.kind in ("int", "float"):
            number, whole = _parsed(float, value), self.kind == "int"
            fits = number is not None and math.isfinite(number) and self.low <= number <= self.high
            if number is None or not fits or (whole and not number.is_integer()):
                raise ValueError(f"'{value}' for attribute '{self.name}': choose {self._numbers()}")
            return str(int(number)) if whole else value  # scripts also write 64.0 channels
        if self.kind == "color":
            parts = [_parsed(int, part) for part in value.split(",")]
            if len(parts) != 3 or not all(part is not None and 0 <= part <= 255 for part in parts):
                raise ValueError(f"'{value}' for attribute '{self.name}': choose R,G,B from 0 to 255 each")
        return value

    def _numbers(self) -> str:
        what = "a whole number" if self.kind == "int" else "a number"
        bounds = [f"from {self.low:g}"] * (self.low > -math.inf) + [f"up to {self.high:g}"] * (self.high < math.inf)
        return " ".join([what, *bounds])


def _parsed(kind: Callable[[str], float], value: str) -> float | None:
    try:
        return kind(value)
    except ValueError:
        return None


@dataclass(frozen=True)
class Blueprint:
    """What an actor is made from. Extents are half sizes in m, mass is in kg."""

    id: str
    kind: str
    """vehicle | walker | sensor | static | controller | spectator | light"""
    attributes: tuple[Attribute, ...] = ()
    extent: tuple[float, float, float] = (0.0, 0.0, 0.0)
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the bounding box, relative to the actor's position."""
    mass: float = 0.0
    tag: int = 0
    """Semantic tag, as in CARLA's city palette."""
    uid: int = field(default=0, compare=False)

    @property
    def tags(self) -> str:
        return ",".join(self.id.split("."))

    def pack(self, version: codec.Version) -> codec.Wire:
        """The wire form for a client version."""
        rows = [
            codec.attribute(version, a.name, a.kind, a.value, a.choices, a.modifiable)
            for a in (*self.attributes, Attribute("ros_name", "string", self.id, modifiable=False))
        ]
        return [self.uid, self.id, self.tags, rows]


def role(*names: str) -> Attribute:
    """The role name with the values that CARLA recommends; the first one is the default."""
    return Attribute("role_name", "string", names[0], names)


def flag(name: str, default: bool) -> Attribute:
    """A switch that recommends its default."""
    return Attribute(name, "bool", str(default).lower(), (str(default).lower(),))


def number(name: str, value: float | int, low: float = -math.inf, high: float = math.inf) -> Attribute:
    """A numeric attribute that recommends its default: scripts take the first recommended value."""
    return Attribute(name, "int" if isinstance(value, int) else "float", str(value), (str(value),), low=low, high=high)


def check_attributes(blueprint: Blueprint, given: Sequence[codec.Wire]) -> dict[str, str]:
    """The attribute values of a spawn request, completed by the blueprint's defaults.

    Args:
        blueprint: The blueprint.
        given: (name, kind, value) from the client.

    Returns:
        Values by name.

    Raises:
        ValueError: A name is unknown, or a value is invalid.
    """
    known = {attribute.name: attribute for attribute in blueprint.attributes}
    values = {name: attribute.value for name, attribute in known.items()}
    values["ros_name"] = blueprint.id
    for name, _, value in given:
        if name not in values:
            raise ValueError(f"{blueprint.id} has no attribute '{name}'")
        attribute = known.get(name)
        if attribute is not None and attribute.modifiable:
            values[name] = attribute.read(value)
    return values
