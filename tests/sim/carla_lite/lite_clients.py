"""Scripts that use a server through the real CARLA client. Each runs in a process of its own, because a client that
receives a wrong response does not raise: its process dies. `python lite_clients.py NAME PORT`; exit code 0 is success.
`python lite_clients.py traffic_report PORT MAP SEED TICKS` prints a hash and some counts; `python lite_clients.py fork`
runs what it reads (see `lite_servers.Clients`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import carla
import numpy as np
from lite_servers import serve_forks

from sim.carla.session import free_port
from sim.carla_lite.roads import RoadMap

STEP = 0.05
THREADS = 14
"""More than sensors in any script: on small machines the client's streams wait for one another."""
SCRIPTS: dict[str, Callable[[carla.Client], None]] = {}
FILE_SCRIPTS: dict[str, Callable[[carla.Client], None]] = {}
"""For a server whose map is a file, `town.xodr`."""


def script(function: Callable[[carla.Client], None]) -> Callable[[carla.Client], None]:
    SCRIPTS[function.__name__] = function
    return function


def script_of_a_file(function: Callable[[carla.Client], None]) -> Callable[[carla.Client], None]:
    FILE_SCRIPTS[function.__name__] = function
    return function


def connect(port: int, timeout: float = 20.0) -> carla.Client:
    client = carla.Client("127.0.0.1", port, THREADS)
    client.set_timeout(timeout)
    return client


def synchronous(world: carla.World, step: float = STEP) -> carla.World:
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, step
    world.apply_settings(settings)
    return world


def load(client: carla.Client, name: str) -> carla.World:
    return synchronous(client.load_world(name))


def ticks(world: carla.World, count: int) -> carla.WorldSnapshot:
    for _ in range(count):
        world.tick()
    return world.get_snapshot()


def spawn(world: carla.World, name: str, place: Any, parent: carla.Actor | None = None, **attributes: Any) -> Any:
    blueprint = world.get_blueprint_library().find(name)
    for key, value in attributes.items():
        blueprint.set_attribute(key, str(value))
    place = place if isinstance(place, carla.Transform) else carla.Transform(carla.Location(*place))
    return world.spawn_actor(blueprint, place, attach_to=parent)


def car(world: carla.World, point: int = 0, ahead: float = 0.0, name: str = "vehicle.tesla.model3") -> carla.Vehicle:
    """On a spawn point, or some metres ahead; a tick later, because clients see actors in frames only."""
    place = world.get_map().get_spawn_points()[point]
    place.location += ahead * place.get_forward_vector()
    actor = spawn(world, name, place)
    world.tick()
    return actor


@contextmanager
def refused(*words: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, IndexError) as error:
        if not all(word in str(error) for word in words):
            raise
    else:
        raise AssertionError(f"not refused: {words}")


def close(a: float, b: float, within: float = 1e-3) -> bool:
    return math.isclose(a, b, rel_tol=0.0, abs_tol=within)


def apart(a: carla.Location, b: carla.Location) -> float:
    return a.distance(b)


# ------------------------------------------------------------------------------------------------- worlds, time, actors


@script
def a_client_finds_a_server_of_its_own_version_with_maps_to_load(client):
    assert client.get_server_version() == client.get_client_version() == "0.9.16"
    names = client.get_available_maps()
    assert "CarlaLite/Maps/highway" in names
    world = client.get_world()
    assert world.get_map().name in names
    assert client.get_required_files("", False) == []
    for name in ("straight", "CarlaLite/Maps/merge"):
        world = client.load_world(name)
        assert world.get_map().name == "CarlaLite/Maps/" + name.rpartition("/")[2]
    with refused("nowhere", "straight"):
        client.load_world("nowhere")
    assert client.get_world().get_map().name == "CarlaLite/Maps/merge"


@script
def spawn_points_lie_on_driving_lanes_and_face_along_them(client):
    world_map = client.load_world("intersection").get_map()
    points = world_map.get_spawn_points()
    assert len(points) > 20
    for point in points:
        waypoint = world_map.get_waypoint(point.location)
        assert waypoint.lane_type == carla.LaneType.Driving
        assert abs((waypoint.transform.location - point.location).dot(point.get_right_vector())) < 0.05
        turn = waypoint.transform.rotation.yaw - point.rotation.yaw
        assert math.cos(math.radians(turn)) > 0.999
        assert 0.0 < point.location.z - waypoint.transform.location.z < 1.0


@script
def any_opendrive_text_becomes_a_world_and_broken_text_is_refused(client):
    text = client.load_world("curve").get_map().to_opendrive()
    client.load_world("straight")
    with refused("OpenDRIVE"):
        client.generate_opendrive_world("<OpenDRIVE>")
    assert client.get_world().get_map().name == "CarlaLite/Maps/straight"
    world = client.generate_opendrive_world(text, carla.OpendriveGenerationParameters(2.0, 50.0, 1.0, 0.6, True, True))
    assert world.get_map().name == "CarlaLite/Maps/OpenDriveMap"
    assert world.get_map().to_opendrive() == text
    assert len(world.get_actors().filter("vehicle.*")) == 0
    assert client.reload_world().get_map().name == "CarlaLite/Maps/OpenDriveMap"


@script
def settings_are_kept_and_reset_by_a_load_unless_asked_otherwise(client):
    world = load(client, "straight")
    settings = world.get_settings()
    assert settings.synchronous_mode
    assert close(settings.fixed_delta_seconds, STEP, 1e-6)
    settings.no_rendering_mode, settings.max_substeps = True, 7
    world.apply_settings(settings)
    settings = world.get_settings()
    assert (settings.no_rendering_mode, settings.max_substeps) == (True, 7)
    assert client.load_world("straight", False).get_settings() == settings
    fresh = client.load_world("straight").get_settings()
    assert (fresh.synchronous_mode, fresh.fixed_delta_seconds) == (False, None)


@script
def in_synchronous_mode_time_stands_still_between_ticks(client):
    world = load(client, "straight")
    first = world.tick()
    before = world.get_snapshot()
    time.sleep(0.2)
    assert world.get_snapshot().frame == before.frame == first
    assert world.tick() == first + 1
    after = world.get_snapshot()
    assert after.frame == first + 1
    assert close(after.timestamp.delta_seconds, STEP, 1e-6)
    assert close(after.timestamp.elapsed_seconds - before.timestamp.elapsed_seconds, STEP, 1e-6)
    synchronous(world, 0.1)
    assert close(ticks(world, 1).timestamp.delta_seconds, 0.1, 1e-6)


