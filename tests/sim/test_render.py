"""The renderer: pictures of every family of scenes, without a display, the same bytes every time."""

from __future__ import annotations

import dataclasses
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import UsageError
from sim.render import DARK, LIGHT, Overlay, SceneRenderer, interpolate, smooth, video, write_video
from sim.render.panels import BOTTOM, TOP
from sim.render.road import Polyline, RoadGeometry
from sim.scene import Ego, Goal, LaneShape, Scene, Vehicles

OVERLAY = Overlay(
    probs=np.array([0.0, 0.1, 0.6, 0.2, 0.1]), expert_action=2, executed_action=3, controller="expert", caption="A gap."
)
FAMILIES = (
    "lane-change",
    "highway-fast-v0",
    "roundabout-v0",
    "roundabout-v1",
    "intersection-v0",
    "intersection-v2",
    "merge-v0",
    "merge-v1",
    "exit-v0",
    "two-way-v0",
    "u-turn-v0",
    "racetrack-v0",
    "parking-v0",
)


def straight_scene(
    cars: tuple[tuple[float, float], ...] = ((40.0, 0.0), (-20.0, 4.0), (10.0, 8.0)),
    x: float = 500.0,
    time: float = 0.0,
    ids: tuple[int, ...] | None = None,
    **ego: float,
) -> Scene:
    """Four lanes along x, the ego in the leftmost one at 20 m/s, cars at (dx, y) with 15 m/s."""
    place = np.array(cars, dtype=float).reshape(-1, 2)
    n = len(place)
    zeros = np.zeros(n)
    shapes = tuple(
        LaneShape(
            np.array([[0.0, 4.0 * lane], [2000.0, 4.0 * lane]]),
            4.0,
            "solid" if lane == 0 else "broken",
            "solid" if lane == 3 else "broken",
        )
        for lane in range(4)
    )
    values = {"x": x, "y": 0.0, "heading": 0.0, "speed": 20.0, "s": x, "d": 0.0, "lane": 0, "target_lane": 0} | ego
    return Scene(
        scenario="test",
        time=time,
        decision_period=0.5,
        ego=Ego(speed_index=2, **values),  # type: ignore[arg-type]
        vehicles=Vehicles(
            ids=np.arange(1, n + 1) if ids is None else np.array(ids),
            x=x + place[:, 0],
            y=place[:, 1],
            heading=zeros,
            speed=zeros + 15.0,
            acceleration=zeros,
            s=x + place[:, 0],
            d=place[:, 1],
            lane=np.rint(place[:, 1] / 4).astype(int),
            length=zeros + 5.0,
            width=zeros + 2.0,
            crashed=zeros.astype(bool),
        ),
        lane_centers=(0.0, 4.0, 8.0, 12.0),
        lane_width=4.0,
        set_points=(10.0, 15.0, 20.0, 25.0),
        legal=np.ones(5, dtype=bool),
        goal=Goal(lane=3, s=560.0, remaining=560.0 - x),
        shapes=shapes,
    )


def at(frame: np.ndarray, pixel: tuple[float, float]) -> tuple[int, ...]:
    return tuple(frame[round(pixel[1]), round(pixel[0])].tolist())


