"""`lgdrl bench sim`: simulators side by side on one scenario, interleaved in one run.

Every simulator steps the same scenario under the same policy, resets included, for a slice of time per round; the rate
is the median over rounds. Rates count decisions per second of CPU time, of this process and its children, so that the
load of other processes cancels out in the ratios.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

import sim
from sim.actions import MetaAction
from sim.config import resolve
from sim.engine.factory import make_batch
from sim.errors import UsageError
from sim.scenarios import Scenario

SIZES = (1, 64, 1024)
ENVPOOL_TASKS = {"highway-v0": "Highway-v0", "highway-fast-v0": "HighwayFast-v0"}
POLICIES = ("random", "slower")

Stepper = Callable[[], int]
"""Makes some decisions, resets included, and returns how many."""


@dataclass(frozen=True)
class Contender:
    """One simulator at one batch size."""

    name: str
    num_envs: int
    threads: int
    open: Callable[[], AbstractContextManager[Stepper]]


@dataclass(frozen=True)
class Speed:
    """One row of the benchmark: medians over rounds."""

    scenario: str
    simulator: str
    num_envs: int
    threads: int
    decisions_per_cpu_s: float
    decisions_per_s: float
    ratio: float
    """To highway-env, in CPU time."""
    ns_per_vehicle_substep: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check(names: Sequence[str], policy: str, threads: int) -> None:
    """Check settings before anything is measured.

    Args:
        names: Scenarios.
        policy: One of `POLICIES`.
        threads: Of the parallel engine.
    Raises:
        UsageError: Something cannot be measured.
    """
    if policy not in POLICIES:
        raise UsageError(f"policy {policy!r}: choose {' or '.join(POLICIES)}")
    for name in names:
        scenario = sim.get(name)
        if "engine" not in scenario.backends:
            raise UsageError(f"scenario {name!r} is not on the engine: `lgdrl list scenarios` shows those that are")
        batch = make_batch(scenario, scenario.defaults, 1, threads)
        if policy == "slower" and MetaAction.SLOWER not in batch.manoeuvres:
            raise UsageError(f"policy 'slower': scenario {name!r} has no such action: choose random")


def benchmark(
    name: str, policy: str = "random", rounds: int = 3, seconds: float = 2.0, seed: int = 0, threads: int = 2
) -> Iterator[tuple[str, list[Speed]]]:
    """Measure all simulators on one scenario.

    Args:
        name: Scenario that passes `check`.
        policy: random | slower (always brakes, so that episodes last).
        rounds: Over which medians are taken.
        seconds: Of each simulator in each round.
        seed: Of environments and actions.
        threads: Of the parallel engine.
    Yields:
        What has just been measured, and the rows so far; the last rows are the result.
    """
    scenario = sim.get(name)
    load = _load(scenario)
    contenders = list(_contenders(scenario, policy, seed, threads))
    samples: dict[Contender, list[tuple[float, float]]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            samples[contender].append(_measure(contender, seconds))
            yield f"{name}: {contender.name}, N = {contender.num_envs}", _rows(name, samples, load)


def _rows(name: str, samples: dict[Contender, list[tuple[float, float]]], load: float) -> list[Speed]:
    rates = {contender: np.median(values, axis=0) for contender, values in samples.items() if values}
    reference = next(iter(rates.values()))[0]
    return [
        Speed(
            scenario=name,
            simulator=contender.name,
            num_envs=contender.num_envs,
            threads=contender.threads,
            decisions_per_cpu_s=float(cpu),
            decisions_per_s=float(wall),
            ratio=float(cpu / reference),
            ns_per_vehicle_substep=float(1e9 / (cpu * load)),
        )
        for contender, (cpu, wall) in rates.items()
    ]


def _load(scenario: Scenario) -> float:
    """Vehicle-substeps per decision."""
    batch = make_batch(scenario, scenario.defaults, 32)
    batch.seed(range(32), list(range(32)))
    batch.reset()
    return batch.vehicles * batch.substeps


def _measure(contender: Contender, seconds: float) -> tuple[float, float]:
    """(decisions per CPU-second, per second)."""
    with contender.open() as step:
        step()
        cpu, wall, decisions = _cpu(), time.perf_counter(), 0
        while time.perf_counter() - wall < seconds:
            decisions += step()
        return decisions / (_cpu() - cpu), decisions / (time.perf_counter() - wall)


def _cpu() -> float:
    """CPU seconds of this process and of its living descendants."""
    spent: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has just ended
        pid, parent = int(path.parent.name), int(fields[1])
        spent[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        children.setdefault(parent, []).append(pid)
    total, queue = time.process_time(), list(children.get(os.getpid(), ()))
    while queue:
        pid = queue.pop()
        total += spent[pid]
        queue += children.get(pid, ())
    return total


# --- contenders ------------------------------------------------------------------------------------------------------


def _contenders(scenario: Scenario, policy: str, seed: int, threads: int) -> Iterator[Contender]:
    def reference(workers: int, count: int) -> Callable[[], AbstractContextManager[Stepper]]:
        return lambda: _sb3(scenario, "highway-env", count, workers, policy, seed)

    yield Contender("highway-env", 1, 1, reference(0, 1))
    yield Contender("highway-env, 2 processes", 2, 2, reference(2, 2))
    if _envpool() and scenario.name in ENVPOOL_TASKS:
        yield Contender("EnvPool", 64, 1, lambda: _on_envpool(scenario, 64, policy, seed))
    for count in SIZES:
        yield Contender("engine", count, 1, functools.partial(_native, scenario, count, 1, policy, seed))
    if threads > 1:
        yield Contender("engine", SIZES[-1], threads, lambda: _native(scenario, SIZES[-1], threads, policy, seed))
    yield Contender("engine behind SB3", 64, 1, lambda: _sb3(scenario, "engine", 64, 0, policy, seed))


def _actions(scenario: Scenario, policy: str, count: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of actions, drawn beforehand so that drawing is not measured."""
    rng, batch = np.random.default_rng(seed), make_batch(scenario, scenario.defaults, 1)
    space = batch.action_space
    if policy == "slower":
        pool = [np.full(count, batch.manoeuvres.index(MetaAction.SLOWER))]
    elif isinstance(space, spaces.Discrete):
        pool = [rng.integers(0, space.n, count) for _ in range(256)]
    else:
        pool = [rng.uniform(-1, 1, (count, *space.shape)).astype(np.float32) for _ in range(256)]
    while True:
        yield from pool


