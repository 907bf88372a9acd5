"""Threads of torch and of BLAS: one, for every command, unless `LGDRL_THREADS` says otherwise.

Policies and language models here are small: helper threads gain little on an idle machine, and on a busy one they wait
for each other. Trainings compute with one thread in any case, so that their results do not depend on it.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "LGDRL_THREADS"
LIBRARIES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Variables that numerical libraries read when they are imported."""
MOST = 1024


def limit_threads() -> int:
    """Set the threads of this process and of those that it starts. Before numpy and torch are imported.

    A variable of a library that is set already, and is not what an earlier call has set, stays as it is.

    Returns:
        How many.
    Raises:
        ValueError: `LGDRL_THREADS` is no whole number from 1 to 1024.
    """
    text = os.environ.get(VARIABLE, "1")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise ValueError(f"{VARIABLE} = {text!r}: set it to a whole number from 1 to {MOST}, or leave it out")
    for name in LIBRARIES:
        os.environ.setdefault(name, text)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(int(text))
    return int(text)
