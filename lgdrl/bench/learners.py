"""`lgdrl bench learner`: gradient updates of learners side by side, interleaved in one run.

Measured is `train`, the call by which Stable-Baselines3 makes updates: batches from the replay buffer, losses, backward
passes, optimizers, targets. Every learner has two hidden layers of the same width, the same batch size and a replay
buffer of the same random transitions, and computes with one thread. Rates count updates per second of CPU time of this
process, so that the load of other processes cancels out in the ratios; within a round all learners take turns.

Ours are measured on both cores, compiled kernels (fused) and torch; beside them Stable-Baselines3 and SBX (its
algorithms on JAX, where it is installed), with the same settings and replay buffers of their own. An implementation is
compared with the first one of the same learner only: Stable-Baselines3 where it has the algorithm, else torch.
Learners differ in what an update computes: dqn has one critic and no actor, and copies its target outside of `train`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import gymnasium
import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from experts.provider import Status
from lgdrl.guidance.constraint import DualConfig
from lgdrl.guidance.records import STATUSES, Labels, Transitions
from lgdrl.guidance.strategy import Strategy
from lgdrl.guidance.terms import ConstraintTerm
from lgdrl.learners.discrete_sac import DiscreteSAC, DiscreteSACConfig
from lgdrl.learners.dqn import DQN, DQNConfig
from lgdrl.learners.guided import GuidedOffPolicy
from lgdrl.learners.sac import SAC, SACConfig
from lgdrl.learners.td3 import TD3, TD3Config
from lgdrl.memory import require_memory
from sim.bounds import Bounds, config_dataclass, spelled
from sim.errors import UsageError

INPUTS, ACTIONS, TRANSITIONS = 29, 5, 20_000
"""Numbers of an observation, discrete actions (or dimensions of a continuous one), and transitions in the buffers."""
DISCRETE, CONTINUOUS = spaces.Discrete(ACTIONS), spaces.Box(-1, 1, (ACTIONS,), np.float32)
UPDATES_PER_CALL = 8
"""Updates in one call of `train`, as in a run with default settings: 32 environments, one update per 4 decisions."""
WARM_UP_CALLS = 3
"""Calls before anything is measured: kernels are compiled in the first ones."""
PACKAGES = ("sbx-rl", "jax", "jaxlib")
"""Packages that results depend on, beside those that every result names."""
NUMBERS = 4 * (3 * 4 + 3)
"""Bytes per parameter: actor and two critics with gradient and both moments of Adam, and their targets."""
PASSES = 4 * 3 * 4
"""Bytes per hidden unit and transition: values and gradients of three networks, with room for temporary ones."""


@config_dataclass
class Size:
    """What an update computes with."""

    width: Annotated[int, Bounds(1, 65_536)]  # units of each of two hidden layers, in every network
    batch: Annotated[int, Bounds(1, TRANSITIONS)]  # transitions per update

    def __str__(self) -> str:
        return f"{self.width}/{self.batch}"


class Model(Protocol):
    """A learner, as far as it is measured. SBX has the arguments in another order: they are given by name."""

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Make updates."""
        ...


@dataclass(frozen=True)
class Subject:
    """A learner of ours, and the same algorithm in other libraries."""

    model: Callable[..., GuidedOffPolicy]
    config: Any
    """Its settings; width, batch, buffer and core are those of the contender."""
    actions: spaces.Space
    algorithm: str | None
    """Name of the class in Stable-Baselines3 and in SBX; None: they have none."""
    constrained: bool = False
    """Whether it is measured with the JS constraint of LGDRL too."""


SUBJECTS: dict[str, Subject] = {
    "discrete-sac": Subject(DiscreteSAC, DiscreteSACConfig(), DISCRETE, None, constrained=True),
    "sac": Subject(SAC, SACConfig(), CONTINUOUS, "SAC"),
    "td3": Subject(TD3, TD3Config(), CONTINUOUS, "TD3"),
    "dqn": Subject(DQN, DQNConfig(double=False), DISCRETE, "DQN"),  # Stable-Baselines3 has no double Q
}
"""What can be measured, by name."""
SHARED = ("learning_rate", "tau", "gamma")
"""Settings that have one name everywhere. The other ones have the same defaults here and in the libraries, or change
nothing about the work of an update."""


