"""The machine while a profile is measured: how many cores there are, and who else used them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSY = 0.25
"""Share of the CPU from which on the use by other processes makes a machine a busy one."""
PROC = Path("/proc")


@dataclass(frozen=True)
class MachineLoad:
    """Load of the machine during a measurement."""

    cores: int
    threads: int
    """Of torch."""
    load_begin: float | None
    """Load average of the last minute when it began; None where the system has none."""
    load_end: float | None
    others: float | None
    """Share of the CPU time of all cores that other processes used, 0 to 1; None where the system does not say."""

    @property
    def busy(self) -> bool:
        """Whether other processes used more than `BUSY`."""
        return self.others is not None and self.others > BUSY

    def words(self) -> str:
        """In one line."""
        parts = [f"{self.cores} core{'s' * (self.cores > 1)}, {self.threads} thread{'s' * (self.threads > 1)} of torch"]
        if self.load_begin is not None and self.load_end is not None:
            parts.append(f"load average {self.load_begin:.1f} at the beginning, {self.load_end:.1f} at the end")
        if self.others is not None:
            parts.append(f"other processes used {100 * self.others:.0f} % of the CPU")
        warning = ": latencies are those of a busy machine" if self.busy else ""
        return "; ".join(parts) + warning

    def to_dict(self) -> dict[str, Any]:
        return {
            "cores": self.cores,
            "torch_threads": self.threads,
            "load_average_begin": self.load_begin,
            "load_average_end": self.load_end,
            "other_processes_cpu_share": self.others,
        }


class LoadWatch:
    """Begins to watch where it is made; `load` says what there was since then."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._average = load_average()
        self._busy, self._own = busy_seconds(), own_seconds()

    def load(self) -> MachineLoad:
        """The machine since the watch was made."""
        import torch

        cores = os.cpu_count() or 1
        elapsed, others = time.perf_counter() - self._began, None
        busy = busy_seconds()
        if busy is not None and self._busy is not None and elapsed > 0:
            used = busy - self._busy - (own_seconds() - self._own)
            others = min(max(used / (elapsed * cores), 0.0), 1.0)
        return MachineLoad(cores, torch.get_num_threads(), self._average, load_average(), others)


def load_average() -> float | None:
    """Processes that wanted to run, over the last minute; None where the system has no such figure."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def busy_seconds() -> float | None:
    """CPU time that all processes have used since the machine started, s; None where there is no /proc."""
    try:
        fields = [int(word) for word in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _wait, interrupt, soft, _stolen = fields
    return (user + nice + system + interrupt + soft) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """CPU time of this process and of those that it has started, ended ones included, s."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + _children_seconds(os.getpid())


def _children_seconds(parent: int) -> float:
    """CPU time of running child processes, and theirs, s; 0 where there is no /proc."""
    used: dict[int, tuple[int, float]] = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks = sum(int(word) for word in fields[11:15])
        used[int(folder.name)] = int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")
    total, found = 0.0, {parent}
    for _ in range(len(used)):
        children = {number for number, (above, _) in used.items() if above in found and number not in found}
        if not children:
            break
        total += sum(used[number][1] for number in children)
        found |= children
    return total
