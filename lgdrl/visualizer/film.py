"""Tracks as films, without a window: the same pictures for a live episode and for its recording.

Scenes are drawn with a strip of side information; pictures of environments without scenes as the window shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pygame

from experts.data.episodes import add_episode
from lgdrl.visualizer.clock import VirtualClock
from lgdrl.visualizer.controls import keymap
from lgdrl.visualizer.pane import Pane
from lgdrl.visualizer.session import PlaySession
from lgdrl.visualizer.track import Track, assessment_of
from lgdrl.visualizer.view import WindowText, WindowView
from sim.picture import Picture, Shown
from sim.render import THEMES, Overlay, SceneRenderer, ShownRenderer, check_video, write_video
from sim.scene import Scene

FPS = 20
"""Frames per second; between decisions they are interpolated."""


@dataclass(frozen=True)
class FilmStyle:
    """How a film looks."""

    theme: str = "light"
    size: tuple[int, int] | None = None  # pixels; None: `SCENES` or `PICTURES`, by what is filmed
    pace: float = 1.0  # simulated seconds per second


DEFAULT = FilmStyle()
SCENES, PICTURES = (1280, 320), (960, 540)
"""Width and height of films of scenes, which are long, and of pictures beside the panel, pixels."""


def frames(track: Track, style: FilmStyle = DEFAULT) -> Iterator[np.ndarray]:
    """Pictures of one episode, its last scene held for a second.

    Args:
        track: The episode.
        style: How the film looks.
    Yields:
        uint8 (height, width, 3).
    """
    renderer = SceneRenderer(size=style.size or SCENES, theme=style.theme)
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
            yield renderer.draw(_scene(track.between(k, step / count)), overlay)
    last = Overlay(controller=overlay.controller, caption=track.outcome)
    for _ in range(FPS):
        yield renderer.draw(_scene(track.scene(len(track))), last)
    renderer.close()


def _scene(shown: Shown) -> Scene:
    assert isinstance(shown, Scene), "films of pictures are made of the window's"
    return shown


def window_frames(session: PlaySession, style: FilmStyle = DEFAULT) -> Iterator[np.ndarray]:
    """The window's pictures of a session's episode, its last moment held for a second.

    Args:
        session: The episode is its track.
        style: How the film looks.
    Yields:
        uint8 (height, width, 3).
    """
    size, track = style.size or PICTURES, session.track
    pane = Pane(session, ShownRenderer(size, THEMES[style.theme]), VirtualClock(), None)
    view = WindowView([pane], keymap(), style.theme, size)
    made = np.arange(len(track) + 1) * track.scene(0).decision_period / style.pace
    heads = np.searchsorted(made, np.arange(0.0, made[-1], 1.0 / FPS) + 1e-9, side="right") - 1
    for head in [*heads.tolist(), *[len(track)] * FPS]:
        view.draw(float(head), WindowText(f"seed {session.seed}" if session.seed is not None else ""))
        pixels = np.frombuffer(pygame.image.tobytes(view.canvas, "RGB"), np.uint8)
        yield pixels.reshape(view.canvas.get_height(), view.canvas.get_width(), 3).copy()
    pane.renderer.close()


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
        session.picture_rate = FPS / style.pace
        for seed in seeds:
            session.begin(seed)
            while session.live and not session.track.outcome:
                session.ask_expert()
                session.act()
            outcomes.append(session.track.outcome)
            if save is not None and session.live:
                add_episode(save, session.episode())
            pictured = isinstance(session.track.scene(0), Picture)
            yield from window_frames(session, style) if pictured else frames(session.track, style)

    return write_video(path, pictures(), FPS), outcomes
