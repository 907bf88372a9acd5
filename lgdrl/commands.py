"""The commands: read arguments, call the library, show the result with rich."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from lgdrl.display import comparison_table, decided_by, evaluation_table, list_table, make_console, training_progress
from lgdrl.seeds import PUBLISHED
from sim.config import deep_merge, parse_overrides
from sim.errors import UsageError

if TYPE_CHECKING:
    from experts.provider import PolicyProvider
    from lgdrl.runs import Run
    from lgdrl.training import Trainer

console = make_console()


def demo(arguments: Namespace) -> None:
    """`lgdrl demo`: training, comparison and film of the published task."""
    from lgdrl.demo import demo as show

    show(Path(arguments.out))


# --- train and evaluate ----------------------------------------------------------------------------------------------


def train(arguments: Namespace) -> int:
    """`lgdrl train`: a new run, or the rest of an old one."""
    from lgdrl import training
    from lgdrl.config import load_config
    from lgdrl.runs import free_folder, write_json

    if arguments.resume is not None:
        clashing = (
            "scenario", "backend", "expert", "strategy", "learner", "data", "label_budget", "seed", "out", "config",
        )  # fmt: skip
        given = [f"--{name.replace('_', '-')}" for name in clashing if getattr(arguments, name) is not None]
        if given or arguments.overrides:
            named = ", ".join([*given, *arguments.overrides])
            raise UsageError(f"--resume continues a run as it was configured, only --steps may be more: drop {named}")
        trainer = training.resume(arguments.resume, steps=arguments.steps)
    else:
        config = load_config(arguments.config, _run_overrides(arguments))
        folder = arguments.out or free_folder(f"runs/{config.strategy}-{config.scenario}-{config.seed}")
        trainer = training.start(config, folder)
    config = trainer.config
    loop, provider = trainer.loop, trainer.loop.provider
    console.print(_introduction(config, trainer.run.folder, loop.progress, loop.unit, provider is not None))
    for note in trainer.notes:
        console.print(f"Note: {note}")
    if provider is not None:
        _print_note(provider)
    impossible = False
    try:
        with (
            training.stop_on_interrupt(trainer),
            training_progress(console, config, trainer.loop.progress, trainer.loop.unit) as show,
        ):
            finished = trainer.train(show)
    except UsageError:  # a simulator that cannot be reached fails only when the environment is made
        impossible = trainer.loop.progress == 0 and not arguments.resume
        raise
    finally:
        trainer.close()
        if impossible:
            trainer.run.discard()
    if not finished:
        where = f"{trainer.loop.progress:,} {trainer.loop.unit}"
        console.print(f"Stopped at {where}. Continue: lgdrl train --resume {trainer.run.folder}")
        return 130
    if not trainer.loop.learns:
        console.print("Nothing was learned: the run ended before the first update (learner_options.learning_starts).")
    command = f"lgdrl evaluate {trainer.run.folder}"
    console.print(Text.assemble(f"Trained. {_labels_given(trainer)}Next: ", (command, "bold")))
    if arguments.json:
        _write(arguments.json, trainer.metrics.rows[-1] if trainer.metrics.rows else {}, write_json)
    return 0


def _labels_given(trainer: Trainer) -> str:
    """How many labels a run was given, and what decided on them; empty where no expert is asked."""
    provider, statuses = trainer.loop.provider, trainer.loop.statuses
    if provider is None or not statuses:
        return ""
    return f"{trainer.labels}; decided by {decided_by(provider.name, statuses)}.\n"


def _print_note(expert: PolicyProvider) -> None:
    """The note that some experts have about themselves."""
    if expert.note:
        console.print(expert.note)


def _run_overrides(arguments: Namespace) -> dict[str, Any]:
    names = ("scenario", "backend", "expert", "strategy", "learner", "steps", "label_budget")
    named = {name: getattr(arguments, name) for name in names}
    values: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if getattr(arguments, "data", None) is not None:  # live training has no such option
        values["dataset"] = arguments.data
    if arguments.seed == PUBLISHED:
        values["scenario_config"] = {"layout": PUBLISHED}
    elif arguments.seed is not None:
        values["seed"] = arguments.seed
    return deep_merge(values, parse_overrides(arguments.overrides))


def _introduction(config: Any, folder: Path, done: int, unit: str, guided: bool) -> Text:
    guide = (", guided by ", (config.expert, "bold")) if guided else ()
    shown = f", with demonstrations from {config.demonstrations}" if config.demonstrations else ""
    shown += f", on {config.dataset}" if config.dataset else ""
    where = f"from {unit[:-1]} {done:,}" if done else "from the start"
    return Text.assemble(
        (config.strategy, "bold"),
        " on ",
        (config.scenario, "bold"),
        f" ({config.backend})",
        *guide,
        f"{shown}, seed {config.seed}, {where}, into {folder}",
    )


def evaluate(arguments: Namespace) -> int:
    """`lgdrl evaluate`: a trained policy alone, or an expert, on fixed seeds."""
    from lgdrl.config import RunConfig, evaluation_envs, load_config
    from lgdrl.evaluation import evaluate as drive
    from lgdrl.runs import write_json
    from lgdrl.training import evaluate_run

    folder = arguments.names[0] if arguments.names else None
    if folder is None and arguments.expert is None:
        raise UsageError("evaluate what? Name a RUN, or an --expert")
    if folder is not None and arguments.expert is not None:
        raise UsageError(f"RUN {folder!r} and --expert {arguments.expert}: evaluate one of them at a time")
    if arguments.video:
        from sim.render import check_video

        check_video(arguments.video)
    changes, first = _environment_changes(arguments), arguments.seed
    if first == PUBLISHED:
        arguments.episodes, first = 1, 0
    if folder is not None:
        run = _run_to_evaluate(folder)
        name = str(run.folder)
        guidance = _guidance_used(folder) if arguments.json else {}
        found = evaluate_run(run, arguments.episodes, first, changes)
        config: RunConfig = load_config(run.config, changes)
    else:
        import experts.registry

        name, guidance = arguments.expert, {}
        config = load_config(None, changes | {"expert": arguments.expert}).driven()
        envs = evaluation_envs(config, arguments.episodes)
        with experts.registry.make(name, config.scenario, config.expert_options, config.seed) as provider:
            _print_note(provider)
            found = drive(envs, provider, range(first, first + arguments.episodes))
        envs.close()
    console.print(evaluation_table(name, config.scenario, found))
    if arguments.video:
        from lgdrl.visualizer.drivers import watched_expert, watched_run
        from lgdrl.visualizer.film import film

        session = watched_run(run, config.resolved()) if folder is not None else watched_expert(config)
        path, _ = film(session, [first], arguments.video)
        session.close()
        console.print(f"Video: {path}")
    if arguments.json:
        result = {"driver": name, "scenario": config.scenario} | found.to_dict() | guidance
        _write(arguments.json, result, write_json)
    return 0


def _run_to_evaluate(folder: str) -> Run:
    """A run folder; UsageError, with the names of its runs, for the folder of a comparison."""
    from lgdrl.runs import Run

    runs = sorted(str(path.parent) for path in Path(folder).glob("*/seed*/config.yaml"))
    if runs and not Run(folder).config.exists():
        shown = ", ".join(runs[:6]) + (f" and {len(runs) - 6} more" if len(runs) > 6 else "")
        raise UsageError(f"{folder!r} is a comparison of {len(runs)} runs: evaluate one of them, {shown}")
    return Run.open(folder)


def _environment_changes(arguments: Namespace) -> dict[str, Any]:
    """Config changes among the arguments of commands that drive: overrides, scenario, backend, the published layout."""
    changes = parse_overrides(arguments.overrides)
    for name in ("scenario", "backend"):
        if getattr(arguments, name) is not None:
            changes[name] = getattr(arguments, name)
    if arguments.seed == PUBLISHED:
        changes = deep_merge(changes, {"scenario_config": {"layout": PUBLISHED}})
    return changes


def _guidance_used(folder: str) -> dict[str, Any]:
    """The run's queries to its expert, by its last metrics row. UsageError where the table is damaged."""
    from lgdrl.runs import MetricsTable, Run

    rows = MetricsTable(Run(folder).metrics).rows
    last: Mapping[str, Any] = rows[-1] if rows else {}
    asked = {name.removeprefix("expert/"): value for name, value in last.items() if name.startswith("expert/")}
    try:
        return {"guidance": {name: float(value) for name, value in asked.items() if value != ""}}
    except ValueError:
        raise UsageError(f"{str(Run(folder).metrics)!r} is damaged: its last row holds no numbers") from None


