"""Demonstrations by name: recordings, folders of them, and Minari datasets."""

from __future__ import annotations

from experts.data.demonstrations import Demonstrations, demonstrations_of
from experts.data.episodes import Episode, load_episodes
from experts.data.minari_datasets import load_dataset
from sim.errors import UsageError

MINARI = "minari:"
"""Prefix of the names of Minari datasets, where a recording's path is expected."""


def load_demonstrations(path: str, scenario: str) -> Demonstrations:
    """Load demonstrations.

    Args:
        path: A recording, a folder of recordings, or `minari:NAME` for a Minari dataset.
        scenario: Name of the scenario that they must be of.

    Raises:
        UsageError: They cannot be read, are of another scenario or mixed, demonstrate nothing, or hold actions that
            were not legal.
    """
    if path.startswith(MINARI):
        episodes: list[Episode] | Demonstrations = load_dataset(path.removeprefix(MINARI))
        source = f"dataset {path.removeprefix(MINARI)!r}"
    else:
        episodes, source = load_episodes(path), f"recording {path!r}"
    if isinstance(episodes, Demonstrations):
        return episodes
    others = sorted({episode.scenario for episode in episodes} - {scenario})
    if others:
        raise UsageError(f"{source} is of scenario {others[0]!r}, not {scenario!r}: choose a recording of {scenario!r}")
    return demonstrations_of(episodes, source)
