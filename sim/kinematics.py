"""Scalar vehicle physics in highway-env's exact order of operations (highway-env 1.12, `vehicle/`, `utils.py`).

Every function is compiled with IEEE semantics (no fast-math), so that each result equals the Python original to the bit
where NumPy's elementary functions are libm's. Angles in rad, lengths in m, speeds in m/s.
"""

from __future__ import annotations

import math

import numpy as np

from sim.compiled import kernel
from sim.sizes import CAR_LENGTH, CAR_WIDTH, LANE_MARGIN, LANE_WIDTH

DIAGONAL = math.sqrt(CAR_LENGTH**2 + CAR_WIDTH**2)
"""Of a car, m."""
MAX_SPEED = 40.0
MAX_STEERING = math.pi / 3
TAU_PURSUIT = 0.1
REACHABLE = 2 * LANE_WIDTH
"""A lane whose centre is farther than this cannot be targeted."""


@kernel
def not_zero(x):
    if abs(x) > 1e-2:
        return x
    return 1e-2 if x >= 0 else -1e-2


@kernel
def modulo(x, period):
    """`x % period`; without a division where x is in the first period."""
    return x if 0.0 <= x < period else x % period


@kernel
def wrap_to_pi(x):
    return modulo(x + math.pi, 2 * math.pi) - math.pi


TINY = 1e-8
"""Below this, sine, tangent and their inverses return their argument, and the cosine 1, to the bit."""


@kernel
def sin(x):
    return x if abs(x) < TINY else math.sin(x)


@kernel
def cos(x):
    return 1.0 if abs(x) < TINY else math.cos(x)


@kernel
def tan(x):
    return x if abs(x) < TINY else math.tan(x)


@kernel
def asin(x):
    return x if abs(x) < TINY else math.asin(x)


@kernel
def atan(x):
    return x if abs(x) < TINY else math.atan(x)


@kernel
def clip(x, low, high):
    return min(max(x, low), high)


@kernel
def steering_to(lateral, lane_heading, heading, speed, kp_lateral, kp_heading):
    """Steering angle that brings a vehicle at offset `lateral` to the centre of a lane of heading `lane_heading`."""
    lateral_speed = -kp_lateral * lateral
    heading_command = asin(clip(lateral_speed / not_zero(speed), -1.0, 1.0))
    heading_ref = lane_heading + clip(heading_command, -math.pi / 4, math.pi / 4)
    heading_rate = kp_heading * wrap_to_pi(heading_ref - heading)
    slip = asin(clip(CAR_LENGTH / 2 / not_zero(speed) * heading_rate, -1.0, 1.0))
    steering = atan(2 * tan(slip))
    return clip(steering, -MAX_STEERING, MAX_STEERING)


@kernel
def limit_acceleration(acceleration, speed):
    """Acceleration with the soft speed limit of +-40 m/s applied."""
    return limit_to_range(acceleration, speed, -MAX_SPEED, MAX_SPEED)


@kernel
def limit_to_range(acceleration, speed, slowest, fastest):
    """Acceleration that leads back into a range of speeds, m/s, where the speed is outside."""
    if speed > fastest:
        return min(acceleration, 1.0 * (fastest - speed))
    if speed < slowest:
        return max(acceleration, 1.0 * (slowest - speed))
    return acceleration


@kernel
def closest_lane(y, heading, lanes):
    """Index of the closest parallel straight lane; ties go to the leftmost."""
    angle = abs(wrap_to_pi(heading - 0.0))
    best, best_distance = 0, math.inf
    for lane in range(lanes):
        distance = abs(y - lane * LANE_WIDTH) + 0.0 + 0.0 + 1.0 * angle
        if distance < best_distance:
            best, best_distance = lane, distance
    return best


@kernel
def on_lane(y, lane):
    """Whether a vehicle at `y` counts as on `lane` in the neighbour search (1 m margin)."""
    return abs(y - lane * LANE_WIDTH) <= LANE_WIDTH / 2 + LANE_MARGIN


@kernel
def speed_index(speed, set_points):
    """Index of the set-point nearest to `speed`, halves to even, as MDPVehicle.speed_to_index."""
    count = set_points.size
    x = (speed - set_points[0]) / (set_points[-1] - set_points[0])
    return int(clip(np.round(x * (count - 1)), 0.0, count - 1.0))


@kernel
def _corners(x, y, c, s, half_length, half_width):
    """Corners of a rectangle at heading (cosine, sine), as four x and four y, in highway-env's order."""
    lx, ly, wx, wy = c * half_length, s * half_length, -s * half_width, c * half_width
    return (
        ((-lx - wx) + x, (-lx + wx) + x, (lx + wx) + x, (lx - wx) + x),
        ((-ly - wy) + y, (-ly + wy) + y, (ly + wy) + y, (ly - wy) + y),
    )


@kernel
def _project(xs, ys, nx, ny):
    low = high = xs[0] * nx + ys[0] * ny
    for k in range(1, 4):
        value = xs[k] * nx + ys[k] * ny
        if value < low:
            low = value
        if value > high:
            high = value
    return low, high


@kernel
def _interval_distance(low_a, high_a, low_b, high_b):
    return low_b - high_a if low_a < low_b else low_a - high_b


@kernel
def rectangles_collide(ax, ay, ac, as_, avx, avy, bx, by, bc, bs, bvx, bvy, half_length, half_width, dt):
    """Separating axes on a vehicle a and a body b, now and swept over a time step.

    highway-env's inner `break` leaves only one polygon's edges; it is kept. Given are centre, cosine and sine of the
    heading, and velocity of both; half length and half width of b; and the time step.

    Returns:
        Whether they intersect now, whether they will within the step, and the translation (x, y) that parts them, zero
        without contact.
    """
    a_xs, a_ys = _corners(ax, ay, ac, as_, CAR_LENGTH / 2, CAR_WIDTH / 2)
    b_xs, b_ys = _corners(bx, by, bc, bs, half_length, half_width)
    dx, dy = avx * dt - bvx * dt, avy * dt - bvy * dt
    intersecting = will_intersect = True
    min_distance = math.inf
    axis_x = axis_y = 0.0
    for which in range(2):
        xs = a_xs if which == 0 else b_xs
        ys = a_ys if which == 0 else b_ys
        for k in range(4):
            after = (k + 1) % 4
            nx = -ys[after] + ys[k]
            ny = xs[after] - xs[k]
            norm = math.sqrt(nx * nx + ny * ny)
            nx, ny = nx / norm, ny / norm
            low_a, high_a = _project(a_xs, a_ys, nx, ny)
            low_b, high_b = _project(b_xs, b_ys, nx, ny)
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
                towards = (_mean(a_xs) - _mean(b_xs)) * nx + (_mean(a_ys) - _mean(b_ys)) * ny
                sign = 1.0 if towards > 0 else -1.0
                axis_x, axis_y = sign * nx, sign * ny
    if will_intersect:
        return intersecting, True, min_distance * axis_x, min_distance * axis_y
    return intersecting, False, 0.0, 0.0


@kernel
def _mean(values):
    """Mean of four numbers, in the order in which NumPy sums four rows."""
    return (((values[0] + values[1]) + values[2]) + values[3]) / 4
