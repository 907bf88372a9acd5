"""Tables and progress bars for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from experts.data.transitions import DatasetInfo
    from lgdrl.bench.learners import UpdateRate
    from lgdrl.bench.simulators import Speed
    from lgdrl.comparison import Row
    from lgdrl.config import RunConfig
    from lgdrl.evaluation import Evaluation
    from lgdrl.jobs import Report
    from lgdrl.training import Progress as TrainingProgress


def make_console(**options: Any) -> Console:
    """A terminal that prints names as they are: folders, experts and models may hold brackets, which are no markup."""
    return Console(markup=False, **options)


@contextmanager
def training_progress(
    console: Console, config: RunConfig, done: int, unit: str
) -> Iterator[Callable[[TrainingProgress], None]]:
    """A bar with rate, ETA, the labels that were given, and the last learning-curve point.

    Args:
        console: Where to draw it.
        config: Of the run.
        done: Where the run stands.
        unit: What is counted.
    """
    columns = (
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn(f"{unit}, {{task.fields[rate]}}/s,"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        TextColumn("{task.fields[labels]}"),
        TextColumn("{task.fields[score]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("train", total=config.steps, completed=done, rate="-", labels="", score="starting ...")

        def show(progress: TrainingProgress) -> None:
            fields: dict[str, Any] = {"rate": f"{progress.row['rate']:,}", "labels": progress.labels}
            if progress.evaluation is not None:
                fields["score"] = _score(progress.evaluation)
            elif bar.tasks[0].fields["score"].startswith("starting"):
                fields["score"] = ""
            bar.update(task, completed=progress.done, **fields)

        yield show


def _score(found: Evaluation) -> str:
    """The newest point of a learning curve, of the learner alone."""
    if found.has("success"):
        return f"success {100 * found.rate('success').value:.0f} %"
    return f"return {found.mean('episode_return'):.1f}"


@contextmanager
def comparison_progress(console: Console) -> Iterator[Report]:
    """One bar per run that is under way; finished ones stay as a line."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int, note: str = "") -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total, note=note)
            bar.update(tasks[name], completed=done, note=note)

        yield report


