"""Road maps from OpenDRIVE. Oracles: CARLA's client, which reads it without a server, and numerical integration."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.carla_lite import maps
from sim.carla_lite.boxes import Box
from sim.carla_lite.curves import Arc, Curve, Line, ParamPoly3, Poly3, Spiral
from sim.carla_lite.roads import RoadMap
from sim.errors import UsageError

LINE = '<geometry s="0" x="0" y="0" hdg="0" length="100"><line/></geometry>'
WIDTH = '<width sOffset="0" a="3.5" b="0" c="0" d="0"/>'
CENTRE = '<center><lane id="0" type="none"/></center>'
LANES = f'<laneSection s="0">{CENTRE}<right><lane id="-1" type="driving">{WIDTH}</lane></right></laneSection>'


def road(
    geometry: str = LINE, lanes: str = LANES, length: float = 100, number: int = 1, extra: str = "", link: str = ""
) -> str:
    return (
        f'<road id="{number}" length="{length}" junction="-1"><link>{link}</link><planView>{geometry}</planView>'
        f"{extra}<lanes>{lanes}</lanes></road>"
    )


def document(*parts: str) -> str:
    return '<OpenDRIVE><header revMajor="1" revMinor="4" name="test"/>' + "".join(parts) + "</OpenDRIVE>"


def shape(curve: str, length: float = 100) -> str:
    return f'<geometry s="0" x="10" y="5" hdg="0.3" length="{length}">{curve}</geometry>'


EVERYTHING = document(
    road(
        length=150,
        geometry='<geometry s="0" x="10" y="5" hdg="0.3" length="50"><line/></geometry>'
        '<geometry s="50" x="57.7668244562803" y="19.775010333066" hdg="0.3" length="100"><arc curvature="0.01"/>'
        "</geometry>",
        extra='<elevationProfile><elevation s="0" a="1" b="0.01" c="0.0002" d="0"/>'
        '<elevation s="80" a="3.08" b="0.042" c="0" d="0"/></elevationProfile>',
        lanes='<laneOffset s="0" a="0.5" b="0" c="0.0003" d="-0.000002"/><laneOffset s="100" a="1.5" b="0.01"/>'
        '<laneSection s="0"><left><lane id="2" type="shoulder"><width sOffset="0" a="1.5"/></lane>'
        '<lane id="1" type="driving"><width sOffset="0" a="3" b="0.02"/></lane></left>'
        '<center><lane id="0" type="none"/></center><right><lane id="-1" type="driving"><link><successor id="-1"/>'
        '</link><width sOffset="0" a="3.5"/><width sOffset="30" a="3.5" b="-0.03" c="0.0001"/></lane>'
        '<lane id="-2" type="driving"><width sOffset="0" a="3.5"/></lane></right></laneSection>'
        '<laneSection s="70"><center><lane id="0" type="none"/></center><right><lane id="-1" type="driving">'
        '<link><predecessor id="-1"/></link><width sOffset="0" a="3.5"/></lane></right></laneSection>',
    )
)
"""Two geometries, a lane offset, slopes, a lane section that ends, widths that change on both sides."""

SHAPES = {
    "line": shape("<line/>"),
    "arc": shape('<arc curvature="-0.01"/>'),
    "spiral": shape('<spiral curvStart="-0.02" curvEnd="0.03"/>'),
    "poly3": shape('<poly3 a="0" b="0" c="0.004" d="0.00001"/>'),
    "normalized paramPoly3": shape(
        '<paramPoly3 aU="0" bU="50" cU="100" dU="-50" aV="0" bV="0" cV="20" dV="0" pRange="normalized"/>'
    ),
    "paramPoly3 by length": shape(
        '<paramPoly3 aU="0" bU="1" cU="0" dU="0" aV="0" bV="0" cV="0.005" dV="0" pRange="arcLength"/>'
    ),
}
TEXTS = (
    {"everything": EVERYTHING}
    | {name: document(road(geometry)) for name, geometry in SHAPES.items()}
    | {name: maps.read(name) for name in maps.available()}
)


@pytest.mark.parametrize("name", TEXTS)
def test_lanes_lie_where_carlas_client_has_them(name: str) -> None:
    carla = pytest.importorskip("carla")
    text = TEXTS[name]
    road_map, theirs = RoadMap.parse(text), carla.Map(name, text)
    widths = {(lane.road, lane.section, lane.id): lane for lane in road_map.lanes}
    waypoints = theirs.generate_waypoints(7.0)
    assert len(waypoints) > 10
    for waypoint in waypoints:
        x, y, z, yaw = road_map.pose(str(waypoint.road_id), waypoint.lane_id, waypoint.s)
        place = waypoint.transform.location
        assert math.dist((x, y, z), (place.x, place.y, place.z)) < 0.01
        assert abs(math.remainder(yaw - waypoint.transform.rotation.yaw, 360)) < 0.1
        lane = widths[str(waypoint.road_id), waypoint.section_id, waypoint.lane_id]
        order = np.argsort(lane.s)
        assert abs(np.interp(waypoint.s, lane.s[order], lane.width[order]) - waypoint.lane_width) < 0.01
        assert lane.type.capitalize() == waypoint.lane_type.name
        assert (lane.junction is not None) == waypoint.is_junction


@pytest.mark.parametrize("name", maps.available())
def test_lanes_lead_where_carlas_client_says(name: str) -> None:
    carla = pytest.importorskip("carla")
    text = maps.read(name)
    lanes = RoadMap.parse(text).lanes
    mine = {
        ((a.road, a.section, a.id), (b.road, b.section, b.id))
        for a in lanes
        for b in (lanes[k] for k in a.successors)
        if a.type == "driving"
    }
    theirs = {
        tuple((str(w.road_id), w.section_id, w.lane_id) for w in pair) for pair in carla.Map(name, text).get_topology()
    }
    assert mine == theirs


@pytest.mark.parametrize("name", ["everything", *maps.available()])
def test_the_ground_is_paved_where_carlas_client_finds_a_lane(name: str) -> None:
    carla = pytest.importorskip("carla")
    text = TEXTS[name]
    road_map, theirs = RoadMap.parse(text), carla.Map(name, text)
    rng = np.random.default_rng(0)
    middles = np.concatenate([lane.center for lane in road_map.lanes])
    points = middles[rng.integers(len(middles), size=1500)] + rng.uniform(-12, 12, (1500, 2))
    for point, paved in zip(points, road_map.on_road(points), strict=True):
        where = carla.Location(*map(float, point))
        found = [theirs.get_waypoint(where, True, kind) for kind in (carla.LaneType.Driving, carla.LaneType.Shoulder)]
        near = [(*beside(waypoint, point), waypoint.lane_width) for waypoint in found if waypoint is not None]
        beyond_an_end = any(w is not None and not (w.next(1.0) and w.previous(1.0)) for w in found)
        excess = min(abs(across) - width / 2 for _, across, width in near)
        # the client knows only the lane with the closest middle: beside a narrow one it misses the wide one
        narrow = any(width < 3.4 for _, _, width in near)
        if abs(excess) > 0.05 and not beyond_an_end and not (paved and narrow):
            assert paved == (excess < 0), point


def beside(waypoint: Any, point: np.ndarray) -> tuple[float, float]:
    """How far a point is ahead and to the right of a waypoint."""
    place, yaw = waypoint.transform.location, math.radians(waypoint.transform.rotation.yaw)
    x, y = point[0] - place.x, point[1] - place.y
    return x * math.cos(yaw) + y * math.sin(yaw), y * math.cos(yaw) - x * math.sin(yaw)


@pytest.mark.parametrize("name", maps.available())
def test_the_middle_of_every_lane_is_paved_and_far_away_is_not(name: str) -> None:
    road_map = RoadMap.parse(maps.read(name))
    assert road_map.on_road(np.concatenate([lane.center for lane in road_map.lanes])).all()
    assert not road_map.on_road(np.array([[1e5, 0.0], [0.0, -1e5], [-1e5, 1e5], [np.nan, 0.0]])).any()


def walk(curvature: np.ndarray, length: float) -> tuple[float, float, float]:
    """Where a car ends that drives these curvatures (odd number, equally spaced): Simpson's rule, twice."""
    h = length / (len(curvature) - 1)
    heading = np.concatenate([[0.0], np.cumsum((curvature[:-1] + curvature[1:]) / 2 * h)])
    weights = np.full(len(curvature), 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    x, y = (float((f(heading) * weights).sum() * h / 3) for f in (np.cos, np.sin))
    return x, y, float(heading[-1])


def end(curve: Curve, s: float | None = None) -> tuple[float, float, float]:
    x, y, heading = curve.at(np.array([curve.length if s is None else s]))
    return float(x[0]), float(y[0]), float(heading[0])


bends = st.floats(-0.2, 0.2)
lengths = st.floats(0.01, 500.0)


@given(lengths, bends, bends)
def test_lines_arcs_and_spirals_end_where_steering_leads(length: float, first: float, last: float) -> None:
    steps = np.linspace(0, 1, 20001)
    assert end(Line(length)) == (length, 0, 0)
    assert end(Arc(length, first)) == pytest.approx(walk(np.full(20001, first), length), abs=1e-6)
    assert end(Spiral(length, first, last)) == pytest.approx(walk(first + (last - first) * steps, length), abs=1e-6)


@given(st.floats(5, 200), st.floats(-0.5, 0.5), st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1))
def test_polynomial_curves_are_measured_along_themselves(
    length: float, b: float, c: float, d: float, share: float
) -> None:
    y = (0.0, b * length, c * length, d * length)
    curve = ParamPoly3(length, (0.0, length, 0.0, 0.0), y)
    x, v, heading = end(curve, share * length)
    p = np.linspace(0, x / length, 20001)
    points = np.stack([length * p, y[1] * p + y[2] * p**2 + y[3] * p**3])
    assert v == pytest.approx(points[1, -1], abs=1e-6)
    assert np.hypot(*np.diff(points)).sum() == pytest.approx(share * length, abs=1e-3)
    assert math.tan(heading) == pytest.approx(b + 2 * c * p[-1] + 3 * d * p[-1] ** 2, abs=1e-6)


