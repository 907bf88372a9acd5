"""Blueprints against the published reference of CARLA: names, defaults, recommended values; docs/carla.md has them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sim.carla_lite.library import library
from sim.carla_lite.sensors.ranging import share_kept

LIBRARY = library()
DOCS = Path(__file__).parents[3] / "docs" / "carla.md"
CAMERA = {
    "sensor_tick": 0.0,
    "image_size_x": 800,
    "image_size_y": 600,
    "fov": 90.0,
    "lens_circle_falloff": 5.0,
    "lens_circle_multiplier": 0.0,
    "lens_k": -1.0,
    "lens_kcube": 0.0,
    "lens_x_size": 0.08,
    "lens_y_size": 0.08,
}
PICTURE = {
    "bloom_intensity": 0.675,
    "fstop": 1.4,
    "iso": 100.0,
    "gamma": 2.2,
    "lens_flare_intensity": 0.1,
    "shutter_speed": 200.0,
    "min_fstop": 1.2,
    "blade_count": 5,
    "exposure_mode": "histogram",
    "exposure_compensation": 0.75,
    "exposure_min_bright": 10.0,
    "exposure_max_bright": 12.0,
    "exposure_speed_up": 3.0,
    "exposure_speed_down": 1.0,
    "calibration_constant": 16.0,
    "focal_distance": 1000.0,
    "blur_amount": 1.0,
    "blur_radius": 0.0,
    "motion_blur_intensity": 0.45,
    "motion_blur_max_distortion": 0.35,
    "motion_blur_min_object_screen_size": 0.1,
    "slope": 0.88,
    "toe": 0.55,
    "shoulder": 0.26,
    "black_clip": 0.0,
    "white_clip": 0.04,
    "temp": 6500.0,
    "tint": 0.0,
    "chromatic_aberration_intensity": 0.0,
    "chromatic_aberration_offset": 0.0,
    "enable_postprocess_effects": "true",
}
LASERS = {
    "sensor_tick": 0.0,
    "channels": 32,
    "range": 10.0,
    "points_per_second": 56000,
    "rotation_frequency": 10.0,
    "upper_fov": 10.0,
    "lower_fov": -30.0,
    "horizontal_fov": 360.0,
}
REFERENCE: dict[str, dict[str, float | int | str]] = {
    "sensor.other.collision": {},
    "sensor.other.lane_invasion": {},
    "sensor.other.gnss": {
        "sensor_tick": 0.0,
        "noise_seed": 0,
        **{f"noise_{name}_{what}": 0.0 for name in ("alt", "lat", "lon") for what in ("bias", "stddev")},
    },
    "sensor.other.imu": {
        "sensor_tick": 0.0,
        "noise_seed": 0,
        **{f"noise_{n}_{axis}": 0.0 for n in ("accel_stddev", "gyro_bias", "gyro_stddev") for axis in "xyz"},
    },
    "sensor.other.obstacle": {
        "sensor_tick": 0.0,
        "distance": 5.0,
        "hit_radius": 0.5,
        "only_dynamics": "false",
        "debug_linetrace": "false",
    },
    "sensor.other.radar": {
        "sensor_tick": 0.0,
        "horizontal_fov": 30.0,
        "vertical_fov": 30.0,
        "points_per_second": 1500,
        "range": 100.0,
    },
    "sensor.lidar.ray_cast": {
        **LASERS,
        "atmosphere_attenuation_rate": 0.004,
        "dropoff_general_rate": 0.45,
        "dropoff_intensity_limit": 0.8,
        "dropoff_zero_intensity": 0.4,
        "noise_stddev": 0.0,
    },
    "sensor.lidar.ray_cast_semantic": LASERS,
    "sensor.camera.rgb": CAMERA | PICTURE,
    "sensor.camera.depth": CAMERA,
    "sensor.camera.semantic_segmentation": CAMERA,
    "sensor.camera.instance_segmentation": CAMERA,
    "sensor.camera.optical_flow": CAMERA,
    "sensor.camera.dvs": {
        **CAMERA,
        **PICTURE,
        "positive_threshold": 0.3,
        "negative_threshold": 0.3,
        "sigma_positive_threshold": 0.0,
        "sigma_negative_threshold": 0.0,
        "refractory_period_ns": 0,
        "use_log": "true",
        "log_eps": 0.001,
    },
}


def values(name: str) -> dict[str, float | int | str]:
    kinds = {"int": int, "float": float}
    return {a.name: kinds.get(a.kind, str)(a.value) for a in LIBRARY[name].attributes if a.name != "role_name"}


@pytest.mark.parametrize("name", REFERENCE)
def test_a_sensor_has_the_attributes_and_defaults_of_the_reference(name):
    found = values(name)
    assert found == REFERENCE[name]
    assert {key: type(value) for key, value in found.items()} == {k: type(v) for k, v in REFERENCE[name].items()}
    assert all(attribute.modifiable for attribute in LIBRARY[name].attributes)


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_what_can_be_modified_recommends_values_and_its_default_is_the_first(name):
    """As on CARLA, whose client takes the first recommended value as the default; scripts draw among them."""
    for attribute in LIBRARY[name].attributes:
        if attribute.modifiable:
            assert attribute.choices, attribute.name
            assert attribute.value == attribute.choices[0]
            assert all(attribute.read(each) == each for each in attribute.choices)
        else:
            assert not attribute.choices


def test_vehicles_walkers_and_props_have_the_attributes_that_scripts_filter_by():
    always = {"role_name", "object_type", "number_of_wheels", "base_type", "special_type", "generation"}
    always |= {"has_lights", "has_dynamic_doors", "sticky_control", "terramechanics", "color"}
    for name, blueprint in LIBRARY.items():
        named = {attribute.name: attribute for attribute in blueprint.attributes}
        if blueprint.kind == "vehicle":
            two = named["number_of_wheels"].value == "2"
            assert set(named) == always | ({"driver_id"} if two else set()), name
            assert named["role_name"].choices == ("autopilot", "scenario", "ego_vehicle")
            assert named["sticky_control"].value == "true"
        elif blueprint.kind == "walker":
            assert named["speed"].choices == ("0.0", "1.4", "2.8")
            assert {"gender", "age", "is_invincible", "use_wheelchair", "can_use_wheelchair"} <= set(named)
        elif name.startswith("static.prop."):
            assert set(named) == {"role_name", "size"}


def documented() -> dict[str, str]:
    """The rows of the table in the docs."""
    rows = re.findall(r"^\| `((?:sensor|vehicle|walker|static|controller)[^`]*)` \| (.*?) \|", DOCS.read_text(), re.M)
    return dict(rows)


def test_the_docs_list_every_attribute_of_every_sensor_with_its_default():
    rows = documented()
    for name in (each for each in LIBRARY if each.startswith("sensor.")):
        told = rows[name]
        if told.startswith("as `"):
            base = re.match(r"as `([^`]+)`", told)
            assert base is not None
            expected = {key: value for key, value in values(name).items() if values(base[1]).get(key) != value}
            assert set(values(base[1])) <= set(values(name))
        else:
            expected = values(name)
        pairs = dict(
            re.findall(r"(\w+) (-?[\w.]+)(?:,|$|;)", told.partition("`; ")[2] if told.startswith("as `") else told)
        )
        assert pairs == {key: str(value) for key, value in expected.items()}, name


def test_points_are_dropped_by_chance_and_by_their_intensity():
    kept = share_kept(np.array([0.0, 0.4, 0.8, 1.0]), 0.45, 0.8, 0.4)
    assert kept == pytest.approx(0.55 * np.array([0.6, 0.8, 1.0, 1.0]))
    assert share_kept(np.array([0.0, 1.0]), 0.0, 0.0, 0.4).tolist() == [1.0, 1.0]
