"""`lgdrl collect` and `lgdrl label`: data sets of any mixture of policies, and labels of any expert for them."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.console import Console

import experts.registry
import sim
from experts.data.collection import Collected, Plan, Policy, check_spaces_kept, collect, measure_references
from experts.data.labelling import Tally, choose_states, label_states
from experts.data.transition_files import load_transitions, save_transitions
from experts.data.transitions import References, TransitionDataset
from lgdrl.display import collection_table, counting_progress, label_table, make_console
from lgdrl.memory import episodes_memory, require_memory
from lgdrl.runs import write_json
from lgdrl.seeds import FINAL_SEED, PUBLISHED
from sim.bounds import Bounds, config_dataclass
from sim.config import deep_merge, parse_overrides, resolve
from sim.env import ScenarioVecEnv
from sim.errors import UsageError, unknown
from sim.files import check_output_file

RANDOM = "random"
"""The policy that the lower reference return is of."""
ENVIRONMENTS = 32
"""Environments in which episodes are driven side by side, where the simulator takes any number."""


@config_dataclass
class CollectConfig:
    """Overrides of `lgdrl collect`."""

    scenario: str = "lane-change"
    backend: str | None = None  # None: the scenario's default
    scenario_config: dict[str, Any] = field(default_factory=dict)
    policy_options: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each policy, by its name
    num_envs: Annotated[int, Bounds(0, 1_000_000)] = 0  # environments side by side; 0: 32, or fewer on a server (CARLA)
    workers: Annotated[int, Bounds(0, 1024)] = 0  # processes for the environments; 0: none beside this one


@dataclasses.dataclass(frozen=True)
class LabelConfig:
    """Overrides of `lgdrl label`."""

    expert_options: dict[str, Any] = field(default_factory=dict)


# --- collect ----------------------------------------------------------------------------------------------------------


def collect_command(arguments: Namespace) -> int:
    """`lgdrl collect`: drive, and write every transition."""
    console = make_console()
    check_output_file(arguments.target, "--out")
    if arguments.seed == PUBLISHED:
        raise UsageError("--seed published: a data set uses many seeds; give a number")
    config = _collect_config(arguments)
    shares = parse_shares(arguments.policy)
    for name in config.policy_options:
        if name not in shares:
            raise unknown("policy in policy_options", name, shares)
    if arguments.reference and not shares.keys() - {RANDOM}:
        raise UsageError("--reference: no policy besides random; add the best one that there is, e.g. --policy rule")
    plan = Plan(arguments.seed, arguments.episodes, arguments.steps, arguments.mix)
    envs = _make_envs(config, plan)
    try:
        check_spaces_kept(envs)
        require_memory(_memory(envs, plan))
        references = _references(envs, config, shares, console) if arguments.reference else None
        with ExitStack() as stack:
            policies = [Policy(_make(stack, config, name, plan.seed), share) for name, share in shares.items()]
            for policy in policies:
                if policy.provider.note:
                    console.print(policy.provider.note)
            unit, total = ("transitions", plan.steps) if plan.episodes is None else ("episodes", plan.episodes)
            with counting_progress(console, unit, total or 0) as show:
                found = collect(envs, policies, plan, lambda done, made: show(done if plan.episodes else made))
    finally:
        envs.close()
    about = dataclasses.replace(found.dataset.about, references=references)
    found = dataclasses.replace(found, dataset=dataclasses.replace(found.dataset, about=about))
    save_transitions(arguments.target, found.dataset)
    rows = summary_rows(found.dataset, found.summaries)
    console.print(collection_table(about, rows, found.statuses))
    console.print(f"Written: {arguments.target}")
    if arguments.json:
        _write_json(arguments.json, _collected_json(arguments.target, found, rows))
    return 0


def parse_shares(words: Sequence[str]) -> dict[str, float]:
    """Shares of policies by name: `["rule=0.7", "random=0.3"]`; 1 where none is given.

    Args:
        words: `NAME` or `NAME=SHARE` each.

    Raises:
        UsageError: A share is no number above 0, or a policy is named twice.
    """
    shares: dict[str, float] = {}
    for word in words:
        name, equals, text = word.rpartition("=")
        try:
            share = float(text) if equals else 1.0
        except ValueError:  # a name may hold "=", as in policy:runs/lr=1e-3/best
            name, equals, share = word, "", 1.0
        name = name if equals else word
        if not 0 < share < 1e9:
            raise UsageError(f"--policy {word}: the share {text!r} is not a number above 0")
        if name in shares:
            raise UsageError(f"--policy {name} is named twice: give it one share")
        shares[name] = share
    return shares


def summary_rows(dataset: TransitionDataset, summaries: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """What each policy did, and all together where there are several.

    Args:
        dataset: The transitions.
        summaries: Of its episodes, see `run_episodes`; empty where they are not known.

    Returns:
        Plain values: `policy`, `transitions`, `episodes` that it drove alone, and of the finished ones among these
        `return_mean` and `success`, None where there are none.
    """
    drivers, returns, finished = dataset.drivers, dataset.returns, dataset.finished
    successes = np.array([float(each.get("success", np.nan)) for each in summaries] or [np.nan] * len(returns))

    def row(name: str, episodes: np.ndarray, transitions: int) -> dict[str, Any]:
        whole = episodes & finished
        rate = successes[whole].mean() if whole.any() else np.nan
        return {
            "policy": name,
            "episodes": int(episodes.sum()),
            "transitions": transitions,
            "return_mean": float(returns[whole].mean()) if whole.any() else None,
            "success": None if np.isnan(rate) else float(rate),
        }

    names = dataset.about.origins
    rows = [row(name, drivers == k, int((dataset.origin == k).sum())) for k, name in enumerate(names)]
    return rows if len(rows) == 1 else [*rows, row("together", np.ones(len(returns), bool), len(dataset))]


def _collect_config(arguments: Namespace) -> CollectConfig:
    named = {name: getattr(arguments, name) for name in ("scenario", "backend")}
    values = {name: value for name, value in named.items() if value is not None}
    return resolve(CollectConfig(), deep_merge(values, parse_overrides(arguments.overrides)), "config")


def _make_envs(config: CollectConfig, plan: Plan) -> ScenarioVecEnv:
    scenario = sim.get(config.scenario)
    resolved = resolve(scenario.defaults, config.scenario_config, "scenario_config")
    _, factories = scenario.backend(config.backend, resolved)
    count = config.num_envs or min(plan.episodes or ENVIRONMENTS, factories.max_envs or ENVIRONMENTS, ENVIRONMENTS)
    return sim.make_vec(config.scenario, count, None, config.backend, config.scenario_config, workers=config.workers)


def _make(stack: ExitStack, config: CollectConfig, name: str, seed: int) -> Any:
    options = config.policy_options.get(name)
    return stack.enter_context(experts.registry.make(name, config.scenario, options, seed))


def _references(envs: ScenarioVecEnv, config: CollectConfig, shares: dict[str, float], console: Console) -> References:
    """With policies of their own, so that a data set is the same with and without them."""
    with ExitStack() as stack, console.status("reference returns ..."):
        others = [_make(stack, config, name, FINAL_SEED) for name in shares if name != RANDOM]
        return measure_references(envs, _make(stack, config, RANDOM, FINAL_SEED), others, FINAL_SEED)


def _memory(envs: ScenarioVecEnv, plan: Plan) -> dict[str, int]:
    """Bytes that a collection takes at least: rows are kept, sorted, and packed."""
    if plan.steps is None:
        return episodes_memory(plan.episodes or 0)
    return {"steps": 3 * plan.steps * (2 * int(np.prod(envs.observation_space.shape or ())) * 4 + 64)}


def _collected_json(path: str, found: Collected, rows: list[dict[str, Any]]) -> dict[str, Any]:
    about = found.dataset.about
    return {
        "data_set": str(path),
        "scenario": about.scenario,
        "backend": about.backend,
        "transitions": len(found.dataset),
        "episodes": len(found.dataset.seeds),
        "policies": rows,
        "statuses": found.statuses,
        "references": None if about.references is None else dataclasses.asdict(about.references),
    }


# --- label ------------------------------------------------------------------------------------------------------------


def label_command(arguments: Namespace) -> int:
    """`lgdrl label`: ask an expert about states of a data set, and write it with the labels."""
    console = make_console()
    check_output_file(arguments.target, "--out")
    if arguments.seed == PUBLISHED:
        raise UsageError("--seed published: the seed chooses states here; give a number")
    config = resolve(LabelConfig(), parse_overrides(arguments.overrides), "config")
    dataset = load_transitions(arguments.data_set)
    if not dataset.about.scenario:
        raise UsageError(f"data set {arguments.data_set!r} does not say of which scenario it is: experts need to know")
    rows = choose_states(len(dataset), arguments.budget, arguments.seed, arguments.every)
    note = {"budget": arguments.budget, "every": arguments.every, "seed": arguments.seed}
    options = config.expert_options
    with experts.registry.make(arguments.expert, dataset.about.scenario, options, arguments.seed) as expert:
        if expert.note:
            console.print(expert.note)
        with counting_progress(console, "states", len(rows)) as show:
            labelled, tally = label_states(dataset, expert, rows, note, show)
    save_transitions(arguments.target, labelled)
    found = _labelled_json(arguments.expert, labelled, tally)
    console.print(label_table(labelled.about, found))
    console.print(f"Written: {arguments.target}")
    if arguments.json:
        _write_json(arguments.json, {"data_set": str(arguments.target)} | found)
    return 0


def _labelled_json(expert: str, dataset: TransitionDataset, tally: Tally) -> dict[str, Any]:
    assert dataset.labels is not None
    given = dataset.labels.given
    agree = (
        (dataset.labels.actions[given] == dataset.actions[given]).mean() if dataset.discrete and given.any() else None
    )
    return {
        "expert": expert,
        "states": len(dataset),
        "asked": tally.asked,
        "labels": int(given.sum()),
        "statuses": dict(tally.statuses),
        "as_executed": None if agree is None else float(agree),
        "tokens": tally.tokens,
        "cost": tally.cost,
        "latency_s": tally.latency_s,
    }


def _write_json(path: str, value: Any) -> None:
    try:
        write_json(Path(path), value)
    except OSError as error:
        raise UsageError(f"cannot write --json {path!r}: {error.strerror}") from None