@script
def in_asynchronous_mode_frames_come_by_themselves(client):
    world = client.load_world("straight")
    started, frames = time.monotonic(), []
    key = world.on_tick(lambda snapshot: frames.append(snapshot.frame))
    first = world.wait_for_tick().frame
    while len(frames) < 10:
        world.wait_for_tick()
    world.remove_on_tick(key)
    assert time.monotonic() - started < 10.0
    assert frames[-1] > first
    assert sorted(set(frames)) == list(range(frames[0], frames[-1] + 1))


@script
def every_blueprint_can_be_spawned_and_keeps_its_attributes(client):
    world = load(client, "straight")
    library = world.get_blueprint_library()
    assert len(library.filter("vehicle.*")) >= 35
    assert len(library.filter("walker.pedestrian.*")) >= 10
    for name in ("tesla.model3", "lincoln.mkz_2020", "audi.tt", "carlamotors.carlacola", "diamondback.century"):
        assert library.find(f"vehicle.{name}").has_attribute("role_name")
    host = car(world, 10)
    spots = ((40.0 + 15.0 * k, 60.0 + 15.0 * row, 0.5) for row in range(100) for k in range(20))
    unserved = [f"sensor.camera.{name}" for name in ("optical_flow", "normals", "dvs", "cosmos_visualization")]
    unserved += ["sensor.other.v2x", "sensor.other.v2x_custom"]
    for name in unserved:
        with refused("does not serve", name):
            spawn(world, name, carla.Transform(), host)
    for blueprint in (found for found in library if found.id not in unserved):
        sensor = blueprint.id.startswith(("sensor.", "controller."))
        actor = spawn(world, blueprint.id, carla.Transform() if sensor else next(spots), host if sensor else None)
        assert actor.type_id == blueprint.id
        assert (actor.parent.id == host.id) if sensor else actor.parent is None
        assert actor.attributes.get("role_name") == blueprint.get_attribute("role_name").as_str()
    world.tick()
    assert len(world.get_actors()) == len(library) - len(unserved) + 2  # and the host and the spectator
    model3 = world.get_actors().filter("vehicle.tesla.model3")[0]
    assert close(model3.bounding_box.extent.x, 2.396)
    assert close(model3.bounding_box.location.z, model3.bounding_box.extent.z)
    assert library.find("vehicle.diamondback.century").get_attribute("number_of_wheels").as_int() == 2
    assert library.find("vehicle.carlamotors.carlacola").get_attribute("base_type").as_str() == "truck"


@script
def a_control_that_does_not_stick_holds_for_one_frame(client):
    world = load(client, "straight")
    points = world.get_map().get_spawn_points()
    sticky = spawn(world, "vehicle.audi.tt", points[0])
    loose = spawn(world, "vehicle.audi.tt", points[30], sticky_control="false")
    held = spawn(world, "vehicle.audi.tt", points[60], sticky_control="false")
    world.tick()
    go = carla.VehicleControl(throttle=1.0)
    for actor in (sticky, loose):
        actor.apply_control(go)
    for _ in range(40):
        held.apply_control(go)
        world.tick()
    assert sticky.get_control().throttle == held.get_control().throttle == 1.0
    assert loose.get_control().throttle == 0.0
    assert sticky.get_velocity().length() > 3.0
    assert held.get_velocity().length() > 3.0
    assert loose.get_velocity().length() < 1.0
    loose.destroy()
    ticks(world, 2)


@script
def attributes_travel_with_the_actor_and_bad_ones_are_refused(client):
    world = load(client, "straight")
    hero = spawn(world, "vehicle.audi.tt", world.get_map().get_spawn_points()[0], role_name="hero", color="1,2,3")
    world.tick()
    seen = world.get_actor(hero.id)
    assert (seen.attributes["role_name"], seen.attributes["color"]) == ("hero", "1,2,3")
    with refused("image_size_x", "0"):
        spawn(world, "sensor.camera.rgb", (0, 0, 5), image_size_x=0)
    with refused("channels", "16.5"):
        spawn(world, "sensor.lidar.ray_cast", (0, 0, 5), channels=16.5)
    lidar = spawn(world, "sensor.lidar.ray_cast", (0, 0, 5), channels=16.0)
    assert lidar.attributes["channels"] == "16"
    range_ = world.get_blueprint_library().find(lidar.type_id).get_attribute("range")
    assert range_.recommended_values == [str(range_.as_float())]  # scripts take the first
    with refused("fov"):
        spawn(world, "sensor.camera.rgb", (0, 0, 5), fov=1000)
    with refused("not found"):
        world.get_blueprint_library().find("vehicle.flying.saucer")


@script
def a_place_that_is_taken_is_refused_until_it_is_free(client):
    world = load(client, "straight")
    first = car(world)
    with refused("Spawn failed because of collision at spawn position"):
        car(world)
    place = world.get_map().get_spawn_points()[0]
    blueprint = world.get_blueprint_library().find("vehicle.audi.tt")
    assert world.try_spawn_actor(blueprint, place) is None
    first.destroy()
    assert world.try_spawn_actor(blueprint, place) is not None


@script
def a_destroyed_actor_is_gone_with_all_that_was_attached(client):
    world = load(client, "straight")
    host = car(world)
    sensors = [spawn(world, f"sensor.other.{kind}", carla.Transform(), host) for kind in ("imu", "gnss", "collision")]
    for sensor in sensors:
        sensor.listen(lambda _: None)
    ticks(world, 3)
    count = len(world.get_actors())
    assert host.destroy()
    ticks(world, 2)
    assert len(world.get_actors()) == count - 4
    assert not host.is_alive
    with refused("destroyed"):
        host.get_physics_control()
    ghost = carla.command.ApplyVehicleControl(host.id, carla.VehicleControl())
    assert "does not exist" in client.apply_batch_sync([ghost])[0].error
    ticks(world, 2)


