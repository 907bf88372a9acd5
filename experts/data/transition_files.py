"""Files of transition data sets.

One .npz file: plain arrays, readable by `numpy.load` without pickle, and `header`, JSON as bytes, which names the
format's number. Files are written to a temporary name, synced and renamed, and checked when they are read.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experts.data.columns import pack, unpack
from experts.data.transitions import (
    LABELS,
    MASKS,
    ROWS,
    STATUSES,
    DatasetInfo,
    References,
    StateLabels,
    TransitionDataset,
)
from sim.errors import UsageError
from sim.files import write_atomically
from sim.spaces import space_from_json, space_to_json

KIND = "lgdrl transitions"
FORMAT = 1
"""A reader refuses files with a higher number."""


def save_transitions(path: Path | str, dataset: TransitionDataset) -> Path:
    """Write a data set.

    Args:
        path: The file.
        dataset: Any.

    Returns:
        The path.

    Raises:
        UsageError: It cannot be written.
    """
    content = to_bytes(dataset)
    try:
        write_atomically(Path(path), lambda file: file.write(content))
    except OSError as error:
        raise UsageError(f"cannot write data set {str(path)!r}: {error.strerror}: choose another path") from None
    return Path(path)


def load_transitions(path: Path | str) -> TransitionDataset:
    """Read a data set. Nothing in the file is run.

    Args:
        path: The file.

    Raises:
        UsageError: It is missing, foreign, damaged or of a newer format.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read data set {str(path)!r}: {reason}") from None
    return from_bytes(content, str(path))


def is_transitions(path: Path | str) -> bool:
    """Whether a file says that it is a data set of transitions."""
    try:
        with zipfile.ZipFile(path) as archive:
            header = np.lib.format.read_array(io.BytesIO(archive.read("header.npy")), allow_pickle=False)
        return f'"kind": "{KIND}"'.encode() in header.tobytes()
    except Exception:  # not a zip, no header, a damaged one: whoever reads it says so
        return False


def to_bytes(dataset: TransitionDataset) -> bytes:
    """The content of a data set's file; equal data sets give equal bytes."""
    arrays = {name: getattr(dataset, name) for name in (*ROWS, "seeds", *MASKS)}
    if dataset.labels is not None:
        arrays |= {name: getattr(dataset.labels, field) for name, field in LABELS.items()}
    return pack({name: values for name, values in arrays.items() if values is not None}, header_of(dataset))


def from_bytes(content: bytes, name: str) -> TransitionDataset:
    """Inverse of `to_bytes`. UsageError, which calls it `name`, for anything else."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise UsageError(f"{name!r} is not a transition data set, or it was cut short: collect it again")
    try:
        arrays, header = unpack(content)
        foreign = not isinstance(header, dict) or header.get("kind") != KIND
        newer = not foreign and header["format"] > FORMAT
        dataset = None if foreign or newer else _unpacked(header, arrays)
    except Exception as error:  # a damaged zip, array or header raises almost anything
        words = str(error).splitlines()[:1] if isinstance(error, ValueError) else []
        reason = f"{words[0]:.200}" if words else type(error).__name__
        raise UsageError(f"data set {name!r} is damaged ({reason}): collect it again") from None
    if foreign:
        raise UsageError(f"{name!r} is not a transition data set: its header does not say {KIND!r}")
    if dataset is None:
        raise UsageError(
            f"data set {name!r} has format {header['format']}, this version reads up to {FORMAT}: "
            "update lgdrl to read it"
        )
    return dataset


def header_of(dataset: TransitionDataset) -> dict[str, Any]:
    """What is known about a data set as a whole, as plain values for JSON."""
    about = dataset.about
    return {
        "kind": KIND,
        "format": FORMAT,
        "scenario": about.scenario,
        "backend": about.backend,
        "scenario_config": about.scenario_config,
        "observation_space": space_to_json(about.observation_space),
        "action_space": space_to_json(about.action_space),
        "origins": list(about.origins),
        "made": list(about.made),
        "references": None if about.references is None else dataclasses.asdict(about.references),
        "statuses": [status.value for status in STATUSES],
        "counts": _counts(dataset),
    }


def info_of(header: dict[str, Any]) -> DatasetInfo:
    """The `DatasetInfo` in what `header_of` returned.

    Args:
        header: Plain values.

    Raises:
        ValueError: They are others.
    """
    import pydantic

    checked = pydantic.TypeAdapter(_Header).validate_python(header)
    if checked.statuses != [status.value for status in STATUSES]:
        raise ValueError(f"it names statuses {checked.statuses}, which are not those of this version")
    return DatasetInfo(
        scenario=checked.scenario,
        backend=checked.backend,
        scenario_config=checked.scenario_config,
        observation_space=space_from_json(checked.observation_space),
        action_space=space_from_json(checked.action_space),
        origins=tuple(checked.origins),
        made=tuple(checked.made),
        references=checked.references,
    )


@dataclass(frozen=True)
class _Header:
    kind: str
    format: int
    scenario: str
    backend: str
    scenario_config: dict[str, Any]
    observation_space: dict[str, Any]
    action_space: dict[str, Any]
    origins: list[str]
    made: list[dict[str, Any]]
    references: References | None
    statuses: list[str]
    counts: dict[str, int]


def _counts(dataset: TransitionDataset) -> dict[str, int]:
    labels = 0 if dataset.labels is None else int(dataset.labels.given.sum())
    return {"transitions": len(dataset), "episodes": len(dataset.seeds), "labels": labels}


def _unpacked(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> TransitionDataset:
    """Inverse of `to_bytes`. Raises whatever damaged content leads to."""
    labelled = "labelled" in arrays
    needed = {*ROWS, "seeds", *(LABELS if labelled else ()), *(MASKS if "legal" in arrays else ())}
    if arrays.keys() != needed:
        raise ValueError(f"arrays {sorted(arrays.keys() ^ needed)} are missing or unknown")
    labels = StateLabels(**{field: arrays.pop(name) for name, field in LABELS.items()}) if labelled else None
    dataset = TransitionDataset(about=info_of(header), labels=labels, **arrays)
    if header["counts"] != _counts(dataset):
        raise ValueError(f"its header counts {header['counts']}, it holds {_counts(dataset)}")
    return dataset
