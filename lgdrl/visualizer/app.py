"""The window: one loop that reads input, lets sessions move on, and draws, sixty times a second.

Decisions come at 1 to 5 Hz; between two of them the window shows interpolated scenes. Worlds and experts work in
threads of their own, so that a slow one never stops the window. With a `VirtualClock` everything runs in one thread as
fast as it can and gives the same pictures every time: that is how tests run.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pygame
import torch

from experts.data.episodes import add_episode, save_episode
from lgdrl.visualizer.controls import DRIVING, HAT, WORDS, Command, Keymap
from lgdrl.visualizer.panel import Curve, Painter, Panel, State, Timeline
from lgdrl.visualizer.session import Session, Thought, divergence, thought_of
from sim.errors import UsageError
from sim.lane_change import TTC_WARNING
from sim.render import THEMES, Overlay, SceneRenderer
from sim.render.palette import Theme, mix
from sim.render.text import Typist
from sim.scene import Scene

FPS = 60
SMALLEST = (640, 400)
PACES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
BANNER_S = 1.6
"""Seconds that the end of an episode stays before the next one starts."""
TOAST_S = 3.0
LONGEST_TTC = 10.0
"""s: the top of the chart."""
TURN_S = 0.0002
"""Seconds for which a thread of Python may hold up the others: a frame takes many turns, and the usual 5 ms show."""
REFERENCE = (1280, 720)
"""Window at which sizes are meant as written."""


class Clock(Protocol):
    """Time of the window."""

    threads: bool
    """Whether sessions may work beside the loop."""

    def now(self) -> float:
        """Seconds."""
        ...

    def tick(self) -> float:
        """Wait for the next frame; seconds since the last one."""
        ...


class RealClock:
    """The time on the wall, at most `FPS` frames a second."""

    threads = True

    def __init__(self) -> None:
        self._clock = pygame.time.Clock()

    def now(self) -> float:
        return time.perf_counter()

    def tick(self) -> float:
        return min(self._clock.tick(FPS) / 1000.0, 0.1)


class VirtualClock:
    """Every frame takes 1 / `FPS` seconds by definition."""

    threads = False

    def __init__(self) -> None:
        self._frames = 0

    def now(self) -> float:
        return self._frames / FPS

    def tick(self) -> float:
        self._frames += 1
        return 1.0 / FPS


def _thread(name: str) -> ThreadPoolExecutor:
    """One thread, in which torch computes alone: its own helpers would take the window's time."""
    return ThreadPoolExecutor(1, name, lambda: torch.set_num_threads(1))


@dataclass
class Pane:
    """One session with its view of the road and what it is busy with."""

    session: Session
    renderer: SceneRenderer
    acting: Future | None = None
    thinking: Future | None = None
    asked_at: float = 0.0
    asked: Thought | None = None
    """The thought that `thinking` completes."""
    series: list[tuple[float, float, float | None]] = field(default_factory=list)
    """Speed (m/s), time-to-collision ahead (s), JS (nats) at every decision of the episode so far."""


@dataclass
class Options:
    """How the window starts."""

    seed: int = 0
    episodes: int | None = None  # leave after that many; None: go on
    save: Path | None = None  # folder that finished episodes are written to
    outputs: Path = field(default_factory=Path.cwd)  # pictures and films
    theme: str = "light"
    pace: float = 1.0
    draw_every: int = 1  # frames; the others only move on (for scripted sessions that nobody watches)


def open_window(size: tuple[int, int]) -> None:
    """The window that an `App` draws in. UsageError where there is no display."""
    try:
        pygame.display.init()
        pygame.joystick.init()
        pygame.display.set_mode(size, pygame.RESIZABLE)
        pygame.display.set_caption("lgdrl")
        pygame.key.set_repeat(0)
    except pygame.error as error:
        raise UsageError(f"cannot open a window ({error}): record without one, lgdrl play --record FILE.mp4") from None


