"""Planned routes as a table: what highway-env's `plan_route_to` gives from a lane (highway-env 1.12).

A route is a row of steps (first lane of a road, lane wanted there or -1), ended by (-1, -1). `roads.next_lane` follows
it; `BODY.route` and `BODY.route_step` say which one a body has and how far it has come.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sim.compiled import kernel
from sim.engine.records import nth

MOST_ROUTES = 1024
ROUTE_STEPS = 16
NO_ROUTES = np.full((MOST_ROUTES, ROUTE_STEPS, 2), -1, np.int16)
"""A table of no routes, to be copied."""
DEPTH = 3
"""Roads that many crossings ahead count as connected (`compute_ttc_grid`)."""
MOST_WAYS = 64

LaneKey = tuple[str, str, int]
Steps = list[tuple[int, int]]


def planned(network: Any, keys: Sequence[LaneKey], start: LaneKey, destination: str) -> Steps:
    """The route that a vehicle plans.

    Args:
        network: highway-env `RoadNetwork`.
        keys: Its lanes, `roads.lane_keys`.
        start: The lane that the vehicle is in.
        destination: Node of the network.
    Returns:
        Steps; the lane it is in alone where no way leads to the destination.
    """
    try:
        path = network.shortest_path(start[1], destination)
    except KeyError:
        path = []
    return [
        (keys.index((*start[:2], 0)), start[2]),
        *((keys.index((*road, 0)), -1) for road in itertools.pairwise(path)),
    ]


def table_of(routes: Iterable[Steps]) -> np.ndarray:
    """Routes as one table.

    Args:
        routes: At most `MOST_ROUTES` of fewer than `ROUTE_STEPS` steps.
    Returns:
        int16 (MOST_ROUTES, ROUTE_STEPS, 2)
    """
    table = NO_ROUTES.copy()
    for row, steps in zip(table, routes, strict=False):
        row[: len(steps)] = steps
    return table


def from_every_lane(network: Any, keys: Sequence[LaneKey], destinations: Sequence[str]) -> list[Steps]:
    """Routes from each lane in turn to each destination in turn."""
    return [planned(network, keys, start, destination) for start in keys for destination in destinations]


@kernel
def connected_roads(lanes, p, n, route, step):
    """Roads that count as ahead of lane n for a vehicle with a route (`RoadNetwork.is_connected_road`).

    Where the route goes on from a road it is followed, elsewhere every way is.

    Args:
        lanes: First lane.
        p: Parameters with `routes`.
        n: The lane.
        route: Route number; -1: none.
        step: Present step of the route.
    Returns:
        Bit r: road r is connected.
    """
    if route < 0:
        return nth(lanes, n).connected
    ways = np.empty((MOST_WAYS, 3), np.int64)
    ways[0, 0], ways[0, 1], ways[0, 2] = nth(lanes, n).first, step, DEPTH
    count, found = 1, np.uint64(0)
    while count:
        count -= 1
        first, at, depth = ways[count, 0], ways[count, 1], ways[count, 2]
        lane = nth(lanes, first)
        found |= lane.joined
        if depth == 0:
            continue
        if p.routes[route, at, 0] == first:
            at += 1
        planned_road = p.routes[route, at, 0]
        follows = False
        for k in range(lane.roads):
            follows |= lane.next[k] == planned_road
        for k in range(lane.roads):
            if not follows or lane.next[k] == planned_road:
                ways[count, 0], ways[count, 1], ways[count, 2] = lane.next[k], at + follows, depth - 1
                count += 1
    return found
