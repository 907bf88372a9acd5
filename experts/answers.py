"""What experts that look at one scene at a time share: a decision per context, timed, and never a raised error."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

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
    try:
        legal = legal_manoeuvres(context)
    except ValueError as error:
        return failed(str(error))
    if not legal:
        return failed("no action is legal")
    assert context.scene is not None
    wanted, reason = choose(context.scene, legal)
    if wanted not in legal:
        wanted = MetaAction.IDLE if MetaAction.IDLE in legal else next(iter(legal))
    return Decision(action=legal[wanted], reason=reason)


def legal_manoeuvres(context: Context) -> dict[MetaAction, int]:
    """The legal manoeuvres with their action ids. ValueError without a scene or without meta-actions."""
    if context.scene is None:
        raise ValueError("there is no scene to decide on")
    mask = legal_mask(context).tolist()
    return {manoeuvre: i for i, manoeuvre in enumerate(manoeuvres(context.scene)) if mask[i]}


def legal_mask(context: Context) -> np.ndarray:
    """bool (A,): the context's mask, else the scene's, else everything that the action space has."""
    if context.legal is not None:
        return np.asarray(context.legal, bool)
    if context.scene is not None:
        return np.asarray(context.scene.legal, bool)
    return np.ones(int(getattr(context.action_space, "n", 0)), bool)


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
