"""Gamepads: SDL's mapping says what a button or axis is; pads that it does not know are read by number.

An axis counts from the moment it has been seen at rest: what SDL reports at first may be a stick that rests elsewhere,
or a trigger whose position it does not know (half pressed). A stick that drifts inside the dead zone and whatever is
still held after a hand-back are no input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pygame
from pygame._sdl2 import controller

from experts.human import Hands
from lgdrl.visualizer.clock import Clock
from lgdrl.visualizer.controls import PAD_AXES, PAD_BUTTONS, Command, Keymap

FULL = 32767
"""Largest value of a mapped axis."""
AT_LEFT_END = -0.5
"""An unmapped pedal that was below this rests at -1; one that never was rests at 0."""
HAT = (("dpad_left", "dpad_right"), ("dpad_down", "dpad_up"))
"""Buttons that a hat stands for: negative and positive, across and along."""


def start() -> None:
    """Start SDL's joysticks and its mapping. Before the window opens, so that present pads are reported to it."""
    pygame.joystick.init()
    controller.init()


def stop() -> None:
    """Close SDL's joysticks: a later window is told about all pads again."""
    controller.quit()
    pygame.joystick.quit()


@dataclass
class Pad:
    """One opened gamepad."""

    device: Any  # SDL closes those that nothing refers to
    mapped: bool
    roles: dict[str | int, str]
    """Role by axis: steering, throttle, brake."""
    held: set[str] = field(default_factory=set)
    """Directions of a hat that are held."""
    rests_at_end: set[str] = field(default_factory=set)
    """Pedals by number that rest at -1."""


class Gamepads:
    """All gamepads that are plugged in.

    Args:
        keys: What buttons and axes mean.
        hands: Of the person who may drive; None: no session can be driven.
        clock: The window's, for reaction times.
        command: Called with a command, the name of its button, and whether it goes down.
        say: Shows a line in the window.
    """

    def __init__(
        self,
        keys: Keymap,
        hands: Hands | None,
        clock: Clock,
        command: Callable[[Command, str, bool], None],
        say: Callable[[str], None],
    ) -> None:
        self.keys, self.hands, self.clock, self._command, self._say = keys, hands, clock, command, say
        self._pads: dict[int, Pad] = {}
        self._handlers: dict[int, Callable[[pygame.Event], None]] = {
            pygame.JOYDEVICEADDED: self._plugged,
            pygame.JOYDEVICEREMOVED: self._unplugged,
            pygame.CONTROLLERBUTTONDOWN: self._button,
            pygame.CONTROLLERBUTTONUP: self._button,
            pygame.CONTROLLERAXISMOTION: self._axis,
            pygame.JOYBUTTONDOWN: self._button,
            pygame.JOYBUTTONUP: self._button,
            pygame.JOYHATMOTION: self._hat,
            pygame.JOYAXISMOTION: self._axis,
        }

    def handle(self, event: pygame.Event) -> None:
        """Act on an event; those of other devices are ignored, as are unmapped readings of mapped pads."""
        handler = self._handlers.get(event.type)
        if handler is None:
            return
        if event.type != pygame.JOYDEVICEADDED:
            pad = self._pads.get(event.instance_id)
            of_mapping = event.type in (
                pygame.CONTROLLERBUTTONDOWN,
                pygame.CONTROLLERBUTTONUP,
                pygame.CONTROLLERAXISMOTION,
            )
            if pad is None or (event.type != pygame.JOYDEVICEREMOVED and pad.mapped is not of_mapping):
                return
        handler(event)

    def _button(self, event: pygame.Event) -> None:
        pad = self._pads[event.instance_id]
        name = PAD_BUTTONS.get(event.button) if pad.mapped else event.button
        down = event.type in (pygame.CONTROLLERBUTTONDOWN, pygame.JOYBUTTONDOWN)
        self._press(event.instance_id, name, down)

    def _press(self, number: int, button: str | int | None, down: bool) -> None:
        command = None if button is None else self.keys.buttons.get(button)
        if command is not None:
            self._command(command, f"pad {number} {button}", down)

    def _hat(self, event: pygame.Event) -> None:
        """A hat is four buttons, of which two may be held at once."""
        pad = self._pads[event.instance_id]
        now = {names[value > 0] for names, value in zip(HAT, event.value, strict=True) if value}
        for name in sorted(pad.held - now):
            self._press(event.instance_id, name, False)
        for name in sorted(now - pad.held):
            self._press(event.instance_id, name, True)
        pad.held = now

    def _axis(self, event: pygame.Event) -> None:
        pad = self._pads[event.instance_id]
        axis = PAD_AXES.get(event.axis) if pad.mapped else event.axis
        role = None if axis is None else pad.roles.get(axis)
        if role is None or self.hands is None:
            return
        value = event.value / FULL if pad.mapped else event.value
        level = self._level(pad, role, value)
        self.hands.push(f"pad {event.instance_id} {role}", *_pedals(role, level), self.clock.now())

    def _level(self, pad: Pad, role: str, value: float) -> float:
        """How far an axis is from rest, outside the dead zone: -1 to 1, pedals 0 to 1."""
        axes = self.keys.axes
        if role == "steering":
            return _beyond(value, axes.dead_zone)
        if not pad.mapped and value < AT_LEFT_END:
            pad.rests_at_end.add(role)
        if role in pad.rests_at_end:
            value = (value + 1.0) / 2.0
        return _beyond(max(value, 0.0), axes.trigger_dead_zone)

    def _plugged(self, event: pygame.Event) -> None:
        try:
            mapped = controller.is_controller(event.device_index)
            device = controller.Controller(event.device_index) if mapped else None
            joystick = device.as_joystick() if device else pygame.joystick.Joystick(event.device_index)
        except pygame.error as error:  # unplugged again, or no right to read it
            self._say(f"A gamepad cannot be opened: {error}")
            return
        axes: Any = self.keys.axes if mapped else self.keys.raw_axes
        named = {role: getattr(axes, role) for role in ("steering", "throttle", "brake")}
        pad = Pad(device or joystick, mapped, {axis: role for role, axis in named.items() if axis is not None})
        number = joystick.get_instance_id()
        if self.hands is not None and number not in self._pads:
            for role in pad.roles.values():
                self.hands.ignore(f"pad {number} {role}")
        self._pads[number] = pad
        unknown = "" if mapped else " (SDL has no mapping for it: buttons count by number, axis 0 steers)"
        self._say(f"Gamepad: {joystick.get_name()}{unknown}")

    def _unplugged(self, event: pygame.Event) -> None:
        del self._pads[event.instance_id]
        if self.hands is not None:
            self.hands.let_go()
        self._say("Gamepad unplugged: nothing is held any more")


def _beyond(value: float, dead_zone: float) -> float:
    """0 in the dead zone, from there to 1 without a jump."""
    size = min((abs(value) - dead_zone) / (1.0 - dead_zone), 1.0)
    return math.copysign(round(size, 4), value) if size > 0 else 0.0


def _pedals(role: str, level: float) -> tuple[float, float]:
    """Throttle and steering of an axis."""
    return {"steering": (0.0, level), "throttle": (level, 0.0), "brake": (-level, 0.0)}[role]
