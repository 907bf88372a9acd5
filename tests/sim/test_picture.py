"""Pictures of environments without scenes: what they keep, when they are taken, how they are framed."""

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

import sim
from sim.errors import UsageError
from sim.picture import Camera, Picture, pack_pixels, require_pictures
from sim.render import LIGHT, Overlay, PictureRenderer

DRAWN = {"render_modes": ["rgb_array"], "render_fps": 50}


def picture(pixels, **changes):
    size, packed = pack_pixels(pixels)
    made = Picture("gym:Some-v0", 0.0, 0.02, 0, size, packed, np.ones(2, bool), ("Left", "Right"))
    return dataclasses.replace(made, **changes)


def camera(render, space=None, names=()):
    return Camera("gym:Some-v0", space or spaces.Discrete(2), names, DRAWN, render)


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_a_picture_keeps_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    made = picture(pixels)
    assert made.size == (60, 40)
    assert np.array_equal(made.pixels(), pixels)


@pytest.mark.parametrize("size", [(61, 40), (59, 40), (0, 40), (60, -40), (10**6, 10**6)])
def test_pixels_that_do_not_fit_the_size_are_refused(size):
    with pytest.raises(ValueError, match=r"pixels|reshape"):
        picture(np.zeros((40, 60, 3), np.uint8), size=size).pixels()


# --- camera ----------------------------------------------------------------------------------------------------------


def test_a_film_takes_no_more_pictures_than_it_shows():
    taken = []

    def render():
        taken.append(len(taken))
        return np.full((4, 4, 3), len(taken), np.uint8)

    shots = camera(render)
    seen = [int(shots.take(step, np.ones(2, bool), rate=10.0).pixels()[0, 0, 0]) for step in range(12)]
    assert seen == [1] * 5 + [2] * 5 + [3] * 2  # 50 steps and 10 pictures per second
    assert shots.take(12, np.ones(2, bool), rate=None).pixels()[0, 0, 0] == 3
    assert shots.take(0, np.ones(2, bool), rate=10.0).pixels()[0, 0, 0] == 4  # a new episode


def test_time_and_bounds_are_those_of_the_environment():
    box = spaces.Box(np.array([-1.0, -3.0], np.float32), np.array([2.0, 3.0], np.float32))
    made = camera(lambda: np.zeros((4, 4, 3), np.uint8), box).take(25, np.ones(2, bool))
    assert (made.time, made.step, made.names) == (pytest.approx(0.5), 25, ("a0", "a1"))
    assert made.low.tolist() == [-1.0, -3.0]
    assert made.high.tolist() == [2.0, 3.0]


def broken():
    raise AttributeError("no GL here\nand more")


@pytest.mark.parametrize(
    ("render", "words"),
    [(broken, "cannot be drawn: no GL here"), (lambda: None, "no pictures"), (lambda: np.zeros((4, 4)), "no pictures")],
)
def test_what_cannot_be_drawn_is_one_line(render, words):
    with pytest.raises(UsageError, match=words) as caught:
        camera(render).take(0, np.ones(2, bool))
    assert "\n" not in str(caught.value)


def test_an_environment_that_draws_no_pictures_is_refused_by_name():
    require_pictures("gym:Some-v0", DRAWN)
    with pytest.raises(UsageError, match=r"'gym:Some-v0' draws no pictures.*modes: ansi"):
        require_pictures("gym:Some-v0", {"render_modes": ["ansi"]})


# --- what actions are called -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "count"),
    [
        ("gym:CartPole-v1", 2),
        ("gym:Acrobot-v1", 3),
        ("gym:MountainCar-v0", 3),
        ("gym:LunarLander-v3", 4),
        ("gym:FrozenLake-v1", 4),
        ("gym:Pendulum-v1", 1),
        ("gym:MountainCarContinuous-v0", 1),
        ("gym:BipedalWalker-v3", 4),
    ],
)
def test_every_action_has_a_name(scenario, count):
    env = sim.make(scenario)
    assert len(env.action_names) == count
    env.close()


@pytest.mark.parametrize(
    ("scenario", "config", "names", "measure"),
    [
        ("gym:CartPole-v1", {}, ("Right", "Left"), lambda env, obs: obs[1]),
        ("gym:MountainCar-v0", {}, ("Right", "Off", "Left"), lambda env, obs: obs[1]),
        ("gym:LunarLander-v3", {}, ("Main", "Off"), lambda env, obs: obs[3]),
    ],
)
def test_names_say_where_actions_push(scenario, config, names, measure):
    env, pushed = sim.make(scenario, config=config), []
    for name in names:
        env.reset(seed=0)
        obs = env.step(env.action_names.index(name))[0]
        pushed.append(measure(env, obs))
    assert pushed == sorted(pushed, reverse=True)
    assert len(set(pushed)) == len(pushed)
    env.close()