@given(st.floats(5, 100), st.floats(-0.3, 0.3), st.floats(-0.01, 0.01), st.floats(0, 1))
def test_a_poly3_is_the_paramPoly3_with_the_same_graph(length: float, b: float, c: float, share: float) -> None:
    poly = Poly3(length, (0.0, b, c, 0.0))
    param = ParamPoly3(length, (0.0, 2 * length, 0.0, 0.0), (0.0, 2 * b * length, 4 * c * length**2, 0.0))
    assert end(poly, share * length) == pytest.approx(end(param, share * length), abs=1e-5)


@given(st.integers(-2, 1).filter(bool), st.floats(0, 69.9))
def test_lanes_keep_their_width_to_both_sides_of_the_middle(lane: int, s: float) -> None:
    road_map = RoadMap.parse(EVERYTHING)
    strip = next(found for found in road_map.lanes if found.id == lane and found.section == 0)
    assert np.hypot(*(strip.left - strip.right).T) == pytest.approx(strip.width)
    assert (strip.left + strip.right) / 2 == pytest.approx(strip.center)
    travel = np.diff(strip.center, axis=0)
    aside = (strip.right - strip.left)[:-1]
    assert (travel[:, 0] * aside[:, 1] - travel[:, 1] * aside[:, 0] > 0).all()  # right is clockwise from ahead
    yaw = math.radians(road_map.pose("1", lane, s)[3])
    nearest = min(int(np.argmin(np.abs(strip.s - s))), len(travel) - 1)
    assert travel[nearest] @ (math.cos(yaw), math.sin(yaw)) > 0.99 * np.hypot(*travel[nearest])


