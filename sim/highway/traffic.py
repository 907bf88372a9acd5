"""Private traffic classes for environments that overwrite class attributes of their traffic.

An intersection sets `DISTANCE_WANTED`, `COMFORT_ACC_MAX` and `COMFORT_ACC_MIN` on the class of its vehicles, which by
default is the class that every other environment uses too. It gets a subclass of its own instead: it behaves exactly as
in a process of its own, and no other environment is affected.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

PREFIX = "Private_"
SEPARATOR = "__DOT__"
PRIVATE_OF_HIGHWAY_ENV = f"{PREFIX}highway_env{SEPARATOR}vehicle{SEPARATOR}"
"""How names of private subclasses of highway-env's own vehicles begin."""


def private_copy(path: str) -> str:
    """Path of a private subclass of a traffic class.

    Args:
        path: Dotted path of the class.
    Returns:
        Dotted path of the subclass.
    """
    return f"{__name__}.{PREFIX}{path.replace('.', SEPARATOR)}"


@functools.cache
def _subclass(name: str) -> type:
    module, _, base_name = name.removeprefix(PREFIX).replace(SEPARATOR, ".").rpartition(".")
    base = getattr(importlib.import_module(module), base_name)
    return type(name, (base,), {"__module__": __name__, "__doc__": f"{base_name} of intersections."})


def __getattr__(name: str) -> Any:
    """Private classes by name, made on demand, so that they can be found by path and unpickled anywhere."""
    if name.startswith(PREFIX):
        return _subclass(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
