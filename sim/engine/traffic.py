"""One simulation step of highway-env's traffic on any road: decisions, motion, contacts (highway-env 1.12).

The order of work is highway-env's, because results depend on it: vehicles decide one after the other, each seeing the
targets that earlier ones have just chosen; then all move; then contacts are taken pair by pair. What differs is how
neighbours and contacts are found (`sim.engine.neighbours`, `sim.engine.contacts`), and that trigonometry whose result
is known is skipped. Both give the same bits. Kernel arguments as in `sim.engine.bodies`.
"""

from __future__ import annotations

import math

import numpy as np

from sim import kinematics
from sim.actions import MetaAction
from sim.compiled import kernel
from sim.engine import bicycle, roads
from sim.engine.bodies import LANE_CHANGE_DELAY, note_change, sort
from sim.engine.contacts import collide, collide_ego
from sim.engine.ego_actions import BICYCLE, MDP, NONE
from sim.engine.neighbours import find_fronts, front_in, rear_of
from sim.engine.records import nth
from sim.engine.regulation import regulate
from sim.sizes import CAR_LENGTH

LEFT, RIGHT, FASTER, SLOWER = (
    int(action) for action in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT, MetaAction.FASTER, MetaAction.SLOWER)
)

# IDMVehicle, MOBIL and ControlledVehicle; what families set differently is among the parameters
ACC_MAX = 6.0
TIME_WANTED = 1.5
LANE_CHANGE_MIN_ACC_GAIN = 0.2
LANE_CHANGE_MAX_BRAKING_IMPOSED = 2.0
KP_A = 1 / 0.6
KP_HEADING = 1 / 0.2
KP_LATERAL = 1 / 0.6


# --- decisions -------------------------------------------------------------------------------------------------------


@kernel
def _desired_gap(body, other, p):
    """Distance (m) that a vehicle aims to keep to a body ahead of it (IDM)."""
    dv = (body.vx - other.vx) * body.cos + (body.vy - other.vy) * body.sin
    return p.distance_wanted + body.speed * TIME_WANTED + body.speed * dv / p.two_root_ab


@kernel
def _free_road(body, lanes, p, delta):
    """IDM acceleration of a vehicle on a free road."""
    target = min(max(body.target_speed, 0.0), nth(lanes, body.lane).speed_limit)
    return p.comfort_acc_max * (1 - math.pow(max(body.speed, 0.0) / abs(kinematics.not_zero(target)), delta))


@kernel
def _behind(a, body, lanes, p, ego, ahead):
    """IDM acceleration of a vehicle whose free one is `a`, behind body number `ahead` (-1: none)."""
    if ahead < 0:
        return a
    lane, other = nth(lanes, body.lane), nth(ego, ahead)
    d = roads.along(lane, other.x, other.y) - roads.along(lane, body.x, body.y)
    ratio = _desired_gap(body, other, p) / kinematics.not_zero(d)
    return a - p.comfort_acc_max * (ratio * ratio)


@kernel
def _mobil(env, ego, lanes, p, i, n, free, here):
    """Whether vehicle i changes to lane n. `free` and `here`: its accelerations on a free road and behind its leader.

    Politeness is 0 in highway-env, so its followers' gains are left out. The tests have no side effects, so the cheap
    one comes first.
    """
    body = nth(ego, i)
    there = _behind(free, body, lanes, p, ego, front_in(env, ego, lanes, i, n))
    wanted = p.routes[body.route, body.route_step, 1] if body.route >= 0 else -1
    if wanted >= 0:
        own = nth(lanes, body.target).id
        if np.sign(nth(lanes, n).id - own) != np.sign(wanted - own) or there < -LANE_CHANGE_MAX_BRAKING_IMPOSED:
            return False
    elif there - here < LANE_CHANGE_MIN_ACC_GAIN:
        return False
    behind = rear_of(env, ego, lanes, i, n)
    if not 0 <= behind < env.vehicles:
        return True
    follower = nth(ego, behind)
    imposed = _behind(_free_road(follower, lanes, p, body.delta), follower, lanes, p, ego, i)
    return not imposed < -LANE_CHANGE_MAX_BRAKING_IMPOSED


@kernel
def _give_up(env, ego, lanes, p, i):
    """A change under way is given up for another vehicle, close ahead, that is changing into the same lane."""
    body = nth(ego, i)
    lane = nth(lanes, body.lane)
    if lane.road != nth(lanes, body.target).road:
        return
    s = roads.along(lane, body.x, body.y)
    listed = env.changers <= env.bodies
    for k in range(env.changers if listed else env.vehicles):
        j = np.int64(nth(ego, k).changer) if listed else k
        other = nth(ego, j)
        if other.target == body.target and other.lane != body.target and j != i:
            d = roads.along(lane, other.x, other.y) - s
            if 0 < d < _desired_gap(body, other, p):
                body.target = body.lane
                return


@kernel
def _consider_changing(env, ego, lanes, p, i, free, here):
    """MOBIL on both sides; where both are good the right one wins."""
    body = nth(ego, i)
    if abs(body.speed) < 1:
        return
    n = body.lane
    own = nth(lanes, n)
    for side in (-1, 1):
        exists = 0 <= own.id + side < own.count and roads.reachable(nth(lanes, n + side), body.x, body.y)
        if exists and _mobil(env, ego, lanes, p, i, n + side, free, here):
            body.target = n + side
            note_change(env, ego, i)