# --- compare ---------------------------------------------------------------------------------------------------------


def compare(arguments: Namespace) -> int:
    """`lgdrl compare`: arms x seeds in parallel, one table."""
    from lgdrl.comparison import compare as run_comparison
    from lgdrl.comparison import load_compare_config
    from lgdrl.display import comparison_progress
    from lgdrl.runs import write_json

    if arguments.seed == PUBLISHED:
        raise UsageError("--seed published: a comparison trains on many seeds; give a number")
    base = {name: getattr(arguments, name) for name in ("scenario", "backend", "expert", "steps")}
    overrides: dict[str, Any] = {"base": {name: value for name, value in base.items() if value is not None}}
    if arguments.strategies:
        overrides["arms"] = {name: {"strategy": name} for name in arguments.strategies.split(",")}
    if arguments.label_budgets:
        overrides["label_budgets"] = arguments.label_budgets
    if arguments.seeds or arguments.seed is not None:
        first = arguments.seed or 0
        overrides["seeds"] = list(range(first, first + (arguments.seeds or 3)))
    if arguments.episodes:
        overrides["episodes"] = arguments.episodes
    config = load_compare_config(arguments.config, deep_merge(overrides, parse_overrides(arguments.overrides)))
    if not config.arms and not config.references:
        raise UsageError("nothing to compare: give --strategies or a --config with arms")
    with comparison_progress(console) as report:
        rows = run_comparison(config, arguments.out, arguments.jobs, report)
    console.print(comparison_table(rows))
    files = ["comparison.json", "comparison.md", "success.png", "curves.png"]
    files += ["labels.png"] if config.label_budgets else []
    console.print(f"Written: {arguments.out}/{', '.join(files)}")
    if arguments.json:
        _write(arguments.json, {"rows": [row.to_dict() for row in rows]}, write_json)
    return 0


