"""Engine worlds as real highway-env objects, which is how their scenes are made: one code reads both simulators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.engine import roads
from sim.scene import Scene

if TYPE_CHECKING:
    from sim.engine.highway import HighwayWorld


class Mirror:
    """One highway-env world that takes the shape of engine worlds."""

    def __init__(self, scenario: Any, config: Any) -> None:
        from highway_env.vehicle.behavior import IDMVehicle

        from sim.highway.scenes import lane_shapes, number_bodies
        from sim.highway.schema import to_inner
        from sim.highway.worlds import construct, env_class

        self.scenario = scenario
        self.inner = construct(env_class(scenario.world.env_class), to_inner(config, scenario.world))
        self.inner.reset(seed=0)
        self.network = self.inner.road.network
        self.keys = roads.lane_keys(self.network)
        self.numbers = {key: n for n, key in enumerate(self.keys)}
        self.shapes = lane_shapes(self.inner)
        self._number_bodies = number_bodies
        self._car = IDMVehicle
        self._pool = list(self.inner.road.vehicles[1:])

    def scene(self, world: HighwayWorld, i: int) -> Scene:
        """`sim.highway.scenes.build_scene` of engine world i."""
        from sim.highway.scenes import build_scene

        self.show(world, i)
        time = float(world.state.worlds[i]["steps"]) * float(world.params["period"][0])
        return build_scene(self.inner, self.scenario.world, self.scenario.name, time, self.shapes)

    def show(self, world: HighwayWorld, i: int) -> Any:
        """Give the highway-env world the state of engine world i and return it."""
        w, rows = world.state.worlds[i], world.state.bodies[i]
        road, count = self.inner.road, int(w["vehicles"])
        while len(self._pool) < count - 1:
            self._pool.append(self._car(road, [0.0, 0.0]))
        road.vehicles = [self.inner.vehicle, *self._pool[: count - 1]]
        for k, body in enumerate([*road.vehicles, *road.objects]):
            row = rows[k]
            body.scene_id = k
            body.position = np.array([row["x"], row["y"]])
            body.heading, body.speed = float(row["heading"]), float(row["speed"])
            body.crashed, body.check_collisions = bool(row["crashed"]), bool(row["checks"])
            body.lane_index = self.keys[row["lane"]]
            body.lane = self.network.get_lane(body.lane_index)
            body.impact = np.array([row["push_x"], row["push_y"]]) if row["pushed"] else None
            if k >= count:
                continue
            body.target_lane_index, body.target_speed = self.keys[row["target"]], float(row["target_speed"])
            body.action = {"steering": float(row["steering"]), "acceleration": float(row["acceleration"])}
            if k:
                body.timer, body.DELTA = float(row["timer"]), float(row["delta"])
                body.enable_lane_change = bool(row["changes"])
                body.route = self._route(world, int(row["route"]), int(row["route_step"]))
        self.inner.vehicle.speed_index = int(w["speed_index"])
        self.inner.time = float(w["time"])
        self.inner.steps = int(w["steps"]) * int(world.params["substeps"][0])
        return self.inner

    def _route(self, world: HighwayWorld, route: int, step: int) -> list[tuple] | None:
        if route < 0:
            return None
        steps = world.params["routes"][0, route, step:]
        return [(*self.keys[first][:2], None if lane < 0 else int(lane)) for first, lane in steps if first >= 0]
