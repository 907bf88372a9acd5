"""Train the driving language model that the package ships: `python -m baselines.driving.embedded --out assets/driver`.

1. Situations of several scenarios and densities, met while the rule drives and is disturbed.
2. Imitation of verified traces: facts computed, the rule's next meta-actions, rolled out without a crash.
3. Reinforcement learning on the same situations by a language-model strategy (optional; `rl.updates`).

Everything is drawn from one seed. The model is written as safetensors with its size and vocabulary in the header, and a
JSON file beside it says what it was trained on and with what result.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from baselines.driving.scenes import LONGEST, TAIL, SceneConfig, Situation, SituationEnvs, SituationSource, situations
from baselines.driving.task import DrivingTask, trace_of
from baselines.language.grpo import GRPOConfig
from baselines.language.loop import run_updates
from baselines.language.method import language_method
from baselines.language.sft import SFTConfig, imitate
from baselines.language.task import TaskPrompt
from experts.language import gpt
from experts.language.gpt import GPTConfig
from experts.language.vocabulary import DRIVING
from lgdrl.runs import write_json
from sim.actions import MetaAction
from sim.config import load_yaml, parse_overrides, resolve, to_dict
from sim.files import check_outputs

SOURCES = (
    SituationSource("lane-change"),
    SituationSource("lane-change"),
    SituationSource("lane-change", {"density": [10.0, 40.0]}),
    SituationSource("highway-fast-v0"),
    SituationSource("dense-2.0"),
    SituationSource("merge-v1"),
)


@dataclass(frozen=True)
class RLConfig:
    """What follows imitation."""

    strategy: str = "grpo"
    options: dict[str, Any] = field(default_factory=dict)  # changes to the strategy's own settings
    updates: int = 0  # none: imitation alone
    situations: int = 3000
    steps: int = 1  # meta-actions of a plan
    grpo: GRPOConfig = field(
        default_factory=lambda: GRPOConfig(max_completion_length=32, learning_rate=5e-5, beta=0.05)
    )


@dataclass(frozen=True)
class EmbeddedConfig:
    """How the shipped model is made."""

    sources: tuple[SituationSource, ...] = SOURCES
    scenes: SceneConfig = field(default_factory=SceneConfig)
    situations: int = 60_000
    longer_plans: float = 0.25  # share of the examples that ask for a plan of 2 to 4 meta-actions instead of one
    model: GPTConfig = field(default_factory=lambda: GPTConfig(len(DRIVING), 96, 4, 4, 144))
    sft: SFTConfig = field(default_factory=lambda: SFTConfig(num_train_epochs=3, batch_size=64))
    rl: RLConfig = field(default_factory=RLConfig)
    seed: int = 0


def verified(met: Sequence[Situation], longer_plans: float, rng: np.random.Generator) -> list[TaskPrompt]:
    """Prompts with traces of the rule's plans. Those that end in a crash are left out."""
    stage, prompts = SituationEnvs(), []
    for situation in met:
        steps = int(rng.integers(2, LONGEST + 1)) if rng.random() < longer_plans else 1
        plan = situation.rule[:steps]
        end = stage.set(situation).branch(0, np.array([[*plan, *[int(MetaAction.IDLE)] * TAIL]]))
        if not end.crashed[0]:
            prompt = DRIVING.encode(situation.picture.prompt(steps))
            prompts.append(TaskPrompt(situation.key, prompt, trace_of(situation, plan)))
    return prompts


def train(config: EmbeddedConfig, tell: Callable[[str], None] = print) -> tuple[gpt.GPT, dict[str, Any]]:
    """Train the model.

    Args:
        config: The settings.
        tell: Called with lines about the progress.
    Returns:
        The model, and a record of its training in plain values.
    """
    begin = time.process_time()
    rng = np.random.default_rng(config.seed)
    met = situations(config.sources, config.situations, config.seed, config.scenes)
    prompts = verified(met, config.longer_plans, rng)
    tell(f"{len(prompts):,} verified traces from {len(met):,} situations")
    model = gpt.new(config.model, config.seed)
    total = config.sft.num_train_epochs
    task = DrivingTask([], [])
    rows = imitate(
        model,
        task,
        prompts,
        config.sft,
        config.seed,
        observer=lambda row: tell(f"imitation {row['epoch']}/{total}: {row['loss']:.4f} nats per word"),
    )
    about: dict[str, Any] = {
        "config": to_dict(config),
        "parameters": model.parameter_count,
        "vocabulary": DRIVING.version,
        "situations": len(met),
        "traces": len(prompts),
        "imitation": rows,
    }
    if config.rl.updates:
        about["reinforcement"] = _reinforce(model, config, tell)
    return model, about | {"cpu_s": round(time.process_time() - begin, 1)}


def _reinforce(model: gpt.GPT, config: EmbeddedConfig, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    rl = config.rl
    met = situations(config.sources, rl.situations, config.seed + 1, config.scenes)
    task = DrivingTask(met, [], rl.steps, teacher="rule")
    method = language_method(rl.strategy)
    changes = {"sft": {"num_train_epochs": 0}, "grpo": to_dict(rl.grpo)} | (
        {"method": rl.options} if rl.options else {}
    )
    loop = method.loop(task, model, resolve(method.defaults, changes, "rl"), config.seed, rl.updates)
    loop.begin()
    rows = []
    for row in run_updates(loop, rl.updates):
        rows.append(row)
        if len(rows) % 20 == 0:
            success, reward = row["rollout/success"], row["rollout/reward"]
            tell(f"{rl.strategy} {len(rows)}/{rl.updates}: success {success:.3f}, reward {reward:.3f}")
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """`python -m baselines.driving.embedded`."""
    parser = argparse.ArgumentParser(
        prog="python -m baselines.driving.embedded", description="Train the driving language model that is shipped."
    )
    parser.add_argument("--config", help="YAML file with changes to the built-in settings")
    parser.add_argument("--out", type=Path, default=Path("runs/driver"), help="folder (default: runs/driver)")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="e.g. situations=20000 sft.learning_rate=1e-3"
    )
    given = parser.parse_args(words)
    check_outputs(vars(given))
    config = resolve(EmbeddedConfig(), load_yaml(given.config) if given.config else None, "config")
    config = resolve(config, parse_overrides(given.overrides), "config")
    given.out.mkdir(parents=True, exist_ok=True)
    model, about = train(config, lambda line: print(line, flush=True))
    gpt.save(model, DRIVING, given.out / "model.safetensors")
    write_json(given.out / "training.json", about)
    print(json.dumps({"parameters": model.parameter_count, "cpu_s": about["cpu_s"]}), f"written to {given.out}")


if __name__ == "__main__":
    main()
