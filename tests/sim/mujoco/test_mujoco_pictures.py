"""Pictures of MuJoCo without a display, and what is said where they cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.errors import UsageError
from sim.mujoco import pictures


@pytest.fixture
def own_choice(monkeypatch):
    """No `MUJOCO_GL` of the user; what a test sets is taken back."""
    monkeypatch.setenv(pictures.VARIABLE, "")
    monkeypatch.delenv(pictures.VARIABLE)


@pytest.fixture
def drawing(own_choice):
    if all(pictures.why_not(name) for name in pictures.HEADLESS):
        pytest.skip("neither EGL nor OSMesa draws here")


def test_pictures_have_the_size_of_the_config_and_follow_the_state(drawing):
    config = {"width": 80, "height": 60}
    one, other = (sim.make("mujoco:Walker2d-v5", config=config, render_mode="rgb_array") for _ in range(2))
    one.reset(seed=0)
    first = one.render()
    assert (first.shape, first.dtype) == ((60, 80, 3), np.uint8)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 50
    for _ in range(10):
        one.step(np.full(6, 0.7, np.float32))
    later = one.render()
    assert not np.array_equal(first, later)
    other.set_state(one.get_state())
    assert np.array_equal(other.render(), later)
    one.close()
    other.close()


def test_vectorised_environments_draw(drawing):
    envs = sim.make_vec("mujoco:Reacher-v5", 2, seed=0, config={"width": 40, "height": 40}, render_mode="rgb_array")
    envs.reset()
    assert [picture.shape for picture in envs.get_images()] == [(40, 40, 3)] * 2
    envs.close()


def test_without_a_render_mode_there_is_no_picture():
    env = sim.make("mujoco:Reacher-v5")
    env.reset(seed=0)
    assert env.render() is None


def test_there_is_no_window():
    with pytest.raises(UsageError, match="choose 'rgb_array', or watch it in `lgdrl play`"):
        sim.make("mujoco:Reacher-v5", render_mode="human")


def works_with(monkeypatch, *names):
    monkeypatch.setattr(pictures, "why_not", lambda name: None if name in names else "broken")


@pytest.mark.parametrize(("working", "chosen"), [(("egl", "osmesa"), "egl"), (("osmesa", "glfw"), "osmesa")])
def test_the_first_library_that_draws_without_a_display_is_used(own_choice, monkeypatch, working, chosen):
    works_with(monkeypatch, *working)
    pictures.require_pictures()
    assert pictures.os.environ[pictures.VARIABLE] == chosen


def test_without_any_one_line_says_what_to_install(own_choice, monkeypatch):
    works_with(monkeypatch, "glfw")
    with pytest.raises(UsageError, match="libosmesa6") as error:
        sim.make("mujoco:Reacher-v5", render_mode="rgb_array")
    assert "\n" not in str(error.value)
    assert pictures.VARIABLE not in pictures.os.environ


def test_the_users_choice_wins(monkeypatch):
    works_with(monkeypatch, "egl", "glfw")
    monkeypatch.setenv(pictures.VARIABLE, "glfw")
    pictures.require_pictures()
    assert pictures.os.environ[pictures.VARIABLE] == "glfw"
    monkeypatch.setenv(pictures.VARIABLE, "osmesa")
    with pytest.raises(UsageError, match="MUJOCO_GL = 'osmesa': this OpenGL library does not work here"):
        pictures.require_pictures()
    monkeypatch.setenv(pictures.VARIABLE, "eggl")
    with pytest.raises(UsageError, match="did you mean 'egl'"):
        pictures.require_pictures()


def test_a_library_that_ends_the_process_is_a_library_that_does_not_work(monkeypatch):
    pictures.why_not.cache_clear()
    monkeypatch.setattr(pictures, "TRIAL", "import os; os.abort()")
    try:
        assert "exit code" in pictures.why_not("egl")
    finally:
        pictures.why_not.cache_clear()
