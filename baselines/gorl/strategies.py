"""Strategies of the offline loop: the base algorithms, cloning, and GORL on top of a base.

policy-constraint   TD3+BC with learner td3, SAC+BC with learner sac
cql                 conservative Q-learning, learner dqn
bc                  behaviour cloning of the data, or of the labels alone
gorl                one of the first two, its losses weighed sample by sample by a guiding network
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from baselines.gorl.bases import Base, base_of
from baselines.gorl.guide import Guide, GuideConfig, separation
from experts.data.transitions import NO_ORIGIN, TransitionDataset
from lgdrl.guidance.constraint import DivergenceName
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import RL, Batches
from lgdrl.guidance.terms import ImitationTerm, Networks, Terms
from lgdrl.loops.offline import OfflineSettings, OfflineStrategy, offline_method
from lgdrl.methods import Needs
from sim.bounds import BatchSize, Count, NonNegative, Positive, config_dataclass

if TYPE_CHECKING:
    from lgdrl.learners.guided import GuidedOffPolicy

LOOKED_AT = 2000
"""Transitions on which the separation of origins is measured."""
PAIRS = "pairs"
"""Name of the batch of labelled states in the constraint."""
ALPHA = {"td3": 2.5, "sac": 2.5, "dqn": 1.0}
"""Weights of improvement (TD3+BC's own) and, for CQL, of the constraint."""


@config_dataclass
class BaseConfig:
    # weight of the improvement against the constraint (td3, sac: 2.5), of the constraint (dqn: 1); null: these
    alpha: Positive | None = None
    pairs: NonNegative = 0.0  # weight of cloning the labelled states, beside the constraint towards the data
    guide_batch: BatchSize = 128  # pairs: labelled states per update
    target_every: Count = 200  # dqn: updates between synchronisations of the target network


class Constrained(OfflineStrategy):
    """A base algorithm: reinforcement learning on the data, held to the data.

    Args:
        name: Of the method.
        config: Settings.
        settings: Of the run.
        guide: Settings of a guiding network; None: every sample counts alike.
    """

    def __init__(
        self, name: str, config: BaseConfig, settings: OfflineSettings, guide: GuideConfig | None = None
    ) -> None:
        pairs = ImitationTerm("bc", config.guide_batch, config.pairs)
        pairs.name = PAIRS
        super().__init__(name, actor=[pairs] if config.pairs else [], needs_expert=False)
        self.config, self.settings, self.guide_config = config, settings, guide
        self.labels_needed = bool(config.pairs) or guide is not None
        self.interval = config.target_every if settings.learner == "dqn" else OfflineStrategy.interval
        self.base: Base
        self.guide: Guide | None = None
        self.updates = 0
        self._loss = 0.0

    def bind(self, model: GuidedOffPolicy, dataset: TransitionDataset) -> None:
        self.model, self.dataset = model, dataset
        base_seed, guide_seed, self._look_seed = self.settings.seed.spawn(3)
        alpha = self.config.alpha or ALPHA[self.settings.learner]
        self.base = base_of(model, alpha, base_seed)
        if self.guide_config is not None:
            space = model.action_space
            inputs = int(np.prod(model.observation_space.shape or ())) + int(
                getattr(space, "n", np.prod(space.shape or ()))
            )
            self.guide = Guide(self.guide_config, self.base, inputs, int(guide_seed.generate_state(1)[0]))

    def after_interval(self) -> None:
        self.base.follow()

    def critic_terms(self, batches: Batches, networks: Networks) -> Terms:
        return self._terms(batches, networks) if self.base.of_critic else Terms()

    def actor_terms(self, batches: Batches, networks: Networks) -> Terms:
        own = Terms() if self.base.of_critic else self._terms(batches, networks)
        return Terms.combined([own, super().actor_terms(batches, networks)])

    def _terms(self, batches: Batches, networks: Networks) -> Terms:
        samples = batches[RL]
        return self.base.terms(samples, networks, self._weights(samples))

    def _weights(self, samples: Samples) -> torch.Tensor | None:
        """The guide's weights of a batch, after its step where one is due; None: all 1."""
        self.updates += 1
        guide = self.guide
        if guide is None or self.updates <= guide.config.start * self.settings.total_updates:
            return None
        if self.updates % guide.config.every == 0:
            labelled = self.model.replay.sample_labelled(guide.config.batch_size)
            assert labelled is not None
            self._loss = guide.step(samples, labelled)
        return guide.weights(samples)

    def metrics(self) -> dict[str, float]:
        if self.guide is None:
            return {}
        slots = np.random.default_rng(self._look_seed).permutation(len(self.dataset))[:LOOKED_AT]
        stream = self.base.stream.bit_generator.state
        weights = self.guide.weights(self.model.replay.take(slots))[:, 1].numpy()
        self.base.stream.bit_generator.state = stream  # looking changes nothing
        found = {"guide_loss": self._loss, "constraint_weight": float(weights.mean())}
        best = _best_origin(self.dataset)
        if best is not None:
            found["separation"] = separation(weights, self.dataset.origin[slots] == best)
        return found

    def state_dict(self) -> dict[str, Any]:
        guide = None if self.guide is None else self.guide.state_dict()
        return super().state_dict() | {"updates": self.updates, "guide": guide, "loss": self._loss}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.updates, self._loss = state["updates"], state["loss"]
        if self.guide is not None:
            self.guide.load_state_dict(state["guide"])


def _best_origin(dataset: TransitionDataset) -> int | None:
    """The policy whose episodes have the highest mean return; None where all data are of one, or of none."""
    drivers, finished = dataset.drivers, dataset.finished
    known = sorted(set(drivers[finished].tolist()) - {NO_ORIGIN})
    if len(known) < 2:
        return None
    return max(known, key=lambda origin: float(dataset.returns[finished & (drivers == origin)].mean()))


@config_dataclass
class GORLConfig:
    base: BaseConfig = field(default_factory=BaseConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)


@config_dataclass
class CloneConfig:
    source: Literal["data", "labels"] = "data"  # what is cloned: all actions of the data set, or the labels alone
    loss: Literal["bc", "kl"] = "bc"  # see the divergences in docs/learners.md
    guide_batch: BatchSize = 128  # labels: labelled states per update


class Cloning(OfflineStrategy):
    """Behaviour cloning: the policy is fitted to actions, and no value has a say in it."""

    def __init__(self, config: CloneConfig) -> None:
        super().__init__("bc", needs_expert=False)
        self.config = config
        self.labels_needed = config.source == "labels"

    def on_batch(self, replay: GuidedReplayBuffer, size: int) -> Batches:
        labelled = replay.sample_labelled(self.config.guide_batch) if self.labels_needed else None
        return {RL: replay.sample_uniform(size)} | ({} if labelled is None else {PAIRS: labelled})

    def actor_terms(self, batches: Batches, networks: Networks) -> Terms:
        samples = batches[PAIRS] if self.labels_needed else _as_labels(batches[RL])
        name: DivergenceName = self.config.loss
        loss, metrics = networks.label_divergence(samples, name, 1.0)
        return Terms(loss, base_share=0.0, metrics=metrics)


def _as_labels(samples: Samples) -> Samples:
    """Samples whose executed actions count as labels."""
    if samples.legal is None:
        return samples.replace(label_actions=samples.actions)
    probs = torch.nn.functional.one_hot(samples.actions, samples.legal.shape[1]).float()
    return samples.replace(label_actions=samples.actions, label_probs=probs)


POLICY_CONSTRAINT = offline_method(
    "policy-constraint",
    "offline: TD3+BC (learner td3), SAC+BC (learner sac) on a data set",
    BaseConfig(),
    lambda config, settings: Constrained("policy-constraint", config, settings),
    Needs(actions=("continuous",), learners=("td3", "sac"), expert=False),
)
CQL = offline_method(
    "cql",
    "offline: conservative Q-learning on a data set",
    BaseConfig(),
    lambda config, settings: Constrained("cql", config, settings),
    Needs(actions=("discrete",), learners=("dqn",), expert=False),
)
CLONE = offline_method(
    "bc",
    "offline: behaviour cloning of a data set, or of its labels",
    CloneConfig(),
    lambda config, settings: Cloning(config),
    Needs(learners=("td3", "sac", "discrete-sac"), expert=False),
)
GORL = offline_method(
    "gorl",
    "offline: a guiding network weighs each sample by a few expert labels",
    GORLConfig(),
    lambda config, settings: Constrained("gorl", config.base, settings, config.guide),
    Needs(learners=("td3", "sac", "dqn"), expert=False),
)