# --- play ------------------------------------------------------------------------------------------------------------


def play(arguments: Namespace) -> int:
    """`lgdrl play`: the window, or a film."""
    from lgdrl.visualizer.command import play as run

    if not 0 < arguments.pace <= 64:
        raise UsageError(f"--pace {arguments.pace}: choose more than 0, up to 64")
    arguments.what = arguments.names
    words = run(arguments, _environment_changes(arguments))
    if words:
        console.print(words)
    return 0


# --- profile ---------------------------------------------------------------------------------------------------------


def profile(arguments: Namespace) -> int:
    """`lgdrl profile`: latency of an expert and its effect on driving."""
    from lgdrl.profiler.command import run

    if arguments.seed == PUBLISHED:
        raise UsageError("--seed published: a profile uses many seeds; give a number")
    return run(arguments, console)


def profile_compare(arguments: Namespace) -> int:
    """`lgdrl profile compare`: two profiles side by side, exit code 1 for a regression."""
    from lgdrl.profiler.command import compare

    return compare(arguments, console)


# --- demos -----------------------------------------------------------------------------------------------------------


def demos_info(arguments: Namespace) -> int:
    """`lgdrl demos info`: a summary of a recording or data set."""
    from lgdrl.recordings import describe_file
    from lgdrl.runs import write_json

    found = describe_file(arguments.recording)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in found.items():
        if value is not None:
            table.add_row(Text(name.replace("_", " "), style="bold"), Text(_spelled(value)))
    console.print(table)
    if arguments.json:
        _write(arguments.json, found, write_json)
    return 0


