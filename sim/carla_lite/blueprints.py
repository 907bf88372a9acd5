"""The blueprint library: the usual ids and attributes of CARLA 0.9, with the sizes of the real vehicles.

Sizes (half extents in metres) and masses are rounded public figures of CARLA's vehicles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sim.carla_lite import codec


@dataclass(frozen=True)
class Attribute:
    """An attribute of a blueprint. Choices are recommended values; numbers must lie within low and high."""

    name: str
    kind: str
    """bool | int | float | string | color"""
    value: str
    choices: tuple[str, ...] = ()
    modifiable: bool = True
    low: float = -math.inf
    high: float = math.inf

    def read(self, value: str) -> str:
        """Check a value from a client.

        Args:
            value: As it came.

        Returns:
            The value in normal form.

        Raises:
            ValueError: It is of the wrong kind or out of bounds.
        """
        if self.kind == "bool":
            if value.lower() not in ("true", "false"):
                raise ValueError(f"'{value}' for attribute '{self.name}': choose true or false")
            return value.lower()
        if self.kind in ("int", "float"):
            number, whole = _parsed(float, value), self.kind == "int"
            fits = number is not None and math.isfinite(number) and self.low <= number <= self.high
            if number is None or not fits or (whole and not number.is_integer()):
                raise ValueError(f"'{value}' for attribute '{self.name}': choose {self._numbers()}")
            return str(int(number)) if whole else value  # scripts also write 64.0 channels
        if self.kind == "color":
            parts = [_parsed(int, part) for part in value.split(",")]
            if len(parts) != 3 or not all(part is not None and 0 <= part <= 255 for part in parts):
                raise ValueError(f"'{value}' for attribute '{self.name}': choose R,G,B from 0 to 255 each")
        return value

    def _numbers(self) -> str:
        what = "a whole number" if self.kind == "int" else "a number"
        bounds = [f"from {self.low:g}"] * (self.low > -math.inf) + [f"up to {self.high:g}"] * (self.high < math.inf)
        return " ".join([what, *bounds])


def _parsed(kind: Callable[[str], float], value: str) -> float | None:
    try:
        return kind(value)
    except ValueError:
        return None


@dataclass(frozen=True)
class Blueprint:
    """What an actor is made from. Extents are half sizes in m, mass is in kg."""

    id: str
    kind: str
    """vehicle | walker | sensor | static | controller | spectator | light"""
    attributes: tuple[Attribute, ...] = ()
    extent: tuple[float, float, float] = (0.0, 0.0, 0.0)
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the bounding box, relative to the actor's position."""
    mass: float = 0.0
    tag: int = 0
    """Semantic tag, as in CARLA's city palette."""
    uid: int = field(default=0, compare=False)

    @property
    def tags(self) -> str:
        return ",".join(self.id.split("."))

    def pack(self, version: codec.Version) -> codec.Wire:
        """The wire form for a client version."""
        rows = [
            codec.attribute(version, a.name, a.kind, a.value, a.choices, a.modifiable)
            for a in (*self.attributes, Attribute("ros_name", "string", self.id, modifiable=False))
        ]
        return [self.uid, self.id, self.tags, rows]


CAR, TRUCK, VAN, MOTORCYCLE, BICYCLE = "car", "truck", "van", "motorcycle", "bicycle"
TAGS = {CAR: 14, TRUCK: 15, VAN: 14, MOTORCYCLE: 18, BICYCLE: 19}
WALKER_TAG, PROP_TAG, LIGHT_TAG = 12, 20, 7

