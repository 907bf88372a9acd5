"""Record one episode of a trained policy or an expert as a video, with what it thought."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

import experts.registry
import sim
from experts.provider import Context
from lgdrl.runs import Run
from lgdrl.training import RunConfig, load_policy
from sim.env import DrivingEnv
from sim.render import Overlay, SceneRenderer, interpolate, write_video

FPS = 20
"""Frames per second of simulated time; decisions in between are interpolated."""

Driver = Callable[[DrivingEnv, np.ndarray], tuple[int, Overlay]]
"""(world, observation) -> (action, what to show of it)"""


def record_episode(config: RunConfig, driver: Run | str, seed: int, path: Path) -> Path:
    """Drive one episode from `seed` and write it to `path` (.mp4 or .gif). Returns the path.

    `driver` is a finished run, or the name of an expert. UsageError where the video format needs a missing package.
    """
    config = config.resolved()
    chosen = _learner(driver) if isinstance(driver, Run) else _expert(driver, config)
    world = sim.make(config.scenario, config.backend, config.scenario_config)
    try:
        return write_video(path, episode_frames(world, chosen, seed), FPS)
    finally:
        world.close()


def episode_frames(world: DrivingEnv, driver: Driver, seed: int) -> Iterator[np.ndarray]:
    """Frames (height, width, 3) of one episode, its last scene held for a second."""
    renderer = SceneRenderer()
    obs, info = world.reset(seed=seed)
    scene, done = world.scene(), False
    while not done:
        action, overlay = driver(world, obs)
        obs, _, terminated, truncated, info = world.step(action)
        done = terminated or truncated
        after = world.scene()
        count = max(round(FPS * scene.decision_period), 1)
        for k in range(count):
            yield renderer.draw(interpolate(scene, after, k / count), overlay)
        scene = after
    for _ in range(FPS):
        yield renderer.draw(scene, Overlay(controller=overlay.controller, caption=info["outcome"]))
    renderer.close()


def _learner(run: Run) -> Driver:
    model = load_policy(run)

    def drive(world: DrivingEnv, obs: np.ndarray) -> tuple[int, Overlay]:
        masks = world.action_masks()
        with torch.no_grad():
            log_probs = model.policy.log_probs(torch.as_tensor(obs[None]), torch.as_tensor(masks[None]))[0]
        action = int(log_probs.argmax())
        return action, Overlay(probs=log_probs.exp().numpy(), executed_action=action, controller="learner")

    return drive


def _expert(name: str, config: RunConfig) -> Driver:
    provider = experts.registry.make(name, config.scenario, config.expert_options, config.seed)

    def drive(world: DrivingEnv, obs: np.ndarray) -> tuple[int, Overlay]:
        legal = world.action_masks()
        context = Context(obs, world.action_space, world.scene(), legal, branch=world.branch)
        decision = provider.decide([context])[0]
        action = int(np.argmax(legal)) if decision.action is None else int(decision.action)
        reason = decision.reason or ""
        return action, Overlay(
            probs=decision.probs, expert_action=action, executed_action=action, controller="expert", caption=reason
        )

    return drive
