"""Files that are written whole or not at all, and output paths that are checked before any work begins."""

from __future__ import annotations

import itertools
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sim.errors import UsageError

TEMPORARY = ".tmp"
LONGEST_NAME, LONGEST_PATH = 255, 4000
"""Bytes of a file name, and of a whole path, with room for the files of a run folder."""
OUTPUT_FILES, OUTPUT_FOLDERS = ("json", "video", "record", "plot"), ("out", "save")
"""Arguments of commands that name what is written."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that other processes see whole or not at all: a temporary one beside it, synced and renamed.

    A device or pipe is written to as it is, and a link keeps pointing where it points. If writing fails, the temporary
    file is removed.

    Args:
        path: The file.
        write: Called with the temporary file, open for bytes.
    Raises:
        OSError: It cannot be written.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as file:
            write(file)
        return
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        if temporary.is_file():
            temporary.unlink()
        raise


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder, so that it can be looked at and another one written in its place.

    Args:
        path: What is damaged.
    Returns:
        Its new path.
    Raises:
        UsageError: It cannot be renamed.
    """
    names = itertools.chain([".damaged"], (f".damaged-{k}" for k in itertools.count(2)))
    target = next(found for name in names if not (found := path.with_name(path.name + name)).exists())
    try:
        return path.rename(target)
    except OSError as error:
        raise UsageError(f"{str(path)!r} is damaged and cannot be renamed: {error.strerror}") from None


def check_outputs(arguments: Mapping[str, Any]) -> None:
    """Check what the arguments of a command say is to be written, so that it is not found at the end.

    Args:
        arguments: Values by name; those in `OUTPUT_FILES` and `OUTPUT_FOLDERS` are paths, or None.
    Raises:
        UsageError: Something cannot be written there, and why.
    """
    for names, check in ((OUTPUT_FILES, check_output_file), (OUTPUT_FOLDERS, check_output_folder)):
        for name in names:
            if arguments.get(name) is not None:
                check(str(arguments[name]), f"--{name}")


def check_output_file(path: str, option: str) -> None:
    """Check that a file can be written, without leaving anything behind.

    Args:
        path: The file. Its folder has to be there.
        option: What names it, for messages.
    Raises:
        UsageError: It cannot, and why.
    """
    _check_spelling(path, option, "file")
    target = Path(path)
    try:
        if target.is_dir() or path.endswith("/"):
            raise UsageError(f"{option} {path!r} is a folder: name a file")
        parent = target.resolve().parent if target.is_symlink() else target.parent
        if not parent.is_dir():
            kind = "is a file" if parent.exists() else "does not exist: make it first"
            raise UsageError(f"{option} {path!r}: the folder {str(parent)!r} {kind}")
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            return  # a device or pipe
        _try_to_write(parent)
    except OSError as error:
        raise UsageError(f"cannot write {option} {path!r:.300}: {error.strerror or error}") from None


def check_output_folder(path: str, option: str) -> None:
    """Check that a folder can be made, or written into, without leaving anything behind.

    Args:
        path: The folder; folders above it are made with it.
        option: What names it, for messages.
    Raises:
        UsageError: It cannot, and why.
    """
    _check_spelling(path, option, "folder")
    target = Path(path).absolute()
    try:
        there = next(each for each in (target, *target.parents) if each.exists() or each.is_symlink())
        if not there.is_dir():
            where = "" if there == target else f": {str(there)!r}"
            raise UsageError(f"{option} {path!r}{where} is a file: name a folder")
        _try_to_write(there)
    except OSError as error:
        raise UsageError(f"cannot write {option} {path!r:.300}: {error.strerror or error}") from None


def _check_spelling(path: str, option: str, kind: str) -> None:
    if not path.strip():
        raise UsageError(f"{option} {path!r}: name a {kind}")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{option} {path!r:.300} is not valid text: name a {kind} in UTF-8") from None
    if b"\0" in encoded:
        raise UsageError(f"{option} {path!r:.300} holds a zero byte: name another {kind}")
    longest = max(len(part) for part in encoded.split(b"/"))
    if longest + len(TEMPORARY) > LONGEST_NAME or len(os.path.abspath(encoded)) > LONGEST_PATH:
        raise UsageError(f"{option} {path[:60]!r}... is too long ({len(encoded)} bytes): name a shorter {kind}")


def _try_to_write(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass
