"""What experts that look at one scene at a time share: a decision per context, timed, and never a raised error."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import sim
from experts.provider import Context, Decision, Status
from experts.rules.view import manoeuvres
from sim.actions import MetaAction
from sim.errors import UsageError
from sim.scene import Scene


def answer_each(contexts: Sequence[Context], answer: Callable[[Context], Decision]) -> list[Decision]:
    """`answer` for every context; `latency_s` is the mean over the batch."""
    started = time.perf_counter()
    decisions = [answer(context) for context in contexts]
    share = (time.perf_counter() - started) / max(len(contexts), 1)
    return [replace(decision, latency_s=share) for decision in decisions]


Chooser = Callable[[Scene, Mapping[MetaAction, int]], tuple[MetaAction, str]]
"""(scene, legal manoeuvres with their action ids) -> wanted manoeuvre and why."""


def scene_decision(context: Context, choose: Chooser) -> Decision:
    """What `choose` wants; IDLE where that is not legal; FAILED without a scene or without meta-actions."""
    if context.scene is None:
        return failed("there is no scene to decide on")
    try:
        legal = legal_manoeuvres(context)
    except ValueError as error:
        return failed(str(error))
    if not legal:
        return failed("no action is legal")
    wanted, reason = choose(context.scene, legal)
    if wanted not in legal:
        wanted = MetaAction.IDLE if MetaAction.IDLE in legal else next(iter(legal))
    return Decision(action=legal[wanted], reason=reason)


def legal_manoeuvres(context: Context) -> dict[MetaAction, int]:
    """The legal manoeuvres with their action ids. ValueError where the scene's actions are not meta-actions."""
    assert context.scene is not None
    mask = context.scene.legal if context.legal is None else context.legal
    return {manoeuvre: i for i, manoeuvre in enumerate(manoeuvres(context.scene)) if mask[i]}


def failed(reason: str) -> Decision:
    """Nobody decided, and why."""
    return Decision(action=None, status=Status.FAILED, reason=reason)


def require_discrete(expert: str, scenario: str) -> None:
    """UsageError where `scenario` is not driven by discrete actions."""
    kind = sim.get(scenario).actions
    if kind == "continuous":
        raise UsageError(
            f"expert {expert!r} chooses among meta-actions, scenario {scenario!r} has continuous actions: "
            "choose another expert or scenario"
        )