@dataclass(frozen=True)
class Contender:
    """One implementation of one learner at one size."""

    learner: str
    implementation: str
    size: Size
    open: Callable[[], Model]

    def __str__(self) -> str:
        return f"{self.learner} ({self.implementation}), {self.size}"


@dataclass(frozen=True)
class UpdateRate:
    """One row of the benchmark: medians over rounds."""

    learner: str
    implementation: str
    """torch or fused (`learner_options.core`), SB3 or SBX."""
    width: int
    """Units of each hidden layer."""
    batch: int
    """Transitions per update."""
    updates_per_cpu_s: float
    cpu_us_per_update: float
    """Microseconds."""
    reference: str
    """The implementation of the same learner and size that ratios are to."""
    ratio: float
    """Of the rates of a round."""
    ratio_low: float
    """Smallest ratio of a round."""
    ratio_high: float
    """Largest ratio of a round."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def parse_learners(text: str) -> list[str]:
    """Learners from text such as sac,td3.

    Args:
        text: Names, comma-separated.
    Returns:
        The names, in the order of the text.
    Raises:
        UsageError: A name is unknown or stands there twice.
    """
    names = text.split(",")
    for name in names:
        if name not in SUBJECTS:
            raise UsageError(f"--learner {spelled(name)}: choose from {', '.join(SUBJECTS)}")
    if len(set(names)) < len(names):
        raise UsageError(f"--learner {spelled(text)}: name each learner once")
    return names


def parse_sizes(text: str, learners: Sequence[str]) -> list[Size]:
    """Sizes from text such as 64/64,256/128, and whether they can be measured here.

    Args:
        text: WIDTH/BATCH, comma-separated.
        learners: Names of `SUBJECTS`.
    Returns:
        The sizes, in the order of the text.
    Raises:
        UsageError: It is none of that, a number is outside its range, a size stands there twice, or the learners of all
            sizes together do not fit into memory.
    """
    sizes: list[Size] = []
    for word in text.split(","):
        if not re.fullmatch(r"[0-9]{1,30}/[0-9]{1,30}", word):
            raise UsageError(f"--size {spelled(word)}: write WIDTH/BATCH, comma-separated, e.g. 64/64,256/128")
        try:
            size = Size(*map(int, word.split("/")))
        except ValueError as error:
            raise UsageError(f"--size {word}: {error}") from None
        if size in sizes:
            raise UsageError(f"--size {spelled(text)}: {size} stands there twice")
        sizes.append(size)
    require_memory({f"--size {size}": _memory(size, learners) for size in sizes})
    return sizes


def benchmark(
    learners: Sequence[str], sizes: Sequence[Size], rounds: int = 5, seconds: float = 1.0, seed: int = 0
) -> Iterator[tuple[str, list[UpdateRate]]]:
    """Measure learners at all sizes. torch has one thread from here on.

    Args:
        learners: Names of `SUBJECTS`.
        sizes: That `parse_sizes` gave.
        rounds: Over which medians are taken.
        seconds: Of wall time, at least, of each contender in each round.
        seed: Of transitions, networks and batches.
    Yields:
        What has just been done, and the rows so far, none during the warm-up; the last rows are the result.
    """
    torch.set_num_threads(1)
    transitions = _transitions(seed)
    models: dict[Contender, Model] = {}
    for size in sizes:
        for contender in _contenders(learners, size, transitions, seed):
            yield f"{contender}: compilation and warm-up", []
            models[contender] = contender.open()
            for _ in range(WARM_UP_CALLS):
                models[contender].train(gradient_steps=UPDATES_PER_CALL, batch_size=size.batch)
    rates: dict[Contender, list[float]] = {contender: [] for contender in models}
    for number in range(rounds):
        for contender, model in models.items():
            rates[contender].append(_measure(model, contender.size.batch, seconds))
            yield f"round {number + 1} of {rounds}: {contender}", _rows(rates)


def _measure(model: Model, batch: int, seconds: float) -> float:
    """Updates per CPU-second."""
    cpu, wall, updates = time.process_time(), time.perf_counter(), 0
    while not updates or time.perf_counter() - wall < seconds:
        model.train(gradient_steps=UPDATES_PER_CALL, batch_size=batch)
        updates += UPDATES_PER_CALL
    return updates / (time.process_time() - cpu)


def _rows(rates: dict[Contender, list[float]]) -> list[UpdateRate]:
    references: dict[tuple[str, Size], Contender] = {}
    rows = []
    for contender, own in rates.items():
        if not own:
            continue
        reference = references.setdefault((contender.learner, contender.size), contender)
        ratios = np.array(own) / np.array(rates[reference][: len(own)])
        rate = float(np.median(own))
        rows.append(
            UpdateRate(
                learner=contender.learner,
                implementation=contender.implementation,
                width=contender.size.width,
                batch=contender.size.batch,
                updates_per_cpu_s=rate,
                cpu_us_per_update=1e6 / rate,
                reference=reference.implementation,
                ratio=float(np.median(ratios)),
                ratio_low=float(ratios.min()),
                ratio_high=float(ratios.max()),
            )
        )
    return rows


def _memory(size: Size, learners: Sequence[str]) -> int:
    """Bytes that the contenders of a size take; rough."""
    width, contenders = size.width, sum(len(_implementations(name)) for name in learners)
    parameters = (INPUTS + ACTIONS + 1) * width + (width + 1) * width + (width + 1) * ACTIONS
    stored = TRANSITIONS * (2 * INPUTS + 4 * ACTIONS) * 4
    return contenders * (parameters * NUMBERS + size.batch * 2 * width * PASSES + stored)


# --- contenders ------------------------------------------------------------------------------------------------------


def _contenders(learners: Sequence[str], size: Size, transitions: Transitions, seed: int) -> Iterator[Contender]:
    """The contenders of one size; the first one of each learner is the reference of the others."""
    for name in learners:
        for (learner, implementation), opener in _implementations(name).items():
            yield Contender(learner, implementation, size, functools.partial(opener, size, transitions, seed))


def _implementations(name: str) -> dict[tuple[str, str], Callable[[Size, Transitions, int], Model]]:
    """What opens the implementations of a learner, by the names under which they are shown."""
    subject = SUBJECTS[name]
    found: dict[tuple[str, str], Callable[[Size, Transitions, int], Model]] = {}
    if subject.algorithm is not None:
        for library, module in _libraries().items():
            found[name, library] = functools.partial(_plain, subject, getattr(module, subject.algorithm))
    for core in ("torch", "fused"):
        found[name, core] = functools.partial(_ours, subject, core, None)
    if subject.constrained:
        for core in ("torch", "fused"):
            found[f"{name} + JS constraint", core] = functools.partial(_ours, subject, core, _constrained)
    return found


class Blank(gymnasium.Env):
    """Spaces without a world: learners are made for an environment, and nothing is stepped here.

    Args:
        action_space: Of the learner.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (INPUTS,), np.float32)

    def __init__(self, action_space: spaces.Space) -> None:
        self.action_space = action_space


