"""Figures of a driving-language study as Markdown and plots. Colour-blind-safe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdrl.plots import COLOURS, GREY, figure_of, save_figure
from lgdrl.runs import write_text

SETS = {"test": "held-out seeds", "held_out": "held-out densities"}
POINTS = 12
"""Of a learning curve: a mean over a window for each."""


def write_report(figures: Mapping[str, Any], out: Path) -> None:
    """study.md, success.png and, if anything was trained by rewards, curves.png."""
    write_text(out / "study.md", markdown(figures))
    save_figure(_success(figures), out / "success.png")
    if any(curve for arm in figures["arms"].values() for curve in arm["curves"]):
        save_figure(_curves(figures), out / "curves.png")


def markdown(figures: Mapping[str, Any]) -> str:
    """Tables: skill, then what training was like; references below."""
    prompts = figures["prompts"]
    seeds = len(figures["config"]["seeds"])
    sets = [name for name in SETS if name in figures["references"]]
    lines = [
        f"Task {figures['task']}: {prompts['train']} training situations, {figures['traces']} of them with a trace; "
        + ", ".join(f"{prompts[name]} of {SETS[name]}" for name in sets)
        + f". {seeds} training seeds; mean and 95 % t-interval over them, in per cent. Greedy answers; pass@k sampled.",
        "",
    ]
    heads = [f"Success, {SETS[name]} | gain over {figures['base']}" for name in sets]
    lines += [f"| Arm | {' | '.join(heads)} | pass@8 | pass@32 | Crash % | Answers of 32 |"]
    lines += ["|---" * (5 + 2 * len(sets)) + "|"]
    for name, arm in figures["arms"].items():
        cells = [f"{_interval(arm[key]['success'])} | {_interval(arm[key]['gain'], sign=True)}" for key in sets]
        test = arm["test"]
        rest = [_percent(test.get(key)) for key in ("pass_at_8", "pass_at_32", "crash")]
        lines.append(f"| {name} | {' | '.join(cells)} | {' | '.join(rest)} | {test['distinct'][0]:.1f} |")
    if "teacher" in figures:
        cells = [f"{100 * figures['teacher'][key]['success']:.1f} | -" for key in sets]
        test = figures["teacher"]["test"]
        rest = [_percent([test[key]] if key in test else None) for key in ("pass_at_8", "pass_at_32", "crash")]
        lines.append(f"| *teacher of tokens* | {' | '.join(cells)} | {' | '.join(rest)} | {test['distinct']:.1f} |")
    for name in figures["references"]["test"]:
        cells = [f"{100 * figures['references'][key][name]['success']:.1f} | -" for key in sets]
        crash = 100 * figures["references"]["test"][name]["crash"]
        label = f"*{name}*" if name in ("rule", "random") else f"*always {name}*"
        lines.append(f"| {label} | {' | '.join(cells)} | - | - | {crash:.1f} | - |")
    lines += [
        "",
        "Training: means over seeds; from the first to the last quarter of updates where two numbers stand.",
        "",
        "| Arm | Updates | Generated tokens | of these search, teacher | Groups without advantage % "
        "| Readable answers % | Entropy, nats per word | Hinted: episodes given, share of trace | CPU s |",
        "|---" * 9 + "|",
    ]
    for name, arm in figures["arms"].items():
        spent, training = arm["ledger"], arm["training"]
        zero = training.get("zero_advantage_share")
        hints = "-"
        if "anchor" in training:
            hints = f"{training['anchor']:.2f}, {100 * training.get('revealed_share', 0.0):.0f} %"
        lines.append(
            f"| {name} | {arm['updates']:.0f} | {spent['generated_tokens']:,.0f} "
            f"| {spent['search_tokens']:,.0f}, {spent['teacher_tokens']:,.0f} "
            f"| {'-' if zero is None else f'{100 * zero:.0f}'} | {_ends(training.get('format'), 100)} "
            f"| {_ends(training.get('entropy'), digits=2)} | {hints} | {arm['cpu_s']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _percent(values: Sequence[float] | None) -> str:
    """The first value (a mean); "-" where no answer could be read."""
    return "-" if values is None else f"{100 * values[0]:.1f}"


def _interval(values: Sequence[float], sign: bool = False) -> str:
    mean, low, high = (100 * value for value in values)
    limits = "" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]"
    return f"{mean:{'+' if sign else ''}.1f}{limits}"


def _ends(values: Sequence[float] | None, scale: float = 1.0, digits: int = 0) -> str:
    """Means of the first and the last quarter of training."""
    return "-" if values is None else " to ".join(f"{scale * value:.{digits}f}" for value in values)


def _success(figures: Mapping[str, Any]) -> Any:
    arms = figures["arms"]
    references = figures["references"]["test"]
    rows = [*arms, *references]
    figure, axes = figure_of(8.4, 0.9 + 0.34 * len(rows))
    for place, name in enumerate(reversed(rows)):
        if name in references:
            axes.plot(100 * references[name]["success"], place, "D", color=GREY, markersize=5)
            continue
        for key, colour, shift in (("test", COLOURS[0], 0.12), ("held_out", COLOURS[1], -0.12)):
            if key in arms[name]:
                mean, low, high = (100 * value for value in arms[name][key]["success"])
                axes.plot([low, high], [place + shift] * 2, color=colour, linewidth=2.4, solid_capstyle="round")
                axes.plot(mean, place + shift, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), list(reversed(rows)))
    axes.set(xlabel=f"{figures['task']}: success (%), mean and 95 % t-interval over training seeds", xlim=(-2, 102))
    axes.grid(axis="y", visible=False)
    handles = [axes.plot([], [], mark, color=c)[0] for mark, c in (("o", COLOURS[0]), ("o", COLOURS[1]), ("D", GREY))]
    labels = [*SETS.values(), "no learning"]
    axes.legend(handles, labels, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _curves(figures: Mapping[str, Any]) -> Any:
    figure, axes = figure_of(8.4, 4.4)
    trained = {name: arm["curves"] for name, arm in figures["arms"].items() if any(arm["curves"])}
    for index, (name, curves) in enumerate(trained.items()):
        grid = np.linspace(0, max(curve[-1][0] for curve in curves if curve), POINTS + 1)
        middles = (grid[1:] + grid[:-1]) / 2
        values = 100 * np.array([_windowed(np.array(curve), grid) for curve in curves if curve])
        colour, style = COLOURS[index % len(COLOURS)], "-" if index < len(COLOURS) else "--"
        axes.plot(middles / 1000, np.nanmean(values, axis=0), style, color=colour, linewidth=1.8, label=name)
        axes.fill_between(
            middles / 1000, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=colour, alpha=0.1, linewidth=0
        )
    axes.set(xlabel="generated tokens (thousands), searches and teacher included", ylabel="success without help (%)")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    axes.set_title("Sampled answers to training prompts: mean and range over seeds", loc="left", fontsize=11)
    return figure


def _windowed(curve: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Means of a curve (n, 2) between the points of a grid; an empty window takes the value of the one before."""
    place = np.clip(np.digitize(curve[:, 0], grid) - 1, 0, len(grid) - 2)
    means = np.array([curve[place == i, 1].mean() if (place == i).any() else np.nan for i in range(len(grid) - 1)])
    for i in range(1, len(means)):
        if np.isnan(means[i]):
            means[i] = means[i - 1]
    return means
