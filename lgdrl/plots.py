"""Figures of a comparison: learning curves, and final success with intervals. Colour-blind-safe (Okabe-Ito)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lgdrl.runs import MetricsTable, Run
from sim.files import write_atomically

if TYPE_CHECKING:
    from lgdrl.bench.learners import UpdateRate
    from lgdrl.bench.simulators import Speed
    from lgdrl.comparison import Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#7F7F7F")
GREY = "#6B7280"
MOST_BANDS = 6
"""Learning curves with a band each; of more of them bands cover each other."""


def learning_curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Progress and learner-alone score (expert off) of a run, from its metrics.csv: success in per cent, or return."""
    rows = MetricsTable(Run(folder).metrics).rows
    column = "eval/success" if any(row.get("eval/success") for row in rows) else "eval/learner_return"
    rows = [row for row in rows if row.get(column) not in (None, "")]
    progress = np.array([float(next(iter(row.values()))) for row in rows])
    return progress, np.array([float(row[column]) for row in rows]) * (100 if column == "eval/success" else 1)


def plot_comparison(rows: Sequence[Row], out: Path, runs: Mapping[str, Sequence[Path]]) -> None:
    """Writes success.png into `out`, curves.png if anything was trained, labels.png if it was over label budgets."""
    if runs:
        save_figure(_curves(rows, runs), out / "curves.png")
    save_figure(_scores(rows), out / "success.png")
    if any(row.label_budget is not None for row in rows):
        save_figure(_by_labels(rows), out / "labels.png")