@script
def batches_spawn_act_on_what_they_spawned_and_report_each_failure(client):
    world = load(client, "straight")
    points = world.get_map().get_spawn_points()[:4]
    blueprint = world.get_blueprint_library().find("vehicle.audi.tt")
    full = carla.VehicleControl(throttle=1.0)
    future = carla.command.ApplyVehicleControl(carla.command.FutureActor, full)
    commands = [carla.command.SpawnActor(blueprint, point).then(future) for point in (*points, points[0])]
    answers = client.apply_batch_sync(commands, True)
    assert [bool(answer.error) for answer in answers] == [False] * 4 + [True]
    assert "collision" in answers[-1].error
    ticks(world, 20)
    actors = world.get_actors([answer.actor_id for answer in answers[:4]])
    assert all(actor.get_velocity().length() > 3.0 for actor in actors)
    brake = carla.VehicleControl(brake=1.0)
    client.apply_batch([carla.command.ApplyVehicleControl(actor.id, brake) for actor in actors])
    ticks(world, 40)
    assert all(actor.get_velocity().length() == 0.0 for actor in actors)
    first = actors[0]
    moves = [
        carla.command.ApplyTransform(first, carla.Transform(carla.Location(50, 100, 0), carla.Rotation(yaw=90))),
        carla.command.ApplyTargetVelocity(first, carla.Vector3D(0, 5, 0)),
        carla.command.SetVehicleLightState(first, carla.VehicleLightState.Brake),
        carla.command.SetSimulatePhysics(first, True),
        carla.command.SetEnableGravity(first, True),
        carla.command.ApplyImpulse(first, carla.Vector3D(0, 100, 0)),
        carla.command.ApplyForce(first, carla.Vector3D(0, 100, 0)),
        carla.command.ApplyAngularImpulse(first, carla.Vector3D(0, 0, 1)),
        carla.command.ApplyTorque(first, carla.Vector3D(0, 0, 1)),
        carla.command.ApplyTargetAngularVelocity(first, carla.Vector3D(0, 0, 0)),
        carla.command.ApplyVehicleAckermannControl(first, carla.VehicleAckermannControl(speed=5.0)),
        carla.command.ApplyVehiclePhysicsControl(first, first.get_physics_control()),
    ]
    assert [answer.error for answer in client.apply_batch_sync(moves)] == [""] * len(moves)
    ticks(world, 1)
    assert apart(first.get_location(), carla.Location(50, 100, 0)) < 0.6
    gone = [carla.command.DestroyActor(actor) for actor in actors]
    assert not any(answer.error for answer in client.apply_batch_sync(gone))
    assert all(answer.error for answer in client.apply_batch_sync(gone))


@script
def two_clients_see_the_same_world(client):
    world = load(client, "straight")
    other = connect(PORT)
    hero = car(world)
    hero.apply_control(carla.VehicleControl(throttle=1.0))
    frame, same = ticks(world, 10).frame, other.get_world()
    deadline = time.monotonic() + 10.0
    while same.get_snapshot().frame < frame:  # in synchronous mode a client does not wait for its first frame
        assert time.monotonic() < deadline
        time.sleep(0.005)
    theirs = same.get_actor(hero.id)
    assert apart(theirs.get_location(), hero.get_location()) < 1e-3
    assert theirs.get_velocity().length() > 1.0
    client.load_world("curve")
    assert other.get_world().get_map().name == "CarlaLite/Maps/curve"


# -------------------------------------------------------------------------------------------------------------- motion


@script
def a_car_drives_brakes_and_reverses_and_reports_its_control(client):
    world = load(client, "straight")
    hero = car(world)
    start = hero.get_transform()
    hero.apply_control(carla.VehicleControl(throttle=0.75, steer=0.0, gear=1))
    ticks(world, 60)
    assert 5.0 < hero.get_velocity().length() < 20.0
    assert hero.get_acceleration().length() > 1.0
    told = hero.get_control()
    assert (told.throttle, told.steer, told.brake, told.reverse, told.hand_brake) == (0.75, 0.0, 0.0, False, False)
    assert (hero.get_location() - start.location).dot(start.get_forward_vector()) > 10.0
    hero.apply_control(carla.VehicleControl(brake=1.0))
    ticks(world, 60)
    assert hero.get_velocity().length() == 0.0
    stopped = hero.get_location()
    hero.apply_control(carla.VehicleControl(throttle=0.5, reverse=True))
    ticks(world, 40)
    assert hero.get_control().reverse
    assert (hero.get_location() - stopped).dot(start.get_forward_vector()) < -2.0
    hero.apply_control(carla.VehicleControl(throttle=0.5, steer=0.5))
    ticks(world, 80)
    assert hero.get_transform().get_forward_vector().dot(start.get_right_vector()) > 0.1  # that is clockwise
    assert abs(hero.get_location().z - start.location.z) < 1.0
    snapshot = world.get_snapshot().find(hero.id)
    assert snapshot.get_transform() == hero.get_transform()
    assert snapshot.get_angular_velocity().z > 1.0


@script
def actors_are_where_they_are_put_and_as_fast_as_they_are_set(client):
    world = load(client, "straight")
    hero = car(world)
    place = carla.Transform(carla.Location(33.0, 80.0, 0.0), carla.Rotation(yaw=45.0))
    hero.set_transform(place)
    ticks(world, 1)
    assert apart(hero.get_location(), place.location) < 1e-3
    assert close(hero.get_transform().rotation.yaw, 45.0)
    forward = place.get_forward_vector()
    hero.set_target_velocity(10.0 * forward)
    ticks(world, 1)
    assert close(hero.get_velocity().length(), 10.0, 0.1)
    hero.enable_constant_velocity(carla.Vector3D(7.0, 0, 0))
    ticks(world, 40)
    assert close(hero.get_velocity().length(), 7.0, 1e-3)
    hero.disable_constant_velocity()
    hero.apply_control(carla.VehicleControl(brake=1.0))
    ticks(world, 40)
    assert hero.get_velocity().length() == 0.0
    mass = hero.get_physics_control().mass
    hero.add_impulse(mass * 3.0 * forward)
    ticks(world, 1)
    assert 2.0 < hero.get_velocity().length() < 3.1
    hero.set_target_angular_velocity(carla.Vector3D(0, 0, 30.0))
    hero.set_simulate_physics(False)
    still = hero.get_transform()
    ticks(world, 10)
    assert apart(hero.get_location(), still.location) < 0.2
    hero.set_location(carla.Location(0, 90, 3))
    ticks(world, 10)
    assert close(hero.get_location().z, 3.0)
    hero.set_simulate_physics(True)
    ticks(world, 40)
    assert close(hero.get_location().z, 0.0)
    hero.set_enable_gravity(False)
    hero.set_location(carla.Location(0, 90, 3))
    ticks(world, 10)
    assert close(hero.get_location().z, 3.0)