def _constrained(size: Size) -> Strategy:
    """A strategy whose batch of labelled states is as large as the learner's own."""
    return Strategy(actor=[ConstraintTerm("js", size.batch, DualConfig())], needs_expert=False)


def _ours(
    subject: Subject,
    core: str,
    strategy_of: Callable[[Size], Strategy] | None,
    size: Size,
    transitions: Transitions,
    seed: int,
) -> Model:
    """A learner of ours.

    Args:
        subject: The learner.
        core: What computes its updates.
        strategy_of: Makes its strategy; None: it has none.
        size: Width and batch.
        transitions: Fill the replay buffer.
        seed: Of networks and batches.
    """
    config = dataclasses.replace(
        subject.config,
        hidden=(size.width, size.width),
        batch_size=size.batch,
        buffer_size=TRANSITIONS,
        core=core,
    )
    strategy = None if strategy_of is None else strategy_of(size)
    model = subject.model(Blank(subject.actions), config, strategy, seed=seed, device="cpu")
    model.replay.add_transitions(_stored(subject, transitions, seed))
    return _quiet(model)


def _plain(
    subject: Subject, algorithm: Callable[..., OffPolicyAlgorithm], size: Size, transitions: Transitions, seed: int
) -> Model:
    """The learner of Stable-Baselines3, or of SBX, which has the same interface and buffer.

    Args:
        subject: Whose settings it has.
        algorithm: Its class.
        size: Width and batch.
        transitions: Fill the replay buffer.
        seed: Of networks and batches.
    """
    shared: dict[str, Any] = {name: getattr(subject.config, name) for name in SHARED}
    model = algorithm(
        "MlpPolicy", Blank(subject.actions), buffer_size=TRANSITIONS, batch_size=size.batch, seed=seed, device="cpu",
        policy_kwargs={"net_arch": [size.width, size.width]}, **shared,
    )  # fmt: skip
    buffer = model.replay_buffer
    assert isinstance(buffer, ReplayBuffer)
    transitions = _stored(subject, transitions, seed)
    buffer.observations[:, 0], buffer.next_observations[:, 0] = transitions.obs, transitions.next_obs
    buffer.actions[:, 0] = transitions.actions.reshape(TRANSITIONS, -1)
    buffer.rewards[:, 0], buffer.dones[:, 0] = transitions.rewards, transitions.dones
    buffer.full = True
    return _quiet(model)


