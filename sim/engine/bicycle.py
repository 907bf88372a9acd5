"""The ego that slips: a dynamic bicycle with lateral tyre forces (highway-env 1.12, `vehicle/dynamics.py`).

R. Rajamani, "Vehicle Dynamics and Control", chapter 2; integrated by one Runge-Kutta step of fourth order. Operations
are highway-env's one by one. Kernel arguments as in `sim.engine.bodies`.
"""

from __future__ import annotations

import math

from sim import kinematics
from sim.compiled import kernel
from sim.sizes import CAR_LENGTH, CAR_WIDTH

MASS = 1.0
TO_AXLE = CAR_LENGTH / 2
"""m from the centre of mass to either axle."""
INERTIA = 1 / 12 * MASS * (CAR_LENGTH**2 + CAR_WIDTH**2)
FRICTION = 15.0 * MASS
"""Cornering stiffness of each tyre, N/rad."""
MAX_YAW_RATE = 2 * math.pi
CRAWL = 1.0
"""m/s below which slip angles mean nothing: lateral speed and yaw rate are damped instead."""


@kernel
def derivative(heading, speed, lateral_speed, yaw_rate, steering):
    """Rates of x, y, lateral speed and yaw rate. Those of heading and speed are yaw rate and acceleration."""
    if abs(speed) < CRAWL:
        front = -MASS * lateral_speed - INERTIA / TO_AXLE * yaw_rate
        rear = -MASS * lateral_speed + INERTIA / TO_AXLE * yaw_rate
    else:
        front = 2 * FRICTION * (steering - math.atan2(lateral_speed + TO_AXLE * yaw_rate, speed))
        rear = 2 * FRICTION * (0.0 - math.atan2(lateral_speed - TO_AXLE * yaw_rate, speed))
    d_lateral_speed = 1 / MASS * (front + rear) - yaw_rate * speed
    d_yaw_rate = 1 / INERTIA * (TO_AXLE * front - TO_AXLE * rear)
    c, s = math.cos(heading), math.sin(heading)
    return c * speed + -s * lateral_speed, s * speed + c * lateral_speed, d_lateral_speed, d_yaw_rate


@kernel
def _summed(state, dt, f1, f2, f3, f4):
    return state + (dt / 6) * (f1 + (2 * f2) + (2 * f3) + f4)


@kernel
def move(env, ego, dt):
    """BicycleVehicle.step, after the limits that all vehicles have. A push is noted, but moves nothing."""
    steering = ego.steering = kinematics.clip(ego.steering, -math.pi / 2, math.pi / 2)
    r1 = kinematics.clip(env.yaw_rate, -MAX_YAW_RATE, MAX_YAW_RATE)
    h1, v1, u1, a, half = ego.heading, ego.speed, env.lateral_speed, ego.acceleration, dt / 2
    x1, y1, du1, dr1 = derivative(h1, v1, u1, r1, steering)
    u2, r2 = u1 + du1 * half, r1 + dr1 * half
    x2, y2, du2, dr2 = derivative(h1 + r1 * half, v1 + a * half, u2, r2, steering)
    u3, r3 = u1 + du2 * half, r1 + dr2 * half
    x3, y3, du3, dr3 = derivative(h1 + r2 * half, v1 + a * half, u3, r3, steering)
    u4, r4 = u1 + du3 * dt, r1 + dr3 * dt
    x4, y4, du4, dr4 = derivative(h1 + r3 * dt, v1 + a * dt, u4, r4, steering)
    ego.x, ego.y = _summed(ego.x, dt, x1, x2, x3, x4), _summed(ego.y, dt, y1, y2, y3, y4)
    ego.heading = _summed(h1, dt, r1, r2, r3, r4)
    ego.speed = _summed(v1, dt, a, a, a, a)
    env.lateral_speed, env.yaw_rate = _summed(u1, dt, du1, du2, du3, du4), _summed(r1, dt, dr1, dr2, dr3, dr4)
    ego.cos, ego.sin = math.cos(ego.heading), math.sin(ego.heading)
    ego.vx, ego.vy = ego.speed * ego.cos, ego.speed * ego.sin