@script
def vehicles_have_lights_physics_and_gauges(client):
    world = load(client, "straight")
    hero = car(world)
    lights = carla.VehicleLightState(carla.VehicleLightState.LeftBlinker | carla.VehicleLightState.LowBeam)
    hero.set_light_state(lights)
    assert hero.get_light_state() == lights
    assert world.get_vehicles_light_states()[hero.id] == lights
    control = hero.get_physics_control()
    assert len(control.wheels) == 4
    assert close(control.mass, 1850.0)
    middle = control.wheels[0].position + control.wheels[1].position + control.wheels[2].position
    middle += control.wheels[3].position
    assert apart(carla.Location(middle / 400.0), hero.get_location() + carla.Location(z=0.35)) < 1.0
    control.mass, control.max_rpm = 1234.0, 4321.0
    hero.apply_physics_control(control)
    assert (hero.get_physics_control().mass, hero.get_physics_control().max_rpm) == (1234.0, 4321.0)
    hero.apply_ackermann_control(carla.VehicleAckermannControl(steer=0.0, speed=9.0))
    ticks(world, 150)
    assert close(hero.get_velocity().length(), 9.0, 0.6)
    assert close(hero.get_telemetry_data().speed, hero.get_velocity().length(), 0.1)
    hero.apply_ackermann_control(carla.VehicleAckermannControl(steer=0.2, speed=4.0))
    ticks(world, 60)
    assert hero.get_wheel_steer_angle(carla.VehicleWheelLocation.FL_Wheel) > 5.0
    assert hero.get_wheel_steer_angle(carla.VehicleWheelLocation.BL_Wheel) == 0.0
    assert hero.get_failure_state() == carla.VehicleFailureState.NONE
    settings = hero.get_ackermann_controller_settings()
    hero.apply_ackermann_controller_settings(settings)
    hero.open_door(carla.VehicleDoor.All)
    hero.close_door(carla.VehicleDoor.All)
    hero.set_wheel_steer_direction(carla.VehicleWheelLocation.FL_Wheel, 10.0)
    hero.show_debug_telemetry(False)
    hero.set_collisions(False)
    hero.enable_carsim("")
    hero.restore_physx_physics()
    assert list(hero.get_bone_names()) == list(hero.get_socket_names()) == []
    with refused("boxes only"):
        hero.get_component_world_transform("Body")
    ticks(world, 2)


@script
def walkers_walk_straight_and_their_ai_has_no_navigation_mesh(client):
    world = load(client, "straight")
    walker = spawn(world, "walker.pedestrian.0001", (20.0, 30.0, 1.0))
    world.tick()
    assert close(walker.get_location().z, walker.bounding_box.extent.z, 0.01)
    walker.apply_control(carla.WalkerControl(carla.Vector3D(0.0, 1.0, 0.0), 2.0))
    start = walker.get_location()
    ticks(world, 20)
    assert apart(walker.get_location(), start + carla.Location(y=2.0)) < 0.01
    assert close(walker.get_transform().rotation.yaw, 90.0)
    assert close(walker.get_control().speed, 2.0)
    assert close(walker.get_velocity().y, 2.0)
    ai = spawn(world, "controller.ai.walker", carla.Transform(), walker)
    world.tick()
    ai.start()
    ai.go_to_location(carla.Location(0, 0, 0))
    ai.set_max_speed(1.0)
    ticks(world, 5)
    ai.stop()
    assert world.get_random_location_from_navigation() is None
    with refused("boxes only"):
        walker.get_bones()
    walker.set_bones(carla.WalkerBoneControlIn())
    walker.blend_pose(0.5)
    walker.apply_control(carla.WalkerControl(carla.Vector3D(1.0, 0.0, 0.0), 0.0))
    here = ticks(world, 1).find(walker.id).get_transform().location
    ticks(world, 10)
    assert apart(walker.get_location(), here) < 1e-3


# ------------------------------------------------------------------------------------------------------------- sensors


def listening(world: carla.World, host: carla.Actor, name: str, place: tuple = (0, 0, 1), **attributes: Any) -> list:
    """What a new sensor sends, as it arrives."""
    heard: list = []
    sensor = spawn(world, name, carla.Transform(carla.Location(*place)), host, **attributes)
    sensor.listen(heard.append)
    heard_by[sensor.id] = sensor
    return heard


heard_by: dict[int, carla.Sensor] = {}


def arrived(heard: list, frame: int, patience: float = 10.0) -> None:
    """Wait until a sensor's thread has delivered this frame."""
    deadline = time.monotonic() + patience
    while not heard or heard[-1].frame < frame:
        assert time.monotonic() < deadline, f"no data of frame {frame}"
        time.sleep(0.005)


@script
def both_cars_of_a_collision_are_reported(client):
    world = load(client, "straight")
    hero, other = car(world), car(world, ahead=20.0)
    ours = listening(world, hero, "sensor.other.collision")
    theirs = listening(world, other, "sensor.other.collision")
    hero.set_target_velocity(15.0 * hero.get_transform().get_forward_vector())
    hero.apply_control(carla.VehicleControl(throttle=1.0))
    for _ in range(60):
        frame = world.tick()
        if other.get_velocity().length() > 1.0:
            break
    arrived(ours, frame)
    arrived(theirs, frame)
    hit, got = ours[0], theirs[0]
    assert (hit.frame, hit.actor.id, hit.other_actor.id) == (frame, hero.id, other.id)
    assert (got.frame, got.actor.id, got.other_actor.id) == (frame, other.id, hero.id)
    ahead = hero.get_transform().get_forward_vector()
    assert hit.normal_impulse.dot(ahead) < -1000.0
    assert close(hit.normal_impulse.dot(ahead), -got.normal_impulse.dot(ahead), 1.0)
    hero.apply_control(carla.VehicleControl(brake=1.0))
    cone = spawn(world, "static.prop.streetbarrier", carla.Transform(hero.get_location() + 12.0 * ahead))
    hero.set_target_velocity(15.0 * ahead)
    other.set_location(carla.Location(0, 300, 0))
    frame = ticks(world, 30).frame
    assert any(event.other_actor.id == cone.id for event in ours)
    assert apart(cone.get_location(), hero.get_location()) > 2.0


