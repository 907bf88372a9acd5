"""A whole profile: scenarios x frequencies x experts x loads, and what latency means: decisions, safety, training."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

import sim
from experts import registry
from experts.provider import PolicyProvider
from experts.serving.fault_server import FaultServer, read_mix
from lgdrl.evaluation import PolicyActor
from lgdrl.profiler import lateness, stall, training
from lgdrl.profiler.config import ExpertConfig, ProfileConfig
from lgdrl.profiler.lateness import Outcome, with_frequency
from lgdrl.profiler.load import Answered, LoadConfig, run_load
from lgdrl.profiler.metrics import MEANINGS, Cell, summarise
from lgdrl.profiler.scenes import Asked, period_of, stream
from lgdrl.profiler.stall import Recovery
from lgdrl.quality.evaluation import EvaluationConfig, ExpertEvaluation, evaluate, trivial_baselines
from lgdrl.runs import Run, fingerprint_environment
from sim.config import deep_merge, to_dict
from sim.errors import UsageError, unknown

SCHEMA, VERSION = "lgdrl-profile", 1
OVERHEAD_QUESTIONS = 500
"""Asked of an expert that answers at once: what remains is ours."""
TALKATIVE = {"stream": "always"}
"""Options of language models here, unless given: without a stream nobody knows when the first token came."""
LANGUAGE_MODEL, PERSON = "llm", "person"
USAGE = ("input", "cached_input", "output")
"""Tokens: of the prompts, those among them that the endpoint had in its prompt cache, of the answers."""
Experts = dict[str, ExpertConfig]


class Observer(Protocol):
    """Who is told how far the profile is."""

    def stage(self, text: str, total: int, deadline_s: float | None = None) -> None: ...

    def answered(self, row: Answered) -> None: ...

    def advanced(self, text: str = "") -> None: ...


@dataclass
class ExpertProfile:
    """Everything measured of one expert in one scenario."""

    name: str
    expert: str
    cold_start_s: float
    """To have it ready, from nothing: model loaded, endpoint probed."""
    note: str = ""
    endpoint: str | None = None
    network_s: float | None = None
    """Median time of a TCP handshake with the endpoint: what one way there and back costs before anybody thinks."""
    cells: list[Cell] = field(default_factory=list)
    usage: dict[str, float] = field(default_factory=dict)
    """Tokens of all loads as the endpoint counts them: `USAGE`; empty where nobody does."""
    outcomes: list[Outcome] = field(default_factory=list)
    budgets: dict[str, float | None] = field(default_factory=dict)
    """Latency budget, s, by policy."""
    recovery: Recovery | None = None
    costs: list[training.Cost] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "expert": self.expert,
            "note": self.note,
            "endpoint": self.endpoint,
            "cold_start_s": self.cold_start_s,
            "network_s": self.network_s,
            "cells": [cell.to_dict() for cell in self.cells],
            "usage": self.usage,
            "safety": [outcome.to_dict() for outcome in self.outcomes],
            "latency_budget_s": self.budgets,
            "stall": self.recovery.to_dict() if self.recovery else None,
            "training": [cost.to_dict() for cost in self.costs],
        }


@dataclass
class ScenarioProfile:
    """All experts in one scenario at one decision frequency."""

    scenario: str
    label: str
    """The scenario, with the frequency where that was asked for."""
    deadline_s: float
    experts: list[ExpertProfile]
    quality: ExpertEvaluation | None = None
    dumb: dict[str, Outcome] = field(default_factory=dict)
    """Always SLOWER, IDLE and chance in the same episodes, without latency."""

    def to_dict(self) -> dict[str, Any]:
        quality = None
        if self.quality is not None:
            quality = {"scenes": self.quality.scenes, "scores": [to_dict(score) for score in self.quality.scores]}
        return {
            "scenario": self.scenario,
            "label": self.label,
            "deadline_s": self.deadline_s,
            "experts": [expert.to_dict() for expert in self.experts],
            "quality": quality,
            "dumb": {name: outcome.to_dict() for name, outcome in self.dumb.items()},
        }


@dataclass
class Profile:
    """What `lgdrl profile` writes."""

    config: ProfileConfig
    scenarios: list[ScenarioProfile]
    overhead: Cell
    seconds: float
    served: dict[str, int] = field(default_factory=dict)
    """What the fault server did, by class; empty without one."""
    rows: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """Every question, for the CSV file."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `schema` and `version` say how to read them."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "environment": fingerprint_environment(),
            "config": to_dict(self.config),
            "meanings": MEANINGS,
            "overhead": self.overhead.to_dict(),
            "faults_served": self.served,
            "scenarios": [scenario.to_dict() for scenario in self.scenarios],
        }


