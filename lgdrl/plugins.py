"""Plug-ins by name: strategies, learners, arbiters and gates are found through entry points, our own and others'.

A third party names an object in the metadata of its own package and it works by name, in configs and on the command
line, as the built-in ones do (`docs/extending.md`). Experts and scenarios have registries of the same kind on their
own floors (`experts.registry`, `sim.scenarios`).
"""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from sim.errors import unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """The entry points of one group.

    Args:
        group: Name of the group.
        kind: What an entry is, for messages.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self.kind = kind

    def available(self) -> dict[str, EntryPoint]:
        """All entries by name, sorted; nothing is imported yet."""
        return _entries(self.group)

    def get(self, name: str) -> T:
        """The object registered under `name`. Raises UsageError with a suggestion otherwise."""
        found = self.available()
        if name not in found:
            raise unknown(self.kind, name, found)
        return found[name].load()


@functools.cache
def _entries(group: str) -> dict[str, EntryPoint]:
    """Read once per process: the metadata of all installed packages takes some 20 ms."""
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda e: e.name)}
