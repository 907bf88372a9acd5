"""A whole profile: scenarios x frequencies x experts x loads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from experts import registry
from experts.serving.fault_server import FaultServer, read_mix
from lgdrl.profiler.config import ExpertConfig, ProfileConfig
from lgdrl.profiler.load import LoadConfig, run_load
from lgdrl.profiler.machine import LoadWatch
from lgdrl.profiler.measurement import LANGUAGE_MODEL, Observer, ScenarioMeasurement
from lgdrl.profiler.metrics import ProfileCell, summarise
from lgdrl.profiler.result import Profile
from lgdrl.profiler.scenes import stream
from sim.config import deep_merge
from sim.errors import UsageError, unknown

OVERHEAD_QUERIES = 500
"""Sent to an expert that decides at once: what remains is the profiler's own time."""
Experts = dict[str, ExpertConfig]


def profile(config: ProfileConfig, observer: Observer, keep: Callable[[Profile], None]) -> Profile:
    """Measure experts in scenarios under loads.

    Args:
        config: What is measured.
        observer: Follows the progress.
        keep: Called with the profile so far after each scenario.
    Raises:
        UsageError: Something in `config` cannot be measured; nothing has been measured then.
    """
    experts = dict(config.experts) or {LANGUAGE_MODEL: ExpertConfig()}
    for given in experts.values():
        if given.expert not in registry.available():
            raise unknown("expert", given.expert, registry.available())
    begin, watch = time.perf_counter(), LoadWatch()
    with _faults(config, experts) as (experts, server):
        frequencies = config.frequencies or (None,)
        rows: list[dict[str, Any]] = []
        each = [
            ScenarioMeasurement(config, name, hertz, observer, rows)
            for name in config.scenarios
            for hertz in frequencies
        ]
        found = Profile(config, [], _overhead(config, observer), 0.0, watch.load(), rows=rows)
        for one in each:
            found.scenarios.append(one.profile(experts, server.freeze if server else None))
            found.seconds, found.machine = time.perf_counter() - begin, watch.load()
            found.served = dict(server.counts) if server else {}
            keep(found)
    return found


@contextlib.contextmanager
def _faults(config: ProfileConfig, experts: Experts) -> Iterator[tuple[Experts, FaultServer | None]]:
    """The experts, with the fault server as the endpoint of the language models where `config` names one."""
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


def _overhead(config: ProfileConfig, observer: Observer) -> ProfileCell:
    """The profiler's own time per query: the same path with an expert that decides at once."""
    observer.stage("measuring the profiler itself", OVERHEAD_QUERIES)
    name = config.scenarios[0]
    queries = stream(name, OVERHEAD_QUERIES, backend=config.backend, config=config.scenario_config)
    load = LoadConfig(kind="constant", rate=1000.0)
    expert = registry.make("idle", name, {}, 0)
    run = run_load(expert, load, queries, 1.0, np.random.default_rng(0), observer.answered)
    return summarise(load.name, True, [run], 50, 1.0)