def _spelled(value: Any) -> str:
    """A figure, or several, for a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_spelled(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def demos_export(arguments: Namespace) -> int:
    """`lgdrl demos export`: a recording or data set as a Minari dataset."""
    from lgdrl.recordings import export_from

    folder = export_from(arguments.recording, arguments.dataset_id)
    command = f"minari.load_dataset({arguments.dataset_id!r})"
    console.print(Text.assemble(f"Written: {folder}. Elsewhere: ", (command, "bold")))
    return 0


def demos_import(arguments: Namespace) -> int:
    """`lgdrl demos import`: a Minari dataset as a recording or data set."""
    from lgdrl.recordings import import_to

    written = import_to(arguments.dataset_id, arguments.target)
    files = "1 file" if len(written) == 1 else f"{len(written)} files"
    console.print(f"Written: {files} to {arguments.target}")
    return 0


# --- list ------------------------------------------------------------------------------------------------------------


def show_list(arguments: Namespace) -> int:
    """`lgdrl list`: scenarios, experts and strategies."""
    if arguments.coverage:
        return _show_coverage(arguments)
    import sim
    from experts.registry import available as experts_available
    from experts.registry import summary
    from lgdrl.guidance.arbiters import ARBITERS
    from lgdrl.guidance.labelling import GATES
    from lgdrl.learners.registry import LEARNERS
    from lgdrl.methods import METHODS
    from lgdrl.plugins import Registry
    from lgdrl.runs import write_json

    registries: dict[str, Registry[Any]] = {
        "strategies": METHODS,
        "learners": LEARNERS,
        "arbiters": ARBITERS,
        "gates": GATES,
    }
    lists: dict[str, list[dict[str, Any]]] = {}
    if arguments.what in (None, "scenarios"):
        lists["scenarios"] = [
            {"name": each.name, "actions": each.actions, "backends": list(each.backends), "summary": each.summary}
            for each in sim.registry().values()
        ]
    if arguments.what in (None, "experts"):
        lists["experts"] = [{"name": name, "summary": summary(name)} for name in experts_available()]
    for title, registry in registries.items():
        if arguments.what in (None, title):
            found = [registry.get(name) for name in registry.available()]
            lists[title] = [{"name": each.name, "summary": each.summary} | _fit(each) for each in found]
    for title, rows in lists.items():
        console.print(list_table(title.capitalize(), rows))
        console.print()
    if arguments.json:
        _write(arguments.json, lists, write_json)
    return 0


def _show_coverage(arguments: Namespace) -> int:
    """`lgdrl list --coverage`."""
    from lgdrl.coverage import coverage, coverage_table, legend
    from lgdrl.runs import write_json

    if arguments.what not in (None, "scenarios"):
        raise UsageError(f"--coverage is about scenarios, not {arguments.what}: leave {arguments.what!r} out")
    rows = coverage()
    console.print(coverage_table(rows))
    for line in legend(rows):
        console.print(line)
    if arguments.json:
        _write(arguments.json, {"coverage": [row.to_dict() for row in rows]}, write_json)
    return 0


def _fit(plugin: Any) -> dict[str, Any]:
    """What a strategy or learner works with: action types, and learners where not all of them."""
    from lgdrl.learners.registry import Learner
    from lgdrl.methods import Method

    if isinstance(plugin, Learner):
        return {"works_with": f"{' and '.join(plugin.actions)} actions"}
    if not isinstance(plugin, Method):
        return {}
    needs = plugin.needs
    if not needs.actions:
        return {"works_with": "text tasks"}
    any_learner = "any off-policy learner" if needs.replay else "any learner"
    learners = any_learner if needs.learners is None else " or ".join(needs.learners)
    return {"works_with": f"{' and '.join(needs.actions)} actions, {learners}"}


# --- bench -----------------------------------------------------------------------------------------------------------


def bench_sim(arguments: Namespace) -> int:
    """`lgdrl bench sim`."""
    from lgdrl.bench.simulators import benchmark, check
    from lgdrl.display import speed_table
    from lgdrl.runs import fingerprint_environment, write_json

    if arguments.seed == PUBLISHED:
        raise UsageError("--seed published: environments use many seeds; give a number")
    _check_seconds(arguments.seconds)
    names = arguments.scenario.split(",")
    check(names, arguments.policy, arguments.threads)
    if arguments.parity:
        return _bench_parity(arguments, names)
    rows: list[Any] = []
    for name in names:
        found: list[Any] = []
        settings = (arguments.policy, arguments.rounds, arguments.seconds, arguments.seed, arguments.threads)
        with console.status(f"{name} ...") as status:
            for text, latest in benchmark(name, *settings):
                status.update(text)
                found = latest
        console.print(speed_table(name, arguments.policy, found))
        rows += found
    if arguments.json:
        results = {"policy": arguments.policy, "environment": fingerprint_environment()}
        _write(arguments.json, results | {"rows": [row.to_dict() for row in rows]}, write_json)
    if arguments.plot:
        from lgdrl.plots import speed_plot

        _plot(arguments.plot, rows, speed_plot)
    return 0


def _bench_parity(arguments: Namespace, names: list[str]) -> int:
    """`lgdrl bench sim --parity`: 1 where the engine differs from a pinned highway-env."""
    from lgdrl.parity.command import measure, parity_table, verdict
    from lgdrl.runs import fingerprint_environment, write_json

    if arguments.plot:
        raise UsageError("--plot draws speeds: leave it out, or leave --parity out")
    with console.status("driving both side by side ..."):
        rows = measure(names, arguments.decisions, arguments.seed)
    console.print(parity_table(rows))
    console.print(verdict(rows), highlight=False)
    if arguments.json:
        results = {"environment": fingerprint_environment(), "rows": [row.to_dict() for row in rows]}
        _write(arguments.json, results, write_json)
    return int(any(row.pinned and row.decisions_differ for row in rows))


def bench_learner(arguments: Namespace) -> int:
    """`lgdrl bench learner`."""
    from lgdrl.bench import learners
    from lgdrl.display import update_table
    from lgdrl.runs import fingerprint_environment, write_json

    if arguments.seed == PUBLISHED:
        raise UsageError("--seed published: there is no traffic here; give a number")
    _check_seconds(arguments.seconds)
    names = learners.parse_learners(arguments.learner)
    sizes = learners.parse_sizes(arguments.size, names)
    rows: list[Any] = []
    with console.status("learners ...") as status:
        for text, latest in learners.benchmark(names, sizes, arguments.rounds, arguments.seconds, arguments.seed):
            status.update(text)
            rows = latest
    console.print(update_table(rows, arguments.rounds))
    if arguments.json:
        settings = {
            "learners": names,
            "sizes": [str(size) for size in sizes],
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "seed": arguments.seed,
            "updates_per_call": learners.UPDATES_PER_CALL,
            "transitions": learners.TRANSITIONS,
            "inputs": learners.INPUTS,
            "actions": learners.ACTIONS,
            "threads": 1,
        }
        results = {"settings": settings, "environment": fingerprint_environment(learners.PACKAGES)}
        _write(arguments.json, results | {"rows": [row.to_dict() for row in rows]}, write_json)
    if arguments.plot:
        from lgdrl.plots import update_plot

        _plot(arguments.plot, rows, update_plot)
    return 0


def _check_seconds(seconds: float) -> None:
    if not 0 < seconds <= 600:
        raise UsageError(f"--seconds {seconds}: choose more than 0, up to 600")


def _plot(path: str, rows: list[Any], draw: Callable[[list[Any], Path], None]) -> None:
    try:
        draw(rows, Path(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write --plot {path!r}: {error}") from None


# --- language models -------------------------------------------------------------------------------------------------


def serve_lm(arguments: Namespace) -> int:
    """`lgdrl serve-lm`."""
    from lgdrl.llm_commands import serve_command

    return serve_command(arguments.model, arguments.host, arguments.port)


def llm_fetch(arguments: Namespace) -> int:
    from lgdrl.llm_commands import fetch_command

    fetch_command(arguments.dir)
    return 0


def llm_eval(arguments: Namespace) -> int:
    from lgdrl.llm_commands import eval_command

    if arguments.seed == PUBLISHED:
        raise UsageError("--seed published: scenes are drawn from many seeds; give a number")
    names = arguments.experts.split(",")
    options = parse_overrides(arguments.overrides)
    each = {name: options for name in names if name == "llm"}
    eval_command(names, arguments.scenario, arguments.scenes, arguments.seed, arguments.json, arguments.episodes, each)
    return 0


def _write(path: str, value: Any, write: Any) -> None:
    try:
        write(Path(path), value)
    except OSError as error:
        raise UsageError(f"cannot write --json {path!r}: {error.strerror}") from None
