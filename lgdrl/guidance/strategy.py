"""The integration contract: how a method uses an expert while a learner trains.

A strategy is composed of parts, and each part is a file that other methods share:

    labeller    which states the expert is asked about        (`lgdrl.guidance.labelling`)
    arbiter     who controls the environment                  (`lgdrl.guidance.arbiters`)
    terms       what is added to the learner's losses         (`lgdrl.guidance.terms`)

`Strategy` calls them from five hooks: `on_action`, `on_store`, `on_batch`, `critic_terms` and `actor_terms`, with
`on_update` after each gradient step. A method passes its parts and overrides the hooks that it needs. Without parts it
is plain reinforcement learning, bit for bit.

Shapes: N environments, A actions, B sampled transitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lgdrl.guidance.arbiters import Arbiter, LearnerDrives
from lgdrl.guidance.labelling import Labeller, NoLabels
from lgdrl.guidance.records import Execution, LearnerInfo, Reason, StepContext, Transitions
from lgdrl.guidance.terms import ActorTerm, Networks, Terms

if TYPE_CHECKING:
    from lgdrl.guidance.replay import GuidedReplayBuffer, Samples

RL = "rl"
"""Name of the batch that feeds the learner's own losses."""
Batches = dict[str, "Samples"]
"""Named batches of one gradient step; `RL` is always there."""


class Strategy:
    """Reinforcement learning with the given parts; without parts, without an expert.

    Args:
        name: Name of the method.
        labeller: Which states the expert labels. None: none.
        arbiter: Who controls the environment. None: the learner.
        actor: Terms of the actor's loss.
        needs_expert: Whether the run has to have an expert. None: where there is a labeller or an arbiter.
    """

    def __init__(
        self,
        name: str = "none",
        labeller: Labeller | None = None,
        arbiter: Arbiter | None = None,
        actor: Sequence[ActorTerm] = (),
        needs_expert: bool | None = None,
    ) -> None:
        self.name = name
        self.needs_expert = (labeller or arbiter) is not None if needs_expert is None else needs_expert
        self.labeller: Labeller = labeller or NoLabels()
        self.arbiter: Arbiter = arbiter or LearnerDrives()
        self.actor = tuple(actor)
        self.interventions = 0
        """Steps so far in which the expert had a share of control; a person is counted by its own arbiter."""

    def attach(self, learner: LearnerInfo) -> None:
        """Learn about the learner, before the first step. Raises UsageError in one line for what is not supported."""
        self.arbiter.attach(learner)
        for term in self.actor:
            term.attach(learner)

    def on_action(self, context: StepContext) -> Execution:
        """Choose what is executed: ask where the labeller or the arbiter needs it, then let the arbiter decide.

        A method that overrides this has to let `self.arbiter` decide too, because a person who may take over is an
        arbiter around it.
        """
        for term in self.actor:
            term.on_step(context.decisions)
        wanted, allowed = self.labeller.select(context)
        now = self.arbiter.requires(context, wanted, allowed)
        labels = context.ask(wanted | now, now=now) if self.needs_expert else context.no_labels()
        execution = self.arbiter.decide(context, labels, allowed)
        self.interventions += int((execution.intervened & (execution.reason != Reason.PERSON)).sum())
        return execution

    def on_store(self, transitions: Transitions) -> Transitions:
        """Change what is kept (for example the reward). Default: everything as it was, and the arbiter sees it."""
        self.arbiter.on_store(transitions)
        return transitions

    def on_batch(self, replay: GuidedReplayBuffer, size: int) -> Batches:
        """Choose what one gradient step learns from. Default: uniform, and each term's own batch."""
        return {RL: replay.sample_uniform(size), **self.term_batches(replay)}

    def term_batches(self, replay: GuidedReplayBuffer) -> Batches:
        """Each term's own batch, of the terms that have one; all that an on-policy learner asks for."""
        found = {term.name: term.sample(replay) for term in self.actor}
        return {name: samples for name, samples in found.items() if samples is not None}

    def critic_terms(self, batches: Batches, networks: Networks) -> Terms:
        """What is added to the critics' loss. Default: nothing."""
        return Terms()

    def actor_terms(self, batches: Batches, networks: Networks) -> Terms:
        """What is added to the actor's loss. Default: the sum of the terms that have a batch."""
        return Terms.combined([term.terms(batches[term.name], networks) for term in self.actor if term.name in batches])

    def on_update(self, metrics: Mapping[str, float]) -> None:
        """After a gradient step, with what the terms measured (dual variables take their step here)."""
        for term in self.actor:
            term.on_update(metrics)

    def metrics(self) -> dict[str, float]:
        """Values to log under guidance/ in every row."""
        return self.arbiter.metrics() | ({"interventions": float(self.interventions)} if self.needs_expert else {})

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue identically (dual variable, random streams, counters)."""
        return {
            "labeller": self.labeller.state_dict(),
            "arbiter": self.arbiter.state_dict(),
            "actor": [term.state_dict() for term in self.actor],
            "interventions": self.interventions,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.labeller.load_state_dict(state["labeller"])
        self.arbiter.load_state_dict(state["arbiter"])
        for term, own in zip(self.actor, state["actor"], strict=True):
            term.load_state_dict(own)
        self.interventions = state["interventions"]
