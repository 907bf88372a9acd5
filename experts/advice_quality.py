"""Expert evaluation: how safe is the advice, beside what always braking, idling, chance and a rule reach?

Scenes come from random driving. Each legal action is labelled by exact roll-out from a copy of the world: `strict` = no
crash when the action is followed by IDLE four times, `recov` = none when followed by SLOWER. Only scenes where at least
one action is strict-safe and one is not are kept: elsewhere every expert scores the same. A safe rate alone rewards
braking, so the table shows the base rates, the action histogram and the mean per-action AUC (0.5 = no understanding of
the scene) next to it.

Where episodes are asked for, every expert also drives alone, the same held-out ones: advice that is safe each time may
still lead nowhere.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from experts.driving import run_episodes
from experts.labels import ActionSet
from experts.provider import Context, Decision, PolicyProvider, Status
from experts.safety import refused, unsafe_actions
from sim.actions import MetaAction
from sim.env import DrivingEnv, DrivingVecEnv
from sim.errors import UsageError
from sim.view import views_of

FOLLOW_UP = 4
"""Steps rolled out after the judged action."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is evaluated."""

    scenes: int = 60  # kept scenes
    max_seeds: int = 1000  # episodes of random driving tried for them
    steps: int = 20  # random steps before a scene is looked at, at most; the first ones are rarely dangerous
    seed: int = 0
    resamples: int = 500  # bootstrap resamples for the interval of the AUC
    episodes: int = 0  # driven by each expert alone
    first_episode: int = 10_000  # their seeds: this one and the following

    def __post_init__(self) -> None:
        if self.episodes < 0 or self.first_episode < 0:
            raise UsageError(f"episodes = {self.episodes}, first_episode = {self.first_episode}: expected 0 or more")
        for name in ("scenes", "max_seeds", "steps", "resamples"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}: expected 1 or more")


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """A scene with its roll-out labels; A actions."""

    context: Context
    strict: np.ndarray
    """bool (A,): no crash when followed by IDLE. False on illegal actions."""
    recov: np.ndarray
    """bool (A,): no crash when followed by SLOWER, or where there is none by IDLE. False on illegal actions."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A rate or mean with its 95 % interval; NaN where it cannot be computed."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ExpertScore:
    """One row of the table."""

    name: str
    scenes: int
    strict: Interval
    recov: Interval
    auc: Interval
    """Mean over actions of AUC(probability of the action against "it is strict-safe"); ties count half."""
    histogram: Mapping[str, int]
    """How often each action was chosen."""
    overridden: float
    """Share of decisions that a safety shield (`experts.safety`) would override."""
    vetoed: float
    """Share of decisions that the expert's own shield did replace (status VETOED)."""
    undecided: int
    """Decisions without an action; they count as unsafe."""
    latency_p50_s: float
    latency_p95_s: float
    success: Interval | None = None
    """Of the episodes that it drove alone; None where it drove none."""
    crash: float | None = None
    """Share of them that ended in a crash."""


@dataclass(frozen=True, slots=True)
class Evaluation:
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


def labelled_scenes(env: DrivingEnv, config: EvaluationConfig, tally: Counter[str]) -> Iterator[LabelledScene]:
    """Scenes reached by random legal driving, labelled by roll-out and filtered, until there are enough.

    The world stands at a scene's state until the next one is asked for, so that the context's `branch` is valid.
    `tally` counts `episodes`, and scenes dropped as `nothing_safe` or `all_safe`.
    Raises UsageError when the world has no discrete meta-actions, or `max_seeds` episodes give no scene at all.
    """
    if not isinstance(env.action_space, gym.spaces.Discrete):
        raise UsageError(f"scenario {env.scenario!r} has no discrete actions: this evaluation needs meta-actions")
    rng = np.random.default_rng(config.seed)
    kept = 0
    while kept < config.scenes and tally["episodes"] < config.max_seeds:
        obs = _drive(env, rng, config.seed + tally["episodes"], config.steps)
        tally["episodes"] += 1
        if obs is None:
            continue
        labelled = label(env, obs, tally["episodes"])
        safe = labelled.strict[env.action_masks()]
        if safe.any() and not safe.all():
            kept += 1
            yield labelled
        else:
            tally["all_safe" if safe.any() else "nothing_safe"] += 1
    if not kept:
        raise UsageError(
            f"no scene of {env.scenario!r} in {tally['episodes']} episodes had both a safe and an unsafe action"
        )


def _drive(env: DrivingEnv, rng: np.random.Generator, seed: int, steps: int) -> np.ndarray | None:
    """The observation after 1 to `steps` random legal actions from `seed`, None when the episode ended before."""
    obs, _ = env.reset(seed=seed)
    for _ in range(int(rng.integers(1, steps + 1))):
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return None
    return obs


