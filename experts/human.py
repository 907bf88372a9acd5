"""A person as a policy provider: what the hands on keyboard or gamepad mean, and when it counts.

`Hands` is where an input device puts its wishes and where a decision takes them. A person is `engaged` from any driving
input until the explicit hand-back; in between, no input means: keep speed and lane. With the dead-man option the person
is engaged only as long as there is input. `HumanExpert` answers the expert's contract with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from experts.answers import failed, legal_mask
from experts.provider import Context, Decision
from sim.actions import MetaAction
from sim.view import manoeuvres


@dataclass(frozen=True)
class Wish:
    """What a person wants now."""

    manoeuvre: MetaAction = MetaAction.IDLE
    throttle: float = 0.0
    """-1 (brake) to 1; continuous worlds."""
    steering: float = 0.0
    """-1 (left) to 1; continuous worlds."""
    reaction_s: float | None = None
    """From the moment that the scene was shown to the input; None without a new input."""


class Hands:
    """The person's present wish. Times in seconds of any one clock."""

    def __init__(self, dead_man: bool = False) -> None:
        self.dead_man = dead_man
        self.engaged = False
        self.reactions: list[float] = []
        """Every reaction time so far, s."""
        self._queued: MetaAction | None = None
        self._held: dict[str, MetaAction] = {}
        self._throttle = self._steering = 0.0
        self._shown_at = 0.0
        self._reaction: float | None = None

    def show(self, now: float) -> None:
        """A new scene is in front of the person: reaction time counts from here."""
        self._shown_at, self._reaction = now, None

    def press(self, device_input: str, manoeuvre: MetaAction, now: float) -> None:
        """A key or button goes down; held down, it counts at every decision."""
        self._held[device_input] = manoeuvre
        self._queued = manoeuvre
        self._touch(now)

    def release(self, device_input: str) -> None:
        self._held.pop(device_input, None)

    def steer(self, throttle: float | None, steering: float | None, now: float) -> None:
        """An axis moved; None leaves the other one alone."""
        self._throttle = self._throttle if throttle is None else float(np.clip(throttle, -1.0, 1.0))
        self._steering = self._steering if steering is None else float(np.clip(steering, -1.0, 1.0))
        if self._throttle or self._steering:
            self._touch(now)

    def _touch(self, now: float) -> None:
        self.engaged = True
        if self._reaction is None:
            self._reaction = max(now - self._shown_at, 0.0)

    def hand_back(self) -> None:
        """The person lets go."""
        self.engaged = False
        self.let_go()

    def let_go(self) -> None:
        """Nothing is held any more (the window lost the keyboard, a gamepad was unplugged)."""
        self._queued = None
        self._held.clear()
        self._throttle = self._steering = 0.0

    @property
    def idle(self) -> bool:
        """Whether there is no input at the moment."""
        return self._queued is None and not self._held and not self._throttle and not self._steering

    def take(self) -> Wish | None:
        """The wish for the decision that is due; None when the person does not drive. Ends a dead man's engagement."""
        if self.dead_man and self.idle:
            self.engaged = False
        if not self.engaged:
            self._queued = None
            return None
        held = list(self._held.values())
        manoeuvre = self._queued if self._queued is not None else held[-1] if held else MetaAction.IDLE
        reaction, self._queued, self._reaction = self._reaction, None, None
        if reaction is not None:
            self.reactions.append(reaction)
        return Wish(manoeuvre, self._throttle, self._steering, reaction)


def action_of(wish: Wish, space: spaces.Space, meanings: tuple[MetaAction, ...], legal: np.ndarray) -> int | np.ndarray:
    """The wish as an action of a world; what is not legal, or does not exist there, becomes IDLE.

    Args: wish; the action space; what discrete ids mean (empty: continuous); bool (A,) legal actions.
    Returns: an action id, or float32 (2,): acceleration and steering, or steering alone where that is all there is.
    """
    if isinstance(space, spaces.Discrete):
        if wish.manoeuvre in meanings and legal[meanings.index(wish.manoeuvre)]:
            return meanings.index(wish.manoeuvre)
        return meanings.index(MetaAction.IDLE) if MetaAction.IDLE in meanings else int(np.argmax(legal))
    size = int(np.prod(space.shape or (1,)))
    values = [wish.throttle, wish.steering] if size > 1 else [wish.steering]
    return np.array(values + [0.0] * (size - len(values)), np.float32)


class HumanExpert:
    """A person behind the expert's contract: answers for the first world it is asked about, and only when engaged."""

    name = "human"

    def __init__(self, hands: Hands) -> None:
        self.hands = hands

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        return [self._answer(context) if k == 0 else failed("one person drives one car") for k, context in
                enumerate(contexts)]  # fmt: skip

    def _answer(self, context: Context) -> Decision:
        wish = self.hands.take()
        if wish is None:
            return failed("the person does not drive")
        meanings = manoeuvres(context.scene) if context.scene is not None else tuple(MetaAction)
        action = action_of(wish, context.action_space, meanings, legal_mask(context))
        return Decision(action=action, reason="the person drives", latency_s=wish.reaction_s or 0.0)
