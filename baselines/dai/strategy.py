"""DAI: expert and learner act together, and the learner's share of the action grows until it acts alone.

DAI-style, as specified here (after W. Cao, "Dynamic Action Interpolation", arXiv 2504.18766, whose method section was
not available). With the expert's action a_E, the learner's a_L (exploration included) and its share alpha:

    a = (1 - alpha(t)) a_E + alpha(t) a_L

The executed action a is what the replay buffer keeps; losses and targets are those of the learner. Once alpha is 1 this
is the learner itself with a buffer that is not empty. Discrete actions are handed over, not mixed.

    labeller   none of its own: the arbiter asks where the expert has a share    `NoPlan`
    arbiter    `Blend` (continuous) or `HandOver` (discrete, PPO), with an `Authority`
    terms      none; options add cloning of the labels and batches that favour steps under guidance

Two returns belong to a run, and are kept apart: `rollout/executed_return` of the training's episodes, which the expert
has a share in (`guidance/alpha` stands beside it), and that of the learning curve, the learner alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

import numpy as np

from lgdrl.guidance.arbiters import Arbiter
from lgdrl.guidance.authority import Agreement, Authority, Curve, FirstSteps, Performance, Scheduled
from lgdrl.guidance.interpolation import Blend, HandOver
from lgdrl.guidance.labelling import Labeller
from lgdrl.guidance.records import Labels, LearnerInfo, StepContext, Transitions
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import RL, Batches, Strategy
from lgdrl.guidance.terms import ImitationTerm
from lgdrl.loops.online import OnlineSettings, online_method
from lgdrl.methods import Needs
from sim.bounds import BatchSize, Bounds, Count, NonNegative, Positive, Share, config_dataclass
from sim.errors import UsageError


@config_dataclass
class AuthorityConfig:
    """How the expert's share changes."""

    # linear, cosine, exponential: from initial to final; constant: initial, then final; first-steps: the expert
    # alone at the start of every episode; performance, agreement: as the learner's own returns or actions allow
    kind: Literal["linear", "cosine", "exponential", "constant", "first-steps", "performance", "agreement"] = "linear"
    # of the training's decisions that the schedule takes; a gate that is still closed then gives way. Short: while the
    # expert has a share, the learner does not see what its own actions lead to
    until: Share = 0.1
    initial: Share = 1.0  # curves: the expert's share at the start ...
    final: Share = 0.0  # ... and from the end of the schedule on
    steps: Count = 100  # first-steps: of each episode at the start of the training
    fraction: Annotated[float, Bounds(0, 1, open_low=True)] = 0.8  # gates: of the expert's return, or of labels
    probe_every: Annotated[int, Bounds(2)] = 4  # performance: one episode of so many is the learner's alone
    window: Count = 5  # performance: episodes of each mean
    labels: Count = 500  # agreement: time constant of the moving average


@config_dataclass
class DAIConfig:
    authority: AuthorityConfig = field(default_factory=AuthorityConfig)
    # null: blend where actions are continuous and the learner is off-policy, step elsewhere
    form: Literal["blend", "step", "segment", "mixture"] | None = None
    switched: tuple[Annotated[int, Bounds(0)], ...] = ()  # blend: dimensions that are handed over, e.g. steering
    segment: Count = 10  # segment: steps of an episode that one draw counts for
    temperature: Positive = 1.0  # mixture: of the softmax over the critics' values, units of return
    store: Literal["executed", "learner"] = "executed"  # learner: an ablation, which teaches critics a false model
    symmetric: Annotated[float, Bounds(0, 1, open_high=True)] = (
        0.0  # of every batch, from steps with a share of the expert
    )
    imitation: NonNegative = 0.0  # weight of cloning the labels that were given
    guide_batch: BatchSize = 128  # imitation: labelled states per update


class NoPlan(Labeller):
    """Wants no label by itself; the arbiter may ask in every step."""

    def select(self, context: StepContext) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(context.num_envs, bool), np.ones(context.num_envs, bool)


class Until(Authority):
    """`inner` until so many decisions have been made, then the learner alone."""

    def __init__(self, inner: Authority, decisions: float) -> None:
        self.inner, self.decisions = inner, decisions

    def attach(self, learner: LearnerInfo) -> None:
        self.inner.attach(learner)

    def on_labels(self, context: StepContext, labels: Labels) -> None:
        self.inner.on_labels(context, labels)

    def on_store(self, transitions: Transitions) -> None:
        self.inner.on_store(transitions)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)

    def share(self, context: StepContext) -> np.ndarray:
        if context.decisions >= self.decisions:
            return np.zeros(context.num_envs, np.float32)
        return self.inner.share(context)


class DAI(Strategy):
    """Shared control; options change what is stored and what a batch is made of."""

    def __init__(self, config: DAIConfig, arbiter: Arbiter) -> None:
        terms = [ImitationTerm("bc", config.guide_batch, config.imitation)] if config.imitation else []
        super().__init__("dai", NoPlan(), arbiter, terms)
        self.store, self.symmetric = config.store, config.symmetric

    def on_store(self, transitions: Transitions) -> Transitions:
        transitions = super().on_store(transitions)
        if self.store == "executed":
            return transitions
        return dataclasses.replace(transitions, actions=transitions.learner_actions)

    def on_batch(self, replay: GuidedReplayBuffer, size: int) -> Batches:
        guided = int(size * self.symmetric)
        shown = replay.sample_intervened(guided) if guided else None
        if shown is None:
            return super().on_batch(replay, size)
        own = replay.sample_uniform(size - len(shown))
        return {RL: Samples.concatenate([shown, own]), **self.term_batches(replay)}


def _authority(config: AuthorityConfig, decisions: float) -> Authority:
    """The schedule or gate of a config, over so many decisions."""
    if config.kind == "first-steps":
        return FirstSteps(config.steps, decisions)
    if config.kind == "performance":
        return Until(Performance(config.fraction, config.probe_every, config.window), decisions)
    if config.kind == "agreement":
        return Until(Agreement(config.fraction, config.labels), decisions)
    curve: Curve = config.kind
    return Scheduled(curve, config.initial, config.final, decisions)


def build(config: DAIConfig, settings: OnlineSettings) -> Strategy:
    """The strategy of a run. UsageError for options that do not fit each other or the learner."""
    authority = _authority(config.authority, config.authority.until * settings.total_decisions)
    form = config.form or ("blend" if settings.continuous and not settings.on_policy else "step")
    if settings.on_policy and (config.symmetric or config.store == "learner"):
        raise UsageError(
            "strategy_options.symmetric, store: this learner has no replay buffer, and leaves out the steps of the "
            "expert: choose symmetric = 0 and store = 'executed'"
        )
    if form == "blend":
        return DAI(config, Blend(authority, config.switched))
    if config.switched:
        raise UsageError(f"strategy_options.switched: form {form!r} hands over whole actions: leave it out")
    (seed,) = settings.seed.spawn(1)
    return DAI(config, HandOver(authority, form, seed, config.segment, config.temperature))


METHOD = online_method(
    "dai", "dynamic action interpolation: the expert's share of each action fades", DAIConfig(), build, Needs()
)
