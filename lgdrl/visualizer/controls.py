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
BUTTONS: dict[str, tuple[str | int, ...]] = {
    "lane_left": ("dpad_up",),
    "lane_right": ("dpad_down",),
    "faster": ("dpad_right",),
    "slower": ("dpad_left",),
    "keep": ("a", 0),
    "hand_back": ("b", 1),
    "restart": ("x", 2),
    "next": ("y", 3),
    "calmer": ("left_shoulder", 4),
    "quicker": ("right_shoulder", 5),
    "help": ("back", 6),
    "pause": ("start", 7),
}
"""Gamepad buttons by SDL's names, which are those of an Xbox pad; by number on pads that SDL has no mapping for."""
PAD_BUTTONS = {
    pygame.CONTROLLER_BUTTON_A: "a",
    pygame.CONTROLLER_BUTTON_B: "b",
    pygame.CONTROLLER_BUTTON_X: "x",
    pygame.CONTROLLER_BUTTON_Y: "y",
    pygame.CONTROLLER_BUTTON_BACK: "back",
    pygame.CONTROLLER_BUTTON_GUIDE: "guide",
    pygame.CONTROLLER_BUTTON_START: "start",
    pygame.CONTROLLER_BUTTON_LEFTSTICK: "left_stick",
    pygame.CONTROLLER_BUTTON_RIGHTSTICK: "right_stick",
    pygame.CONTROLLER_BUTTON_LEFTSHOULDER: "left_shoulder",
    pygame.CONTROLLER_BUTTON_RIGHTSHOULDER: "right_shoulder",
    pygame.CONTROLLER_BUTTON_DPAD_UP: "dpad_up",
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: "dpad_down",
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: "dpad_left",
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: "dpad_right",
}
"""Names of mapped buttons; a hat on an unmapped pad has the names of the directional pad."""
PAD_AXES = {
    pygame.CONTROLLER_AXIS_LEFTX: "left_x",
    pygame.CONTROLLER_AXIS_LEFTY: "left_y",
    pygame.CONTROLLER_AXIS_RIGHTX: "right_x",
    pygame.CONTROLLER_AXIS_RIGHTY: "right_y",
    pygame.CONTROLLER_AXIS_TRIGGERLEFT: "left_trigger",
    pygame.CONTROLLER_AXIS_TRIGGERRIGHT: "right_trigger",
}
"""Names of mapped axes."""


@dataclass(frozen=True)
class Axes:
    """Axes of gamepads that SDL has a mapping for, by name, and the dead zones of all."""

    steering: str | int = "left_x"
    throttle: str | int = "right_trigger"
    brake: str | int = "left_trigger"
    dead_zone: float = 0.24  # share of the steering axis that counts as centred; that of XInput's left stick
    trigger_dead_zone: float = 0.12  # share of a pedal's way that counts as at rest; that of XInput's triggers

    def __post_init__(self) -> None:
        for name in (self.steering, self.throttle, self.brake):
            if name not in PAD_AXES.values():
                known = ", ".join(PAD_AXES.values())
                raise ValueError(f"there is no axis {name!r}; axes are {known} (numbers belong to raw_axes)")
        for share in (self.dead_zone, self.trigger_dead_zone):
            if not 0.0 <= share <= 0.9:
                raise ValueError(f"a dead zone is a share from 0 to 0.9, found {share}")


@dataclass(frozen=True)
class RawAxes:
    """Axes by number, of gamepads that SDL has no mapping for. None: there is no such pedal, the d-pad serves."""

    steering: int | None = 0
    throttle: int | None = None
    brake: int | None = None

    def __post_init__(self) -> None:
        for number in (self.steering, self.throttle, self.brake):
            if number is not None and not 0 <= number < 64:
                raise ValueError(f"axis {number} is not a number from 0 to 63")


@dataclass(frozen=True)
class Keymap:
    """Commands by key code and by gamepad button."""

    keys: dict[int, Command]
    buttons: dict[str | int, Command]
    axes: Axes = field(default_factory=Axes)
    raw_axes: RawAxes = field(default_factory=RawAxes)

    def names(self, command: Command) -> str:
        """The keys of a command, by name."""
        return ", ".join(pygame.key.name(code) for code, each in self.keys.items() if each is command)


SECTIONS = ("keys", "buttons", "axes", "raw_axes")


def keymap(path: Path | str | None = None) -> Keymap:
    """The built-in map with the changes of a YAML file.

    Args:
        path: The file, with `keys`, `buttons` (command: list), `axes` and `raw_axes`; None: no changes.
    Raises:
        UsageError: A command or key is unknown, or a key would mean two things.
    """
    changes: dict[str, Any] = dict(load_yaml(path) or {}) if path else {}
    for section in changes:
        if section not in SECTIONS:
            raise unknown("section of the key map", str(section), SECTIONS)
    keys = _table(KEYS, changes.get("keys"), _key_code, "key")
    buttons = _table(BUTTONS, changes.get("buttons"), _button, "button")
    axes, raw_axes = (
        resolve(Axes(), changes.get("axes"), "axes"),
        resolve(RawAxes(), changes.get("raw_axes"), "raw_axes"),
    )
    return Keymap(keys, buttons, axes, raw_axes)


def _table(defaults: dict[str, Any], changes: Any, code: Any, kind: str) -> dict[Any, Command]:
    if changes is not None and not isinstance(changes, dict):
        raise UsageError(f"key map: {kind}s must map commands to lists, found {changes!r}")
    changes = changes or {}
    table: dict[Any, Command] = {}
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


def _button(name: Any) -> str | int:
    if isinstance(name, str):
        if name not in PAD_BUTTONS.values():
            raise unknown("gamepad button in the key map", name, PAD_BUTTONS.values())
        return name
    if isinstance(name, bool) or not isinstance(name, int) or not 0 <= name < 64:
        raise UsageError(
            f"key map: button {name!r} is neither a name (a, start, dpad_up ...) nor a number from 0 to 63"
        )
    return name
