"""`UsageError`, the one error for wrong input: printed as one line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Wrong input. The message is one line: what is wrong, with which value, and what to do."""


def unknown(kind: str, value: object, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist: `unknown scenario 'x': did you mean 'y'? (known: ...)`.

    Args:
        kind: What the name should name.
        value: The name given.
        known: Names that exist.
    Returns:
        The error, to be raised.
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "choose one that exists"
    return UsageError(f"unknown {kind} {value!r}: {hint} (known: {', '.join(names)})")
