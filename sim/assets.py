"""Data files that are shipped with the code: maps, prompts, models, report templates.

A checkout has them in the top-level folder `assets/`. A wheel carries the same files inside this package, as
`sim/_assets/` (`pyproject.toml` maps one to the other), so that they always belong to the code that runs and cannot
clash with another distribution's `assets`.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from sim.errors import UsageError

INSTALLED = "_assets"
CHECKOUT = "assets"


def folder() -> Path:
    """The folder that holds all data files.

    Returns:
        `sim/_assets` of an installed wheel, `assets` of a checkout.
    """
    package = Path(str(importlib.resources.files("sim")))
    installed = package / INSTALLED
    return installed if installed.is_dir() else package.parent / CHECKOUT


def path(name: str) -> Path:
    """A data file on disk.

    Args:
        name: Its path in the folder, with slashes: `"maps/highway.xodr"`.
    Returns:
        An existing file.
    Raises:
        UsageError: The installation lacks it.
    """
    root = folder()
    found = root / name
    if not found.is_file():
        raise UsageError(f"data file assets/{name} is missing (looked in {str(root)!r}): install lgdrl again")
    return found


def read_text(name: str) -> str:
    """Text of a data file, which is UTF-8.

    Args:
        name: Its path in the folder, with slashes.
    Returns:
        The text, with newlines as `\\n`.
    Raises:
        UsageError: The installation lacks the file, or it cannot be read.
    """
    found = path(name)
    try:
        return found.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read data file {str(found)!r}: {error.strerror}") from None
