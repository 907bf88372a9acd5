"""What the terminal shows while a profile is measured."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lgdrl.profiler.load import TimedQuery
from lgdrl.profiler.metrics import missed

BLOCKS = "▁▂▃▄▅▆▇█"
SHOWN = 60
"""Latencies of the little curve."""


class Dashboard:
    """Implements `profile.Observer` on a terminal; elsewhere it prints one line per stage."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lock = threading.Lock()
        self._begin("", 0, None)
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._render)

    def __enter__(self) -> Dashboard:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _begin(self, text: str, total: int, deadline_s: float | None) -> None:
        self.text, self.total, self.deadline_s = text, total, deadline_s
        self.done = self.late = 0
        self.note = ""
        self.latencies: deque[float] = deque(maxlen=2000)
        self.statuses: Counter[str] = Counter()

    def stage(self, text: str, total: int, deadline_s: float | None = None) -> None:
        with self._lock:
            self._begin(text, total, deadline_s)
        if not self.console.is_terminal:
            self.console.print(f"{text} ..." if not total else f"{text} ({total}) ...")

    def answered(self, row: TimedQuery) -> None:
        with self._lock:
            self.done += 1
            self.latencies.append(row.latency)
            self.statuses[row.status.value] += 1
            self.late += self.deadline_s is not None and missed(row, self.deadline_s)

    def advanced(self, text: str = "") -> None:
        with self._lock:
            self.done += 1
            self.note = text

    def _render(self) -> Any:
        with self._lock:
            lines: list[Any] = [Text(self.text, style="bold")]
            if self.total:
                grid = Table.grid(padding=(0, 1))
                grid.add_row(ProgressBar(self.total, self.done, width=40), f"{self.done}/{self.total}", self.note)
                lines.append(grid)
            if self.latencies:
                p50, p95, p99 = np.percentile(self.latencies, [50, 95, 99]) * 1e3
                missing = f"   missed {100 * self.late / self.done:.1f} %" if self.deadline_s is not None else ""
                lines.append(Text(f"p50 {p50:.1f}  p95 {p95:.1f}  p99 {p99:.1f} ms{missing}"))
                lines.append(Text(_sparkline(list(self.latencies)[-SHOWN:]), style="cyan"))
                lines.append(Text("  ".join(f"{name} {count}" for name, count in self.statuses.items()), style="dim"))
            return Group(*lines)


def _sparkline(values: list[float]) -> str:
    top = max(values) or 1.0
    return "".join(BLOCKS[min(int(value / top * len(BLOCKS)), len(BLOCKS) - 1)] for value in values)
