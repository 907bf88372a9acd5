"""Learning curves of our learners without a strategy beside plain Stable-Baselines3, with the same settings.

    python benchmarks/learning_curves.py [--environments hopper,cartpole] [--seeds 5] [--json FILE] [--plot FILE]

Both train in environments of the same seeds, with the settings of `TASKS`; whatever is not named there is a default of
Stable-Baselines3. A point of a curve is the mean return of the greedy policy over 4 episodes, the end is that over 12
other ones; both libraries are evaluated by Stable-Baselines3's `evaluate_policy`. The unit of replication is the
training seed. Libraries take turns, seed by seed; what they need of CPU time is counted without the evaluations. With
`--json` the runs that the file holds are not repeated: a second call goes on, or draws only.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv

from lgdrl.learners.dqn import DQN, DQNConfig
from lgdrl.learners.ppo import PPO, PPOConfig
from lgdrl.learners.sac import SAC, SACConfig
from lgdrl.learners.td3 import TD3, TD3Config
from lgdrl.plots import COLOURS, save_figure
from lgdrl.runs import fingerprint_environment, write_json
from lgdrl.statistics import paired_difference, t_interval

OURS, THEIRS = "lgdrl", "Stable-Baselines3"
POINTS = 10
"""Evaluations of a curve."""
POINT_EPISODES, FINAL_EPISODES = 4, 12
EVALUATION_SEED, FINAL_SEED = 1_000_000, 2_000_000
COMMON: dict[str, Any] = {"hidden": (64, 64), "batch_size": 64}
"""Settings of every task that names no other: small networks, so that all trainings take an hour."""


@dataclass(frozen=True)
class Task:
    """An environment and the settings of one learner in it."""

    environment: str
    learner: str
    decisions: int
    settings: dict[str, Any] = field(default_factory=dict)
    """By the names of our config; `THEIR_NAMES` translates."""
    num_envs: int = 1

    @property
    def name(self) -> str:
        """As in tables."""
        return f"{self.environment.partition('-')[0]}, {self.learner}"


CONTINUOUS: dict[str, Any] = {"learning_rate": 1e-3, "learning_starts": 1000, "buffer_size": 50_000}
"""Of `sac` and `td3`: a step size for short trainings, otherwise defaults."""
DEEP_Q: dict[str, Any] = {"target_interval": 256, "learning_starts": 1000, "buffer_size": 50_000, "double": False}
TASKS = (
    *(Task("Pendulum-v1", name, 5000, CONTINUOUS) for name in ("sac", "td3")),
    Task("CartPole-v1", "ppo", 20_000, {
        "learning_rate": 1e-3, "rollout": 256, "batch_size": 256, "epochs": 20, "gamma": 0.98, "gae_lambda": 0.8,
    }, 8),
    Task("CartPole-v1", "dqn", 20_000, DEEP_Q | {
        "learning_rate": 5e-4, "updates_per_decision": 0.5, "exploration_decisions": 8000, "exploration_final": 0.04,
    }, 4),
    *(Task("InvertedDoublePendulum-v5", name, 6000, CONTINUOUS) for name in ("sac", "td3")),
    *(Task("Hopper-v5", name, 8000, CONTINUOUS) for name in ("sac", "td3")),
    *(Task("Swimmer-v5", name, 5000, CONTINUOUS | {"gamma": 0.9999}) for name in ("sac", "td3")),
    Task("LunarLander-v3", "dqn", 30_000, DEEP_Q | {
        "learning_rate": 6.3e-4, "updates_per_decision": 0.5, "exploration_decisions": 12_000, "exploration_final": 0.1,
    }, 4),
    Task("LunarLander-v3", "ppo", 40_000, {
        "rollout": 2048, "gamma": 0.999, "gae_lambda": 0.98, "entropy_weight": 0.01,
    }, 8),
)  # fmt: skip
LEARNERS: dict[str, tuple[type[Any], type[Any], type[BaseAlgorithm]]] = {
    "dqn": (DQN, DQNConfig, sb3.DQN),
    "ppo": (PPO, PPOConfig, sb3.PPO),
    "sac": (SAC, SACConfig, sb3.SAC),
    "td3": (TD3, TD3Config, sb3.TD3),
}
"""Our class, its config, and the class of Stable-Baselines3."""
THEIR_NAMES = {
    "epochs": "n_epochs",
    "entropy_weight": "ent_coef",
    "target_interval": "target_update_interval",
    "exploration_final": "exploration_final_eps",
}
"""Settings with another name in Stable-Baselines3."""


@dataclass(frozen=True)
class Training:
    """What one training showed."""

    task: str
    library: str
    seed: int
    decisions: list[int]
    """Of the points of the curve."""
    returns: list[float]
    """Mean return of the greedy policy at each point."""
    final: float
    """Mean return at the end."""
    cpu_s: float
    """Of the training without the evaluations."""


# ---------------------------------------------------------------------------------------------------- one training


def ours(task: Task, env: VecEnv, seed: int) -> BaseAlgorithm:
    """Our learner without a strategy."""
    model, config, _ = LEARNERS[task.learner]
    return model(env, config(**COMMON | task.settings), seed=seed, device="cpu")


def theirs(task: Task, env: VecEnv, seed: int) -> BaseAlgorithm:
    """The learner of Stable-Baselines3 with the same settings."""
    settings = COMMON | task.settings
    options: dict[str, Any] = {"policy_kwargs": {"net_arch": list(settings.pop("hidden"))}}
    if task.learner == "ppo":
        options["n_steps"] = settings.pop("rollout") // task.num_envs
    else:
        options["gradient_steps"] = round(settings.pop("updates_per_decision", 1.0) * task.num_envs)
        options["train_freq"] = 1
    if task.learner == "dqn":
        del settings["double"]  # it has none, and ours is switched off
        options["exploration_fraction"] = settings.pop("exploration_decisions") / task.decisions
    if task.learner == "td3":
        dimensions = env.action_space.shape[0]  # type: ignore[index]
        options["action_noise"] = NormalActionNoise(np.zeros(dimensions), np.full(dimensions, 0.1))
    options |= {THEIR_NAMES.get(name, name): value for name, value in settings.items()}
    return LEARNERS[task.learner][2]("MlpPolicy", env, seed=seed, device="cpu", **options)


LIBRARIES: dict[str, Callable[[Task, VecEnv, int], BaseAlgorithm]] = {OURS: ours, THEIRS: theirs}


class Curve(BaseCallback):
    """Evaluates the greedy policy at every tenth of a training, and counts the CPU time of that."""

    def __init__(self, task: Task, env: VecEnv) -> None:
        super().__init__()
        self.task, self.env = task, env
        self.decisions: list[int] = []
        self.returns: list[float] = []
        self.cpu_s = 0.0

    def _on_step(self) -> bool:
        if self.num_timesteps * POINTS >= (len(self.returns) + 1) * self.task.decisions:
            cpu = time.process_time()
            self.decisions.append(self.num_timesteps)
            self.returns.append(mean_return(self.model, self.env, EVALUATION_SEED, POINT_EPISODES))
            self.cpu_s += time.process_time() - cpu
        return True


def mean_return(model: BaseAlgorithm, env: VecEnv, seed: int, episodes: int) -> float:
    """Mean return of the greedy policy over episodes of 4 environments with seeds from `seed` on."""
    env.seed(seed)
    return float(evaluate_policy(model, env, episodes, deterministic=True)[0])


def train(task: Task, library: str, seed: int) -> Training:
    """One training and its evaluations."""
    env, evaluated = make_vec_env(task.environment, task.num_envs), make_vec_env(task.environment, POINT_EPISODES)
    model, curve = LIBRARIES[library](task, env, seed), Curve(task, evaluated)
    cpu = time.process_time()
    model.learn(task.decisions, callback=curve)
    cpu_s = time.process_time() - cpu - curve.cpu_s
    final = mean_return(model, evaluated, FINAL_SEED, FINAL_EPISODES)
    env.close()
    evaluated.close()
    return Training(task.name, library, seed, curve.decisions, curve.returns, final, cpu_s)


# ----------------------------------------------------------------------------------------------- what they showed


def table(trainings: list[Training]) -> str:
    """A Markdown table: end and mean of the curve of both libraries, their paired difference, CPU time.

    Args:
        trainings: Both libraries with the same seeds; what only one of them has is left out.
    """
    lines = [
        "| task | decisions | seeds | end: lgdrl | Stable-Baselines3 | difference | curve: lgdrl | Stable-Baselines3 "
        "| difference | CPU time SB3 / lgdrl |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task in TASKS:
        pairs = _pairs(trainings, task)
        if not pairs:
            continue
        cells = [task.name, f"{task.decisions:,}", str(len(pairs))]
        for measure in (lambda each: each.final, lambda each: float(np.mean(each.returns))):
            own, other = ([measure(pair[library]) for pair in pairs] for library in LIBRARIES)
            cells += [_interval(t_interval(own)), _interval(t_interval(other))]
            cells.append(_interval(paired_difference(own, other)))
        cells.append(f"{np.median([pair[THEIRS].cpu_s / pair[OURS].cpu_s for pair in pairs]):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _pairs(trainings: list[Training], task: Task) -> list[dict[str, Training]]:
    """By seed, the trainings of a task by library."""
    found: dict[int, dict[str, Training]] = {}
    for each in trainings:
        if each.task == task.name:
            found.setdefault(each.seed, {})[each.library] = each
    return [found[seed] for seed in sorted(found) if len(found[seed]) == len(LIBRARIES)]


def _interval(found: Any) -> str:
    """A mean with its bounds, rounded to what they tell."""
    digits = 1 if abs(found.mean) < 1000 else 0
    return f"{found.mean:,.{digits}f} [{found.low:,.{digits}f}, {found.high:,.{digits}f}]"


def plot(trainings: list[Training], path: Path) -> None:
    """A panel per task: means over training seeds, with their range as a band."""
    from matplotlib.figure import Figure

    shown = [(task, pairs) for task in TASKS if (pairs := _pairs(trainings, task))]
    columns, counts = min(4, len(shown)), [len(pairs) for _, pairs in shown]
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.9 * columns, 2.3 * rows + 0.5), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (task, pairs) in zip(panels, shown, strict=False):
        for library, colour in zip(LIBRARIES, COLOURS, strict=False):
            grid = np.array(pairs[0][library].decisions) / 1000
            returns = np.array([pair[library].returns for pair in pairs])
            axes.plot(grid, returns.mean(axis=0), color=colour, linewidth=1.8, label=library)
            axes.fill_between(grid, returns.min(axis=0), returns.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        axes.set_title(task.name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    for axes in list(panels)[len(shown) :]:
        axes.set_visible(False)
    figure.supxlabel("training decisions (thousands)", fontsize=9)
    figure.supylabel("return of the greedy policy", fontsize=9)
    seeds = " to ".join(str(number) for number in sorted({min(counts), max(counts)}))
    figure.suptitle(f"Same settings, no expert: mean and range over {seeds} training seeds", fontsize=11)
    figure.axes[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


# -------------------------------------------------------------------------------------------------------- command


def chosen(names: str | None) -> list[Task]:
    """Tasks of environments whose names begin with one of the given words, in any case; all where none is given."""
    if names is None:
        return list(TASKS)
    words = names.lower().split(",")
    for word in words:
        if not any(task.environment.lower().startswith(word) for task in TASKS):
            known = dict.fromkeys(task.environment.partition("-")[0].lower() for task in TASKS)
            raise SystemExit(f"--environments {word}: choose from {', '.join(known)}")
    return [task for task in TASKS if task.environment.lower().startswith(tuple(words))]


def missing(tasks: list[Task], seeds: int, trainings: list[Training]) -> Iterator[tuple[Task, str, int]]:
    """What has not been trained: task by task, libraries in turns."""
    done = {(each.task, each.library, each.seed) for each in trainings}
    for task in tasks:
        for seed in range(seeds):
            yield from ((task, library, seed) for library in LIBRARIES if (task.name, library, seed) not in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", help="comma-separated first words of names, e.g. hopper,cartpole")
    parser.add_argument("--seeds", type=int, default=5, help="training seeds, from 0 on")
    parser.add_argument("--json", type=Path, help="every training; what it holds is not repeated")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    tasks = chosen(arguments.environments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="gymnasium|stable_baselines3")
    trainings: list[Training] = []
    if arguments.json and arguments.json.exists():
        trainings = [Training(**each) for each in json.loads(arguments.json.read_text())["trainings"]]
    for task, library, seed in missing(tasks, arguments.seeds, trainings):
        found = train(task, library, seed)
        trainings.append(found)
        print(
            f"{task.name}, seed {seed}, {library}: {found.final:,.1f} at the end, {found.cpu_s:.1f} CPU-s", flush=True
        )
        if arguments.json:
            content = {"trainings": [asdict(each) for each in trainings], "machine": fingerprint_environment()}
            write_json(arguments.json, content)
    trainings = [each for each in trainings if each.task in {task.name for task in tasks}]
    print(table(trainings))
    if arguments.plot and trainings:
        plot(trainings, arguments.plot)


if __name__ == "__main__":
    main()