def profile(config: ProfileConfig, observer: Observer, keep: Callable[[Profile], None]) -> Profile:
    """Measure what `config` names; `keep` is given what there is after each scenario. UsageError before anything is
    measured where it cannot be."""
    experts = dict(config.experts) or {LANGUAGE_MODEL: ExpertConfig()}
    for given in experts.values():
        if given.expert not in registry.available():
            raise unknown("expert", given.expert, registry.available())
    begin = time.perf_counter()
    with _faults(config, experts) as (experts, server):
        frequencies = config.frequencies or (None,)
        rows: list[dict[str, Any]] = []
        each = [_Scenario(config, name, hertz, observer, rows) for name in config.scenarios for hertz in frequencies]
        found = Profile(config, [], _overhead(config, observer), 0.0, rows=rows)
        for one in each:
            found.scenarios.append(one.profile(experts, server.freeze if server else None))
            found.seconds = time.perf_counter() - begin
            found.served = dict(server.counts) if server else {}
            keep(found)
    return found


@contextlib.contextmanager
def _faults(config: ProfileConfig, experts: Experts) -> Iterator[tuple[Experts, FaultServer | None]]:
    """The experts, with the fault server as the endpoint of the language models where one is asked for."""
    if config.faults is None:
        yield experts, None
        return

    if not any(given.expert == LANGUAGE_MODEL for given in experts.values()):
        raise UsageError(f"faults = {config.faults!r}: they come from an endpoint, so name the expert llm")
    with FaultServer(mix=read_mix(config.faults), seed=config.seed) as server:
        endpoint = {"model": "scripted", "client": {"base_url": server.url}}
        yield (
            {
                name: replace(given, options=deep_merge(endpoint, given.options))
                if given.expert == LANGUAGE_MODEL
                else given
                for name, given in experts.items()
            },
            server,
        )


