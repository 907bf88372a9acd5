"""The blueprint library: the usual ids and attributes of CARLA 0.9, with the sizes of the real vehicles.

Sizes (half extents in metres) and masses are rounded public figures of CARLA's vehicles.
"""

from __future__ import annotations

from sim.carla_lite.blueprints import Attribute, Blueprint, flag, number, role
from sim.carla_lite.sensor_blueprints import SENSORS

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
SIZE = Attribute("size", "string", "unknown", modifiable=False)
"""Of props; CARLA's classes (tiny to huge) are not published for each prop."""
FLAT = 0.05
"""Half height up to which cars drive over a prop, m."""


def _vehicle(name: str, base: str, extent: tuple[float, float, float], mass: float, generation: str) -> Blueprint:
    wheels = "2" if base in (MOTORCYCLE, BICYCLE) else "4"
    special = {"firetruck": "emergency", "ambulance": "emergency", "police": "emergency"}
    kind = next((value for word, value in special.items() if word in name), "")
    attributes = (
        role("autopilot", "scenario", "ego_vehicle"),
        Attribute("object_type", "string", "", modifiable=False),
        Attribute("number_of_wheels", "int", wheels, modifiable=False),
        Attribute("base_type", "string", base, modifiable=False),
        Attribute("special_type", "string", kind, modifiable=False),
        Attribute("generation", "int", generation, modifiable=False),
        Attribute("has_lights", "bool", "true" if generation == "2" else "false", modifiable=False),
        Attribute("has_dynamic_doors", "bool", "false", modifiable=False),
        flag("sticky_control", True),
        flag("terramechanics", False),
        Attribute("color", "color", COLOURS[0], COLOURS),
        *([Attribute("driver_id", "int", "1", ("1", "2"))] if wheels == "2" else ()),
    )
    return Blueprint(f"vehicle.{name}", "vehicle", attributes, extent, (0.0, 0.0, extent[2]), mass, TAGS[base])


def _walker(number: int) -> Blueprint:
    child = number in (9, 10, 11, 12, 13, 14, 48, 49)
    attributes = (
        role("pedestrian"),
        Attribute("gender", "string", "male" if number % 2 else "female", modifiable=False),
        Attribute("age", "string", "child" if child else "adult", modifiable=False),
        Attribute("generation", "int", "2" if number >= 15 else "1", modifiable=False),
        flag("is_invincible", True),
        Attribute("speed", "float", "0.0", ("0.0", "1.4", "2.8")),
        Attribute("can_use_wheelchair", "bool", "false", modifiable=False),
        flag("use_wheelchair", False),
    )
    height = 0.55 if child else 0.93
    size = (0.188, 0.188, height)
    return Blueprint(f"walker.pedestrian.{number:04d}", "walker", attributes, size, (0.0, 0.0, 0.0), 75.0, WALKER_TAG)


EXTENTS = tuple(number(f"extent_{axis}", 1.0) for axis in "xyz")


def library() -> dict[str, Blueprint]:
    """All blueprints by id."""
    found = [
        *(_vehicle(*row) for row in VEHICLES),
        *(_walker(k) for k in range(1, 53)),
        *SENSORS,
        Blueprint("controller.ai.walker", "controller", (role("default"),)),
        *(
            Blueprint(f"static.prop.{name}", "static", (role("prop"), SIZE), size, (0.0, 0.0, size[2]), 0.0, PROP_TAG)
            for name, size in PROPS
        ),
        Blueprint("static.trigger.friction", "static", (role("default"), number("friction", 3.5), *EXTENTS)),
        Blueprint("util.actor.empty", "static", (role("default"),)),
        Blueprint("spectator", "spectator"),
        Blueprint("traffic.traffic_light", "light", tag=LIGHT_TAG),
    ]
    numbered = [Blueprint(**{**vars(blueprint), "uid": k}) for k, blueprint in enumerate(found, start=1)]
    return {blueprint.id: blueprint for blueprint in numbered}
