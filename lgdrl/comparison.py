"""Comparison: several ways of learning x several seeds, in parallel processes, evaluated on the same held-out episodes.

The training seed is the unit of replication: a method's success is the mean over its seeds with a t-interval over them,
and differences to a chosen method are paired by seed. Each method and seed is an ordinary run folder below the output
folder, so a comparison that was stopped continues where it was. Experts and trivial baselines are driven through the
same episodes and stand in the same table, as single policies with Wilson intervals.
"""

from __future__ import annotations

import math
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import sim
from lgdrl.comparison_check import check_arms, check_names, check_references
from lgdrl.jobs import Job, Report, contained, run_all, say
from lgdrl.locks import FolderLock
from lgdrl.runs import Run, read_json, write_json, write_text
from lgdrl.seeds import FINAL_SEED
from lgdrl.statistics import MeanInterval, PairedDifference, Rate, paired_difference, t_interval
from sim.bounds import Bounds, Seed, Whole, config_dataclass
from sim.config import deep_merge, dump_yaml, load_yaml, resolve, to_dict
from sim.errors import UsageError
from sim.files import check_output_folder

if TYPE_CHECKING:
    from lgdrl.config import RunConfig

Episodes = Annotated[int, Bounds(1, 10_000_000)]
TRIVIAL = ("slower", "idle", "random", "faster")
"""Baselines that need no thought."""
OUTCOMES = ("success", "crash", "missed", "fell")


@config_dataclass
class CompareConfig:
    """What is compared. `base` and each arm are overrides of `RunConfig`."""

    base: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    # every arm at each of these label budgets, except arms that name one themselves; null: as the arms are
    label_budgets: tuple[Whole, ...] | None = None
    seeds: tuple[Seed, ...] = (0, 1, 2)
    references: tuple[str, ...] | None = None  # experts, driven without any training; null: see `default_references`
    reference_episodes: dict[str, Episodes] = field(default_factory=dict)  # fewer episodes for slow references
    episodes: Episodes = 1000  # held-out episodes per run
    first_seed: Seed = FINAL_SEED
    against: str | None = None  # the method that differences are taken to; null: the first one

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)}: choose at least one, each once")
        budgets = self.label_budgets
        if budgets is not None and (not budgets or len(set(budgets)) < len(budgets)):
            raise ValueError(f"label_budgets = {list(budgets)}: choose at least one, each once")
        if self.against is not None and self.against not in self.arms:
            raise ValueError(f"against = {self.against!r} is not among the methods: {', '.join(self.arms)}")

    @property
    def trained(self) -> list[Arm]:
        """What is trained with every seed: the arms, each at all its label budgets."""
        found = []
        for method, changes in self.arms.items():
            if self.label_budgets is None or "label_budget" in changes:
                found.append(Arm(method, method, None, changes))
                continue
            found += [
                Arm(f"{method}-{budget}", method, budget, {**changes, "label_budget": budget})
                for budget in self.label_budgets
            ]
        return found

    def reference_of(self, arm: Arm) -> str | None:
        """Name of the arm that differences of another one are taken to: at its label budget, where there is one."""
        method = self.against or next(iter(self.arms))
        same = [other.name for other in self.trained if other.method == method]
        name = f"{method}-{arm.label_budget}"
        return name if name in same else same[0] if len(same) == 1 else None


