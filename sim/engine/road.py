"""One decision of environments on compiled roads, and batches of them: all that does not depend on the family.

A decision takes two passes over the batch. `step_serial` and `step_parallel` here simulate, count and observe; the
family's `score` then sets reward and end. The expensive pass is compiled once for all families. Kernel arguments as in
`sim.engine.bodies`; batches come as arrays with the environment as first axis, lanes and parameters as arrays of one
row (parallel kernels take no bare records).
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from sim import kinematics
from sim.compiled import kernel
from sim.conflicts import new_paths
from sim.engine import episode, roads
from sim.engine.bodies import settle
from sim.engine.ego_actions import ACCELERATION, MDP, STEERING
from sim.engine.episode import RUNNING
from sim.engine.frames import frame_of, front_gap_ttc, in_frame
from sim.engine.observe import observe
from sim.engine.records import nth
from sim.engine.traffic import FASTER, LEFT, NONE, RIGHT, SLOWER, substep
from sim.engine.views import see, see_conflicts
from sim.sizes import LANE_WIDTH


@kernel
def _drive(env, ego, lanes, frames, p, action, acceleration, steering):
    """The simulation steps of one decision, and its statistics."""
    old_lane, old_x, old_y = ego.lane, ego.x, ego.y
    meaning = NONE
    if p.ego_kind == MDP:
        meaning = p.meanings[action]
    else:
        ego.acceleration, ego.steering = acceleration, steering
    for _ in range(p.substeps):
        substep(env, ego, lanes, p, meaning)
        meaning = NONE
    env.time += p.period
    same_road = nth(lanes, ego.lane).road == nth(lanes, old_lane).road
    ttc = math.inf if p.renewed else front_gap_ttc(env, ego, lanes, frames, p, ego.lane)[1]
    episode.count(env, ego.speed, ego.x - old_x, ego.y - old_y, same_road and ego.lane != old_lane, ttc)


@kernel
def _mask(env, ego, lanes, p, out):
    """Legal actions: reachable lanes beside the present one, speeds beside the present set-point; controls always."""
    if p.ego_kind != MDP:
        return
    n = ego.lane
    lane = nth(lanes, n)
    for a in range(p.actions):
        meaning = p.meanings[a]
        legal = True
        if meaning == LEFT:
            legal = lane.id > 0 and roads.reachable(nth(lanes, n - 1), ego.x, ego.y)
        elif meaning == RIGHT:
            legal = lane.id < lane.count - 1 and roads.reachable(nth(lanes, n + 1), ego.x, ego.y)
        elif meaning == FASTER:
            legal = env.speed_index < p.set_points - 1
        elif meaning == SLOWER:
            legal = env.speed_index > 0
        out[a] = legal


@kernel
def _beside(ego, lanes):
    """The lane of the ego's road that leads to its target lane (the target itself if it is one of them)."""
    own = nth(lanes, ego.lane)
    if nth(lanes, ego.target).road == own.road:
        return np.int64(ego.target)
    x, y = roads.position(nth(lanes, ego.target), 0.0, 0.0)
    aim = roads.project(own, x, y)[1]
    best, best_distance = own.first, math.inf
    for n in range(own.first, own.first + own.count):
        lane = nth(lanes, n)
        px, py = roads.position(lane, roads.along(lane, ego.x, ego.y), 0.0)
        far = abs(roads.project(own, px, py)[1] - aim)
        if far < best_distance:
            best, best_distance = n, far
    return best


# --- batches ---------------------------------------------------------------------------------------------------------


@kernel
def _step_one(env, ego, lanes, frames, p, action, controls, obs, mask, rolling):
    if rolling:
        env.reward = 0.0
        if env.outcome != RUNNING:
            return
    _drive(env, ego, lanes, frames, p, action, controls[ACCELERATION], controls[STEERING])
    if not rolling:
        observe(env, ego, lanes, p, obs)
        _mask(env, ego, lanes, p, mask)


