"""The measurements of a profile in one scenario: latency, stall, quality, safety and training of every expert."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

import sim
from experts import registry
from experts.provider import PolicyProvider
from lgdrl.evaluation import PolicyActor
from lgdrl.profiler import safety, stall, training
from lgdrl.profiler.config import ExpertConfig, ProfileConfig
from lgdrl.profiler.frequency import finest, with_frequency
from lgdrl.profiler.lateness import NUM_ENVS, Late, LatencyOutcome
from lgdrl.profiler.load import LoadConfig, TimedQuery, run_load
from lgdrl.profiler.metrics import ProfileCell, summarise
from lgdrl.profiler.result import USAGE, ExpertProfile, ScenarioProfile
from lgdrl.profiler.scenes import SceneQuery, period_of, stream
from lgdrl.profiler.stall import Recovery
from lgdrl.quality.evaluation import EvaluationConfig, ExpertEvaluation, evaluate, trivial_baselines
from lgdrl.runs import Run
from sim.config import deep_merge

TALKATIVE = {"stream": "always"}
"""Options of language models here, unless given: only a stream shows when the first token came."""
LANGUAGE_MODEL, PERSON = "llm", "person"


class Observer(Protocol):
    """Follows the progress of a profile."""

    def stage(self, text: str, total: int, deadline_s: float | None = None) -> None:
        """A part of the profile begins, with `total` queries or steps."""
        ...

    def answered(self, row: TimedQuery) -> None:
        """A query has its response; called from the threads that send queries."""
        ...

    def advanced(self, text: str = "") -> None:
        """One step of the part is done."""
        ...


class ScenarioMeasurement:
    """The measurements in one scenario at one decision frequency.

    Args:
        config: Of the profile.
        name: Of the scenario.
        hertz: Decisions per second; None: the scenario's own.
        observer: Follows the progress.
        rows: Every query is appended here, for the CSV file.
    """

    def __init__(
        self, config: ProfileConfig, name: str, hertz: float | None, observer: Observer, rows: list[dict[str, Any]]
    ) -> None:
        self.config, self.name, self.observer, self.rows = config, name, observer, rows
        self.label = name if hertz is None else f"{name} at {hertz:g} Hz"
        self.scenario_config = with_frequency(name, config.scenario_config, hertz)
        self.deadline_s = period_of(name, config.backend, self.scenario_config)
        if config.safety.episodes:
            finest(name, self.scenario_config)

    def profile(self, experts: Mapping[str, ExpertConfig], freeze: Callable[[float], None] | None) -> ScenarioProfile:
        """Measure everything.

        Args:
            experts: By name.
            freeze: Stalls the endpoint of the language models for a number of seconds; None: it cannot be stalled.
        """
        found: list[ExpertProfile] = []
        with ExitStack() as stack:
            opened: list[PolicyProvider] = []
            for name, given in experts.items():
                settings = self.config.of(name, given)
                self.observer.stage(f"{self.label}: starting {name}", 0)
                begin = time.perf_counter()
                expert = stack.enter_context(self._make(given, {}))
                one = ExpertProfile(
                    name=name,
                    expert=given.expert,
                    cold_start_s=time.perf_counter() - begin,
                    note=expert.note,
                    endpoint=expert.endpoint,
                    network_s=network_s(expert.endpoint) if expert.endpoint else None,
                )
                opened.append(expert)
                found.append(one)
                queries = self._queries(settings)
                before = _usage(expert)
                for load, repeats in zip(settings.loads, queries, strict=True):
                    one.cells.append(self._cell(settings, name, expert, load, repeats))
                one.usage = {name: count - before[name] for name, count in _usage(expert).items()}
                if settings.stall.seconds:
                    own = freeze if given.expert == LANGUAGE_MODEL else None
                    one.recovery = self._stall(settings, name, expert, own)
            quality = self._quality(experts, opened) if self.config.quality.scenes else None
            for one, given in zip(found, experts.values(), strict=True):
                settings = self.config.of(one.name, given)
                if settings.safety.episodes:
                    self._safety(settings, one, given)
                if settings.training.decisions:
                    self._training(settings, one, given)
        return ScenarioProfile(self.name, self.label, self.deadline_s, found, quality, self._trivial())

    def _make(self, given: ExpertConfig, more: Mapping[str, Any]) -> PolicyProvider:
        options = deep_merge(TALKATIVE, given.options) if given.expert == LANGUAGE_MODEL else dict(given.options)
        return registry.make(given.expert, self.name, deep_merge(options, more), self.config.seed)

    def _stream(self, count: int) -> list[SceneQuery]:
        config = self.config
        self.observer.stage(f"{self.label}: driving for scenes", 0)
        return stream(
            self.name,
            count,
            backend=config.backend,
            config=self.scenario_config,
            driver=config.driver,
            seed=config.seed,
        )

    def _queries(self, settings: ProfileConfig) -> list[list[list[SceneQuery]]]:
        """Queries by load and repeat; none is sent twice, so that no cache of an endpoint can help."""
        each, turns = settings.warm_up + settings.decisions, len(settings.loads) * settings.repeats
        scenes = self._stream(each * turns)
        parts = [scenes[k * each : (k + 1) * each] for k in range(turns)]
        return [parts[k * settings.repeats : (k + 1) * settings.repeats] for k in range(len(settings.loads))]

    def _cell(
        self,
        settings: ProfileConfig,
        name: str,
        expert: PolicyProvider,
        load: LoadConfig,
        repeats: Sequence[list[SceneQuery]],
    ) -> ProfileCell:
        total = sum(len(queries) for queries in repeats)
        self.observer.stage(f"{self.label}: {name}, {load.name}", total, self.deadline_s)
        runs = []
        for turn, queries in enumerate(repeats):
            rng = np.random.default_rng([settings.seed, turn])
            runs.append(run_load(expert, load, queries, self.deadline_s, rng, self.observer.answered))
            named = {"scenario": self.label, "expert": name, "load": load.name, "repeat": turn}
            self.rows += [named | _row(row, k, settings.warm_up) for k, row in enumerate(runs[-1].rows)]
        return summarise(load.name, load.open, runs, settings.warm_up, self.deadline_s, settings.seed)

    def _stall(
        self, settings: ProfileConfig, name: str, expert: PolicyProvider, freeze: Callable[[float], None] | None
    ) -> Recovery:
        count = stall.queries_needed(settings.stall, self.deadline_s)
        queries = self._stream(count)
        self.observer.stage(f"{self.label}: {name}, a stall of {settings.stall.seconds:g} s", count, self.deadline_s)
        return stall.recovery(expert, freeze, queries, settings.stall, self.deadline_s, self.observer.answered)

    def _quality(self, experts: Mapping[str, ExpertConfig], opened: Sequence[PolicyProvider]) -> ExpertEvaluation:
        config = self.config
        self.observer.stage(f"{self.label}: quality of decisions", 0)
        evaluated: list[PolicyProvider] = list(opened)
        names = list(experts)
        if all(given.expert != "rule" for given in experts.values()):
            evaluated.append(registry.make("rule", self.name, {}, 0))
            names.append("rule")
        trivial = trivial_baselines(config.seed)
        evaluated += trivial
        names += [expert.name for expert in trivial]
        env = sim.make_driving(self.name, backend=config.backend, config=self.scenario_config)
        episodes = config.quality.episodes
        count = min(max(episodes, 1), NUM_ENVS)
        envs = sim.make_driving_vec(self.name, count, backend=config.backend, config=self.scenario_config)
        try:
            settings = EvaluationConfig(scenes=config.quality.scenes, seed=config.seed, episodes=episodes)
            found = evaluate(evaluated, env, settings, envs if episodes else None)
        finally:
            env.close()
            envs.close()
        named = [replace(score, name=name) for name, score in zip(names, found.scores, strict=True)]
        return replace(found, scores=tuple(named))

    def _safety(self, settings: ProfileConfig, one: ExpertProfile, given: ExpertConfig) -> None:
        late, stalls = settings.safety, bool(settings.stall.seconds)
        cells = len(late.latencies) + late.measured + stalls
        total = sum(1 if policy == "pause" else cells for policy in late.policies)
        self.observer.stage(f"{self.label}: {one.name}, driving late", total)
        novice = None
        if late.novice is not None:
            from lgdrl.loops.online import load_policy

            novice = PolicyActor(load_policy(Run.open(late.novice)))
        measured = [
            row["latency_s"]
            for row in self.rows
            if (row["scenario"], row["expert"], row["load"]) == (self.label, one.name, one.cells[0].load)
            and not row["warm_up"]
        ]
        with self._without_latency(given) as expert:
            one.outcomes = safety.curve(
                Late(expert, self.name, self.scenario_config, settings.backend, novice),
                late,
                self.deadline_s,
                measured,
                settings.seed,
                settings.stall.seconds,
                lambda outcome: self.observer.advanced(f"{outcome.policy}, {outcome.latency}"),
            )
        one.budgets = {
            policy: safety.budget(one.outcomes, policy, late.tolerated_loss)
            for policy in late.policies
            if policy != "pause"
        }

    def _trivial(self) -> dict[str, LatencyOutcome]:
        config = self.config
        if not config.safety.episodes:
            return {}
        self.observer.stage(f"{self.label}: trivial baselines", 0)
        settings = replace(config.safety, latencies=(0.0,), policies=("hold-last",), novice=None)
        return {
            expert.name: safety.curve(
                Late(expert, self.name, self.scenario_config, config.backend),
                settings,
                self.deadline_s,
                None,
                config.seed,
            )[0]
            for expert in trivial_baselines(config.seed)
        }

    @contextlib.contextmanager
    def _without_latency(self, given: ExpertConfig) -> Iterator[PolicyProvider]:
        """The expert without its own latency, because latency is injected: a person's key comes at once; a language
        model has a cache, because the same scenes come again."""
        with tempfile.TemporaryDirectory(prefix="lgdrl-profile-") as folder:
            cache = {"cache": {"mode": "read-write", "path": str(Path(folder) / "answers.sqlite")}}
            swift: dict[str, dict[str, Any]] = {
                LANGUAGE_MODEL: {"stream": "never", **cache},
                PERSON: {"real_time": False},
            }
            with self._make(given, swift.get(given.expert, {})) as expert:
                yield expert

    def _training(self, settings: ProfileConfig, one: ExpertProfile, given: ExpertConfig) -> None:
        language_model = given.expert == LANGUAGE_MODEL
        self.observer.stage(f"{self.label}: {one.name}, training", training.variants(language_model))
        one.costs = training.costs(
            settings.training,
            self.name,
            self.scenario_config,
            settings.backend,
            lambda more: self._make(given, {"stream": "watched", **more} if language_model else more),
            language_model,
            settings.seed,
            self.observer.advanced,
        )


def _usage(expert: PolicyProvider) -> dict[str, float]:
    counts = expert.metrics()
    return {name: counts.get(f"tokens/{name}", 0.0) for name in USAGE} if counts else {}


def _row(row: TimedQuery, index: int, warm_up: int) -> dict[str, Any]:
    """One query for the CSV file."""
    line = row.timeline
    return {
        "query": index,
        "warm_up": index < warm_up,
        "car": row.car,
        "intended_s": row.intended,
        "sent_s": row.sent,
        "done_s": row.done,
        "latency_s": row.latency,
        "ttft_s": line.first_token - line.sent if line and line.first_token and line.sent else None,
        "status": row.status.value,
        "action": row.action,
        "accepted": row.accepted,
        "tokens": row.tokens,
        "cost": row.cost,
        "faults": " ".join(row.faults),
        "speed_m_s": row.query.speed,
        "closing_m_s": row.query.closing,
        "ttc_s": row.query.ttc,
    }


def network_s(url: str, tries: int = 5) -> float | None:
    """Median time of a TCP handshake.

    Args:
        url: Its host and port.
        tries: Number of handshakes.
    Returns:
        Seconds; None where none succeeds.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    taken = []
    for _ in range(tries):
        begin = time.perf_counter()
        try:
            with socket.create_connection((parts.hostname or "", port), timeout=2.0):
                taken.append(time.perf_counter() - begin)
        except OSError:
            continue
    return float(np.median(taken)) if taken else None