@dataclass(frozen=True)
class Arm:
    """One line of the table before it is trained."""

    name: str
    """Of its folder and its line: that of the method, and the label budget."""
    method: str
    """Name in `CompareConfig.arms`."""
    label_budget: int | None
    """Of `CompareConfig.label_budgets`; None where the method is not trained at each of these."""
    changes: dict[str, Any]
    """Overrides of the base config."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a method over its training seeds, or a reference."""

    name: str
    kind: str
    """trained | expert | trivial"""
    results: list[dict[str, Any]]
    """`evaluation.json` of each training seed; one for a reference."""
    against: Row | None = None
    """The method that differences are taken to; None for references and for that method itself."""
    method: str | None = None
    """Of a trained one: its name without the label budget."""
    label_budget: int | None = None
    """Of a trained one, where the comparison is over label budgets."""

    @property
    def trained(self) -> bool:
        return self.kind == "trained"

    def has(self, name: str) -> bool:
        """Whether the scenario has a measure."""
        return name in self.results[0]

    def rate(self, outcome: str) -> Rate:
        """Share of all episodes. Its Wilson interval belongs to a single policy: use it for references only."""
        counts = [result[outcome] for result in self.results]
        return Rate(sum(count["count"] for count in counts), sum(count["total"] for count in counts))

    def mean(self, name: str) -> float:
        """Mean of a measure over training seeds."""
        return sum(result[name] for result in self.results) / len(self.results)

    @property
    def scored_by_success(self) -> bool:
        """Whether the score is a success rate (in per cent), or else the return."""
        return self.has("success")

    @property
    def per_seed(self) -> list[float]:
        """Score of each training seed: success in per cent, or mean return where the scenario has no success."""
        if self.scored_by_success:
            return [100 * result["success"]["value"] for result in self.results]
        return [result["return_mean"] for result in self.results]

    @property
    def score(self) -> MeanInterval:
        """Mean score with its interval: over training seeds for a method, Wilson's for a single policy."""
        if len(self.results) > 1 or not self.scored_by_success:
            mean, low, high = t_interval(self.per_seed)
            return MeanInterval(mean, *(_clipped(x) if self.scored_by_success else x for x in (low, high)))
        rate = self.rate("success")
        return MeanInterval(100 * rate.value, *(100 * bound for bound in rate.interval))

    @property
    def difference(self) -> PairedDifference | None:
        """Score less that of `against`, paired by training seed."""
        return None if self.against is None else paired_difference(self.per_seed, self.against.per_seed)

    @property
    def labels(self) -> float | None:
        """Expert labels used, mean over training seeds; None for references."""
        return self.mean("labels") if self.trained else None

    @property
    def statuses(self) -> dict[str, int]:
        """By status, over all seeds: the labels of a method, or the decisions of a reference; empty without expert."""
        total: Counter[str] = Counter()
        for result in self.results:
            total.update(result.get("label_statuses" if self.trained else "statuses", {}))
        return dict(total)

    @property
    def by_fallback(self) -> float:
        """Share of these in [0, 1] on which the expert's fallback decided, after a veto or for lack of an answer."""
        found = self.statuses
        return (found.get("fallback", 0) + found.get("vetoed", 0)) / max(sum(found.values()), 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.label_budget is not None:
            values |= {"method": self.method, "label_budget": self.label_budget}
        if self.scored_by_success:
            values["success_per_seed"] = self.per_seed
        values |= {"score": self.score._asdict(), "score_per_seed": self.per_seed}
        values["difference"] = self.difference.to_dict() if self.difference else None
        values["against"] = self.against.name if self.against else None
        values |= {outcome: self.rate(outcome).to_dict() for outcome in OUTCOMES if self.has(outcome)}
        values |= {name: self.mean(name) for name in ("mean_speed_m_s", "return_mean", "return_iqm") if self.has(name)}
        return values | {
            "labels": self.labels,
            "interventions": self.mean("interventions") if self.trained else None,
            "statuses": self.statuses,
            "decisions_to_90": [result.get("decisions_to_90") for result in self.results],
            "runs": self.results,
        }


def _clipped(per_cent: float) -> float:
    """A bound of a share, in per cent."""
    return min(max(per_cent, 0.0), 100.0)


def default_references(configs: Sequence[RunConfig]) -> tuple[str, ...]:
    """Experts and trivial baselines that fit the runs of a comparison.

    Args:
        configs: The resolved configs of its runs.
    Returns:
        Rule, IDM and trivial drivers where all runs drive; a random policy in other environments with discrete actions;
        none beside language models, whose text tasks an expert cannot drive through.
    """
    if any(not config.method.needs.actions for config in configs):
        return ()
    scenarios = [sim.get(config.scenario) for config in configs]
    if any(scenario.actions == "continuous" for scenario in scenarios):
        return ()
    return ("rule", "idm", "slower", "idle", "random") if all(each.driving for each in scenarios) else ("random",)


def load_compare_config(path: Path | str | None, overrides: Mapping[str, Any]) -> CompareConfig:
    config = resolve(CompareConfig(), load_yaml(path) if path else None, "config")
    return resolve(config, overrides, "config")


def compare(config: CompareConfig, folder: Path | str, jobs: int = 2, report: Report | None = None) -> list[Row]:
    """Run everything that is not finished yet; writes comparison.json, comparison.md and plots.

    Args:
        config: What is compared.
        folder: Output folder; a comparison that is there already is continued, or extended by what is new.
        jobs: Worker processes.
        report: Receives the progress of each run.
    Returns:
        The rows of the table.
    Raises:
        UsageError: Something in the config is wrong; nothing was started.
        RunFailed: A run broke; the others are finished.
        KeyboardInterrupt: It was interrupted; running methods were saved.
    """
    from lgdrl.config import RunConfig, change

    out = Path(folder)
    arms = config.trained
    check_names([arm.name for arm in arms], config.references or ())
    check_output_folder(str(folder), "--out")
    base = resolve(RunConfig(), config.base, "base")
    runs: dict[str, tuple[Path, dict[str, Any]]] = {}
    configs: list[RunConfig] = []
    for seed in config.seeds:
        for arm in arms:
            resolved = change(base, deep_merge(arm.changes, {"seed": seed}), f"arms.{arm.method}").resolved()
            configs.append(resolved)
            runs[f"{arm.name}/seed{seed}"] = (out / arm.name / f"seed{seed}", to_dict(resolved))
    references = default_references(configs) if config.references is None else config.references
    check_arms(dict(zip((arm.name for arm in arms), configs, strict=False)), config.episodes, jobs)
    if references:
        check_references(base.driven(), references)
    lock = _claim(out, config)
    try:
        return _run_all(config, references, runs, out, jobs, report)
    finally:
        lock.release()


def _run_all(
    config: CompareConfig,
    references: Sequence[str],
    runs: Mapping[str, tuple[Path, dict[str, Any]]],
    out: Path,
    jobs: int,
    report: Report | None,
) -> list[Row]:
    """Run what is not finished; write the table and the plots."""
    tasks: list[Job] = [
        (train_and_evaluate, (str(path), values, name, config.episodes, config.first_seed))
        for name, (path, values) in runs.items()
        if _evaluated(Run(path).evaluation) != config.episodes
    ]
    for name in references:
        episodes = config.reference_episodes.get(name, config.episodes)
        if _evaluated(_reference(out, name)) != episodes:
            tasks.append((drive_reference, (str(out), config.base, name, episodes, config.first_seed)))
    run_all(tasks, jobs, report)
    rows = collect(config, references, out)
    write_json(out / "comparison.json", {"config": to_dict(config), "rows": [row.to_dict() for row in rows]})
    write_text(out / "comparison.md", markdown(rows))
    from lgdrl.plots import plot_comparison

    names = [arm.name for arm in config.trained]
    plot_comparison(rows, out, {name: [runs[f"{name}/seed{seed}"][0] for seed in config.seeds] for name in names})
    return rows


def _claim(out: Path, config: CompareConfig) -> FolderLock:
    """Make the folder this comparison's. What is there may be extended by seeds, methods, references and episodes.
    It is locked against another process.

    Raises:
        UsageError: The folder holds results that do not belong to this comparison, or cannot be written.
    """
    saved = out / "compare.yaml"
    if saved.exists():
        former = resolve(CompareConfig(), load_yaml(saved), str(saved))
        clashing = [name for name in ("base", "first_seed") if getattr(former, name) != getattr(config, name)]
        clashing += [f"arms.{arm}" for arm in config.arms if former.arms.get(arm, config.arms[arm]) != config.arms[arm]]
        if clashing:
            raise UsageError(
                f"{str(out)!r} holds another comparison (other {', '.join(clashing)}): choose another --out, or extend "
                "it by seeds, methods, references or episodes only"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(out)
        write_text(saved, dump_yaml(to_dict(config)))
    except OSError as error:
        raise UsageError(f"cannot write the output folder {str(out)!r}: {error.strerror}") from None
    return lock


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
            finished = trainer.train(lambda at: say(name, at.done, at.total, at.labels))
        if not finished:
            raise KeyboardInterrupt
        found = training.evaluate_run(run, episodes, first_seed)
        result = found.to_dict() | {
            "outcomes": found.outcome_letters,
            "labels": trainer.loop.labels,
            "interventions": trainer.loop.interventions,
            "label_statuses": dict(trainer.loop.statuses),
            "decisions_to_90": decisions_to(0.9, trainer.metrics.rows, trainer.loop.unit),
            "elapsed_s": trainer.elapsed_s,
        }
    finally:
        trainer.close()
    write_json(run.evaluation, result)


def decisions_to(success: float, rows: Sequence[Mapping[str, Any]], unit: str = "decisions") -> int | None:
    """Progress, in units of the loop, at the first point of the learning curve that reaches `success`."""
    for row in rows:
        if row.get("eval/success") not in (None, "") and float(row["eval/success"]) >= success:
            return int(row[unit])
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

    config = resolve(RunConfig(), base, "base").driven()
    envs = evaluation_envs(config, episodes)
    options = config.expert_options if name == config.expert else {}
    with expert_registry.make(name, config.scenario, options, 0) as expert:
        found = evaluate(envs, expert, range(first_seed, first_seed + episodes))
    envs.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found.to_dict() | {"outcomes": found.outcome_letters})
    say(name, 1, 1)


def _evaluated(path: Path) -> int:
    """Episodes of the evaluation in a file; 0 where there is none."""
    return int(_read(path)["episodes"]) if path.exists() else 0


def _reference(out: Path, name: str) -> Path:
    return out / "references" / f"{quote(name, safe=':')}.json"  # policy:RUN holds slashes


def collect(config: CompareConfig, references: Sequence[str], out: Path) -> list[Row]:
    """Rows from the files of a finished comparison: methods first, then experts, then trivial baselines.

    Args:
        config: Of the comparison.
        references: Experts and trivial baselines that were driven beside its methods.
        out: Its folder.
    """
    rows = []
    results = {
        arm.name: [_read(out / arm.name / f"seed{seed}" / "evaluation.json") for seed in config.seeds]
        for arm in config.trained
    }
    for arm in config.trained:
        other = config.reference_of(arm)
        against = None if other in (None, arm.name) else Row(other, "trained", results[other])
        rows.append(Row(arm.name, "trained", results[arm.name], against, arm.method, arm.label_budget))
    for name in sorted(references, key=lambda name: name in TRIVIAL):
        kind = "trivial" if name in TRIVIAL else "expert"
        rows.append(Row(name, kind, [_read(_reference(out, name))]))
    return rows


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path, "delete it to evaluate again")
    if not isinstance(found, dict) or "return_mean" not in found:
        raise UsageError(f"{str(path)!r} holds no evaluation: delete it to evaluate again")
    return found