@contextmanager
def counting_progress(console: Console, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of what is counted, with the time that is left.

    Args:
        console: Where to draw it.
        unit: What is counted.
        total: How many there will be.
    """
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(f"{unit},"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("count", total=total)
        yield lambda done: bar.update(task, completed=min(done, total))


def collection_table(about: DatasetInfo, rows: Sequence[Mapping[str, Any]], statuses: Mapping[str, int]) -> Table:
    """What each policy of a data set did.

    Args:
        about: The data set.
        rows: See `lgdrl.data_commands.summary_rows`.
        statuses: Decisions by status; empty where they are not known.
    """
    title = f"Transitions of {about.scenario} ({about.backend})"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("policy")
    scored = any(row["success"] is not None for row in rows)
    for column in ("episodes", "transitions", "return", *(["success %"] if scored else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        success = "" if row["success"] is None else f"{100 * row['success']:.1f}"
        table.add_row(
            Text(row["policy"]),
            f"{row['episodes']:,}",
            f"{row['transitions']:,}",
            "" if row["return_mean"] is None else f"{row['return_mean']:.2f}",
            *([success] if scored else []),
        )
    notes = []
    if about.references is not None:
        low, high = about.references.random, about.references.expert
        episodes = about.references.episodes
        notes.append(f"references: random {low:.2f}, {about.references.policy} {high:.2f} ({episodes} episodes each)")
    if set(statuses) - {"ok"}:
        notes.append("decisions: " + ", ".join(f"{status} {count:,}" for status, count in statuses.items()))
    table.caption, table.caption_justify = "\n".join(notes) or None, "left"
    return table


def label_table(about: DatasetInfo, found: Mapping[str, Any]) -> Table:
    """What an expert said about the states of a data set.

    Args:
        about: The data set.
        found: What `lgdrl label` writes as JSON.
    """
    title = f"Labels of {found['expert']} on {about.scenario} ({about.backend})"
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("states", f"{found['states']:,}, {found['asked']:,} asked about, {found['labels']:,} labelled")
    table.add_row("decided by", Text(decided_by(found["expert"], found["statuses"])))
    if found["as_executed"] is not None:
        table.add_row("as executed", f"{100 * found['as_executed']:.1f} % of the labels")
    if found["tokens"]:
        table.add_row("tokens", f"{found['tokens']:,}, cost {found['cost']:.4g}")
        table.add_row("latency", f"{found['latency_s'] / max(found['asked'], 1):.2f} s mean")
    return table


def evaluation_table(name: str, scenario: str, found: Evaluation) -> Table:
    """Rates with intervals and what the driving was like."""
    values = found.to_dict()
    seeds = f"seeds {values['first_seed']} to {values['last_seed']}"
    one = values["episodes"] == 1
    title = f"{name} on {scenario} ({values['backend']})" + ("" if found.statuses else ", expert off")
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    seeds = f"seed {values['first_seed']}" if one else f"seeds {values['first_seed']} to {values['last_seed']}"
    table.add_row("episodes", f"{values['episodes']:,} ({seeds})")
    for outcome in found.outcomes:
        table.add_row(outcome, f"{found.rate(outcome)} %" if not one else str(found.rate(outcome).count))
    if "mean_speed_m_s" in values:
        table.add_row("speed", f"{values['mean_speed_m_s']:.1f} m/s")
    if "distance_mean_m" in values:
        table.add_row("distance", f"{values['distance_mean_m']:.1f} m mean")
    table.add_row("return", f"{values['return_mean']:.2f} mean, {values['return_iqm']:.2f} interquartile mean")
    if "median_min_ttc_s" in values:
        table.add_row("smallest TTC", f"{values['median_min_ttc_s']:.1f} s (median over episodes)")
    if "lane_changes_mean" in values:
        table.add_row("lane changes", f"{values['lane_changes_mean']:.1f} in {values['steps_mean']:.0f} decisions")
    elif "steps_mean" in values:
        table.add_row("steps", f"{values['steps_mean']:.0f} mean")
    if found.statuses:
        table.add_row("decided by", decided_by(name, found.statuses))
    return table


def list_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Names with what they stand for, and below it, dim, what they work with; fits 80 columns.

    Args:
        title: Of the table.
        rows: Each with `name` and `summary`; their other values are texts or lists of texts.
    """
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for row in rows:
        others = [
            f"{value} actions" if name == "actions" else value
            for name, value in row.items()
            if name not in ("name", "summary")
        ]
        details = "; ".join(", ".join(value) if isinstance(value, list) else str(value) for value in others)
        text = Text(str(row["summary"]))
        table.add_row(Text(str(row["name"])), text.append(f"\n{details}", style="dim") if details else text)
    return table


def decided_by(expert: str, statuses: Mapping[str, int]) -> str:
    """Which of an expert's decisions were its own, in words.

    Args:
        expert: Its name.
        statuses: Decisions by status.
    """
    total = sum(statuses.values())
    if not total:
        return "no decision"
    others = {"its fallback": "fallback", "its fallback after a veto": "vetoed", "no decision": "failed"}
    counts = {what: statuses.get(status, 0) for what, status in others.items()}
    parts = {expert: total - sum(counts.values())} | {what: count for what, count in counts.items() if count}
    return ", ".join(f"{what} {count:,} ({100 * count / total:.3g} %)" for what, count in parts.items())


def speed_table(scenario: str, policy: str, rows: Sequence[Speed]) -> Table:
    """Simulators on one scenario, highway-env first."""
    title = f"{scenario}, {policy} actions: decisions per second, resets included"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("simulator", no_wrap=True)
    for column in ("N", "threads", "/ CPU-s", "/ s", "ratio", "ns"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        rates = (_rate(value) for value in (row.decisions_per_cpu_s, row.decisions_per_s))
        ours = row.simulator.startswith("engine")
        table.add_row(
            Text(row.simulator, style="bold" if ours else ""),
            str(row.num_envs),
            str(row.threads),
            *rates,
            _ratio(row.ratio),
            f"{row.ns_per_vehicle_substep:,.0f}",
        )
    table.caption = "ratio: to highway-env, in CPU time; ns: CPU time per vehicle and simulation step"
    return table


def update_table(rows: Sequence[UpdateRate], rounds: int) -> Table:
    """Learners by size, the reference of each learner first; fits 80 columns.

    Args:
        rows: Of `lgdrl.bench.learners`.
        rounds: Over which medians were taken.
    """
    from lgdrl.bench.learners import UPDATES_PER_CALL

    over = f"medians over {rounds:,} rounds" if rounds > 1 else "one round"
    title = f"Gradient updates per CPU-second, one thread, {over}"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("learner", no_wrap=True)
    table.add_column("computed by", no_wrap=True)
    for column in ("/ CPU-s", "us", "ratio", *(["range"] if rounds > 1 else [])):
        table.add_column(column, justify="right", no_wrap=True)
    size = learner = None
    for row in rows:
        if size != (row.width, row.batch):
            table.add_section()
            size, learner = (row.width, row.batch), None
            table.add_row(Text(f"width {row.width:,}, batch {row.batch:,}", style="dim"))
        reference = row.implementation == row.reference
        spread = "" if reference else f"{_ratio(row.ratio_low)} - {_ratio(row.ratio_high)}"
        table.add_row(
            "" if row.learner == learner else Text(row.learner),
            Text(row.implementation, style="bold" if row.implementation == "fused" else ""),
            _rate(row.updates_per_cpu_s),
            f"{row.cpu_us_per_update:,.0f}",
            "1" if reference else _ratio(row.ratio),
            *([spread] if rounds > 1 else []),
        )
        learner = row.learner
    notes = [
        f"us: CPU microseconds per update; {UPDATES_PER_CALL} updates per call of `train`",
        "ratio: to the first line of the same learner" + ("; range: over the rounds" if rounds > 1 else ""),
        "dqn has one critic and no actor, so it does less work than the others; sac and td3 have continuous actions.",
    ]
    if any(row.implementation == "SB3" for row in rows) and all(row.implementation != "SBX" for row in rows):
        notes.append("SBX is not installed here: pip install 'lgdrl[bench]'")
    table.caption = "\n".join(notes)
    table.caption_justify = "left"
    return table


def _ratio(value: float) -> str:
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def comparison_table(rows: Sequence[Row]) -> Table:
    """Methods, then experts, then trivial baselines; fits 80 columns."""
    from lgdrl.comparison import OUTCOMES, spelled, spelled_difference

    success = rows[0].scored_by_success
    digits = 1 if success else 2
    table = Table(
        title="The learner alone, expert off, on held-out seeds",
        title_justify="left",
        title_style="bold",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    measures = [outcome for outcome in OUTCOMES[1:] if rows[0].has(outcome)]
    speed = ["m/s"] if rows[0].has("mean_speed_m_s") else []
    table.add_column("driver", no_wrap=True)
    for column in ("success % [95 %]" if success else "return [95 %]", "seeds", *measures, *speed, "labels", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    last = rows[0].kind
    for row in rows:
        if row.kind != last:
            table.add_section()
            last = row.kind
        ends = [f"{end(row.per_seed):.{digits}f}" for end in (min, max)] if len(row.per_seed) > 1 else []
        table.add_row(
            Text(row.name, style="bold" if row.trained else ""),
            spelled(row.score, digits),
            ("-" if success else " to ").join(ends),
            *(f"{100 * row.rate(outcome).value:.1f}" for outcome in measures),
            *([f"{row.mean('mean_speed_m_s'):.1f}"] if speed else []),
            "" if row.labels is None else f"{row.labels:,.0f}",
            f"{sum(result['episodes'] for result in row.results):,}",
        )
    seeds = len(rows[0].per_seed)
    over_episodes = ", Wilson interval over its episodes" if success else ", no interval"
    notes = [f"methods: mean over {seeds} training seeds, t-interval" if seeds > 1 else f"methods: one{over_episodes}"]
    notes.append(f"others: one policy{over_episodes}")
    for row in rows:
        if row.difference is not None and seeds > 1:
            assert row.against is not None
            notes.append(f"{row.name} - {row.against.name}: {spelled_difference(row.difference, digits)} (paired)")
    notes += [
        f"{row.name}: {100 * row.by_fallback:.1f} % of its {'labels' if row.trained else 'decisions'} by a fallback"
        for row in rows
        if row.by_fallback
    ]
    table.caption = "\n".join(notes)
    table.caption_justify = "left"
    return table
