"""Pictures: drawn from a scene alone, without a display, the same bytes for the same scenes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import sim
from sim.errors import UsageError
from sim.render import LIGHT, Overlay, SceneRenderer, interpolate, smooth, write_video


@pytest.fixture(scope="module")
def scenes():
    env = sim.make("lane-change")
    env.reset(seed=1)
    found = [env.scene()]
    for action in (4, 4, 4, 1):
        env.step(action)
        found.append(env.scene())
    return found


def near(image, colour, tolerance=40):
    """bool (H, W): pixels close to a colour."""
    return np.abs(image.astype(int) - np.array(colour[:3])).sum(axis=2) < tolerance


def test_a_frame_is_an_rgb_picture_of_the_asked_size_without_a_window(scenes):
    import pygame

    for size in ((1280, 320), (640, 200), (333, 177)):
        image = SceneRenderer(size=size).draw(scenes[0])
        assert image.shape == (size[1], size[0], 3)
        assert image.dtype == np.uint8
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert not pygame.display.get_init() or pygame.display.get_surface() is None


def test_the_same_scenes_give_the_same_bytes(scenes):
    first, second = SceneRenderer(), SceneRenderer()
    for scene in scenes:
        assert np.array_equal(first.draw(scene), second.draw(scene))


def test_the_ego_is_where_the_camera_says_in_its_own_colour(scenes):
    renderer = SceneRenderer()
    image = renderer.draw(scenes[0])
    x, y = renderer.to_pixel(scenes[0].ego.x, scenes[0].ego.y)
    patch = image[int(y) - 8 : int(y) + 8, int(x) - 20 : int(x) + 20]
    assert near(patch, LIGHT.controller("learner")).any()


def test_a_car_ahead_is_to_the_right_and_a_lane_to_the_right_is_below(scenes):
    renderer = SceneRenderer()
    renderer.draw(scenes[0])
    ego = scenes[0].ego
    here = renderer.to_pixel(ego.x, ego.y)
    assert renderer.to_pixel(ego.x + 10, ego.y)[0] > here[0]
    assert renderer.to_pixel(ego.x, ego.y + 4)[1] > here[1]


def test_an_overlay_changes_only_what_it_shows(scenes):
    plain = SceneRenderer().draw(scenes[0])
    probs = np.array([0.0, 0.7, 0.1, 0.1, 0.1])
    shown = SceneRenderer().draw(scenes[0], Overlay(probs=probs, executed_action=1, caption="clear road"))
    assert plain.shape == shown.shape
    assert not np.array_equal(plain, shown)


@pytest.mark.parametrize("name", ["highway-fast-v0", "merge-v1", "roundabout-v1", "intersection-v2", "parking-v0"])
def test_every_kind_of_road_is_drawn(name):
    env = sim.make(name)
    env.reset(seed=0)
    image = SceneRenderer(size=(640, 240)).draw(env.scene())
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    env.close()


def test_interpolation_ends_at_its_scenes_and_moves_between_them(scenes):
    a, b = scenes[:2]
    assert interpolate(a, b, 0.0) is a
    assert interpolate(a, b, 1.0) is b
    places = [interpolate(a, b, share).ego.x for share in np.linspace(0, 1, 11)]
    assert np.all(np.diff(places) > 0)
    middle = interpolate(a, b, 0.5)
    assert a.time < middle.time < b.time
    assert list(middle.vehicles.ids) == list(a.vehicles.ids)


def test_smoothing_fills_the_time_between_decisions(scenes):
    assert len(list(smooth(scenes, 20))) == 4 * 10 + 1


def test_a_crash_is_visible(scenes):
    crashed = dataclasses.replace(scenes[0], ego=dataclasses.replace(scenes[0].ego, crashed=True))
    assert not np.array_equal(SceneRenderer().draw(scenes[0]), SceneRenderer().draw(crashed))


def test_films_hold_every_frame_and_bad_names_are_refused(scenes, tmp_path):
    from PIL import Image

    renderer = SceneRenderer(size=(320, 120))
    frames = [renderer.draw(scene) for scene in scenes]
    with Image.open(write_video(tmp_path / "film.gif", iter(frames), fps=10)) as film:
        assert film.n_frames == len(frames)
    with pytest.raises(UsageError):
        write_video(tmp_path / "film.xyz", iter(frames), fps=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.gif"]
