"""What the window looks like: the layout of roads, panels and timeline, and everything that is drawn over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pygame

from lgdrl.visualizer.clock import Clock
from lgdrl.visualizer.controls import DRIVING, WORDS, Command, Keymap
from lgdrl.visualizer.painter import Painter
from lgdrl.visualizer.pane import Pane
from lgdrl.visualizer.panel import Panel
from lgdrl.visualizer.timeline import DecisionTimeline
from sim.picture import Picture, keys_of
from sim.render import THEMES, Overlay
from sim.render.palette import Theme, mix
from sim.render.text import Typist

SMALLEST = (640, 400)
REFERENCE = (1280, 720)
"""Window at which sizes are meant as written."""
MESSAGE_S = 3.0
"""Seconds for which a message is shown."""


class MessageLine:
    """The last message to the person, shown for a few seconds.

    Args:
        clock: The window's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.text = ""
        """The last message, shown or not."""
        self._until = 0.0

    def say(self, text: str) -> None:
        """Show a message in place of the last one."""
        self.text, self._until = text, self._clock.now() + MESSAGE_S

    @property
    def shown(self) -> str:
        """The message, while it is shown; else empty."""
        return self.text if self._clock.now() < self._until else ""


@dataclass(frozen=True)
class WindowText:
    """The texts over the pictures at one moment; empty ones are not drawn."""

    status: str
    """Beside the timeline."""
    message: str = ""
    prompt: str | None = None
    """The seed as far as it is typed; None: the prompt is closed."""
    waits_for_driver: bool = False
    """The episode starts with the first driving key: the keys are shown."""


