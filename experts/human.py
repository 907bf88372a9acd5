"""A person as a policy provider: what input from keyboard or gamepad means, and when it counts.

`Hands` collects the input and yields it to decisions. A person is `engaged` from any driving
input until the explicit hand-back; in between, no input means: keep speed and lane. With the dead-man option the person
is engaged only as long as there is input. `HumanExpert` is a provider over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from experts.answers import failed, legal_mask
from experts.provider import Context, Decision, PolicyProvider
from sim.actions import MetaAction


@dataclass(frozen=True)
class Wish:
    """The input that is due."""

    manoeuvre: MetaAction = MetaAction.IDLE
    throttle: float = 0.0
    """-1 (brake) to 1; continuous actions."""
    steering: float = 0.0
    """-1 (left) to 1; continuous actions."""
    reaction_s: float | None = None
    """Seconds from showing the scene to the input; None without a new input."""


@dataclass(frozen=True)
class HeldInput:
    """What a key or button means while it is held down."""

    manoeuvre: MetaAction
    throttle: float = 0.0
    steering: float = 0.0


class Hands:
    """The person's present input. Times in seconds of any one clock."""

    def __init__(self, dead_man: bool = False) -> None:
        self.dead_man = dead_man
        self.engaged = False
        self._queued: MetaAction | None = None
        self._held: dict[str, HeldInput] = {}
        self._pushed: dict[str, tuple[float, float]] = {}
        """Throttle and steering of the axes that are away from rest."""
        self._ignored: set[str] = set()
        """Axes that count only after they have been at rest."""
        self._shown_at = 0.0
        self._reaction: float | None = None

    def show(self, now: float) -> None:
        """A new scene is shown: reaction time counts from here.

        Args:
            now: s.
        """
        self._shown_at, self._reaction = now, None

    def press(self, source: str, held: HeldInput, now: float) -> None:
        """A key or button goes down; held down, it counts at every decision.

        Args:
            source: Which one.
            held: What it means.
            now: s.
        """
        self._held[source] = held
        self._queued = held.manoeuvre
        self._touch(now)

    def release(self, source: str) -> None:
        """A key or button goes up.

        Args:
            source: Which one.
        """
        self._held.pop(source, None)

    def push(self, source: str, throttle: float, steering: float, now: float) -> None:
        """An axis moved; axes that are held together add up.

        Args:
            source: Which one.
            throttle: -1 (brake) to 1, 0 at rest.
            steering: -1 (left) to 1, 0 at rest.
            now: s.
        """
        if not throttle and not steering:
            self._pushed.pop(source, None)
            self._ignored.discard(source)
        elif source not in self._ignored:
            self._pushed[source] = throttle, steering
            self._touch(now)

    def ignore(self, source: str) -> None:
        """An axis counts only after it has been at rest.

        Args:
            source: Which one.
        """
        self._pushed.pop(source, None)
        self._ignored.add(source)

    def _touch(self, now: float) -> None:
        self.engaged = True
        if self._reaction is None:
            self._reaction = max(now - self._shown_at, 0.0)

    def hand_back(self) -> None:
        """The person returns control."""
        self.engaged = False
        self.let_go()

    def let_go(self) -> None:
        """Nothing is held any more (hand-back, the window lost the keyboard, a gamepad was unplugged).

        Axes that are still away from rest count again after they have been there.
        """
        self._queued = None
        self._held.clear()
        self._ignored |= self._pushed.keys()
        self._pushed.clear()

    def take(self) -> Wish | None:
        """The input for the decision that is due; None when the person does not drive. Ends a dead man's engagement."""
        held = list(self._held.values())
        queued, reaction = self._queued, self._reaction
        self._queued = self._reaction = None
        if self.dead_man and queued is None and not held and not self._pushed:
            self.engaged = False
        if not self.engaged:
            return None
        throttle = _within(sum(axis[0] for axis in self._pushed.values()))
        steering = _within(sum(axis[1] for axis in self._pushed.values()))
        keys = held[-1].manoeuvre if held else _manoeuvre(throttle, steering)
        return Wish(
            queued if queued is not None else keys,
            throttle=_within(throttle + sum(each.throttle for each in held)),
            steering=_within(steering + sum(each.steering for each in held)),
            reaction_s=reaction,
        )


