"""The window: one loop that reads input, lets sessions move on, and draws, sixty times a second.

Decisions come at 1 to 5 Hz; between two of them the window shows interpolated scenes. Environments and experts work in
threads of their own, so that a slow one never stops the window. With a `VirtualClock` everything runs in one thread as
fast as it can and gives the same pictures every time: that is how tests run.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pygame

from lgdrl.visualizer import pads
from lgdrl.visualizer.clock import Clock, RealClock
from lgdrl.visualizer.controls import Command, Keymap
from lgdrl.visualizer.inputs import DeviceInput, MouseInput, SeedEntry
from lgdrl.visualizer.pane import Pane, Threads
from lgdrl.visualizer.playback import Playback
from lgdrl.visualizer.recorder import EpisodeRecorder, FilmExport, screenshot
from lgdrl.visualizer.session import PlaySession
from lgdrl.visualizer.view import REFERENCE, MessageLine, WindowText, WindowView
from sim.errors import UsageError
from sim.render import THEMES, ShownRenderer
from sim.render.window import open_display

BANNER_S = 1.6
"""Seconds that the end of an episode stays before the next one starts."""
SWITCH_INTERVAL_S = 0.0002
"""Seconds for which a Python thread may hold the interpreter lock: a frame needs it many times, and with the usual 5 ms
the picture stutters."""


@dataclass
class WindowOptions:
    """How the window starts."""

    seed: int = 0
    episodes: int | None = None  # number of episodes after which the window closes; None: it stays open
    save: Path | None = None  # folder that finished episodes are written to
    outputs: Path = field(default_factory=Path.cwd)  # pictures and films
    theme: str = "light"
    pace: float = 1.0
    draw_every: int = 1  # frames; those between are not drawn (for scripted sessions that are not watched)


def open_window(size: tuple[int, int]) -> None:
    """Open the window that an `App` draws in.

    Args:
        size: Width and height, pixels.
    Raises:
        UsageError: There is no display, and `SDL_VIDEODRIVER` does not name an invisible one.
    """
    try:
        open_display()
        pads.start()
        pygame.display.set_mode(size, pygame.RESIZABLE)
        pygame.display.set_caption("lgdrl")
        pygame.key.set_repeat(0)
    except pygame.error as error:
        raise UsageError(f"cannot open a window ({error}): record without one, lgdrl play --record FILE.mp4") from None


class App:
    """The loop of the open window, on one or two sessions; two are shown on top of each other, at one pace.

    Args:
        sessions: What is shown. At most one of them can be driven by a person.
        options: How the window starts.
        keys: What keys, buttons and axes mean.
        clock: Time of the window; None: the wall clock.
        person: Called before every frame to post input events, beside those of the devices.
    """

    def __init__(
        self,
        sessions: Sequence[PlaySession],
        options: WindowOptions,
        keys: Keymap,
        clock: Clock | None = None,
        person: Callable[[App], None] | None = None,
    ) -> None:
        self.options, self.keys, self.person = options, keys, person
        self.sessions = list(sessions)
        self.hands = next((session.hands for session in sessions if session.hands is not None), None)
        self.clock = clock or RealClock()
        self.message = MessageLine(self.clock)
        self.playback = Playback(options.pace)
        self._switch_interval = sys.getswitchinterval()
        self._threads: Threads | None = None
        if self.clock.threads:
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            self._threads = Threads.started()
        theme = THEMES[options.theme]
        self.panes = [Pane(session, ShownRenderer(REFERENCE, theme), self.clock, self._threads) for session in sessions]
        self.view = WindowView(self.panes, keys, options.theme, self.window.get_size())
        say = self.message.say
        folder = options.save or options.outputs / "recordings"
        self.recorder, self.film = EpisodeRecorder(folder, options.save is not None, say), FilmExport(say)
        self.seed_entry = SeedEntry(self.begin, say)
        self.devices = DeviceInput(keys, self.hands, self.clock, self._commands(), say)
        self.mouse = MouseInput(self.playback, self.view)
        self.seed = options.seed
        self.running = True
        self.episodes = 0
        """Episodes that have ended in this window."""
        self.failure: Exception | None = None
        """What broke in a session; it closes the window."""
        self._frames = 0
        self._ended_at: float | None = None
        self.begin(self.seed)

    # -- loop ----------------------------------------------------------------------------------------------------------

    @property
    def window(self) -> pygame.Surface:
        """The window's surface, at its present size."""
        surface = pygame.display.get_surface()
        assert surface is not None, "open_window comes first"
        return surface

    def run(self) -> None:
        """Until the window is closed. What breaks in a session is raised here."""
        try:
            while self.running:
                self.frame()
        finally:
            self.close()
        if self.failure is not None:
            raise self.failure

    def frame(self) -> None:
        """Read input, move on, draw."""
        if self.person is not None:
            self.person(self)
        for event in pygame.event.get():
            self.handle(event)
        elapsed = self.clock.tick()
        if self.running:
            self.advance(elapsed)
        self._frames += 1
        if self._frames % self.options.draw_every == 0:
            self.draw()
            self.window.blit(self.view.canvas, (0, 0))
            pygame.display.flip()

    def draw(self) -> None:
        """The whole window, on the view's canvas."""
        status = f"seed {self.seed}   {self.playback.pace:g}x"
        if self.playback.paused:
            status = f"paused   {status}"
        if self.recorder.recording and self.live:
            status = f"● REC   {status}"
        text = WindowText(status, self.message.shown, self.seed_entry.text, self.waits_for_driver)
        self.view.draw(self.playback.head, text)

    def close(self) -> None:
        """End the sessions: running work is waited for, experts are interrupted, recorded episodes are kept."""
        self.running = False
        for pane in self.panes:
            pane.interrupt()
        self.film.collect(wait=True)
        if self._threads is not None:
            self._threads.environment.submit(lambda: None).result()  # what is under way comes first
        self._collect()
        self.recorder.keep(self.sessions)
        if self._threads is not None:
            self._threads.expert.shutdown(wait=any(session.waits for session in self.sessions))
        for pane in self.panes:
            pane.close()
        if self._threads is not None:
            self._threads.environment.shutdown()
        sys.setswitchinterval(self._switch_interval)
        pads.stop()
        pygame.display.quit()

    # -- episodes ------------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether a session can be extended: not only recordings are shown."""
        return any(session.live for session in self.sessions)

    @property
    def length(self) -> int:
        """Decisions of the longest track."""
        return max(len(session.track) for session in self.sessions)

    @property
    def over(self) -> bool:
        """Whether every episode has ended, though the playhead may not be there yet."""
        return all(session.track.outcome for session in self.sessions)

    @property
    def waits_for_driver(self) -> bool:
        """Whether the episode waits for the first key of the person who drives it."""
        alone = any(session.autopilot == "human" for session in self.sessions)
        return alone and self.length == 0 and self.hands is not None and not self.hands.engaged

    def begin(self, seed: int) -> None:
        """Start an episode in every session.

        Args:
            seed: Of the episode; of a recording, its number.
        """
        self.recorder.keep(self.sessions)
        for pane in self.panes:
            pane.settle()
        self.seed, self._ended_at = seed, None
        self.playback.rewind()
        self.recorder.begin()
        if self.hands is not None:
            self.hands.hand_back()
        for pane in self.panes:
            pane.begin(seed)
        self._scene_is_new()

    def advance(self, elapsed: float) -> None:
        """Let `elapsed` seconds pass."""
        self._collect()
        self.film.collect()
        if not self.running or self.playback.scrubbing:
            return
        track, playback = self.sessions[0].track, self.playback
        period = max(track.scene(playback.shown(self.length)).decision_period, 1e-3)
        length = self.length
        due = playback.advance(elapsed, period, length)
        if due and self.live and not self.over:
            self._decide()
        if self.over and playback.head >= length:
            self._end()

    def _decide(self) -> None:
        """Make one decision in every session that still runs, as soon as all of them can."""
        waiting = [pane for pane in self.panes if pane.undecided]
        if self.waits_for_driver or any(pane.busy for pane in waiting):
            return
        for pane in waiting:
            if pane.decide():
                self._scene_is_new()

    def _collect(self) -> None:
        """Take what the threads have finished; a failure closes the window."""
        for pane in self.panes:
            try:
                if pane.collect():
                    self._scene_is_new()
            except Exception as error:
                self.failure, self.running = error, False

    def _scene_is_new(self) -> None:
        """A person's reaction time counts from here."""
        if self.hands is not None:
            self.hands.show(self.clock.now())

    def _end(self) -> None:
        """The episode is over: show it for a moment, then go on with the next one."""
        now = self.clock.now()
        if self._ended_at is None:
            self._ended_at = now
            self.episodes += 1
            self.recorder.keep(self.sessions)
        if now - self._ended_at < BANNER_S / max(self.playback.pace, 1.0) or self.playback.paused:
            return
        enough = self.options.episodes is not None and self.episodes >= self.options.episodes
        if enough or any(session.done for session in self.sessions):
            self.running = False
        elif self.live:
            self.begin(self.seed + 1)

    # -- input ---------------------------------------------------------------------------------------------------------

    def handle(self, event: pygame.Event) -> None:
        """One event of a device or of the window."""
        if event.type == pygame.QUIT:
            self.running = False
        elif event.type == pygame.VIDEORESIZE:
            self.view.layout(self.window.get_size())
        elif event.type == pygame.KEYDOWN and self.seed_entry.open:
            self.seed_entry.key(event)
        else:
            self.devices.handle(event)
            self.mouse.handle(event)

    def _commands(self) -> dict[Command, Callable[[], None]]:
        """What every command does that does not drive."""
        playback, view = self.playback, self.view
        return {
            Command.HAND_BACK: self._hand_back,
            Command.PAUSE: playback.toggle_pause,
            Command.STEP: self._step,
            Command.BACK: self._back,
            Command.QUICKER: lambda: playback.change_pace(1),
            Command.CALMER: lambda: playback.change_pace(-1),
            Command.RESTART: lambda: self.begin(self.seed),
            Command.NEXT: lambda: self.begin(self.seed + 1),
            Command.SEED: self.seed_entry.start,
            Command.RECORD: self._record,
            Command.EXPORT: self._export,
            Command.SCREENSHOT: lambda: self.message.say(screenshot(view.canvas, self.options.outputs)),
            Command.ZOOM_IN: lambda: view.zoom(1.2),
            Command.ZOOM_OUT: lambda: view.zoom(1 / 1.2),
            Command.FOLLOW: view.follow,
            Command.PANEL: view.toggle_panel,
            Command.SPEEDS: view.toggle_speeds,
            Command.THEME: view.toggle_theme,
            Command.HELP: view.toggle_help,
            Command.QUIT: self._quit,
        }

    def _hand_back(self) -> None:
        if self.hands is not None:
            self.hands.hand_back()

    def _step(self) -> None:
        self.playback.step(math.inf if self.live and not self.over else float(self.length))

    def _back(self) -> None:
        self.playback.back()
        self.view.reset()

    def _record(self) -> None:
        if self.live:
            self.recorder.toggle(self.sessions)
        else:
            self.message.say("This is a recording already")

    def _export(self) -> None:
        if self.film.busy or not self.length:
            self.message.say("One film at a time" if self.film.busy else "There is nothing to film yet")
            return
        path = self.options.outputs / f"lgdrl-seed-{self.seed}.mp4"
        self.film.start(self.sessions[0].episode(), path, self.view.theme.name)

    def _quit(self) -> None:
        if self.view.show_help:
            self.view.show_help = False
        else:
            self.running = False