class WindowView:
    """Draws panes into one canvas.

    Args:
        panes: Shown on top of each other.
        keys: Named on the help page.
        theme: Name of the colours, one of `sim.render.THEMES`.
        size: Of the window, pixels.
    """

    def __init__(self, panes: Sequence[Pane], keys: Keymap, theme: str, size: tuple[int, int]) -> None:
        self.panes, self.keys = panes, keys
        self.theme: Theme = THEMES[theme]
        self.typist = Typist()
        self.show_panel, self.show_help, self.show_speeds = True, False, False
        self.layout(size)

    def layout(self, size: tuple[int, int]) -> None:
        """Place everything in a window.

        Args:
            size: Of the window, pixels; below `SMALLEST` the picture is cut off.
        """
        width, height = (max(a, b) for a, b in zip(size, SMALLEST, strict=True))
        self.canvas = pygame.Surface((width, height), 0, 32)
        scale = min(max(min(width / REFERENCE[0], height / REFERENCE[1]), 0.62), 3.0)
        painter = Painter(self.theme, self.typist, scale)
        self.painter, self.panel, self.timeline = painter, Panel(painter), DecisionTimeline(painter)
        strip = painter.px(44)
        side = min(max(painter.px(330), 220), width // 2) if self.show_panel else 0
        self.strip = pygame.Rect(0, height - strip, width, strip)
        each = (height - strip) // len(self.panes)
        self.roads, self.sides = [], []
        for k, pane in enumerate(self.panes):
            self.roads.append(pygame.Rect(0, k * each, width - side, each - (1 if len(self.panes) > 1 else 0)))
            self.sides.append(pygame.Rect(width - side, k * each, side, each))
            pane.renderer.resize(self.roads[k].size)
            pane.renderer.show_speeds(self.show_speeds)

    def toggle_panel(self) -> None:
        """Show or hide the panel."""
        self.show_panel = not self.show_panel
        self.layout(self.canvas.get_size())

    def toggle_speeds(self) -> None:
        """Show or hide the speeds of traffic."""
        self.show_speeds = not self.show_speeds
        self.layout(self.canvas.get_size())

    def toggle_theme(self) -> None:
        """Change between light and dark."""
        self.theme = THEMES["dark" if self.theme.name == "light" else "light"]
        for pane in self.panes:
            pane.renderer.set_theme(self.theme)
        self.layout(self.canvas.get_size())

    def toggle_help(self) -> None:
        """Show or hide the help page."""
        self.show_help = not self.show_help

    def zoom(self, factor: float) -> None:
        """Zoom all roads by a factor above 0."""
        for pane in self.panes:
            pane.renderer.zoom_by(factor)

    def pan(self, dx: int, dy: int) -> None:
        """Move all roads by pixels."""
        for pane in self.panes:
            pane.renderer.pan(dx, dy)

    def follow(self) -> None:
        """Let all roads follow the ego again."""
        for pane in self.panes:
            pane.renderer.follow()

    def reset(self) -> None:
        """Forget what moved: the next scene does not follow the last one."""
        for pane in self.panes:
            pane.renderer.reset()

    def draw(self, head: float, text: WindowText) -> None:
        """The whole window, on the canvas.

        Args:
            head: The playhead, in decisions.
            text: What is written over the pictures.
        """
        for pane, road, side in zip(self.panes, self.roads, self.sides, strict=True):
            scene = pane.scene_at(head)
            state = pane.state_at(head, scene)
            overlay = Overlay(
                controller=state.controller, executed_action=state.executed, unsafe=state.assessment.unsafe
            )
            self.canvas.blit(pane.renderer.draw_surface(scene, overlay), road.topleft)
            if self.show_panel:
                self.panel.draw(self.canvas, side, state, pane.session.title)
            if head >= len(pane.session.track):
                self._banner(pane.session.track.outcome, road)
        rows = [
            ([(turn.controller, turn.expert_status) for turn in pane.session.track.turns], pane.session.track.outcome)
            for pane in self.panes
        ]
        self.timeline.draw(self.canvas, self.strip, rows, head, text.status)
        if text.prompt is not None:
            self._card([f"Seed: {text.prompt}_", "Enter starts, Escape leaves"])
        elif self.show_help:
            self._help()
        elif text.waits_for_driver:
            self._pill(f"{self.driving_keys()}, {self.keys.names(Command.HELP)} for help")
        if text.message:
            self._pill(text.message)

    def driving_keys(self) -> str:
        """What a person can do who begins the episode."""
        keys = [self.keys.names(command).split(",")[0] for command in list(DRIVING)[:4]]
        shown = self.panes[0].scene_at(0.0)
        if not isinstance(shown, Picture):
            return f"Your car: {', '.join(keys)} drive"
        if shown.low is not None:
            most = 2 if len(shown.names) == 1 else 4
            return f"You act: {', '.join(keys[::-1][:most])} move {' and '.join(shown.names[:2])}"
        chosen = {DRIVING[command].manoeuvre: self.keys.names(command).split(",")[0] for command in DRIVING}
        names = zip(keys_of(shown.names), shown.names, strict=True)
        pairs = [(chosen[key], name.lower()) for key, name in names if key is not None]
        said = [key if key == name else f"{key} ({name})" for key, name in pairs]
        return f"You act: {', '.join(said)}" if said else "No key chooses an action here: name an expert"

    def _banner(self, outcome: str, road: pygame.Rect) -> None:
        """How the episode ended."""
        if not outcome:
            return
        theme, p = self.theme, self.painter
        colour = {"success": theme.goal, "crash": theme.crash, "failure": theme.crash}.get(outcome, theme.muted)
        piece = p.typist.text(outcome.capitalize(), p.px(20), theme.panel, True)
        width, height = piece.get_width() + p.px(44), piece.get_height() + p.px(14)
        box = pygame.Rect(0, 0, width, height)
        box.center = (road.centerx, road.top + p.px(84))
        pygame.draw.rect(self.canvas, colour, box, border_radius=height // 2)
        self.canvas.blit(piece, piece.get_rect(center=box.center))

    def _pill(self, words: str) -> None:
        """A line at the lower end of the road."""
        p, theme = self.painter, self.theme
        piece = p.typist.fit(words, p.px(12), theme.panel, self.canvas.get_width() - p.px(60))
        box = piece.get_rect().inflate(p.px(28), p.px(14))
        box.midbottom = (self.roads[0].centerx, self.strip.top - p.px(12))
        pygame.draw.rect(self.canvas, theme.ink, box, border_radius=box.height // 2)
        self.canvas.blit(piece, piece.get_rect(center=box.center))

    def _shade(self) -> None:
        veil = pygame.Surface(self.canvas.get_size(), pygame.SRCALPHA)
        veil.fill((*mix(self.theme.panel, self.theme.ground, 0.5), 232))
        self.canvas.blit(veil, (0, 0))

    def _card(self, lines: Sequence[str]) -> None:
        """Words in the middle of the window."""
        p, theme = self.painter, self.theme
        self._shade()
        pieces = [p.typist.text(lines[0], p.px(26), theme.ink, True)]
        pieces += [p.typist.text(line, p.px(13), theme.muted) for line in lines[1:]]
        y = self.canvas.get_height() // 2 - sum(piece.get_height() for piece in pieces)
        for piece in pieces:
            self.canvas.blit(piece, ((self.canvas.get_width() - piece.get_width()) // 2, y))
            y += piece.get_height() + p.px(10)

    def _help(self) -> None:
        p, theme = self.painter, self.theme
        self._shade()
        commands = list(Command)
        half = (len(commands) + 1) // 2
        row = min(p.px(25), (self.canvas.get_height() - p.px(120)) // half)
        left = (self.canvas.get_width() - p.px(820)) // 2
        top = max((self.canvas.get_height() - row * half) // 2, p.px(56))
        p.text(self.canvas, "Keys", left, top - p.px(44), 20, theme.ink, True)
        for number, command in enumerate(commands):
            x, y = left + p.px(420) * (number // half), top + row * (number % half)
            p.right(self.canvas, self.keys.names(command), x + p.px(120), y, 12, theme.ink)
            p.text(self.canvas, WORDS[command], x + p.px(136), y, 12, theme.muted)