@script
def crossing_a_line_is_noticed_by_the_client(client):
    world = load(client, "highway")
    hero = car(world)
    crossed = listening(world, hero, "sensor.other.lane_invasion")
    hero.set_target_velocity(15.0 * hero.get_transform().get_forward_vector())
    hero.apply_control(carla.VehicleControl(throttle=0.5, steer=0.02))
    frame = ticks(world, 60).frame
    arrived(crossed, frame - 60)
    kinds = [marking.type for event in crossed for marking in event.crossed_lane_markings]
    assert carla.LaneMarkingType.Broken in kinds


@script
def imu_and_gnss_agree_with_the_world(client):
    world = load(client, "straight")
    hero = car(world)
    imu = listening(world, hero, "sensor.other.imu", (0, 0, 0))
    gnss = listening(world, hero, "sensor.other.gnss", (1.0, 0.5, 2.0))
    hero.apply_control(carla.VehicleControl(throttle=0.6))
    frame = ticks(world, 40).frame
    arrived(imu, frame)
    arrived(gnss, frame)
    assert [data.frame for data in imu] == list(range(frame - 39, frame + 1))
    last, transform = imu[-1], hero.get_transform()
    assert close(last.accelerometer.x, hero.get_acceleration().dot(transform.get_forward_vector()), 0.01)
    assert close(last.accelerometer.z, 9.81, 0.01)
    assert close(last.compass % (2 * math.pi), math.radians(transform.rotation.yaw + 90.0) % (2 * math.pi), 0.01)
    fix = gnss[-1]
    expected = world.get_map().transform_to_geolocation(transform.transform(carla.Location(1.0, 0.5, 2.0)))
    assert close(fix.latitude, expected.latitude, 1e-7)
    assert close(fix.longitude, expected.longitude, 1e-7)
    assert close(fix.altitude, expected.altitude, 0.01)
    hero.apply_control(carla.VehicleControl(throttle=0.6, steer=0.3))
    frame = ticks(world, 20).frame
    arrived(imu, frame)
    assert close(math.degrees(imu[-1].gyroscope.z), hero.get_angular_velocity().z, 0.1)


@script
def noise_is_drawn_anew_in_every_frame_and_again_in_every_run(client):
    runs = []
    for _ in range(2):
        world = load(client, "straight")
        imu = listening(world, car(world), "sensor.other.imu", noise_accel_stddev_x=0.5, noise_seed=3)
        frame = ticks(world, 10).frame
        arrived(imu, frame)
        runs.append([data.accelerometer.x for data in imu])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 10


@script
def sensors_tick_at_their_own_pace_and_stop_on_request(client):
    world = load(client, "straight")
    hero = car(world)
    fast, slow = (listening(world, hero, "sensor.other.imu", sensor_tick=tick) for tick in (0.0, 0.2))
    frame = ticks(world, 40).frame
    arrived(fast, frame)
    assert len(fast) == 40
    assert len(slow) == 10
    assert {b.frame - a.frame for a, b in pairwise(slow)} == {4}
    sensor = next(iter(heard_by.values()))
    assert sensor.is_listening()
    sensor.stop()
    ticks(world, 10)
    time.sleep(0.2)
    assert len(fast) <= 41
    sensor.listen(fast.append)
    count, frame = len(fast), ticks(world, 10).frame
    arrived(fast, frame)
    assert len(fast) >= count + 9


@script
def pictures_have_the_size_that_was_asked_for_and_show_the_car_ahead(client):
    world = load(client, "straight")
    hero = car(world)
    size = dict(image_size_x=160, image_size_y=90, fov=90)
    there = (3.0, 0.0, 1.0)
    kinds = ("rgb", "depth", "semantic_segmentation", "instance_segmentation")
    heard = {kind: listening(world, hero, f"sensor.camera.{kind}", there, **size) for kind in kinds}
    middle = (45 + 2) * 160 + 80
    empty = ticks(world, 1).frame
    other = car(world, ahead=20.0)
    full = ticks(world, 1).frame
    for images in heard.values():
        arrived(images, full)
        assert [image.frame for image in images] == list(range(empty, full + 1))
        assert all((image.width, image.height, image.fov) == (160, 90, 90.0) for image in images)
        assert all(len(image.raw_data) == 160 * 90 * 4 for image in images)
        assert bytes(images[0].raw_data) != bytes(images[-1].raw_data)
    bumper = 20.0 - other.bounding_box.extent.x - 3.0
    for images in heard.values():
        del images[1:-1]
    depths = [image.raw_data for image in heard["depth"]]
    metres = [sum(data[4 * middle + 2 - k] << 8 * k for k in range(3)) / (2**24 - 1) * 1000 for data in depths]
    assert metres[0] > bumper + 1.0
    assert close(metres[1], bumper, 0.05)
    tags = [image.raw_data[4 * middle + 2] for image in heard["semantic_segmentation"]]
    assert tags == [int(carla.CityObjectLabel.Roads), int(carla.CityObjectLabel.Car)]
    blue, green, red, _ = heard["instance_segmentation"][1].raw_data[4 * middle : 4 * middle + 4]
    assert (red, green + 256 * blue) == (int(carla.CityObjectLabel.Car), other.id)
    heard["semantic_segmentation"][1].convert(carla.ColorConverter.CityScapesPalette)
    heard["depth"][1].convert(carla.ColorConverter.LogarithmicDepth)


