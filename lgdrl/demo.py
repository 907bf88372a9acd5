"""`lgdrl demo`: train LGDRL on the published task, evaluate it with the expert off, beside its rivals.

The guide is a language model: that of the endpoint where OPENAI_BASE_URL or OPENAI_API_KEY is set, else the driving
model that the package brings, in this process.
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

LABELS = 100
"""For every guided method: labels are what a language model costs."""
PROMPT_TOKENS, ANSWER_TOKENS = 350, 10
"""Of one query, roughly: 1,200 characters in, a few words out."""
REFERENCES = ("llm", "rule", "search", "thresholds", "idm", "slower", "idle", "random")
SLOW_EPISODES = 30
"""Of experts that take tens of milliseconds per decision: 100 of the model took as long as two trainings."""
PUBLISHED_SEED = 0


def demo(folder: Path) -> None:
    """Run everything into `folder` (continued if it was interrupted) and show it."""
    console = make_console()
    remote = bool(os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY"))
    console.print(Panel.fit(_story(remote), title="lgdrl demo", border_style="cyan"))
    started = time.perf_counter()
    config = CompareConfig(
        base={"expert": "llm", "label_budget": LABELS, "evaluate_episodes": 100},
        arms={name: {"strategy": name} for name in ("lgdrl", "sac-bc", "dagger", "sac")},
        seeds=(0,),
        references=("rule", "search", "thresholds", "idm", "slower", "idle", "random") if remote else REFERENCES,
        reference_episodes=dict.fromkeys(("search", "llm"), SLOW_EPISODES),
    )
    with comparison_progress(console) as report:
        rows = compare(config, folder, 2, report)
    console.print(comparison_table(rows))
    run = Run(folder / "lgdrl" / "seed0")
    video, _ = film(watched_run(run, _published(run)), [PUBLISHED_SEED], folder / "published_start")
    seconds = time.perf_counter() - started
    console.print(f"{seconds:.0f} s. One training seed: see docs/results.md for ten.", style="dim")
    console.print(f"Learning curves   {folder}/curves.png\nSuccess           {folder}/success.png")
    console.print(f"Published start   {video}")


def _story(remote: bool) -> Text:
    task = (
        "Task: reach the rightmost of 4 dense lanes within 500 m, from the leftmost (the published LGDRL scenario).\n"
    )
    rule = f"Each method may ask for {LABELS} labels; then it drives alone, on 1,000 new layouts.\n"
    if remote:
        return Text(f"{task}Guide: the language model at your endpoint.\n{rule}")
    tokens = LABELS * (PROMPT_TOKENS + ANSWER_TOKENS)
    return Text.assemble(
        f"{task}Guide: the ",
        ("driving language model", "bold"),
        " of the package, a million parameters, in this process.\n",
        rule,
        f"At an endpoint: {tokens:,} tokens, {tokens * 1e-6:.2f} $ at 1 $ per million, {LABELS} s at 1 s each.\n",
        "Set OPENAI_BASE_URL and OPENAI_API_KEY to be guided by another model.",
    )


def _published(run: Run) -> RunConfig:
    return load_config(run.config, {"scenario_config": {"layout": "published"}}).resolved()
