"""Unpickling that builds named classes and nothing else, so that loading a file runs no code that came with it.

A pickle is a program: it may call every function that it can name. Here it can name the classes that the caller lists,
containers of the standard library, and what NumPy rebuilds its arrays and random streams with.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

from sim.errors import UsageError

BUILDERS = frozenset(
    {
        ("builtins", "bytearray"),
        ("builtins", "complex"),
        ("builtins", "frozenset"),
        ("builtins", "object"),
        ("builtins", "range"),
        ("builtins", "set"),
        ("builtins", "slice"),
        ("collections", "Counter"),
        ("collections", "OrderedDict"),
        ("collections", "deque"),
        ("copyreg", "_reconstructor"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy.random._mt19937", "MT19937"),
        ("numpy.random._pcg64", "PCG64"),
        ("numpy.random._pickle", "__bit_generator_ctor"),
        ("numpy.random._pickle", "__generator_ctor"),
        ("numpy.random._pickle", "__randomstate_ctor"),
        ("numpy.random.bit_generator", "SeedSequence"),
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
    }
)
"""(module, name) of what every restricted pickle may name: it builds values and does nothing else."""


class RestrictedUnpickler(pickle.Unpickler):
    """Builds what is in `BUILDERS` and what the caller allows.

    Args:
        file: The pickle.
        allowed: (module, name) -> whether this class may be built. Nothing is imported for what may not.
        source: What is loaded, for messages.
    """

    def __init__(self, file: BinaryIO, allowed: Callable[[str, str], bool], source: str) -> None:
        super().__init__(file)
        self._allowed = allowed
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        """The object of a name.

        Raises:
            UsageError: It may not be built.
        """
        if (module, name) in BUILDERS:
            return super().find_class(module, name)
        if "." not in name and self._allowed(module, name):
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise UsageError(
            f"{self._source} names {module}.{name}, which could run code: nothing of it was loaded; give --trust only "
            "if you trust its author"
        )


def names_of(data: bytes) -> frozenset[tuple[str, str]]:
    """(module, name) of everything that a pickle of this process names.

    Args:
        data: The pickle. It is loaded: it must have been made here.
    """
    recorder = _Recorder(io.BytesIO(data))
    recorder.load()
    return frozenset(recorder.names)


class _Recorder(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.names: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add((module, name))
        return super().find_class(module, name)
