"""How bodies move: a kinematic bicycle with tyre limits, and contacts between oriented boxes. Vectorised over bodies.

It is a simple model and no copy of Unreal's vehicle physics: throttle and brake act at once, wheels have no slip angle
until the tyre limit is reached, bodies stay level. SI units, radians, CARLA's frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

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
YAW_RATE_CHANGE = 6.0
"""rad/s2 at which a vehicle's spin follows its wheels."""
GRAVITY = 9.81
RESTITUTION = 0.1
SLOP = 0.01
"""Metres by which touching boxes may overlap before they are pushed apart."""
LONGEST_STEP = 0.05
"""Seconds; longer steps are divided."""
SETTLES = 0.5
"""Metres below the road within which a body is put onto it; a deeper one was hidden there on purpose and stays."""
FEW = 64
"""Number of bodies up to which all pairs are checked."""
FLOATS = 1e-6
"""Metres above the road from which a body falls."""

BODY = np.dtype(
    [
        *((name, "f8") for name in ("x", "y", "z", "pitch", "yaw", "roll")),
        *((name, "f8") for name in ("vx", "vy", "vz", "spin", "throttle", "steer", "brake", "ax", "ay")),
        *((name, "?") for name in ("hand_brake", "reverse")),
        ("manual", "?"),  # the gear was shifted by hand; both are for clients to read
        ("gear", "i4"),
        *((name, "f8") for name in ("length", "width", "height")),  # half extents
        ("mass", "f8"),
        ("wheelbase", "f8"),
        ("max_steer", "f8"),
        ("constant", "f8"),  # constant speed along its heading, m/s; NaN for none
        ("ground", "f8"),  # its z when it stands on the road
        ("limit", "f8"),  # km/h that are allowed here; for clients to read
        *((name, "f8") for name in ("sign_x", "sign_y")),  # where the limit was looked up
        ("moves", "?"),  # simulated; False: stays where it is put
        ("falls", "?"),  # has weight
        ("solid", "?"),  # takes part in contacts
        ("wheels", "?"),  # driven by the bicycle model; False: keeps its velocity (walkers)
        ("upright", "?"),  # its position is its centre, not its foot (walkers)
    ]
)
"""One body."""


def _group(*names: str) -> tuple[tuple[np.dtype, int], int]:
    """Neighbouring fields of one type as one field: its format and offset."""
    fields = [BODY.fields[name] for name in names]  # type: ignore[index]
    kind, offset = fields[0][:2]
    assert [field[1] for field in fields] == [offset + k * kind.itemsize for k in range(len(names))]
    return (kind, len(names)), offset


_GROUPS = {
    "pose": _group("x", "y", "z", "pitch", "yaw", "roll"),
    "velocity": _group("vx", "vy", "vz"),
    "motion": _group("vx", "vy", "vz", "spin", "throttle"),
    "acceleration": _group("ax", "ay"),
    "pedals": _group("throttle", "steer", "brake"),
    "switches": _group("hand_brake", "reverse", "manual"),
}
BODY_GROUPS = np.dtype(
    {
        "names": list(_GROUPS),
        "formats": [kind for kind, _ in _GROUPS.values()],
        "offsets": [offset for _, offset in _GROUPS.values()],
        "itemsize": BODY.itemsize,
    }
)
"""View of `BODY` for operations on several fields at once: with few bodies, the number of operations decides."""


@dataclass(frozen=True)
class Contacts:
    """Pairs of touching boxes, (K,) rows into the bodies, with the impulse (K, 2) on the first of each, N s."""

    first: np.ndarray
    second: np.ndarray
    impulse: np.ndarray


NO_CONTACTS = Contacts(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)))


def step(bodies: np.ndarray, dt: float) -> Contacts:
    """Move all bodies and resolve contacts; sets their accelerations.

    Args:
        bodies: `BODY` (N,), changed in place.
        dt: Seconds.

    Returns:
        The contacts.
    """
    pieces = max(math.ceil(dt / LONGEST_STEP - 1e-9), 1)
    groups = bodies.view(BODY_GROUPS)
    before = groups["velocity"][:, :2].copy()
    found = [contacts for contacts in (_piece(bodies, dt / pieces) for _ in range(pieces)) if contacts.first.size]
    groups["acceleration"] = (groups["velocity"][:, :2] - before) / dt
    if not found:
        return NO_CONTACTS
    return Contacts(*(np.concatenate([getattr(c, name) for c in found]) for name in ("first", "second", "impulse")))


