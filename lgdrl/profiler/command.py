"""`lgdrl profile` and `lgdrl profile compare`."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.console import Console

from lgdrl.profiler import gate, tables
from lgdrl.profiler.config import ProfileConfig
from lgdrl.profiler.dashboard import Dashboard
from lgdrl.profiler.profile import profile
from lgdrl.profiler.report import write_report
from lgdrl.profiler.result import Profile
from lgdrl.runs import write_json
from sim.config import deep_merge, load_yaml, parse_overrides, resolve
from sim.errors import UsageError


def run(arguments: Namespace, console: Console) -> int:
    """Measure, write after each scenario, show.

    Args:
        arguments: Of the command line.
        console: Where tables and progress go.
    Returns:
        The exit code, 0.
    Raises:
        UsageError: The arguments make no profile, or the output cannot be written.
    """
    config = settings(arguments)
    out = Path(arguments.out)
    here = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not (here.is_dir() and os.access(here, os.W_OK)):
        raise UsageError(f"--out {arguments.out!r}: {str(here)!r} is no folder that can be written: choose another")
    with Dashboard(console) as dashboard:
        found = profile(config, dashboard, lambda found: write_report(found, out))
    show(found, console)
    console.print(f"Written: {out}/report.html, report.md, profile.json, queries.csv")
    if arguments.json:
        try:
            write_json(Path(arguments.json), found.to_dict())
        except OSError as error:
            raise UsageError(f"cannot write --json {arguments.json!r}: {error.strerror}") from None
    return 0


def settings(arguments: Namespace) -> ProfileConfig:
    """The config file, then options, then dotted overrides."""
    values: dict[str, Any] = load_yaml(arguments.config) if arguments.config else {}
    named: dict[str, Any] = {}
    if arguments.expert:
        named["experts"] = {name: {"expert": name} for name in arguments.expert.split(",")}
    if arguments.scenario:
        named["scenarios"] = arguments.scenario.split(",")
    if arguments.load:
        named["loads"] = [read_load(word) for word in arguments.load.split(",")]
    if arguments.frequency:
        named["frequencies"] = [read_frequency(word) for word in arguments.frequency.split(",")]
    if arguments.stall is not None:
        named["stall"] = {"seconds": arguments.stall}
    for name in ("decisions", "repeats", "seed", "faults", "backend"):
        if getattr(arguments, name) is not None:
            named[name] = getattr(arguments, name)
    if arguments.quick:
        named |= {"quality": {"scenes": 0}, "safety": {"episodes": 0}, "training": {"decisions": 0}}
    if arguments.expert and "experts" in values:
        values = {**values, "experts": {}}
    return resolve(
        ProfileConfig(), deep_merge(deep_merge(values, named), parse_overrides(arguments.overrides)), "profile"
    )


def read_frequency(word: str) -> float:
    """A decision frequency, Hz.

    Raises:
        UsageError: `word` is not a number.
    """
    try:
        return float(word)
    except ValueError:
        raise UsageError(f"--frequency {word!r}: write decisions per second, e.g. 2 or 1,2,4") from None


def read_load(word: str) -> dict[str, Any]:
    """A load as values of a `LoadConfig`.

    Args:
        word: Such as closed:1, clock:8, constant:20, poisson:20 or trace:FILE.
    Raises:
        UsageError: It is none of these.
    """
    kind, _, size = word.partition(":")
    if kind == "trace" and size:
        return {"kind": kind, "trace": size}
    try:
        if kind in ("closed", "clock"):
            return {"kind": kind, "cars": int(size or 1)}
        if kind in ("constant", "poisson"):
            return {"kind": kind, "rate": float(size)}
    except ValueError:
        pass
    raise UsageError(f"--load {word!r}: write closed:CARS, clock:CARS, constant:RATE, poisson:RATE or trace:FILE")


def show(found: Profile, console: Console) -> None:
    """The tables on the terminal."""
    for note in dict.fromkeys(expert.note for scenario in found.scenarios for expert in scenario.experts):
        if note:
            console.print(note)
    for grid in tables.every(found, narrow=True):
        console.print(tables.rich_table(grid))
    if found.served:
        console.print("Faults served: " + ", ".join(f"{name} {count}" for name, count in found.served.items()))
    console.print(f"Machine: {found.machine.words()}.")
    whole = found.overhead.latencies["e2e"]
    assert whole is not None
    console.print(f"The profiler itself takes {1e3 * whole.p50:.2f} ms per query (p99 {1e3 * whole.at('p99'):.1f} ms).")


def compare(arguments: Namespace, console: Console) -> int:
    """Compare two profiles.

    Args:
        arguments: Of the command line.
        console: Where the table goes.
    Returns:
        The exit code: 1 where a rule of --fail-on is broken.
    """
    rules = gate.parse_rules(arguments.fail_on)
    changes = gate.compare(gate.load_profile(arguments.before), gate.load_profile(arguments.after), rules)
    console.print(tables.rich_table(tables.change_grid(changes)))
    failed = [change for change in changes if change.failed]
    if arguments.json:
        rows = [{**vars_of(change), "failed": change.failed} for change in changes]
        write_json(Path(arguments.json), {"changes": rows})
    console.print(f"{len(failed)} regressions." if failed else "No regression.")
    return 1 if failed else 0


def vars_of(change: gate.Change) -> dict[str, Any]:
    """A change in plain values."""
    return {"where": change.where, "figure": change.metric, "before": change.old, "after": change.new}
