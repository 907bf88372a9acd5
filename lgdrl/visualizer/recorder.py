"""What the window writes: recordings of episodes, films of them, and pictures."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pygame

from experts.data.episodes import Episode, add_episode, save_episode
from lgdrl.visualizer.session import PlaySession
from sim.errors import UsageError


class EpisodeRecorder:
    """Keeps episodes in a folder while recording is on.

    Args:
        folder: Of the recordings; made when the first episode is kept.
        recording: Whether it starts at once.
        say: Shows a line in the window.
    """

    def __init__(self, folder: Path, recording: bool, say: Callable[[str], None]) -> None:
        self.folder, self.recording, self._say = folder, recording, say
        self.saved: list[Path] = []
        self._kept = False

    def begin(self) -> None:
        """A new episode: it is not kept yet."""
        self._kept = False

    def keep(self, sessions: Sequence[PlaySession]) -> None:
        """Write the present episodes, once, if recording is on and at least one decision was made."""
        if not self.recording or self._kept or not any(session.live for session in sessions):
            return
        for session in sessions:
            if not session.live or not len(session.track):
                continue
            try:
                self.saved.append(add_episode(self.folder, session.episode()))
                self._say(f"Saved {self.saved[-1]}")
            except UsageError as error:
                self._say(str(error))
        self._kept = True

    def toggle(self, sessions: Sequence[PlaySession]) -> None:
        """Start recording, or keep the present episode and stop."""
        if self.recording:
            self.keep(sessions)
        self.recording = not self.recording
        self._say("Recording every episode" if self.recording else "Recording stopped")


class FilmExport:
    """Films one episode at a time, in a process of its own, so that the window goes on.

    Args:
        say: Shows a line in the window.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._job: tuple[subprocess.Popen, Path, Path] | None = None
        """The process, its film, and the folder with the recording that it films."""

    @property
    def busy(self) -> bool:
        """Whether a film is being written."""
        return self._job is not None

    def start(self, episode: Episode, path: Path, theme: str) -> None:
        """Film an episode into `path` (.mp4 or .gif)."""
        folder = Path(tempfile.mkdtemp(prefix="lgdrl-film-"))
        recording = save_episode(folder / "episode.npz", episode)
        command = [sys.executable, "-m", "lgdrl.cli", "play", str(recording), "--record", str(path), "--theme", theme]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._job = process, path, folder
        self._say(f"Filming into {path} ...")

    def collect(self, wait: bool = False) -> None:
        """Say that the film is there, or why it is not, once the process has ended.

        Args:
            wait: Wait for its end.
        """
        if self._job is None or (not wait and self._job[0].poll() is None):
            return
        (process, path, folder), self._job = self._job, None
        words = process.communicate()[1].strip()
        shutil.rmtree(folder, ignore_errors=True)
        self._say(f"Film: {path}" if process.returncode == 0 else words.splitlines()[-1] if words else "No film")


def screenshot(picture: pygame.Surface, folder: Path) -> str:
    """Write a picture under the next free name.

    Args:
        picture: The window's canvas.
        folder: Where pictures go.
    Returns:
        A line that says where it is, or why it is not.
    """
    number = 1
    while (path := folder / f"lgdrl-{number:03d}.png").exists():
        number += 1
    try:
        pygame.image.save(picture, path)
    except (pygame.error, OSError) as error:
        return f"Cannot write {path}: {error}"
    return f"Picture: {path}"
