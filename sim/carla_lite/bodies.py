"""The bodies of all actors that have one, as rows of one `physics.BODY` array, on the ground of a map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sim.carla_lite import physics
from sim.carla_lite.actors import Actor, CallRefused
from sim.carla_lite.blueprints import Blueprint
from sim.carla_lite.library import FLAT
from sim.carla_lite.roads import RoadMap

SPAWN_LIFT = 0.5
"""Metres above the road at which spawn points lie, as on CARLA's maps."""
MAX_STEER = math.radians(70.0)
WHEELBASE_SHARE = 0.6
"""Wheelbase as a share of a vehicle's length."""
SPEED_LIMIT = 90.0
"""km/h for vehicles until the map gives a limit."""
SIGN_DISTANCE = 10.0
"""Metres that a vehicle moves between two look-ups of the map's speed limit."""

Contact = tuple[int, int, np.ndarray]
"""Ids of two actors that touch, and the impulse (2,) on the first, N s."""


class Bodies:
    """Bodies by row; `owners` holds the actor id of each row in use."""

    def __init__(self, roads: RoadMap) -> None:
        """`roads` gives heights and speed limits."""
        self.rows = np.zeros(16, physics.BODY)
        """Rows beyond `len(owners)` are spare capacity."""
        self.owners: list[int] = []
        self._roads = roads
        self._flat = float(np.ptp(np.concatenate([lane.z for lane in roads.lanes]))) == 0.0

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def used(self) -> np.ndarray:
        """The rows in use: a view, valid until the next `add`."""
        return self.rows[: len(self.owners)]

    def of(self, actor: Actor) -> np.void:
        """The body of an actor.

        Args:
            actor: Any actor.

        Returns:
            Its row, writable.

        Raises:
            CallRefused: The actor has no body.
        """
        if actor.row < 0:
            raise CallRefused(f"actor {actor.id} ({actor.blueprint.id}) has no body that could do this")
        return self.rows[actor.row]

    def add(self, actor: Actor, pose: Sequence[float]) -> None:
        """Give an actor a body; sets `actor.row`.

        Args:
            actor: An actor without a body.
            pose: x, y, z in m; pitch, yaw, roll in degrees.
        """
        if len(self.owners) == len(self.rows):
            self.rows = np.concatenate([self.rows, np.zeros(len(self.rows), physics.BODY)])
        actor.row = len(self.owners)
        self.owners.append(actor.id)
        blueprint = actor.blueprint
        body = self.rows[actor.row]
        self.rows[actor.row] = np.zeros((), physics.BODY)
        body["length"], body["width"], body["height"] = blueprint.extent
        body["mass"] = blueprint.mass or 1.0
        body["wheelbase"] = max(2 * blueprint.extent[0] * WHEELBASE_SHARE, 0.5)
        body["max_steer"] = MAX_STEER
        body["constant"], body["limit"] = np.nan, SPEED_LIMIT
        body["moves"] = body["falls"] = blueprint.kind in ("vehicle", "walker")
        body["solid"], body["wheels"] = blueprint.extent[2] > FLAT, blueprint.kind == "vehicle"
        body["upright"] = blueprint.kind == "walker"
        self.put(actor.row, pose)
        if 0 < body["z"] - body["ground"] <= physics.SETTLES:
            body["z"] = body["ground"]

    def remove(self, row: int) -> tuple[int, int] | None:
        """Remove a body. The last row takes its place, so that rows stay contiguous.

        Args:
            row: The row to remove.

        Returns:
            The id of the actor whose body moved and its new row; None where no body moved.
        """
        last = len(self.owners) - 1
        moved = None
        if row != last:
            self.rows[row] = self.rows[last]
            self.owners[row] = self.owners[last]
            moved = self.owners[last], row
        self.owners.pop()
        return moved

    def put(self, row: int, pose: Sequence[float]) -> None:
        """Teleport a body.

        Args:
            row: Its row.
            pose: x, y, z in m; pitch, yaw, roll in degrees.
        """
        body = self.rows[row]
        body["x"], body["y"], body["z"] = pose[:3]
        body["pitch"], body["yaw"], body["roll"] = np.radians(pose[3:])
        body["ground"] = self._ground(self.rows[row : row + 1])[0]
        body["sign_x"] = np.inf
        self._read_signs(self.rows[row : row + 1])

    def pose(self, row: int) -> tuple[float, ...]:
        """x, y, z in m; pitch, yaw, roll in degrees."""
        b = self.rows[row]
        return (
            float(b["x"]),
            float(b["y"]),
            float(b["z"]),
            math.degrees(b["pitch"]),
            math.degrees(b["yaw"]),
            math.degrees(b["roll"]),
        )

    def occupied(self, blueprint: Blueprint, pose: Sequence[float]) -> bool:
        """Whether a body of this blueprint would overlap a solid body.

        Args:
            blueprint: Of the new actor; its extent counts.
            pose: x, y, z in m; pitch, yaw, roll in degrees.

        Returns:
            True where there is no room.
        """
        here = self.used
        if not len(here):
            return False
        candidate = np.zeros(1, physics.BODY)
        candidate["x"], candidate["y"], candidate["yaw"] = pose[0], pose[1], math.radians(pose[4])
        candidate["length"], candidate["width"] = blueprint.extent[:2]
        reach = np.hypot(here["length"], here["width"]) + math.hypot(*blueprint.extent[:2])
        near = here["solid"] & (np.hypot(here["x"] - pose[0], here["y"] - pose[1]) < reach)
        near &= np.abs(here["z"] - pose[2]) < here["height"] + blueprint.extent[2] + SPAWN_LIFT
        here = here[near]
        return bool(len(here)) and bool((physics.overlap(np.repeat(candidate, len(here)), here)[0] > 0).any())

    def step(self, dt: float) -> list[Contact]:
        """Move all bodies by one time step and resolve contacts.

        Args:
            dt: Seconds.

        Returns:
            The contacts of this step.
        """
        bodies = self.used
        if not len(bodies):
            return []
        found = physics.step(bodies, dt)
        if not self._flat:
            bodies["ground"] = self._ground(bodies)
        self._read_signs(bodies)
        return [
            (self.owners[i], self.owners[j], impulse)
            for i, j, impulse in zip(found.first, found.second, found.impulse, strict=True)
        ]

    def _ground(self, b: np.ndarray) -> np.ndarray:
        """z (N,) at which bodies stand: vehicles are measured from the ground, walkers from their centre."""
        ground = self._roads.height(np.array([b["x"], b["y"]]).T, b["z"])
        ground = np.where(ground == ground, ground, 0.0)
        return ground if b["wheels"].all() else ground + np.where(b["upright"], b["height"], 0.0)

    def _read_signs(self, b: np.ndarray) -> None:
        """Update the limits of bodies that moved `SIGN_DISTANCE` since the last look-up; kept where the map has none.

        The result depends on the path of a body only, so that traffic that obeys limits is the same in every run.
        """
        far = np.abs(b["x"] - b["sign_x"]) + np.abs(b["y"] - b["sign_y"]) > SIGN_DISTANCE
        if far.any():
            found = self._roads.speed_limit(np.array([b["x"][far], b["y"][far]]).T)
            b["limit"][far] = np.where(np.isnan(found), b["limit"][far], found)
            b["sign_x"][far], b["sign_y"][far] = b["x"][far], b["y"][far]
