"""Tracks as films, without a window: the same pictures for a live episode and for its recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lgdrl.visualizer.session import Track, thought_of
from sim.render import Overlay, SceneRenderer, interpolate, write_video

FPS = 20
"""Frames per second of simulated time; decisions in between are interpolated."""


def frames(track: Track, theme: str = "light") -> Iterator[np.ndarray]:
    """uint8 (height, width, 3) pictures of one episode, its last scene held for a second."""
    renderer = SceneRenderer(theme=theme)
    overlay = Overlay()
    for k, turn in enumerate(track.turns):
        thought, before, after = thought_of(turn), turn.scene, track.scene(k + 1)
        action = None if isinstance(turn.action, np.ndarray) else int(turn.action)
        advice = None if thought.expert is None or thought.expert.action is None else int(thought.expert.action)
        overlay = Overlay(
            probs=turn.learner_probs,
            expert_action=advice,
            executed_action=action,
            controller=turn.controller,
            caption=turn.expert_reason,
            unsafe=turn.unsafe,
        )
        count = max(round(FPS * before.decision_period), 1)
        for step in range(count):
            yield renderer.draw(interpolate(before, after, step / count), overlay)
    last = Overlay(controller=overlay.controller, caption=track.outcome)
    for _ in range(FPS):
        yield renderer.draw(track.scene(len(track)), last)
    renderer.close()


def write_film(path: Path, tracks: Sequence[Track], theme: str = "light") -> Path:
    """Write episodes one after the other (.mp4 or .gif). UsageError where the format needs a missing package."""
    return write_video(path, (frame for track in tracks for frame in frames(track, theme)), FPS)
