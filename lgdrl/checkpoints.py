"""Checkpoints: nested plain values, arrays and tensors in one file, loaded without running any code of its author.

The file is written by `torch.save` and read with `weights_only=True`. Arrays and bytes are kept as tensors of bytes,
beside their type and shape, in mappings that carry the key `KIND`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sim.errors import UsageError
from sim.files import write_atomically

FORMAT = "lgdrl-checkpoint-1"
KIND = "~kind"
"""Key of the mappings that stand for arrays, NumPy numbers and bytes."""


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state whole or not at all.

    Args:
        path: The file.
        state: Mappings, lists and tuples of numbers, text, bytes, arrays and tensors.
    Raises:
        UsageError: The state holds something else, and where.
    """
    content = {"format": FORMAT, "state": encoded(state)}
    write_atomically(path, lambda file: torch.save(content, file))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote.

    Args:
        path: The file.
    Raises:
        UsageError: It cannot be read, is damaged, or of an earlier version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read checkpoint {str(path)!r}: {error.strerror}") from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if (member := archive.testzip()) is not None:
                raise ValueError(f"checksum of {member}")
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if found["format"] != FORMAT:
            raise ValueError(found["format"])
        return decoded(found["state"])
    except Exception as error:  # damaged content raises almost anything
        raise UsageError(
            f"checkpoint {str(path)!r} is damaged or of an earlier version ({type(error).__name__}): delete it to "
            "start over"
        ) from None


def encoded(value: Any, where: str = "state") -> Any:
    """A state in the types that `weights_only` loads. Nothing is copied.

    Args:
        value: The state.
        where: What it is, for messages.
    Raises:
        UsageError: It holds an object of another type.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray | np.generic):
        return _encoded_array(value, where)
    if isinstance(value, bytes):
        return {KIND: "bytes", "data": torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else None}
    if isinstance(value, Mapping):
        if KIND in value or not all(type(key) in (str, int) for key in value):
            raise UsageError(f"checkpoint: keys of {where} have to be text or whole numbers")
        return {key: encoded(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(encoded(item, f"{where}[{k}]") for k, item in enumerate(value))
    if isinstance(value, list):
        return [encoded(item, f"{where}[{k}]") for k, item in enumerate(value)]
    for plain in (int, float, str):
        if isinstance(value, plain):  # an enum, or NumPy's float64
            return plain(value) if plain is not str else str.__str__(value)
    raise UsageError(f"checkpoint: {where} is a {type(value).__name__}; keep numbers, text, arrays and tensors only")


def _encoded_array(value: np.ndarray | np.generic, where: str) -> dict[str, Any]:
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise UsageError(f"checkpoint: {where} is an array of objects; keep numbers, text, arrays and tensors only")
    data = None
    if array.nbytes:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        data = torch.from_numpy(flat if flat.flags.writeable else flat.copy())
    kind = "array" if isinstance(value, np.ndarray) else "number"
    return {KIND: kind, "dtype": np.lib.format.dtype_to_descr(array.dtype), "shape": list(array.shape), "data": data}


def decoded(value: Any) -> Any:
    """Inverse of `encoded`.

    Args:
        value: What it returned.
    Raises:
        ValueError: A mapping stands for nothing.
    """
    if isinstance(value, dict):
        if KIND in value:
            return _decoded_kind(value)
        return {key: decoded(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(decoded(item) for item in value)
    return [decoded(item) for item in value] if isinstance(value, list) else value


def _decoded_kind(value: Mapping[str, Any]) -> Any:
    data = np.zeros(0, np.uint8) if value["data"] is None else value["data"].numpy()
    if value[KIND] == "bytes":
        return data.tobytes()
    dtype = np.lib.format.descr_to_dtype(value["dtype"])
    if dtype.hasobject or value[KIND] not in ("array", "number"):
        raise ValueError("not an array of numbers")
    array = data.view(dtype).reshape(value["shape"])
    return array if value[KIND] == "array" else array.reshape(1)[0]
