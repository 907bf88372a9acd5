"""The local store of Minari (https://minari.farama.org): datasets are written whole or not at all.

What cannot be read or written is one line.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sim
from sim.errors import UsageError


def minari_module() -> Any:
    """Minari itself. UsageError where it is not installed."""
    try:
        import h5py  # noqa: F401
        import minari
    except ImportError:
        raise UsageError("Minari datasets need an extra package: pip install lgdrl[minari]") from None
    return minari


def new_folder(dataset_id: str) -> Path:
    """Where a new dataset will lie. UsageError for an id that is bad or taken."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError):
        raise UsageError(f"dataset id {dataset_id!r}: write it as name-v0 or folder/name-v0") from None
    folder = Path(get_dataset_path(dataset_id))
    if folder.exists():
        raise UsageError(f"dataset {dataset_id!r} exists already: choose another id, e.g. with a higher version")
    return folder


def write_dataset(
    dataset_id: str,
    scenario: str,
    scenario_config: dict[str, Any],
    buffers: Sequence[Any],
    metadata: dict[str, Any],
    **about: Any,
) -> Path:
    """Write a new dataset whose spec makes the scenario again; nothing is left where that fails.

    Args:
        dataset_id: A new one.
        scenario: Name of the scenario.
        scenario_config: Its config.
        buffers: Minari's `EpisodeBuffer`s.
        metadata: Further metadata, plain values.
        about: What `minari.create_dataset_from_buffers` takes beside these.

    Returns:
        The dataset's folder.

    Raises:
        UsageError: Minari is not installed, the id is bad or taken, or the dataset cannot be written.
    """
    minari, folder = minari_module(), new_folder(dataset_id)
    env = sim.make(scenario, config=scenario_config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = minari.create_dataset_from_buffers(
                dataset_id=dataset_id, buffer=buffers, env=env, data_format="hdf5", jpeg_encoding=False, **about
            )
            if metadata:
                made.storage.update_metadata(metadata)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise UsageError(f"cannot write dataset {dataset_id!r}: {error}") from None
    finally:
        env.close()
    return folder


def read_dataset(dataset_id: str) -> tuple[Any, list[Any]]:
    """A local dataset and its episodes, as Minari has them.

    Args:
        dataset_id: Its id.

    Raises:
        UsageError: It is missing or unreadable.
    """
    minari = minari_module()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = minari.load_dataset(dataset_id)
            return dataset, list(dataset.iterate_episodes())
    except FileNotFoundError:
        raise UsageError(f"no Minari dataset {dataset_id!r} here: see `minari list local`, or download it") from None
    except Exception as error:  # Minari and h5py raise almost anything for a bad id or a damaged file
        raise UsageError(
            f"cannot read Minari dataset {dataset_id!r} ({type(error).__name__}): check its name"
        ) from None
