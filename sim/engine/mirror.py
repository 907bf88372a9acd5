"""Engine environments as highway-env objects, which is how their scenes are made: one code reads both simulators."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from sim.conflicts import compile_tracks
from sim.engine import roads
from sim.engine.ego_actions import BICYCLE, MDP
from sim.scene import Scene


class Mirror:
    """One highway-env environment that takes the state of engine environments.

    Copies of a batch share it: `lock` is held from `show` until what was shown has been read.
    """

    def __init__(self, scenario: Any, config: Any) -> None:
        """Build the environment of a `HighwayScenario` from its resolved config."""
        from highway_env.vehicle.behavior import IDMVehicle

        from sim.highway.scenes import lane_shapes
        from sim.highway.schema import to_inner
        from sim.highway.upstream import construct, env_class

        self.lock = threading.RLock()
        self.scenario, self._config = scenario, config
        self.inner = construct(env_class(scenario.kind.env_class), to_inner(config, scenario.kind))
        self.inner.reset(seed=0)
        self.network = self.inner.road.network
        self.keys = roads.lane_keys(self.network)
        self.numbers = {key: n for n, key in enumerate(self.keys)}
        self.shapes = lane_shapes(self.inner)
        self.tracks = compile_tracks(self.network)
        self._car = IDMVehicle
        self._pool = [car for car in self.inner.road.vehicles if car is not self.inner.vehicle]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it is built from."""
        return Mirror, (self.scenario, self._config)

    def scene(self, time: float) -> Scene:
        """Scene of what was shown last, `time` seconds into its episode."""
        from sim.highway.scenes import build_scene

        return build_scene(self.inner, self.scenario.kind, self.scenario.name, time, self.shapes, self.tracks)

    def show(self, env: Any, bodies: np.ndarray, params: Any) -> Any:
        """Give the highway-env environment the state of an engine environment and return it.

        Args:
            env: Record of the engine environment, `bodies.ENV`.
            bodies: Its bodies, `bodies.BODY` (B,).
            params: Its parameters, see `road_setup.road_fields`.
        """
        road, count = self.inner.road, int(env["vehicles"])
        while len(self._pool) < count - 1:
            self._pool.append(self._car(road, [0.0, 0.0]))
        cars, place = self._pool[: count - 1], int(env["place"])
        road.vehicles = [*cars[:place], self.inner.vehicle, *cars[place:]]
        for k, body in enumerate([self.inner.vehicle, *cars, *road.objects]):
            self._show_body(body, k, bodies[k])
            if k < count and (k or params["ego_kind"] == MDP):
                self._show_controlled(body, bodies[k], params["routes"])
            if 0 < k < count:
                self._show_traffic(body, bodies[k])
        ego = self.inner.vehicle
        if params["ego_kind"] == MDP:
            ego.speed_index = int(env["speed_index"])
        elif params["ego_kind"] == BICYCLE:
            ego.lateral_speed, ego.yaw_rate = float(env["lateral_speed"]), float(env["yaw_rate"])
        self.inner.time = float(env["time"])
        self.inner.steps = int(env["steps"]) * int(params["substeps"])
        return self.inner

    def _show_body(self, body: Any, k: int, row: Any) -> None:
        body.scene_id = int(row["id"])
        body.position = np.array([row["x"], row["y"]])
        body.heading, body.speed = float(row["heading"]), float(row["speed"])
        body.crashed, body.check_collisions = bool(row["crashed"]), bool(row["checks"])
        body.lane_index = self.keys[row["lane"]]
        body.lane = self.network.get_lane(body.lane_index)
        body.impact = np.array([row["push_x"], row["push_y"]]) if row["pushed"] else None
        if hasattr(body, "action"):
            body.action = {"steering": float(row["steering"]), "acceleration": float(row["acceleration"])}

    def _show_controlled(self, body: Any, row: Any, routes: np.ndarray) -> None:
        body.target_lane_index, body.target_speed = self.keys[row["target"]], float(row["target_speed"])
        body.route = self._route(routes, int(row["route"]), int(row["route_step"]))

    def _show_traffic(self, body: Any, row: Any) -> None:
        body.timer, body.DELTA = float(row["timer"]), float(row["delta"])
        body.enable_lane_change = bool(row["changes"])
        body.is_yielding = bool(row["yielding"])

    def _route(self, routes: np.ndarray, route: int, step: int) -> list[tuple] | None:
        if route < 0:
            return None
        steps = routes[route, step:]
        return [(*self.keys[first][:2], None if lane < 0 else int(lane)) for first, lane in steps if first >= 0]