@contextmanager
def _native(scenario: Scenario, count: int, threads: int, policy: str, seed: int) -> Iterator[Stepper]:
    """The engine's own interface."""
    batch = make_batch(scenario, resolve(scenario.defaults), count, threads)
    batch.seed(range(count), [seed + i for i in range(count)])
    batch.reset()
    actions = _actions(scenario, policy, count, seed)

    def step() -> int:
        batch.step(next(actions))
        ended = np.flatnonzero(batch.terminated | batch.truncated)
        if ended.size:
            batch.reset(ended)
        return count

    yield step


@contextmanager
def _sb3(scenario: Scenario, backend: str, count: int, workers: int, policy: str, seed: int) -> Iterator[Stepper]:
    envs = sim.make_vec(scenario.name, count, seed=seed, backend=backend, workers=workers)
    envs.reset()
    actions = _actions(scenario, policy, count, seed)

    def step() -> int:
        envs.step(next(actions))
        return count

    try:
        yield step
    finally:
        envs.close()


def _envpool() -> Any:
    try:
        import envpool
    except ImportError:
        return None
    return envpool


@contextmanager
def _on_envpool(scenario: Scenario, count: int, policy: str, seed: int) -> Iterator[Stepper]:
    task = ENVPOOL_TASKS[scenario.name]
    pool = _envpool().make(task, env_type="gymnasium", num_envs=count, num_threads=1, seed=seed)
    pool.reset()
    actions = _actions(scenario, policy, count, seed)

    def step() -> int:
        pool.step(next(actions).astype(np.int32))
        return count

    yield step
    pool.close()