def _quiet(model: OffPolicyAlgorithm) -> Any:
    """The model with a logger that writes nowhere, as `train` needs one."""
    model.set_logger(Logger(None, []))
    return model


def _transitions(seed: int) -> Transitions:
    """Random transitions with discrete actions, all of them labelled."""
    stream = np.random.default_rng(seed)
    number, nothing = TRANSITIONS, np.zeros(TRANSITIONS, bool)
    obs, next_obs = stream.normal(size=(2, number, INPUTS)).astype(np.float32)
    actions, advice = stream.integers(ACTIONS, size=(2, number))
    legal, status = np.ones((number, ACTIONS), bool), np.full(number, STATUSES.index(Status.OK), np.int8)
    return Transitions(
        obs=obs,
        next_obs=next_obs,
        legal=legal,
        next_legal=legal,
        learner_actions=actions,
        actions=actions,
        labels=Labels(~nothing, advice, np.eye(ACTIONS, dtype=np.float32)[advice], status),
        authority=np.zeros(number, np.float32),
        reason=np.zeros(number, np.int8),
        rewards=stream.normal(size=number).astype(np.float32),
        terminated=stream.random(number) < 0.02,
        truncated=nothing,
        episodes=np.zeros(number, np.int64),
        steps=np.arange(number),
    )


def _stored(subject: Subject, transitions: Transitions, seed: int) -> Transitions:
    """The transitions; for continuous actions the same steps with random ones, without labels."""
    if subject.actions is DISCRETE:
        return transitions
    actions = np.random.default_rng(seed).uniform(-1, 1, (TRANSITIONS, ACTIONS)).astype(np.float32)
    labels = Labels.none(TRANSITIONS, CONTINUOUS)
    return dataclasses.replace(
        transitions, legal=None, next_legal=None, learner_actions=actions, actions=actions, labels=labels
    )


@functools.cache
def _libraries() -> dict[str, Any]:
    """Stable-Baselines3, and SBX, held to one thread, where it is installed."""
    with _variables(NPROC="1", JAX_PLATFORMS="cpu"):  # read by XLA when it makes its thread pools
        try:
            import jax
            import sbx
        except ImportError:
            return {"SB3": stable_baselines3}
        jax.devices()
    return {"SB3": stable_baselines3, "SBX": sbx}


@contextmanager
def _variables(**values: str) -> Iterator[None]:
    """Environment variables, set for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