def label(env: DrivingEnv, obs: np.ndarray, episode: int = 0) -> LabelledScene:
    """The present scene of `env` with roll-out labels of every legal action."""
    scene, mask = env.scene(), env.action_masks()
    actions = ActionSet.of(scene)
    context = Context(
        obs=obs, action_space=env.action_space, scene=scene, legal=mask, episode=episode, branch=env.branch
    )
    idle, brake = actions.find(MetaAction.IDLE), actions.find(MetaAction.SLOWER)
    strict = _crash_free(env, mask, idle)
    recov = strict if brake is None else _crash_free(env, mask, brake)
    return LabelledScene(context, strict, recov)


def _crash_free(env: DrivingEnv, mask: np.ndarray, follow: int | None) -> np.ndarray:
    """bool (A,): legal and no crash within the action and `FOLLOW_UP` steps of `follow`."""
    assert follow is not None
    legal = np.flatnonzero(mask)
    plans = np.full((len(legal), 1 + FOLLOW_UP), follow, dtype=np.int64)
    plans[:, 0] = legal
    safe = np.zeros(len(mask), dtype=bool)
    safe[legal] = ~np.asarray(env.branch(plans).crashed, dtype=bool)
    return safe


def evaluate(
    experts: Sequence[PolicyProvider], env: DrivingEnv, config: EvaluationConfig, worlds: DrivingVecEnv | None = None
) -> Evaluation:
    """Every expert on the same scenes of `env`, one decision at a time (the latency is that of a single one); then, in
    `worlds` of the same scenario, alone through `config.episodes` episodes."""
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
    scores = [score(expert.name, made, taken, scenes, config) for expert, made, taken in rows]
    if worlds is not None and config.episodes:
        scores = [_driven(row, expert, worlds, config) for row, expert in zip(scores, experts, strict=True)]
    return Evaluation(
        scenario=env.scenario,
        backend=env.backend,
        scores=tuple(scores),
        scenes=len(scenes),
        episodes=tally["episodes"],
        nothing_safe=tally["nothing_safe"],
        all_safe=tally["all_safe"],
        seed=config.seed,
    )


def score(
    name: str,
    decisions: Sequence[Decision],
    seconds: Sequence[float],
    scenes: Sequence[LabelledScene],
    config: EvaluationConfig,
) -> ExpertScore:
    """The row of one expert from its N decisions and their latencies on N scenes."""
    chosen = [None if decision.action is None else int(decision.action) for decision in decisions]
    num_actions = len(scenes[0].strict)
    assert scenes[0].context.scene is not None
    actions = ActionSet.of(scenes[0].context.scene)
    names = [actions.name(i) for i in range(num_actions)]
    p50, p95 = np.percentile(seconds, [50, 95])
    return ExpertScore(
        name=name,
        scenes=len(scenes),
        strict=wilson([a is not None and bool(s.strict[a]) for a, s in zip(chosen, scenes, strict=True)]),
        recov=wilson([a is not None and bool(s.recov[a]) for a, s in zip(chosen, scenes, strict=True)]),
        auc=mean_auc(_score_matrix(decisions, num_actions), *_label_matrices(scenes), config),
        histogram={name: chosen.count(i) for i, name in enumerate(names)},
        overridden=float(np.mean([_overridden(a, s.context) for a, s in zip(chosen, scenes, strict=True)])),
        vetoed=float(np.mean([decision.status is Status.VETOED for decision in decisions])),
        undecided=chosen.count(None),
        latency_p50_s=float(p50),
        latency_p95_s=float(p95),
    )


def _driven(row: ExpertScore, expert: PolicyProvider, worlds: DrivingVecEnv, config: EvaluationConfig) -> ExpertScore:
    """The row with what the expert reaches alone."""
    ends = run_episodes(worlds, expert, range(config.first_episode, config.first_episode + config.episodes))
    return dataclasses.replace(
        row,
        success=wilson([end["success"] for end in ends]),
        crash=float(np.mean([end["crashed"] for end in ends])),
    )


def _overridden(action: int | None, context: Context) -> bool:
    assert context.scene is not None
    return action is not None and refused(unsafe_actions(views_of([context.scene]))[0], context.legal, action)


def _score_matrix(decisions: Sequence[Decision], num_actions: int) -> np.ndarray:
    """(N, A) the experts' probabilities; a bare action counts as certain."""
    scores = np.zeros((len(decisions), num_actions))
    for row, decision in zip(scores, decisions, strict=True):
        if decision.probs is not None:
            row[:] = decision.probs
        elif decision.action is not None:
            row[int(decision.action)] = 1.0
    return scores


def _label_matrices(scenes: Sequence[LabelledScene]) -> tuple[np.ndarray, np.ndarray]:
    """bool (N, A) strict labels and legality."""
    legal = [np.asarray(scene.context.legal, dtype=bool) for scene in scenes]
    return np.array([scene.strict for scene in scenes]), np.array(legal)


