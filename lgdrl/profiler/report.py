"""The files of a profile: profile.json, queries.csv, report.md, and report.html, which needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lgdrl.plots import COLOURS, GREY, figure_of
from lgdrl.profiler.lateness import LatencyOutcome
from lgdrl.profiler.pictures import SvgPage
from lgdrl.profiler.result import ExpertProfile, Profile, ScenarioProfile
from lgdrl.profiler.tables import csv_text, driven_as_measured, grids, markdown, sweep
from lgdrl.runs import write_json, write_text
from sim import assets
from sim.config import dump_yaml, to_dict
from sim.errors import UsageError

TEMPLATE = "profile/report.html.j2"
"""Of the page, in the assets."""


def write_report(profile: Profile, out: Path) -> None:
    """Write all four files.

    Args:
        profile: What was measured.
        out: Folder, made where it is missing.
    Raises:
        UsageError: The folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "profile.json", profile.to_dict())
        write_text(out / "queries.csv", csv_text(profile.rows))
        write_text(out / "report.md", markdown(profile))
        write_text(out / "report.html", html(profile))
    except OSError as error:
        raise UsageError(f"cannot write the profile to {str(out)!r}: {error.strerror}") from None


def html(profile: Profile) -> str:
    """The report as one page."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    whole = profile.overhead.latencies["e2e"]
    assert whole is not None
    names = dict.fromkeys(expert.name for scenario in profile.scenarios for expert in scenario.experts)
    page = SvgPage()
    return environment.from_string(assets.read_text(TEMPLATE)).render(
        data=profile.to_dict(),
        names=", ".join(names),
        machine=profile.machine.words(),
        overhead=f"{1e3 * whole.p50:.2f} ms (p99 {1e3 * whole.at('p99'):.1f} ms)",
        experts=profile.scenarios[0].experts,
        sections=[
            {"name": scenario.label, "plots": plots(scenario, page), "grids": grids(scenario)}
            for scenario in profile.scenarios
        ],
        sweep=sweep(profile),
        sweep_plots=[page.inline(_sweep_plot(profile, of), f"{of} by decision frequency") for of in SWEPT]
        if sweep(profile)
        else [],
        tolerated=profile.config.safety.tolerated_loss,
        settings=dump_yaml(to_dict(profile.config)),
    )


def plots(scenario: ScenarioProfile, page: SvgPage) -> list[str]:
    """SVG pictures of a scenario, each with a label for people who do not see it.

    Args:
        scenario: What was measured.
        page: The page that they are part of.
    """
    name = scenario.label
    found = [
        page.inline(_latency_plot(scenario), f"{name}: share of decisions that took longer, by latency"),
        page.inline(_frequency_plot(scenario), f"{name}: deadlines missed, by decision frequency"),
    ]
    if any(cell.parts for expert in scenario.experts for cell in expert.cells):
        found.append(page.inline(_parts_plot(scenario), f"{name}: what the latency is made of, by load"))
    for k, expert in enumerate(scenario.experts):
        if len({one.latency_s for one in _injected(expert)}) > 1:
            label = f"{name}, {expert.name}: episodes that succeed, by injected latency"
            found.append(page.inline(_safety_plot(scenario, k), label))
    return found


def _legend_below(axes: Any) -> None:
    """Curves fill the axes, so there is no room in them."""
    axes.legend(fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.17))


def _latency_plot(scenario: ScenarioProfile) -> Any:
    """Share of decisions that took longer, on logarithmic axes, which show the tail."""
    figure, axes = figure_of(6.2, 3.9)
    for k, (label, cell) in enumerate(_cells(scenario)):
        share, seconds = np.array(cell.curve).T
        axes.plot(1e3 * seconds, np.maximum(100 * (1 - share), 0.05), color=COLOURS[k % 9], label=label, lw=1.6)
    axes.axvline(1e3 * scenario.deadline_s, color=GREY, lw=1, ls="--")
    axes.text(1e3 * scenario.deadline_s, 100, " deadline", color=GREY, fontsize=8, va="top")
    axes.set(xscale="log", yscale="log", xlabel="latency, ms", ylabel="decisions that took longer, %")
    axes.set_title("Latency from the scheduled moment", loc="left", fontsize=10)
    _legend_below(axes)
    return figure


def _frequency_plot(scenario: ScenarioProfile) -> Any:
    """Deadlines missed if the same latencies met another decision frequency."""
    figure, axes = figure_of(6.2, 3.9)
    frequencies = np.geomspace(0.1, 1000, 200)
    for k, (label, cell) in enumerate(_cells(scenario)):
        share, seconds = np.array(cell.curve).T
        missed = 1 - np.interp(1 / frequencies, seconds, share, left=0.0, right=1.0)
        axes.plot(frequencies, 100 * missed, color=COLOURS[k % 9], label=label, lw=1.6)
    axes.axvline(1 / scenario.deadline_s, color=GREY, lw=1, ls="--")
    axes.set(xscale="log", xlabel="decisions per second of each car", ylabel="deadlines missed, %")
    axes.set_title("Affordable decision frequency", loc="left", fontsize=10)
    _legend_below(axes)
    return figure


def _parts_plot(scenario: ScenarioProfile) -> Any:
    cells = [(label, cell) for label, cell in _cells(scenario) if cell.parts]
    figure, axes = figure_of(6.2, 1.2 + 0.45 * len(cells))
    names = list(dict.fromkeys(name for _, cell in cells for name in cell.parts))
    left = np.zeros(len(cells))
    for k, name in enumerate(names):
        widths = np.array([1e3 * cell.parts.get(name, 0.0) for _, cell in cells])
        axes.barh(range(len(cells)), widths, left=left, color=COLOURS[k % 9], label=name, height=0.6)
        left += widths
    axes.set_yticks(range(len(cells)), [label for label, _ in cells], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="mean ms")
    axes.set_title("What the latency is made of", loc="left", fontsize=10)
    axes.legend(fontsize=7, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.35))
    return figure


def _injected(expert: ExpertProfile) -> list[LatencyOutcome]:
    """The points of its safety curves."""
    return [one for one in expert.outcomes if one.injected and one.policy != "pause"]


def _safety_plot(scenario: ScenarioProfile, k: int) -> Any:
    """Success against injected latency, with Wilson intervals."""
    expert = scenario.experts[k]
    figure, axes = figure_of(6.2, 3.4)
    points = _injected(expert)
    for j, policy in enumerate(dict.fromkeys(one.policy for one in points)):
        rows = [one for one in points if one.policy == policy]
        seconds = np.array([one.latency_s for one in rows])
        values = 100 * np.array([one.success.value for one in rows])
        bounds = 100 * np.array([one.success.interval for one in rows])
        axes.plot(seconds, values, color=COLOURS[j], label=policy, lw=1.8, marker="o", ms=4)
        axes.fill_between(seconds, bounds[:, 0], bounds[:, 1], color=COLOURS[j], alpha=0.12, lw=0)
    axes.axvline(scenario.deadline_s, color=GREY, lw=1, ls="--")
    axes.set(xlabel="injected latency, s", ylabel="episodes that succeed, %", ylim=(-3, 103))
    axes.set_title(f"{expert.name}: driving late", loc="left", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    return figure


SWEPT = ("decisions on time, %", "episodes that succeed, %")


def _sweep_plot(profile: Profile, of: str) -> Any:
    """One of `SWEPT` against the decision frequency: under every load, or with the latencies of the first one."""
    figure, axes = figure_of(6.2, 3.9)
    lines: dict[str, list[tuple[float, float]]] = {}
    for scenario in profile.scenarios:
        for expert in scenario.experts:
            for cell in expert.cells if of == SWEPT[0] else expert.cells[:1]:
                driven = driven_as_measured(expert)
                value = 1 - cell.deadline.missed if of == SWEPT[0] else driven.success.value if driven else None
                if value is not None:
                    name = f"{scenario.scenario}, {expert.name}, {cell.load}"
                    lines.setdefault(name, []).append((1 / scenario.deadline_s, 100 * value))
    for k, (name, points) in enumerate(lines.items()):
        axes.plot(*zip(*sorted(points), strict=True), color=COLOURS[k % 9], label=name, lw=1.6, marker="o", ms=4)
    axes.set(xscale="log", xlabel="decisions per second of each car", ylabel=of, ylim=(-3, 103))
    _legend_below(axes)
    return figure


def _cells(scenario: ScenarioProfile) -> list[tuple[str, Any]]:
    return [(f"{expert.name}, {cell.load}", cell) for expert in scenario.experts for cell in expert.cells]
