"""Films on disk: H.264 through imageio where it is installed, animated GIF through Pillow everywhere."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sim.errors import UsageError, unknown

FORMATS = (".mp4", ".gif")
INSTALL = "pip install 'lgdrl[video]'"


def write_video(path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: float = 30.0) -> Path:
    """Write a film, as a whole or not at all.

    Args:
        path: `.mp4` needs the extra `video`; `.gif` always works; without a suffix, the better available one is added.
        frames: uint8 (H, W, 3), all of one shape.
        fps: Frames per second.

    Returns:
        The path of the film.

    Raises:
        UsageError: Another suffix, a missing extra, no frames, frames of another shape, or fps <= 0.
    """
    path = check_video(path)
    if not fps > 0:
        raise UsageError(f"fps = {fps}: give a positive number of frames per second")
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    stream = _checked(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix.lower()}")
    try:
        writers[path.suffix.lower()](temporary, stream, fps)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def check_video(path: str | os.PathLike[str]) -> Path:
    """The path that `write_video` will write to, checked before anything is driven or drawn.

    Args:
        path: As for `write_video`.

    Returns:
        The path with a suffix.

    Raises:
        UsageError: Another suffix, or a missing extra.
    """
    path = Path(path)
    if not path.suffix:
        path = path.with_suffix(".mp4" if _has_ffmpeg() else ".gif")
    if path.suffix.lower() not in FORMATS:
        raise unknown("video format", path.suffix, FORMATS)
    if path.suffix.lower() == ".mp4" and not _has_ffmpeg():
        raise UsageError(f"{path.name}: mp4 needs the extra 'video' ({INSTALL}); or name the file .gif")
    return path


def _has_ffmpeg() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("imageio", "imageio_ffmpeg"))


def _checked(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames; the first one is checked before anything is written."""
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise UsageError("no frames to write: draw at least one scene")
    shape = np.shape(first)
    if len(shape) != 3 or shape[2] != 3:
        raise UsageError(f"frame of shape {shape}: frames are uint8 (height, width, 3)")

    def same(frame: np.ndarray) -> np.ndarray:
        if np.shape(frame) != shape or frame.dtype != np.uint8:
            raise UsageError(f"frame {np.shape(frame)} {frame.dtype} after {shape}: all frames are uint8 of one shape")
        return frame

    return (same(frame) for frame in itertools.chain([first], rest))


def _write_mp4(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    import imageio.v2 as imageio

    # Quality 8 of 10 keeps thin lines clean; 4:2:0 colour, which every player reads, asks for even sizes.
    writer: Any = imageio.get_writer(path, format="FFMPEG", fps=fps, codec="libx264", quality=8, macro_block_size=1)
    with writer:
        for frame in frames:
            odd_height, odd_width = frame.shape[0] % 2, frame.shape[1] % 2
            writer.append_data(np.pad(frame, ((0, odd_height), (0, odd_width), (0, 0)), mode="edge"))


def _write_gif(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    from PIL import Image

    images = (Image.fromarray(frame).quantize(colors=128, dither=Image.Dither.NONE) for frame in frames)
    first = next(images)
    # GIF time is in hundredths of a second, and viewers slow anything under two down.
    duration = max(round(100 / fps), 2) * 10
    first.save(path, save_all=True, append_images=images, duration=duration, loop=0, optimize=False, disposal=1)
