"""Starts that no roll-out reaches: ties, borders, timers at one ulp, odd speeds, stacked cars."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from highway_env.utils import class_from_path
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numba import njit

from lgdrl.parity.pair import Fields, Pair, in_rows
from sim.engine.bodies import settle
from sim.engine.neighbours import front_of, rear_of

ONE_ULP = [float(np.nextafter(1.0, 0.0)), 1.0, float(np.nextafter(1.0, 2.0))]
SPEEDS = st.sampled_from([0.0, 0.5, -3.0, 20.0, 22.5, 25.0, 27.5, 30.0, 40.0, 45.0, -45.0]) | st.floats(-10, 45)
BODIES = st.fixed_dictionaries(
    {
        "x": st.sampled_from([200.0, 200.0, 203.0, 205.0, 205.3852, 210.0, 190.0]) | st.floats(150, 260),
        "lane": st.integers(0, 3),
        "off": st.sampled_from([0.0, 0.0, 2.0, -2.0, 1.0, -1.0, 3.0]) | st.floats(-3, 3),
        "heading": st.sampled_from([0.0, 0.0, 1e-9, -1e-9, 0.1, -0.1]) | st.floats(-0.5, 0.5),
        "speed": SPEEDS,
        "target": st.integers(0, 3),
        "target_speed": st.sampled_from([0.0, 20.0, 30.0]) | st.floats(-5, 45),
        "timer": st.sampled_from([0.5, *ONE_ULP, 3.0]),
        "exponent": st.sampled_from([3.5, 4.0, 4.5]),
        "crashed": st.sampled_from([False, False, False, True]),
    }
)
EGO_SPEEDS = st.sampled_from([20.0, 22.5, 22.5, 25.0, 27.5, 30.0, -3.0, -45.0]) | st.floats(-10, 45)
SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
SCENES = st.tuples(
    st.lists(BODIES, min_size=6, max_size=6),
    EGO_SPEEDS,
    st.sampled_from([0.0, 105.0]),
    st.lists(st.sampled_from([3, 4, 0, 2, 1]), min_size=1, max_size=3),
)
"""Bodies, the ego first; its speed; metres by which all are moved on (to the obstacle of a merge); actions."""
ANYWHERE = st.fixed_dictionaries(
    {
        "lane": st.sampled_from([0, 1, 2, 3, 3, 3]) | st.integers(0, 99),
        "share": st.sampled_from([0.0, 0.5, 0.5, 0.99, 1.0]) | st.floats(-0.3, 1.3),
        "off": st.sampled_from([0.0, 0.0, 2.0, -2.0, 3.0]) | st.floats(-5, 5),
        "heading": st.sampled_from([0.0, 0.0, 1e-9, 0.1]) | st.floats(-3, 3),
        "turns": st.sampled_from([0, 0, 1, -1]),
        "speed": st.sampled_from([0.0, 0.5, 8.0, 16.0, -3.0]) | st.floats(-10, 45),
        "timer": st.sampled_from([0.5, *ONE_ULP, 3.0]),
        "route": st.integers(0, 99),
        "step": st.integers(0, 5),
        "crashed": st.sampled_from([False, False, False, True]),
    }
)
WINDING_SCENES = st.tuples(
    st.lists(ANYWHERE, min_size=7, max_size=7), st.lists(st.sampled_from([3, 4, 0, 2, 1]), min_size=1, max_size=2)
)
"""Bodies anywhere on a network, the ego first, at any step of a route; actions."""


def compare_winding_scenes(pair: Pair, examples: int) -> dict[str, Any]:
    """`compare_scenes` for networks that wind: bodies anywhere on and beside all lanes, with routes."""
    found: dict[str, Any] = {"decisions": 0, "mismatch": None}
    pair.reset(0)

    @settings(SETTINGS, max_examples=examples)
    @given(WINDING_SCENES)
    def check(scene: tuple[list[dict[str, Any]], list[int]]) -> None:
        bodies, actions = scene
        for k, body in enumerate(bodies[: len(pair.env.inner.road.vehicles)]):
            put(pair, k, body)
        copy_in(pair.batch, pair.env.inner)
        for k, body in enumerate(bodies[: len(pair.env.inner.road.vehicles)]):
            give_route(pair, k, body)
        wrong = pair.difference(neighbours(pair))
        for action in actions:
            wrong = wrong or pair.step_inner(action)
            found["decisions"] += 1
        if wrong:
            found["mismatch"] = {"field": wrong, "scene": scene}
        assert not wrong

    with contextlib.suppress(AssertionError):
        check()
    return found


def put(pair: Pair, k: int, body: dict[str, Any]) -> None:
    """Put vehicle k of highway-env somewhere."""
    inner, keys = pair.env.inner, pair.batch.mirror.keys
    vehicle, key = inner.road.vehicles[k], keys[body["lane"] % len(keys)]
    lane = inner.road.network.get_lane(key)
    s = body["share"] * lane.length
    vehicle.position = lane.position(s, body["off"])
    vehicle.heading = lane.heading_at(s) + body["heading"] + body["turns"] * 2 * np.pi
    vehicle.speed = body["speed"]
    vehicle.on_state_update()
    vehicle.target_lane_index = key
    vehicle.crashed, vehicle.impact = body["crashed"] and k > 0, None
    vehicle.action = {"steering": 0.0, "acceleration": 0.0}
    if k == 0:
        vehicle.speed_index = vehicle.speed_to_index(body["speed"])
        vehicle.target_speed = vehicle.index_to_speed(vehicle.speed_index)
    else:
        vehicle.target_speed, vehicle.timer = 16.0, body["timer"]


def give_route(pair: Pair, k: int, body: dict[str, Any]) -> None:
    """Give vehicle k of both environments the same step of the same route; egos have route 0."""
    batch, row = pair.batch, pair.batch.state.bodies[0, k]
    routes = batch.params["routes"][0]
    used = np.flatnonzero(routes[:, 0, 0] >= 0)
    row["route"] = used[body["route"] % len(used)] if k else 0
    row["route_step"] = min(body["step"], int((routes[row["route"], :, 0] >= 0).sum()))
    pair.env.inner.road.vehicles[k].route = batch.mirror._route(routes, int(row["route"]), int(row["route_step"]))


CROSSERS = st.fixed_dictionaries(
    {
        "lane": st.sampled_from([0, 0, 1, 1, 2, 3]) | st.integers(0, 19),
        "share": st.sampled_from([0.5, 0.5, 0.9, 0.99, 1.0, 0.0]) | st.floats(-0.05, 1.05),
        "off": st.sampled_from([0.0, 0.0, 2.0, -2.0, 3.0]) | st.floats(-3, 3),
        "turn": st.sampled_from([0.0, 0.0, 1e-9, np.pi, 0.1]) | st.floats(-0.5, 0.5),
        "speed": st.sampled_from([0.0, 8.0, 8.0, 10.0, -3.0, 45.0]) | st.floats(-2, 12),
        "ahead": st.integers(0, 3),
        "target_speed": st.sampled_from([0.0, 10.0]) | st.floats(-2, 12),
        "timer": st.sampled_from([0.5, *ONE_ULP, 3.0]),
        "exponent": st.sampled_from([3.5, 4.0, 4.5]),
        "crashed": st.sampled_from([False, False, False, True]),
        "yielding": st.booleans(),
        "route": st.integers(1, 15),
        "step": st.sampled_from([0, 0, 1, 2, 3]),
    }
)
CROSSINGS = st.tuples(
    st.lists(CROSSERS, min_size=2, max_size=7),
    st.integers(0, 6),
    st.integers(0, 6),
    st.lists(st.sampled_from([2, 1, 0]), min_size=1, max_size=2),
)
"""Bodies of a crossing, the ego first; its place in the list; simulation steps of the road so far; actions."""


def compare_scenes(pair: Pair, examples: int) -> dict[str, Any]:
    """Start both from scenes that no roll-out reaches: ties, borders, timers at one ulp, odd speeds, stacked cars."""
    found: dict[str, Any] = {"decisions": 0, "mismatch": None}
    regulated = bool(pair.batch.params["regulation"][0])
    pair.reset(0)

    @settings(SETTINGS, max_examples=examples)
    @given(CROSSINGS if regulated else SCENES)
    def check(scene: tuple[list[dict[str, Any]], Any, Any, list[int]]) -> None:
        bodies, first, second, actions = scene
        if regulated:
            inject_crossing(pair, bodies, first, second)
        else:
            inject(pair, [bodies[0] | {"speed": first}, *bodies[1:]], second)
        wrong = pair.difference(neighbours(pair))
        for action in actions:
            wrong = wrong or pair.step_inner(action)
            found["decisions"] += 1
        if wrong:
            found["mismatch"] = {"field": wrong, "scene": scene}
        assert not wrong

    with contextlib.suppress(AssertionError):
        check()
    return found


@njit
def _neighbours(envs: Any, bodies: Any, lanes: Any, out: Any) -> None:
    for i in range(envs[0].vehicles):
        for n in range(lanes.size):
            out[i, n, 0] = front_of(envs[0], bodies[0, 0], lanes[0], i, n)
            out[i, n, 1] = rear_of(envs[0], bodies[0, 0], lanes[0], i, n)


def neighbours(pair: Pair) -> Fields:
    """The bodies ahead of and behind every vehicle on every lane."""
    batch, road = pair.batch, pair.env.inner.road
    vehicles = in_rows(pair.env.inner)
    bodies = [*vehicles, *road.objects]
    number = {id(body): i for i, body in enumerate(bodies)}
    found = np.zeros((len(vehicles), len(batch.lanes), 2), np.int64)
    _neighbours(*batch.state, batch.lanes, found)
    asked = [[road.neighbour_vehicles(vehicle, key) for key in batch.mirror.keys] for vehicle in vehicles]
    theirs = [[[-1 if body is None else number[id(body)] for body in pairs] for pairs in row] for row in asked]
    return {"neighbours": (theirs, found)}


def inject(pair: Pair, bodies: list[dict[str, Any]], shift: float) -> None:
    """Put the bodies onto the main road of both environments, the first one as the ego."""
    inner, mirror = pair.env.inner, pair.batch.mirror
    vehicles = inner.road.vehicles
    for vehicle, body in zip(vehicles, bodies, strict=False):
        main = [key for key in mirror.keys if key[:2] == mirror.keys[0][:2]]
        lane = inner.road.network.get_lane(main[body["lane"] % len(main)])
        vehicle.position = lane.position(body["x"] + shift, body["off"])
        vehicle.heading, vehicle.speed = body["heading"], body["speed"]
        vehicle.on_state_update()
        vehicle.target_lane_index = main[body["target"] % len(main)]
        vehicle.crashed, vehicle.impact = body["crashed"] and vehicle is not inner.vehicle, None
        vehicle.action = {"steering": 0.0, "acceleration": 0.0}
        if vehicle is inner.vehicle:
            vehicle.speed_index = vehicle.speed_to_index(body["speed"])
            vehicle.target_speed = vehicle.index_to_speed(vehicle.speed_index)
        else:
            vehicle.target_speed = body["target_speed"] or 1e-3  # highway-env divides by it in merge
            vehicle.timer, vehicle.DELTA = body["timer"], body["exponent"]
    copy_in(pair.batch, inner)


def inject_crossing(pair: Pair, bodies: list[dict[str, Any]], place: int, steps: int) -> None:
    """Put the bodies onto a crossing in both environments, the first one as the ego, which `place` others precede."""
    inner, mirror, routes = pair.env.inner, pair.batch.mirror, pair.batch.params["routes"][0]
    car_class = class_from_path(inner.config["other_vehicles_type"])
    cars = [inner.vehicle, *(car_class(inner.road, [0.0, 0.0]) for _ in bodies[1:])]
    for row, (vehicle, body) in enumerate(zip(cars, bodies, strict=True)):
        n = body["lane"] % len(mirror.keys)
        lane = mirror.network.get_lane(mirror.keys[n])
        s = body["share"] * lane.length
        vehicle.position = lane.position(s, body["off"])
        vehicle.heading, vehicle.speed = lane.heading_at(s) + body["turn"], body["speed"]
        vehicle.on_state_update()
        vehicle.scene_id, vehicle.crashed, vehicle.impact = row, body["crashed"] and row > 0, None
        vehicle.target_lane_index = mirror.keys[(n + body["ahead"]) % len(mirror.keys)]
        vehicle.route = mirror._route(routes, body["route"] if row else 0, body["step"])
        vehicle.action = {"steering": 0.0, "acceleration": 0.0}
        if row == 0:
            vehicle.speed_index = vehicle.speed_to_index(body["speed"])
            vehicle.target_speed = vehicle.index_to_speed(vehicle.speed_index)
            continue
        vehicle.target_speed, vehicle.timer, vehicle.DELTA = body["target_speed"], body["timer"], body["exponent"]
        vehicle.is_yielding, vehicle.yield_timer, vehicle.color = body["yielding"], 0, None
    inner.road.vehicles = [*cars[1 : place + 1], cars[0], *cars[place + 1 :]]
    inner.road.last_scene_id, inner.road.steps = len(cars) - 1, steps
    copy_in(pair.batch, inner)


def _routes_of(batch: Any) -> dict[tuple[Any, ...], tuple[int, int]]:
    """What is left of a route -> its number and step, of equal ones the first: egos have the first routes."""
    found: dict[tuple[Any, ...], tuple[int, int]] = {}
    table = batch.params["routes"][0]
    for route in np.flatnonzero(table[:, 0, 0] >= 0):
        for step in range(int((table[route, :, 0] >= 0).sum())):
            found.setdefault(tuple(batch.mirror._route(table, route, step)), (int(route), step))
    return found


@njit
def _settle(envs: Any, bodies: Any) -> None:
    settle(envs[0], bodies[0, 0])


def copy_in(batch: Any, inner: Any) -> None:
    """Give engine environment 0 the state of a highway-env environment; random stream and statistics stay."""
    w, rows, number = batch.state.envs[0], batch.state.bodies[0], batch.mirror.numbers
    bodies, routes = [*in_rows(inner), *inner.road.objects], _routes_of(batch)
    w["vehicles"], w["bodies"] = len(inner.road.vehicles), len(bodies)
    w["place"], w["road_steps"] = inner.road.vehicles.index(inner.vehicle), getattr(inner.road, "steps", 0)
    for k, body in enumerate(bodies):
        rows[k] = np.zeros((), rows.dtype)
        row = rows[k]
        row["x"], row["y"] = body.position
        row["heading"], row["speed"] = body.heading, body.speed
        row["cos"], row["sin"] = body.direction
        row["vx"], row["vy"] = body.velocity
        row["crashed"], row["checks"] = body.crashed, body.check_collisions
        row["length"], row["width"] = body.LENGTH, body.WIDTH
        row["lane"] = row["target"] = number[body.lane_index]
        left = tuple(getattr(body, "route", None) or ())
        row["route"], row["route_step"] = routes.get(left, (-1, 0))
        if k >= len(inner.road.vehicles):
            continue
        if body.impact is not None:
            row["push_x"], row["push_y"] = body.impact
            row["pushed"] = 1
        row["target"], row["target_speed"] = number[body.target_lane_index], body.target_speed
        row["steering"], row["acceleration"] = body.action["steering"], body.action["acceleration"]
        if k:
            row["timer"], row["delta"], row["changes"] = body.timer, body.DELTA, body.enable_lane_change
            row["yielding"] = getattr(body, "is_yielding", False)
    w["speed_index"], w["time"] = inner.vehicle.speed_index, inner.time
    _settle(*batch.state)
