"""Tracks as films, without a window: the same pictures for a live episode and for its recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experts.data.episodes import add_episode
from lgdrl.visualizer.session import Session, Track, thought_of
from sim.render import Overlay, SceneRenderer, check_video, write_video

FPS = 20
"""Frames per second; between decisions they are interpolated."""


@dataclass(frozen=True)
class Look:
    """How a film looks."""

    theme: str = "light"
    size: tuple[int, int] = (1280, 320)  # pixels
    pace: float = 1.0  # simulated seconds per second


DEFAULT = Look()


def frames(track: Track, look: Look = DEFAULT) -> Iterator[np.ndarray]:
    """uint8 (height, width, 3) pictures of one episode, its last scene held for a second."""
    renderer = SceneRenderer(size=look.size, theme=look.theme)
    overlay = Overlay()
    for k, turn in enumerate(track.turns):
        thought = thought_of(turn)
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
        count = max(round(FPS * turn.scene.decision_period / look.pace), 1)
        for step in range(count):
            yield renderer.draw(track.between(k, step / count), overlay)
    last = Overlay(controller=overlay.controller, caption=track.outcome)
    for _ in range(FPS):
        yield renderer.draw(track.scene(len(track)), last)
    renderer.close()


def film(
    session: Session, seeds: Iterable[int], path: Path | str, look: Look = DEFAULT, save: Path | None = None
) -> tuple[Path, list[str]]:
    """Play an episode per seed to its end and write all of them as one film (.mp4 or .gif), all or nothing.

    `save` is a folder that the episodes are kept in too. Returns: the path, and how they ended. UsageError, before
    anything is driven, where the format needs a missing package.
    """
    path, outcomes = check_video(path), []

    def pictures() -> Iterator[np.ndarray]:
        for seed in seeds:
            session.begin(seed)
            while session.live and not session.track.outcome:
                session.think()
                session.act()
            outcomes.append(session.track.outcome)
            if save is not None and session.live:
                add_episode(save, session.episode())
            yield from frames(session.track, look)

    return write_video(path, pictures(), FPS), outcomes
