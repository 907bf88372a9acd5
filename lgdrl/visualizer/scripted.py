"""A scripted person: looks at the window, thinks like an expert, and presses keys.

It acts by input events alone, so everything between a key and the recording is exercised as a person would.
"""

from __future__ import annotations

import numpy as np
import pygame

from experts.provider import PolicyProvider
from lgdrl.visualizer.app import FPS, App
from lgdrl.visualizer.controls import DRIVING, Command
from lgdrl.visualizer.session import DriveSession
from sim.actions import MetaAction

COMMANDS = {held.manoeuvre: command for command, held in DRIVING.items()}


class Puppet:
    """Taps the key of what `expert` would do, once per decision.

    It does so `reaction_s` seconds (at pace 1) after the scene came up.
    """

    def __init__(self, expert: PolicyProvider, reaction_s: float = 0.15) -> None:
        self.expert, self.reaction_s = expert, reaction_s
        self._seen: tuple[int, int] | None = None
        self._due: float | None = None
        self._held: list[int] = []

    def __call__(self, app: App) -> None:
        for held in self._held:
            post_key(held, down=False)
        self._held = []
        session = app.panes[0].session
        if not isinstance(session, DriveSession) or session.track.outcome:
            return
        moment = (app.episodes, len(session.track))
        if moment != self._seen:
            self._seen, self._due = moment, app.clock.now() + self.reaction_s / app.pace
        if self._due is not None and app.clock.now() + 1 / FPS > self._due:
            self._due = None
            key = self._key(app, session)
            if key is not None:
                post_key(key)
                self._held.append(key)

    def _key(self, app: App, session: DriveSession) -> int | None:
        thought = session.track.last
        assert thought is not None
        action = self.expert.decide([session.context(thought, branch=True)])[0].action
        if action is None or isinstance(action, np.ndarray):
            return None
        command: Command = COMMANDS[thought.scene.meanings[action]]
        if command is COMMANDS[MetaAction.IDLE] and app.hands is not None and app.hands.engaged:
            return None  # no key is the way to say so
        return next(code for code, each in app.keys.keys.items() if each is command)


def post_key(key: int, down: bool = True, unicode: str = "") -> None:
    """A key event as the keyboard makes it."""
    kind = pygame.KEYDOWN if down else pygame.KEYUP
    pygame.event.post(pygame.Event(kind, key=key, mod=0, unicode=unicode, scancode=0))
