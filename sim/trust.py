"""Whether files that can run code (pickles) may be loaded: only where the user said so with `--trust`.

The word is kept in the environment of the process, so that worker processes and threads know it too. It is never read
from a config: a config may have come with the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "LGDRL_TRUST"
"""Environment variable; "1" where files are trusted."""


def trusted() -> bool:
    """Whether files that can run code may be loaded in this process."""
    return os.environ.get(VARIABLE) == "1"


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Trust files within a `with` block.

    Args:
        trust: False changes nothing.
    """
    if not trust:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
