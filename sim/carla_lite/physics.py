"""How bodies move: a kinematic bicycle with tyre limits, and contacts between oriented boxes. Vectorised over bodies.

It is a plain, documented model of our own and no copy of Unreal's vehicle physics: throttle and brake act at once,
wheels have no slip angle until the tyre limit is reached, the ground is flat. SI units, radians, CARLA's frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRIVE = 5.2
"""m/s2 at full throttle from standstill ..."""
TOP_SPEED = 55.0
"""... falling linearly to 0 at this speed (m/s)."""
REVERSE_TOP_SPEED = 10.0
BRAKE = 8.5
"""m/s2 at full brake."""
HAND_BRAKE = 6.0
ROLLING = 0.15
"""m/s2 of a rolling wheel."""
DRAG = 4e-4
"""1/m: deceleration by drag is this times the speed squared."""
GRIP = 8.0
"""m/s2 that tyres hold across the direction of travel."""
RESTITUTION = 0.1
SLOP = 0.01
"""Metres by which touching boxes may overlap before they are pushed apart."""
SUBSTEPS = 2

BODY = np.dtype(
    [
        *((name, "f8") for name in ("x", "y", "z", "pitch", "yaw", "roll")),
        *((name, "f8") for name in ("vx", "vy", "spin", "ax", "ay")),
        *((name, "f8") for name in ("throttle", "steer", "brake")),
        *((name, "?") for name in ("hand_brake", "reverse")),
        ("gear", "i4"),
        *((name, "f8") for name in ("length", "width", "height")),  # half extents
        ("mass", "f8"),
        ("wheelbase", "f8"),
        ("max_steer", "f8"),
        ("constant", "f8"),  # m/s that it keeps along its heading, NaN for none
        ("moves", "?"),  # simulated; False: stays where it is put
        ("solid", "?"),  # takes part in contacts
        ("wheels", "?"),  # driven by the bicycle model; False: keeps its velocity (walkers)
    ]
)
"""One body."""


@dataclass(frozen=True)
class Contacts:
    """Pairs of touching boxes, (K,) rows into the bodies, with the impulse (K, 2) on the first of each, N s."""

    first: np.ndarray
    second: np.ndarray
    impulse: np.ndarray


NO_CONTACTS = Contacts(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)))


def step(bodies: np.ndarray, dt: float) -> Contacts:
    """Move all bodies on by dt seconds and resolve contacts; fills their accelerations."""
    before = bodies["vx"].copy(), bodies["vy"].copy()
    for _ in range(SUBSTEPS):
        _drive(bodies, dt / SUBSTEPS)
    contacts = _contacts(bodies)
    bodies["ax"] = (bodies["vx"] - before[0]) / dt
    bodies["ay"] = (bodies["vy"] - before[1]) / dt
    return contacts


def _drive(bodies: np.ndarray, dt: float) -> None:
    b = bodies
    cos, sin = np.cos(b["yaw"]), np.sin(b["yaw"])
    along = b["vx"] * cos + b["vy"] * sin
    across = b["vy"] * cos - b["vx"] * sin
    along = np.where(b["wheels"], _longitudinal(b, along, dt), along)
    held = np.isfinite(b["constant"])
    along = np.where(held, b["constant"], along)
    across = np.where(b["wheels"], np.sign(across) * np.maximum(np.abs(across) - GRIP * dt, 0.0), across)
    speed = np.abs(along)
    bend = np.tan(b["steer"] * b["max_steer"]) / b["wheelbase"]
    limit = GRIP / np.maximum(speed, 0.1) ** 2
    turn = along * np.clip(bend, -limit, limit)
    slide = b["spin"] - turn
    spin = np.where(b["wheels"], turn + np.sign(slide) * np.maximum(np.abs(slide) - 6.0 * dt, 0.0), b["spin"])
    yaw = b["yaw"] + np.where(b["moves"], spin * dt, 0.0)
    middle = b["yaw"] + 0.5 * spin * dt
    b["spin"] = np.where(b["moves"], spin, 0.0)
    x_speed = along * np.cos(middle) - across * np.sin(middle)
    y_speed = along * np.sin(middle) + across * np.cos(middle)
    b["x"] += np.where(b["moves"], x_speed * dt, 0.0)
    b["y"] += np.where(b["moves"], y_speed * dt, 0.0)
    b["yaw"] = np.remainder(yaw + np.pi, 2 * np.pi) - np.pi
    cos, sin = np.cos(b["yaw"]), np.sin(b["yaw"])
    b["vx"] = np.where(b["moves"], along * cos - across * sin, 0.0)
    b["vy"] = np.where(b["moves"], along * sin + across * cos, 0.0)


def _longitudinal(b: np.ndarray, along: np.ndarray, dt: float) -> np.ndarray:
    """Speeds along the heading after pedals, drag and rolling; resistance never turns a direction around."""
    top = np.where(b["reverse"], REVERSE_TOP_SPEED, TOP_SPEED)
    direction = np.where(b["reverse"], -1.0, 1.0)
    drive = direction * DRIVE * b["throttle"] * np.clip(1.0 - direction * along / top, 0.0, 1.0)
    along = along + drive * dt
    resistance = b["brake"] * BRAKE + b["hand_brake"] * HAND_BRAKE + ROLLING + DRAG * along**2
    return np.sign(along) * np.maximum(np.abs(along) - resistance * dt, 0.0)


def _contacts(bodies: np.ndarray) -> Contacts:
    """Find overlapping boxes, exchange momentum along the shallowest axis, and push them apart."""
    solid = np.flatnonzero(bodies["solid"])
    pairs = _near(bodies[solid])
    if not len(pairs[0]):
        return NO_CONTACTS
    first, second = solid[pairs[0]], solid[pairs[1]]
    depth, normal = overlap(bodies[first], bodies[second])
    hit = depth > 0.0
    first, second, depth, normal = first[hit], second[hit], depth[hit], normal[hit]
    impulse = np.zeros((len(first), 2))
    for k, (i, j) in enumerate(zip(first, second, strict=True)):
        impulse[k] = _exchange(bodies, i, j, depth[k], normal[k])
    return Contacts(first, second, impulse)


def _near(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose circles touch, at least one of them movable and at the same height: a sweep along x."""
    reach = np.hypot(b["length"], b["width"])
    order = np.argsort(b["x"] - reach, kind="stable")
    left, right = (b["x"] - reach)[order], (b["x"] + reach)[order]
    until = np.searchsorted(left, right, side="right")
    counts = np.maximum(until - np.arange(len(order)) - 1, 0)
    i = np.repeat(np.arange(len(order)), counts)
    starts = np.cumsum(counts) - counts
    j = i + 1 + np.arange(len(i)) - np.repeat(starts, counts)
    i, j = order[i], order[j]
    near = np.hypot(b["x"][i] - b["x"][j], b["y"][i] - b["y"][j]) < reach[i] + reach[j]
    level = np.abs(b["z"][i] - b["z"][j]) < b["height"][i] + b["height"][j]
    keep = near & level & (b["moves"][i] | b["moves"][j])
    return np.minimum(i, j)[keep], np.maximum(i, j)[keep]


