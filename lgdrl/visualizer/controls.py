"""What keys, buttons and axes mean. Everything can be remapped by a YAML file; the help page is made from the map."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pygame

from experts.human import HeldInput
from sim.actions import MetaAction
from sim.config import load_yaml, resolve
from sim.errors import UsageError, unknown


class Command(StrEnum):
    """What a key or button can do; the first five drive."""

    LANE_LEFT = "lane_left"
    LANE_RIGHT = "lane_right"
    FASTER = "faster"
    SLOWER = "slower"
    KEEP = "keep"
    HAND_BACK = "hand_back"
    PAUSE = "pause"
    STEP = "step"
    BACK = "back"
    QUICKER = "quicker"
    CALMER = "calmer"
    RESTART = "restart"
    NEXT = "next"
    SEED = "seed"
    RECORD = "record"
    EXPORT = "export"
    SCREENSHOT = "screenshot"
    ZOOM_IN = "zoom_in"
    ZOOM_OUT = "zoom_out"
    FOLLOW = "follow"
    PANEL = "panel"
    SPEEDS = "speeds"
    THEME = "theme"
    HELP = "help"
    QUIT = "quit"


DRIVING = {
    Command.LANE_LEFT: HeldInput(MetaAction.LANE_LEFT, steering=-0.4),
    Command.LANE_RIGHT: HeldInput(MetaAction.LANE_RIGHT, steering=0.4),
    Command.FASTER: HeldInput(MetaAction.FASTER, throttle=1.0),
    Command.SLOWER: HeldInput(MetaAction.SLOWER, throttle=-1.0),
    Command.KEEP: HeldInput(MetaAction.IDLE),
}
"""What the driving keys stand for: a manoeuvre, or pedals and wheel in environments of continuous control."""

WORDS = {
    Command.LANE_LEFT: "change to the left lane, steer left",
    Command.LANE_RIGHT: "change to the right lane, steer right",
    Command.FASTER: "speed up",
    Command.SLOWER: "slow down",
    Command.KEEP: "take over and keep speed and lane",
    Command.HAND_BACK: "hand the car back",
    Command.PAUSE: "pause, go on",
    Command.STEP: "one decision forward",
    Command.BACK: "one decision back",
    Command.QUICKER: "double the pace",
    Command.CALMER: "halve the pace",
    Command.RESTART: "this episode again",
    Command.NEXT: "next episode",
    Command.SEED: "type a seed",
    Command.RECORD: "record episodes, stop recording",
    Command.EXPORT: "write this episode as a film",
    Command.SCREENSHOT: "write this picture",
    Command.ZOOM_IN: "closer",
    Command.ZOOM_OUT: "farther",
    Command.FOLLOW: "follow the car again",
    Command.PANEL: "show or hide the panel",
    Command.SPEEDS: "show or hide speeds of traffic",
    Command.THEME: "light, dark",
    Command.HELP: "this page",
    Command.QUIT: "leave",
}
KEYS: dict[str, tuple[str, ...]] = {
    "lane_left": ("up", "w"),
    "lane_right": ("down", "s"),
    "faster": ("right", "d"),
    "slower": ("left", "a"),
    "keep": ("k",),
    "hand_back": ("return", "backspace"),
    "pause": ("space",),
    "step": (".",),
    "back": (",",),
    "quicker": ("]", "page up"),
    "calmer": ("[", "page down"),
    "restart": ("r",),
    "next": ("n",),
    "seed": ("g",),
    "record": ("v",),
    "export": ("e",),
    "screenshot": ("f12", "p"),
    "zoom_in": ("=", "+"),
    "zoom_out": ("-",),
    "follow": ("f",),
    "panel": ("tab",),
    "speeds": ("l",),
    "theme": ("t",),
    "help": ("h", "f1"),
    "quit": ("escape", "q"),
}
BUTTONS: dict[str, tuple[int, ...]] = {
    "keep": (0,),
    "hand_back": (1,),
    "restart": (2,),
    "next": (3,),
    "calmer": (4,),
    "quicker": (5,),
    "help": (6,),
    "pause": (7,),
}
"""Gamepad buttons as SDL numbers those of an Xbox pad: A, B, X, Y, LB, RB, back, start."""
HAT = {(0, 1): Command.LANE_LEFT, (0, -1): Command.LANE_RIGHT, (1, 0): Command.FASTER, (-1, 0): Command.SLOWER}
"""The directional pad."""


@dataclass(frozen=True)
class Axes:
    """Gamepad axes of continuous control, by number."""

    steering: int = 0
    throttle: int = 5  # right trigger, -1 at rest
    brake: int = 2  # left trigger, -1 at rest
    dead_zone: float = 0.12  # share of the steering axis that counts as centred


@dataclass(frozen=True)
class Keymap:
    """Commands by key code and by gamepad button."""

    keys: dict[int, Command]
    buttons: dict[int, Command]
    axes: Axes = field(default_factory=Axes)

    def names(self, command: Command) -> str:
        """The keys of a command, by name."""
        return ", ".join(pygame.key.name(code) for code, each in self.keys.items() if each is command)


def keymap(path: Path | str | None = None) -> Keymap:
    """The built-in map with the changes of a YAML file.

    Args:
        path: The file, with `keys`, `buttons` (command: list) and `axes`; None: no changes.
    Raises:
        UsageError: A command or key is unknown, or a key would mean two things.
    """
    changes: dict[str, Any] = dict(load_yaml(path) or {}) if path else {}
    for section in changes:
        if section not in ("keys", "buttons", "axes"):
            raise unknown("section of the key map", section, ("keys", "buttons", "axes"))
    keys = _table(KEYS, changes.get("keys"), _key_code, "key")
    buttons = _table(BUTTONS, changes.get("buttons"), _button, "button")
    return Keymap(keys, buttons, resolve(Axes(), changes.get("axes"), "axes"))


def _table(defaults: dict[str, Any], changes: Any, code: Any, kind: str) -> dict[int, Command]:
    if changes is not None and not isinstance(changes, dict):
        raise UsageError(f"key map: {kind}s must map commands to lists, found {changes!r}")
    changes = changes or {}
    table: dict[int, Command] = {}
    for name in changes:
        if name not in list(Command):
            raise unknown("command in the key map", str(name), [str(each) for each in Command])
    for command, names in (defaults | changes).items():
        for name in names if isinstance(names, list | tuple) else [names]:
            number = code(name)
            taken = table.get(number)
            if taken is not None and taken is not Command(command):
                if command in changes and str(taken) in changes:
                    raise UsageError(f"key map: {kind} {name!r} means both {taken} and {command}: choose one")
                if str(taken) in changes:
                    continue  # a default that was given away
            table[number] = Command(command)
    return table


def _key_code(name: Any) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names need no window
            return pygame.key.key_code(str(name))
    except (ValueError, pygame.error):
        raise UsageError(f"key map: there is no key {name!r} (names are SDL's: space, return, up, f1, a ...)") from None


def _button(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 64:
        raise UsageError(f"key map: button {number!r} is not a number from 0 to 63")
    return number
