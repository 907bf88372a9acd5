"""`lgdrl bench sim --parity`: engine against highway-env on this machine, with NumPy and BLAS pinned and as they are.

Pinned, everything is equal bit for bit. As they are, NumPy and BLAS may fuse what highway-env computes with them, and
highway-env itself rounds differently; the engine's own arithmetic is the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from lgdrl.parity.process import PINNED, ParityProcessFailed, run
from lgdrl.runs import RunFailed


@dataclass(frozen=True)
class ParityRow:
    """One scenario in one mode."""

    scenario: str
    pinned: bool
    decisions: int
    observations: int
    """Observations compared: one after each reset and each decision."""
    observations_differ: int
    decisions_differ: int
    """Decisions after which anything differed: states of all vehicles, reward, ends, legal actions."""
    largest_difference: float
    """Between two observations."""
    first_difference: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(scenarios: Sequence[str], decisions: int, seed: int) -> list[ParityRow]:
    """Compare on each scenario, pinned and as it is, side by side.

    Args:
        scenarios: Names, all on the engine.
        decisions: Of each scenario and mode.
        seed: Of the first episode.
    Returns:
        Two rows for each scenario, the pinned one first.
    Raises:
        RunFailed: A comparison could not be made here.
    """
    jobs = [{"scenario": name, "count": True, "seed": seed, "decisions": decisions} for name in scenarios]
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(run, jobs, pinned) for pinned in (True, False)]
        try:
            results = [each.result() for each in waiting]
        except ParityProcessFailed as error:
            last = (str(error).splitlines() or ["no words"])[-1]
            raise RunFailed(f"the comparison failed on this machine: {last}") from None
    rows = []
    for k, name in enumerate(scenarios):
        for pinned, found in zip((True, False), (share[k] for share in results), strict=True):
            counts = found["decisions"], found["observations"], found["differ"], found["values"]
            rows.append(ParityRow(name, pinned, *counts, found["largest"], found["first"]))
    return rows


def parity_table(rows: Sequence[ParityRow]) -> Table:
    """The rows; fits 80 columns."""
    table = Table(title="Engine against highway-env", title_justify="left", title_style="bold", box=SIMPLE)
    table.add_column("scenario", no_wrap=True)
    table.add_column("NumPy, BLAS", no_wrap=True)
    for column in ("decisions", "observations differ", "largest difference"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.scenario,
            "pinned" if row.pinned else "as they are",
            f"{row.decisions:,}",
            f"{row.observations_differ:,} of {row.observations:,}",
            f"{row.largest_difference:.1e}" if row.largest_difference else "0",
        )
    settings = " ".join(f'{name}="{value}"' for name, value in PINNED.items())
    table.caption = f"pinned: {settings}"
    return table


def verdict(rows: Sequence[ParityRow]) -> str:
    """What the rows show, in one line."""
    broken = next((row for row in rows if row.pinned and row.decisions_differ), None)
    if broken is not None:
        return f"NOT equal on {broken.scenario} with NumPy and BLAS pinned: {broken.first_difference}"
    loose = sum(row.decisions_differ for row in rows if not row.pinned)
    other = f"after {loose:,} decisions highway-env itself rounds differently" if loose else "and equal as they are"
    return f"Equal bit for bit with NumPy and BLAS pinned; {other}."
