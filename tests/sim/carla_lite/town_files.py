"""A map file with what the files of CARLA's towns have.

Cubic geometries in pieces, hills, sidewalks and shoulders whose widths are polynomials, several lane sections, lane
offsets, miles per hour, objects, user data, a junction with lights.

It is the shipped intersection, dressed by this module: nothing of CARLA's own maps is in it.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

from sim.carla_lite import maps

QUARTER = 4 / 3 * (math.sqrt(2) - 1)
"""Of the radius: how far the inner points of a cubic lie from its ends where it follows a quarter circle."""
HILL = 1.5
"""Metres, in the middle of each arm."""


def town() -> str:
    """The OpenDRIVE text of the town."""
    root = ET.fromstring(maps.read("intersection"))
    header = root.find("header")
    assert header is not None
    header.attrib.update({"vendor": "a vendor", "date": "2020-01-01T00:00:00", "name": ""})
    ET.SubElement(header, "userData", {"code": "vectorScene", "value": "x"})
    for road in root.iterfind("road"):
        for speed in road.iterfind("type/speed"):
            speed.attrib.update({"max": "25", "unit": "mph"})
        ET.SubElement(road, "userData")
        (geometry,) = road.iterfind("planView/geometry")
        arm = road.get("junction") == "-1" and geometry.find("line") is not None
        if arm:
            _in_pieces(road, geometry)
            _hill(road)
        elif geometry.find("arc") is not None and road.get("junction") == "-1":
            _as_cubic(geometry)
        if arm:
            _pavements(road)
            _furniture(road)
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    found = root.find("header/geoReference")
    assert found is not None
    return f'<?xml version="1.0" standalone="yes"?>\n{body}'.replace(f">{found.text}<", f"><![CDATA[{found.text}]]><")


def _in_pieces(road: ET.Element, geometry: ET.Element) -> None:
    """A straight road as a line, a cubic and a parametric cubic of either range."""
    plan, length = road.find("planView"), float(geometry.get("length", 0))
    assert plan is not None
    x, y, heading = (float(geometry.get(key, 0)) for key in ("x", "y", "hdg"))
    plan.remove(geometry)
    piece = length / 4
    zero = {f"{letter}V": "0" for letter in "abcd"} | {"aU": "0", "cU": "0", "dU": "0"}
    shapes = (
        ("line", {}),
        ("poly3", {letter: "0" for letter in "abcd"}),
        ("paramPoly3", {"pRange": "normalized", **zero, "bU": str(piece)}),
        ("paramPoly3", {"pRange": "arcLength", **zero, "bU": "1"}),
    )
    for k, (name, values) in enumerate(shapes):
        place = x + k * piece * math.cos(heading), y + k * piece * math.sin(heading)
        numbers = {"s": k * piece, "x": place[0], "y": place[1], "hdg": heading, "length": piece}
        ET.SubElement(
            ET.SubElement(plan, "geometry", {key: repr(value) for key, value in numbers.items()}), name, values
        )


def _as_cubic(geometry: ET.Element) -> None:
    """A quarter circle as a parametric cubic."""
    arc = geometry.find("arc")
    assert arc is not None
    curvature = float(arc.get("curvature", 0))
    radius, inner = 1 / curvature, QUARTER / curvature
    assert math.isclose(float(geometry.get("length", 0)), abs(radius) * math.pi / 2, rel_tol=1e-6)
    geometry.remove(arc)
    u, v = (0.0, inner, radius, radius), (0.0, 0.0, radius - inner, radius)
    values = {"pRange": "normalized"}
    for name, (p0, p1, p2, p3) in (("U", u), ("V", v)):
        cubic = (p0, 3 * (p1 - p0), 3 * (p0 - 2 * p1 + p2), p3 - 3 * p2 + 3 * p1 - p0)
        values |= {f"{letter}{name}": repr(value) for letter, value in zip("abcd", cubic, strict=True)}
    ET.SubElement(geometry, "paramPoly3", values)


def _hill(road: ET.Element) -> None:
    half = float(road.get("length", 0)) / 2
    profile = ET.Element("elevationProfile")
    for s, base, way in ((0.0, 0.0, 1.0), (half, HILL, -1.0)):
        c, d = way * 3 * HILL / half**2, -way * 2 * HILL / half**3
        values = {"s": s, "a": base, "b": 0.0, "c": c, "d": d}
        ET.SubElement(profile, "elevation", {key: repr(value) for key, value in values.items()})
    place = list(road).index(road.find("planView")) + 1  # type: ignore[arg-type]
    road.insert(place, profile)
    lateral = ET.Element("lateralProfile")
    ET.SubElement(lateral, "superelevation", {"s": "0", "a": "0", "b": "0", "c": "0", "d": "0"})
    road.insert(place + 1, lateral)


def _pavements(road: ET.Element) -> None:
    """A shoulder that grows along the section and a sidewalk, on either side, and a lane offset."""
    lanes = road.find("lanes")
    assert lanes is not None
    lanes.insert(0, ET.Element("laneOffset", {"s": "0", "a": "0", "b": "0", "c": "0", "d": "0"}))
    for section in lanes.iterfind("laneSection"):
        for side, sign in (("left", 1), ("right", -1)):
            group = section.find(side)
            assert group is not None
            for number, kind, width in ((3, "shoulder", (0.5, 0.0, 6e-4, -3e-6)), (4, "sidewalk", (2.0, 0, 0, 0))):
                lane = ET.Element("lane", {"id": str(sign * number), "type": kind, "level": "false"})
                for offset, add in ((0.0, 0.0), (15.0, 0.01)):
                    values = {"sOffset": offset, **dict(zip("abcd", (width[0] + add, *width[1:]), strict=True))}
                    ET.SubElement(lane, "width", {key: repr(value) for key, value in values.items()})
                ET.SubElement(lane, "roadMark", {"sOffset": "0", "type": "none", "material": "standard"})
                ET.SubElement(ET.SubElement(lane, "userData"), "vectorLane", {"travelDir": "undirected"})
                group.insert(0 if sign > 0 else len(group), lane)


def _furniture(road: ET.Element) -> None:
    objects = ET.SubElement(road, "objects")
    crossing = {
        "id": "7",
        "name": "SimpleCrosswalk",
        "s": "10",
        "t": "0",
        "zOffset": "0",
        "hdg": "0",
        "type": "crosswalk",
    }
    outline = ET.SubElement(ET.SubElement(objects, "object", {**crossing, "orientation": "none"}), "outline")
    for k in range(4):
        ET.SubElement(outline, "cornerLocal", {"u": str(k // 2), "v": str(k % 2), "z": "0"})
