"""More scripts as in `lite_clients.py`: what sensors and cars do, against what geometry says they should."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import carla
import lite_clients
import numpy as np
from lite_clients import arrived, close, heard_by, load, spawn, ticks

MODEL3 = "vehicle.tesla.model3"
SIZE = np.array((2.396, 1.082, 0.744))
"""Half sizes of its box."""
ON_SURFACE = 2e-3
"""Metres."""
SCRIPTS: dict[str, Callable[[carla.Client], None]] = {}


def script(function: Callable[[carla.Client], None]) -> Callable[[carla.Client], None]:
    SCRIPTS[function.__name__] = function
    return function


def place(x: float, y: float, z: float = 0.0, yaw: float = 0.0, pitch: float = 0.0) -> carla.Transform:
    return carla.Transform(carla.Location(x, y, z), carla.Rotation(pitch=pitch, yaw=yaw))


def listening(world: carla.World, name: str, where: carla.Transform, **attributes: Any) -> tuple[carla.Sensor, list]:
    """A new sensor without a parent, and what it sends as it arrives."""
    heard: list = []
    sensor = spawn(world, name, where, **attributes)
    sensor.listen(heard.append)
    heard_by[sensor.id] = sensor
    return sensor, heard


def next_of(world: carla.World, heard: list) -> Any:
    """What a sensor sends in the next frame."""
    arrived(heard, world.tick())
    return heard[-1]


def to_world(sensor: carla.Transform, points: np.ndarray) -> np.ndarray:
    """Points (N, 3) in a sensor's frame -> (N, 3) in the world's."""
    return (np.c_[points, np.ones(len(points))] @ np.array(sensor.get_matrix()).T)[:, :3]


def off_the_box(points: np.ndarray, middle: tuple[float, float, float], yaw: float = 0.0) -> np.ndarray:
    """Metres (N,) from points (N, 3) to the surface of the car's box."""
    cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    x, y, z = (points - np.array(middle)).T
    beyond = np.abs(np.stack([x * cos + y * sin, y * cos - x * sin, z], axis=1)) - SIZE
    return np.abs(np.linalg.norm(np.maximum(beyond, 0.0), axis=1) + np.minimum(beyond.max(axis=1), 0.0))


BEAMS = dict(channels=32, range=40, points_per_second=200000, rotation_frequency=20, upper_fov=5, lower_fov=-25)


@script
def lidar_points_lie_on_the_car_or_on_the_road(client):
    world = load(client, "lane_change")
    spawn(world, MODEL3, place(112.0, 1.0, yaw=25.0))
    _, heard = listening(world, "sensor.lidar.ray_cast", place(100.0, 0.0, 1.8, yaw=30.0), **BEAMS)
    data = next_of(world, heard)
    raw = np.frombuffer(data.raw_data, np.float32).reshape(-1, 4)
    points = to_world(data.transform, raw[:, :3])
    car, ground = off_the_box(points, (112.0, 1.0, SIZE[2]), 25.0), np.abs(points[:, 2])
    assert np.minimum(car, ground).max() < ON_SURFACE
    assert (car < ON_SURFACE).sum() > 50
    assert (ground < ON_SURFACE).sum() > 500
    reach = np.linalg.norm(raw[:, :3], axis=1)
    assert reach.max() <= 40.0
    assert np.allclose(raw[:, 3], np.exp(-0.004 * reach), atol=1e-3)
    bearings = np.degrees(np.arctan2(raw[:, 1], raw[:, 0]))  # one turn per frame: it looks everywhere
    assert np.histogram(bearings, bins=8, range=(-180, 180))[0].min() > 0


