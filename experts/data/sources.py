"""Demonstrations by name: recordings, folders of them, transition data sets, and Minari datasets."""

from __future__ import annotations

from experts.data.demonstrations import Demonstrations, demonstrations_in, demonstrations_of
from experts.data.episodes import Episode, load_episodes
from experts.data.minari_datasets import load_dataset
from experts.data.transition_files import is_transitions, load_transitions
from experts.data.transitions import TransitionDataset
from sim.errors import UsageError

MINARI = "minari:"
"""Prefix of the names of Minari datasets, where a recording's path is expected."""


def load_demonstrations(path: str, scenario: str) -> Demonstrations:
    """Load demonstrations.

    Args:
        path: A recording, a folder of recordings, a transition data set, or `minari:NAME` for a Minari dataset.
        scenario: Name of the scenario that they must be of.

    Raises:
        UsageError: They cannot be read, are of another scenario or mixed, demonstrate nothing, or hold actions that
            were not legal.
    """
    found: list[Episode] | TransitionDataset
    if path.startswith(MINARI):
        found, source = load_dataset(path.removeprefix(MINARI)), f"dataset {path.removeprefix(MINARI)!r}"
    elif is_transitions(path):
        found, source = load_transitions(path), f"data set {path!r}"
    else:
        found, source = load_episodes(path), f"recording {path!r}"
    if isinstance(found, TransitionDataset):
        # others name their environments as gymnasium does: whether these fit is told by observations and actions alone
        if not found.about.foreign and found.about.scenario != scenario:
            raise _other(source, found.about.scenario, scenario)
        return demonstrations_in(found, source)
    others = sorted({episode.scenario for episode in found} - {scenario})
    if others:
        raise _other(source, others[0], scenario)
    return demonstrations_of(found, source)


def _other(source: str, found: str, scenario: str) -> UsageError:
    return UsageError(f"{source} is of scenario {found!r}, not {scenario!r}: choose a recording of {scenario!r}")