def markdown(rows: Sequence[Row]) -> str:
    """The table as GitHub Markdown."""
    columns = columns_of(rows)
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(cells(row, columns))} |" for row in rows]
    return "\n".join(lines) + "\n"


FALLBACK = "By fallback %"
SUCCESS, RETURN, SEEDS, DIFFERENCE = "Success % [95 %]", "Return [95 %]", "per training seed", "Difference [95 %], p"


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Column titles of a comparison: what its scenario has."""
    row = rows[0]
    columns = ["Driver", SUCCESS if row.scored_by_success else RETURN, SEEDS]
    against = next((row.against for row in rows if row.against), None)
    columns += [DIFFERENCE] if against is not None and len(against.results) > 1 else []
    columns += [f"{outcome.capitalize()} %" for outcome in OUTCOMES[1:] if row.has(outcome)]
    columns += ["Speed m/s"] if row.has("mean_speed_m_s") else []
    columns += ["Return (IQM)"] if row.scored_by_success else []
    columns += [FALLBACK] if any(row.by_fallback for row in rows) else []
    return [*columns, "Labels"]


def cells(row: Row, columns: Sequence[str]) -> list[str]:
    """One row under the titles of `columns_of`."""
    digits = 1 if row.scored_by_success else 2
    found = {
        "Driver": row.name,
        SUCCESS: spelled(row.score, digits),
        RETURN: spelled(row.score, digits),
        SEEDS: ", ".join(f"{value:.{digits}f}" for value in row.per_seed) if row.trained else "-",
        DIFFERENCE: spelled_difference(row.difference, digits),
        "Labels": "-" if row.labels is None else f"{row.labels:,.0f}",
    }
    for outcome in OUTCOMES[1:]:
        if row.has(outcome):
            found[f"{outcome.capitalize()} %"] = f"{100 * row.rate(outcome).value:.1f}"
    if row.has("mean_speed_m_s"):
        found["Speed m/s"] = f"{row.mean('mean_speed_m_s'):.1f}"
    found[FALLBACK] = f"{100 * row.by_fallback:.1f}" if row.statuses else "-"
    found["Return (IQM)"] = f"{row.mean('return_iqm'):.2f}"
    return [found[column] for column in columns]


def spelled(score: MeanInterval, digits: int = 1) -> str:
    """Mean and interval; the mean alone where one seed gives no interval."""
    if math.isnan(score.low):
        return f"{score.mean:.{digits}f}"
    return f"{score.mean:.{digits}f} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def spelled_difference(found: PairedDifference | None, digits: int = 1) -> str:
    """Signed mean, interval and p-value; "-" where there is none."""
    if found is None or math.isnan(found.low):
        return "-"
    p_value = f"{found.p_value:.3f}" if found.p_value >= 0.001 else "< 0.001"
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}], {p_value}"
