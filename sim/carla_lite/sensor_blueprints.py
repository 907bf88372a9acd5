"""Blueprints of sensors, with the attributes and defaults of CARLA's sensor reference.

`docs/carla.md` lists them; a test compares the two.
"""

from __future__ import annotations

from sim.carla_lite.blueprints import Attribute, Blueprint, flag, number, role

PLACES = ("front", "back", "left", "right", "front_left", "front_right", "back_left", "back_right")
"""Role names that CARLA recommends for cameras, lidars and event sensors; the others have `default`."""
TICK = number("sensor_tick", 0.0, 0.0)


def _sensor(name: str, *attributes: Attribute, roles: tuple[str, ...] = PLACES) -> Blueprint:
    return Blueprint(f"sensor.{name}", "sensor", (role(*roles), *attributes))


def _camera(name: str, *attributes: Attribute) -> Blueprint:
    return _sensor(
        f"camera.{name}",
        TICK,
        number("image_size_x", 800, 1, WIDEST_PICTURE),
        number("image_size_y", 600, 1, WIDEST_PICTURE),
        number("fov", 90.0, 1.0, 170.0),
        *(number(f"lens_{key}", value) for key, value in LENS),
        *attributes,
    )


WIDEST_PICTURE = 4096
LENS = (
    ("circle_falloff", 5.0),
    ("circle_multiplier", 0.0),
    ("k", -1.0),
    ("kcube", 0.0),
    ("x_size", 0.08),
    ("y_size", 0.08),
)
EFFECTS = (
    flag("enable_postprocess_effects", True),
    Attribute("exposure_mode", "string", "histogram", ("histogram", "manual")),
    *(
        number(name, value)
        for name, value in (
            ("gamma", 2.2),
            ("shutter_speed", 200.0),
            ("iso", 100.0),
            ("fstop", 1.4),
            ("min_fstop", 1.2),
            ("blade_count", 5),
            ("exposure_compensation", 0.75),
            ("exposure_min_bright", 10.0),
            ("exposure_max_bright", 12.0),
            ("exposure_speed_up", 3.0),
            ("exposure_speed_down", 1.0),
            ("calibration_constant", 16.0),
            ("focal_distance", 1000.0),
            ("blur_amount", 1.0),
            ("blur_radius", 0.0),
            ("bloom_intensity", 0.675),
            ("lens_flare_intensity", 0.1),
            ("motion_blur_intensity", 0.45),
            ("motion_blur_max_distortion", 0.35),
            ("motion_blur_min_object_screen_size", 0.1),
            ("slope", 0.88),
            ("toe", 0.55),
            ("shoulder", 0.26),
            ("black_clip", 0.0),
            ("white_clip", 0.04),
            ("temp", 6500.0),
            ("tint", 0.0),
            ("chromatic_aberration_intensity", 0.0),
            ("chromatic_aberration_offset", 0.0),
        )
    ),
)
"""Attributes of the RGB camera that scripts set; drawings ignore them."""
LIDAR = (
    TICK,
    number("channels", 32, 1, 1024),
    number("range", 10.0, 0.01),
    number("points_per_second", 56000, 1, 20_000_000),
    number("rotation_frequency", 10.0, 0.0),
    number("upper_fov", 10.0, -90.0, 90.0),
    number("lower_fov", -30.0, -90.0, 90.0),
    number("horizontal_fov", 360.0, 0.1, 360.0),
)
NOISE = tuple(
    number(f"noise_{name}", value)
    for name, value in (
        *((f"accel_stddev_{axis}", 0.0) for axis in "xyz"),
        *((f"gyro_bias_{axis}", 0.0) for axis in "xyz"),
        *((f"gyro_stddev_{axis}", 0.0) for axis in "xyz"),
        ("seed", 0),
    )
)
BIASED = ("bias", "stddev")
GNSS_NOISE = tuple(
    number(f"noise_{name}", value)
    for name, value in (
        *((f"{axis}_{what}", 0.0) for axis in ("alt", "lat", "lon") for what in BIASED),
        ("seed", 0),
    )
)
EVENTS = (
    number("positive_threshold", 0.3, 0.0),
    number("negative_threshold", 0.3, 0.0),
    number("sigma_positive_threshold", 0.0, 0.0),
    number("sigma_negative_threshold", 0.0, 0.0),
    number("refractory_period_ns", 0, 0),
    flag("use_log", True),
    number("log_eps", 0.001, 0.0),
)
"""Attributes of the event camera beside those of the RGB camera."""
CHANNEL = (
    number("transmit_power", 21.5),
    number("receiver_sensitivity", -99.0),
    number("frequency_ghz", 5.9, 0.0),
    number("noise_seed", 0),
    number("filter_distance", 500.0, 0.0),
    number("combined_antenna_gain", 10.0),
    number("d_ref", 1.0, 0.0),
    number("path_loss_exponent", 2.7),
    Attribute("scenario", "string", "urban", ("urban", "rural", "highway")),
    Attribute("path_loss_model", "string", "geometric", ("geometric", "winner")),
    flag("use_etsi_fading", True),
    number("custom_fading_stddev", 0.0),
)
"""The radio channel of V2X sensors."""
AWARENESS = (
    number("gen_cam_min", 0.1, 0.0),
    number("gen_cam_max", 1.0, 0.0),
    flag("fixed_rate", False),
    *(number(f"noise_{name}", 0.0) for name in ("vel_stddev_x", *(f"accel_stddev_{axis}" for axis in "xyz"))),
    *(number(f"noise_{name}_{what}", 0.0) for name in ("yawrate", "alt", "lat", "lon", "head") for what in BIASED),
)
"""Attributes of the sensor of cooperative awareness messages."""
NOT_SERVED = {
    "sensor.camera.optical_flow": "use an rgb, depth or segmentation camera",
    "sensor.camera.normals": "use an rgb, depth or segmentation camera",
    "sensor.camera.dvs": "use an rgb, depth or segmentation camera",
    "sensor.camera.cosmos_visualization": "use an rgb, depth or segmentation camera",
    "sensor.other.v2x": "it has no radio",
    "sensor.other.v2x_custom": "it has no radio",
}
"""Sensors that scripts look up and seldom use, and what is said where one is spawned."""
SENSORS = (
    _sensor("other.collision"),
    _sensor("other.lane_invasion"),
    _sensor("other.gnss", TICK, *GNSS_NOISE, roles=("default",)),
    _sensor("other.imu", TICK, *NOISE, roles=("default",)),
    _sensor(
        "other.obstacle",
        TICK,
        number("distance", 5.0, 0.0),
        number("hit_radius", 0.5, 0.0),
        flag("only_dynamics", False),
        flag("debug_linetrace", False),
    ),
    _sensor(
        "other.radar",
        TICK,
        number("horizontal_fov", 30.0, 0.0, 180.0),
        number("vertical_fov", 30.0, 0.0, 180.0),
        number("points_per_second", 1500, 1, 1_000_000),
        number("range", 100.0, 0.01),
        roles=("default",),
    ),
    _camera("rgb", *EFFECTS),
    _camera("depth"),
    _camera("semantic_segmentation"),
    _camera("instance_segmentation"),
    _camera("dvs", *EFFECTS, *EVENTS),
    *(_camera(name) for name in ("optical_flow", "normals", "cosmos_visualization")),
    _sensor("other.v2x", TICK, *CHANNEL, *AWARENESS, roles=("default",)),
    _sensor("other.v2x_custom", TICK, *CHANNEL, roles=("default",)),
    _sensor(
        "lidar.ray_cast",
        *LIDAR,
        number("atmosphere_attenuation_rate", 0.004),
        number("dropoff_general_rate", 0.45, 0.0, 1.0),
        number("dropoff_intensity_limit", 0.8, 0.0, 1.0),
        number("dropoff_zero_intensity", 0.4, 0.0, 1.0),
        number("noise_stddev", 0.0, 0.0),
    ),
    _sensor("lidar.ray_cast_semantic", *LIDAR),
)