@kernel
def _follow_road(body, lanes, p):
    """At the end of its target lane a vehicle aims at the next one. Returns whether it is there."""
    lane = nth(lanes, body.target)
    if roads.along(lane, body.x, body.y) > lane.length - CAR_LENGTH / 2:
        body.target, body.route_step = roads.next_lane(
            lanes, p, body.target, body.route, body.route_step, body.x, body.y
        )
        return True
    return False


@kernel
def _steer(body, lanes):
    """Steering angle towards the centre of the target lane."""
    lane = nth(lanes, body.target)
    s, lateral = roads.project(lane, body.x, body.y)
    lane_heading = lane.heading
    if lane.kind != roads.STRAIGHT:
        lane_heading = roads.heading_at(lane, s + body.speed * kinematics.TAU_PURSUIT)
    elif lateral == 0.0 and body.heading == 0.0 and lane_heading == 0.0:
        return 0.0  # every term of the general case is a zero
    return kinematics.steering_to(lateral, lane_heading, body.heading, body.speed, KP_LATERAL, KP_HEADING)


@kernel
def _idm_act(env, ego, lanes, p, i):
    """IDMVehicle.act."""
    body = nth(ego, i)
    if body.crashed:
        return
    if _follow_road(body, lanes, p):
        note_change(env, ego, i)
    free = _free_road(body, lanes, p, body.delta)
    a = _behind(free, body, lanes, p, ego, front_in(env, ego, lanes, i, body.lane))
    if body.changes:
        if body.lane != body.target:
            _give_up(env, ego, lanes, p, i)
        elif body.timer > LANE_CHANGE_DELAY:
            body.timer = 0.0
            _consider_changing(env, ego, lanes, p, i, free, a)
    body.steering = _steer(body, lanes)
    if body.lane != body.target:
        a = min(a, _behind(free, body, lanes, p, ego, front_in(env, ego, lanes, i, body.target)))
    body.acceleration = kinematics.clip(a, -ACC_MAX, ACC_MAX)


@kernel
def _ego_act(env, ego, lanes, p, action):
    """MDPVehicle.act: a meta-action or NONE, then the two servos."""
    _follow_road(ego, lanes, p)
    if action in (LEFT, RIGHT):
        lane = nth(lanes, ego.target)
        n = lane.first + min(max(lane.id + (1 if action == RIGHT else -1), 0), lane.count - 1)
        if roads.reachable(nth(lanes, n), ego.x, ego.y):
            ego.target = n
    elif action in (FASTER, SLOWER):
        index = kinematics.speed_index(ego.speed, p.speeds[: p.set_points]) + (1 if action == FASTER else -1)
        env.speed_index = min(max(index, 0), p.set_points - 1)
        ego.target_speed = p.speeds[env.speed_index]
    if action != NONE:
        _follow_road(ego, lanes, p)  # highway-env acts once for the action and once more with all vehicles
    note_change(env, ego, 0)
    ego.steering = _steer(ego, lanes)
    ego.acceleration = KP_A * (ego.target_speed - ego.speed)


# --- motion ----------------------------------------------------------------------------------------------------------


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
    _find_lane(body, lanes)


@kernel
def _roll(body, lanes, dt):
    """`_move` straight along x: every cosine is 1 and every sine 0."""
    body.x += body.speed * dt
    body.speed += body.acceleration * dt
    body.vx, body.vy = body.speed, body.speed * 0.0
    _find_lane(body, lanes)


@kernel
def _find_lane(body, lanes):
    """The closest lane; most of the time plainly the one that the body was in."""
    if not roads.well_inside(nth(lanes, body.lane), body.x, body.y, body.heading):
        body.lane = roads.closest_lane(lanes, body.x, body.y, body.heading, body.lane)


@kernel
def _move_ego(env, ego, lanes, p):
    """The ego that is driven by controls; it has no target lane, so that its own stands there."""
    _limit(ego, p.ego_slowest, p.ego_fastest)
    if p.ego_kind == BICYCLE:
        bicycle.move(env, ego, p.dt)
        _find_lane(ego, lanes)
    else:
        _move(ego, lanes, p.dt)
    ego.target = ego.lane


# --- one simulation step ---------------------------------------------------------------------------------------------


@kernel
def substep(env, ego, lanes, p, action):
    """Road.act and Road.step; `action` is the ego's meta-action, NONE after the first step of a decision.

    An ego of another kind keeps the acceleration and steering that it has.
    """
    find_fronts(env, ego, lanes)
    if p.ego_kind == MDP:
        _ego_act(env, ego, lanes, p, action)
    _flow(env, ego, lanes, p, 1)


@kernel
def substep_without_ego(env, ego, lanes, p):
    """`substep` before the ego is on the road: row 0 is a vehicle like the others."""
    find_fronts(env, ego, lanes)
    _flow(env, ego, lanes, p, 0)


@kernel
def _flow(env, ego, lanes, p, first):
    """What follows the ego's decision, `first` being the first row that drives itself."""
    for i in range(first, env.vehicles):
        _idm_act(env, ego, lanes, p, i)
    if p.regulation > 0:
        env.road_steps += 1
        if env.road_steps % p.regulation == 0:
            regulate(env, ego, lanes, p, first)
    fastest = 0.0
    for i in range(env.vehicles):
        body = nth(ego, i)
        if i < first and p.ego_kind != MDP:
            _move_ego(env, ego, lanes, p)
        else:
            _limit(body, -kinematics.MAX_SPEED, kinematics.MAX_SPEED)
            _move(body, lanes, p.dt)
        fastest = max(fastest, abs(body.speed))
    env.fastest = fastest
    sort(env, ego)
    if p.only_ego_checks:
        collide_ego(env, ego, p.dt)
    else:
        collide(env, ego, p.dt)