def apart(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return max(abs(p - q) for p, q in zip(a, b, strict=True))


# -- pictures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1280, 320), (600, 150), (640, 480), (1921, 1081), (160, 120)])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_picture_has_the_asked_size_and_is_not_blank(size, theme):
    frame = SceneRenderer(size=size, theme=theme).draw(straight_scene(), OVERLAY)
    assert frame.shape == (size[1], size[0], 3)
    assert frame.dtype == np.uint8
    assert frame.flags.writeable
    assert len(np.unique(frame[::3, ::3].reshape(-1, 3) @ (65536, 256, 1))) > 20


def test_the_ego_is_at_the_anchor_in_the_accent_colour():
    renderer = SceneRenderer()
    frame = renderer.draw(straight_scene())
    column, row = renderer.to_pixel(500.0, 0.0)
    assert column == pytest.approx(0.3 * 1280)
    assert apart(at(frame, (column, row)), LIGHT.ego) <= 2
    accent = np.abs(frame[TOP:].astype(int) - LIGHT.ego).max(axis=2) <= 2
    assert renderer.camera is not None
    assert abs(np.argwhere(accent)[:, 1].mean() - column) < 10 * renderer.camera.zoom


def test_a_car_ahead_is_to_the_right_at_its_pixel():
    renderer = SceneRenderer()
    with_car = renderer.draw(straight_scene(cars=((40.0, 4.0),)))
    assert renderer.camera is not None
    zoom, ego, car = renderer.camera.zoom, renderer.to_pixel(500.0, 0.0), renderer.to_pixel(540.0, 4.0)
    assert car == pytest.approx((ego[0] + 40.0 * zoom, ego[1] + 4.0 * zoom))
    without = SceneRenderer().draw(straight_scene(cars=()))
    rows, columns = np.nonzero((with_car[TOP:] != without[TOP:]).any(axis=2))
    assert (columns.min() + columns.max()) / 2 == pytest.approx(car[0], abs=0.35 * zoom)
    assert (rows.min() + rows.max()) / 2 + TOP == pytest.approx(car[1], abs=0.35 * zoom)
    assert np.ptp(columns) == pytest.approx(5.0 * zoom, abs=0.5 * zoom)


def test_faster_traffic_is_lighter_and_braking_shows_red():
    def body(**change: float) -> tuple[np.ndarray, SceneRenderer]:
        scene = straight_scene(cars=((40.0, 4.0),))
        cars = dataclasses.replace(scene.vehicles, **{key: np.array([value]) for key, value in change.items()})
        renderer = SceneRenderer()
        return renderer.draw(dataclasses.replace(scene, vehicles=cars)), renderer

    slow, renderer = body(speed=5.0)
    fast, _ = body(speed=25.0)
    middle = renderer.to_pixel(540.0, 4.0)
    assert sum(at(fast, middle)) > sum(at(slow, middle)) + 60
    braking, _ = body(acceleration=-2.0)
    calm, _ = body(acceleration=0.0)
    tail = renderer.to_pixel(537.65, 4.0)
    assert apart(at(braking, tail), LIGHT.brake) < 60 < apart(at(calm, tail), LIGHT.brake)


def test_a_crash_is_crossed_and_ringed():
    scene = straight_scene()
    crashed = dataclasses.replace(scene, ego=dataclasses.replace(scene.ego, crashed=True))
    renderer = SceneRenderer()
    frame = renderer.draw(crashed)
    assert apart(at(frame, renderer.to_pixel(500.0, 0.0)), (255, 255, 255)) < 40
    assert (np.abs(frame.astype(int) - LIGHT.crash).max(axis=2) < 10).sum() > 50


def test_the_goal_lane_is_tinted_up_to_a_chequered_line():
    renderer = SceneRenderer()
    frame = renderer.draw(straight_scene(cars=()))
    before, after = at(frame, renderer.to_pixel(550.0, 12.3)), at(frame, renderer.to_pixel(570.0, 12.3))
    assert before[1] > before[0] + 20
    assert apart(after, LIGHT.asphalt) <= 2
    column, first = renderer.to_pixel(559.6, -1.9)
    line = frame[round(first) : round(renderer.to_pixel(0, 13.9)[1]), round(column)]
    assert {bool(value > 128) for value in line[:, 0]} == {True, False}


def test_the_trail_is_kept_within_an_episode_and_forgotten_after():
    renderer = SceneRenderer()
    scenes = [straight_scene(x=500.0 + 10 * k, time=0.5 * k, cars=()) for k in range(6)]
    frames = [renderer.draw(scene) for scene in scenes]
    fresh = SceneRenderer().draw(scenes[-1])
    behind = renderer.to_pixel(530.0, 0.0)
    assert apart(at(frames[-1], behind), at(fresh, behind)) > 20
    again = renderer.draw(scenes[0])
    assert np.array_equal(again, frames[0])


def test_a_lane_change_shows_where_it_leads():
    scene = straight_scene(cars=())
    changing = dataclasses.replace(scene, ego=dataclasses.replace(scene.ego, target_lane=1))
    renderer = SceneRenderer()
    frame = renderer.draw(changing)
    arrow = frame[round(renderer.to_pixel(0, 3.0)[1]) : round(renderer.to_pixel(0, 5.0)[1])].astype(int)
    assert ((arrow[..., 0] - arrow[..., 2]) > 80).sum() > 20


def test_side_information_changes_only_its_strip_and_the_gauges_above():
    scene = straight_scene()
    one = SceneRenderer().draw(scene, OVERLAY)
    other = SceneRenderer().draw(scene, dataclasses.replace(OVERLAY, caption="Another.", expert_action=0))
    changed = np.nonzero((one != other).any(axis=(1, 2)))[0]
    assert changed.min() >= 320 - BOTTOM


@pytest.mark.parametrize("controller", ["learner", "expert", "human"])
def test_every_part_of_the_side_information_may_be_missing(controller):
    renderer, scene = SceneRenderer(), straight_scene()
    frames = [
        renderer.draw(scene, overlay).tobytes()
        for overlay in (
            Overlay(controller=controller),
            Overlay(controller=controller, executed_action=1),
            Overlay(controller=controller, probs=np.full(5, 0.2)),
            Overlay(controller=controller, caption="word " * 200),
            Overlay(controller=controller, probs=np.full(7, 1 / 7), labels=tuple("abcdefg")),
        )
    ]
    assert len(set(frames)) == len(frames)


def test_equal_calls_give_equal_bytes():
    scenes = [straight_scene(x=500.0 + 10 * k, time=0.5 * k) for k in range(4)]
    first, second = (
        [renderer.draw(scene, OVERLAY).tobytes() for scene in smooth(scenes, 10)]
        for renderer in (SceneRenderer(), SceneRenderer())
    )
    assert first == second


def test_the_camera_settles_smoothly_where_the_road_widens():
    narrow = straight_scene()
    ramp = LaneShape(np.array([[520.0, 24.0], [2000.0, 24.0]]), 4.0)
    renderer = SceneRenderer()
    renderer.draw(narrow)
    assert renderer.camera is not None
    zooms = [renderer.camera.zoom]
    shapes = (*narrow.shapes, ramp)
    for step in range(1, 80):
        later = straight_scene(x=500.0 + step, time=0.05 * step)
        renderer.draw(dataclasses.replace(later, shapes=shapes))
        zooms.append(renderer.camera.zoom)
    steps = np.diff(zooms)
    assert (steps <= 1e-9).all()
    assert zooms[-1] < zooms[0]
    assert np.abs(steps).max() < 0.1 * (zooms[0] - zooms[-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_environments_is_drawn_with_the_ego_in_view(name):
    env = sim.make(name)
    env.reset(seed=1)
    renderer = SceneRenderer()
    for _ in range(3):
        scene = env.scene()
        frame = renderer.draw(scene)
        column, row = renderer.to_pixel(scene.ego.x, scene.ego.y)
        assert 0 < column < 1280
        assert TOP < row < 320
        near = frame[int(row) - 3 : int(row) + 4, int(column) - 3 : int(column) + 4].reshape(-1, 3).astype(int)
        assert scene.ego.crashed or (np.abs(near - LIGHT.ego).max(axis=1) < 30).any()
        assert (np.abs(frame.astype(int) - LIGHT.asphalt).max(axis=2) < 3).mean() > 0.02
        action = env.action_space.sample() * 0 if hasattr(env.action_space, "low") else 1
        if env.step(action)[2]:
            break
    env.close()


def test_a_scene_without_lanes_or_traffic_is_drawn():
    scene = dataclasses.replace(straight_scene(cars=()), shapes=(), goal=None)
    assert SceneRenderer().draw(scene).std() > 0


def test_pictures_need_no_display_and_open_none():
    code = (
        "import os, pickle, sys; os.environ['SDL_VIDEODRIVER'] = 'there-is-no-display'\n"
        "import pygame\n"
        "from sim.render import SceneRenderer\n"
        "renderer = SceneRenderer()\n"
        "assert renderer.draw(pickle.load(sys.stdin.buffer)).shape == (320, 1280, 3)\n"
        "assert not pygame.display.get_init() and pygame.display.get_surface() is None\n"
        "renderer.close()\n"
    )
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(straight_scene()), check=True, timeout=120)


def test_an_environment_renders_the_same_picture():
    env = sim.make("lane-change", render_mode="rgb_array")
    env.reset(seed=0)
    picture: Any = env.render()
    assert np.array_equal(picture, SceneRenderer().draw(env.scene()))
    env.close()


def test_closing_leaves_pygame_and_others_alone_and_a_lost_font_module_comes_back():
    import pygame

    renderer = SceneRenderer()
    before = renderer.draw(straight_scene())
    SceneRenderer().close()
    assert pygame.font.get_init()
    pygame.font.quit()
    later = renderer.draw(straight_scene(cars=((33.0, 0.0),)))
    assert not np.array_equal(before, later)


def test_a_window_without_a_display_is_a_usage_error(monkeypatch):
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "there-is-no-display")
    pygame.display.quit()
    with pytest.raises(UsageError, match="rgb_array"):
        SceneRenderer(window=True)


def test_a_driver_that_shows_nothing_is_not_taken_for_a_display(monkeypatch):
    import pygame

    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    pygame.display.quit()
    with pytest.raises(UsageError, match="rgb_array"):
        SceneRenderer(window=True)
    assert not pygame.display.get_init()


def test_a_window_shows_pictures_and_closes_alone(monkeypatch):
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.quit()
    renderer = SceneRenderer(window=True)
    shown = renderer.draw(straight_scene())
    renderer.draw(straight_scene(x=502.0, time=0.1))
    renderer.close()
    assert pygame.display.get_init()
    assert shown.any()
    pygame.display.quit()


@pytest.mark.parametrize("arguments", [{"size": (10, 10)}, {"theme": "lihgt"}])
def test_bad_arguments_are_usage_errors(arguments):
    with pytest.raises(UsageError):
        SceneRenderer(**arguments)


def test_themes_keep_ego_and_traffic_apart_in_lightness_or_blueness():
    for theme in (LIGHT, DARK):
        for share in np.linspace(0, 1, 9):
            body = theme.traffic(float(share))
            assert (body[2] - body[0]) - (theme.ego[2] - theme.ego[0]) > 150


# -- what a user may change --------------------------------------------------------------------------------------------


def test_zooming_keeps_the_ego_at_its_place_and_has_limits():
    renderer, scene = SceneRenderer(), straight_scene()
    plain = renderer.draw(scene)
    assert renderer.camera is not None
    place, zoom = renderer.to_pixel(500.0, 0.0), renderer.camera.zoom
    for factor, total in ((2.0, 2.0), (100.0, 4.0), (0.001, 0.4)):
        renderer.zoom_by(factor)
        frame = renderer.draw(scene)
        assert renderer.camera.zoom == pytest.approx(total * zoom)
        assert renderer.to_pixel(500.0, 0.0) == pytest.approx(place)
        assert apart(at(frame, place), LIGHT.ego) <= 2
    renderer.follow()
    assert np.array_equal(renderer.draw(scene), plain)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_a_senseless_zoom_is_a_usage_error(factor):
    with pytest.raises(UsageError, match="factor"):
        SceneRenderer().zoom_by(factor)


def test_panning_moves_the_view_along_with_the_ego_until_it_is_followed_again():
    renderer, scene = SceneRenderer(), straight_scene()
    renderer.pan(50.0, 50.0)  # before the first picture
    plain = renderer.draw(scene)
    column, row = renderer.to_pixel(500.0, 0.0)
    renderer.pan(-200.0, 30.0)
    renderer.draw(scene)
    assert renderer.to_pixel(500.0, 0.0) == pytest.approx((column - 200.0, row + 30.0))
    renderer.draw(straight_scene(x=510.0, time=0.5))
    assert renderer.to_pixel(510.0, 0.0) == pytest.approx((column - 200.0, row + 30.0))
    assert renderer.camera is not None
    centre = renderer.camera.x, renderer.camera.y
    renderer.zoom_by(3.0)
    renderer.draw(straight_scene(x=510.0, time=0.5))
    assert (renderer.camera.x, renderer.camera.y) == pytest.approx(centre)
    for _ in range(100):
        renderer.pan(1000.0, 0.0)
    renderer.draw(scene)
    assert abs(renderer.camera.x - 500.0) < 600.0
    renderer.follow()
    renderer.reset()
    assert np.array_equal(renderer.draw(scene), plain)


def test_another_size_goes_on_with_trail_and_camera():
    ramp = LaneShape(np.array([[400.0, 24.0], [2000.0, 24.0]]), 4.0)
    scenes = [straight_scene(x=500.0 + 2 * k, time=0.1 * k, cars=()) for k in range(12)]
    wide = [dataclasses.replace(scene, shapes=(*scenes[0].shapes, ramp)) for scene in scenes]
    resized, straight = SceneRenderer(size=(900, 500)), SceneRenderer(size=(1280, 320))
    for renderer in (resized, straight):
        renderer.draw(scenes[0])
        for scene in wide[1:-1]:
            renderer.draw(scene)
    resized.resize((1280, 320))
    frames = [renderer.draw(wide[-1]) for renderer in (resized, straight)]
    assert frames[0].shape == (320, 1280, 3)
    assert resized.camera is not None
    assert straight.camera is not None
    assert resized.camera.zoom == pytest.approx(straight.camera.zoom, rel=0.05)
    assert resized.camera.y == pytest.approx(straight.camera.y)
    fresh = SceneRenderer(size=(1280, 320)).draw(wide[-1])
    behind = resized.to_pixel(517.0, 0.0)
    assert apart(at(frames[0], behind), at(fresh, resized.to_pixel(490.0, 0.0))) > 20
    with pytest.raises(UsageError, match="160 x 120"):
        resized.resize((100, 100))


def test_another_theme_gives_the_pictures_of_that_theme():
    renderer, scene = SceneRenderer(theme="dark"), straight_scene()
    renderer.draw(scene)
    renderer.set_theme("light")
    assert np.array_equal(renderer.draw(scene, OVERLAY), SceneRenderer().draw(scene, OVERLAY))
    with pytest.raises(UsageError, match="theme"):
        renderer.set_theme("blue")


def test_without_strips_the_road_has_the_full_height():
    scene = straight_scene()
    bare = SceneRenderer(gauges=False, strip=False)
    frame = bare.draw(scene, OVERLAY)
    assert bare.camera is not None
    assert bare.camera.view == (0, 0, 1280, 320)
    assert apart(at(frame, (5, 2)), LIGHT.ground) <= 2
    assert apart(at(frame, (5, 317)), LIGHT.ground) <= 2
    below = SceneRenderer(gauges=False)
    below.draw(scene, OVERLAY)
    assert below.camera is not None
    assert below.camera.view[1] == 0
    assert below.camera.view[3] < 320


# -- unsafe actions and speeds -----------------------------------------------------------------------------------------


def reddish(frame: np.ndarray) -> np.ndarray:
    """Which pixels are as red as a hatched road."""
    values = frame.astype(int)
    return (values[..., 0] - values[..., 1] > 40) & (values[..., 0] - values[..., 2] > 20)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_an_unsafe_lane_change_is_hatched_in_that_lane_and_marked_below(theme):
    scene = straight_scene(cars=(), y=4.0, d=4.0, lane=1, target_lane=1)
    for action, y in ((0, 0.0), (2, 8.0)):
        unsafe = np.arange(5) == action
        renderer = SceneRenderer(theme=theme)
        marked = renderer.draw(scene, dataclasses.replace(OVERLAY, unsafe=unsafe))
        plain = SceneRenderer(theme=theme).draw(scene, OVERLAY)
        rows, columns = np.nonzero((marked != plain).any(axis=2)[: 320 - BOTTOM])
        top, bottom = renderer.to_pixel(0.0, y - 2.0)[1], renderer.to_pixel(0.0, y + 2.0)[1]
        assert top <= rows.min() < rows.max() <= bottom
        left, right = renderer.to_pixel(489.0, 0.0)[0], renderer.to_pixel(511.0, 0.0)[0]
        assert left < columns.min() + 10 < columns.max() - 10 < right
        strip = marked[round(renderer.to_pixel(0.0, y)[1]), round(left) + 5 : round(right) - 5]
        assert np.abs(np.diff(reddish(strip).astype(int))).sum() >= 8  # stripes, not a plain colour
        assert (marked != plain).any(axis=2)[320 - BOTTOM :].sum() > 20


def test_three_actions_are_read_as_what_they_mean_and_continuous_ones_as_nothing():
    lanes = straight_scene(cars=(), y=4.0, d=4.0, lane=1, target_lane=1)

    def env(unsafe: list[bool], **change: Any) -> bytes:
        renderer = SceneRenderer(strip=False)
        scene = dataclasses.replace(lanes, **change)
        return renderer.draw(scene, Overlay(unsafe=np.array(unsafe))).tobytes()

    three: dict[str, Any] = {"legal": np.ones(3, dtype=bool)}
    safe, lateral = [False] * 3, {**three, "set_points": ()}
    assert env([True, True, True], **three) == env(safe, **three)  # slower, idle, faster
    assert env([False, True, False], **lateral) == env(safe, **lateral)
    assert len({env(unsafe, **lateral) for unsafe in (safe, [True, False, False], [False, False, True])}) == 3
    two: dict[str, Any] = {"legal": np.ones(2, dtype=bool)}
    assert env([True, True], **two) == env([False, False], **two)


def test_an_unsafe_change_over_the_edge_of_the_road_is_not_drawn():
    scene = straight_scene(cars=())
    renderer = SceneRenderer(strip=False)
    unsafe = Overlay(unsafe=np.array([True, False, False, False, False]))
    assert np.array_equal(renderer.draw(scene, unsafe), renderer.draw(scene, Overlay()))


def test_speeds_stand_beside_the_six_nearest_cars_only():
    cars = tuple((dx, y) for y in (0.0, 4.0, 8.0, 12.0) for dx in (-25.0, 25.0, 50.0))
    scene = straight_scene(cars=cars, y=4.0, d=4.0, lane=1, target_lane=1)
    plain = SceneRenderer(size=(1280, 720)).draw(scene)
    renderer = SceneRenderer(size=(1280, 720))
    renderer.show_speeds = True
    labelled = renderer.draw(scene)
    assert renderer.camera is not None
    seen = set()
    for row, column in np.argwhere((labelled != plain).any(axis=2)).tolist():
        x = renderer.camera.x + (column - 640) / renderer.camera.zoom
        y = (
            renderer.camera.y
            + (row - sum(renderer.camera.view[1::2]) + renderer.camera.view[3] / 2) / renderer.camera.zoom
        )
        seen.add(min(cars, key=lambda car: abs(car[0] + 500.0 + 3.0 - x) + 9 * abs(car[1] - y)))
    assert seen == {(dx, y) for y in (0.0, 4.0, 8.0) for dx in (-25.0, 25.0)}


def test_a_car_that_comes_fast_from_behind_in_the_target_lane_shows_when():
    def red(speed: float, target: int, behind: float = 30.0) -> int:
        scene = straight_scene(cars=((-behind, 4.0),), target_lane=target)
        scene = dataclasses.replace(scene, vehicles=dataclasses.replace(scene.vehicles, speed=np.array([speed])))
        renderer = SceneRenderer(size=(1280, 720))
        renderer.show_speeds = True
        frame = renderer.draw(scene).astype(int)
        return int((np.abs(frame - LIGHT.brake).max(axis=2) < 3).sum())

    assert red(30.0, 1) > red(22.0, 1) + 200
    assert red(30.0, 0) == red(22.0, 0)
    assert red(50.0, 1, behind=60.0) > red(22.0, 1, behind=60.0) + 200  # out of view


# -- what is kept between pictures -------------------------------------------------------------------------------------


def test_what_is_kept_changes_no_pixel_and_stays_small(monkeypatch):
    from sim.render import ground, text, vehicles

    env = sim.make("highway-fast-v0")
    env.reset(seed=2)
    scenes = [env.scene()]
    for _ in range(4):
        env.step(1)
        scenes.append(env.scene())
    env.close()
    film = list(smooth(scenes, 8))
    kept = SceneRenderer()
    expected = [kept.draw(scene, OVERLAY).tobytes() for scene in film]
    monkeypatch.setattr(vehicles, "MEMORY", 30_000)
    monkeypatch.setattr(ground, "PATTERNS", 50_000)
    monkeypatch.setattr(text, "CACHE", 3)
    forgetful = SceneRenderer()
    assert [forgetful.draw(scene, OVERLAY).tobytes() for scene in film] == expected
    assert forgetful._sprites.bytes < 150_000 < kept._sprites.bytes < 12 << 20


def test_a_level_road_looks_like_the_same_road_drawn_as_polygons():
    scene = straight_scene(cars=())
    forth, back = np.array([[13.0, 0.0], [2000.0, 0.0]]), np.array([[2000.0, 0.0], [5.0, 0.0]])
    shapes = tuple(
        dataclasses.replace(shape, center=(back if lane == 0 else forth) + (0.0, 4.0 * lane))
        for lane, shape in enumerate(scene.shapes)
    )
    scene = dataclasses.replace(scene, shapes=shapes)
    bent = tuple(
        dataclasses.replace(shape, center=np.insert(shape.center, 1, shape.center.mean(axis=0), axis=0))
        for shape in shapes
    )
    level, polygons = SceneRenderer(), SceneRenderer()
    a = level.draw(scene).astype(int)
    b = polygons.draw(dataclasses.replace(scene, shapes=bent)).astype(int)
    assert level._road.is_level(500.0, 0.0, 100.0)
    assert not polygons._road.is_level(500.0, 0.0, 100.0)
    road = slice(round(level.to_pixel(0.0, -3.0)[1]), round(level.to_pixel(0.0, 14.0)[1]))
    difference = np.abs(a[road] - b[road]).max(axis=2)
    assert (difference > 12).mean() < 0.05
    assert (difference > 70).mean() < 0.002


def test_lanes_that_end_in_view_end_there():
    scene = straight_scene(cars=())
    short = dataclasses.replace(scene.shapes[3], center=np.array([[0.0, 12.0], [530.0, 12.0]]))
    renderer = SceneRenderer()
    frame = renderer.draw(dataclasses.replace(scene, shapes=(*scene.shapes[:3], short), goal=None))
    assert renderer._road.is_level(500.0, 0.0, 100.0)
    assert apart(at(frame, renderer.to_pixel(525.0, 12.0)), LIGHT.asphalt) <= 2
    assert apart(at(frame, renderer.to_pixel(535.0, 13.0)), LIGHT.ground) <= 2
    assert apart(at(frame, renderer.to_pixel(535.0, 8.0)), LIGHT.asphalt) <= 2


# -- in between --------------------------------------------------------------------------------------------------------


def test_interpolation_ends_at_the_scenes():
    a, b = straight_scene(), straight_scene(x=510.0, time=0.5)
    assert interpolate(a, b, 0.0) is a
    assert interpolate(a, b, 1.0) is b
    near_a, near_b = interpolate(a, b, 1e-9), interpolate(a, b, 1 - 1e-9)
    for end, near in ((a, near_a), (b, near_b)):
        assert near.ego.x == pytest.approx(end.ego.x, abs=1e-6)
        assert near.time == pytest.approx(end.time, abs=1e-6)
        assert near.vehicles.x == pytest.approx(end.vehicles.x, abs=1e-6)
        assert near.goal is not None
        assert end.goal is not None
        assert near.goal.remaining == pytest.approx(end.goal.remaining, abs=1e-6)


def test_constant_speed_stays_constant_in_between():
    a, b = straight_scene(), straight_scene(x=510.0, time=0.5)
    assert [interpolate(a, b, share).ego.x for share in (0.25, 0.5, 0.75)] == pytest.approx([502.5, 505.0, 507.5])
    assert interpolate(a, b, 0.3).ego.s == pytest.approx(503.0)


def test_real_scenes_move_on_between_decisions():
    env = sim.make("lane-change")
    env.reset(seed=1)
    a = env.scene()
    env.step(4)
    b = env.scene()
    between = [interpolate(a, b, share) for share in np.linspace(0, 1, 11)]
    assert (np.diff([scene.ego.x for scene in between]) > 0).all()
    assert all(scene.vehicles.ids.tolist() == a.vehicles.ids.tolist() for scene in between)


def test_bodies_are_matched_by_id_not_by_order():
    a = straight_scene(cars=((10.0, 4.0), (50.0, 8.0)), ids=(7, 9))
    b = straight_scene(cars=((50.0, 8.0), (10.0, 4.0), (90.0, 12.0)), ids=(9, 7, 4), x=507.5, time=0.5)
    early, late = interpolate(a, b, 0.4), interpolate(a, b, 0.6)
    assert early.vehicles.ids.tolist() == [7, 9]
    assert late.vehicles.ids.tolist() == [7, 9, 4]
    assert early.vehicles.x == pytest.approx([513.0, 553.0])
    assert late.vehicles.x[2] == pytest.approx(597.5 - 0.2 * 15.0)


def test_headings_turn_the_shorter_way():
    a = straight_scene(heading=math.pi - 0.1)
    b = straight_scene(heading=-math.pi + 0.1, time=0.5)
    assert math.cos(interpolate(a, b, 0.5).ego.heading) == pytest.approx(-1.0)


def test_different_episodes_give_the_nearer_scene():
    a, b = straight_scene(time=9.0), straight_scene(x=400.0, time=0.0)
    assert interpolate(a, b, 0.4) is a
    assert interpolate(a, b, 0.6) is b


def test_smooth_fills_the_time_between_decisions():
    scenes = [straight_scene(x=500.0 + 10 * k, time=0.5 * k) for k in range(3)]
    times = [scene.time for scene in smooth(scenes, 20)]
    assert times == pytest.approx(np.arange(21) * 0.05)


# -- geometry ----------------------------------------------------------------------------------------------------------


def test_right_of_a_lane_is_right():
    lane = Polyline.through(np.array([[0.0, 0.0], [10.0, 0.0]]))
    assert lane.normals[0].tolist() == [0.0, 1.0]
    assert lane.project(4.0, 3.0)[:2] == (4.0, 3.0)


def test_dashes_go_on_across_the_border_of_two_lanes():
    def shape(x0: float, x1: float) -> LaneShape:
        return LaneShape(np.array([[x0, 0.0], [x1, 0.0]]), 4.0, "broken", "none")

    road = RoadGeometry((shape(0.0, 50.0), shape(50.0, 100.0)))
    starts = np.concatenate([road.dashes(border, 0.0, 50.0, 0.1)[:, 0, 0] for border in road.borders])
    regular = starts[np.abs(starts - 50.0) > 1e-6]
    assert (np.abs(np.remainder(regular + 1e-9, 9.0)) < 1e-6).all()


def test_a_path_stops_where_the_road_forks():
    def lane(*points: tuple[float, float]) -> LaneShape:
        return LaneShape(np.array(points, dtype=float), 4.0)

    road = RoadGeometry(
        (lane((0, 0), (50, 0)), lane((50, 0), (100, 0)), lane((100, 0), (150, 0)), lane((100, 0), (130, 30)))
    )
    path = road.follow(10.0, 0.0, 0.0, 500.0)
    assert path is not None
    assert path.length == pytest.approx(90.0)
    assert road.follow(10.0, 20.0, 0.0, 500.0) is None


# -- films -------------------------------------------------------------------------------------------------------------


def frames(count: int, size: tuple[int, int] = (320, 121)) -> list[np.ndarray]:
    renderer = SceneRenderer(size=size)
    return [renderer.draw(straight_scene(x=500.0 + k, time=0.05 * k)) for k in range(count)]


def test_an_mp4_holds_every_frame(tmp_path: Path):
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    made = frames(12)
    path = write_video(tmp_path / "deep" / "film.mp4", iter(made), fps=20)
    read = [np.asarray(frame) for frame in imageio.get_reader(path)]  # list() would ask for the length: inf
    assert len(read) == 12
    assert read[0].shape == (122, 320, 3)
    assert np.abs(read[5][:121].astype(int) - made[5]).mean() < 6
    assert [file.name for file in path.parent.iterdir()] == ["film.mp4"]


def test_a_gif_holds_every_frame(tmp_path: Path):
    from PIL import Image, ImageSequence

    path = write_video(tmp_path / "film.gif", frames(7), fps=20)
    with Image.open(path) as film:
        assert sum(1 for _ in ImageSequence.Iterator(film)) == 7
        assert film.info["duration"] == 50


def test_without_the_extra_an_mp4_is_refused_by_name_and_a_bare_name_becomes_a_gif(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(video, "_has_ffmpeg", lambda: False)
    with pytest.raises(UsageError, match=r"lgdrl\[video\]"):
        write_video(tmp_path / "film.mp4", frames(2))
    assert write_video(tmp_path / "film", frames(2)).name == "film.gif"


def test_a_film_that_fails_leaves_the_old_one_and_no_rest(tmp_path: Path):
    path = tmp_path / "film.gif"
    path.write_bytes(b"old")

    def broken():
        yield from frames(2)
        raise RuntimeError("the world ended")

    with pytest.raises(RuntimeError, match="the world ended"):
        write_video(path, broken())
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.parametrize(
    ("name", "content", "fps", "message"),
    [
        ("film.avi", 1, 30.0, "film|format"),
        ("film.gif", 0, 30.0, "no frames"),
        ("film.gif", 1, 0.0, "fps"),
    ],
)
def test_bad_films_are_usage_errors(tmp_path: Path, name, content, fps, message):
    with pytest.raises(UsageError, match=message):
        write_video(tmp_path / name, frames(content), fps)
    assert not list(tmp_path.iterdir())