def _piece(bodies: np.ndarray, dt: float) -> Contacts:
    awake = _awake(bodies)
    count = np.count_nonzero(awake)
    if not count:
        return NO_CONTACTS
    if count == len(bodies):
        _move(bodies, dt)
    else:
        moving = bodies[awake]
        _move(moving, dt)
        bodies[awake] = moving
    return _contacts(bodies, awake)


def _awake(b: np.ndarray) -> np.ndarray:
    """Bodies that move, or would: all others can be left alone."""
    moving = b.view(BODY_GROUPS)["motion"].any(axis=1)
    return b["moves"] & (moving | (b["constant"] == b["constant"]) | _off_ground(b))


def _move(b: np.ndarray, dt: float) -> None:
    """Pedals, tyres, then places: turned half way, moved, turned the rest."""
    yaw, steer, wheels = b["yaw"], b["steer"], b["wheels"]
    cos, sin = np.cos(yaw), np.sin(yaw)
    vx, vy, spin = b["vx"], b["vy"], b["spin"]
    along, across = vx * cos + vy * sin, vy * cos - vx * sin
    if wheels.all():
        along, across, spin = _roll(b, along, across, spin, steer, dt)
    else:
        rolling = _roll(b, along, across, spin, steer, dt)
        along, across, spin = (np.where(wheels, *pair) for pair in zip(rolling, (along, across, spin), strict=True))
    turn = spin * dt
    middle = yaw + 0.5 * turn
    cos, sin = np.cos(middle), np.sin(middle)
    b["x"] += (along * cos - across * sin) * dt
    b["y"] += (along * sin + across * cos) * dt
    yaw = yaw + turn
    yaw -= 2 * np.pi * np.floor((yaw + np.pi) / (2 * np.pi))
    cos, sin = np.cos(yaw), np.sin(yaw)
    b["yaw"], b["spin"] = yaw, spin
    b["vx"], b["vy"] = along * cos - across * sin, along * sin + across * cos
    _fall(b, dt)


