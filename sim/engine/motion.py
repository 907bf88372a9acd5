"""How vehicles move in one simulation step (highway-env 1.12, `vehicle/kinematics.py`).

Kernel arguments as in `sim.engine.bodies`.
"""

from __future__ import annotations

from sim import kinematics
from sim.compiled import kernel
from sim.engine import bicycle, roads
from sim.engine.ego_actions import BICYCLE
from sim.sizes import CAR_LENGTH


@kernel
def _limit(body, slowest, fastest):
    """Vehicle.clip_actions: crashed vehicles come to rest, others stay within a range of speeds."""
    if body.crashed:
        body.steering, body.acceleration = 0.0, -1.0 * body.speed
    body.acceleration = kinematics.limit_to_range(body.acceleration, body.speed, slowest, fastest)


@kernel
def _move(body, lanes, dt):
    """Kinematic bicycle, explicit Euler with the old speed and heading; a pending push makes it crashed."""
    speed = body.speed
    body.timer += dt
    if body.steering == 0.0 and body.heading == 0.0 and not body.pushed:
        _roll(body, lanes, dt)
        return
    if body.steering == 0.0:
        body.x += speed * body.cos * dt
        body.y += speed * body.sin * dt
    else:
        beta = kinematics.atan(0.5 * kinematics.tan(body.steering))
        body.x += speed * kinematics.cos(body.heading + beta) * dt
        body.y += speed * kinematics.sin(body.heading + beta) * dt
    if body.pushed:
        body.x += body.push_x
        body.y += body.push_y
        body.crashed, body.pushed = 1, 0
    if body.steering != 0.0:
        body.heading += speed * kinematics.sin(beta) / (CAR_LENGTH / 2) * dt
        body.cos, body.sin = kinematics.cos(body.heading), kinematics.sin(body.heading)
    speed += body.acceleration * dt
    body.speed = speed
    body.vx, body.vy = speed * body.cos, speed * body.sin
    body.lane = roads.lane_after(body, lanes)


@kernel
def move_car(body, lanes, dt):
    """Vehicle.step of a vehicle that drives itself, or that a set-point and a target lane drive."""
    _limit(body, -kinematics.MAX_SPEED, kinematics.MAX_SPEED)
    _move(body, lanes, dt)


@kernel
def _roll(body, lanes, dt):
    """`_move` straight along x: every cosine is 1 and every sine 0."""
    body.x += body.speed * dt
    body.speed += body.acceleration * dt
    body.vx, body.vy = body.speed, body.speed * 0.0
    body.lane = roads.lane_after(body, lanes)


@kernel
def move_ego(env, ego, lanes, p, dt):
    """The ego that is driven by controls; it has no target lane, so that its own stands there."""
    _limit(ego, p.ego_slowest, p.ego_fastest)
    if p.ego_kind == BICYCLE:
        bicycle.move(env, ego, dt)
        ego.lane = roads.lane_after(ego, lanes)
    else:
        _move(ego, lanes, dt)
    ego.target = ego.lane
