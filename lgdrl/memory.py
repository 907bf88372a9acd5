"""The machine's memory: what is left of it, and refusing what cannot fit.

Linux grants memory that it does not have and ends the process later: what cannot fit is therefore refused by numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sim.errors import UsageError

PER_EPISODE = 2_000
"""Bytes of the summary of an evaluated episode."""


def require_memory(needs: Mapping[str, int]) -> None:
    """Refuse what cannot fit into the memory that is free now.

    Args:
        needs: Bytes by setting.
    Raises:
        UsageError: Together they are more; names the largest one.
    """
    total, free = sum(needs.values()), available_memory()
    if total > free:
        name = max(needs, key=lambda each: needs[each])
        raise UsageError(
            f"{name}: {_gigabytes(needs[name])} of memory ({_gigabytes(total)} in all), {_gigabytes(free)} are free: "
            "choose less"
        )


def episodes_memory(episodes: int) -> dict[str, int]:
    """Bytes that the summaries of an evaluation take, for `require_memory`."""
    return {"episodes": episodes * PER_EPISODE}


def available_memory() -> int:
    """Bytes that this process can still get: of the machine, and of its control group where that is less."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass  # not Linux: no limit is known
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(max(most - used, 0))
    except (OSError, ValueError):
        pass  # no control group, or no limit ("max")
    return min(found, default=1 << 62)


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e8 else f"{number / 1e6:,.1f} MB"