def wilson(successes: Sequence[bool]) -> Interval:
    """Rate with Wilson's 95 % interval."""
    from scipy.stats import binomtest

    result = binomtest(sum(successes), len(successes))
    interval = result.proportion_ci(0.95, method="wilson")
    return Interval(float(result.statistic), float(interval.low), float(interval.high))


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve from ranks, ties half; NaN when one class is missing."""
    from scipy.stats import rankdata

    ones = int(positive.sum())
    zeros = len(positive) - ones
    if ones == 0 or zeros == 0:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def mean_auc(scores: np.ndarray, strict: np.ndarray, legal: np.ndarray, config: EvaluationConfig) -> Interval:
    """Mean over actions of `auc` on the scenes where the action is legal, with a bootstrap interval over scenes.

    Args: (N, A) scores; bool (N, A) labels; bool (N, A) legality.
    """
    from scipy.stats import bootstrap

    def statistic(rows: np.ndarray) -> float:
        values = []
        for action in range(scores.shape[1]):
            use = rows[legal[rows, action]]
            values.append(auc(scores[use, action], strict[use, action]))
        known = [value for value in values if np.isfinite(value)]
        return float(np.mean(known)) if known else 0.5

    rows = np.arange(len(scores))
    value = statistic(rows)
    if len(rows) < 2:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(config.seed)
    result = bootstrap((rows,), statistic, n_resamples=config.resamples, vectorized=False, method="percentile", rng=rng)
    return Interval(value, float(result.confidence_interval.low), float(result.confidence_interval.high))


class Constant(PolicyProvider):
    """Baseline: always the same manoeuvre (IDLE where it is not available)."""

    def __init__(self, manoeuvre: MetaAction) -> None:
        self.manoeuvre = manoeuvre
        self.name = f"always {manoeuvre.name}"

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        """The manoeuvre for each context."""
        return [Decision(action=_available(self.manoeuvre, context)) for context in contexts]


class Chance(PolicyProvider):
    """Baseline: a legal action at random."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        """A uniform draw for each context."""
        return [self._draw(np.asarray(context.legal, dtype=bool)) for context in contexts]

    def _draw(self, legal: np.ndarray) -> Decision:
        # No probabilities: 1 / (number of legal actions) would tell the AUC how many lanes there are.
        return Decision(action=int(self._rng.choice(np.flatnonzero(legal))))


def _available(manoeuvre: MetaAction, context: Context) -> int:
    legal = np.asarray(context.legal, dtype=bool)
    assert context.scene is not None
    actions = ActionSet.of(context.scene)
    action = actions.find(manoeuvre)
    if action is not None and legal[action]:
        return action
    idle = actions.find(MetaAction.IDLE)
    assert idle is not None
    return idle


def baselines(seed: int = 0) -> list[PolicyProvider]:
    """Always SLOWER, always IDLE, random."""
    return [Constant(MetaAction.SLOWER), Constant(MetaAction.IDLE), Chance(seed)]


def to_json(evaluation: Evaluation) -> str:
    """The evaluation as JSON text, with a schema name."""
    return json.dumps({"schema": "lgdrl.expert-evaluation/1", **_finite(dataclasses.asdict(evaluation))}, indent=2)


def _finite(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def print_table(evaluation: Evaluation, write: Callable[[Any], None] | None = None) -> None:
    """The table on the terminal, or through `write` (given the rich renderable)."""
    from rich.console import Console
    from rich.table import Table

    title = f"Experts on {evaluation.scenes} scenes of {evaluation.scenario} ({evaluation.backend})"
    note = (
        f"{evaluation.episodes} episodes of random driving, seed {evaluation.seed};"
        f" dropped: {evaluation.nothing_safe} with nothing safe, {evaluation.all_safe} with everything safe."
        " 95 % intervals. AUC 0.5 = no scene understanding."
    )
    note += " L/I/R/F/S: actions chosen; over: a shield would override; veto: refused; ms: median."
    table = Table(title=title, caption=note, box=None, pad_edge=False, title_style="bold")
    table.title_justify = table.caption_justify = "left"
    for column in ("expert", "strict", "recov", "AUC", "L/I/R/F/S", "over", "veto", "ms"):
        table.add_column(column, no_wrap=True)
    for row in evaluation.scores:
        counts = "/".join(str(count) for count in row.histogram.values())
        latency = f"{row.latency_p50_s * 1e3:.1f}"
        shares = (f"{row.overridden:.0%}", f"{row.vetoed:.0%}")
        recov = f"{row.recov.value:.2f}"
        table.add_row(row.name, _show(row.strict), recov, _show(row.auc), counts, *shares, latency)
    show = write or Console().print
    show(table)
    driven = [row for row in evaluation.scores if row.success is not None]
    if driven:
        show(_alone(driven))


def _alone(rows: Sequence[ExpertScore]) -> Any:
    """What the experts reach when they drive alone."""
    from rich.table import Table

    table = Table(title="Driving alone, held-out seeds", box=None, pad_edge=False, title_style="bold")
    table.title_justify = "left"
    for column in ("expert", "success", "crash"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        assert row.success is not None
        table.add_row(row.name, _show(row.success), f"{row.crash:.0%}")
    return table


def _show(interval: Interval) -> str:
    return f"{interval.value:.2f} [{_short(interval.low)},{_short(interval.high)}]"


def _short(share: float) -> str:
    """.53 for 0.53, 1.0 for 1."""
    return f"{share:.2f}".removeprefix("0") if share < 0.995 else "1.0"