def test_heights_follow_the_road_and_its_closest_lane_beside_it() -> None:
    road_map = RoadMap.parse(EVERYTHING)
    for s in (0.5, 40.0, 79.0, 149.5):
        x, y, z, _ = road_map.pose("1", -1, s)
        assert road_map.height(np.array([[x, y]])) == pytest.approx([z], abs=0.01)
    x, y, z, yaw = road_map.pose("1", -2, 0.0)
    outside = np.array([[x, y]]) - 5 * np.array([math.cos(math.radians(yaw)), math.sin(math.radians(yaw))])
    assert not road_map.on_road(outside).any()
    assert road_map.height(outside) == pytest.approx([z], abs=0.01)


def test_under_a_bridge_the_height_is_that_of_the_road_one_is_on() -> None:
    high = '<elevationProfile><elevation s="0" a="6" b="0" c="0" d="0"/></elevationProfile>'
    crossing = '<geometry s="0" x="50" y="-50" hdg="1.5707963267948966" length="100"><line/></geometry>'
    road_map = RoadMap.parse(document(road(), road(crossing, number=2, extra=high)))
    under = np.array([[51.75, 1.75]])
    assert road_map.height(under) == pytest.approx([6.0])
    assert road_map.height(under, near=np.array([0.4])) == pytest.approx([0.0])
    assert road_map.height(under, near=np.array([5.0])) == pytest.approx([6.0])


