"""Numbers of a run that must be finite: observations, rewards, losses, an expert's probabilities."""

from __future__ import annotations

import numpy as np


class NotFinite(RuntimeError):
    """A number of a run became NaN or infinite. The trainer says so in one line, with the last checkpoint."""


def require_finite(what: str, values: np.ndarray, decisions: int | None = None) -> None:
    """Check numbers.

    Args:
        what: What they are, for the message.
        values: Any shape; where their elements are not numbers, they are not looked at.
        decisions: Decisions so far in the run; None: not known.
    Raises:
        NotFinite: One of them is NaN or infinite.
    """
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    position = tuple(int(k) for k in np.argwhere(~np.isfinite(values))[0])
    where = f" of environment {position[0]}" if position else ""
    when = "" if decisions is None else f" at decision {decisions:,}"
    raise NotFinite(f"{what}{where} is {values[position]}{when}")
