"""Training: one config in, one run folder out; killed or interrupted runs continue with identical results."""

from __future__ import annotations

import dataclasses
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

import experts.registry as expert_registry
import sim
from experts.data.demonstrations import Demonstrations
from experts.data.sources import load_demonstrations
from experts.human import Hands
from experts.provider import PolicyProvider
from lgdrl.evaluation import CURVE_SEEDS, Evaluation, PolicyActor, evaluate
from lgdrl.guidance import registry as method_registry
from lgdrl.guidance.advisor import ExpertDesk
from lgdrl.guidance.demonstrations import transitions_of
from lgdrl.guidance.human import WithHuman
from lgdrl.guidance.log import GuidanceLog
from lgdrl.guidance.registry import Setting
from lgdrl.guidance.shield import ShieldedVecEnv
from lgdrl.guidance.strategy import Strategy
from lgdrl.learners.discrete_sac import DiscreteSAC, SACConfig
from lgdrl.runs import MetricsTable, Run, write_atomically
from sim.config import dump_yaml, load_yaml, resolve, to_dict
from sim.env import DrivingVecEnv
from sim.errors import UsageError

WORLDS, JUDGING_WORLDS = 32, 100
"""Parallel worlds of a run and of an evaluation, where the simulator takes any number."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run. `scenario_config`, `expert_options` and `strategy_options` are checked
    against what the named scenario, expert and strategy know, and saved in full."""

    scenario: str = "lane-change"
    backend: str | None = None  # None: the scenario's default
    scenario_config: dict[str, Any] = field(default_factory=dict)
    expert: str = "rule"
    expert_options: dict[str, Any] = field(default_factory=dict)
    strategy: str = "lgdrl"
    strategy_options: dict[str, Any] = field(default_factory=dict)
    demonstrations: str | None = None  # a recording, a folder of them, or minari:DATASET: in the replay from the start
    sac: SACConfig = field(default_factory=SACConfig)
    steps: int = 60_000  # decisions, over all worlds
    num_envs: int = 0  # parallel worlds; 0: 32, or fewer where each is a server (CARLA)
    workers: int = 0  # processes (highway-env) or threads (engine) for the worlds; 0: none beside this one
    seed: int = 0
    label_budget: int | None = None  # most labels in the run; None: no limit
    label_lag: int = 0  # steps for which a label that is not executed may be on its way; 0: the run waits for each.
    # For experts that can be asked ahead (llm)
    label_spread: float = 0.05  # of a bare label, over all legal actions
    shield: bool = False  # mask actions that fail the safety check, in training and evaluation
    log_every: int = 1000  # decisions between rows of metrics.csv
    log_scenes: int = (
        10  # every how many episodes the guidance log keeps scenes that rules answer without; 0: no scenes
    )
    evaluate_every: int = 5000  # decisions between points of the learning curve; 0: none
    evaluate_episodes: int = 300  # episodes per point, seeds 0 ...
    checkpoint_every: int = 10_000  # decisions

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "checkpoint_every", "evaluate_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: choose at least 1")
        for name in ("num_envs", "evaluate_every", "workers", "seed", "log_scenes", "label_lag"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: choose 0 or more")
        if self.label_budget is not None and self.label_budget < 0:
            raise ValueError(f"label_budget = {self.label_budget}: choose 0 or more, or null for no limit")
        if not 0 <= self.label_spread < 1:
            raise ValueError(f"label_spread = {self.label_spread}: choose 0 to below 1")

    def resolved(self) -> RunConfig:
        """This config with scenario, backend and strategy options checked and written out in full."""
        scenario = sim.get(self.scenario)
        if scenario.actions == "continuous":
            raise UsageError(f"scenario {self.scenario!r} has continuous actions: this trainer needs discrete ones")
        scenario_config = resolve(scenario.defaults, self.scenario_config, "scenario_config")
        backend, kind = scenario.backend(self.backend, scenario_config)
        method = method_registry.get(self.strategy)
        return dataclasses.replace(
            self,
            backend=backend,
            num_envs=self.num_envs or min(kind.worlds or WORLDS, WORLDS),
            scenario_config=to_dict(scenario_config),
            strategy_options=to_dict(resolve(method.defaults, self.strategy_options, "strategy_options")),
        )


@dataclass(frozen=True)
class Progress:
    """What a caller may show after each log interval."""

    decisions: int
    total: int
    row: Mapping[str, Any]
    """The row just written to metrics.csv."""
    evaluation: Evaluation | None


Observer = Callable[[Progress], None]
Callback = Callable[[dict[str, Any], dict[str, Any]], bool]
"""(local, global) variables of the loop that collects decisions, after each step -> whether to go on."""


def load_config(path: Path | str | None, overrides: Mapping[str, Any]) -> RunConfig:
    """Defaults, then a YAML file, then overrides, validated."""
    config = resolve(RunConfig(), load_yaml(path) if path else None, "config")
    return resolve(config, overrides, "config")


def make_worlds(config: RunConfig, num_envs: int, seed: int | None = None) -> DrivingVecEnv:
    """The worlds of a run, with its shield if it has one."""
    worlds = sim.make_vec(
        config.scenario, num_envs, seed, config.backend, config.scenario_config, workers=config.workers
    )
    return ShieldedVecEnv(worlds) if config.shield else worlds


def judging_worlds(config: RunConfig, episodes: int) -> DrivingVecEnv:
    """Worlds to evaluate on, as many as the episodes and the simulator make use of."""
    scenario = sim.get(config.scenario)
    _, kind = scenario.backend(config.backend, resolve(scenario.defaults, config.scenario_config, "scenario_config"))
    return make_worlds(config, min(episodes, kind.worlds or JUDGING_WORLDS))


class Trainer:
    """A run in memory: worlds, learner, expert desk, and where it stands."""

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        provider: PolicyProvider | None = None,
        demonstrations: Demonstrations | None = None,
        hands: Hands | None = None,
    ) -> None:
        """`provider` overrides the expert that the config names; `demonstrations` are those that it names, where they
        have been loaded already; `hands` are those of a person who may take over world 0."""
        torch.set_num_threads(1)
        self.run = run
        self.config = config
        world_seed, learner_seed, strategy_seed, expert_seed = np.random.SeedSequence(config.seed).spawn(4)
        self.worlds = make_worlds(config, config.num_envs, _integer(world_seed))
        strategy = _make_strategy(config, strategy_seed)
        self.desk: ExpertDesk | None = None
        self._own_expert: PolicyProvider | None = None
        """Made here, so closed here."""
        self.log: GuidanceLog | None = None
        if strategy.needs_expert or hands is not None:
            self.log = GuidanceLog(run.guidance_log, config.log_scenes)
        if strategy.needs_expert:
            if provider is None:
                options, seed = config.expert_options, _integer(expert_seed)
                provider = expert_registry.make(config.expert, config.scenario, options, seed)
                self._own_expert = provider
            ahead = max(config.label_lag, 1)
            self.desk = ExpertDesk(provider, config.label_budget, config.label_spread, self.log, ahead)
        if hands is not None and self.log is not None:
            strategy = WithHuman(strategy, hands, config.label_spread, self.log)
        seed = _integer(learner_seed)
        lag = config.label_lag
        self.model = DiscreteSAC(self.worlds, config.sac, strategy, self.desk, label_lag=lag, seed=seed, device="cpu")
        self.model.set_logger(_silent_logger())
        self.metrics = MetricsTable(run.metrics)
        self.elapsed_s = 0.0
        self.stop_requested = False
        self._test_worlds: DrivingVecEnv | None = None
        if run.checkpoint.exists():
            self._restore()
        else:
            self._begin(demonstrations)
        self.metrics.truncate(self.decisions)
        self._interval = self.decisions, self.elapsed_s
        self._board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=self.decisions)

    def _begin(self, demonstrations: Demonstrations | None) -> None:
        """Before the first decision: an empty log, and the demonstrations in the replay."""
        if self.log is not None:
            self.log.truncate(0)
        if self.config.demonstrations is not None:
            shown = demonstrations or _load_demonstrations(self.config, self.worlds)
            stored = self.model.strategy.on_store(transitions_of(shown, self.config.label_spread))
            self.model.replay.add_transitions(stored)

    @property
    def decisions(self) -> int:
        """Decisions made so far, over all worlds."""
        return self.model.num_timesteps

    @property
    def take_overs(self) -> int:
        """Decisions, among those still in the replay, in which the expert drove."""
        return self.model.replay.num_intervened

    def train(self, observe: Observer | None = None) -> bool:
        """Train to the end, or until `stop_requested`. Returns whether the end was reached; either way it is saved."""
        config = self.config
        while self.decisions < config.steps and not self.stop_requested:
            until = min((self.decisions // config.log_every + 1) * config.log_every, config.steps)
            self.advance(until - self.decisions, observe=observe)
        return self.finish()

    def prepare(self) -> None:
        """Start the worlds of a new run, so that they can be looked at before the first decision."""
        if self.model._last_obs is None:
            self.model._setup_learn(0)

    def advance(self, decisions: int, callback: Callback | None = None, observe: Observer | None = None) -> None:
        """Make this many decisions, at most to the end of the log interval; there the metrics, and what else is due,
        are written. `callback` is a function of Stable-Baselines3's kind."""
        config, started = self.config, time.perf_counter()
        fresh = self.model._last_obs is None
        self.model.learn(decisions, self._noting(callback), log_interval=10**9, reset_num_timesteps=fresh)
        self.elapsed_s += time.perf_counter() - started
        before, elapsed = self._interval
        if not _crossed(before, self.decisions, config.log_every) and self.decisions < config.steps:
            return
        evaluation = self._curve_point(before)
        row = self._row(evaluation, (self.decisions - before) / (self.elapsed_s - elapsed))
        self._interval = self.decisions, self.elapsed_s
        self.metrics.add(row)
        for name, value in row.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, self.decisions)
        if _crossed(before, self.decisions, config.checkpoint_every):
            self.save()
        if observe is not None:
            observe(Progress(self.decisions, config.steps, row, evaluation))

    def _noting(self, callback: Callback | None) -> Callback:
        """`callback`, after the guidance log was told what came of the queries of this decision."""

        def note(local: dict[str, Any], everywhere: dict[str, Any]) -> bool:
            moment, execution = self.model.moment, self.model.execution
            if self.log is not None and moment is not None and execution is not None:
                self.log.settle(moment, execution, local["rewards"], local["infos"])
            return callback is None or callback(local, everywhere)

        return note

    def finish(self) -> bool:
        """Save; with the last decision made, write the policy too. Returns whether that is so."""
        done = self.decisions >= self.config.steps
        if done:
            self.model.store_until(0)
        self.save()
        if done:
            write_atomically(self.run.policy, self._write_policy)
        return done

    def _curve_point(self, before: int) -> Evaluation | None:
        """Greedy policy on the curve's seeds, expert off; on worlds of its own, so that training does not notice."""
        config = self.config
        due = config.evaluate_every and (
            _crossed(before, self.decisions, config.evaluate_every) or self.decisions >= config.steps
        )
        if not due:
            return None
        if self._test_worlds is None:
            self._test_worlds = judging_worlds(config, config.evaluate_episodes)
        seeds = range(CURVE_SEEDS.start, CURVE_SEEDS.start + config.evaluate_episodes)
        return evaluate(self._test_worlds, PolicyActor(self.model), seeds)

    def _row(self, evaluation: Evaluation | None, rate: float) -> dict[str, Any]:
        values = self.model.logger.name_to_value
        recent = list(self.model.ep_info_buffer or [])
        row: dict[str, Any] = {"decisions": self.decisions, "elapsed_s": round(self.elapsed_s, 2), "rate": round(rate)}
        if evaluation is not None:
            row |= {
                "eval/success": evaluation.rate("success").value,
                "eval/crash": evaluation.rate("crash").value,
                "eval/missed": evaluation.rate("missed").value,
                "eval/learner_return": evaluation.mean("episode_return"),
                "eval/mean_speed": evaluation.mean("mean_speed"),
            }
        if recent:
            row["rollout/executed_return"] = float(np.mean([info["r"] for info in recent]))
            row["rollout/executed_success"] = float(np.mean(list(self.model.ep_success_buffer or [0.0])))
        row |= {name: float(value) for name, value in values.items() if name.startswith(("train/", "guidance/"))}
        row |= {f"guidance/{name}": value for name, value in self.model.strategy.metrics().items()}
        if self.desk is not None:
            row |= {f"expert/{name}": value for name, value in self.desk.metrics().items()}
        self.model.logger.name_to_value.clear()
        return row

    def _write_policy(self, file: Any) -> None:
        buffer = io.BytesIO()
        self.model.save(buffer)
        file.write(buffer.getvalue())

    def save(self) -> None:
        """Write the checkpoint; a run killed after this continues from here, identically."""
        if self.desk is not None:
            self.desk.settle()
        if self.log is not None:
            self.log.commit()
        state = {
            "decisions": self.decisions,
            "elapsed_s": self.elapsed_s,
            "model": self.model.state_dict(),
            "worlds": self.worlds.get_state(),
            "desk": self.desk.state_dict() if self.desk else None,
            "log": self.log.last_row if self.log else 0,
        }
        write_atomically(self.run.checkpoint, lambda file: torch.save(state, file))

    def _restore(self) -> None:
        try:
            state = torch.load(self.run.checkpoint, weights_only=False)
        except Exception as error:  # a damaged pickle raises almost anything
            raise UsageError(
                f"checkpoint {str(self.run.checkpoint)!r} is damaged ({type(error).__name__}): delete it to start over"
            ) from None
        self.elapsed_s = state["elapsed_s"]
        self.worlds.reset()
        self.worlds.set_state(state["worlds"])
        self.model.load_state_dict(state["model"])
        if not self.worlds.exact_state:  # what drove on the server is gone: begin an episode
            self.model._last_obs = self.worlds.reset()  # type: ignore[assignment]
        if self.desk is not None:
            self.desk.load_state_dict(state["desk"])
        if self.log is not None:  # rows of decisions after the checkpoint
            self.log.truncate(state["log"])

    def close(self) -> None:
        self._board.close()
        self.worlds.close()
        if self._test_worlds is not None:
            self._test_worlds.close()
        if self.desk is not None:
            self.desk.close()
        if self._own_expert is not None:
            self._own_expert.close()
        if self.log is not None:
            self.log.close()


def start(
    config: RunConfig, folder: Path | str, provider: PolicyProvider | None = None, hands: Hands | None = None
) -> Trainer:
    """Check the config, create the run folder, build the trainer."""
    config = config.resolved()
    needs_expert = _make_strategy(config, np.random.SeedSequence(config.seed)).needs_expert
    if needs_expert:
        _check_expert(config, provider)
    demonstrations = None
    if config.demonstrations is not None:
        worlds = make_worlds(config, 1)
        try:
            demonstrations = _load_demonstrations(config, worlds)
        finally:
            worlds.close()
    return Trainer(Run.create(folder, dump_yaml(to_dict(config))), config, provider, demonstrations, hands)


def _make_strategy(config: RunConfig, seed: np.random.SeedSequence) -> Strategy:
    """The strategy that the config names. UsageError where its options do not fit the run."""
    method = method_registry.get(config.strategy)
    setting = Setting(config.steps, config.label_budget, seed, config.demonstrations is not None)
    return method.build(resolve(method.defaults, config.strategy_options, "strategy_options"), setting)


def _load_demonstrations(config: RunConfig, worlds: DrivingVecEnv) -> Demonstrations:
    """The demonstrations that the config names. UsageError unless they fit worlds and replay."""
    assert config.demonstrations is not None
    found = load_demonstrations(config.demonstrations, config.scenario)
    found.check(worlds.observation_space.shape or (), worlds.action_space)
    if len(found) > config.sac.buffer_size:
        raise UsageError(
            f"{found.source} holds {len(found)} decisions, the replay {config.sac.buffer_size}: raise sac.buffer_size"
        )
    return found


def _check_expert(config: RunConfig, provider: PolicyProvider | None) -> None:
    """Find bad expert options before there is a folder. `provider`: who is asked in place of the named one."""
    found = provider or expert_registry.make(config.expert, config.scenario, config.expert_options, config.seed)
    try:
        if config.label_lag and not found.concurrent:
            raise UsageError(
                f"label_lag = {config.label_lag}: expert {found.name!r} cannot be asked ahead, llm can; choose 0"
            )
    finally:
        if provider is None:
            found.close()


def resume(folder: Path | str, provider: PolicyProvider | None = None, hands: Hands | None = None) -> Trainer:
    """The trainer of an existing run, at its last checkpoint (or at the start, if it never reached one)."""
    run = Run.open(folder)
    return Trainer(run, load_config(run.config, {}), provider, hands=hands)


def load_policy(run: Run) -> DiscreteSAC:
    """The trained policy of a finished run."""
    if not run.finished:
        raise UsageError(f"the run in {str(run.folder)!r} is not finished: continue it with `lgdrl train --resume`")
    torch.set_num_threads(1)
    return DiscreteSAC.load(run.policy, device="cpu")


def evaluate_run(run: Run, episodes: int, first_seed: int, overrides: Mapping[str, Any] | None = None) -> Evaluation:
    """The learner of a finished run alone, expert off, on seeds first_seed ... `overrides` change its config."""
    config = load_config(run.config, overrides or {}).resolved()
    model = load_policy(run)
    worlds = judging_worlds(config, episodes)
    try:
        found = evaluate(worlds, PolicyActor(model), range(first_seed, first_seed + episodes))
    finally:
        worlds.close()
    return found


@contextmanager
def stop_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C lets the present interval finish and saves; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(signum: int, frame: Any) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True

    previous = signal.signal(signal.SIGINT, request)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _crossed(before: int, now: int, every: int) -> bool:
    return before // every != now // every


def _integer(seed: np.random.SeedSequence) -> int:
    """A 31-bit integer of a seed sequence, for interfaces that take nothing else."""
    return int(seed.generate_state(1)[0] >> 1)


def _silent_logger() -> Any:
    from stable_baselines3.common.logger import Logger

    return Logger(folder=None, output_formats=[])