def test_speed_limits_hold_where_their_road_is_in_kmh() -> None:
    limits = {"km/h": 50.0, "mph": 80.4672, "m/s": 180.0}
    for unit, expected in limits.items():
        kind = f'<type s="0" type="town"><speed max="50" unit="{unit}"/></type>'
        road_map = RoadMap.parse(document(road(extra=kind)))
        assert road_map.speed_limit(np.array([[50.0, 1.0], [50.0, -9.0]])) == pytest.approx(
            [expected, math.nan], nan_ok=True
        )
    assert np.isnan(RoadMap.parse(document(road())).speed_limit(np.array([[50.0, 1.0]]))).all()


LIGHT = (
    '<signals><signal s="90" t="-5" id="7" name="l" dynamic="yes" orientation="{way}" zOffset="4" type="1000001"'
    ' hOffset="0.1">{validity}</signal></signals>'
)
TWO_WAY = (
    f'<laneSection s="0"><left><lane id="2" type="shoulder">{WIDTH}</lane>'
    f'<lane id="1" type="driving">{WIDTH}</lane></left>{CENTRE}<right><lane id="-1" type="driving">{WIDTH}</lane>'
    f'<lane id="-2" type="driving">{WIDTH}</lane></right></laneSection>'
)


@pytest.mark.parametrize(
    ("way", "validity", "governed"),
    [
        ("+", "", [-1, -2]),
        ("-", "", [1]),
        ("none", "", [1, -1, -2]),
        ("+", '<validity fromLane="-2" toLane="-2"/>', [-2]),
        ("+", '<validity fromLane="-1" toLane="2"/>', [-1, 1]),
    ],
)
def test_a_light_governs_the_driving_lanes_it_is_valid_for(way: str, validity: str, governed: list[int]) -> None:
    (light,) = RoadMap.parse(document(road(lanes=TWO_WAY, extra=LIGHT.format(way=way, validity=validity)))).signals
    assert sorted(stop.lane for stop in light.stops) == sorted(governed)
    for stop in light.stops:
        assert (stop.x, stop.y) == pytest.approx((90, {1: -1.75, -1: 1.75, -2: 5.25}[stop.lane]))
        assert stop.yaw == pytest.approx(0.0 if stop.lane < 0 else 180.0)
        assert (stop.box.x, stop.box.y) == pytest.approx((87 if stop.lane < 0 else 93, stop.y))
        assert stop.box.extent == pytest.approx((1.5, 3.5 / 4, 1.0))
        assert light.trigger is not None
        assert light.trigger.contains(np.array([[stop.box.x, stop.box.y]])).all()