def overlap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth (K,) of the overlap of box pairs, <= 0 where they are apart, and the axis (K, 2) from b to a.

    Separating axes: the two edge directions of each box.
    """
    dx, dy = a["x"] - b["x"], a["y"] - b["y"]
    best, normal = np.full(len(a), np.inf), np.zeros((len(a), 2))
    for yaw in (a["yaw"], b["yaw"]):
        for ux, uy in ((np.cos(yaw), np.sin(yaw)), (-np.sin(yaw), np.cos(yaw))):
            distance = dx * ux + dy * uy
            depth = _radius(a, ux, uy) + _radius(b, ux, uy) - np.abs(distance)
            side = np.where(distance < 0, -1.0, 1.0)
            closer = depth < best
            best = np.where(closer, depth, best)
            normal = np.where(closer[:, None], np.stack([side * ux, side * uy], axis=1), normal)
    return best, normal


def _radius(b: np.ndarray, ux: np.ndarray, uy: np.ndarray) -> np.ndarray:
    """Half of a box's extent along unit axes."""
    cos, sin = np.cos(b["yaw"]), np.sin(b["yaw"])
    return b["length"] * np.abs(ux * cos + uy * sin) + b["width"] * np.abs(uy * cos - ux * sin)


def _exchange(bodies: np.ndarray, i: int, j: int, depth: float, normal: np.ndarray) -> np.ndarray:
    """Impulse on body i (N s); both bodies' velocities and places are corrected. Fixed bodies have no inverse mass."""
    a, b = bodies[i], bodies[j]
    inverse = (1.0 / a["mass"] if a["moves"] else 0.0), (1.0 / b["mass"] if b["moves"] else 0.0)
    total = inverse[0] + inverse[1]
    closing = (a["vx"] - b["vx"]) * normal[0] + (a["vy"] - b["vy"]) * normal[1]
    size = max(-(1.0 + RESTITUTION) * closing / total, 0.0)
    push = max(depth - SLOP, 0.0) / total
    for body, sign, share in ((a, 1.0, inverse[0]), (b, -1.0, inverse[1])):
        body["vx"] += sign * size * share * normal[0]
        body["vy"] += sign * size * share * normal[1]
        body["x"] += sign * push * share * normal[0]
        body["y"] += sign * push * share * normal[1]
    return size * normal