VEHICLES: tuple[tuple[str, str, tuple[float, float, float], float, str], ...] = (
    ("audi.a2", CAR, (1.853, 0.894, 0.774), 1200.0, "1"),
    ("audi.etron", CAR, (2.428, 1.017, 0.825), 2490.0, "1"),
    ("audi.tt", CAR, (2.090, 0.997, 0.693), 1350.0, "1"),
    ("bmw.grandtourer", CAR, (2.305, 1.121, 0.833), 1650.0, "1"),
    ("chevrolet.impala", CAR, (2.679, 1.017, 0.706), 1600.0, "1"),
    ("citroen.c3", CAR, (1.994, 0.925, 0.812), 1100.0, "1"),
    ("dodge.charger_2020", CAR, (2.504, 1.052, 0.764), 1900.0, "2"),
    ("dodge.charger_police", CAR, (2.487, 1.019, 0.792), 1900.0, "1"),
    ("dodge.charger_police_2020", CAR, (2.619, 1.075, 0.819), 1900.0, "2"),
    ("ford.crown", CAR, (2.683, 0.900, 0.787), 1850.0, "2"),
    ("ford.mustang", CAR, (2.359, 0.947, 0.650), 1700.0, "1"),
    ("jeep.wrangler_rubicon", CAR, (1.933, 0.953, 0.939), 1850.0, "1"),
    ("lincoln.mkz_2017", CAR, (2.451, 1.064, 0.755), 1700.0, "1"),
    ("lincoln.mkz_2020", CAR, (2.446, 0.918, 0.746), 1700.0, "2"),
    ("mercedes.coupe", CAR, (2.513, 1.076, 0.818), 1800.0, "1"),
    ("mercedes.coupe_2020", CAR, (2.337, 1.001, 0.721), 1800.0, "2"),
    ("micro.microlino", CAR, (1.104, 0.740, 0.689), 510.0, "1"),
    ("mini.cooper_s", CAR, (1.903, 0.985, 0.738), 1200.0, "1"),
    ("mini.cooper_s_2021", CAR, (2.276, 1.049, 0.886), 1300.0, "2"),
    ("nissan.micra", CAR, (1.817, 0.923, 0.751), 1050.0, "1"),
    ("nissan.patrol", CAR, (2.302, 0.966, 0.927), 2300.0, "1"),
    ("nissan.patrol_2021", CAR, (2.783, 1.075, 1.023), 2600.0, "2"),
    ("seat.leon", CAR, (2.096, 0.908, 0.737), 1300.0, "1"),
    ("tesla.model3", CAR, (2.396, 1.082, 0.744), 1850.0, "2"),
    ("toyota.prius", CAR, (2.257, 1.003, 0.763), 1400.0, "1"),
    ("carlamotors.carlacola", TRUCK, (2.602, 1.307, 1.234), 5500.0, "1"),
    ("carlamotors.european_hgv", TRUCK, (3.935, 1.445, 1.733), 9000.0, "1"),
    ("carlamotors.firetruck", TRUCK, (4.234, 1.446, 1.915), 12000.0, "2"),
    ("tesla.cybertruck", TRUCK, (3.137, 1.195, 1.049), 3000.0, "1"),
    ("ford.ambulance", VAN, (3.183, 1.176, 1.215), 3800.0, "1"),
    ("mercedes.sprinter", VAN, (2.957, 0.994, 1.280), 2900.0, "1"),
    ("mitsubishi.fusorosa", VAN, (5.136, 1.972, 2.127), 7000.0, "2"),
    ("volkswagen.t2", VAN, (2.240, 1.035, 1.020), 1400.0, "1"),
    ("volkswagen.t2_2021", VAN, (2.221, 0.947, 0.997), 1500.0, "2"),
    ("harley-davidson.low_rider", MOTORCYCLE, (1.175, 0.382, 0.821), 300.0, "1"),
    ("kawasaki.ninja", MOTORCYCLE, (1.017, 0.436, 0.767), 210.0, "1"),
    ("vespa.zx125", MOTORCYCLE, (0.903, 0.489, 0.743), 120.0, "1"),
    ("yamaha.yzf", MOTORCYCLE, (1.105, 0.433, 0.774), 200.0, "1"),
    ("bh.crossbike", BICYCLE, (0.744, 0.429, 0.888), 90.0, "1"),
    ("diamondback.century", BICYCLE, (0.821, 0.186, 0.888), 90.0, "1"),
    ("gazelle.omafiets", BICYCLE, (0.918, 0.163, 0.888), 90.0, "1"),
)
COLOURS = ("17,37,103", "137,0,0", "53,53,53", "180,180,180", "255,255,255", "0,0,0")
PROPS: tuple[tuple[str, tuple[float, float, float]], ...] = (
    ("advertisement", (0.20, 0.90, 1.30)),
    ("barrel", (0.30, 0.30, 0.45)),
    ("bench01", (0.35, 0.80, 0.45)),
    ("bin", (0.35, 0.35, 0.55)),
    ("box01", (0.30, 0.30, 0.30)),
    ("box02", (0.30, 0.30, 0.30)),
    ("box03", (0.30, 0.30, 0.30)),
    ("busstop", (1.00, 2.20, 1.40)),
    ("busstoplb", (1.00, 2.20, 1.40)),
    ("chainbarrier", (0.20, 1.00, 0.50)),
    ("constructioncone", (0.18, 0.18, 0.30)),
    ("container", (3.00, 1.25, 1.30)),
    ("dirtdebris01", (0.60, 0.60, 0.02)),
    ("dirtdebris02", (0.60, 0.60, 0.02)),
    ("dirtdebris03", (0.60, 0.60, 0.02)),
    ("foodcart", (1.30, 0.90, 1.20)),
    ("haybalelb", (0.60, 0.50, 0.50)),
    ("plasticbag", (0.25, 0.25, 0.20)),
    ("streetbarrier", (0.10, 0.70, 0.50)),
    ("trafficcone01", (0.25, 0.25, 0.38)),
    ("trafficcone02", (0.22, 0.22, 0.38)),
    ("trafficwarning", (0.90, 0.60, 1.20)),
    ("trashcan01", (0.35, 0.35, 0.55)),
    ("vendingmachine", (0.45, 0.50, 0.95)),
    ("warningaccident", (0.20, 0.40, 0.40)),
    ("warningconstruction", (0.55, 0.40, 0.70)),
)
FLAT = 0.05
"""Half height up to which cars drive over a prop, m."""


