"""The evaluation of experts as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lgdrl.quality.evaluation import ExpertEvaluation
from lgdrl.quality.scores import ExpertScore, Interval


def to_json(evaluation: ExpertEvaluation) -> str:
    """The evaluation as JSON text, with a schema name.

    Args:
        evaluation: Any.
    """
    return json.dumps({"schema": "lgdrl.expert-evaluation/1", **_finite(dataclasses.asdict(evaluation))}, indent=2)


def _finite(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def print_table(evaluation: ExpertEvaluation, write: Callable[[Any], None] | None = None) -> None:
    """Print the table.

    Args:
        evaluation: Any.
        write: Gets each rich renderable; None: the terminal.
    """
    from rich.table import Table

    from lgdrl.display import make_console

    title = f"Experts on {evaluation.scenes} scenes of {evaluation.scenario} ({evaluation.backend})"
    note = (
        f"{evaluation.episodes} episodes of random driving, seed {evaluation.seed};"
        f" dropped: {evaluation.nothing_safe} with nothing safe, {evaluation.all_safe} with everything safe."
        " 95 % intervals. AUC 0.5 = no scene understanding."
    )
    note += " L/I/R/F/S: actions chosen; over: a shield would override; veto: refused; ms: median."
    table = Table(title=title, caption=note, box=None, pad_edge=False, padding=(0, 1, 0, 0), title_style="bold")
    table.title_justify = table.caption_justify = "left"
    for column in ("expert", "strict", "recov", "AUC", "L/I/R/F/S", "over", "veto", "ms"):
        table.add_column(column, no_wrap=True)
    for row in evaluation.scores:
        counts = "/".join(str(count) for count in row.histogram.values())
        milliseconds = row.latency_p50_s * 1e3
        latency = f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
        shares = (f"{row.overridden:.0%}", f"{row.vetoed:.0%}")
        recov = f"{row.recov.value:.2f}"
        table.add_row(row.name, _show(row.strict), recov, _show(row.auc), counts, *shares, latency)
    show = write or make_console().print
    show(table)
    driven = [row for row in evaluation.scores if row.success is not None]
    if driven:
        show(_alone(driven))


def _alone(rows: Sequence[ExpertScore]) -> Any:
    """What the experts reach when they drive alone."""
    from rich.table import Table

    table = Table(title="Driving alone, held-out seeds", box=None, pad_edge=False, title_style="bold")
    table.title_justify = "left"
    for column in ("expert", "success", "crash"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        assert row.success is not None
        table.add_row(row.name, _show(row.success), f"{row.crash:.0%}")
    return table


def _show(interval: Interval) -> str:
    return f"{interval.value:.2f} [{_short(interval.low)},{_short(interval.high)}]"


def _short(share: float) -> str:
    """.53 for 0.53, 1.0 for 1."""
    return f"{share:.2f}".removeprefix("0") if share < 0.995 else "1.0"
