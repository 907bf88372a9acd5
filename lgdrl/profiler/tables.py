"""A profile as tables: on the terminal, in Markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from lgdrl.profiler.gate import Change
from lgdrl.profiler.lateness import LatencyOutcome
from lgdrl.profiler.metrics import Distribution, ProfileCell
from lgdrl.profiler.result import ExpertProfile, Profile, ScenarioProfile
from lgdrl.profiler.safety import MEASURED
from lgdrl.quality.evaluation import ExpertEvaluation

ON_TIME = 0.95
"""Share of the decisions that must be on time at an affordable decision frequency."""
Grid = tuple[str, list[str], list[list[str]]]
"""Title, column names, rows."""


def grids(scenario: ScenarioProfile, narrow: bool = False) -> list[Grid]:
    """All tables of a scenario; `narrow` leaves intervals and some columns out, for a terminal."""
    deadlines = _deadlines(scenario)
    found = [
        _latency(scenario, narrow),
        _without(deadlines, "gap m", "99 %", "cost/km", "cached") if narrow else deadlines,
    ]
    if any(expert.recovery for expert in scenario.experts):
        found.append(_stall(scenario))
    found += [_safety(expert, scenario.deadline_s, narrow) for expert in scenario.experts if expert.outcomes]
    if scenario.trivial:
        found.append(_trivial(scenario))
    if scenario.quality is not None:
        found.append(_without(_quality(scenario.quality), "chosen") if narrow else _quality(scenario.quality))
    found += [_training(expert) for expert in scenario.experts if expert.costs]
    return found


def _without(grid: Grid, *names: str) -> Grid:
    title, columns, rows = grid
    kept = [k for k, column in enumerate(columns) if column not in names]
    return title, [columns[k] for k in kept], [[row[k] for k in kept] for row in rows]


def _latency(scenario: ScenarioProfile, narrow: bool) -> Grid:
    columns = [
        "expert",
        "load",
        "n",
        "p50",
        "p95" if narrow else "p95 [95 %]",
        "p99",
        "p99.9",
        "TTFT",
        "TTFA",
        "TPOT",
        "not ok",
    ]
    rows = []
    for expert, cell in _cells(scenario):
        whole = cell.latencies["e2e"]
        assert whole is not None
        low, high = whole.intervals.get("p95", (whole.at("p95"),) * 2)
        bad = sum(count for status, count in cell.statuses.items() if status not in ("ok", "repaired"))
        first, acted, word = (_p50(cell.latencies[name]) for name in ("ttft", "ttfa", "tpot"))
        rows.append(
            [
                expert.name,
                cell.load + (" (saturated)" if cell.saturated else ""),
                f"{cell.queries:,}",
                _ms(whole.p50),
                _ms(whole.at("p95")) + ("" if narrow else f" [{_ms(low)}, {_ms(high)}]"),
                *(_ms(whole.percentiles.get(name)) for name in ("p99", "p99.9")),
                first,
                acted,
                word,
                f"{100 * bad / cell.queries:.0f} %",
            ]
        )
    return f"{scenario.label}: latency, ms", columns, rows


def _deadlines(scenario: ScenarioProfile) -> Grid:
    columns = [
        "expert",
        "load",
        "missed",
        "run",
        "good/s",
        "stale m",
        "gap m",
        "danger",
        "Hz 95 %",
        "99 %",
        "tok/km",
        "cost/km",
        "cached",
    ]
    rows = []
    for expert, cell in _cells(scenario):
        late = cell.deadline
        rows.append(
            [
                expert.name,
                cell.load,
                f"{100 * late.missed:.1f} %",
                str(late.longest_run),
                _rate(late.goodput),
                f"{late.staleness.mean:.2f}" if late.staleness else "-",
                f"{late.closing_loss.mean:.2f}" if late.closing_loss else "-",
                f"{100 * late.after_danger:.1f} %",
                *(_rate(cell.affordable_hz[name]) for name in ("p95", "p99")),
                f"{cell.tokens / cell.guided_km:,.0f}" if cell.tokens and cell.guided_km else "-",
                f"{cell.cost / cell.guided_km:.4f}" if cell.cost and cell.guided_km else "-",
                f"{100 * cell.cached / cell.queries:.0f} %",
            ]
        )
    return f"{scenario.label}: what that means for a deadline of {scenario.deadline_s:g} s", columns, rows


def _stall(scenario: ScenarioProfile) -> Grid:
    columns = ["expert", "cars", "stall s", "before ms", "worst ms", "missed", "run", "blind m", "over s"]
    rows = [
        [
            expert.name,
            str(found.cars),
            f"{found.seconds:g}",
            _ms(found.before_s),
            _ms(found.worst_s),
            f"{100 * found.missed / max(found.queries, 1):.0f} %",
            str(found.longest_run),
            f"{found.blind_m:.0f}",
            "never" if found.recovered_s is None else f"{found.recovered_s:.2f}",
        ]
        for expert in scenario.experts
        if (found := expert.recovery)
    ]
    return f"{scenario.label}: a stall, and for how long after its end decisions are late", columns, rows


def sweep(profile: Profile, narrow: bool = False) -> Grid | None:
    """The decision frequencies of a profile side by side; None where there is but one of each scenario."""
    if len(profile.config.frequencies) < 2:
        return None
    columns = ["scenario", "expert", "load", "Hz", "p95 ms", "on time", "good/s", "success %"]
    rows: list[list[str]] = []
    best: dict[str, float] = {}
    for scenario in profile.scenarios:
        for expert, cell in _cells(scenario):
            hertz = 1 / scenario.deadline_s
            on_time = 1 - cell.deadline.missed
            driven = driven_as_measured(expert) if cell is expert.cells[0] else None
            found = cell.latencies["e2e"]
            p95 = _ms(found.at("p95")) if found else "-"
            success = "-" if driven is None else f"{100 * driven.success.value:.0f}" if narrow else str(driven.success)
            shares = [f"{100 * on_time:.1f} %", _rate(cell.deadline.goodput), success]
            rows.append([scenario.scenario, expert.name, cell.load, f"{hertz:g}", p95, *shares])
            key = f"{scenario.scenario}, {expert.name}, {cell.load}"
            best[key] = max(best.get(key, 0.0), hertz if on_time >= ON_TIME else 0.0)
    rows.sort(key=lambda row: row[:3])
    highest = "; ".join(f"{key}: {f'{hertz:g} Hz' if hertz else 'none'}" for key, hertz in best.items())
    return f"Decision frequency. Highest tried with {100 * ON_TIME:.0f} % on time: {highest}", columns, rows


def driven_as_measured(expert: ExpertProfile) -> LatencyOutcome | None:
    """Episodes with the latencies of the first load while the environment runs on, under the first policy."""
    found = [one for one in expert.outcomes if one.latency == MEASURED and one.policy != "pause"]
    return found[0] if found else None


def _safety(expert: ExpertProfile, deadline_s: float, narrow: bool) -> Grid:
    columns = [
        "policy",
        "latency",
        "success %" if narrow else "success % [95 %]",
        "crash %",
        "m/s",
        "jerk",
        "late",
        "unused",
        "stale m",
        "wait s",
    ]
    rows = [
        [
            one.policy,
            one.latency if narrow else f"{one.latency} ({1e3 * one.latency_s:.0f} ms)",
            f"{100 * one.success.value:.0f}" if narrow else str(one.success),
            f"{100 * one.crash.value:.0f}",
            f"{one.speed:.1f}",
            f"{one.jerk:.2f}",
            f"{100 * one.late:.0f} %",
            f"{100 * one.discarded:.0f} %",
            f"{one.staleness:.1f}",
            f"{one.waited_s:.1f}" if one.policy == "pause" else "-",
        ]
        for one in expert.outcomes
    ]
    budgets = ", ".join(
        f"{policy} {'beyond all tried' if seconds is None else f'{1e3 * seconds:.0f} ms'}"
        for policy, seconds in expert.budgets.items()
    )
    return f"{expert.name}: driving late (D = {deadline_s:g} s); latency budget: {budgets}", columns, rows


def _trivial(scenario: ScenarioProfile) -> Grid:
    columns = ["expert", "success % [95 %]", "crash %", "m/s"]
    rows = [
        [name, str(one.success), f"{100 * one.crash.value:.0f}", f"{one.speed:.1f}"]
        for name, one in scenario.trivial.items()
    ]
    return f"{scenario.label}: trivial baselines in the same episodes, without latency", columns, rows


def _quality(found: ExpertEvaluation) -> Grid:
    columns = ["expert", "safe [95 %]", "recoverable", "AUC [95 %]", "chosen", "success"]
    rows = []
    for score in found.scores:
        chosen = ", ".join(f"{name} {count}" for name, count in score.histogram.items() if count)
        success = "-" if score.success is None else f"{100 * score.success.value:.0f} %"
        rows.append(
            [score.name, _interval(score.strict), f"{score.recov.value:.2f}", _interval(score.auc), chosen, success]
        )
    return f"Decisions on {found.scenes} scenes with safe and unsafe actions (AUC 0.5: no understanding)", columns, rows


def _training(expert: ExpertProfile) -> Grid:
    columns = ["training", "per s", "waits", "queries", "tokens", "cost", "cached"]
    rows = [
        [
            one.name,
            f"{one.rate:,.0f}",
            f"{100 * one.waiting:.0f} %",
            f"{one.queries:,}",
            f"{one.tokens:,}",
            f"{one.cost:.4f}",
            f"{one.cache_hits:,}",
        ]
        for one in expert.costs
    ]
    return f"{expert.name}: a training of {expert.costs[0].decisions:,} decisions, and how long it waits", columns, rows


def _cells(scenario: ScenarioProfile) -> Iterable[tuple[ExpertProfile, ProfileCell]]:
    return ((expert, cell) for expert in scenario.experts for cell in expert.cells)


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    milliseconds = 1e3 * seconds
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:,.{int(milliseconds < 100)}f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _p50(found: Distribution | None) -> str:
    return "-" if found is None else _ms(found.p50)


def _interval(found: Any) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def rich_table(grid: Grid) -> Table:
    title, columns, rows = grid
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0))
    for k, column in enumerate(columns):
        name = k == 0 or column in ("expert", "load", "latency")
        table.add_column(column, justify="left" if name else "right", overflow="fold", no_wrap=name)
    for row in rows:
        table.add_row(*row)
    return table


def markdown(profile: Profile) -> str:
    """All tables for a document."""
    lines = [f"# Expert profile, {', '.join(one.label for one in profile.scenarios)}", ""]
    lines += [f"Machine: {profile.machine.words()}.", ""]
    for title, columns, rows in every(profile):
        lines += [f"**{title}**", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def every(profile: Profile, narrow: bool = False) -> list[Grid]:
    """The tables of all scenarios, then the sweep."""
    found = [grid for scenario in profile.scenarios for grid in grids(scenario, narrow)]
    swept = sweep(profile, narrow)
    return [*found, swept] if swept else found


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every query, one line each."""
    file = io.StringIO()
    if rows:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file.getvalue()


def change_grid(changes: Sequence[Change]) -> Grid:
    """A comparison of two profiles."""

    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    rows = []
    for change in changes:
        moved = "-"
        if change.old and change.new is not None and isfinite(change.old) and isfinite(change.new):
            moved = f"{100 * (change.new / change.old - 1):+.1f} %"
        verdict = f"FAILS {change.broken.text}" if change.broken else ""
        rows.append([change.where, change.metric, show(change.old), show(change.new), moved, verdict])
    return "Before and after (seconds, shares, per second)", ["where", "figure", "before", "after", "change", ""], rows
