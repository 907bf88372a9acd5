"""An open area: contacts of bodies of any size, and what is ahead where there are no lanes.

Kernel arguments as in `sim.engine.bodies`.
"""

from __future__ import annotations

import math

from sim import kinematics
from sim.compiled import kernel
from sim.engine.contacts import contact
from sim.engine.records import nth
from sim.sizes import LANE_MARGIN

MARGIN = 1e-6
"""m, far beyond rounding."""


@kernel
def _clear_of(car, body, dt):
    """A cheap test that implies that a car does not touch a body, now or within the step.

    The car's circle stays outside the slab between two opposite edges of the body, whose normal then separates them.
    """
    dx, dy = car.x - body.x, car.y - body.y
    along, across = dx * body.cos + dy * body.sin, dy * body.cos - dx * body.sin
    outside = max(abs(along) - body.length / 2, abs(across) - body.width / 2)
    return outside > kinematics.DIAGONAL / 2 + (abs(car.speed) + abs(body.speed)) * dt + MARGIN


@kernel
def collide_on_lot(env, ego, p):
    """All contacts, pair by pair in the order of the list; nothing can hit a landmark."""
    for i in range(env.vehicles):
        for j in range(i + 1, env.bodies):
            landmark = env.vehicles <= j < env.vehicles + p.landmarks
            if not landmark and not _clear_of(nth(ego, i), nth(ego, j), p.dt):
                contact(env, ego, i, j, p.dt)


@kernel
def ahead_on_lot(env, ego, p):
    """The nearest body ahead along x in the free strip (-1: none), and its distance, as in scenes of the lot."""
    best, best_dx = -1, math.inf
    for j in range(1, env.bodies):
        body = nth(ego, j)
        landmark = env.vehicles <= j < env.vehicles + p.landmarks
        if not landmark and abs(body.y) <= p.area_width / 2 + LANE_MARGIN and 0 <= body.x - ego.x <= best_dx:
            best, best_dx = j, body.x - ego.x
    return best, best_dx
