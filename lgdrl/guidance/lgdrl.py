"""LGDRL: an expert constrains the policy and sometimes drives, while the learner trains; then the learner drives alone.

LGDRL-style, as specified here (after arXiv 2412.18511, whose equations were not available): the actor minimises

    L_pi = L_0 + dual * E_labelled[ JS(pi || p_E) ],      dual <- clip(dual + eta (E[JS] - delta), 0, max)

over states where the expert gave a label, and in guided episodes the expert's action is executed where the step gate
fires. Labels are kept whether executed or not: the constraint needs labels, not take-overs. Defaults are the settings
that were measured best on the mandatory lane change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from lgdrl.guidance.constraint import DIVERGENCES, Dual, DualConfig
from lgdrl.guidance.gates import EpisodeGate, EpisodeGateConfig, StepGate, StepGateConfig
from lgdrl.guidance.registry import Method, Setting
from lgdrl.guidance.strategy import Advice, Batch, Execution, GuidanceLoss, Moment, Strategy
from lgdrl.learners.replay import GuidedReplayBuffer, GuidedSamples


@dataclass(frozen=True)
class LGDRLConfig:
    constraint: Literal["js", "kl", "reverse_kl", "bc", "none"] = "js"
    dual: DualConfig = field(default_factory=DualConfig)
    fade: tuple[float, float] | None = None  # the dual is scaled linearly to 0 between these shares of the training
    guide_batch: int = 128  # labelled states per update
    episodes: EpisodeGateConfig = field(default_factory=EpisodeGateConfig)
    gate: StepGateConfig = field(default_factory=StepGateConfig)
    label_share: float | None = None  # of the decisions in guided episodes; gate `unsafe` also asks where it fires.
    # None: all of them, or, under a label budget, as many as make it last: late labels are from better states

    def __post_init__(self) -> None:
        if self.label_share is not None and not 0 <= self.label_share <= 1:
            raise ValueError(f"label_share = {self.label_share}: choose 0 to 1")
        if self.guide_batch < 1:
            raise ValueError(f"guide_batch = {self.guide_batch}: choose at least 1")
        if self.fade is not None and not 0 <= self.fade[0] < self.fade[1]:
            raise ValueError(f"fade = {list(self.fade)}: choose [from, to] with 0 <= from < to")


class LGDRL(Strategy):
    name = "lgdrl"
    needs_expert = True

    def __init__(self, config: LGDRLConfig, setting: Setting) -> None:
        episodes, labels = setting.seed.spawn(2)
        self.config = config
        self.total_decisions = setting.total_decisions
        self.episode_gate = EpisodeGate(config.episodes, setting.total_decisions, episodes)
        self.step_gate = StepGate(config.gate)
        self.dual = Dual(config.dual)
        self.label_share = _pace(config, setting)
        self._label_stream = np.random.default_rng(labels)
        self._decisions = 0
        self._taken_over = 0

    def on_action(self, moment: Moment) -> Execution:
        self._decisions = moment.decisions
        guided = self.episode_gate.guided(moment)
        label = guided & self._labelled(len(guided))
        if self.step_gate.asks_first:
            advice = moment.ask(label)
            fires = self.step_gate.fires(moment, advice, label)
        else:
            advice = Advice.none(*moment.masks.shape)
            fires = self.step_gate.fires(moment, advice, guided)
            advice = moment.ask(label | fires, now=fires)
        intervened = fires & advice.executable & (advice.action != moment.proposals)
        self._taken_over += int(intervened.sum())
        return Execution(np.where(intervened, advice.action, moment.proposals), advice, intervened)

    def _labelled(self, num: int) -> np.ndarray:
        if self.label_share == 1.0:
            return np.ones(num, bool)
        return self._label_stream.random(num) < self.label_share

    def on_batch(self, replay: GuidedReplayBuffer, batch_size: int) -> Batch:
        guide = None if self.config.constraint == "none" else replay.sample_labelled(self.config.guide_batch)
        return Batch(replay.sample_uniform(batch_size), guide)

    def loss(self, guide: GuidedSamples, log_probs: torch.Tensor) -> GuidanceLoss:
        divergence = DIVERGENCES[self.config.constraint](log_probs, guide.expert_probs).mean()
        weight = self.dual.value * self._fading()
        measured = float(divergence.detach())
        self.dual.update(measured)
        agreement = (log_probs.detach().argmax(dim=1) == guide.expert_actions).float().mean()
        metrics = {"divergence": measured, "dual": weight, "agreement": float(agreement)}
        return GuidanceLoss(weight * divergence if weight > 0 else None, metrics=metrics)

    def _fading(self) -> float:
        if self.config.fade is None:
            return 1.0
        start, end = (share * self.total_decisions for share in self.config.fade)
        return float(np.clip((end - self._decisions) / (end - start), 0.0, 1.0))

    def metrics(self) -> dict[str, float]:
        return {"take_overs": float(self._taken_over)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "dual": self.dual.state_dict(),
            "gate": self.step_gate.state_dict(),
            "labels": self._label_stream.bit_generator.state,
            "decisions": self._decisions,
            "taken_over": self._taken_over,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dual.load_state_dict(state["dual"])
        self.step_gate.load_state_dict(state["gate"])
        self._label_stream.bit_generator.state = state["labels"]
        self._decisions, self._taken_over = state["decisions"], state["taken_over"]


def _pace(config: LGDRLConfig, setting: Setting) -> float:
    """Share of the guided decisions to label."""
    if config.label_share is not None:
        return config.label_share
    guided = config.episodes.guided_share * setting.total_decisions
    if setting.label_budget is None or guided <= setting.label_budget:
        return 1.0
    return setting.label_budget / guided


METHOD = Method(
    name="lgdrl",
    summary="SAC under a Jensen-Shannon constraint towards the expert, with intermittent take-overs",
    defaults=LGDRLConfig(),
    build=LGDRL,
)
