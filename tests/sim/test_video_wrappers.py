"""gymnasium's and SB3's video wrappers on every kind of environment; frames come without the extra `video` too."""

from __future__ import annotations

import importlib.util
import warnings

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecVideoRecorder

import sim
from sim.errors import UsageError

CONFIG = {"vehicles_count": 3, "duration": 3}
BACKENDS = ("engine", "highway-env")
with_moviepy = pytest.mark.skipif(importlib.util.find_spec("moviepy") is None, reason="needs the extra video")


def vec(backend: str, **keywords):
    return sim.make_vec("highway-fast-v0", 2, 0, backend, CONFIG, **keywords)


def vector(backend: str, **keywords):
    return sim.make_vector("highway-fast-v0", 2, backend, CONFIG, **keywords)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_interface_hands_out_frames_in_the_mode_it_was_made_with(backend):
    single = sim.make("highway-fast-v0", backend, CONFIG, "rgb_array")
    single.reset(seed=0)
    frame = single.render()
    envs, vectors = vec(backend, render_mode="rgb_array"), vector(backend, render_mode="rgb_array")
    envs.reset()
    vectors.reset(seed=0)
    assert frame.dtype == np.uint8
    assert frame.shape[2] == 3
    assert envs.render_mode == vectors.render_mode == "rgb_array"
    assert [image.shape for image in envs.get_images()] == [frame.shape] * 2
    np.testing.assert_array_equal(envs.get_images()[0], frame)
    np.testing.assert_array_equal(vectors.render()[0], frame)
    assert envs.render().shape[2] == 3
    assert envs.metadata["render_fps"] == vectors.metadata["render_fps"] == single.metadata["render_fps"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_mode_render_returns_none_and_says_so(backend):
    single, envs, vectors = sim.make("highway-fast-v0", backend, CONFIG), vec(backend), vector(backend)
    single.reset(seed=0)
    envs.reset()
    vectors.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert single.render() is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert envs.render() is None
        assert vectors.render() == (None, None)


@pytest.mark.parametrize("make", [sim.make, sim.make_vec, sim.make_vector])
def test_render_modes_that_do_not_exist_are_refused(make):
    with pytest.raises(UsageError, match="unknown render_mode 'rgb'"):
        make("highway-fast-v0", render_mode="rgb")


def test_frames_come_from_worker_processes_too():
    envs = vec("highway-env", render_mode="rgb_array", workers=1)
    envs.reset()
    assert envs.render().shape[2] == 3
    envs.close()


@with_moviepy
@pytest.mark.parametrize("backend", BACKENDS)
def test_record_video_films_an_episode(backend, tmp_path):
    env = gym.wrappers.RecordVideo(sim.make("highway-fast-v0", backend, CONFIG, "rgb_array"), str(tmp_path))
    env.reset(seed=0)
    while not any(env.step(1)[2:4]):
        pass
    env.close()
    assert (tmp_path / "rl-video-episode-0.mp4").stat().st_size > 1000


@with_moviepy
@pytest.mark.parametrize("backend", BACKENDS)
def test_vector_record_video_films_a_batch(backend, tmp_path):
    envs = gym.wrappers.vector.RecordVideo(vector(backend, render_mode="rgb_array"), str(tmp_path))
    envs.reset(seed=0)
    for _ in range(5):
        envs.step(np.ones(2, int))
    envs.close()
    assert (tmp_path / "rl-video-episode-0.mp4").stat().st_size > 1000


@with_moviepy
@pytest.mark.parametrize("backend", BACKENDS)
def test_sb3s_recorder_films_a_vec_env(backend, tmp_path):
    envs = VecVideoRecorder(vec(backend, render_mode="rgb_array"), str(tmp_path), lambda step: step == 0, 4)
    envs.reset()
    for _ in range(6):
        envs.step(np.ones(2, int))
    envs.close()
    assert next(tmp_path.glob("*.mp4")).stat().st_size > 1000