def _roll(
    b: np.ndarray, along: np.ndarray, across: np.ndarray, spin: np.ndarray, steer: np.ndarray, dt: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Speeds along and across the heading and the spin of vehicles, dt later.

    Resistance never turns a direction around. A bend tighter than the tyres hold is made as tight as they do; what
    slides sideways is slowed by them.
    """
    forth = 1.0 - 2.0 * b["reverse"]
    top = np.where(b["reverse"], REVERSE_TOP_SPEED, TOP_SPEED)
    pull = np.minimum(np.maximum(1.0 - forth * along / top, 0.0), 1.0)
    along = along + (DRIVE * dt) * forth * b["throttle"] * pull
    resistance = BRAKE * b["brake"] + HAND_BRAKE * b["hand_brake"] + (ROLLING + DRAG * along * along)
    along = np.copysign(np.maximum(np.abs(along) - resistance * dt, 0.0), along)
    held = b["constant"]
    along = np.where(held == held, held, along)
    across = np.copysign(np.maximum(np.abs(across) - GRIP * dt, 0.0), across)
    speed = np.maximum(np.abs(along), 0.1)
    limit = GRIP / (speed * speed)
    bend = np.tan(steer * b["max_steer"]) / b["wheelbase"]
    turn = along * np.minimum(np.maximum(bend, -limit), limit)
    slide = spin - turn
    spin = turn + np.copysign(np.maximum(np.abs(slide) - YAW_RATE_CHANGE * dt, 0.0), slide)
    return along, across, spin


def _fall(b: np.ndarray, dt: float) -> None:
    """Bodies with weight fall onto the road; those just below it are put onto it."""
    off = _off_ground(b)
    if not off.any():
        return
    vz = b["vz"] - GRAVITY * dt
    z = np.maximum(b["z"] + vz * dt, b["ground"])
    landed = z - b["ground"] <= FLOATS
    b["z"] = np.where(off, np.where(landed, b["ground"], z), b["z"])
    b["vz"] = np.where(off & ~landed, vz, 0.0)


def _off_ground(b: np.ndarray) -> np.ndarray:
    above = b["z"] - b["ground"]
    return b["falls"] & (above != 0) & (above > -SETTLES)


def _contacts(bodies: np.ndarray, awake: np.ndarray) -> Contacts:
    """Find overlapping boxes, exchange momentum along the shallowest axis, and push them apart."""
    first, second = _near(bodies)
    moved = awake[first] | awake[second]
    first, second = first[moved], second[moved]
    if not first.size:
        return NO_CONTACTS
    depth, normal = overlap(bodies[first], bodies[second])
    hit = depth > 0.0
    if not hit.any():
        return NO_CONTACTS
    first, second, depth, normal = first[hit], second[hit], depth[hit], normal[hit]
    impulse = np.zeros((len(first), 2))
    for k, (i, j) in enumerate(zip(first, second, strict=True)):
        impulse[k] = _exchange(bodies, i, j, depth[k], normal[k])
    felt = impulse.any(axis=1) | (depth > SLOP)
    return Contacts(first[felt], second[felt], impulse[felt])


def _near(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of solid bodies whose circles touch, at the same height, the lower row first."""
    x, y, reach = b["x"], b["y"], np.sqrt(b["length"] ** 2 + b["width"] ** 2)
    i, j = _all_pairs(len(b)) if len(b) <= FEW else _sweep(x, reach)
    dx, dy, both = x[i] - x[j], y[i] - y[j], reach[i] + reach[j]
    keep = np.flatnonzero(dx * dx + dy * dy < both * both)
    i, j = i[keep], j[keep]
    if not i.size:
        return i, j
    level = np.abs(b["z"][i] - b["z"][j]) < b["height"][i] + b["height"][j]
    keep = level & b["solid"][i] & b["solid"][j] & (b["moves"][i] | b["moves"][j])
    return i[keep], j[keep]


@lru_cache(maxsize=FEW + 1)
def _all_pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(count, 1)


def _sweep(x: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose extents along x overlap."""
    left = x - reach
    order = np.argsort(left, kind="stable")
    until = np.searchsorted(left[order], (x + reach)[order], side="right")
    places = np.arange(len(order))
    counts = np.maximum(until - places - 1, 0)
    i = np.repeat(places, counts)
    j = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts) + i + 1
    i, j = order[i], order[j]
    return np.minimum(i, j), np.maximum(i, j)


def overlap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The overlap of box pairs, by the separating axes of their edges.

    Args:
        a: `BODY` (K,).
        b: `BODY` (K,).

    Returns:
        Depth (K,), <= 0 where they are apart, and the axis (K, 2) from b to a.
    """
    dx, dy = a["x"] - b["x"], a["y"] - b["y"]
    turn = b["yaw"] - a["yaw"]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    axes = np.array([(np.cos(yaw), np.sin(yaw)) for yaw in (a["yaw"], b["yaw"])])
    ux, uy = np.concatenate([axes[:, 0], -axes[:, 1]]), np.concatenate([axes[:, 1], axes[:, 0]])
    distance = dx * ux + dy * uy
    reach = np.array(
        [
            a["length"] + b["length"] * cos + b["width"] * sin,
            b["length"] + a["length"] * cos + a["width"] * sin,
            a["width"] + b["length"] * sin + b["width"] * cos,
            b["width"] + a["length"] * sin + a["width"] * cos,
        ]
    )
    depth = reach - np.abs(distance)
    best, pair = np.argmin(depth, axis=0), np.arange(len(dx))
    side = np.where(distance[best, pair] < 0, -1.0, 1.0)
    return depth[best, pair], np.stack([side * ux[best, pair], side * uy[best, pair]], axis=1)


def _exchange(bodies: np.ndarray, i: int, j: int, depth: float, normal: np.ndarray) -> np.ndarray:
    """The impulse on body i (N s); corrects velocities and positions of both. Fixed bodies have no inverse mass."""
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
