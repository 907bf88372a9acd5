"""Events of keyboard, gamepad and mouse: driving goes to the person's `Hands`, the rest becomes commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pygame

from experts.human import Hands
from lgdrl.visualizer.clock import Clock
from lgdrl.visualizer.controls import DRIVING, Command, Keymap
from lgdrl.visualizer.pads import Gamepads
from lgdrl.visualizer.playback import Playback
from lgdrl.visualizer.view import WindowView


class DeviceInput:
    """Keyboard and gamepads.

    Args:
        keys: What keys, buttons and axes mean.
        hands: Of the person who may drive; None: no session can be driven.
        clock: The window's, for reaction times.
        commands: What to do for every command that does not drive.
        say: Shows a line in the window.
    """

    def __init__(
        self,
        keys: Keymap,
        hands: Hands | None,
        clock: Clock,
        commands: Mapping[Command, Callable[[], None]],
        say: Callable[[str], None],
    ) -> None:
        self.keys, self.hands, self.clock, self.commands, self._say = keys, hands, clock, commands, say
        self._pads = Gamepads(keys, hands, clock, self.command, say)
        self._handlers: dict[int, Callable[[pygame.Event], None]] = {
            pygame.KEYDOWN: self._key,
            pygame.KEYUP: self._key,
            pygame.WINDOWFOCUSLOST: lambda event: self.let_go(),
        }

    def handle(self, event: pygame.Event) -> None:
        """Act on an event; those of other devices are ignored."""
        self._handlers.get(event.type, self._pads.handle)(event)

    def command(self, command: Command, source: str = "", down: bool = True) -> None:
        """Do what a key or button stands for.

        Args:
            command: What the key or button stands for.
            source: Name of the key or button, so that holding several of them works.
            down: Pressed, or released.
        """
        if command in DRIVING:
            self._drive(command, source, down)
        elif down:
            self.commands[command]()

    def let_go(self) -> None:
        """Nothing is held any more."""
        if self.hands is not None:
            self.hands.let_go()

    def _drive(self, command: Command, source: str, down: bool) -> None:
        if self.hands is None:
            if down:
                self._say("This is a recording: it cannot be driven")
        elif down:
            self.hands.press(source, DRIVING[command], self.clock.now())
        else:
            self.hands.release(source)

    def _key(self, event: pygame.Event) -> None:
        command = self.keys.keys.get(event.key)
        if command is not None:
            self.command(command, f"key {event.key}", event.type == pygame.KEYDOWN)


class MouseInput:
    """The mouse: scrub on the timeline, pan and zoom the road.

    Args:
        playback: What is scrubbed.
        view: What is panned and zoomed, and knows where the timeline is.
    """

    def __init__(self, playback: Playback, view: WindowView) -> None:
        self.playback, self.view = playback, view

    def handle(self, event: pygame.Event) -> None:
        """Act on an event; those of other devices are ignored."""
        kind = event.type
        if kind == pygame.MOUSEWHEEL:
            self.view.zoom(1.1**event.y)
        elif kind == pygame.MOUSEBUTTONDOWN and event.button == 1 and self.view.strip.collidepoint(event.pos):
            self.playback.scrubbing = True
            self._scrub(event.pos[0])
        elif kind == pygame.MOUSEMOTION and event.buttons[0]:
            if self.playback.scrubbing:
                self._scrub(event.pos[0])
            else:
                self.view.pan(*event.rel)
        elif kind == pygame.MOUSEBUTTONUP:
            self.playback.scrubbing = False

    def _scrub(self, x: int) -> None:
        length = max(len(pane.session.track) for pane in self.view.panes)
        self.playback.move_to(self.view.timeline.decision_at(x), length)


class SeedEntry:
    """The prompt in which a seed is typed.

    Args:
        begin: Starts the episode of a seed.
        say: Shows a line in the window.
    """

    def __init__(self, begin: Callable[[int], None], say: Callable[[str], None]) -> None:
        self._begin, self._say = begin, say
        self.text: str | None = None
        """Digits so far; None: the prompt is closed."""

    @property
    def open(self) -> bool:
        """Whether keys go to the prompt."""
        return self.text is not None

    def start(self) -> None:
        """Open the prompt."""
        self.text = ""

    def key(self, event: pygame.Event) -> None:
        """Act on a key that goes down while the prompt is open."""
        assert self.text is not None
        if event.key == pygame.K_ESCAPE:
            self.text = None
        elif event.key == pygame.K_BACKSPACE:
            self.text = self.text[:-1]
        elif event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            text, self.text = self.text, None
            if text:
                self._begin(int(text))
        elif event.unicode.isdigit() and len(self.text) < 9:
            self.text += event.unicode
        elif event.unicode:
            self._say(f"{event.unicode!r} is not a digit: seeds are whole numbers")