def _within(value: float) -> float:
    """Within [-1, 1]."""
    return min(max(value, -1.0), 1.0)


def _manoeuvre(throttle: float, steering: float) -> MetaAction:
    """What axes mean where actions are discrete: the one that is pushed farther, from half its way on."""
    if max(abs(throttle), abs(steering)) < 0.5:
        return MetaAction.IDLE
    if abs(throttle) >= abs(steering):
        return MetaAction.FASTER if throttle > 0 else MetaAction.SLOWER
    return MetaAction.LANE_RIGHT if steering > 0 else MetaAction.LANE_LEFT


def action_of(
    wish: Wish, space: spaces.Space, meanings: tuple[MetaAction | None, ...], legal: np.ndarray
) -> int | np.ndarray:
    """The input as an action; what is not legal, or does not exist, becomes IDLE.

    Args:
        wish: The input.
        space: The action space.
        meanings: What discrete ids mean; empty: actions are continuous.
        legal: Legal actions, bool (A,).

    Returns:
        An action id; or acceleration and steering, float32 (2,), or steering alone where that is all there is.
    """
    if isinstance(space, spaces.Discrete):
        if wish.manoeuvre in meanings and legal[meanings.index(wish.manoeuvre)]:
            return meanings.index(wish.manoeuvre)
        return meanings.index(MetaAction.IDLE) if MetaAction.IDLE in meanings else int(np.argmax(legal))
    size = int(np.prod(space.shape or (1,)))
    values = [wish.throttle, wish.steering] if size > 1 else [wish.steering]
    return np.array(values + [0.0] * (size - len(values)), np.float32)


def components_of(wish: Wish, space: spaces.Box) -> np.ndarray:
    """The input as a continuous action where there is no car: pedals move the first component, the wheel the second.

    A single component is moved by both. Input at rest is 0, or the bound that is nearest to it.

    Args:
        wish: The input.
        space: The action space, of one dimension.

    Returns:
        float32 (D,), within the bounds.
    """
    count = int(np.prod(space.shape))
    pushed = [_within(wish.throttle + wish.steering)] if count == 1 else [wish.throttle, wish.steering]
    values = np.zeros(count, np.float32)
    values[: len(pushed)] = pushed
    reach = np.where(values > 0, space.high, -space.low)
    return np.clip(values * np.where(np.isfinite(reach), reach, 1.0), space.low, space.high).astype(np.float32)


class HumanExpert(PolicyProvider):
    """A person as a provider: decides in the first of several contexts, only while engaged.

    Args:
        hands: The person's input.
        keys: Where there are no scenes, the manoeuvre whose key chooses each discrete action; None: no key does.
    """

    name = "human"

    def __init__(self, hands: Hands, keys: tuple[MetaAction | None, ...] = ()) -> None:
        self.hands, self.keys = hands, keys
        self.reaction_s: float | None = None
        """Of the last decision; None where it was made without a new input."""

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        others = [failed("one person drives one car") for _ in contexts[1:]]
        return [*(self._answer(context) for context in contexts[:1]), *others]

    def _answer(self, context: Context) -> Decision:
        wish = self.hands.take()
        space = context.action_space
        drives = context.scene is not None or isinstance(space, spaces.Box) or any(key is not None for key in self.keys)
        if wish is None or not drives:
            return failed("the person does not drive")
        self.reaction_s = wish.reaction_s
        if context.scene is None and isinstance(space, spaces.Box):
            action: int | np.ndarray = components_of(wish, space)
        else:
            keys = self.keys if context.scene is None else context.scene.meanings
            action = action_of(wish, space, keys, legal_mask(context))
        return Decision(action=action, reason="the person drives", latency_s=wish.reaction_s or 0.0)