def speed_plot(rows: Sequence[Speed], path: Path) -> None:
    """Bars of simulators by scenario on a logarithmic axis, each with its ratio to highway-env."""
    names = list(dict.fromkeys(row.scenario for row in rows))
    figure, axes = figure_of(8.4, 0.9 + 0.32 * (len(rows) + len(names)))
    place, ticks, labels = 0.0, [], []
    for name in names:
        for row in (row for row in rows if row.scenario == name):
            colour = COLOURS[0] if row.simulator.startswith("engine") else GREY
            axes.barh(place, row.decisions_per_cpu_s, color=colour, height=0.7)
            axes.annotate(
                f"{row.ratio:,.1f}x" if row.ratio < 10 else f"{row.ratio:,.0f}x",
                (row.decisions_per_cpu_s, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
            threads = f", {row.threads} threads" if row.threads > 1 and row.simulator == "engine" else ""
            ticks.append(place)
            labels.append(f"{name}: {row.simulator}, N = {row.num_envs}{threads}")
            place += 1
        place += 0.6
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="decisions per second of CPU time (resets included), ratio to highway-env")
    save_figure(figure, path)


def update_plot(rows: Sequence[UpdateRate], path: Path) -> None:
    """A line per learner and size on a logarithmic axis: its implementations as dots, with the ratio between them."""
    groups: dict[tuple[int, int], dict[str, list[UpdateRate]]] = {}
    for row in rows:
        groups.setdefault((row.width, row.batch), {}).setdefault(row.learner, []).append(row)
    lines = sum(len(learners) for learners in groups.values())
    figure, axes = figure_of(8.4, 1.4 + 0.3 * (lines + len(groups)))
    colours = {"SB3": COLOURS[4], "SBX": COLOURS[1], "torch": GREY, "fused": COLOURS[0]}
    place, ticks, labels = 0.0, [], []
    for (width, batch), learners in groups.items():
        axes.annotate(
            f"width {width:,}, batch {batch:,}", (0.01, place), xycoords=("axes fraction", "data"), va="center",
            fontsize=8, fontweight="bold",
        )  # fmt: skip
        place += 1
        for learner, found in learners.items():
            rates = [row.updates_per_cpu_s for row in found]
            axes.plot([min(rates), max(rates)], [place, place], color=GREY, linewidth=1.2, alpha=0.6, zorder=1)
            for row in found:
                axes.plot(row.updates_per_cpu_s, place, "o", color=colours[row.implementation], markersize=7)
            if len(found) > 1:
                last = found[-1]
                axes.annotate(
                    f"{last.ratio:,.1f}x" if last.ratio < 10 else f"{last.ratio:,.0f}x",
                    (max(rates), place),
                    xytext=(8, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            ticks.append(place)
            labels.append(learner)
            place += 1
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_ylim(place - 0.4, -0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="gradient updates per second of CPU time, one thread; ratios: fused to SB3, or torch without SB3")
    shown = [name for name in colours if any(row.implementation == name for row in rows)]
    handles = [axes.plot([], [], "o", color=colours[name])[0] for name in shown]
    axes.legend(handles, shown, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save_figure(figure, path)


def figure_of(width: float, height: float) -> tuple[Any, Any]:
    """A figure and its axes in the style of all plots; inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _curves(rows: Sequence[Row], runs: Mapping[str, Sequence[Path]]) -> Any:
    figure, axes = figure_of(8.4, 4.4)
    banded = len(runs) <= MOST_BANDS
    for index, (arm, folders) in enumerate(runs.items()):
        curves = [learning_curve(folder) for folder in folders]
        if not all(len(progress) for progress, _ in curves):
            axes.plot([], [], color=COLOURS[index % len(COLOURS)], label=f"{arm} (no points)")
            continue
        grid = curves[0][0]
        values = np.stack([np.interp(grid, progress, score) for progress, score in curves])
        colour = COLOURS[index % len(COLOURS)]
        style = "-" if index < len(COLOURS) else "--"
        dots = "o" if len(grid) < 3 else None
        axes.plot(grid / 1000, values.mean(axis=0), style, color=colour, linewidth=1.8, label=arm, marker=dots)
        if banded:
            axes.fill_between(
                grid / 1000, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.13, linewidth=0
            )
    for row in rows:
        if row.name == "rule":
            level = row.score.mean
            axes.axhline(level, color=GREY, linewidth=1, linestyle=":")
            axes.annotate(
                "rule expert", (1.0, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY
            )
    axes.set(xlabel="training decisions (thousands)", ylabel="return, learner alone")
    if rows[0].scored_by_success:
        axes.set(ylabel="success, learner alone (%)", ylim=(-2, 104))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    seeds = max(len(folders) for folders in runs.values())
    over = ("mean and range" if banded else "mean") + " over training seeds" if seeds > 1 else "one training seed"
    axes.set_title(f"Learning curves, expert off: {over}", loc="left", fontsize=11)
    return figure


def _scores(rows: Sequence[Row]) -> Any:
    figure, axes = figure_of(8.4, 0.7 + 0.34 * len(rows))
    kinds = {"trained": COLOURS[0], "expert": COLOURS[2], "trivial": GREY}
    for place, row in enumerate(reversed(rows)):
        score, colour = row.score, kinds[row.kind]
        axes.plot([score.low, score.high], [place, place], color=colour, linewidth=2.4, solid_capstyle="round")
        axes.plot(score.mean, place, "o", color=colour, markersize=6)
        if row.trained:
            axes.plot(row.per_seed, [place] * len(row.per_seed), "|", color=colour, markersize=9, alpha=0.6)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.set(xlabel="return: mean with 95 % interval over training seeds; ticks are training seeds")
    if rows[0].scored_by_success:
        words = "success (%): methods with a 95 % interval over training seeds (ticks), others with Wilson's"
        axes.set(xlabel=words, xlim=(-2, 102))
    axes.grid(axis="y", visible=False)
    handles = [axes.plot([], [], "o", color=colour)[0] for colour in kinds.values()]
    labels = ["trained, expert off", "expert itself", "trivial baseline"]
    axes.legend(handles, labels, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _by_labels(rows: Sequence[Row]) -> Any:
    """Final score over the label budget, one line per method; methods and experts without a budget are levels."""
    figure, axes = figure_of(8.4, 4.4)
    methods: dict[str, list[Row]] = {}
    for row in rows:
        if row.label_budget is not None:
            methods.setdefault(str(row.method), []).append(row)
    budgets = sorted({row.label_budget or 0 for found in methods.values() for row in found})
    for index, (method, found) in enumerate(methods.items()):
        found = sorted(found, key=lambda row: row.label_budget or 0)
        # methods stand a little beside each other, so that their intervals can be told apart
        places = [budgets.index(row.label_budget or 0) + 0.06 * (index - (len(methods) - 1) / 2) for row in found]
        means, bounds = [row.score.mean for row in found], [row.score[1:] for row in found]
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(places, means, "o-", color=colour, linewidth=1.8, markersize=5, label=method)
        axes.vlines(places, *zip(*bounds, strict=True), color=colour, linewidth=1.6, alpha=0.7)
        for place, row in zip(places, found, strict=True):
            axes.plot([place] * len(row.per_seed), row.per_seed, "_", color=colour, markersize=6, alpha=0.55)
    for row in rows:
        if row.label_budget is None and (row.trained or row.name == "rule"):
            axes.axhline(row.score.mean, color=GREY, linewidth=1, linestyle="--" if row.trained else ":")
            axes.annotate(
                row.name, (1.0, row.score.mean), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY
            )
    axes.set_xticks(range(len(budgets)), [f"{budget:,}" for budget in budgets])
    axes.set(xlabel="label budget", ylabel="return, learner alone")
    if rows[0].scored_by_success:
        axes.set(ylabel="success, learner alone (%)", ylim=(-2, 104))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    seeds = len(rows[0].per_seed)
    over = f"mean and 95 % interval over {seeds} training seeds (ticks)" if seeds > 1 else "one training seed"
    axes.set_title(f"What few labels are worth, expert off: {over}", loc="left", fontsize=11)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write it in the format of its name, all or nothing."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lstrip(".") or "png")
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
