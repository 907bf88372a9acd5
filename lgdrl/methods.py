"""Methods: named ways to learn with an expert, found through the entry point group `lgdrl.strategies`.

A method says what it needs and makes the loop that runs it. Methods that guide a reinforcement learner online are made
by `lgdrl.loops.online.online_method` from a strategy; others (language models, offline data, planners) bring a loop of
their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lgdrl.plugins import Registry

if TYPE_CHECKING:
    from experts.human import Hands
    from experts.provider import PolicyProvider
    from lgdrl.config import RunConfig
    from lgdrl.evaluation import Evaluation
    from lgdrl.loops.loop import Loop
    from lgdrl.runs import Run


@dataclass(frozen=True)
class Needs:
    """What a method has to be given."""

    actions: tuple[str, ...] = ("discrete", "continuous")
    """Action types of the environments that it works with; empty: it uses no environment."""
    learners: tuple[str, ...] | None = None
    """Learners that it works with; None: any, empty: it uses none."""
    expert: bool = True
    """Whether it can use an expert at all."""
    replay: bool = False
    """Whether it draws batches of experience itself, which only off-policy learners have."""


class MakeLoop(Protocol):
    """Makes the loop of a run."""

    def __call__(
        self, config: RunConfig, run: Run, provider: PolicyProvider | None = None, hands: Hands | None = None
    ) -> Loop:
        """The loop at its start.

        Args:
            config: The resolved config.
            run: The run folder; logs may be opened in it.
            provider: An expert in place of the one that the config names.
            hands: Controls of a person who may take over the first environment.
        """
        ...


@dataclass(frozen=True)
class Method:
    """A named way to learn with an expert."""

    name: str
    summary: str
    defaults: Any
    """An instance of its frozen config dataclass."""
    make: MakeLoop
    check: Callable[[RunConfig, PolicyProvider | None], None]
    """(resolved config, expert in place of the configured one): raises UsageError for everything that can be refused
    before there is a run folder."""
    evaluate: Callable[[RunConfig, Run, int, int], Evaluation]
    """(resolved config, finished run, episodes, first seed) -> the learner alone, expert off."""
    needs: Needs = Needs()
    more_steps: bool = False
    """Whether a run can be given a later end: what it did does not depend on `steps`, only on `schedule_steps`."""


METHODS: Registry[Method] = Registry("lgdrl.strategies", "strategy")