@script
def lidars_radar_and_obstacle_sensor_meet_the_car_ahead(client):
    world = load(client, "straight")
    hero = car(world)
    other = car(world, ahead=15.0)
    gap = 15.0 - other.bounding_box.extent.x
    beam = dict(channels=1, upper_fov=0, lower_fov=0, range=50, points_per_second=7200, rotation_frequency=20)
    lidar = listening(world, hero, "sensor.lidar.ray_cast", **beam)
    named = listening(world, hero, "sensor.lidar.ray_cast_semantic", **beam)
    down = listening(world, hero, "sensor.lidar.ray_cast_semantic", channels=16, range=60)
    radar = listening(world, hero, "sensor.other.radar", horizontal_fov=4, vertical_fov=2)
    ahead = listening(world, hero, "sensor.other.obstacle", distance=30)
    other.set_target_velocity(-3.0 * hero.get_transform().get_forward_vector())
    frame = ticks(world, 1).frame
    for heard in (lidar, named, down, radar, ahead):
        arrived(heard, frame)
    moved = 0.15
    points = [point.point for point in lidar[0]]
    assert close(min(point.x for point in points), gap - moved, 0.1)
    assert all(abs(point.y) < 1.5 for point in points)
    assert lidar[0].channels == 1
    assert lidar[0].get_point_count(0) == len(lidar[0])
    assert {(point.object_idx, point.object_tag) for point in named[0]} == {(other.id, int(carla.CityObjectLabel.Car))}
    road, grass = int(carla.CityObjectLabel.Roads), int(carla.CityObjectLabel.Terrain)
    assert {road, grass} <= {point.object_tag for point in down[0]}
    seen = list(radar[0])
    assert close(sum(target.depth for target in seen) / len(seen), gap - moved, 0.2)
    assert all(close(target.velocity, -3.0, 0.2) for target in seen)
    assert ahead[0].other_actor.id == other.id
    assert close(ahead[0].distance, gap - moved - 0.5, 0.1)  # its line is half a metre thick


@script
def sensors_follow_what_they_are_attached_to(client):
    world = load(client, "curve")
    hero = car(world, 3)
    mount = carla.Transform(carla.Location(1.0, -2.0, 3.0), carla.Rotation(yaw=30.0, pitch=10.0))
    sensor = spawn(world, "sensor.camera.rgb", mount, hero)
    loose = spawn(world, "sensor.other.gnss", (5.0, 6.0, 7.0))
    hero.apply_control(carla.VehicleControl(throttle=0.8, steer=0.1))
    ticks(world, 30)
    expected = hero.get_transform().transform(mount.location)
    assert apart(sensor.get_location(), expected) < 1e-3
    assert close(sensor.get_transform().rotation.yaw, hero.get_transform().rotation.yaw + 30.0, 1e-3)
    assert apart(loose.get_location(), carla.Location(5.0, 6.0, 7.0)) < 1e-3


# ------------------------------------------------------------------------------------------------------- traffic lights


def lights_of(world: carla.World) -> list[carla.TrafficLight]:
    return list(world.get_actors().filter("traffic.traffic_light"))


@script
def lights_take_turns_and_can_be_set(client):
    world = load(client, "intersection")
    lights = lights_of(world)
    assert len(lights) == 4
    states = defaultdict(set)
    red, green, yellow = carla.TrafficLightState.Red, carla.TrafficLightState.Green, carla.TrafficLightState.Yellow
    for light in lights:
        assert len(light.get_group_traffic_lights()) == 4
        light.set_green_time(2.0)
        light.set_yellow_time(1.0)
        light.set_red_time(0.5)
    world.reset_all_traffic_lights()
    for _ in range(200):
        world.tick()
        showing = [light.get_state() for light in lights]
        for light, state in zip(lights, showing, strict=True):
            states[light.id].add(state)
        assert sum(state == green for state in showing) in (0, 2)
    assert all(seen == {red, green, yellow} for seen in states.values())
    assert (lights[0].get_green_time(), lights[0].get_yellow_time(), lights[0].get_red_time()) == (2.0, 1.0, 0.5)
    world.freeze_all_traffic_lights(True)
    ticks(world, 1)
    before = [light.get_state() for light in lights]
    ticks(world, 100)
    assert [light.get_state() for light in lights] == before
    assert all(light.is_frozen() for light in lights)
    lights[0].set_state(green)
    ticks(world, 1)
    assert lights[0].state == green
    lights[0].freeze(False)
    lights[0].reset_group()
    ticks(world, 2)
    assert not lights[0].is_frozen()


@script
def a_car_in_a_lights_trigger_has_its_state(client):
    world = load(client, "intersection")
    world_map = world.get_map()
    world.freeze_all_traffic_lights(True)
    hero = car(world)
    for light in lights_of(world):
        volume, base = light.trigger_volume, light.get_transform()
        middle = base.transform(volume.location)
        stops = light.get_stop_waypoints()
        affected = light.get_affected_lane_waypoints()
        assert len(stops) == 2
        assert affected
        assert min(apart(stop.transform.location, middle) for stop in stops) < 8.0
        assert light.get_opendrive_id() in [mark.id for mark in world_map.get_all_landmarks_of_type("1000001")]
        assert len(light.get_light_boxes()) >= 1
        waypoint = world_map.get_waypoint(middle)
        hero.set_transform(waypoint.transform)
        for state in (carla.TrafficLightState.Red, carla.TrafficLightState.Green):
            light.set_state(state)
            ticks(world, 1)
            assert hero.is_at_traffic_light()
            assert hero.get_traffic_light().id == light.id
            assert hero.get_traffic_light_state() == state
        here = world.get_traffic_lights_from_waypoint(waypoint, 20.0)
        assert light.id in [found.id for found in here]
    hero.set_location(carla.Location(0, 0, 0))
    ticks(world, 1)
    assert not hero.is_at_traffic_light()
    assert hero.get_traffic_light() is None
    junction = world_map.get_waypoint(carla.Location(0, 0, 0)).get_junction()
    assert len(world.get_traffic_lights_in_junction(junction.id)) == 4


@script
def speed_limits_are_those_of_the_road(client):
    world = load(client, "highway")
    hero = car(world)
    ticks(world, 15)
    assert close(hero.get_speed_limit(), 110.0)
    world = load(client, "intersection")
    hero = car(world)
    ticks(world, 15)
    assert close(hero.get_speed_limit(), 40.0)


# ------------------------------------------------------------------------------------------------------ everything else


@script
def weather_spectator_and_gravity_are_kept(client):
    world = load(client, "straight")
    world.set_weather(carla.WeatherParameters.HardRainNoon)
    world.tick()
    assert world.get_weather() == carla.WeatherParameters.HardRainNoon
    spectator = world.get_spectator()
    place = carla.Transform(carla.Location(1, 2, 30), carla.Rotation(pitch=-45, yaw=20))
    spectator.set_transform(place)
    world.tick()
    assert apart(spectator.get_location(), place.location) < 1e-3
    assert close(spectator.get_transform().rotation.pitch, -45.0)
    world.set_imui_sensor_gravity(3.0)
    assert close(world.get_imui_sensor_gravity(), 3.0)
    world.set_imui_sensor_gravity(9.81)


