"""Tracks as films, without a window: the same pictures for a live episode and for its recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experts.data.episodes import add_episode
from lgdrl.visualizer.session import PlaySession
from lgdrl.visualizer.track import Track, assessment_of
from sim.render import Overlay, SceneRenderer, check_video, write_video

FPS = 20
"""Frames per second; between decisions they are interpolated."""


@dataclass(frozen=True)
class FilmStyle:
    """How a film looks."""

    theme: str = "light"
    size: tuple[int, int] = (1280, 320)  # pixels
    pace: float = 1.0  # simulated seconds per second


DEFAULT = FilmStyle()


def frames(track: Track, style: FilmStyle = DEFAULT) -> Iterator[np.ndarray]:
    """Pictures of one episode, its last scene held for a second.

    Args:
        track: The episode.
        style: How the film looks.
    Yields:
        uint8 (height, width, 3).
    """
    renderer = SceneRenderer(size=style.size, theme=style.theme)
    overlay = Overlay()
    for k, turn in enumerate(track.turns):
        assessment = assessment_of(turn)
        action = None if isinstance(turn.action, np.ndarray) else int(turn.action)
        expert = assessment.expert
        label = None if expert is None or expert.action is None or np.ndim(expert.action) else int(expert.action)
        overlay = Overlay(
            probs=turn.learner_probs,
            expert_action=label,
            executed_action=action,
            controller=turn.controller,
            caption=turn.expert_reason,
            unsafe=turn.unsafe,
        )
        count = max(round(FPS * turn.scene.decision_period / style.pace), 1)
        for step in range(count):
            yield renderer.draw(track.between(k, step / count), overlay)
    last = Overlay(controller=overlay.controller, caption=track.outcome)
    for _ in range(FPS):
        yield renderer.draw(track.scene(len(track)), last)
    renderer.close()


def film(
    session: PlaySession, seeds: Iterable[int], path: Path | str, style: FilmStyle = DEFAULT, save: Path | None = None
) -> tuple[Path, list[str]]:
    """Play an episode per seed to its end and write all of them as one film, all or nothing.

    Args:
        session: Drives or replays the episodes.
        seeds: One per episode.
        path: Of the film (.mp4 or .gif).
        style: How the film looks.
        save: Folder in which the episodes are kept too; None: they are not.
    Returns:
        The path, and the outcome of every episode.
    Raises:
        UsageError: The format needs a missing package; nothing has been driven then.
    """
    path, outcomes = check_video(path), []

    def pictures() -> Iterator[np.ndarray]:
        for seed in seeds:
            session.begin(seed)
            while session.live and not session.track.outcome:
                session.ask_expert()
                session.act()
            outcomes.append(session.track.outcome)
            if save is not None and session.live:
                add_episode(save, session.episode())
            yield from frames(session.track, style)

    return write_video(path, pictures(), FPS), outcomes
