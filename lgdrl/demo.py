"""`lgdrl demo`: train LGDRL on the published task, evaluate it with the expert off, beside its rivals.

The guide is a language model: that of the endpoint where OPENAI_BASE_URL or OPENAI_API_KEY is set (within a call
budget), else the driving model that the package brings, in this process.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from rich.panel import Panel
from rich.text import Text

from lgdrl.comparison import CompareConfig, compare
from lgdrl.config import RunConfig, load_config
from lgdrl.display import comparison_progress, comparison_table, make_console
from lgdrl.runs import Run
from lgdrl.visualizer.drivers import watched_run
from lgdrl.visualizer.film import film

STEPS = 30_000
LABELS = 2_000
"""For every guided method: labels are what a language model costs."""
LLM_STEPS = 4_000
LLM_LABELS = 600
"""With a language model that is far away."""
REFERENCES = ("llm", "rule", "search", "thresholds", "idm", "slower", "idle", "random")
PUBLISHED_SEED = 0


def demo(folder: Path) -> None:
    """Run everything into `folder` (continued if it was interrupted) and show it."""
    console = make_console()
    remote = bool(os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY"))
    base = _base(remote)
    console.print(Panel.fit(_story(remote), title="lgdrl demo", border_style="cyan"))
    started = time.perf_counter()
    config = CompareConfig(
        base=base,
        arms={name: {"strategy": name} for name in ("lgdrl", "sac-bc", "dagger", "sac")},
        seeds=(0,),
        references=("rule", "search", "thresholds", "idm", "slower", "idle", "random") if remote else REFERENCES,
        reference_episodes={"search": 30, "llm": 100},
    )
    config.arms["dagger"]["strategy_options"] = {"labels": base["label_budget"]}
    with comparison_progress(console) as report:
        rows = compare(config, folder, 2, report)
    console.print(comparison_table(rows))
    run = Run(folder / "lgdrl" / "seed0")
    video, _ = film(watched_run(run, _published(run)), [PUBLISHED_SEED], folder / "published_start")
    seconds = time.perf_counter() - started
    console.print(f"{seconds:.0f} s. One training seed: see docs/results.md for five.", style="dim")
    console.print(f"Learning curves   {folder}/curves.png\nSuccess           {folder}/success.png")
    console.print(f"Published start   {video}")


def _base(remote: bool) -> dict:
    """Overrides of the run config."""
    shared = {"expert": "llm", "evaluate_every": 5000, "evaluate_episodes": 100, "log_every": 1000}
    if not remote:
        return shared | {"steps": STEPS, "label_budget": LABELS}
    budget = {"label_budget": LLM_LABELS, "steps": LLM_STEPS, "num_envs": 8, "evaluate_every": 1000, "log_every": 200}
    return shared | budget


def _story(remote: bool) -> Text:
    task = (
        "Task: reach the rightmost of 4 dense lanes within 500 m, from the leftmost (the published LGDRL scenario).\n"
    )
    if remote:
        return Text(f"{task}Guide: the language model at your endpoint; each method may ask for {LLM_LABELS} labels.")
    return Text.assemble(
        f"{task}Guide: the ",
        ("driving language model", "bold"),
        " of the package, a million parameters, in this process.\n"
        f"Each method may ask it for {LABELS:,} labels; then it drives alone, on 1,000 new layouts.\n"
        "Set OPENAI_BASE_URL and OPENAI_API_KEY to be guided by another model instead.",
    )


def _published(run: Run) -> RunConfig:
    return load_config(run.config, {"scenario_config": {"layout": "published"}}).resolved()