def test_a_light_stands_where_carlas_client_puts_its_landmark() -> None:
    carla = pytest.importorskip("carla")
    text = maps.read("intersection")
    landmarks = {landmark.id: landmark for landmark in carla.Map("intersection", text).get_all_landmarks()}
    lights = RoadMap.parse(text).signals
    assert {light.id for light in lights} == set(landmarks)
    for light in lights:
        landmark = landmarks[light.id]
        place, rotation = landmark.transform.location, landmark.transform.rotation
        assert (light.x, light.y, light.z) == pytest.approx((place.x, place.y, place.z), abs=0.01)
        assert abs(math.remainder(light.yaw - rotation.yaw, 360)) < 0.1
        assert {stop.lane for stop in light.stops} == {
            lane for first, last in landmark.get_lane_validities() for lane in range(first, last + 1)
        }


def test_a_light_that_refers_into_a_junction_stops_the_traffic_before_it() -> None:
    before = '<successor elementType="junction" elementId="9"/>'
    reference = '<signals><signalReference s="0" t="-5" id="7" orientation="+"/></signals>'
    inside = road(
        '<geometry s="0" x="100" y="0" hdg="0" length="20"><line/></geometry>',
        length=20,
        number=2,
        extra=reference,
        link='<predecessor elementType="road" elementId="1" contactPoint="end"/>',
    ).replace('junction="-1"', 'junction="9"')
    junction = (
        '<junction id="9"><connection id="0" incomingRoad="1" connectingRoad="2" contactPoint="start">'
        '<laneLink from="-1" to="-1"/></connection><controller id="c"/></junction>'
        '<controller id="c"><control signalId="7"/></controller>'
    )
    away = LIGHT.format(way="+", validity='<validity fromLane="0" toLane="0"/>')
    (light,) = RoadMap.parse(document(road(link=before, extra=away), inside, junction)).signals
    (stop,) = light.stops
    assert (stop.road, stop.lane, stop.s) == ("1", -1, 100.0)
    assert (stop.box.x, stop.box.y) == pytest.approx((97.0, 1.75))
    assert (light.controller, light.junction) == ("c", "9")


def test_a_box_contains_what_is_within_its_turned_edges() -> None:
    box = Box(10.0, 5.0, 0.0, 90.0, (3.0, 1.0, 1.0))  # 3 m along y, 1 m along x
    points = np.array([[10.0, 7.9], [10.0, 8.1], [10.9, 5.0], [11.1, 5.0]])
    assert box.contains(points).tolist() == [True, False, True, False]


angles = st.floats(-180, 180)
sizes = st.floats(0.2, 5)


@given(st.floats(-8, 8), st.floats(-8, 8), angles, angles, sizes, sizes, sizes, sizes)
def test_boxes_overlap_when_they_share_a_point(
    x: float, y: float, own: float, yaw: float, long: float, wide: float, length: float, width: float
) -> None:
    box = Box(3.0, -2.0, 0.0, own, (long, wide, 1.0))
    middle, turn = np.array([[3.0 + x, -2.0 + y]]), math.radians(yaw)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1, 1, 60)), axis=-1).reshape(-1, 2)
    ahead, aside = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    points = middle + grid[:, :1] * length * ahead + grid[:, 1:] * width * aside
    shared = bool(box.contains(points).any())
    overlaps = bool(box.overlaps(middle, np.array([yaw]), np.array([[length, width]]))[0])
    smaller = Box(3.0, -2.0, 0.0, own, (max(long - 0.3, 0.0), max(wide - 0.3, 0.0), 1.0))
    if shared:
        assert overlaps
    elif smaller.extent[0] > 0 < smaller.extent[1]:  # the grid is finer than 0.3 m
        assert not smaller.overlaps(middle, np.array([yaw]), np.array([[length, width]]))[0]


