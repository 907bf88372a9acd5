"""Comparison: several ways of learning x several seeds, in parallel processes, judged on the same held-out episodes.

Each arm and seed is an ordinary run folder below the output folder, so a comparison that was stopped continues where it
was. Experts and dumb policies are driven through the same episodes and stand in the same table.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lgdrl.jobs import Job, Report, contained, run_all, say
from lgdrl.runs import Run, write_json, write_text
from sim.config import deep_merge, dump_yaml, load_yaml, resolve, to_dict
from sim.errors import UsageError

DUMB = ("slower", "idle", "random")


@dataclass(frozen=True)
class CompareConfig:
    """What is compared. `base` and each arm are overrides of `RunConfig`."""

    base: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    references: tuple[str, ...] = ("rule", "idm", *DUMB)  # experts, driven without any training
    reference_episodes: dict[str, int] = field(default_factory=dict)  # fewer episodes for slow references
    episodes: int = 1000  # held-out episodes per run
    first_seed: int = 10_000

    def __post_init__(self) -> None:
        if self.episodes < 1 or not self.seeds:
            raise ValueError("a comparison needs at least one seed and one episode")


@dataclass(frozen=True)
class Row:
    """One line of the table: an arm (pooled over training seeds) or a reference."""

    name: str
    kind: str
    """trained | expert | dumb"""
    results: list[dict[str, Any]]
    """`evaluation.json` of each training seed; one for a reference."""

    def rate(self, outcome: str) -> Any:
        from lgdrl.statistics import Rate

        counts = [result[outcome] for result in self.results]
        return Rate(sum(count["count"] for count in counts), sum(count["total"] for count in counts))

    def mean(self, name: str) -> float:
        return sum(result[name] for result in self.results) / len(self.results)

    @property
    def per_seed(self) -> list[float]:
        """Success of each training seed, in per cent."""
        return [100 * result["success"]["value"] for result in self.results]

    @property
    def labels(self) -> float | None:
        """Expert labels used, mean over training seeds; None for references."""
        return None if self.kind != "trained" else self.mean("labels")

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "success": self.rate("success").to_dict(),
            "crash": self.rate("crash").to_dict(),
            "missed": self.rate("missed").to_dict(),
            "success_per_seed": self.per_seed,
            "mean_speed_m_s": self.mean("mean_speed_m_s"),
            "return_iqm": self.mean("return_iqm"),
            "labels": self.labels,
            "interventions": self.mean("interventions") if self.kind == "trained" else None,
            "decisions_to_90": [result.get("decisions_to_90") for result in self.results],
            "runs": self.results,
        }


def load_compare_config(path: Path | str | None, overrides: Mapping[str, Any]) -> CompareConfig:
    config = resolve(CompareConfig(), load_yaml(path) if path else None, "config")
    return resolve(config, overrides, "config")


def compare(config: CompareConfig, folder: Path | str, jobs: int = 2, report: Report | None = None) -> list[Row]:
    """Run everything that is not finished yet; returns the table's rows and writes comparison.json, .md and plots.

    Raises UsageError for bad arms before anything is started, RunFailed when a run broke (the others are finished),
    KeyboardInterrupt after running arms were saved.
    """
    from lgdrl.config import RunConfig

    out = Path(folder)
    runs: dict[str, tuple[Path, dict[str, Any]]] = {}
    for seed in config.seeds:
        for arm, changes in config.arms.items():
            overrides = deep_merge(deep_merge(config.base, changes), {"seed": seed})
            resolved = resolve(RunConfig(), overrides, f"arms.{arm}").resolved()
            runs[f"{arm}/seed{seed}"] = (out / arm / f"seed{seed}", to_dict(resolved))
    _claim(out, config)
    tasks: list[Job] = [
        (train_and_evaluate, (str(path), values, name, config.episodes, config.first_seed))
        for name, (path, values) in runs.items()
        if not Run(path).evaluation.exists()
    ]
    for name in config.references:
        if not _reference(out, name).exists():
            episodes = config.reference_episodes.get(name, config.episodes)
            tasks.append((drive_reference, (str(out), config.base, name, episodes, config.first_seed)))
    run_all(tasks, jobs, report)
    rows = collect(config, out)
    write_json(out / "comparison.json", {"config": to_dict(config), "rows": [row.to_dict() for row in rows]})
    write_text(out / "comparison.md", markdown(rows))
    from lgdrl.plots import plot_comparison

    plot_comparison(rows, out, {arm: [runs[f"{arm}/seed{seed}"][0] for seed in config.seeds] for arm in config.arms})
    return rows


def _claim(out: Path, config: CompareConfig) -> None:
    """Make the folder this comparison's, or check that it already is."""
    text = dump_yaml(to_dict(config))
    saved = out / "compare.yaml"
    if saved.exists() and saved.read_text(encoding="utf-8") != text:
        raise UsageError(
            f"{str(out)!r} holds another comparison: choose another --out, or the same settings to continue"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(saved, text)
    except OSError as error:
        raise UsageError(f"cannot write the output folder {str(out)!r}: {error.strerror}") from None


def train_and_evaluate(folder: str, values: Mapping[str, Any], name: str, episodes: int, first_seed: int) -> str | None:
    """One run from wherever it stands to its evaluation.json, in a worker process. Returns what failed, if anything."""
    return contained(name, lambda: _train_and_evaluate(folder, values, name, episodes, first_seed))


def _train_and_evaluate(folder: str, values: Mapping[str, Any], name: str, episodes: int, first_seed: int) -> None:
    from lgdrl import training
    from lgdrl.config import RunConfig

    run = Run(folder)
    config = resolve(RunConfig(), values, name)
    trainer = training.resume(folder) if run.config.exists() else training.start(config, folder)
    try:
        with training.stop_on_interrupt(trainer):
            finished = trainer.train(lambda progress: say(name, progress.done, progress.total))
        if not finished:
            raise KeyboardInterrupt
        found = training.evaluate_run(run, episodes, first_seed)
        result = found.to_dict() | {
            "outcomes": "".join(episode["outcome"][0] for episode in found.episodes),
            "labels": trainer.loop.labels,
            "interventions": trainer.loop.interventions,
            "decisions_to_90": decisions_to(0.9, trainer.metrics.rows),
            "elapsed_s": trainer.elapsed_s,
        }
    finally:
        trainer.close()
    write_json(run.evaluation, result)


def decisions_to(success: float, rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Decisions at the first point of the learning curve that reaches `success`."""
    for row in rows:
        if row.get("eval/success") not in (None, "") and float(row["eval/success"]) >= success:
            return int(row["decisions"])
    return None


def drive_reference(out: str, base: Mapping[str, Any], name: str, episodes: int, first_seed: int) -> str | None:
    """An expert through the same episodes, untrained, in a worker process. Returns what failed, if anything."""
    return contained(name, lambda: _drive_reference(out, base, name, episodes, first_seed))


def _drive_reference(out: str, base: Mapping[str, Any], name: str, episodes: int, first_seed: int) -> None:
    path = _reference(Path(out), name)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import experts.registry as expert_registry
    from lgdrl.config import RunConfig, evaluation_envs
    from lgdrl.evaluation import evaluate

    config = resolve(RunConfig(), base, "base").resolved()
    envs = evaluation_envs(config, episodes)
    options = config.expert_options if name == config.expert else {}
    with expert_registry.make(name, config.scenario, options, 0) as expert:
        found = evaluate(envs, expert, range(first_seed, first_seed + episodes))
    envs.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    outcomes = "".join(episode["outcome"][0] for episode in found.episodes)
    write_json(path, found.to_dict() | {"outcomes": outcomes})
    say(name, 1, 1)


def _reference(out: Path, name: str) -> Path:
    return out / "references" / f"{name}.json"


def collect(config: CompareConfig, out: Path) -> list[Row]:
    """Rows from the files of a finished comparison: trained arms first, then experts, then dumb policies."""
    rows = [
        Row(arm, "trained", [_read(out / arm / f"seed{seed}" / "evaluation.json") for seed in config.seeds])
        for arm in config.arms
    ]
    for name in config.references:
        kind = "dumb" if name in DUMB or name == "faster" else "expert"
        rows.append(Row(name, kind, [_read(_reference(out, name))]))
    return rows


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def markdown(rows: Sequence[Row]) -> str:
    """The table as GitHub Markdown."""
    lines = [
        "| Driver | Success % [95 %] | per training seed | Crash % | Missed % | Speed m/s | Return (IQM) | Labels |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seeds = ", ".join(f"{value:.1f}" for value in row.per_seed) if row.kind == "trained" else "-"
        labels = "-" if row.labels is None else f"{row.labels:,.0f}"
        rates = f"{100 * row.rate('crash').value:.1f} | {100 * row.rate('missed').value:.1f}"
        figures = f"{row.mean('mean_speed_m_s'):.1f} | {row.mean('return_iqm'):.2f}"
        lines.append(f"| {row.name} | {row.rate('success')} | {seeds} | {rates} | {figures} | {labels} |")
    return "\n".join(lines) + "\n"