class _Scenario:
    """The measurements in one scenario at one decision frequency."""

    def __init__(
        self, config: ProfileConfig, name: str, hertz: float | None, observer: Observer, rows: list[dict[str, Any]]
    ) -> None:
        self.config, self.name, self.observer, self.rows = config, name, observer, rows
        self.label = name if hertz is None else f"{name} at {hertz:g} Hz"
        self.world = with_frequency(name, config.scenario_config, hertz)
        self.deadline_s = period_of(name, config.backend, self.world)
        if config.safety.episodes:
            lateness.finest(name, self.world)

    def profile(self, experts: Mapping[str, ExpertConfig], freeze: Callable[[float], None] | None) -> ScenarioProfile:
        """`freeze` stalls the endpoint of the language models; None: there is no such thing."""
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
                questions = self._questions(settings)
                before = _usage(expert)
                for load, repeats in zip(settings.loads, questions, strict=True):
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
        return ScenarioProfile(self.name, self.label, self.deadline_s, found, quality, self._dumb())

    def _make(self, given: ExpertConfig, more: Mapping[str, Any]) -> PolicyProvider:
        options = deep_merge(TALKATIVE, given.options) if given.expert == LANGUAGE_MODEL else dict(given.options)
        return registry.make(given.expert, self.name, deep_merge(options, more), self.config.seed)

    def _rule(self) -> PolicyProvider:
        return registry.make("rule", self.name, {}, 0)

    def _stream(self, count: int) -> list[Asked]:
        config = self.config
        self.observer.stage(f"{self.label}: driving for scenes", 0)
        return stream(
            self.name, count, backend=config.backend, config=self.world, driver=config.driver, seed=config.seed
        )

    def _questions(self, settings: ProfileConfig) -> list[list[list[Asked]]]:
        """Questions by load and repeat; none is asked twice, so that no cache of an endpoint can help."""
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
        repeats: Sequence[list[Asked]],
    ) -> Cell:
        total = sum(len(questions) for questions in repeats)
        self.observer.stage(f"{self.label}: {name}, {load.name}", total, self.deadline_s)
        runs = []
        for turn, questions in enumerate(repeats):
            rng = np.random.default_rng([settings.seed, turn])
            runs.append(run_load(expert, load, questions, self.deadline_s, rng, self.observer.answered))
            named = {"scenario": self.label, "expert": name, "load": load.name, "repeat": turn}
            self.rows += [named | _row(row, k, settings.warm_up) for k, row in enumerate(runs[-1].rows)]
        return summarise(load.name, load.open, runs, settings.warm_up, self.deadline_s, settings.seed)

    def _stall(
        self, settings: ProfileConfig, name: str, expert: PolicyProvider, freeze: Callable[[float], None] | None
    ) -> Recovery:
        count = stall.questions_needed(settings.stall, self.deadline_s)
        questions = self._stream(count)
        self.observer.stage(f"{self.label}: {name}, a stall of {settings.stall.seconds:g} s", count, self.deadline_s)
        return stall.recovery(expert, freeze, questions, settings.stall, self.deadline_s, self.observer.answered)

    def _quality(self, experts: Mapping[str, ExpertConfig], opened: Sequence[PolicyProvider]) -> ExpertEvaluation:
        config = self.config
        self.observer.stage(f"{self.label}: judging decisions", 0)
        beside = [] if any(given.expert == "rule" for given in experts.values()) else [self._rule()]
        beside += trivial_baselines(config.seed)
        names = [*experts, *(expert.name for expert in beside)]
        env = sim.make_driving(self.name, backend=config.backend, config=self.world)
        episodes = config.quality.episodes
        count = min(max(episodes, 1), lateness.WORLDS)
        worlds = sim.make_driving_vec(self.name, count, backend=config.backend, config=self.world)
        try:
            settings = EvaluationConfig(scenes=config.quality.scenes, seed=config.seed, episodes=episodes)
            found = evaluate([*opened, *beside], env, settings, worlds if episodes else None)
        finally:
            env.close()
            worlds.close()
            for expert in beside:
                expert.close()
        named = [replace(score, name=name) for name, score in zip(names, found.scores, strict=True)]
        return replace(found, scores=tuple(named))

    def _safety(self, settings: ProfileConfig, one: ExpertProfile, given: ExpertConfig) -> None:
        safety, stalls = settings.safety, bool(settings.stall.seconds)
        cells = len(safety.latencies) + safety.measured + stalls
        total = sum(1 if policy == "pause" else cells for policy in safety.policies)
        self.observer.stage(f"{self.label}: {one.name}, driving late", total)
        novice = None
        if safety.novice is not None:
            from lgdrl.loops.online import load_policy

            novice = PolicyActor(load_policy(Run.open(safety.novice)))
        measured = [
            row["latency_s"]
            for row in self.rows
            if (row["scenario"], row["expert"], row["load"]) == (self.label, one.name, one.cells[0].load)
            and not row["warm_up"]
        ]
        with self._remembering(given) as expert:
            one.outcomes = lateness.curve(
                lateness.Late(expert, self.name, self.world, settings.backend, novice),
                safety,
                self.deadline_s,
                measured,
                settings.seed,
                settings.stall.seconds,
                lambda outcome: self.observer.advanced(f"{outcome.policy}, {outcome.latency}"),
            )
        one.budgets = {
            policy: lateness.budget(one.outcomes, policy, safety.tolerated_loss)
            for policy in safety.policies
            if policy != "pause"
        }

    def _dumb(self) -> dict[str, Outcome]:
        config = self.config
        if not config.safety.episodes:
            return {}
        self.observer.stage(f"{self.label}: driving without understanding", 0)
        settings = replace(config.safety, latencies=(0.0,), policies=("hold-last",), novice=None)
        return {
            expert.name: lateness.curve(
                lateness.Late(expert, self.name, self.world, config.backend),
                settings,
                self.deadline_s,
                None,
                config.seed,
            )[0]
            for expert in trivial_baselines(config.seed)
        }

    @contextlib.contextmanager
    def _remembering(self, given: ExpertConfig) -> Iterator[PolicyProvider]:
        """The expert without its own latency, for it is injected: a person's key comes at once; a language model has
        a cache, as the same scenes come again."""
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
            self.world,
            settings.backend,
            lambda more: self._make(given, {"stream": "watched", **more} if language_model else more),
            language_model,
            settings.seed,
            self.observer.advanced,
        )


def _usage(expert: PolicyProvider) -> dict[str, float]:
    counts = expert.metrics()
    return {name: counts.get(f"tokens/{name}", 0.0) for name in USAGE} if counts else {}


def _row(row: Answered, index: int, warm_up: int) -> dict[str, Any]:
    """One question for the CSV file."""
    line = row.timeline
    return {
        "question": index,
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
        "speed_m_s": row.asked.speed,
        "closing_m_s": row.asked.closing,
        "ttc_s": row.asked.ttc,
    }


def _overhead(config: ProfileConfig, observer: Observer) -> Cell:
    """What asking costs by itself: the same path with an expert that answers at once."""
    observer.stage("measuring the profiler itself", OVERHEAD_QUESTIONS)
    name = config.scenarios[0]
    questions = stream(name, OVERHEAD_QUESTIONS, backend=config.backend, config=config.scenario_config)
    load = LoadConfig(kind="constant", rate=1000.0)
    with registry.make("idle", name, {}, 0) as expert:
        run = run_load(expert, load, questions, 1.0, np.random.default_rng(0), observer.answered)
    return summarise(load.name, True, [run], 50, 1.0)


def network_s(url: str, tries: int = 5) -> float | None:
    """Median seconds of a TCP handshake with the host of `url`; None where none succeeds."""
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