def _role(name: str) -> Attribute:
    return Attribute("role_name", "string", name)


def _vehicle(name: str, base: str, extent: tuple[float, float, float], mass: float, generation: str) -> Blueprint:
    wheels = "2" if base in (MOTORCYCLE, BICYCLE) else "4"
    special = {"firetruck": "emergency", "ambulance": "emergency", "police": "emergency"}
    kind = next((value for word, value in special.items() if word in name), "")
    attributes = (
        _role("autopilot"),
        Attribute("object_type", "string", "", modifiable=False),
        Attribute("number_of_wheels", "int", wheels, modifiable=False),
        Attribute("base_type", "string", base, modifiable=False),
        Attribute("special_type", "string", kind, modifiable=False),
        Attribute("generation", "int", generation, modifiable=False),
        Attribute("has_lights", "bool", "true" if generation == "2" else "false", modifiable=False),
        Attribute("has_dynamic_doors", "bool", "false", modifiable=False),
        Attribute("sticky_control", "bool", "true"),
        Attribute("terramechanics", "bool", "false"),
        Attribute("color", "color", COLOURS[0], COLOURS),
        *([Attribute("driver_id", "int", "1", ("1", "2"))] if wheels == "2" else ()),
    )
    return Blueprint(f"vehicle.{name}", "vehicle", attributes, extent, (0.0, 0.0, extent[2]), mass, TAGS[base])


def _walker(number: int) -> Blueprint:
    child = number in (9, 10, 11, 12, 13, 14, 48, 49)
    attributes = (
        _role("pedestrian"),
        Attribute("gender", "string", "male" if number % 2 else "female", modifiable=False),
        Attribute("age", "string", "child" if child else "adult", modifiable=False),
        Attribute("generation", "int", "2" if number >= 15 else "1", modifiable=False),
        Attribute("is_invincible", "bool", "true"),
        Attribute("speed", "float", "1.4", ("0.0", "1.4", "2.8")),
        Attribute("can_use_wheelchair", "bool", "false", modifiable=False),
        Attribute("use_wheelchair", "bool", "false"),
    )
    height = 0.55 if child else 0.93
    size = (0.188, 0.188, height)
    return Blueprint(f"walker.pedestrian.{number:04d}", "walker", attributes, size, (0.0, 0.0, 0.0), 75.0, WALKER_TAG)


def _sensor(name: str, *attributes: Attribute) -> Blueprint:
    common = (_role("front"), _number("sensor_tick", 0.0, 0.0))
    return Blueprint(f"sensor.{name}", "sensor", (*common, *attributes))


def _number(name: str, value: float | int, low: float = -math.inf, high: float = math.inf) -> Attribute:
    """A numeric attribute that recommends its default: scripts take the first recommended value."""
    return Attribute(name, "int" if isinstance(value, int) else "float", str(value), (str(value),), low=low, high=high)