def test_the_volume_of_a_light_is_its_trigger_seen_from_an_actor_that_faces_across_the_road() -> None:
    for light in RoadMap.parse(maps.read("intersection")).signals:
        trigger, volume = light.trigger, light.volume
        assert trigger is not None
        assert volume is not None
        yaw = math.radians(light.actor_yaw)
        x = light.x + volume.x * math.cos(yaw) - volume.y * math.sin(yaw)
        y = light.y + volume.x * math.sin(yaw) + volume.y * math.cos(yaw)
        assert (x, y) == pytest.approx((trigger.x, trigger.y))
        across = np.array([[x, y]]) + 0.9 * volume.extent[0] * np.array([[math.cos(yaw), math.sin(yaw)]])
        assert trigger.contains(across).all()
        assert volume.x < 0  # the pole stands to the right of the lanes
        assert volume.extent[0] == pytest.approx(3.5 / 2 + 3.5 / 4)
        assert volume.extent[1] == pytest.approx(1.5)


@pytest.mark.parametrize("name", maps.available())
def test_spawn_points_are_apart_on_driving_lanes_outside_junctions_and_always_the_same(name: str) -> None:
    carla = pytest.importorskip("carla")
    text = maps.read(name)
    points = RoadMap.parse(text).spawn_points()
    assert len(points) >= 60
    assert points == RoadMap.parse(text).spawn_points()
    xy = np.array(points)[:, :2]
    apart = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) + 100 * np.eye(len(xy))
    assert apart.min() > 3.0  # neighbours in the next lane
    theirs = carla.Map(name, text)
    for x, y, z, yaw in points:
        waypoint = theirs.get_waypoint(carla.Location(x, y, z), project_to_road=False)
        assert waypoint is not None
        assert not waypoint.is_junction
        along, across = beside(waypoint, np.array([x, y]))  # the client finds the closest place only roughly
        assert abs(along) < 0.5
        assert abs(across) < 0.02
        assert abs(math.remainder(yaw - waypoint.transform.rotation.yaw, 360)) < 1.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "broken XML"),
        ("<OpenDRIVE><road", "broken XML"),
        ("<osm/>", "root element is <osm>"),
        ("<OpenDRIVE/>", "no roads"),
        (document(), "no roads"),
        (document(road(geometry="")), "road '1' has no geometry"),
        (document(road(lanes="")), "road '1' has no lanes"),
        (document(road(shape("<nurbs/>"))), "unsupported geometry <nurbs>"),
        (document(road(shape(""))), "unsupported geometry nothing"),
        (document(road(shape('<arc curvature="sharp"/>'))), "curvature = 'sharp'"),
        (document(road(shape("<arc/>"))), "curvature = None"),
        (document(road(shape("<line/>", length=-3))), "length = -3"),
        (document(road(shape("<paramPoly3/>"))), "single point"),
        (document(road(length=math.nan)), "length = 'nan'"),
        (document(road(lanes=LANES.replace('"-1"', '"right"'))), "id = 'right'"),
        (document(road(lanes=LANES.replace(WIDTH, '<border a="3"/>'))), "no <width>"),
        (document(road(lanes=LANES + LANES)), "ascending s"),
        (
            document(road(extra='<type s="0"><speed max="5" unit="knots"/></type>')),
            "unit of speed 'knots'",
        ),
    ],
)
def test_a_broken_map_is_refused_with_one_clear_line(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        RoadMap.parse(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: "<OpenDRIVE>" + b.decode("latin-1")))
def test_no_text_breaks_the_reader(text: str) -> None:
    with pytest.raises(UsageError):
        RoadMap.parse(text)


@given(
    st.sampled_from(["length", "s", "hdg", "a", "id", "sOffset", "x"]), st.sampled_from(["", "x", "inf", "-1", "1e9"])
)
def test_a_damaged_number_is_read_or_refused_but_never_a_crash(attribute: str, value: str) -> None:
    text = document(road()).replace(f' {attribute}="', f' {attribute}="{value}" old{attribute}="', 1)
    with contextlib.suppress(UsageError):
        road_map = RoadMap.parse(text)
        road_map.on_road(np.zeros((3, 2)))
        road_map.spawn_points()