@script
def semantic_points_name_what_they_hit_and_at_which_angle(client):
    world = load(client, "lane_change")
    car = spawn(world, MODEL3, place(112.0, 0.0))
    walker = spawn(world, "walker.pedestrian.0001", place(105.0, 4.0, 1.0))
    _, heard = listening(world, "sensor.lidar.ray_cast_semantic", place(100.0, 0.0, 1.8), **BEAMS)
    data = next_of(world, heard)
    columns = [("xyz", "<f4", 3), ("cosine", "<f4"), ("actor", "<u4"), ("tag", "<u4")]
    raw = np.frombuffer(data.raw_data, columns)
    labels = carla.CityObjectLabel
    found = {(int(row["actor"]), int(row["tag"])) for row in raw}
    bodies = {(car.id, int(labels.Car)), (walker.id, int(labels.Pedestrians))}
    ground = {(0, int(labels.Roads)), (0, int(labels.Terrain))}
    assert bodies <= found <= bodies | ground
    on_car = raw[raw["actor"] == car.id]
    points = to_world(data.transform, on_car["xyz"])
    assert off_the_box(points, (112.0, 0.0, SIZE[2])).max() < ON_SURFACE
    back = on_car["xyz"][np.abs(points[:, 0] - (112.0 - SIZE[0])) < 1e-3]
    cosines = on_car["cosine"][np.abs(points[:, 0] - (112.0 - SIZE[0])) < 1e-3]
    assert len(back) > 10
    assert np.allclose(cosines, back[:, 0] / np.linalg.norm(back, axis=1), atol=1e-3)


@script
def a_camera_shows_a_car_where_a_pinhole_projects_it(client):
    world = load(client, "lane_change")
    car = spawn(world, MODEL3, place(115.0, 2.0))
    width, height = 320, 200
    for fov, pitch in ((90.0, 0.0), (60.0, -10.0)):
        car.set_location(carla.Location(115.0, 2.0, 0.0))
        where = place(100.0, 0.0, 1.8, pitch=pitch)
        camera, heard = listening(world, "sensor.camera.rgb", where, image_size_x=width, image_size_y=height, fov=fov)
        full = next_of(world, heard)
        car.set_location(carla.Location(115.0, 500.0, 0.0))
        empty = next_of(world, heard)
        one, two = (np.frombuffer(image.raw_data, np.uint8).reshape(height, width, 4) for image in (full, empty))
        rows, columns = np.nonzero((one != two).any(axis=2))
        signs = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, -1).T
        corners = np.array((115.0, 2.0, SIZE[2])) + signs * SIZE
        x, y, z = (np.c_[corners, np.ones(8)] @ np.array(full.transform.get_inverse_matrix()).T)[:, :3].T
        focus = width / (2 * math.tan(math.radians(fov) / 2))
        u, v = width / 2 + focus * y / x, height / 2 - focus * z / x
        assert np.allclose((columns.min(), rows.min()), (u.min(), v.min()), atol=1.5)
        assert np.allclose((columns.max(), rows.max()), (u.max(), v.max()), atol=1.5)
        assert (one[..., 3] == 255).all()
        camera.stop()


@script
def depths_are_distances_along_the_cameras_axis(client):
    world = load(client, "lane_change")
    spawn(world, MODEL3, place(120.0, 0.0))
    width, height, level = 200, 120, 0.7
    camera = "sensor.camera.depth"
    _, heard = listening(world, camera, place(100.0, 0.0, level), image_size_x=width, image_size_y=height)
    raw = np.frombuffer(next_of(world, heard).raw_data, np.uint8).reshape(height, width, 4).astype(float)
    metres = 1000.0 * (raw[..., 2] + 256 * raw[..., 1] + 256**2 * raw[..., 0]) / (256**3 - 1)
    assert close(metres[60, 100], 20.0 - SIZE[0], 0.01)
    assert metres[5, 5] > 999.0
    for row in (80, 100, 119):  # of the road; the focus is half of the width
        assert close(metres[row, 5], level / ((row + 0.5 - height / 2) / (width / 2)), 0.05)


@script
def radar_points_have_the_speed_of_what_they_hit(client):
    world = load(client, "lane_change")
    car = spawn(world, MODEL3, place(130.0, 0.0))
    view = dict(horizontal_fov=20, vertical_fov=10, points_per_second=20000)
    _, heard = listening(world, "sensor.other.radar", place(100.0, 0.0, 0.7), **view)
    car.enable_constant_velocity(carla.Vector3D(8.0, 0.0, 0.0))
    ticks(world, 2)
    data, back, hits = next_of(world, heard), car.get_location().x - SIZE[0] - 100.0, 0
    for found in data:
        ahead = math.cos(found.azimuth) * math.cos(found.altitude)
        on_car = abs(found.depth * ahead - back) < 0.05 and 0.7 + found.depth * math.sin(found.altitude) > 1e-4
        hits += on_car
        assert close(found.velocity, 8.0 * ahead if on_car else 0.0, 0.1)
    assert hits > 5