@kernel
def step_serial(envs, bodies, lanes, frames, params, actions, controls, obs, masks, rolling):
    """Simulate one decision of every environment. `actions` and `controls`: see `sim.engine.ego_actions`.

    `rolling`: the batch holds copies for a roll-out. Those whose episode has ended stay as they are, with reward 0, and
    none is observed (`obs` and `masks` need only one row then).
    """
    for i in range(actions.size):
        k = 0 if rolling else i
        chosen = actions[i], controls[i]
        _step_one(envs[i], bodies[i, 0], lanes[0], frames[0], params[0], *chosen, obs[k], masks[k], rolling)


@kernel(parallel=True)
def step_parallel(envs, bodies, lanes, frames, params, actions, controls, obs, masks, rolling):
    """`step_serial` on several threads; not for roll-outs."""
    for i in prange(actions.size):
        chosen = actions[i], controls[i]
        _step_one(envs[i], bodies[i, 0], lanes[0], frames[0], params[0], *chosen, obs[i], masks[i], False)


@kernel
def observe_running(envs, bodies, lanes, params, out):
    """Observe the first `len(out)` environments whose episode goes on, for the sake of what observing draws."""
    for i in range(len(out)):
        if envs[i].outcome == RUNNING:
            observe(envs[i], bodies[i, 0], lanes[0], params[0], out[i])


@kernel
def begin(envs, bodies, lanes, frames, params, rows, obs, masks):
    """Start the episodes of `rows`, whose bodies the family has placed."""
    p = params[0]
    for i in rows:
        env, ego = envs[i], bodies[i, 0]
        settle(env, ego)
        if p.ego_kind == MDP:
            env.speed_index = kinematics.speed_index(ego.speed, p.speeds[: p.set_points])
            ego.target_speed = p.speeds[env.speed_index]
        else:
            ego.target_speed = env.lateral_speed = env.yaw_rate = 0.0  # a following car takes 0 for its target speed
        env.range_y = LANE_WIDTH * nth(lanes[0], ego.lane).count
        env.time = 0.0
        episode.begin(env, front_gap_ttc(env, ego, lanes[0], frames[0], p, ego.lane)[1])
        observe(env, ego, lanes[0], p, obs[i])
        _mask(env, ego, lanes[0], p, masks[i])


@kernel
def look_ahead(envs, bodies, lanes, frames, params):
    """The time-to-collision after a decision, where traffic has come and gone since the simulation steps."""
    for i in range(envs.size):
        env, ego = envs[i], bodies[i, 0]
        env.min_ttc = min(env.min_ttc, front_gap_ttc(env, ego, lanes[0], frames[0], params[0], ego.lane)[1])


@kernel
def final(envs, bodies, lanes, frames, params, out):
    """Fill `Branches.final` from the first `len(out)` environments."""
    first = lanes[0]
    for b in range(len(out)):
        env, ego = envs[b], bodies[b, 0]
        own, target = nth(first, ego.lane), _beside(ego, first)
        out[b, 2], out[b, 3], out[b, 4] = own.id, lanes[target].id, ego.speed
        if params[0].area_width > 0.0:
            out[b, 0], out[b, 1] = ego.x, ego.y
            out[b, 2] = out[b, 3] = 0.0  # the strip counts as one lane
        else:
            out[b, 0], out[b, 1] = in_frame(frame_of(ego, first, frames[0]), first, 0, ego.x, ego.y)
        out[b, 5] = front_gap_ttc(env, ego, first, frames[0], params[0], target)[0]


@kernel
def views(envs, bodies, lanes, frames, params, set_points, tracks, points, rows, out):
    """Fill `VIEW` (R,) from the environments `rows`."""
    count = bodies.shape[1]
    columns, places, paths = np.empty((5, count)), np.empty((3, count), np.int64), new_paths()
    for k in range(rows.size):
        env, ego = envs[rows[k]], bodies[rows[k], 0]
        if tracks.size > 0:
            see_conflicts(out[k], env, ego, tracks, points, params[0], columns[:4], places, paths)
        see(out[k], env, ego, lanes[0], frames[0], params[0], set_points, _beside(ego, lanes[0]), columns)
