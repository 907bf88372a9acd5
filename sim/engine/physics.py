"""Scalar vehicle physics in highway-env's exact order of operations (highway-env 1.12, `vehicle/`, `utils.py`).

Every function is compiled with IEEE semantics (no fast-math), so that each result equals the Python original to the bit
where NumPy's elementary functions are libm's. Angles in rad, lengths in m, speeds in m/s.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

LENGTH = 5.0
WIDTH = 2.0
DIAGONAL = math.sqrt(LENGTH**2 + WIDTH**2)
MAX_SPEED = 40.0
MAX_STEERING = math.pi / 3
TAU_PURSUIT = 0.1
LANE_WIDTH = 4.0
LANE_MARGIN = 1.0
REACHABLE = 2 * LANE_WIDTH
"""A lane whose centre is farther than this cannot be targeted."""


@njit(cache=True, error_model="numpy")
def not_zero(x):
    if abs(x) > 1e-2:
        return x
    return 1e-2 if x >= 0 else -1e-2


@njit(cache=True, error_model="numpy")
def wrap_to_pi(x):
    return ((x + math.pi) % (2 * math.pi)) - math.pi


@njit(cache=True, error_model="numpy")
def clip(x, low, high):
    return min(max(x, low), high)


@njit(cache=True, error_model="numpy")
def steering_to_lane(lateral, heading, speed, kp_lateral, kp_heading):
    """Steering angle that brings a vehicle at offset `lateral` to the centre of a straight lane of heading 0."""
    lateral_speed = -kp_lateral * lateral
    heading_command = math.asin(clip(lateral_speed / not_zero(speed), -1.0, 1.0))
    heading_ref = 0.0 + clip(heading_command, -math.pi / 4, math.pi / 4)
    heading_rate = kp_heading * wrap_to_pi(heading_ref - heading)
    slip = math.asin(clip(LENGTH / 2 / not_zero(speed) * heading_rate, -1.0, 1.0))
    steering = math.atan(2 * math.tan(slip))
    return clip(steering, -MAX_STEERING, MAX_STEERING)


@njit(cache=True, error_model="numpy")
def limit_acceleration(acceleration, speed):
    """Soft speed limit of +-40 m/s."""
    if speed > MAX_SPEED:
        return min(acceleration, 1.0 * (MAX_SPEED - speed))
    if speed < -MAX_SPEED:
        return max(acceleration, 1.0 * (-MAX_SPEED - speed))
    return acceleration


@njit(cache=True, error_model="numpy")
def closest_lane(y, heading, lanes):
    """Index of the closest parallel straight lane; ties go to the leftmost."""
    angle = abs(wrap_to_pi(heading - 0.0))
    best, best_distance = 0, math.inf
    for lane in range(lanes):
        distance = abs(y - lane * LANE_WIDTH) + 0.0 + 0.0 + 1.0 * angle
        if distance < best_distance:
            best, best_distance = lane, distance
    return best


@njit(cache=True, error_model="numpy")
def on_lane(y, lane):
    """Whether a vehicle at `y` counts as on `lane` in the neighbour search (1 m margin)."""
    return abs(y - lane * LANE_WIDTH) <= LANE_WIDTH / 2 + LANE_MARGIN


@njit(cache=True, error_model="numpy")
def speed_index(speed, set_points):
    """Index of the set-point nearest to `speed`, halves to even, as MDPVehicle.speed_to_index."""
    count = set_points.size
    x = (speed - set_points[0]) / (set_points[-1] - set_points[0])
    return int(clip(np.round(x * (count - 1)), 0.0, count - 1.0))


@njit(cache=True, error_model="numpy")
def _corners(x, y, heading, out):
    """Closed rectangle of a vehicle, (5, 2), in highway-env's order of corners."""
    c, s = math.cos(heading), math.sin(heading)
    for k in range(4):
        px = -LENGTH / 2 if k < 2 else LENGTH / 2
        py = -WIDTH / 2 if k in (0, 3) else WIDTH / 2
        out[k, 0] = (c * px + -s * py) + x
        out[k, 1] = (s * px + c * py) + y
    out[4, 0], out[4, 1] = out[0, 0], out[0, 1]


@njit(cache=True, error_model="numpy")
def _project(polygon, nx, ny):
    low = high = polygon[0, 0] * nx + polygon[0, 1] * ny
    for k in range(1, 5):
        value = polygon[k, 0] * nx + polygon[k, 1] * ny
        if value < low:
            low = value
        if value > high:
            high = value
    return low, high


@njit(cache=True, error_model="numpy")
def _interval_distance(low_a, high_a, low_b, high_b):
    return low_b - high_a if low_a < low_b else low_a - high_b


@njit(cache=True, error_model="numpy")
def rectangles_collide(ax, ay, ah, avx, avy, bx, by, bh, bvx, bvy, dt):
    """Separating axes on two vehicles, now and swept over `dt`: (intersecting, will intersect, push x, push y).

    Args: centre, heading and velocity of a and b. The push is the translation that parts them (zero without contact).
    highway-env's inner `break` leaves only one polygon's edges; it is kept.
    """
    a, b = np.empty((5, 2)), np.empty((5, 2))
    _corners(ax, ay, ah, a)
    _corners(bx, by, bh, b)
    dx, dy = avx * dt - bvx * dt, avy * dt - bvy * dt
    intersecting = will_intersect = True
    min_distance = math.inf
    axis_x = axis_y = 0.0
    for which in range(2):
        polygon = a if which == 0 else b
        for k in range(4):
            nx = -polygon[k + 1, 1] + polygon[k, 1]
            ny = polygon[k + 1, 0] - polygon[k, 0]
            norm = math.sqrt(nx * nx + ny * ny)
            nx, ny = nx / norm, ny / norm
            low_a, high_a = _project(a, nx, ny)
            low_b, high_b = _project(b, nx, ny)
            if _interval_distance(low_a, high_a, low_b, high_b) > 0:
                intersecting = False
            velocity = nx * dx + ny * dy
            if velocity < 0:
                low_a += velocity
            else:
                high_a += velocity
            distance = _interval_distance(low_a, high_a, low_b, high_b)
            if distance > 0:
                will_intersect = False
            if not intersecting and not will_intersect:
                break
            if abs(distance) < min_distance:
                min_distance = abs(distance)
                towards = _center_difference(a, b, 0) * nx + _center_difference(a, b, 1) * ny
                sign = 1.0 if towards > 0 else -1.0
                axis_x, axis_y = sign * nx, sign * ny
    if will_intersect:
        return intersecting, True, min_distance * axis_x, min_distance * axis_y
    return intersecting, False, 0.0, 0.0


@njit(cache=True, error_model="numpy")
def _center_difference(a, b, axis):
    """Difference of the corner means, in the order in which NumPy sums four rows."""
    mean_a = (((a[0, axis] + a[1, axis]) + a[2, axis]) + a[3, axis]) / 4
    mean_b = (((b[0, axis] + b[1, axis]) + b[2, axis]) + b[3, axis]) / 4
    return mean_a - mean_b