class App:
    """The loop of the open window, on one or two sessions; two are shown on top of each other, at one pace.

    Args: sessions, of which at most one has hands; options; key map; a clock; who feeds input events before every
        frame, if not (only) the devices.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        options: Options,
        keys: Keymap,
        clock: Clock | None = None,
        puppet: Callable[[App], None] | None = None,
    ) -> None:
        self.options, self.keys, self.puppet = options, keys, puppet
        self.hands = next((session.hands for session in sessions if session.hands is not None), None)
        self.clock = clock or RealClock()
        self.theme: Theme = THEMES[options.theme]
        self.typist = Typist()
        self.panes = [
            Pane(session, SceneRenderer(size=REFERENCE, theme=self.theme, strip=False)) for session in sessions
        ]
        self._turn = sys.getswitchinterval()
        if self.clock.threads:
            sys.setswitchinterval(TURN_S)
        self.worker = _thread("world") if self.clock.threads else None
        self.adviser = _thread("expert") if self.clock.threads else None
        self.pads: dict[int, Any] = {}
        self.seed = options.seed
        self.head = 0.0
        """The playhead, in decisions since the episode's start."""
        self.pace, self.paused = options.pace, False
        self.running = True
        self.episodes = 0
        """Episodes that have ended in this window."""
        self.saved: list[Path] = []
        self.film: tuple[subprocess.Popen, Path, Path] | None = None
        """Who is filming, what into, and the folder that it films from."""
        self.recording = options.save is not None
        self.show_panel, self.show_help, self.show_speeds = True, False, False
        self.typing: str | None = None
        self._frames = 0
        self.toast, self._toast_until = "", 0.0
        self._ended_at: float | None = None
        self._step_to: float | None = None
        self._scrubbing = False
        self._kept = False
        self.failure: Exception | None = None
        self._layout()
        self.begin(self.seed)

    # -- window --------------------------------------------------------------------------------------------------------

    @property
    def window(self) -> pygame.Surface:
        """The window's surface, at its present size."""
        surface = pygame.display.get_surface()
        assert surface is not None, "open_window comes first"
        return surface

    def _layout(self) -> None:
        """Rectangles for the window's present size."""
        width, height = (max(a, b) for a, b in zip(self.window.get_size(), SMALLEST, strict=True))
        self.canvas = pygame.Surface((width, height), 0, 32)
        self.scale = min(max(min(width / REFERENCE[0], height / REFERENCE[1]), 0.62), 3.0)
        painter = Painter(self.theme, self.typist, self.scale)
        self.painter, self.panel, self.timeline = painter, Panel(painter), Timeline(painter)
        strip = painter.px(44)
        side = min(max(painter.px(330), 220), width // 2) if self.show_panel else 0
        self.strip = pygame.Rect(0, height - strip, width, strip)
        each = (height - strip) // len(self.panes)
        self.roads, self.sides = [], []
        for k, pane in enumerate(self.panes):
            self.roads.append(pygame.Rect(0, k * each, width - side, each - (1 if len(self.panes) > 1 else 0)))
            self.sides.append(pygame.Rect(width - side, k * each, side, each))
            pane.renderer.resize(self.roads[k].size)
            pane.renderer.show_speeds = self.show_speeds

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
        if self.puppet is not None:
            self.puppet(self)
        for event in pygame.event.get():
            self.handle(event)
        self.advance(self.clock.tick())
        self._frames += 1
        if self._frames % self.options.draw_every == 0:
            self.draw()
            self.window.blit(self.canvas, (0, 0))
            pygame.display.flip()

    def close(self) -> None:
        """End the sessions: what is running is waited for, experts are told to end, what was recorded is kept."""
        self.running = False
        for pane in self.panes:
            pane.session.interrupt()
            if pane.thinking is not None:
                pane.thinking.cancel()
        self._collect_film(wait=True)
        if self.worker is not None:
            self.worker.shutdown()
        for pane in self.panes:
            self._collect(pane)
        self.keep_episode()
        if self.adviser is not None:
            self.adviser.shutdown(wait=any(pane.session.waits for pane in self.panes))
        for pane in self.panes:
            pane.session.close()
            pane.renderer.close()
        sys.setswitchinterval(self._turn)
        pygame.display.quit()

    # -- episodes ------------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        return any(pane.session.live for pane in self.panes)

    @property
    def length(self) -> int:
        """Decisions of the longest track."""
        return max(len(pane.session.track) for pane in self.panes)

    @property
    def over(self) -> bool:
        """Whether every episode has ended, as far as the worlds are concerned."""
        return all(pane.session.track.outcome for pane in self.panes)

    @property
    def starts_by_hand(self) -> bool:
        """Whether the episode waits for the first key of the person who is to drive it."""
        alone = any(pane.session.autopilot == "human" for pane in self.panes)
        return alone and self.length == 0 and self.hands is not None and not self.hands.engaged

    @property
    def shown(self) -> int:
        """The decision under way on the screen."""
        return min(int(self.head), max(self.length - 1, 0))

    def begin(self, seed: int) -> None:
        """Start an episode in every session."""
        self.keep_episode()
        self._settle()
        self.seed, self.head, self._ended_at, self._step_to, self._kept = seed, 0.0, None, None, False
        if self.hands is not None:
            self.hands.hand_back()
        for pane in self.panes:
            pane.session.begin(seed)
            pane.series.clear()
            pane.renderer.reset()
            self._ask(pane)
        if self.hands is not None:
            self.hands.show(self.clock.now())

    def _settle(self) -> None:
        """Wait for worlds that are moving; forget advice that is still on its way."""
        for pane in self.panes:
            if pane.acting is not None:
                pane.acting.result()
            if pane.thinking is not None and pane.session.waits:
                pane.thinking.result()
            pane.acting = pane.thinking = None

    @property
    def recordings(self) -> Path:
        """The folder that episodes are kept in."""
        return self.options.save or self.options.outputs / "recordings"

    def keep_episode(self) -> None:
        """Write the present episodes, if they are to be recorded and something happened."""
        if not self.recording or self._kept or not self.live:
            return
        for pane in self.panes:
            if not pane.session.live or not len(pane.session.track):
                continue
            try:
                self.saved.append(add_episode(self.recordings, pane.session.episode()))
                self.say(f"Saved {self.saved[-1]}")
            except UsageError as error:
                self.say(str(error))
        self._kept = True

    # -- moving on -----------------------------------------------------------------------------------------------------

    def advance(self, elapsed: float) -> None:
        """Let `elapsed` seconds pass."""
        for pane in self.panes:
            self._collect(pane)
        self._collect_film()
        if not self.running:
            return
        period = max(self.panes[0].session.track.scene(self.shown).decision_period, 1e-3)
        limit = float(self.length)
        if self._scrubbing:
            return
        if self._step_to is not None:
            self.head = min(self.head + elapsed / 0.25, self._step_to)
            if self.head >= self._step_to:
                self._step_to = None
        elif not self.paused:
            self.head += elapsed * self.pace / period
        wanted = self.head >= limit and (not self.paused or self._step_to is not None)
        self.head = min(self.head, limit)
        if wanted and self.live and not self.over:
            self._decide_all()
        if self.over and self.head >= limit:
            self._end()

    def _decide_all(self) -> None:
        """Make one decision in every session that still runs, as soon as all of them can."""
        if self.starts_by_hand:
            return
        waiting = [pane for pane in self.panes if pane.session.live and not pane.session.track.outcome]
        if any(pane.acting is not None or (pane.thinking is not None and self._patient(pane)) for pane in waiting):
            return
        for pane in waiting:
            if self.worker is None:
                pane.session.act()
                self._shown(pane)
            else:
                if pane.thinking is None:
                    pane.asked_at = self.clock.now()
                pane.acting = self.worker.submit(pane.session.act)

    def _patient(self, pane: Pane) -> bool:
        """Whether a decision waits for the expert. A person who drives does not wait for a language model."""
        hands = pane.session.hands
        return pane.session.waits or hands is None or not hands.engaged

    def _collect(self, pane: Pane) -> None:
        """Take what the threads have finished."""
        try:
            if pane.acting is not None and pane.acting.done():
                job, pane.acting = pane.acting, None
                job.result()
                self._shown(pane)
            if pane.thinking is not None and pane.thinking.done():
                job, pane.thinking = pane.thinking, None
                job.result()
                last, asked = pane.session.track.last, pane.asked
                if last is not None and asked is not None and last.scene is not asked.scene:
                    self._ask(pane)  # the person went on without the answer
        except Exception as error:
            self.failure, self.running = error, False

    def _shown(self, pane: Pane) -> None:
        """A new state has come up."""
        if self.hands is not None:
            self.hands.show(self.clock.now())
        if pane.thinking is None:
            self._ask(pane)

    def _ask(self, pane: Pane) -> None:
        pane.asked_at, pane.asked = self.clock.now(), pane.session.track.last
        if self.adviser is None:
            pane.session.think()
        elif self.running and pane.session.live and not pane.session.track.outcome:
            pane.thinking = self.adviser.submit(pane.session.think)

    def _end(self) -> None:
        """The episode is over: show it for a moment, then go on with the next one."""
        now = self.clock.now()
        if self._ended_at is None:
            self._ended_at = now
            self.episodes += 1
            self.keep_episode()
        last = self.options.episodes is not None and self.episodes >= self.options.episodes
        last = last or any(pane.session.done for pane in self.panes)
        if now - self._ended_at < BANNER_S / max(self.pace, 1.0) or self.paused:
            return
        if last:
            self.running = False
        elif self.live:
            self.begin(self.seed + 1)

    # -- input ---------------------------------------------------------------------------------------------------------

    def handle(self, event: pygame.Event) -> None:
        """One event of a device or of the window."""
        kind = event.type
        if kind == pygame.QUIT:
            self.running = False
        elif kind == pygame.VIDEORESIZE:
            self._layout()
        elif kind == pygame.WINDOWFOCUSLOST and self.hands is not None:
            self.hands.let_go()
        elif kind == pygame.KEYDOWN and self.typing is not None:
            self._type(event)
        elif kind in (pygame.KEYDOWN, pygame.KEYUP):
            command = self.keys.keys.get(event.key)
            if command is not None:
                self.command(command, f"key {event.key}", kind == pygame.KEYDOWN)
        elif kind in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP):
            command = self.keys.buttons.get(event.button)
            if command is not None:
                self.command(command, f"button {event.button}", kind == pygame.JOYBUTTONDOWN)
        elif kind == pygame.JOYHATMOTION:
            self._hat(event)
        elif kind == pygame.JOYAXISMOTION:
            self._axis(event)
        elif kind == pygame.JOYDEVICEADDED:
            pad = pygame.joystick.Joystick(event.device_index)
            self.pads[pad.get_instance_id()] = pad
            self.say(f"Gamepad: {pad.get_name()}")
        elif kind == pygame.JOYDEVICEREMOVED:
            self.pads.pop(event.instance_id, None)
            if self.hands is not None:
                self.hands.let_go()
            self.say("Gamepad unplugged: nothing is held any more")
        elif kind == pygame.MOUSEWHEEL:
            for pane in self.panes:
                pane.renderer.zoom_by(1.1**event.y)
        elif kind == pygame.MOUSEBUTTONDOWN and event.button == 1 and self.strip.collidepoint(event.pos):
            self._scrubbing = True
            self._scrub(event.pos[0])
        elif kind == pygame.MOUSEMOTION and event.buttons[0]:
            if self._scrubbing:
                self._scrub(event.pos[0])
            else:
                for pane in self.panes:
                    pane.renderer.pan(*event.rel)
        elif kind == pygame.MOUSEBUTTONUP:
            self._scrubbing = False

    def command(self, command: Command, source: str = "", down: bool = True) -> None:
        """Do what a key or button stands for. `source` names it, so that holding several of them works."""
        if command in DRIVING:
            self._drive(command, source, down)
        elif down:
            getattr(self, f"_on_{command.value}")()

    def _drive(self, command: Command, source: str, down: bool) -> None:
        hands = self.hands
        if hands is None:
            if down:
                self.say("Nobody can drive here: this is a recording")
            return
        if down:
            hands.press(source, DRIVING[command], self.clock.now())
        else:
            hands.release(source)

    def _hat(self, event: pygame.Event) -> None:
        for direction, command in HAT.items():
            if tuple(event.value) == direction:
                self._drive(command, f"hat {direction}", True)
            elif self.hands is not None:
                self.hands.release(f"hat {direction}")

    def _axis(self, event: pygame.Event) -> None:
        axes, hands = self.keys.axes, self.hands
        if hands is None:
            return
        if event.axis == axes.steering:
            value = event.value if abs(event.value) > axes.dead_zone else 0.0
            hands.steer(None, value, self.clock.now())
        elif event.axis in (axes.throttle, axes.brake):
            share = (event.value + 1.0) / 2.0
            sign = 1.0 if event.axis == axes.throttle else -1.0
            hands.steer(sign * share if share > axes.dead_zone else 0.0, None, self.clock.now())

    def _scrub(self, x: int) -> None:
        self.head = min(self.timeline.decision_at(x), float(self.length))
        self.paused = True

    def _type(self, event: pygame.Event) -> None:
        """The seed entry."""
        assert self.typing is not None
        if event.key == pygame.K_ESCAPE:
            self.typing = None
        elif event.key == pygame.K_BACKSPACE:
            self.typing = self.typing[:-1]
        elif event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            text, self.typing = self.typing, None
            if text:
                self.begin(int(text))
        elif event.unicode.isdigit() and len(self.typing) < 9:
            self.typing += event.unicode
        elif event.unicode:
            self.say(f"{event.unicode!r} is not a digit: seeds are whole numbers")

    def _on_hand_back(self) -> None:
        if self.hands is not None:
            self.hands.hand_back()

    def _on_pause(self) -> None:
        self.paused = not self.paused

    def _on_step(self) -> None:
        self.paused = True
        self._step_to = float(int(self.head) + 1)
        if self._step_to > self.length and (not self.live or self.over):
            self._step_to = None

    def _on_back(self) -> None:
        self.paused, self._step_to = True, None
        self.head = max(float(int(self.head - 1e-6)), 0.0)
        self._jump()

    def _jump(self) -> None:
        for pane in self.panes:
            pane.renderer.reset()

    def _on_quicker(self) -> None:
        self._set_pace(1)

    def _on_calmer(self) -> None:
        self._set_pace(-1)

    def _set_pace(self, step: int) -> None:
        nearest = min(range(len(PACES)), key=lambda k: abs(PACES[k] - self.pace))
        self.pace = PACES[min(max(nearest + step, 0), len(PACES) - 1)]

    def _on_restart(self) -> None:
        self.begin(self.seed)

    def _on_next(self) -> None:
        self.begin(self.seed + 1)

    def _on_seed(self) -> None:
        self.typing = ""

    def _on_record(self) -> None:
        if not self.live:
            self.say("This is a recording already")
            return
        if self.recording:
            self.keep_episode()
        self.recording = not self.recording
        self.say("Recording every episode" if self.recording else "Recording stopped")

    def _on_export(self) -> None:
        """A process of its own films the recorded episode, so that the window goes on."""
        if self.film is not None or not self.length:
            self.say("One film at a time" if self.film else "There is nothing to film yet")
            return
        path = self.options.outputs / f"lgdrl-seed-{self.seed}.mp4"
        folder = Path(tempfile.mkdtemp(prefix="lgdrl-film-"))
        recording = save_episode(folder / "episode.npz", self.panes[0].session.episode())
        command = [sys.executable, "-m", "lgdrl.cli", "play", str(recording), "--record", str(path)]
        command += ["--theme", self.theme.name]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.film = process, path, folder
        self.say(f"Filming into {path} ...")

    def _collect_film(self, wait: bool = False) -> None:
        """Say that the film is there, or why it is not."""
        if self.film is None or (not wait and self.film[0].poll() is None):
            return
        (process, path, folder), self.film = self.film, None
        words = process.communicate()[1].strip()
        shutil.rmtree(folder, ignore_errors=True)
        self.say(f"Film: {path}" if process.returncode == 0 else words.splitlines()[-1] if words else "No film")

    def _on_screenshot(self) -> None:
        number = 1
        while (path := self.options.outputs / f"lgdrl-{number:03d}.png").exists():
            number += 1
        try:
            pygame.image.save(self.canvas, path)
            self.say(f"Picture: {path}")
        except (pygame.error, OSError) as error:
            self.say(f"Cannot write {path}: {error}")

    def _on_zoom_in(self) -> None:
        for pane in self.panes:
            pane.renderer.zoom_by(1.2)

    def _on_zoom_out(self) -> None:
        for pane in self.panes:
            pane.renderer.zoom_by(1 / 1.2)

    def _on_follow(self) -> None:
        for pane in self.panes:
            pane.renderer.follow()

    def _on_panel(self) -> None:
        self.show_panel = not self.show_panel
        self._layout()

    def _on_speeds(self) -> None:
        self.show_speeds = not self.show_speeds
        self._layout()

    def _on_theme(self) -> None:
        self.theme = THEMES["dark" if self.theme.name == "light" else "light"]
        for pane in self.panes:
            pane.renderer.set_theme(self.theme)
        self._layout()

    def _on_help(self) -> None:
        self.show_help = not self.show_help

    def _on_quit(self) -> None:
        if self.show_help:
            self.show_help = False
        else:
            self.running = False

    def say(self, words: str) -> None:
        """Show a line for a few seconds."""
        self.toast, self._toast_until = words, self.clock.now() + TOAST_S

    # -- drawing -------------------------------------------------------------------------------------------------------

    def scene_at(self, pane: Pane, head: float) -> Scene:
        """The scene at a playhead, between two decisions."""
        track = pane.session.track
        k = min(int(head), len(track))
        return track.between(k, head - k)

    def state_at(self, pane: Pane, head: float) -> State:
        """What the panel shows at a playhead: the decision under way, or the one that is due."""
        track = pane.session.track
        k, hands = int(head), pane.session.hands
        curves = self._curves(pane, head)
        if k < len(track):
            turn = track.turns[k]
            executed = int(turn.action) if not hasattr(turn.action, "shape") else None
            thought, controller, reward, terms = thought_of(turn), turn.controller, turn.reward, turn.terms
            distance = pane.series[k][2]
        else:
            assert track.last is not None
            thought, executed, reward, terms = track.last, None, None, None
            distance = divergence(thought)
            controller = "human" if hands is not None and hands.engaged else pane.session.autopilot
            if track.turns and (track.outcome or not pane.session.live):
                controller = track.turns[-1].controller
        busy = pane.thinking is not None or pane.acting is not None
        waiting = self.clock.now() - pane.asked_at if busy else 0.0
        total = float(track.rewards[: k + 1].sum()) if len(track) else 0.0
        return State(
            thought,
            controller,
            executed,
            reward,
            total,
            waiting,
            distance,
            tuple(pane.session.facts()),
            curves,
            pane.session.expert_name,
            track.saying if thought is track.last and thought.expert is None else "",
            terms,
        )

    def _curves(self, pane: Pane, head: float) -> tuple[Curve, ...]:
        track, series = pane.session.track, pane.series
        if len(series) > len(track):
            series.clear()
        while len(series) < len(track):
            turn = track.turns[len(series)]
            front = turn.scene.front(turn.scene.ego.lane)
            ttc = math.nan if front is None else min(front.ttc, LONGEST_TTC)
            series.append((turn.scene.ego.speed, ttc, divergence(thought_of(turn))))
        speeds, ttcs = [row[0] for row in series], [row[1] for row in series]
        distances = [math.nan if row[2] is None else row[2] for row in series]
        points = track.scene(0).set_points
        curves = [
            Curve("Speed", "m/s", speeds, head, 0.0, max([points[-1] if points else 30.0, *speeds])),
            Curve("Time to collision ahead", "s", ttcs, head, 0.0, LONGEST_TTC, alarm=TTC_WARNING),
        ]
        if any(value == value for value in distances):
            curves.append(Curve("JS of learner and expert", "nats", distances, head, 0.0, math.log(2), digits=2))
        return tuple(curves)

    def draw(self) -> None:
        """The whole window, on the canvas."""
        for pane, road, side in zip(self.panes, self.roads, self.sides, strict=True):
            state = self.state_at(pane, self.head)
            overlay = Overlay(controller=state.controller, executed_action=state.executed, unsafe=state.thought.unsafe)
            picture = pane.renderer.draw_surface(self.scene_at(pane, self.head), overlay)
            self.canvas.blit(picture, road.topleft)
            if self.show_panel:
                self.panel.draw(self.canvas, side, state, pane.session.title)
            self._banner(pane, road)
        self._strip()
        if self.typing is not None:
            self._card([f"Seed: {self.typing}_", "Enter starts, Escape leaves"])
        elif self.show_help:
            self._help()
        elif self.starts_by_hand:
            keys = [self.keys.names(command).split(",")[0] for command in list(DRIVING)[:4]]
            self._pill(f"Your car: {', '.join(keys)} drive, {self.keys.names(Command.HELP)} for help")
        if self.toast and self.clock.now() < self._toast_until:
            self._pill(self.toast)

    def _strip(self) -> None:
        rows = [
            ([(turn.controller, turn.expert_status) for turn in pane.session.track.turns], pane.session.track.outcome)
            for pane in self.panes
        ]
        words = f"seed {self.seed}   {self.pace:g}x"
        if self.paused:
            words = f"paused   {words}"
        if self.recording and self.live:
            words = f"● REC   {words}"
        self.timeline.draw(self.canvas, self.strip, rows, self.head, words)

    def _banner(self, pane: Pane, road: pygame.Rect) -> None:
        """How the episode ended."""
        track, theme, p = pane.session.track, self.theme, self.painter
        if not track.outcome or self.head < len(track):
            return
        colour = {"success": theme.goal, "crash": theme.crash}.get(track.outcome, theme.muted)
        piece = p.typist.text(track.outcome.capitalize(), p.px(20), theme.panel, True)
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