@script
def the_compass_is_zero_in_the_north_and_grows_clockwise(client):
    world = load(client, "lane_change")
    for yaw in (-180.0, -90.0, 0.0, 90.0, 135.0):
        _, heard = listening(world, "sensor.other.imu", place(100.0, 0.0, yaw=yaw))
        compass = next_of(world, heard).compass
        assert 0.0 <= compass < 2 * math.pi
        assert close(math.cos(compass - math.radians(yaw + 90.0)), 1.0, 1e-6)


@script
def a_gentle_turn_has_the_radius_of_the_bicycle_model(client):
    world = load(client, "lane_change")
    car = spawn(world, MODEL3, place(100.0, 4.0))
    world.tick()
    wheels = [wheel.position for wheel in car.get_physics_control().wheels]
    base = abs(wheels[0].x - wheels[2].x) / 100.0
    car.enable_constant_velocity(carla.Vector3D(5.0, 0.0, 0.0))
    car.apply_control(carla.VehicleControl(steer=0.1))
    ticks(world, 40)  # until it turns steadily
    places = []
    for _ in range(3):
        ticks(world, 10)
        places.append(complex(car.get_location().x, car.get_location().y))
    a, b, c = places
    area = abs(((b - a).conjugate() * (c - a)).imag) / 2
    radius = abs(b - a) * abs(c - b) * abs(c - a) / (4 * area)
    assert close(radius, base / math.tan(math.radians(7.0)), 0.02 * radius)


@script
def a_point_is_projected_on_what_lies_in_its_way(client):
    world = load(client, "lane_change")
    spawn(world, MODEL3, place(100.0, 0.0))
    world.tick()
    start, ahead = carla.Location(50.0, 0.0, 0.7), carla.Vector3D(1.0, 0.0, 0.0)
    found = world.project_point(start, ahead, 100.0)
    assert found.label == carla.CityObjectLabel.Car
    assert close(found.location.x, 100.0 - SIZE[0])
    assert world.project_point(start, ahead, 40.0) is None
    assert world.project_point(start + carla.Location(y=4.0), ahead, 100.0) is None
    below = world.ground_projection(carla.Location(100.0, 0.0, 10.0), 20.0)
    assert close(below.location.z, 2 * SIZE[2])


@script
def gears_are_forward_reverse_or_what_was_shifted_by_hand(client):
    world = load(client, "lane_change")
    car = spawn(world, MODEL3, place(100.0, 0.0))
    for control, gear in (
        (carla.VehicleControl(throttle=0.5), 1),
        (carla.VehicleControl(throttle=0.5, reverse=True), -1),
        (carla.VehicleControl(gear=4), 1),
        (carla.VehicleControl(manual_gear_shift=True, gear=4), 4),
    ):
        car.apply_control(control)
        world.tick()
        assert (car.get_control().gear, car.get_control().manual_gear_shift) == (gear, control.manual_gear_shift)


@script
def all_spawn_points_of_a_map_can_be_taken_at_once(client):
    for name in ("lane_change", "roundabout"):
        world = load(client, name)
        blueprint = world.get_blueprint_library().find("vehicle.mitsubishi.fusorosa")  # the largest
        points = world.get_map().get_spawn_points()
        assert all(world.try_spawn_actor(blueprint, point) for point in points)
        assert not any(world.try_spawn_actor(blueprint, point) for point in points)


@script
def a_truck_pushes_a_small_car_and_a_car_a_walker_and_nobody_passes_through(client):
    world = load(client, "lane_change")
    truck = spawn(world, "vehicle.carlamotors.firetruck", place(100.0, 0.0))
    small = spawn(world, "vehicle.micro.microlino", place(115.0, 0.0))
    car = spawn(world, MODEL3, place(100.0, 8.0))
    walker = spawn(world, "walker.pedestrian.0003", place(110.0, 8.0, 1.0))
    world.tick()
    for pusher in (truck, car):
        pusher.set_target_velocity(carla.Vector3D(x=10.0))
    for _ in range(60):
        world.tick()
        for behind, ahead in ((truck, small), (car, walker)):
            gap = ahead.get_location().x - behind.get_location().x
            assert gap > behind.bounding_box.extent.x + ahead.bounding_box.extent.x - 0.35
    assert small.get_location().x > 117.0
    assert walker.get_location().x > 111.0


if __name__ == "__main__":
    lite_clients.SCRIPTS.update(SCRIPTS)
    lite_clients.main()