def _camera(name: str, *attributes: Attribute) -> Blueprint:
    return _sensor(
        f"camera.{name}",
        _number("image_size_x", 800, 1, WIDEST_PICTURE),
        _number("image_size_y", 600, 1, WIDEST_PICTURE),
        _number("fov", 90.0, 1.0, 170.0),
        *(_number(f"lens_{key}", value) for key, value in LENS),
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
    Attribute("enable_postprocess_effects", "bool", "true"),
    Attribute("exposure_mode", "string", "histogram", ("manual", "histogram")),
    *(
        _number(name, value)
        for name, value in (
            ("gamma", 2.2),
            ("shutter_speed", 200.0),
            ("iso", 100.0),
            ("fstop", 1.4),
            ("min_fstop", 1.2),
            ("blade_count", 5),
            ("exposure_compensation", 0.0),
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
    _number("channels", 32, 1, 1024),
    _number("range", 10.0, 0.01),
    _number("points_per_second", 56000, 1, 20_000_000),
    _number("rotation_frequency", 10.0, 0.0),
    _number("upper_fov", 10.0, -90.0, 90.0),
    _number("lower_fov", -30.0, -90.0, 90.0),
    _number("horizontal_fov", 360.0, 0.1, 360.0),
)
NOISE = tuple(
    _number(f"noise_{name}", value)
    for name, value in (
        *((f"accel_stddev_{axis}", 0.0) for axis in "xyz"),
        *((f"gyro_bias_{axis}", 0.0) for axis in "xyz"),
        *((f"gyro_stddev_{axis}", 0.0) for axis in "xyz"),
        ("seed", 0),
    )
)
GNSS_NOISE = tuple(
    _number(f"noise_{name}", value)
    for name, value in (
        *((f"{axis}_{what}", 0.0) for axis in ("alt", "lat", "lon") for what in ("bias", "stddev")),
        ("seed", 0),
    )
)
NOT_DRAWN = ("optical_flow", "normals", "dvs", "cosmos_visualization")
"""Cameras that scripts look up and seldom use; spawning them is refused."""
SENSORS = (
    _sensor("other.collision"),
    _sensor("other.lane_invasion"),
    _sensor("other.gnss", *GNSS_NOISE),
    _sensor("other.imu", *NOISE),
    _sensor(
        "other.obstacle",
        _number("distance", 5.0, 0.0),
        _number("hit_radius", 0.5, 0.0),
        Attribute("only_dynamics", "bool", "false"),
        Attribute("debug_linetrace", "bool", "false"),
    ),
    _sensor(
        "other.radar",
        _number("horizontal_fov", 30.0, 0.0, 180.0),
        _number("vertical_fov", 30.0, 0.0, 180.0),
        _number("points_per_second", 1500, 1, 1_000_000),
        _number("range", 100.0, 0.01),
    ),
    _camera("rgb", *EFFECTS),
    _camera("depth"),
    _camera("semantic_segmentation"),
    _camera("instance_segmentation"),
    *(_camera(name) for name in NOT_DRAWN),
    _sensor(
        "lidar.ray_cast",
        *LIDAR,
        _number("atmosphere_attenuation_rate", 0.004),
        _number("dropoff_general_rate", 0.0, 0.0, 1.0),
        _number("dropoff_intensity_limit", 0.8),
        _number("dropoff_zero_intensity", 0.0),
        _number("noise_stddev", 0.0),
    ),
    _sensor("lidar.ray_cast_semantic", *LIDAR),
)
EXTENTS = tuple(Attribute(f"extent_{axis}", "float", "1.0") for axis in "xyz")


def library() -> dict[str, Blueprint]:
    """All blueprints by id."""
    found = [
        *(_vehicle(*row) for row in VEHICLES),
        *(_walker(number) for number in range(1, 53)),
        *SENSORS,
        Blueprint("controller.ai.walker", "controller", (_role("default"),)),
        *(
            Blueprint(f"static.prop.{name}", "static", (_role("prop"),), size, (0.0, 0.0, size[2]), 0.0, PROP_TAG)
            for name, size in PROPS
        ),
        Blueprint("static.trigger.friction", "static", (_role("trigger"), _number("friction", 3.5), *EXTENTS)),
        Blueprint("util.actor.empty", "static", (_role("empty"),)),
        Blueprint("spectator", "spectator"),
        Blueprint("traffic.traffic_light", "light", tag=LIGHT_TAG),
    ]
    numbered = [Blueprint(**{**vars(blueprint), "uid": number}) for number, blueprint in enumerate(found, start=1)]
    return {blueprint.id: blueprint for blueprint in numbered}


def check_attributes(blueprint: Blueprint, given: Sequence[codec.Wire]) -> dict[str, str]:
    """The attribute values of a spawn request, completed by the blueprint's defaults.

    Args:
        blueprint: The blueprint.
        given: (name, kind, value) from the client.

    Returns:
        Values by name.

    Raises:
        ValueError: A name is unknown, or a value is invalid.
    """
    known = {attribute.name: attribute for attribute in blueprint.attributes}
    values = {name: attribute.value for name, attribute in known.items()}
    values["ros_name"] = blueprint.id
    for name, _, value in given:
        if name not in values:
            raise ValueError(f"{blueprint.id} has no attribute '{name}'")
        attribute = known.get(name)
        if attribute is not None and attribute.modifiable:
            values[name] = attribute.read(value)
    return values
