"""Experts by name. Built-in ones and those of third parties are found through the entry point group `lgdrl.experts`.

An entry is a factory `make(options: Mapping, scenario: str, seed: int) -> PolicyProvider`; it validates its own options
(a frozen config dataclass beside the expert, `sim.config.resolve`) and raises UsageError for bad ones. A name of the
form `entry:TARGET`, such as `policy:runs/first`, passes what follows the colon as the keyword `target`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from experts.provider import PolicyProvider
from sim.errors import UsageError, unknown

GROUP = "lgdrl.experts"


@functools.cache
def available() -> dict[str, EntryPoint]:
    """All experts by name; nothing is imported yet.

    Read once per process: the metadata of all installed packages takes some 20 ms.
    """
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def summary(name: str) -> str:
    """What an expert is, in a line.

    Args:
        name: One of `available`.
    Returns:
        What follows the colon in the first line of its factory's docstring, or that line.
    """
    first = (inspect.getdoc(available()[name].load()) or "").partition("\n")[0]
    return first.partition("`: ")[2].rstrip(".") or first.rstrip(".")


def make(name: str, scenario: str, options: Mapping[str, Any] | None = None, seed: int = 0) -> PolicyProvider:
    """Build an expert. The caller closes it.

    Args:
        name: One of `available`, or `entry:TARGET`.
        scenario: Name of the scenario in which it will decide.
        options: Its options by name; None: the defaults.
        seed: Of its random stream.

    Raises:
        UsageError: The name or an option is unknown, or the expert cannot decide there.
    """
    found = available()
    entry, colon, target = name.partition(":")
    if entry not in found:
        raise unknown("expert", entry, found)
    factory = found[entry].load()
    if not colon:
        return factory(options or {}, scenario, seed)
    if "target" not in inspect.signature(factory).parameters:
        raise UsageError(f"expert {name!r}: {entry!r} takes nothing after a colon, leave {colon + target!r} out")
    return factory(options or {}, scenario, seed, target=target)
