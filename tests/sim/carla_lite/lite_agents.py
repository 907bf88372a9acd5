"""CARLA's own Python agents, unmodified, drive a car: `python lite_agents.py AGENT MAP PORT [LEAD_KMH]`.

AGENT is basic, cautious, normal or aggressive. The folder with CARLA's package `agents` (PythonAPI/carla of a CARLA
release) must be on the module path. Prints what happened as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import carla
from agents.navigation.basic_agent import BasicAgent
from agents.navigation.behavior_agent import BehaviorAgent

STEP = 0.05
ROUTE = 500.0
"""Metres."""
LONGEST = 3000
"""Frames."""
AHEAD = 30.0
"""Metres from the agent to the car that it meets."""
ASIDE = 0.3
"""Metres between this car and the middle of its lane: CARLA's agents do not see a car exactly in line."""


def main() -> None:
    kind, name, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    lead_speed = float(sys.argv[4]) if len(sys.argv) > 4 else None
    client = carla.Client("127.0.0.1", port, 4)
    client.set_timeout(30.0)
    world = client.load_world(name)
    world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=STEP))
    print(json.dumps(drive(world, kind, lead_speed)))


def drive(world: Any, kind: str, lead_speed: float | None) -> dict[str, Any]:
    """From the first spawn point to a place `ROUTE` metres further on."""
    point = world.get_map().get_spawn_points()[0]
    start = world.get_map().get_waypoint(point.location)
    goal, beyond = (start.next(distance)[-1].transform.location for distance in (ROUTE, 1.5 * ROUTE))
    car, hits = _car(world, "vehicle.tesla.model3", point), []
    sensor = _sensor(world, car)
    sensor.listen(lambda event: hits.append(event.other_actor.type_id))
    drivers = [(car, BasicAgent(car, target_speed=40) if kind == "basic" else BehaviorAgent(car, behavior=kind))]
    if lead_speed is not None:
        there = start.next(AHEAD)[0].transform
        there.location += carla.Location(z=0.1)
        lead = _car(world, "vehicle.audi.tt", there)
        drivers.append((lead, BasicAgent(lead, target_speed=lead_speed, opt_dict={"offset": ASIDE})))
    for (_, driver), place in zip(drivers, (goal, beyond), strict=False):
        driver.set_destination(place)
    log = Log(world, [actor for actor, _ in drivers])
    while not drivers[0][1].done() and log.frames < LONGEST:
        for actor, driver in drivers:
            actor.apply_control(driver.run_step())
        world.tick()
        log.note()
    sensor.stop()
    left = car.get_location().distance(goal)
    return {"arrived": drivers[0][1].done(), "left": left, "collisions": sorted(set(hits)), **log.values()}


class Log:
    """What happens to the first of some cars."""

    def __init__(self, world: Any, cars: list[Any]) -> None:
        self.map, self.car, self.others = world.get_map(), cars[0], cars[1:]
        self.frames = self.off_road = self.ran_red = self.waited = 0
        self.driven, self.fastest, self.nearest = 0.0, 0.0, float("inf")
        self._at, self._in_junction = self.car.get_location(), False
        self._light: Any = None
        """The light ahead, until the car has entered the junction."""

    def note(self) -> None:
        here, speed = self.car.get_location(), self.car.get_velocity().length()
        waypoint = self.map.get_waypoint(here, project_to_road=False)
        self.frames += 1
        self.driven += here.distance(self._at)
        self.fastest = max(self.fastest, speed)
        self.nearest = min([self.nearest, *(here.distance(other.get_location()) for other in self.others)])
        self.off_road += waypoint is None
        self._light = self.car.get_traffic_light() or self._light
        red = self._light is not None and self._light.state == carla.TrafficLightState.Red
        self.waited += red and speed < 0.1
        inside = waypoint is not None and waypoint.is_junction
        self.ran_red += red and inside and not self._in_junction
        self._light = None if inside else self._light
        self._at, self._in_junction = here, inside

    def values(self) -> dict[str, float]:
        names = ("frames", "driven", "fastest", "nearest", "off_road", "ran_red", "waited")
        return {name: round(float(getattr(self, name)), 2) for name in names}


def _car(world: Any, name: str, place: Any) -> Any:
    actor = world.spawn_actor(world.get_blueprint_library().find(name), place)
    world.tick()
    return actor


def _sensor(world: Any, car: Any) -> Any:
    blueprint = world.get_blueprint_library().find("sensor.other.collision")
    return world.spawn_actor(blueprint, carla.Transform(), attach_to=car)


if __name__ == "__main__":
    main()