@script
def lists_of_scenery_are_empty(client):
    world = load(client, "straight")
    assert len(world.get_environment_objects()) == 0
    assert len(world.get_level_bbs(carla.CityObjectLabel.Car)) == 0
    assert list(world.get_names_of_all_objects()) == []
    assert len(world.get_lightmanager().get_all_lights()) == 0
    world.enable_environment_objects({1, 2}, False)
    world.load_map_layer(carla.MapLayer.All)
    world.unload_map_layer(carla.MapLayer.Buildings)
    debug = world.debug
    debug.draw_point(carla.Location())
    debug.draw_line(carla.Location(), carla.Location(1, 1, 1))
    debug.draw_box(carla.BoundingBox(carla.Location(), carla.Vector3D(1, 1, 1)), carla.Rotation())
    debug.draw_string(carla.Location(), "here")
    debug.draw_arrow(carla.Location(), carla.Location(1, 0, 0))
    with refused("textures"):
        world.apply_color_texture_to_object("x", carla.MaterialParameter.Diffuse, carla.TextureColor(2, 2))
    world.tick()


@script
def points_are_projected_and_rays_are_cast(client):
    world = load(client, "straight")
    down, up = carla.Vector3D(0, 0, -1), carla.Vector3D(0, 0, 1)
    point = world.project_point(carla.Location(50, 1.75, 5), down, 20.0)
    assert apart(point.location, carla.Location(50, 1.75, 0)) < 1e-3
    assert point.label == carla.CityObjectLabel.Roads
    assert world.project_point(carla.Location(50, 1.75, 5), up, 20.0) is None
    assert close(world.ground_projection(carla.Location(50, 1.75, 5), 20.0).location.z, 0.0)
    hero = car(world)
    start = hero.get_location() + carla.Location(z=10)
    hits = world.cast_ray(start, start - carla.Location(z=20))
    assert [hit.label for hit in hits] == [carla.CityObjectLabel.Car, carla.CityObjectLabel.Roads]


@script
def the_recorder_says_that_nothing_is_recorded(client):
    world = load(client, "straight")
    said = [
        client.start_recorder("drive.log", True),
        client.show_recorder_file_info("drive.log", True),
        client.show_recorder_collisions("drive.log", "v", "v"),
        client.show_recorder_actors_blocked("drive.log", 1.0, 1.0),
        client.replay_file("drive.log", 0.0, 0.0, 0),
    ]
    assert all("records nothing" in answer for answer in said)
    client.stop_recorder()
    client.stop_replayer(False)
    client.set_replayer_time_factor(2.0)
    client.set_replayer_ignore_hero(True)
    client.set_replayer_ignore_spectator(True)
    world.tick()


@script
def worlds_can_be_loaded_repeatedly_while_sensors_are_read(client):
    for k in range(12):
        world = load(client, ("straight", "curve")[k % 2])
        hero = car(world)
        heard = listening(world, hero, "sensor.other.imu")
        hero.apply_control(carla.VehicleControl(throttle=1.0))
        frame = ticks(world, 5).frame
        arrived(heard, frame)
        assert len(world.get_actors().filter("vehicle.*")) == 1


# ------------------------------------------------------------------------------------------------------ traffic manager


