"""Experts evaluated on the same scenes beside trivial baselines: always SLOWER, always IDLE, a random action.

Where episodes are asked for, every expert also drives alone, the same held-out ones: decisions that are safe one by one
may still lead nowhere.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experts.driving import run_episodes
from experts.provider import Decision, PolicyProvider
from experts.simple import ConstantExpert, RandomExpert
from lgdrl.quality.scenes import LabelledScene, LabelledSceneConfig, labelled_scenes
from lgdrl.quality.scores import ExpertScore, score, share
from lgdrl.seeds import FINAL_SEED
from sim.actions import MetaAction
from sim.env import DrivingEnv, DrivingVecEnv
from sim.errors import UsageError


@dataclass(frozen=True)
class EvaluationConfig(LabelledSceneConfig):
    """How much is evaluated."""

    resamples: int = 500  # bootstrap resamples for the interval of the AUC
    episodes: int = 0  # driven by each expert alone
    first_episode: int = FINAL_SEED  # their seeds: this one and the following

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes < 0 or self.first_episode < 0:
            raise UsageError(f"episodes = {self.episodes}, first_episode = {self.first_episode}: expected 0 or more")
        if self.resamples < 1:
            raise UsageError(f"resamples = {self.resamples}: expected 1 or more")


@dataclass(frozen=True, slots=True)
class ExpertEvaluation:
    """All rows, on the same scenes."""

    scenario: str
    backend: str
    scores: tuple[ExpertScore, ...]
    scenes: int
    episodes: int
    """Episodes of random driving that it took."""
    nothing_safe: int
    """Scenes dropped because no action was strict-safe."""
    all_safe: int
    """Scenes dropped because every action was."""
    seed: int


def evaluate(
    experts: Sequence[PolicyProvider], env: DrivingEnv, config: EvaluationConfig, envs: DrivingVecEnv | None = None
) -> ExpertEvaluation:
    """Every expert on the same scenes, one decision at a time (the latency is that of a single one).

    Args:
        experts: In the order of the table.
        env: Gives the scenes.
        config: How many of them.
        envs: Environments of the same scenario, in which each expert also drives `config.episodes` episodes alone.

    Raises:
        UsageError: See `lgdrl.quality.scenes.labelled_scenes`.
    """
    tally: Counter[str] = Counter()
    scenes: list[LabelledScene] = []
    decisions: list[list[Decision]] = [[] for _ in experts]
    seconds: list[list[float]] = [[] for _ in experts]
    for scene in labelled_scenes(env, config, tally):
        scenes.append(dataclasses.replace(scene, context=dataclasses.replace(scene.context, branch=None)))
        for i, expert in enumerate(experts):
            begin = time.perf_counter()
            decisions[i].append(expert.decide([scene.context])[0])
            seconds[i].append(decisions[i][-1].latency_s or time.perf_counter() - begin)
    rows = zip(experts, decisions, seconds, strict=True)
    scores = [score(expert.name, made, taken, scenes, config.resamples, config.seed) for expert, made, taken in rows]
    if envs is not None and config.episodes:
        scores = [_driven(row, expert, envs, config) for row, expert in zip(scores, experts, strict=True)]
    return ExpertEvaluation(
        scenario=env.scenario,
        backend=env.backend,
        scores=tuple(scores),
        scenes=len(scenes),
        episodes=tally["episodes"],
        nothing_safe=tally["nothing_safe"],
        all_safe=tally["all_safe"],
        seed=config.seed,
    )


def _driven(row: ExpertScore, expert: PolicyProvider, envs: DrivingVecEnv, config: EvaluationConfig) -> ExpertScore:
    """The row with what the expert reaches alone."""
    ends = run_episodes(envs, expert, range(config.first_episode, config.first_episode + config.episodes))
    return dataclasses.replace(
        row,
        success=share([end["success"] for end in ends]),
        crash=float(np.mean([end["crashed"] for end in ends])),
    )


def trivial_baselines(seed: int = 0) -> list[PolicyProvider]:
    """Always SLOWER, always IDLE, random. The last reports no probabilities: they would tell the AUC which lanes exist.

    Args:
        seed: Of the random one.
    """
    constant = [ConstantExpert(f"always {action.name}", action) for action in (MetaAction.SLOWER, MetaAction.IDLE)]
    return [*constant, RandomExpert(seed, report_probs=False)]