@pytest.mark.parametrize(("scenario", "width"), [("gym:FrozenLake-v1", 4), ("gym:CliffWalking-v1", 12)])
def test_names_say_where_a_grid_leads(scenario, width):
    options = {"is_slippery": False} | ({"map_name": "4x4"} if width == 4 else {})
    env = sim.make(scenario, config={"options": options})
    inner = env.env.unwrapped
    middle = 9 if width == 4 else width + 5
    moves = {"Left": -1, "Right": 1, "Up": -width, "Down": width}
    for name, move in moves.items():
        ((_, reached, _, _),) = inner.P[middle][env.action_names.index(name)]
        assert reached == middle + move, name
    env.close()


def test_mujoco_names_the_joints_that_it_moves():
    pytest.importorskip("mujoco")
    env = sim.make("gym:Hopper-v5")
    assert env.action_names == ("thigh", "leg", "foot")
    env.close()


# --- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["gym:CartPole-v1", "gym:Pendulum-v1"])
def test_drawing_neither_changes_an_episode_nor_keeps_it_from_being_saved(scenario):
    drawn, plain = sim.make(scenario, render_mode="rgb_array"), sim.make(scenario)
    for env in (drawn, plain):
        env.reset(seed=3)
    drawn.render()
    action = drawn.action_space.sample()
    state = drawn.get_state()
    ahead = [drawn.step(action)[0] for _ in range(5)]
    drawn.set_state(state)
    plain.set_state(state)
    for obs in ahead:
        drawn.render()
        assert np.array_equal(drawn.step(action)[0], obs)
        assert np.array_equal(plain.step(action)[0], obs)
    drawn.set_state(plain.get_state())  # of a run that was not watched
    assert drawn.render().dtype == np.uint8
    drawn.close()


# --- the frame -------------------------------------------------------------------------------------------------------


def bounding_box(image, colour):
    rows, columns = np.nonzero((image == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("size", [(640, 400), (300, 700), (1280, 720)])
@pytest.mark.parametrize("shape", [(40, 60), (80, 20)])
def test_a_picture_fills_its_pane_with_its_aspect_kept(size, shape):
    renderer = PictureRenderer(size, LIGHT)
    image = renderer.draw(picture(np.full((*shape, 3), (10, 200, 30), np.uint8)))
    assert image.shape == (size[1], size[0], 3)
    left, top, right, bottom = bounding_box(image, (10, 200, 30))
    assert (right - left) / (bottom - top) == pytest.approx(shape[1] / shape[0], rel=0.02)
    middle = (left + right) / 2
    assert middle == pytest.approx(size[0] / 2, abs=1)
    assert max((right - left) / size[0], (bottom - top) / size[1]) > 0.8
    assert top >= 32  # below the strip


def test_the_border_has_the_colour_of_who_controls():
    renderer = PictureRenderer((640, 400), LIGHT)
    shown = picture(np.full((40, 60, 3), (10, 200, 30), np.uint8))
    images = [renderer.draw(shown, Overlay(controller=name)) for name in ("learner", "expert", "human")]
    left, top, _, _ = bounding_box(images[0], (10, 200, 30))
    borders = [image[top + 20, left - 1].astype(int) for image in images]
    for name, border in zip(("learner", "expert", "human"), borders, strict=True):
        distances = {each: np.abs(border - LIGHT.controller(each)).sum() for each in ("learner", "expert", "human")}
        assert min(distances, key=distances.get) == name


def test_zoom_and_pan_are_undone_by_follow():
    renderer = PictureRenderer((640, 400), LIGHT)
    shown = picture(np.full((40, 60, 3), (10, 200, 30), np.uint8))
    before = renderer.draw(shown)
    renderer.zoom_by(0.5)
    renderer.pan(30, 10)
    left, _, right, _ = bounding_box(renderer.draw(shown), (10, 200, 30))
    whole = bounding_box(before, (10, 200, 30))
    assert (right - left) == pytest.approx((whole[2] - whole[0]) / 2, abs=1)
    assert (left + right) / 2 == pytest.approx(640 / 2 + 30, abs=1)
    renderer.follow()
    assert np.array_equal(renderer.draw(shown), before)