def traffic(client: carla.Client, world: carla.World, cars: int, seed: int) -> tuple[Any, list]:
    manager = client.get_trafficmanager(free_port())
    manager.set_synchronous_mode(True)
    manager.set_random_device_seed(seed)
    blueprint = world.get_blueprint_library().find("vehicle.audi.tt")
    points = world.get_map().get_spawn_points()
    points = [point for k, point in enumerate(points) if k % max(len(points) // cars, 1) == 0][:cars]
    auto = carla.command.SetAutopilot(carla.command.FutureActor, True, manager.get_port())
    answers = client.apply_batch_sync([carla.command.SpawnActor(blueprint, point).then(auto) for point in points])
    assert not any(answer.error for answer in answers), [answer.error for answer in answers]
    world.tick()
    return manager, list(world.get_actors([answer.actor_id for answer in answers]))


def leave(manager: Any, world: carla.World) -> None:
    manager.set_synchronous_mode(False)
    manager.shut_down()


@script
def the_traffic_manager_keeps_cars_on_the_road_at_their_speed(client):
    for name, limit in (("highway", 110.0), ("roundabout", 50.0)):
        world = load(client, name)
        manager, cars = traffic(client, world, 12, 5)
        manager.global_percentage_speed_difference(20.0)
        ticks(world, 300)
        speeds = [actor.get_velocity().length() * 3.6 for actor in cars]
        assert max(speeds) < 1.05 * limit
        assert sum(speeds) / len(speeds) > 10.0
        for actor in cars:
            waypoint = world.get_map().get_waypoint(actor.get_location(), project_to_road=False)
            assert waypoint is not None, f"{actor} left {name}"
        leave(manager, world)


@script
def the_traffic_manager_survives_the_loss_of_its_cars(client):
    world = load(client, "highway")
    manager, cars = traffic(client, world, 10, 1)
    for actor in cars:
        actor.destroy()
        ticks(world, 5)
    ticks(world, 20)
    leave(manager, world)
    ticks(world, 5)


@script
def the_traffic_manager_can_make_cars_stop_and_go(client):
    """It computes NaN for the brake of a car that stands and must stand."""
    world = load(client, "highway")
    manager, cars = traffic(client, world, 6, 3)
    ticks(world, 100)
    assert all(actor.get_velocity().length() > 5.0 for actor in cars)
    manager.global_percentage_speed_difference(100.0)
    ticks(world, 200)
    assert all(actor.get_velocity().length() == 0.0 for actor in cars)
    assert all(actor.get_control().brake == 1.0 for actor in cars)
    manager.global_percentage_speed_difference(0.0)
    ticks(world, 100)
    assert all(actor.get_velocity().length() > 5.0 for actor in cars)
    leave(manager, world)


@script
def the_traffic_manager_stops_at_red(client):
    world = load(client, "intersection")
    for light in lights_of(world):
        light.set_state(carla.TrafficLightState.Red)
    world.freeze_all_traffic_lights(True)
    manager, cars = traffic(client, world, 8, 2)
    waited = set()
    for _ in range(600):
        world.tick()
        waited |= {actor.id for actor in cars if actor.is_at_traffic_light() and actor.get_velocity().length() < 0.1}
    assert waited
    for actor in cars:
        assert not world.get_map().get_waypoint(actor.get_location()).is_junction or actor.id not in waited
    leave(manager, world)


def traffic_report(client: carla.Client, name: str, seed: int, count: int) -> dict[str, Any]:
    """Hash of the trajectories of 20 cars with different speeds, and counts of events.

    A car runs a light when it leaves its trigger while the light is red, and was red before the car came. A car that is
    in the trigger when the light changes may stop too late, and then goes on, as on CARLA.
    """
    world = load(client, name)
    world_map, manager, cars = world.get_map(), *traffic(client, world, 20, seed)
    for k, actor in enumerate(cars):
        manager.vehicle_percentage_speed_difference(actor, -20.0 + 5.0 * (k % 9))
        manager.random_left_lanechange_percentage(actor, 5.0)
        manager.random_right_lanechange_percentage(actor, 5.0)
    roads = RoadMap.parse(world_map.to_opendrive())  # the client's own lanes have gaps where it changes them in a bend
    hits = [listening(world, actor, "sensor.other.collision") for actor in cars]
    digest, lanes, came = hashlib.sha256(), {}, {}
    did = dict.fromkeys(("changes", "off_road", "waited", "ran_red", "passed"), 0)
    for _ in range(count):
        world.tick()
        snapshot = world.get_snapshot()
        now = snapshot.timestamp.elapsed_seconds
        for actor in cars:
            seen = snapshot.find(actor.id)
            place = seen.get_transform()
            digest.update(struct.pack("<3f", place.location.x, place.location.y, place.rotation.yaw))
            waypoint = world_map.get_waypoint(place.location)
            road, lane = lanes.get(actor.id, (None, None))
            did["changes"] += road == waypoint.road_id and lane != waypoint.lane_id
            lanes[actor.id] = waypoint.road_id, waypoint.lane_id
            did["off_road"] += not roads.on_road(np.array([[place.location.x, place.location.y]]))[0]
            if actor.is_at_traffic_light():
                came.setdefault(actor.id, (actor.get_traffic_light(), now))
                did["waited"] += seen.get_velocity().length() < 0.1
            elif actor.id in came:
                light, since = came.pop(actor.id)
                red = light.get_state() == carla.TrafficLightState.Red
                did["passed"] += 1
                did["ran_red"] += red and light.get_elapsed_time() > now - since
    leave(manager, world)
    return {"hash": digest.hexdigest(), "collisions": sum(map(len, hits)), **did}


# ------------------------------------------------------------------------------------------------- a map from a file


@script_of_a_file
def the_servers_own_map_is_listed_left_and_returned_to(client):
    names = client.get_available_maps()
    own = "CarlaLite/Maps/town"
    assert names[0] == own
    assert len(set(names)) == len(names)
    text = client.get_world().get_map().to_opendrive()
    for name in ("town", own, "Town", "/Game/Carla/Maps/town", "town.xodr"):
        world = client.load_world(name)
        assert world.get_map().name == own
        assert world.get_map().to_opendrive() == text
        assert client.load_world("straight").get_map().name == "CarlaLite/Maps/straight"
    client.load_world("town")
    assert client.reload_world().get_map().name == own
    world = client.load_world_if_different("town") or client.get_world()
    assert world.get_map().name == own
    client.generate_opendrive_world(client.load_world("curve").get_map().to_opendrive())
    assert client.load_world("town").get_map().to_opendrive() == text
    with refused("nowhere", "town", "straight"):
        client.load_world("nowhere")


@script_of_a_file
def a_scenario_runner_reloads_its_town_and_finds_it_empty(client):
    """ScenarioRunner does so between scenarios, the leaderboard between routes: load by the short name of the map."""
    world = load(client, "town")
    for _ in range(3):
        car(world)
        assert len(world.get_actors().filter("vehicle.*")) == 1
        name = world.get_map().name.split("/")[-1]
        world = load(client, name)
        assert len(world.get_actors().filter("vehicle.*")) == 0
        assert world.get_map().name.split("/")[-1] == "town"


@script_of_a_file
def a_town_has_lanes_to_drive_on_and_lanes_that_are_not(client):
    world_map = load(client, "town").get_map()
    points = world_map.get_spawn_points()
    assert len(points) >= 100
    for point in points[::7]:
        waypoint = world_map.get_waypoint(point.location)
        assert waypoint.lane_type == carla.LaneType.Driving
        assert math.cos(math.radians(waypoint.transform.rotation.yaw - point.rotation.yaw)) > 0.999
    arm = [each for each in world_map.generate_waypoints(5.0) if each.road_id == 1]
    assert max(each.transform.location.z for each in arm) > 1.4  # the hill
    kinds = set()
    for waypoint in arm:
        while waypoint is not None and waypoint.lane_id * waypoint.road_id < 0:
            kinds.add(waypoint.lane_type)
            waypoint = waypoint.get_right_lane()
    assert {carla.LaneType.Driving, carla.LaneType.Shoulder, carla.LaneType.Sidewalk} <= kinds


@script_of_a_file
def forty_cars_of_the_traffic_manager_drive_in_a_town(client):
    world = load(client, "town")
    manager, cars = traffic(client, world, 40, 3)
    assert len(cars) == 40
    fastest = dict.fromkeys((actor.id for actor in cars), 0.0)
    for _ in range(300):
        world.tick()
        for actor in cars:
            fastest[actor.id] = max(fastest[actor.id], actor.get_velocity().length())
    assert sum(speed > 5.0 for speed in fastest.values()) >= 36
    assert max(fastest.values()) < 1.1 * 25 * 0.44704
    roads = RoadMap.parse(world.get_map().to_opendrive())
    places = np.array([[each.x, each.y] for each in (actor.get_location() for actor in cars)])
    assert roads.on_road(places).all()
    leave(manager, world)


PORT = 0


def main() -> None:
    if sys.argv[1:] == ["fork"]:
        serve_forks(run_script)
    else:
        run_script()


def run_script() -> None:
    """Ends without the interpreter's clean-up: a stream's thread that releases a callback then aborts the process."""
    global PORT
    PORT, code = int(sys.argv[2]), 0
    try:
        if sys.argv[1] == "traffic_report":
            name, seed, count = sys.argv[3:]
            print(json.dumps(traffic_report(connect(PORT), name, int(seed), int(count))), flush=True)
        else:
            (SCRIPTS | FILE_SCRIPTS)[sys.argv[1]](connect(PORT))
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
